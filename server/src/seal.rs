//! Sealed values: what a client carries for us, so that nothing is kept here. Any replica with the key opens them.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nexus_flight_catalog::{Error, Result};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Tickets;

/// Changes when the form of what is sealed does.
const FORM: u8 = 1;
/// The form, a hint at the key, and the nonce.
const HEADER: usize = 1 + KEY_ID + NONCE_LEN;
const KEY_ID: usize = 4;

/// What a sealed value is for. One kind never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A statement that was described, to be run.
    Ticket,
    /// A prepared statement.
    Prepared,
    /// Who the client is.
    Token,
    /// What the client has set.
    Session,
    /// An open transaction.
    Transaction,
    /// A moment in it.
    Savepoint,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Purpose::Ticket => "ticket",
            Purpose::Prepared => "prepared statement",
            Purpose::Token => "token",
            Purpose::Session => "session",
            Purpose::Transaction => "transaction",
            Purpose::Savepoint => "savepoint",
        }
    }

    /// Bound into the seal, so that it is checked and need not be carried.
    fn label(self) -> Aad<&'static [u8]> {
        Aad::from(self.name().as_bytes())
    }
}

/// Seals and opens. The first key seals, all open, so keys can be rotated.
pub struct Seal {
    keys: RwLock<Vec<Key>>,
    shared: bool,
    random: SystemRandom,
}

struct Key {
    id: [u8; KEY_ID],
    key: LessSafeKey,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("keys", &self.keys().len()).finish()
    }
}

impl Seal {
    /// Whether other servers may have the same keys.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// With the configured keys, or with one of this process alone.
    pub fn new(tickets: &Tickets) -> Result<Self> {
        let random = SystemRandom::new();
        let mut keys = configured(tickets)?;
        if keys.is_empty() {
            let mut key = [0; 32];
            random.fill(&mut key).map_err(|_| Error::internal("the system gives no random numbers"))?;
            keys.push(Key::new(&key)?);
        }
        Ok(Self { keys: RwLock::new(keys), shared: !tickets.keys.is_empty(), random })
    }

    /// From now on with these keys, where any are configured: what was sealed with one that is not among them does not open any more.
    pub fn renew(&self, tickets: &Tickets) -> Result<()> {
        if self.shared {
            let keys = configured(tickets)?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(())
    }

    fn keys(&self) -> RwLockReadGuard<'_, Vec<Key>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value that only [`Seal::open`] of the same purpose can read, for so long.
    pub fn seal(&self, purpose: Purpose, value: &(impl Serialize + ?Sized), lives: Duration) -> Result<Vec<u8>> {
        let expires = now().saturating_add(lives.as_secs());
        let mut plain = postcard::to_stdvec(&(expires, value))
            .map_err(|error| Error::internal("a value cannot be sealed").caused_by(error))?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Error::internal("the system gives no random numbers"))?;
        let keys = self.keys();
        let Some(key) = keys.first() else { return Err(Error::internal("there is no key to seal with")) };
        let nonce_value = Nonce::assume_unique_for_key(nonce);
        key.key
            .seal_in_place_append_tag(nonce_value, purpose.label(), &mut plain)
            .map_err(|_| Error::internal("a value cannot be sealed"))?;
        let mut sealed = Vec::with_capacity(HEADER + plain.len());
        sealed.push(FORM);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut plain);
        Ok(sealed)
    }

    /// The value again. Errors: `Invalid` where it is not one of ours, `Precondition` where its time is over.
    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &[u8]) -> Result<T> {
        let (expires, value) = self.opened(purpose, sealed)?;
        if expires < now() {
            return Err(Error::precondition(format!("the {} has expired", purpose.name())).with_hint("ask for a new one"));
        }
        Ok(value)
    }

    /// The value again, also where its time is over. Errors: `Invalid` where it is not one of ours.
    pub fn open_expired<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &[u8]) -> Result<T> {
        self.opened(purpose, sealed).map(|(_, value)| value)
    }

    /// When it expires, and the value.
    fn opened<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &[u8]) -> Result<(u64, T)> {
        let plain = self.plain(purpose, sealed).ok_or_else(|| {
            Error::invalid(format!("the {} was not made by this server, or was changed", purpose.name()))
                .with_hint("ask for a new one; replicas must share tickets.keys, and without keys none outlives a restart")
        })?;
        let (expires, rest) = postcard::take_from_bytes::<u64>(&plain)
            .map_err(|error| Error::internal("a sealed value cannot be read").caused_by(error))?;
        let value = postcard::from_bytes(rest).map_err(|error| {
            // Sealed by another release.
            Error::precondition(format!("the {} has another form than this server's", purpose.name()))
                .with_hint("ask for a new one")
                .caused_by(error)
        })?;
        Ok((expires, value))
    }

    fn plain(&self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = sealed.split_at_checked(HEADER)?;
        let (form, rest) = header.split_first()?;
        let (id, nonce) = rest.split_at_checked(KEY_ID)?;
        let keys = self.keys();
        let key = keys.iter().find(|key| *form == FORM && key.id == id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let length = key.key.open_in_place(nonce, purpose.label(), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }

    /// The same as text, for a header or a cookie.
    pub fn seal_text(&self, purpose: Purpose, value: &(impl Serialize + ?Sized), lives: Duration) -> Result<String> {
        Ok(URL_SAFE_NO_PAD.encode(self.seal(purpose, value, lives)?))
    }

    /// The value behind such a text.
    pub fn open_text<T: DeserializeOwned>(&self, purpose: Purpose, text: &str) -> Result<T> {
        // What is no base64 is not ours either.
        self.open(purpose, &URL_SAFE_NO_PAD.decode(text).unwrap_or_default())
    }
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).map_err(|_| Error::internal("a key has the wrong length"))?;
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..KEY_ID]);
        Ok(Self { id, key: LessSafeKey::new(key) })
    }
}

fn configured(tickets: &Tickets) -> Result<Vec<Key>> {
    tickets.keys.iter().map(|key| Key::new(key.expose())).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn seal() -> Seal {
        Seal::new(&Tickets::default()).unwrap()
    }

    #[test]
    fn a_value_opens_with_its_key_and_purpose_only() {
        let ours = seal();
        let sealed = ours.seal(Purpose::Ticket, &"SELECT 1", Duration::from_secs(60)).unwrap();
        assert_eq!(ours.open::<String>(Purpose::Ticket, &sealed).unwrap(), "SELECT 1");
        assert!(ours.open::<String>(Purpose::Token, &sealed).is_err());
        assert!(seal().open::<String>(Purpose::Ticket, &sealed).is_err());
    }

    #[test]
    fn keys_are_rotated_while_values_are_out() {
        let with = |bytes: &[u8]| Tickets {
            keys: bytes.iter().map(|byte| STANDARD.encode([*byte; 32]).parse().unwrap()).collect(),
            ..Tickets::default()
        };
        let ours = Seal::new(&with(&[1])).unwrap();
        let old = ours.seal(Purpose::Ticket, &"SELECT 1", Duration::from_secs(60)).unwrap();
        ours.renew(&with(&[2, 1])).unwrap();
        let new = ours.seal(Purpose::Ticket, &"SELECT 2", Duration::from_secs(60)).unwrap();
        assert_ne!(old[1..=KEY_ID], new[1..=KEY_ID]);
        assert_eq!(ours.open::<String>(Purpose::Ticket, &old).unwrap(), "SELECT 1");
        ours.renew(&with(&[2])).unwrap();
        assert!(ours.open::<String>(Purpose::Ticket, &old).is_err());
        assert_eq!(ours.open::<String>(Purpose::Ticket, &new).unwrap(), "SELECT 2");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let ours = seal();
        let sealed = ours.seal(Purpose::Ticket, &"SELECT 1", Duration::from_secs(60)).unwrap();
        for position in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[position] ^= 1;
            assert!(ours.open::<String>(Purpose::Ticket, &forged).is_err(), "byte {position}");
            assert!(ours.open::<String>(Purpose::Ticket, &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn an_expired_value_says_so() {
        let key = Key::new(&[7; 32]).unwrap();
        let ours = Seal { keys: RwLock::new(vec![key]), shared: false, random: SystemRandom::new() };
        let mut plain = postcard::to_stdvec(&(now() - 1, "SELECT 1")).unwrap();
        let nonce = [0; NONCE_LEN];
        let keys = ours.keys();
        let key = &keys[0];
        key.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Purpose::Ticket.label(), &mut plain).unwrap();
        let sealed = [&[FORM][..], &key.id, &nonce, &plain].concat();
        drop(keys);
        insta::assert_snapshot!(ours.open::<String>(Purpose::Ticket, &sealed).unwrap_err(), @"the ticket has expired; ask for a new one");
    }
}
