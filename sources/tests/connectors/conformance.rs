//! Every connector that needs no server, held to what is asked of a source.

use std::sync::Arc;

use crate::seeds::{Stored, into_folder, open, violations};
use nexus_flight_catalog::conformance::{Fixture, check, seed, types};
use nexus_sources::memory::MemorySource;

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
    let source = open(serde_json::json!({ "location": folder.path(), "tables": stored.declared() }));
    violations(check(&stored.fixture(source, into_folder(folder.path())).await).await);
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
