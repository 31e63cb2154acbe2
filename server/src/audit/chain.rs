//! How one record is sealed to the one before it: each ends with a hash of that one's hash and of itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, SHA256};
use ring::hmac;

use crate::config::TicketKey;
use crate::hex::{hex, unhex};

/// What stands between a record and its hash, which is the last of its line.
const MARK: &str = ",\"chain\":\"";
const HASH: usize = 32;
/// An index of 20 digits, a space, and a hash of 64.
const HEAD: usize = 85;

/// Makes hashes: with a key, none that others could make.
#[derive(Debug)]
pub(super) struct Chain(Option<hmac::Key>);

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
        let link = Self { index, hash: unhex(hash)?, is_record: true };
        // Only as it is written: of two texts for one hash, one would be a change that nobody sees.
        (link.hex() == hash).then_some(link)
    }

    /// The index of the next record.
    pub(super) fn next(&self) -> u64 {
        if self.is_record { self.index + 1 } else { 0 }
    }

    pub(super) fn hex(&self) -> String {
        hex(&self.hash)
    }

    /// What a whole line says of itself.
    pub(super) fn of_line(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let (record, hash) = line.split_at_checked(line.len().checked_sub(tail())?)?;
        let hash = hash.strip_prefix(MARK)?.strip_suffix("\"}\n")?;
        let index = record.strip_prefix("{\"index\":")?.split(',').next()?.parse().ok()?;
        Self::known(index, hash)
    }

    /// As it is kept beside the records.
    pub(super) fn head(&self) -> String {
        format!("{:020} {}", self.index, self.hex())
    }

    /// What is kept there; none where nothing is.
    pub(super) fn of_head(head: &File) -> std::io::Result<Option<Self>> {
        let mut text = [0; HEAD];
        if head.metadata()?.len() == 0 {
            return Ok(None);
        }
        head.read_exact_at(&mut text, 0)?;
        let link = str::from_utf8(&text).ok().and_then(|text| {
            let (index, hash) = text.split_once(' ')?;
            Self::known(index.parse().ok()?, hash)
        });
        link.map(Some).ok_or_else(|| std::io::Error::other("its head is not one"))
    }
}

/// The bytes of a line after its record.
fn tail() -> usize {
    MARK.len() + 2 * HASH + "\"}\n".len()
}
