//! `nexus serve`: listens, serves, and ends when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use nexus_flight_catalog::{Error, Place, Result};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::config::Config;
use crate::flight::commands::{self, Metadata};
use crate::flight::endpoints::Endpoints;
use crate::flight::frames;
use crate::flight::metadata::Facts;
use crate::flight::service::Service;
use crate::flight::status;
use crate::flight::transactions::Handles;
use crate::gateway::Gateway;
use crate::http;
use crate::statement::{self, Caps};
use crate::transactions::Transactions;
use crate::wire::connection::Port;
use crate::wire::hello::{Incoming, Speaks};
use crate::wire::tls::Tls;
use crate::wire::{auth, body, serving};

/// The largest message of who asks for health.
const LARGEST_QUESTION: usize = 4 << 10;
/// Upper bounds of the duration histogram, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Both ports, bound, with the certificate of both.
pub struct Listeners {
    flight: TcpListener,
    http: TcpListener,
    tls: Option<Tls>,
}

impl Listeners {
    /// Binds the configured addresses. Errors: `Unavailable` with the address, and what may hold it; `Invalid` for a certificate
    /// that cannot be used.
    pub fn bind(config: &Config) -> Result<Self> {
        let tls = config.tls.as_ref().map(|tls| Tls::open(tls, &config.base)).transpose()?;
        let flight = bind("flight.listen", config.flight.listen.0)?;
        let http = bind("http.listen", config.http.listen.0)?;
        Ok(Self { flight, http, tls })
    }

    /// The addresses in use: Flight, HTTP.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| Error::internal("a bound port has no address").caused_by(error))
        };
        Ok((address(&self.flight)?, address(&self.http)?))
    }
}

/// How many connections may come at once and wait to be accepted: beyond that each waits a second until it tries again.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As a listener has it that is bound without a socket of its own: a port is free again at once when the gateway has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    listen(address).map_err(|error| {
        let (reason, hint) = match error.kind() {
            std::io::ErrorKind::AddrInUse => ("another program listens there".to_owned(), "stop the other program, or"),
            std::io::ErrorKind::PermissionDenied => ("the system does not permit it".to_owned(), "take a port above 1023:"),
            std::io::ErrorKind::AddrNotAvailable => {
                ("this machine has no such address".to_owned(), "take one that it has, or 0.0.0.0 for all of them:")
            }
            _ => (error.to_string(), "choose another address:"),
        };
        Error::unavailable(format!("cannot listen on {address}: {reason}"))
            .with_hint(format!("{hint} set another {key}"))
            .at(Place::Key(key.to_owned()))
            .caused_by(error)
    })
}

/// Collects metrics for the whole process; to be called once.
pub fn metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Error::internal("metrics cannot be collected").caused_by(error))?;
    metrics::describe_counter!("nexus_statements_total", "Statements that ended, by protocol and outcome.");
    metrics::describe_gauge!("nexus_statements_running", "Statements that run or wait.");
    metrics::describe_gauge!(
        "nexus_slots_used",
        "Slots of limits.concurrency that statements have, until the last of their work."
    );
    metrics::describe_gauge!("nexus_statements_waiting", "Statements that wait for a slot, or are planned and will want one.");
    metrics::describe_gauge!("nexus_memory_reserved_bytes", "What statements hold of limits.memory.");
    metrics::describe_histogram!("nexus_statement_seconds", "From the arrival of a statement to the end of its rows.");
    metrics::describe_counter!("nexus_rows_sent_total", "Rows sent.");
    metrics::describe_counter!("nexus_cache_hits_total", "Statements that were answered from the cache.");
    metrics::describe_counter!("nexus_cache_stale_total", "Statements that were answered from the cache, perhaps out of date.");
    metrics::describe_counter!("nexus_cache_refreshes_total", "Answers made anew since one was out of date, by outcome.");
    metrics::describe_counter!("nexus_cache_misses_total", "Statements whose answer was made, since the cache had none.");
    metrics::describe_counter!("nexus_cache_joined_total", "Statements that were given what was being made for another one.");
    metrics::describe_counter!("nexus_cache_bypasses_total", "Statements that were answered past the cache, by reason.");
    metrics::describe_counter!("nexus_cache_evictions_total", "Answers that the cache keeps no more, by reason.");
    metrics::describe_gauge!("nexus_cache_entries", "Answers that the cache keeps.");
    metrics::describe_gauge!("nexus_cache_bytes", "What they take of cache.size.");
    metrics::describe_counter!("nexus_cache_batches_encoded_total", "Batches of the cache that were made into messages.");
    metrics::describe_counter!("nexus_cache_batches_shared_total", "Batches of the cache whose messages were there.");
    metrics::describe_histogram!("nexus_cache_saved_seconds", "What it took to make an answer, each time it is given again.");
    metrics::describe_counter!("nexus_plans_made_total", "Statements that were planned anew.");
    metrics::describe_counter!("nexus_plans_reused_total", "Statements whose plan was there from an earlier time.");
    metrics::describe_counter!("nexus_reload_failures_total", "Changed files that could not be taken over, by what they are.");
    metrics::describe_counter!("nexus_statements_refused_total", "Statements for which there was no room.");
    metrics::describe_counter!("nexus_audit_failures_total", "Records of the audit trail that could not be written.");
    metrics::describe_gauge!("nexus_lanes_replaced", "Threads of statements in whose place there are others, as lanes.");
    metrics::describe_gauge!("nexus_engine_up", "Whether an engine takes statements: 1 where it does, by catalog.");
    metrics::describe_gauge!("nexus_engine_running", "Statements that an engine worked on when it was asked last, by catalog.");
    metrics::describe_gauge!("nexus_engine_queued", "Statements that waited at an engine when it was asked last, by catalog.");
    metrics::describe_counter!(
        "nexus_engine_failures_total",
        "Calls and probes of an engine that ended as unavailable, by catalog."
    );
    metrics::describe_counter!("nexus_engine_refusals_total", "Calls that an engine was not asked, by catalog and reason.");
    metrics::describe_histogram!("nexus_engine_probe_seconds", "How long an engine took to say how it is, by catalog.");
    metrics::describe_counter!("nexus_refused_credentials_total", "Requests without good credentials.");
    // What is counted first would be no rise of a number that was not there, and no alert would see it.
    metrics::counter!("nexus_statements_refused_total").increment(0);
    metrics::counter!("nexus_audit_failures_total").increment(0);
    metrics::counter!("nexus_refused_credentials_total").increment(0);
    Ok(handle)
}

/// Serves until `stop` fires, then for as long as streams run, within the grace time.
pub async fn serve(
    config: &Config,
    gateway: Arc<Gateway>,
    listeners: Listeners,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<()> {
    let (_, http) = listeners.addresses()?;
    let Listeners { flight: of_flight, http: of_http, tls } = listeners;
    if let Some(tls) = &tls {
        gateway.authenticator.certificates_of(tls.clone());
    }
    let incoming = |listener, speaks| Incoming::new(Port::new(listener, config.limits.connections), tls.clone(), speaks);
    let of_flight = incoming(of_flight, Speaks::Grpc { http: http.port() });
    let flight = flight(config, &gateway, of_flight, stop.clone()).await;
    let router = http::router(gateway, metrics, config.limits.statement.bytes());
    let http = serving::serve(incoming(of_http, Speaks::Http), router, config.limits.connection_age.0, stop.clone());
    let both = async { tokio::join!(flight, http) };
    let grace = config.limits.grace.0;
    let out_of_time = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ((), ()) = both => {}
        () = out_of_time => {
            tracing::warn!(seconds = grace.as_secs(), "streams were still running after the grace time and were cut off");
        }
    }
    Ok(())
}

/// The Flight SQL service of a gateway.
pub fn service(config: &Config, gateway: &Gateway) -> Service {
    let (planner, limits) = (Arc::clone(&gateway.planner), config.limits.clone());
    let (prepared_timeout, writable) = (config.tickets.session_ttl.0, config.catalogs.values().any(|catalog| catalog.writable));
    let facts = move || Facts {
        functions: commands::functions(planner.functions()),
        longest: limits.statement.bytes(),
        tables: statement::TABLES,
        prepared_timeout,
        transaction_timeout: limits.transaction_idle.0,
        writable,
    };
    Service {
        execute: Arc::clone(&gateway.execute),
        catalogs: Arc::clone(&gateway.catalogs),
        metadata: Arc::new(Metadata::new(facts)),
        gate: Arc::clone(&gateway.gate),
        workers: gateway.workers.clone(),
        endpoints: Endpoints::new(Arc::clone(&gateway.seal), config.tickets.ttl.0, config.flight.location.clone()),
        seal: Arc::clone(&gateway.seal),
        sessions: Arc::clone(&gateway.sessions),
        authenticator: Arc::clone(&gateway.authenticator),
        shares: Arc::clone(gateway.planner.shares()),
        session_ttl: config.tickets.session_ttl.0,
        caps: Caps::new(&config.limits),
        trail: gateway.trail.clone(),
        transactions: Handles::new(
            Arc::clone(&gateway.seal),
            Arc::new(Transactions::new(
                config.limits.transaction_idle.0,
                config.tickets.session_ttl.0,
                Arc::clone(&gateway.writes),
            )),
            config.tickets.session_ttl.0,
        ),
    }
}

/// The routes of all calls, for those who may come in. `DoGet` has its own.
pub fn routes<S: FlightService>(calls: Arc<S>, service: Arc<Service>) -> Router {
    let all = FlightServiceServer::from_arc(calls).max_decoding_message_size(body::LARGEST).max_encoding_message_size(usize::MAX);
    let (authenticator, shares) = (Arc::clone(&service.authenticator), Arc::clone(&service.shares));
    Routes::new(all)
        .into_axum_router()
        .merge(frames::route(service, body::LARGEST))
        .layer(from_fn_with_state(shares, body::watch))
        .layer(from_fn_with_state(authenticator, auth::require))
        .layer(map_response(status::of_the_client))
}

async fn flight(
    config: &Config,
    gateway: &Arc<Gateway>,
    incoming: Incoming,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let service = Arc::new(service(config, gateway));
    let (mut health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<FlightServiceServer<Service>>().await;
    // Health is asked for by machines without credentials; all else needs them.
    let health_service = health_service.max_decoding_message_size(LARGEST_QUESTION);
    let guarded = routes(Arc::clone(&service), service).merge(Routes::new(health_service).into_axum_router().reset_fallback());
    let closed = CancellationToken::new();
    let served = serving::serve(incoming, guarded, config.limits.connection_age.0, closed.clone());
    async move {
        let closing = async move {
            stop.cancelled().await;
            // The whole server has no name.
            for name in [<FlightServiceServer<Service> as NamedService>::NAME, ""] {
                health.set_service_status(name, ServingStatus::NotServing).await;
                // Those who watch have heard the last of it, and are not waited for; who asks later hears the same.
                health.clear_service_status(name).await;
                health.set_service_status(name, ServingStatus::NotServing).await;
            }
            closed.cancel();
        };
        tokio::join!(served, closing);
    }
}
