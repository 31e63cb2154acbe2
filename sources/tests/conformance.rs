//! Every connector that needs no server, held to what is asked of a source.

mod seeds;

use std::sync::Arc;

use nexus_flight_catalog::conformance::{Fixture, check, seed, types};
use nexus_sources::memory::MemorySource;
use seeds::{Stored, violations};

#[tokio::test]
async fn memory() {
    let source = Arc::new(MemorySource::new());
    for table in seed() {
        source.insert("main", &table.name, vec![table.batch], table.keys).unwrap();
    }
    let mut fixture = Fixture::new(Arc::clone(&source) as _, "main");
    fixture.mutate = Some(Box::new(move |rows| {
        let keys = seed().into_iter().find(|table| table.name == "types").unwrap().keys;
        source.insert("main", "types", vec![types(rows)], keys).unwrap();
        Box::pin(async {})
    }));
    violations(check(&fixture).await);
}

async fn files(stored: Stored) {
    let folder = tempfile::tempdir().unwrap();
    violations(check(&stored.fixture(folder.path())).await);
}

#[tokio::test]
async fn files_parquet() {
    files(Stored::Parquet).await;
}

#[tokio::test]
async fn files_csv() {
    files(Stored::Csv).await;
}

#[tokio::test]
async fn files_json() {
    files(Stored::Json).await;
}

#[tokio::test]
async fn files_arrow() {
    files(Stored::Arrow).await;
}
