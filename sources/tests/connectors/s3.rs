//! Files in a bucket of a real S3 server, which `make test` starts.

use std::sync::Arc;

use crate::delta;
use crate::seeds::{Put, Stored, open, open_as, violations};
use nexus_flight_catalog::conformance::check;
use nexus_flight_catalog::{Context, Error, Kind, Principal, Source};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStoreExt, path::Path};
use serde_json::{Value, json};

/// Where the server is and how it is entered.
struct Server {
    endpoint: String,
    key: String,
    secret: String,
    bucket: String,
}

impl Server {
    fn running() -> Self {
        let from = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        Self {
            endpoint: from("NEXUS_TEST_S3_ENDPOINT"),
            key: from("NEXUS_TEST_S3_KEY"),
            secret: from("NEXUS_TEST_S3_SECRET"),
            bucket: from("NEXUS_TEST_S3_BUCKET"),
        }
    }

    fn store(&self) -> Arc<AmazonS3> {
        let builder = AmazonS3Builder::new().with_endpoint(&self.endpoint).with_allow_http(true).with_bucket_name(&self.bucket);
        let builder = builder.with_access_key_id(&self.key).with_secret_access_key(&self.secret).with_region("us-east-1");
        Arc::new(builder.build().unwrap())
    }

    fn options(&self, prefix: &str) -> Value {
        json!({
            "location": format!("s3://{}/{prefix}", self.bucket), "endpoint": self.endpoint, "allow_http": true,
            "region": "us-east-1", "access_key_id": self.key, "secret_access_key": self.secret,
        })
    }

    /// Writes objects under a prefix.
    fn put(&self, prefix: String) -> Put {
        let store = self.store();
        Box::new(move |name, bytes| {
            let (store, path) = (Arc::clone(&store), Path::parse(format!("{prefix}/{name}")).unwrap());
            Box::pin(async move {
                store.put(&path, bytes.into()).await.unwrap();
            })
        })
    }
}

async fn bucket(stored: Stored) {
    let server = Server::running();
    let prefix = format!("conformance/{}", stored.file("seed"));
    let mut options = server.options(&prefix);
    options["tables"] = stored.declared();
    violations(check(&stored.fixture(open(options), server.put(prefix)).await).await);
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_parquet() {
    bucket(Stored::Parquet).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_csv() {
    bucket(Stored::Csv).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_json() {
    bucket(Stored::Json).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_arrow() {
    bucket(Stored::Arrow).await;
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_delta() {
    let (server, prefix) = (Server::running(), "conformance/delta");
    let source = open_as("delta", server.options(prefix));
    violations(check(&delta::fixture(source, server.put(prefix.to_owned())).await).await);
}

#[cfg(feature = "hudi")]
#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn bucket_hudi() {
    let (server, prefix) = (Server::running(), "conformance/hudi");
    let source = open_as("hudi", server.options(prefix));
    violations(check(&crate::hudi::fixture(source, server.put(prefix.to_owned())).await).await);
}

async fn refusal(options: Value) -> Error {
    let source: Arc<dyn Source> = open(options);
    let cx = Context::new(Principal::anonymous());
    let (ping, table) = (source.ping(&cx).await.unwrap_err(), source.table(&cx, "main", "t").await.unwrap_err());
    assert_eq!(ping.to_string(), table.to_string());
    ping
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn a_wrong_key() {
    let server = Server::running();
    for (name, wrong) in [("access_key_id", "AKIAWRONGWRONG"), ("secret_access_key", "wr0ng-s3cr3t")] {
        let mut options = server.options("conformance");
        options[name] = wrong.into();
        let error = refusal(options).await;
        assert!(matches!(error.kind(), Kind::Unauthenticated | Kind::Denied), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("access_key_id") && shown.contains("catalog \\\"lake\\\""), "{shown}");
        assert!(!shown.contains("wr0ng-s3cr3t") && !shown.contains(&server.secret), "{shown}");
    }
}

#[tokio::test]
#[ignore = "needs an S3 server: make test starts one and runs this"]
async fn a_missing_bucket() {
    let mut options = Server::running().options("conformance");
    options["location"] = "s3://there-is-no-such-bucket/x".into();
    let error = refusal(options).await;
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("the bucket does not exist"), "{error}");
}
