//! What a server says of itself: `GET /v1/info`.

use std::sync::{Arc, PoisonError};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use nexus_flight_catalog::{Error, Result};
use reqwest::StatusCode;
use serde::Deserialize;

use super::super::error;
use super::super::page::unlike;
use super::{ANSWERS_WITHIN, Client, LARGEST_REFUSAL};
use crate::told::host;

/// The letters of a version that are kept: those of Trino have three.
const LONGEST_VERSION: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    starting: bool,
    node_version: Option<NodeVersion>,
}

#[derive(Deserialize)]
struct NodeVersion {
    version: String,
}

impl Client {
    /// What it called its version when it was asked how it is.
    pub(in crate::trino) fn version(&self) -> Option<String> {
        self.0.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it answers and is not starting. No login is sent. Errors: `Unavailable`; `Data` where something else answers.
    pub(in crate::trino) async fn info(&self) -> Result<()> {
        let config = &self.0.config;
        let url = self.address("/v1/info");
        let request = self.0.trino.get(url.clone()).timeout(ANSWERS_WITHIN).build();
        let request = request.map_err(|_| Error::internal("no request could be made"))?;
        // It is no statement of anybody, and small.
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let room = MemoryConsumer::new("state of trino").register(&pool);
        let answer = self.once(&self.0.trino, request, LARGEST_REFUSAL, &room).await?;
        let answer = answer.map_err(|cause| error::broken(cause, &url, config))?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(Info { starting: false, node_version }) => {
                let is_plain = |version: &String| version.bytes().all(|byte| byte.is_ascii_graphic());
                let version = node_version.map(|node| node.version).filter(|version| version.len() <= LONGEST_VERSION);
                *self.0.version.lock().unwrap_or_else(PoisonError::into_inner) = version.filter(is_plain);
                Ok(())
            }
            Ok(Info { starting: true, .. }) => Err(Error::unavailable(format!("trino at {} is starting", host(&config.url)))
                .with_hint("try again in a minute")
                .at(config.place.clone())),
            Err(cause) => Err(unlike(&cause).at(config.place.clone())),
        }
    }
}
