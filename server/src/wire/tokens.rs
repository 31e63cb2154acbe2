//! API tokens: opaque, known here by their hashes alone, in a file of its own that is read again when it changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hex::FromHex;
use nexus_flight_catalog::{Error, Place, Principal, Result};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::{TokenText, Tokens};
use crate::reload::{self, Seen};
use crate::workers::Workers;

/// What every API token begins with, so that it is told from others, and found where it has leaked.
pub const PREFIX: &str = "nexus_";
/// A token is as hard to guess as a key: no slow hash is needed, and its hash tells nothing of it.
const RANDOM_BYTES: usize = 32;

/// The SHA-256 of a token.
pub type Hash = [u8; 32];

/// The tokens that are taken now.
#[derive(Debug)]
pub struct ApiTokens {
    current: RwLock<BTreeMap<Hash, Known>>,
}

/// Whose a token is.
#[derive(Debug, Clone)]
struct Known {
    user: Principal,
    expires: Option<SystemTime>,
}

impl ApiTokens {
    /// Reads the file, and goes on looking at it on these threads for as long as this is in use. Errors: `Invalid` with the file,
    /// and the line where there is one.
    pub fn open(path: &Path, threads: &Workers) -> Result<Arc<Self>> {
        let (seen, known) = read(path)?;
        let tokens = Arc::new(Self { current: RwLock::new(known) });
        let held: Weak<Self> = Arc::downgrade(&tokens);
        let of_reading = path.to_owned();
        let take = move |known| match held.upgrade() {
            None => Ok(false),
            Some(tokens) => {
                *tokens.current.write().unwrap_or_else(PoisonError::into_inner) = known;
                Ok(true)
            }
        };
        threads.spawn(reload::follow("tokens", seen, move || read(&of_reading), take));
        Ok(tokens)
    }

    /// Whose a token is; nobody's once it is not in the file any more, or has expired.
    pub fn user(&self, hash: &Hash) -> Option<Principal> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let known = current.get(hash)?;
        known.expires.is_none_or(|expires| SystemTime::now() < expires).then(|| known.user.clone())
    }
}

/// The hash that a token is known by.
pub fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// A new token, and the lines that let it in, for the file. The token itself is kept nowhere. Errors: `Invalid` where nobody is named.
pub fn new(user: &str) -> Result<(String, String)> {
    if user.is_empty() {
        return Err(Error::invalid("a token is for a user, and none is named").with_hint("name one by --user"));
    }
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("the system gives no random numbers"))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let entry = Tokens { tokens: vec![TokenText { user: user.to_owned(), sha256: hex::encode(hash(&token)), expires: None }] };
    let lines = toml::to_string(&entry).map_err(|error| Error::internal("a token could not be written").caused_by(error))?;
    Ok((token, lines))
}

/// A moment as RFC 3339 writes it.
fn moment(text: &str) -> Option<SystemTime> {
    let nanoseconds = string_to_timestamp_nanos(text).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
}

fn read(path: &Path) -> Result<(Seen, BTreeMap<Hash, Known>)> {
    let within = |error: Error| match error.place() {
        Some(_) => error,
        None => error.at(Place::File { path: path.display().to_string(), line: None }),
    };
    let wrong = |reason: String| within(Error::invalid(format!("the API tokens cannot be read: {reason}")));
    let bytes = reload::read(path).map_err(wrong)?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    let (tokens, referenced) = Tokens::parse(text, path)?;
    let known = tokens.tokens.into_iter().enumerate().map(|(index, token)| {
        let number = index + 1;
        let TokenText { user, sha256, expires } = token;
        if user.is_empty() {
            return Err(within(Error::invalid(format!("token {number} has no user"))));
        }
        let hash = <Hash>::from_hex(&sha256).map_err(|_| {
            within(
                Error::invalid(format!("the sha256 of token {number} is not 64 hexadecimal digits"))
                    .with_hint("make token and hash with nexus token; never write the token itself"),
            )
        })?;
        let expires = expires.as_deref().map(|text| {
            moment(text).ok_or_else(|| {
                within(
                    Error::invalid(format!("token {number} expires at {text:?}, which is no moment"))
                        .with_hint("write it as \"2027-01-31T12:00:00Z\""),
                )
            })
        });
        Ok((hash, Known { user: Principal(user.into()), expires: expires.transpose()? }))
    });
    Ok((reload::seen(&[&bytes, &referenced]), known.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_known_by_its_hash_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let (token, lines) = new("etl").unwrap();
        let (old, old_lines) = new("ann").unwrap();
        assert!(!lines.contains(&token) && token.starts_with(PREFIX) && token != old);
        std::fs::write(&path, format!("{lines}\n{old_lines}expires = \"2020-01-01T00:00:00Z\"\n")).unwrap();
        let tokens = ApiTokens::open(&path, &Workers::here()).unwrap();
        assert_eq!(tokens.user(&hash(&token)), Some(Principal("etl".into())));
        assert_eq!(tokens.user(&hash(&old)), None);
        assert_eq!(tokens.user(&hash("nexus_guess")), None);
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).err().unwrap().to_string();
            error.replace(&format!("{}", folder.path().display()), "")
        };
        let hash = "0".repeat(64);
        insta::assert_snapshot!(said("[[tokens]]\nuser = \"a\"\nsha256 = \"nexus_abc\"\n"), @"/tokens.toml: the sha256 of token 1 is not 64 hexadecimal digits; make token and hash with nexus token; never write the token itself");
        insta::assert_snapshot!(said(&format!("[[tokens]]\nuser = \"\"\nsha256 = \"{hash}\"\n")), @"/tokens.toml: token 1 has no user");
        insta::assert_snapshot!(said(&format!("[[tokens]]\nuser = \"a\"\nsha256 = \"{hash}\"\nexpires = \"soon\"\n")), @r#"/tokens.toml: token 1 expires at "soon", which is no moment; write it as "2027-01-31T12:00:00Z""#);
    }
}
