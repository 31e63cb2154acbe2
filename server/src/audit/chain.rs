//! How one record is sealed to the one before it: each ends with a hash of that one's hash and of itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use hex::FromHex;
use ring::digest::{Context, SHA256};
use ring::hmac;

use crate::config::TicketKey;

/// What stands between a record and its hash, which is the last of its line.
const MARK: &str = ",\"chain\":\"";
const HASH: usize = 32;
/// An index of 20 digits, a space, and a hash of 64.
const LINK: usize = 85;

/// Makes hashes: with a key, none that others could make.
#[derive(Debug)]
pub(super) struct Chain(Option<hmac::Key>);

/// What is kept beside the records.
#[derive(Debug)]
pub(super) enum Head {
    /// Nothing: no record has been written.
    Empty,
    /// The link of the last record.
    Of(Link),
    /// What no gateway with this key has written, or with none where there is no key.
    Changed,
}

/// The index and hash of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u64,
    pub hash: [u8; HASH],
    /// Whether there is a record; before the first there is none.
    is_record: bool,
}

impl Chain {
    pub(super) fn new(key: Option<&TicketKey>) -> Self {
        Self(key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose())))
    }

    /// A record, a JSON object of one line, as the line that is written.
    pub(super) fn sealed(&self, last: &Link, index: u64, mut record: String) -> (String, Link) {
        // The last brace comes after the hash.
        record.pop();
        let link = Link { index, hash: self.hash(last, record.as_bytes()), is_record: true };
        record.push_str(MARK);
        record.push_str(&link.hex());
        record.push_str("\"}\n");
        (record, link)
    }

    /// The link of a line after another, where its hash and index are right.
    pub(super) fn checked(&self, last: &Link, line: &[u8]) -> Option<Link> {
        let link = Link::of_line(line)?;
        let record = line.get(..line.len().checked_sub(tail())?)?;
        (link.index == last.next() && self.hash(last, record) == link.hash).then_some(link)
    }

    /// A link as it is kept beside the records: always as long, and with a key, signed.
    pub(super) fn head(&self, last: &Link) -> String {
        let link = format!("{:020} {}", last.index, last.hex());
        match &self.0 {
            Some(key) => {
                let tag = hmac::sign(key, signed(&link).as_bytes());
                format!("{link} {}", hex::encode(tag))
            }
            None => link,
        }
    }

    /// What is kept there.
    pub(super) fn of_head(&self, head: &File) -> std::io::Result<Head> {
        // More than a head has, so that one with something after it is seen to be none.
        let mut text = [0; 2 * LINK];
        let length = head.read_at(&mut text, 0)?;
        Ok(match text.get(..length).unwrap_or_default() {
            [] => Head::Empty,
            text => self.link(text).map_or(Head::Changed, Head::Of),
        })
    }

    /// The link of a head that is as it was written.
    fn link(&self, head: &[u8]) -> Option<Link> {
        let (link, tag) = str::from_utf8(head).ok()?.split_at_checked(LINK)?;
        let is_right = match &self.0 {
            Some(key) => {
                let tag = tag.strip_prefix(' ')?;
                let bytes = <[u8; HASH]>::from_hex(tag).ok()?;
                hex::encode(bytes) == tag && hmac::verify(key, signed(link).as_bytes(), &bytes).is_ok()
            }
            None => tag.is_empty(),
        };
        let (index, hash) = link.split_once(' ')?;
        Link::known(index.parse().ok()?, hash).filter(|_| is_right)
    }

    fn hash(&self, last: &Link, record: &[u8]) -> [u8; HASH] {
        let mut hash = [0; HASH];
        match &self.0 {
            Some(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(&last.hash);
                context.update(record);
                hash.copy_from_slice(context.sign().as_ref());
            }
            None => {
                let mut context = Context::new(&SHA256);
                context.update(&last.hash);
                context.update(record);
                hash.copy_from_slice(context.finish().as_ref());
            }
        }
        hash
    }
}

impl Link {
    /// What the first record comes after.
    pub(super) fn first() -> Self {
        Self { index: 0, hash: [0; HASH], is_record: false }
    }

    /// A link that is known from elsewhere.
    pub(super) fn known(index: u64, hash: &str) -> Option<Self> {
        let link = Self { index, hash: FromHex::from_hex(hash).ok()?, is_record: true };
        // Only as it is written: of two texts for one hash, one would be a change that nobody sees.
        (link.hex() == hash).then_some(link)
    }

    /// The index of the next record.
    pub(super) fn next(&self) -> u64 {
        if self.is_record { self.index + 1 } else { 0 }
    }

    pub(super) fn hex(&self) -> String {
        hex::encode(self.hash)
    }

    /// What a whole line says of itself.
    pub(super) fn of_line(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let (record, hash) = line.split_at_checked(line.len().checked_sub(tail())?)?;
        let hash = hash.strip_prefix(MARK)?.strip_suffix("\"}\n")?;
        let index = record.strip_prefix("{\"index\":")?.split(',').next()?.parse().ok()?;
        Self::known(index, hash)
    }
}

/// What is signed of a head. Its first word tells it from what is hashed of a record: whatever hash that begins with, a brace follows.
fn signed(link: &str) -> String {
    format!("head {link}")
}

/// The bytes of a line after its record.
fn tail() -> usize {
    MARK.len() + 2 * HASH + "\"}\n".len()
}
