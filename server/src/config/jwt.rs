//! `[auth.jwt]`: the tokens of an issuer.

use std::path::PathBuf;

use nexus_flight_catalog::{Error, Place, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// `[auth.jwt]`: whose JSON Web Tokens are taken.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The claim "iss" of its tokens.
    pub issuer: String,
    /// What has to be among the claim "aud" of a token.
    pub audience: String,
    /// The address of its keys, a JWK set, which is asked again each 30 seconds.
    pub jwks: Option<String>,
    /// Instead of an address, a file of a JWK set or of a public key in PEM, which is read again when it changes; a relative path starts at
    /// the folder of this file.
    pub key: Option<PathBuf>,
    /// The claim that names the user.
    #[serde(default = "subject")]
    pub user: String,
}

fn subject() -> String {
    "sub".to_owned()
}

/// Where the keys of an issuer are.
#[derive(Debug)]
pub enum KeysOf {
    /// At an address.
    Address(Url),
    /// In a file.
    File(PathBuf),
}

impl Jwt {
    /// Where the keys are. Errors: `Invalid` where that is not said, or said twice, or is open to whoever is between.
    pub fn keys(&self) -> Result<KeysOf> {
        let wrong = |key: &str, message: String| Error::invalid(message).at(Place::Key(format!("auth.jwt.{key}")));
        let jwks = match (&self.jwks, &self.key) {
            (None, Some(file)) => return Ok(KeysOf::File(file.clone())),
            (Some(jwks), None) => jwks,
            (None, None) => {
                return Err(wrong("issuer", "its tokens cannot be checked without its keys".to_owned())
                    .with_hint("name their address as jwks, or a file of them as key"));
            }
            (Some(_), Some(_)) => {
                return Err(wrong("key", "the keys of the issuer are at one place alone".to_owned())
                    .with_hint("remove auth.jwt.key or auth.jwt.jwks"));
            }
        };
        let hint = "write it like https://login.example.com/.well-known/jwks.json";
        let url = Url::parse(jwks).map_err(|error| wrong("jwks", format!("this is no address: {error}")).with_hint(hint))?;
        let is_here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(KeysOf::Address(url)),
            "http" if is_here => Ok(KeysOf::Address(url)),
            _ => Err(wrong("jwks", "keys are fetched by https alone, except from this machine".to_owned()).with_hint(hint)),
        }
    }
}
