//! When something that answers hang on was changed or given up last through this gateway: a table, a catalog, the policy, a tag.
//! What was planned before that is not given any more, also where it was under way then.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexus_flight_catalog::{Resolved, TableName, Tables, Version};

use crate::procedures::Invalidate;

/// How many moments there are. Names share them by their hash, so that nothing grows: what two have in common costs a few answers
/// that are made once more.
const MOMENTS: usize = 1_024;

/// The moments, in nanoseconds since the first.
#[derive(Debug)]
pub struct Writes {
    first: Instant,
    moments: Box<[AtomicU64]>,
}

/// What is written to.
#[derive(Hash)]
enum Of<'a> {
    /// A table.
    Table(&'a TableName),
    /// Any table of a catalog: of a source that has no versions nobody knows what another one is made of.
    Any(&'a str),
    /// Tables of a catalog of which it is not known which.
    Catalog(&'a str),
    /// The policy.
    Policy,
    /// What has a tag.
    Tag(&'a str),
}

impl Default for Writes {
    fn default() -> Self {
        Self { first: Instant::now(), moments: (0..MOMENTS).map(|_| AtomicU64::default()).collect() }
    }
}

impl Writes {
    /// Holds that a write to a table has ended now, whether well or not.
    pub fn wrote(&self, name: &TableName) {
        self.note(&Of::Table(name));
        self.note(&Of::Any(&name.catalog));
    }

    /// Holds that writes to a catalog have taken now.
    pub fn committed(&self, catalog: &str) {
        self.note(&Of::Catalog(catalog));
    }

    /// Holds that something is given up now.
    pub fn invalidated(&self, what: &Invalidate) {
        match what {
            Invalidate::Tables(names) => names.iter().for_each(|name| self.note(&Of::Table(name))),
            Invalidate::Tag(tag) => self.note(&Of::Tag(tag)),
        }
    }

    /// Holds that the policy is another one from now on.
    pub fn governed(&self) {
        self.note(&Of::Policy);
    }

    /// When the policy changed last; none where it never did.
    pub fn policy(&self) -> Option<Instant> {
        self.at(self.moment(&Of::Policy))
    }

    /// When an answer over these tables, of such a tag, was given up last, or may have missed a write; none where it never was.
    pub fn last(&self, tables: &Tables, tag: Option<&str>) -> Option<Instant> {
        let of_table = |(name, table): (&TableName, &Resolved)| {
            let any = if table.version == Version::Unknown { self.moment(&Of::Any(&name.catalog)) } else { 0 };
            self.moment(&Of::Table(name)).max(self.moment(&Of::Catalog(&name.catalog))).max(any)
        };
        let of_tag = tag.map(|tag| self.moment(&Of::Tag(tag)));
        self.at(tables.iter().map(of_table).chain(of_tag).max()?)
    }

    fn at(&self, moment: u64) -> Option<Instant> {
        (moment > 0).then(|| self.first + Duration::from_nanos(moment))
    }

    fn note(&self, of: &Of<'_>) {
        // More than 500 years fit.
        let now = u64::try_from(self.first.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.slot(of).fetch_max(now.max(1), Ordering::SeqCst);
    }

    fn moment(&self, of: &Of<'_>) -> u64 {
        self.slot(of).load(Ordering::SeqCst)
    }

    fn slot(&self, of: &Of<'_>) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        &self.moments[(hasher.finish() % MOMENTS as u64) as usize]
    }
}
