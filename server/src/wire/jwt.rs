//! JSON Web Tokens of one issuer (RFC 7519), signed by one of its keys. The keys are asked for again and again, so that a new one is
//! taken and a withdrawn one is not.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use nexus_flight_catalog::{Error, Place, Principal, Result};
use reqwest::redirect;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::config::{self, KeysOf};
use crate::reload::{self, Seen};
use crate::workers::Workers;

/// How often the issuer is asked for its keys.
const ASKED_EVERY: Duration = Duration::from_secs(30);
/// A token by a key that is not known makes the issuer be asked at once, but no more often than this.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// How long the issuer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long keys are good for while the issuer does not answer.
const GOOD_FOR: Duration = Duration::from_secs(3_600);
/// The most that is read of an answer.
const LARGEST_ANSWER: usize = 1 << 20;
/// What they are called in the log and in metrics.
const KEYS: &str = "keys of the issuer";
/// The most keys that are kept.
const MOST_KEYS: usize = 100;
/// How far the clocks of the issuer and of this machine may be apart, in seconds.
const LEEWAY: u64 = 30;
/// RSA keys below 2,048 bits are refused (NIST SP 800-131A).
const LEAST_RSA_BYTES: usize = 256;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Takes the tokens of one issuer.
#[derive(Debug)]
pub struct Jwt {
    validation: Validation,
    /// The claim that says who it is.
    claim: String,
    /// Tells this issuer and audience from others that were configured before.
    realm: Mark,
    keys: RwLock<Keys>,
    issuer: Option<Issuer>,
}

/// Where keys are asked for.
#[derive(Debug)]
struct Issuer {
    client: reqwest::Client,
    address: reqwest::Url,
    /// When it was last asked; held while it is.
    asked: Mutex<Option<Instant>>,
}

/// Tells a key, of an issuer for an audience, from others.
pub type Mark = Seen;

#[derive(Debug, Default)]
struct Keys {
    known: Vec<Key>,
    /// When the issuer gave them; none of a file.
    given: Option<Instant>,
}

/// A key with the algorithms that it may sign by. That of a token's header counts only among them: none of them is `none`, and none takes
/// a public key for a shared secret.
struct Key {
    id: Option<String>,
    mark: Mark,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Takes tokens as configured, with relative paths from `base`, and goes on looking after its keys on these threads for as long as it
    /// is in use. Errors: `Invalid` for a file of keys that cannot be used.
    pub fn open(config: &config::Jwt, base: &Path, threads: &Workers) -> Result<Arc<Self>> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let (claim, realm) = (config.user.clone(), reload::seen(&[config.issuer.as_bytes(), config.audience.as_bytes()]));
        match config.keys()? {
            KeysOf::File(file) => {
                let path = base.join(file);
                let (seen, known) = read(&path)?;
                let jwt =
                    Arc::new(Self { validation, claim, realm, keys: RwLock::new(Keys { known, given: None }), issuer: None });
                let held = Arc::downgrade(&jwt);
                let take = move |known| match held.upgrade() {
                    None => Ok(false),
                    Some(jwt) => {
                        jwt.replace(Keys { known, given: None });
                        Ok(true)
                    }
                };
                threads.spawn(reload::follow(KEYS, seen, move || read(&path), take));
                Ok(jwt)
            }
            KeysOf::Address(address) => {
                // An address that the issuer did not name is not asked.
                let client = reqwest::Client::builder()
                    .redirect(redirect::Policy::none())
                    .timeout(ANSWERS_WITHIN)
                    .pool_max_idle_per_host(0)
                    .build()
                    .map_err(|error| Error::internal("no HTTP client could be made").caused_by(error))?;
                let issuer = Some(Issuer { client, address, asked: Mutex::new(None) });
                let jwt = Arc::new(Self { validation, claim, realm, keys: RwLock::default(), issuer });
                let held = Arc::downgrade(&jwt);
                threads.spawn(async move {
                    reload::failures(KEYS).increment(0);
                    while let Some(jwt) = held.upgrade() {
                        jwt.ask(ASKED_EVERY / 2).await;
                        drop(jwt);
                        tokio::time::sleep(ASKED_EVERY).await;
                    }
                });
                Ok(jwt)
            }
        }
    }

    /// Whether the issuer has a key still.
    pub fn holds(&self, mark: &Mark) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.are_good() && keys.known.iter().any(|key| self.mark(key) == *mark)
    }

    fn mark(&self, key: &Key) -> Mark {
        reload::seen(&[&self.realm, &key.mark])
    }

    /// Whose a token is, until when it holds, in seconds since 1970, and by which key. Errors: `Unauthenticated`, with what is wrong.
    pub async fn check(&self, token: &str) -> Result<(Principal, u64, Mark)> {
        let header = decode_header(token).map_err(|error| refused(why(error.kind())))?;
        if header.crit.is_some() {
            // What a token calls critical is to be understood or refused (RFC 7515, 4.1.11).
            return Err(refused("asks for what is not known here"));
        }
        let id = header.kid.as_deref();
        if !self.has(id) {
            self.ask(ASKED_AT_MOST_EVERY).await;
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if !keys.are_good() {
            return Err(refused("cannot be checked: its issuer has not said for long which its keys are"));
        }
        let key = keys.find(id).ok_or_else(|| refused("is signed by a key that its issuer does not have"))?;
        let validation = Validation { algorithms: key.algorithms.clone(), ..self.validation.clone() };
        let claims =
            decode::<Map<String, Value>>(token, &key.key, &validation).map_err(|error| refused(why(error.kind())))?.claims;
        let user = claims.get(&self.claim).and_then(Value::as_str).unwrap_or_default();
        if user.is_empty() || user.chars().any(char::is_control) {
            return Err(refused(&format!("does not say by \"{}\" who it is", self.claim)));
        }
        let until = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        Ok((Principal(user.into()), (until as u64).saturating_add(LEEWAY), self.mark(key)))
    }

    fn has(&self, id: Option<&str>) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).find(id).is_some()
    }

    fn replace(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Asks the issuer for its keys, unless it was asked within this time. Where it does not answer, those that are known stay.
    async fn ask(&self, within: Duration) {
        let Some(issuer) = &self.issuer else { return };
        let mut asked = issuer.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < within) {
            return;
        }
        let given = issuer.keys().await;
        *asked = Some(Instant::now());
        let (error, outcome) = match given {
            Err(error) => (error, "the keys that tokens are checked by stay as they were"),
            Ok(known) => {
                let is_none = known.is_empty();
                self.replace(Keys { known, given: Some(Instant::now()) });
                if !is_none {
                    return;
                }
                // An issuer that answers with none has withdrawn them all.
                (no_key(), "no token is taken")
            }
        };
        reload::failures(KEYS).increment(1);
        tracing::warn!(%error, "{outcome}");
    }
}

impl Issuer {
    async fn keys(&self) -> Result<Vec<Key>> {
        let wrong = |error: reqwest::Error| {
            // Without its address, which may hold what is secret.
            let error = error.without_url();
            Error::unavailable(format!("the issuer of tokens did not give its keys: {error}")).caused_by(error)
        };
        let asked = self.client.get(self.address.clone()).send().await;
        let mut answer = asked.and_then(reqwest::Response::error_for_status).map_err(wrong)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(wrong)? {
            if bytes.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Error::unavailable("the issuer of tokens gives more than 1 MiB for its keys"));
            }
            bytes.extend_from_slice(&chunk);
        }
        of_set(&bytes)
    }
}

impl Keys {
    fn are_good(&self) -> bool {
        self.given.is_none_or(|given| given.elapsed() <= GOOD_FOR)
    }

    /// The key of this name; of a token that names none, the only one.
    fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, self.known.as_slice()) {
            (Some(_), [Key { id: None, .. }]) if self.given.is_none() => self.known.first(),
            (Some(id), known) => known.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// A file of a JWK set, or of one public key in PEM.
fn read(path: &Path) -> Result<(Seen, Vec<Key>)> {
    let within = |error: Error| error.at(Place::File { path: path.display().to_string(), line: None });
    let bytes = reload::read(path)
        .map_err(|reason| within(Error::invalid(format!("the keys of the issuer of tokens cannot be read: {reason}"))))?;
    let known = match bytes.trim_ascii_start().starts_with(b"{") {
        true => of_set(&bytes).and_then(|known| if known.is_empty() { Err(no_key()) } else { Ok(known) }),
        false => of_pem(&bytes),
    };
    Ok((reload::seen(&[&bytes]), known.map_err(within)?))
}

/// A JWK set, of which what is not understood is passed over (RFC 7517, 5).
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The usable keys of a JWK set, which may be none. What is for other purposes stands beside them.
fn of_set(bytes: &[u8]) -> Result<Vec<Key>> {
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("the keys of the issuer of tokens are no JWK set: {error}")))?;
    let mut seen = HashSet::new();
    let usable = set.keys.into_iter().filter_map(|jwk| of_jwk(&serde_json::from_value(jwk).ok()?));
    Ok(usable.filter(|key| seen.insert(key.id.clone())).take(MOST_KEYS).collect())
}

fn no_key() -> Error {
    Error::invalid("the issuer of tokens has no key to check them by")
        .with_hint("it takes one of RSA with 2048 bits or more, P-256, P-384 or Ed25519")
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let all: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
            let digits = modulus.iter().skip_while(|byte| **byte == 0).count();
            if digits < LEAST_RSA_BYTES {
                return None;
            }
            &RSA
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // A shared secret in a public set is none.
        _ => return None,
    };
    let algorithms: Vec<Algorithm> = match &jwk.common.key_algorithm {
        None => all.to_vec(),
        Some(only) => all.iter().copied().filter(|algorithm| named(*algorithm) == Some(*only)).collect(),
    };
    let (key, mark) = (DecodingKey::from_jwk(jwk).ok()?, reload::seen(&[&serde_json::to_vec(&jwk.algorithm).ok()?]));
    (!algorithms.is_empty()).then(|| Key { id: jwk.common.key_id.clone(), mark, algorithms, key })
}

fn named(algorithm: Algorithm) -> Option<KeyAlgorithm> {
    Some(match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
        _ => return None,
    })
}

fn of_pem(bytes: &[u8]) -> Result<Vec<Key>> {
    let is_long = |key: &DecodingKey| key.try_get_as_bytes().is_ok_and(|modulus| modulus.len() > LEAST_RSA_BYTES);
    let rsa = || DecodingKey::from_rsa_pem(bytes).ok().filter(is_long).map(|key| (key, RSA.to_vec()));
    let curve = || DecodingKey::from_ec_pem(bytes).ok().map(|key| (key, vec![Algorithm::ES256, Algorithm::ES384]));
    let edwards = || DecodingKey::from_ed_pem(bytes).ok().map(|key| (key, vec![Algorithm::EdDSA]));
    let (key, algorithms) = rsa().or_else(curve).or_else(edwards).ok_or_else(|| {
        Error::invalid("the key of the issuer of tokens is neither a JWK set nor a public key in PEM")
            .with_hint("it takes one of RSA with 2048 bits or more, P-256, P-384 or Ed25519")
    })?;
    Ok(vec![Key { id: None, mark: reload::seen(&[bytes]), algorithms, key }])
}

/// What is wrong with a token, after "the token".
fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "has expired",
        ErrorKind::ImmatureSignature => "does not hold yet",
        ErrorKind::InvalidAudience => "is for another audience",
        ErrorKind::InvalidIssuer => "is of another issuer",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => "lacks one of \"exp\", \"iss\" and \"aud\"",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "is signed in a way that its key is not for"
        }
        ErrorKind::InvalidSignature => "has a wrong signature",
        _ => "is no JSON Web Token",
    }
}

fn refused(why: &str) -> Error {
    Error::unauthenticated(format!("the token {why}")).with_hint("ask its issuer for another one")
}
