//! The demo's table of types: every column passes the planner, the encoder and both profiles.

use std::path::Path;
use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use futures::TryStreamExt;
use nexus_flight_catalog::{Context, Principal};
use nexus_server::config::Config;
use nexus_server::demo;
use nexus_server::flight::encode::encode;
use nexus_server::flight::profile::TypeProfile;
use nexus_server::gateway::Gateway;
use nexus_server::query::{Protocol, Query};
use nexus_server::workers::Workers;

#[tokio::test(flavor = "multi_thread")]
async fn every_column_is_planned_and_encoded_in_both_profiles() {
    let config = Config::parse("[catalogs.demo]\nkind = \"memory\"\n", Path::new("nexus.toml"), &|_| None).unwrap();
    let gateway = Gateway::new(&config, Workers::here(), None).unwrap();
    demo::register(&gateway.catalogs).unwrap();
    let run = async |statement: &str, profile| {
        let cx = Context::new(Principal::anonymous());
        let session = gateway.sessions.start();
        let query = Query::new(cx, statement, session, Protocol::Flight);
        let answer = gateway.execute.execute(query).await.unwrap();
        let schema = answer.schema.clone();
        let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let messages: Vec<_> = encode(&answer.schema, profile, answer.batches, &memory).try_collect().await.unwrap();
        assert!(messages.len() >= 2, "{statement}");
        schema
    };
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        let all = run("SELECT * FROM demo.main.types", profile).await;
        assert!(all.fields().len() > 45);
        for field in all.fields() {
            run(&format!("SELECT \"{}\" FROM demo.main.types ORDER BY id", field.name()), profile).await;
        }
    }
}
