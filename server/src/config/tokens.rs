//! The file of API tokens, as it is written.

use std::path::Path;

use nexus_flight_catalog::Result;
use serde::{Deserialize, Serialize};

use super::load;
use crate::reload::Seen;

/// All tokens that are taken.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Each of them.
    #[serde(default)]
    pub tokens: Vec<TokenText>,
}

/// One token, known by its hash alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenText {
    /// Who comes in with it.
    pub user: String,
    /// The SHA-256 of the token, in hexadecimal digits.
    pub sha256: String,
    /// From when on it is not taken any more, as RFC 3339 writes it; none, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl Tokens {
    /// The tokens, and what their references gave. Errors: `Invalid` with the line of `path` for what is no such file.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Seen)> {
        let base = path.parent().unwrap_or(Path::new("."));
        load::parse(text, path, base, &|name| std::env::var(name).ok()).map(|(tokens, places)| (tokens, places.seen()))
    }
}
