//! Why an answer is neither taken from the cache nor kept.

use crate::digest::NoDigest;
use crate::query::Cached;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bypass {
    /// There is no cache.
    Off,
    /// The client wants none.
    Asked,
    /// A part of its answer is asked for.
    Part,
    /// The statement writes.
    Writes,
    /// Its answer is of an open transaction.
    Transaction,
    /// It reads information_schema.
    Listing,
    /// The plan has no digest.
    NoDigest(NoDigest),
}

impl Bypass {
    /// The name in metrics.
    const fn name(self) -> &'static str {
        match self {
            Bypass::Off => "off",
            Bypass::Asked => "asked",
            Bypass::Part => "part",
            Bypass::Writes => "writes",
            Bypass::Transaction => "transaction",
            Bypass::Listing => "listing",
            Bypass::NoDigest(NoDigest::Unlisted) => "unlisted",
            Bypass::NoDigest(NoDigest::Volatile) => "volatile",
            Bypass::NoDigest(NoDigest::UnknownVersion) => "unknown_version",
        }
    }

    /// In words.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Bypass::Off => "the cache has no size",
            Bypass::Asked => "the client wants none",
            Bypass::Part => "the answer is fetched in parts",
            Bypass::Writes => "the statement writes",
            Bypass::Transaction => "a transaction is open",
            Bypass::Listing => "information_schema is read anew each time",
            Bypass::NoDigest(NoDigest::Unlisted) => "the plan has a part that the cache cannot compare",
            Bypass::NoDigest(NoDigest::Volatile) => "a function may give another value each time",
            Bypass::NoDigest(NoDigest::UnknownVersion) => {
                "a table is of unknown version, and its catalog has no ttl for which it may be taken as unchanged"
            }
        }
    }

    /// Counts such an answer, and gives what is told of it.
    pub(super) fn told(self) -> Cached {
        metrics::counter!("nexus_cache_bypasses_total", "reason" => self.name()).increment(1);
        Cached { why: Some(self.reason()), ..Cached::default() }
    }
}
