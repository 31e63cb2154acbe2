//! In whose name a catalog server is asked: by a configured token, or by tokens that are fetched for a client (RFC 6749, 4.4).

use std::sync::Arc;
use std::time::Duration;

use nexus_flight_catalog::{Error, Result};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::iceberg::config::Asks;
use crate::lake::Http;
use crate::stores::{Given, Renewed};

/// The tokens of one catalog.
#[derive(Debug)]
pub(super) enum Tokens {
    None,
    Configured(Arc<SecretString>),
    Fetched(Box<Client>),
}

/// Who is given tokens, by whom and for what, with the one of now.
#[derive(Debug)]
pub(super) struct Client {
    id: String,
    secret: SecretString,
    scope: String,
    server: Url,
    kept: Renewed<SecretString>,
}

/// What a server of tokens answers (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Fetched {
    access_token: SecretString,
    token_type: Option<String>,
    expires_in: Option<Value>,
}

impl From<Asks> for Tokens {
    fn from(asks: Asks) -> Self {
        match asks {
            Asks::Nobody => Self::None,
            Asks::Token(token) => Self::Configured(Arc::new(token)),
            Asks::Client { id, secret, scope, server } => {
                Self::Fetched(Box::new(Client { id, secret, scope, server, kept: Renewed::new() }))
            }
        }
    }
}

impl Tokens {
    /// The token to send now, if there is one. Errors: `Unauthenticated` where none is given to the client, and those of calls.
    pub(super) async fn get(&self, http: &Http) -> Result<Option<Arc<SecretString>>> {
        match self {
            Self::None => Ok(None),
            Self::Configured(token) => Ok(Some(Arc::clone(token))),
            Self::Fetched(client) => client.kept.get(client.fetch(http)).await.map(Some),
        }
    }

    /// Gives up a token that was refused, and says whether another can be had.
    pub(super) async fn forget(&self, refused: &Arc<SecretString>) -> bool {
        let Self::Fetched(client) = self else { return false };
        client.kept.forget(refused).await;
        true
    }
}

impl Client {
    async fn fetch(&self, http: &Http) -> Result<Given<SecretString>> {
        let (id, secret, scope) = (self.id.as_str(), self.secret.expose_secret(), self.scope.as_str());
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret), ("scope", scope)];
        let request = http.client().post(self.server.clone()).form(&form).build();
        let request = request.map_err(|_| Error::internal("no request for a token could be made"))?;
        let answer = http.send(request).await?;
        if !answer.status.is_success() {
            let error = http.refusal(&answer, &[secret]);
            // A client that is not known may get either (RFC 6749, 5.2).
            return Err(match answer.status {
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => {
                    http.at(Error::unauthenticated(error.message()).with_hint("check credential and scope"))
                }
                _ => error,
            });
        }
        let Fetched { access_token, token_type, expires_in } = http.parsed(answer.body).await?;
        if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(http.at(Error::unsupported("the catalog server gives tokens of another type than bearer")));
        }
        let seconds = expires_in.and_then(|seconds| seconds.as_f64().or_else(|| seconds.as_str()?.parse().ok()));
        Ok(Given { value: access_token, life: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) })
    }
}
