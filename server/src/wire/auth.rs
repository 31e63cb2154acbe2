//! Credentials → principal, for gRPC and HTTP alike.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http_body_util::Limited;
use nexus_flight_catalog::{Error, Kind, Principal, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::config::{Auth, AuthMode};
use crate::flight::caller::{CATALOG, PROFILE, SCHEMA, TRACEPARENT};
use crate::flight::status::status;
use crate::reload::{self, Seen};
use crate::seal::{Purpose, Seal};
use crate::wire::connection::{Peer, Shown};
use crate::wire::is_grpc;
use crate::wire::jwt::{self, Jwt};
use crate::wire::problem::problem;
use crate::wire::tls::Tls;
use crate::wire::tokens::{self, ApiTokens, Hash};
use crate::wire::turns::Turns;

/// Some clients pad their base64 and some do not.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The header in which clients that have shaken hands send what the handshake gave them, in base64.
const TOKEN: &str = "auth-token-bin";
/// The most bytes of a handshake by somebody who is not known yet.
const LARGEST_CREDENTIALS: usize = 8 << 10;
/// What a header takes besides its name and value.
const HEADER: usize = 64;
/// What is read of the headers of a handshake whose credentials are in its message.
const KEPT_HEADERS: [&str; 11] = [
    "content-type",
    "te",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-timeout",
    "user-agent",
    "cookie",
    PROFILE,
    CATALOG,
    SCHEMA,
    TRACEPARENT,
];

/// A hash is made slow on purpose: no more than this many are checked at once.
const CHECKED_AT_ONCE: usize = 2;

/// Those that wait for it; of the next one's and the others', that of the address with most of them there is refused.
const CHECKS_WAITING: usize = 64;

/// A hash of nobody's password, checked for names that are not known, so that the time taken does not tell them.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZS1ub2JvZHktc2FsdA$UWnNCRQ+PD1FZdaQBm0Vva2dYK8CEWeZvbZVWA2nQ6A";

/// How somebody said who they are. What they are given for it holds no longer than this does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Means {
    /// By nothing: nobody is asked.
    None,
    /// With the password of this hash.
    Password(Mark),
    /// With the API token of this hash.
    Token(Hash),
    /// By a client certificate of this subject, which holds until then, in seconds since 1970, by this authority.
    Certificate(String, u64, Seen),
    /// With a JSON Web Token that holds until then, by this key of its issuer.
    Jwt(u64, jwt::Mark),
    /// With a token of our own that holds until then, in seconds since 1970, which was given for one of the others.
    Granted(Box<Means>, u64),
}

/// Tells the hash of a password from others.
pub type Mark = Seen;

/// What a token of our own says.
#[derive(Debug, Serialize, Deserialize)]
struct Granted {
    user: String,
    means: Means,
    /// In seconds since 1970. What is given for the token ends then too: else who has got hold of one would have it for ever.
    until: u64,
}

/// The hashes of passwords by the names of their users.
type Users = BTreeMap<String, SecretString>;

/// Knows who may come in. What a request says in its headers counts, right or wrong; without such a header the certificate of its
/// connection does.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    users: RwLock<Users>,
    tokens: Option<Arc<ApiTokens>>,
    jwt: Option<Arc<Jwt>>,
    certificates: BTreeMap<String, String>,
    seal: Arc<Seal>,
    lives: Duration,
    /// Knows the authorities of client certificates; none where there is no TLS.
    tls: OnceLock<Tls>,
    checks: Arc<Turns>,
}

impl Authenticator {
    /// As configured, with the API tokens of its file and the issuer of others. Tokens that it gives live for `lives`.
    pub fn new(auth: &Auth, tokens: Option<Arc<ApiTokens>>, jwt: Option<Arc<Jwt>>, seal: Arc<Seal>, lives: Duration) -> Self {
        let users = RwLock::new(users(auth));
        let (mode, certificates) = (auth.mode, auth.certificates.clone());
        Self {
            mode,
            users,
            tokens,
            jwt,
            certificates,
            seal,
            lives,
            tls: OnceLock::new(),
            checks: Turns::new(CHECKED_AT_ONCE, CHECKS_WAITING),
        }
    }

    /// From now on with these passwords. What was given for one that is another now is taken no more.
    pub fn renew(&self, auth: &Auth) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users(auth);
    }

    /// Certificates count for as long as their authority is one of those that are taken here.
    pub fn certificates_of(&self, tls: Tls) {
        // The ports are opened once.
        let _ = self.tls.set(tls);
    }

    fn takes_from(&self, issuer: &Seen) -> bool {
        self.tls.get().is_some_and(|tls| tls.takes_from(issuer))
    }

    fn hash(&self, name: &str) -> Option<SecretString> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A token that stands for a principal until it expires, or what they came in by is taken no more.
    pub fn token(&self, principal: &Principal, means: &Means) -> Result<String> {
        let (means, until) = match means {
            Means::Granted(means, until) => (means.as_ref().clone(), *until),
            means => (means.clone(), now().saturating_add(self.lives.as_secs())),
        };
        let lives = Duration::from_secs(until.saturating_sub(now()));
        self.seal.seal_text(Purpose::Token, &Granted { user: principal.0.to_string(), means, until }, lives)
    }

    /// Who is calling over a connection, and by what. Errors: `Unauthenticated`, always with the same words for a wrong name and a wrong
    /// password.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(Principal, Means)> {
        if self.mode == AuthMode::None {
            return Ok((Principal::anonymous(), Means::None));
        }
        if let Some(token) = headers.get(TOKEN).filter(|_| !headers.contains_key(AUTHORIZATION)) {
            let token = BASE64.decode(token.as_bytes()).ok().and_then(|token| String::from_utf8(token).ok());
            return self.check_token(&token.ok_or_else(|| refused("the token is not text in base64"))?).await;
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            return match peer.and_then(|peer| peer.certificate.as_ref()) {
                Some(shown) => self.check_certificate(shown),
                None => Err(refused("a user name and password, or a token, is needed")),
            };
        };
        // What stands between may go by the last one where this goes by the first.
        if headers.get_all(AUTHORIZATION).iter().any(|other| other != header) {
            return Err(refused("there are several authorization headers, and they differ"));
        }
        let header = header.to_str().map_err(|_| refused("the authorization header is not text"))?;
        match header.split_once(' ') {
            Some((scheme, value)) if scheme.eq_ignore_ascii_case("basic") => self.check_basic(value, peer).await,
            Some((scheme, value)) if scheme.eq_ignore_ascii_case("bearer") => self.check_token(value).await,
            _ => Err(refused("the authorization header is neither Basic nor Bearer")),
        }
    }

    async fn check_token(&self, token: &str) -> Result<(Principal, Means)> {
        if token.starts_with(tokens::PREFIX) {
            let hash = tokens::hash(token);
            let user = self.tokens.as_ref().and_then(|tokens| tokens.user(&hash));
            let user = user.ok_or_else(|| {
                Error::unauthenticated("the API token is not known, or has expired").with_hint("ask for another one")
            })?;
            return Ok((user, Means::Token(hash)));
        }
        // Ours are of base64 without a dot.
        if let Some(jwt) = self.jwt.as_ref().filter(|_| token.contains('.')) {
            let (user, until, key) = jwt.check(token).await?;
            return Ok((user, Means::Jwt(until, key)));
        }
        let Granted { user, means, until } = self
            .seal
            .open_text(Purpose::Token, token)
            .map_err(|error| Error::new(Kind::Unauthenticated, error.message()).with_hint("connect again"))?;
        let still_holds = match &means {
            // Nobody was asked, or it is one for a token, which is given for what is behind that.
            Means::None | Means::Granted(..) => false,
            Means::Password(known) => self.hash(&user).is_some_and(|hash| mark(&hash) == *known),
            Means::Token(hash) => {
                self.tokens.as_ref().and_then(|tokens| tokens.user(hash)).is_some_and(|known| *known.0 == *user)
            }
            Means::Certificate(subject, until, issuer) => {
                self.certificates.get(subject) == Some(&user) && now() < *until && self.takes_from(issuer)
            }
            Means::Jwt(until, key) => now() < *until && self.jwt.as_ref().is_some_and(|jwt| jwt.holds(key)),
        };
        match still_holds {
            true => Ok((Principal(user.into()), Means::Granted(Box::new(means), until))),
            false => Err(refused("the token is of a user who is no longer known, or of a password that was changed")),
        }
    }

    fn check_certificate(&self, shown: &Shown) -> Result<(Principal, Means)> {
        let Shown { subject, until, issuer } = shown;
        // The connection may have been open for longer than either holds.
        if now() >= *until {
            return Err(Error::unauthenticated(format!("the certificate of \"{subject}\" has expired"))
                .with_hint("connect with another one"));
        }
        if !self.takes_from(issuer) {
            let message = format!("the certificate of \"{subject}\" is of an authority that is not in tls.clients any more");
            return Err(Error::unauthenticated(message).with_hint("connect with another one"));
        }
        let user = self.certificates.get(&**subject).ok_or_else(|| {
            Error::unauthenticated(format!("the certificate of \"{subject}\" is nobody's here"))
                .with_hint("name its user under [auth.certificates], or sign in with a password or a token")
        })?;
        Ok((Principal(user.as_str().into()), Means::Certificate(subject.to_string(), *until, *issuer)))
    }

    async fn check_basic(&self, value: &str, peer: Option<&Peer>) -> Result<(Principal, Means)> {
        let decoded = BASE64.decode(value.trim()).map_err(|_| refused("the Basic credentials are not base64"))?;
        let decoded = String::from_utf8(decoded).map_err(|_| refused("the Basic credentials are not UTF-8"))?;
        let (name, password) = decoded.split_once(':').ok_or_else(|| refused("the Basic credentials have no \":\""))?;
        self.check_password(name, password, peer).await
    }

    /// Who has this name and password, by which they come in. Errors: `Unauthenticated`, with the same words for a wrong name and a wrong
    /// password.
    pub async fn check_password(&self, name: &str, password: &str, peer: Option<&Peer>) -> Result<(Principal, Means)> {
        let wrong = || refused("the user name or the password is wrong");
        if name.is_empty() || password.is_empty() {
            return Err(wrong());
        }
        let password = SecretString::from(password);
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
        let turn = self.checks.take(address).await.ok_or_else(|| {
            Error::exhausted("too many passwords are being checked").with_hint("try again soon, or sign in with a token")
        })?;
        let known = self.hash(name);
        let means = known.as_ref().map(|hash| Means::Password(mark(hash)));
        let hash = known.unwrap_or_else(|| SecretString::from(NOBODY));
        // Off the threads that serve others: this is tens of milliseconds of work.
        let matches = tokio::task::spawn_blocking(move || {
            // It goes on where the caller has gone away, and so does its turn.
            let _turn = turn;
            let hash = PasswordHash::new(hash.expose_secret()).ok()?;
            Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).ok()
        })
        .await
        .map_err(|error| Error::internal("a password could not be checked").caused_by(error))?;
        match (means, matches) {
            (Some(means), Some(())) => Ok((Principal(name.into()), means)),
            _ => Err(wrong()),
        }
    }
}

fn users(auth: &Auth) -> Users {
    auth.users.iter().map(|(name, user)| (name.clone(), user.password_hash.clone())).collect()
}

fn mark(hash: &SecretString) -> Mark {
    reload::seen(&[hash.expose_secret().as_bytes()])
}

/// The argon2id hash of a password, for the configuration.
pub fn hash_password(password: SecretString) -> Result<String> {
    let salt = SaltString::encode_b64(uuid::Uuid::new_v4().as_bytes());
    let hash = salt.and_then(|salt| Ok(Argon2::default().hash_password(password.expose_secret().as_bytes(), &salt)?.to_string()));
    hash.map_err(|error| Error::internal(format!("the password cannot be hashed: {error}")))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn refused(message: &str) -> Error {
    Error::unauthenticated(message).with_hint("give the name and password of a user in [auth.users]")
}

/// Lets a request pass with its principal, or answers with the refusal in the request's own protocol.
pub async fn require(State(authenticator): State<Arc<Authenticator>>, mut request: Request, next: Next) -> Response {
    let peer = peer(&request).cloned();
    match authenticator.authenticate(request.headers(), peer.as_ref()).await {
        Ok((principal, means)) => {
            if let Some(peer) = peer
                && let Err(error) = peer.seat.take().await
            {
                return if is_grpc(request.headers()) { status(&error).into_http() } else { problem(&error) };
            }
            request.extensions_mut().insert(principal);
            request.extensions_mut().insert(means);
            next.run(request).await
        }
        Err(_) if brings_credentials(&request) => {
            // Nobody yet may make the server hold more than credentials take.
            let knock = peer.as_ref().map(|peer| peer.seat.knock().ok_or(()));
            let (Ok(_knock), true) = (knock.transpose(), leave_out(request.headers_mut())) else {
                return status(&Error::exhausted("too much is to be held for a handshake").with_hint(
                    "send the name and password in the header authorization, and end each handshake before the next",
                ))
                .into_http();
            };
            let (parts, body) = request.into_parts();
            next.run(Request::from_parts(parts, Body::new(Limited::new(body, LARGEST_CREDENTIALS)))).await
        }
        Err(error) => {
            note_refusal(&error, peer.as_ref());
            if is_grpc(request.headers()) {
                return status(&error).into_http();
            }
            let mut response = problem(&error);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"nexus\""));
            response
        }
    }
}

/// Whether a request is a handshake whose credentials are in its first message, as in
/// <https://arrow.apache.org/docs/format/Flight.html#authentication>.
fn brings_credentials(request: &Request) -> bool {
    let is_handshake = request.uri().path() == "/arrow.flight.protocol.FlightService/Handshake";
    is_handshake && !request.headers().contains_key(AUTHORIZATION) && !request.headers().contains_key(TOKEN)
}

/// Leaves out what a handshake does not need of its headers; whether the rest is no larger than credentials may be.
fn leave_out(headers: &mut HeaderMap) -> bool {
    let all = std::mem::take(headers);
    for name in KEPT_HEADERS {
        for value in all.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum::<usize>() <= LARGEST_CREDENTIALS
}

/// Records that somebody was not let in.
pub fn note_refusal(error: &Error, peer: Option<&Peer>) {
    metrics::counter!("nexus_refused_credentials_total").increment(1);
    let peer = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
    tracing::warn!(target: "nexus::audit", %error, peer, "credentials refused");
}

/// Where a request comes from.
fn peer(request: &Request) -> Option<&Peer> {
    request.extensions().get::<Peer>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_costs_as_much_as_one_that_somebody_has() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let made = hash_password("hunter2".into()).unwrap();
        let somebody = PasswordHash::new(&made).unwrap();
        assert_eq!((nobody.algorithm, nobody.version, &nobody.params), (somebody.algorithm, somebody.version, &somebody.params));
        assert_eq!(nobody.hash.map(|hash| hash.len()), somebody.hash.map(|hash| hash.len()));
    }

    /// Lets in ann, whose password is hunter2.
    fn door() -> Authenticator {
        let hash = hash_password("hunter2".into()).unwrap();
        let user = crate::config::User { password_hash: hash.into() };
        let auth = Auth { mode: AuthMode::Basic, users: [("ann".to_owned(), user)].into(), ..Auth::default() };
        let seal = Arc::new(Seal::new(&crate::config::Tickets::default()).unwrap());
        Authenticator::new(&auth, None, None, seal, Duration::from_secs(600))
    }

    #[tokio::test]
    async fn headers_that_differ_let_nobody_in() {
        let (door, right) = (door(), format!("Basic {}", BASE64.encode("ann:hunter2")));
        let wrong = format!("Basic {}", BASE64.encode("ann:hunter3"));
        for (both, lets_in) in [([&right, &right], true), ([&right, &wrong], false), ([&wrong, &right], false)] {
            let headers: HeaderMap = both.into_iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect();
            assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 2);
            assert_eq!(door.authenticate(&headers, None).await.is_ok(), lets_in, "{both:?}");
        }
    }

    #[tokio::test]
    async fn what_is_given_for_a_token_ends_with_it() {
        let door = door();
        let (ann, means) = door.check_password("ann", "hunter2", None).await.unwrap();
        let first = door.token(&ann, &means).unwrap();
        let (_, of_first) = door.check_token(&first).await.unwrap();
        let Means::Granted(behind, until) = &of_first else { panic!("{of_first:?}") };
        assert_eq!(**behind, means);
        assert!(*until <= now() + 600);
        let second = door.token(&ann, &of_first).unwrap();
        assert_eq!(door.check_token(&second).await.unwrap(), (ann.clone(), of_first.clone()));
        // One whose time is nearly over.
        let late = door.token(&ann, &Means::Granted(behind.clone(), now() + 1)).unwrap();
        assert!(door.check_token(&late).await.is_ok());
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(door.check_token(&late).await.unwrap_err().kind(), Kind::Unauthenticated);
        assert!(door.check_token(&second).await.is_ok());
    }
}
