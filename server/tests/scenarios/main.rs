//! Arrow's own client for Flight's integration tests, against the service with a backend that knows its fixed statements.
//!
//! Tickets, sessions, handles, logins, cancel, renew, poll and encoding are the real ones. What the scenarios ask beside SQL is
//! in `route.rs`. `NEXUS_SCENARIOS_CLIENT` is the client, `arrow-flight-integration-client` of Arrow for Go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod actions;
mod backend;
mod route;

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::middleware::from_fn;
use nexus_server::config::Config;
use nexus_server::gateway::Gateway;
use nexus_server::serve;
use nexus_server::wire::auth::hash_password;
use nexus_server::workers::Workers;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::backend::Backend;
use crate::route::{Route, middleware};

const SCENARIOS: [&str; 14] = [
    "app_metadata_flight_info_endpoint",
    "auth:basic_proto",
    "expiration_time:cancel_flight_info",
    "expiration_time:do_get",
    "expiration_time:list_actions",
    "expiration_time:renew_flight_endpoint",
    "flight_sql",
    "flight_sql:extension",
    "flight_sql:ingestion",
    "location:reuse_connection",
    "middleware",
    "ordered",
    "poll_flight_info",
    "session_options",
];

#[tokio::test]
#[ignore = "it wants Arrow's client, which make test PARTS=scenarios builds"]
async fn every_scenario_passes() {
    let client = env::var("NEXUS_SCENARIOS_CLIENT").expect("NEXUS_SCENARIOS_CLIENT names the client");
    let mut failed = Vec::new();
    for scenario in SCENARIOS {
        let address = serve(scenario).await;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let arguments = ["-host", &host, "-port", &port, "-scenario", scenario];
        let done = Command::new(&client).args(arguments).kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        println!("{scenario}: {}", if done.status.success() { "ok" } else { "FAILED" });
        if !done.status.success() {
            failed.push(format!("{scenario}: {said}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Serves a scenario for as long as the test runs.
async fn serve(scenario: &'static str) -> SocketAddr {
    let config = Config::parse(&configuration(scenario), Path::new("nexus.toml"), &|_| None).unwrap();
    let gateway = Gateway::new(&config, Workers::here(), None).unwrap();
    let mut service = serve::service(&config, &gateway);
    service.execute = Arc::new(Backend);
    let service = Arc::new(service);
    let route = Route::new(scenario, Arc::clone(&service));
    let routes = Routes::from(serve::routes(Arc::new(route), service).layer(from_fn(middleware)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn configuration(scenario: &str) -> String {
    let settings = match scenario {
        "auth:basic_proto" => {
            let hash = hash_password("flight".into()).unwrap();
            format!("[auth]\nmode = \"basic\"\n[auth.users.arrow]\npassword_hash = '{hash}'\n")
        }
        "location:reuse_connection" => "[flight]\nlocation = \"arrow-flight-reuse-connection://?\"\n".to_owned(),
        _ => String::new(),
    };
    format!("{settings}[catalogs.catalog]\nkind = \"memory\"\n")
}
