//! Connections to stores that are led nowhere else: with a request that is sent on would go the token of its keys, to a server that
//! nobody has configured.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector};
use reqwest::redirect::Policy;

/// Connects as the crate does of itself, but for redirects, which are errors.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) allow_http: bool,
    /// How long it may take until there is a connection.
    pub(crate) connected_within: Duration,
    /// How long an answer may take.
    pub(crate) answered_within: Duration,
}

impl HttpConnector for Direct {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .https_only(!self.allow_http)
            .http1_only()
            .connect_timeout(self.connected_within)
            .timeout(self.answered_within)
            .build();
        let client = client.map_err(|source| object_store::Error::Generic { store: "HTTP", source: Box::new(source) })?;
        Ok(HttpClient::new(client))
    }
}
