//! When something that answers hang on was changed or given up last through this gateway: a table, a catalog, the policy, a tag.
//! What was planned before that is not given any more, also where it was under way then.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
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
    /// The source of a catalog.
    Source(&'a str),
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

    /// Holds the same when what is returned is dropped: who waits for a write may leave, and it is done all the same.
    pub fn writing(self: &Arc<Self>, name: &TableName) -> Writing {
        Writing { writes: Arc::clone(self), to: To::Table(name.clone()) }
    }

    /// Holds that another source is behind a catalog from now on.
    pub fn opened(&self, catalog: &str) {
        self.note(&Of::Source(catalog));
    }

    /// Holds that writes to a catalog have taken now.
    pub fn committed(&self, catalog: &str) {
        self.note(&Of::Catalog(catalog));
    }

    /// Holds the same when what is returned is dropped: who waits for a commit may leave, and it is done all the same.
    pub fn committing(self: &Arc<Self>, catalog: &str) -> Writing {
        Writing { writes: Arc::clone(self), to: To::Catalog(catalog.to_owned()) }
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

    /// When something that what is known of a table hangs on was changed last, where it may have these names; none where it never was.
    /// Of tables that are made of others nobody knows it, so that is any write to their catalog.
    pub fn changed<'a>(&self, names: impl IntoIterator<Item = &'a TableName>) -> Option<Instant> {
        let of_name = |name: &TableName| {
            let catalog = &name.catalog;
            let all = [Of::Table(name), Of::Any(catalog), Of::Catalog(catalog), Of::Source(catalog), Of::Policy];
            all.iter().map(|of| self.moment(of)).max()
        };
        self.at(names.into_iter().filter_map(of_name).max()?)
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

/// A write that is under way.
#[derive(Debug)]
pub struct Writing {
    writes: Arc<Writes>,
    to: To,
}

/// What it changes.
#[derive(Debug)]
enum To {
    Table(TableName),
    Catalog(String),
}

impl Drop for Writing {
    fn drop(&mut self) {
        match &self.to {
            To::Table(name) => self.writes.wrote(name),
            To::Catalog(catalog) => self.writes.committed(catalog),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_counts_from_when_nobody_waits_for_it() {
        let (writes, names) = (Arc::new(Writes::default()), [TableName::new("c", "s", "t")]);
        let commit = writes.committing("c");
        assert_eq!(writes.changed(&names), None);
        drop(commit);
        let committed = writes.changed(&names);
        assert!(committed.is_some());
        let write = writes.writing(&names[0]);
        assert_eq!(writes.changed(&names), committed);
        drop(write);
        assert!(writes.changed(&names) > committed);
    }
}
