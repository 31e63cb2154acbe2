//! Memory by user: all statements take from one pool, and those of one user no more than a share of it. Those operators that can put rows
//! on disk leave a part of it to the others, which cannot, and large wants leave a little to small ones: a merge of what is on disk takes
//! whatever there is for it to read ahead, and cannot go on without some more for what it makes. Turns to plan by user too: planning takes no
//! slot, and pauses nowhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size};
use nexus_flight_catalog::Principal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of a share, what those take at most that can put rows on disk.
const SPILLABLE: (usize, usize) = (3, 4);
/// The same of sorts alone. What a sort puts on disk it merges first, which takes as much again, while it gives back what was sorted; and
/// the next rows come meanwhile. So each has its part, of which no other one takes what is given back.
const SORTS: (usize, usize) = (3, 8);
/// Of a share, what merges of what is on disk leave to the others, which they cannot go on without; and what those leave that can put
/// rows on disk, and large wants.
const LEFT_BY_MERGES: usize = 8;
/// Of a share, what a merge may take in any case. Where there are fewer merges it is as much as there is for each of them: the first one
/// would read ahead in all of it, and the others could not begin.
const MERGE: usize = 16;
const LEFT: usize = 16;
/// From which part of a share on a want is large.
const LARGE: usize = 64;
/// What DataFusion calls sorts and the merges of what is on disk, in front of their number.
const SORT: &str = "ExternalSorter[";
const MERGES: &str = "ExternalSorterMerge";

/// How many statements of one user are planned at once.
const PLANNED: usize = 4;

/// Gives each user a share of a pool.
#[derive(Debug)]
pub struct Shares {
    pool: Arc<dyn MemoryPool>,
    /// Whose it is, for messages: a share may be all that there is.
    of: &'static str,
    /// The most bytes of one user.
    most: usize,
    given: Mutex<HashMap<Principal, Weak<Share>>>,
}

/// What the statements of one user take from.
#[derive(Debug)]
pub struct Share {
    pool: Arc<dyn MemoryPool>,
    of: &'static str,
    most: usize,
    used: AtomicUsize,
    /// As much of it as can be put on disk.
    spillable: AtomicUsize,
    /// How many sorts there are.
    sorts: AtomicUsize,
    /// How many sorts there are whose rows are not all read, of which each may come to merge what it has put on disk.
    merges: AtomicUsize,
    planning: Arc<Semaphore>,
}

impl Shares {
    /// Shares of so many bytes of a pool.
    pub fn new(pool: Arc<dyn MemoryPool>, most: usize) -> Self {
        let is_all = matches!(pool.memory_limit(), MemoryLimit::Finite(all) if most >= all);
        let of = if is_all { "the total pool" } else { "one user" };
        Self { pool, of, most, given: Mutex::default() }
    }

    /// The one share of a user: there is no other for as long as a statement holds it.
    pub fn of(&self, principal: &Principal) -> Arc<Share> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = given.get(principal).and_then(Weak::upgrade) {
            return share;
        }
        // Users that have nothing run any more.
        given.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            pool: Arc::clone(&self.pool),
            of: self.of,
            most: self.most,
            used: AtomicUsize::default(),
            spillable: AtomicUsize::default(),
            sorts: AtomicUsize::default(),
            merges: AtomicUsize::default(),
            planning: Arc::new(Semaphore::new(PLANNED)),
        });
        given.insert(principal.clone(), Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// The user's turn to plan a statement, until it is dropped; none where nobody waits for it any more.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.planning).acquire_owned().await.ok()
    }

    /// How many there are of those that have a part each; none for those that have no part.
    fn alike(&self, consumer: &MemoryConsumer) -> Option<&AtomicUsize> {
        match consumer.name() {
            name if name.starts_with(SORT) => Some(&self.sorts),
            name if name.starts_with(MERGES) => Some(&self.merges),
            _ => None,
        }
    }

    /// The most that one of those may take that have a part each.
    fn part(&self, consumer: &MemoryConsumer) -> Option<usize> {
        let alike = self.alike(consumer)?.load(Ordering::Relaxed).max(1);
        Some(match consumer.name().starts_with(SORT) {
            true => self.most / SORTS.1 * SORTS.0 / alike,
            false => ((self.most - self.most / LEFT_BY_MERGES) / alike).max(self.most / MERGE),
        })
    }

    /// Where what a reservation takes is counted.
    fn count(&self, reservation: &MemoryReservation) -> impl Iterator<Item = &AtomicUsize> {
        let spillable = reservation.consumer().can_spill().then_some(&self.spillable);
        std::iter::once(&self.used).chain(spillable)
    }
}

impl MemoryPool for Share {
    fn register(&self, consumer: &MemoryConsumer) {
        if let Some(alike) = self.alike(consumer) {
            alike.fetch_add(1, Ordering::Relaxed);
        }
        self.pool.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if let Some(alike) = self.alike(consumer) {
            alike.fetch_sub(1, Ordering::Relaxed);
        }
        self.pool.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.count(reservation).for_each(|used| _ = used.fetch_add(additional, Ordering::Relaxed));
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.count(reservation).for_each(|used| _ = used.fetch_sub(shrink, Ordering::Relaxed));
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let refused = |used: usize, most: usize| {
            // In DataFusion's words, by which its operators and our errors know it.
            DataFusionError::ResourcesExhausted(format!(
                "Failed to allocate additional {} for {} with {} already allocated for this reservation - {} remain available for {}",
                human_readable_size(additional),
                reservation.consumer().name(),
                human_readable_size(reservation.size()),
                human_readable_size(most.saturating_sub(used)),
                self.of,
            ))
        };
        let take = |of: &AtomicUsize, most: usize| {
            let within = |used: usize| used.checked_add(additional).filter(|used| *used <= most);
            of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).map(drop).map_err(|used| refused(used, most))
        };
        let spills = reservation.consumer().can_spill();
        let left = match reservation.consumer().name().starts_with(MERGES) {
            true => self.most / LEFT_BY_MERGES,
            false if spills || additional > self.most / LARGE => self.most / LEFT,
            false => 0,
        };
        if let Some(part) = self.part(reservation.consumer()) {
            let used = reservation.size();
            used.checked_add(additional).filter(|used| *used <= part).ok_or_else(|| refused(used, part))?;
        }
        take(&self.used, self.most - left)?;
        let give_back = |of: &AtomicUsize| _ = of.fetch_sub(additional, Ordering::Relaxed);
        if spills {
            take(&self.spillable, self.most / SPILLABLE.1 * SPILLABLE.0).inspect_err(|_| give_back(&self.used))?;
        }
        self.pool.try_grow(reservation, additional).inspect_err(|_| {
            self.count(reservation).for_each(give_back);
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    fn reserve(shares: &Shares, name: &str, spills: bool) -> MemoryReservation {
        let share: Arc<dyn MemoryPool> = shares.of(&Principal(name.into()));
        MemoryConsumer::new("sort").with_can_spill(spills).register(&share)
    }

    #[test]
    fn one_user_takes_no_more_than_a_share() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1_000));
        let shares = Shares::new(Arc::clone(&pool), 750);
        let [heavy, again, light] = ["heavy", "heavy", "light"].map(|name| reserve(&shares, name, false));
        heavy.try_grow(500).unwrap();
        let error = again.try_grow(300).unwrap_err();
        insta::assert_snapshot!(nexus_flight_catalog::Error::from(error), @"the memory limit of one user is reached: sort needs 300.0 B more and 204.0 B are free; ask for less at once, or raise limits.memory_per_user in the configuration");
        light.try_grow(400).unwrap();
        // The pool has less than the share, and what it refuses is not counted.
        again.try_grow(150).unwrap_err();
        drop(light);
        again.try_grow(200).unwrap();
        drop((heavy, again));
        assert_eq!((pool.reserved(), shares.of(&Principal("heavy".into())).reserved()), (0, 0));
    }

    #[test]
    fn something_is_left_to_small_wants_and_to_those_that_cannot_spill() {
        let shares = Shares::new(Arc::new(GreedyMemoryPool::new(640)), 640);
        let (spilling, other) = (reserve(&shares, "one", true), reserve(&shares, "one", false));
        spilling.try_grow(481).unwrap_err();
        spilling.try_grow(480).unwrap();
        let error = other.try_grow(121).unwrap_err();
        insta::assert_snapshot!(nexus_flight_catalog::Error::from(error), @"the memory limit is reached: sort needs 121.0 B more and 120.0 B are free; ask for less at once, or raise limits.memory in the configuration");
        other.try_grow(120).unwrap();
        for _ in 0..4 {
            other.try_grow(10).unwrap();
        }
        other.try_grow(10).unwrap_err();
    }

    #[test]
    fn a_merge_reads_ahead_in_what_others_leave() {
        let shares = Shares::new(Arc::new(GreedyMemoryPool::new(640)), 640);
        let share: Arc<dyn MemoryPool> = shares.of(&Principal("one".into()));
        let merge = MemoryConsumer::new(format!("{MERGES}[0]")).register(&share);
        while merge.try_grow(10).is_ok() {}
        assert_eq!(merge.size(), 560);
        let (spilling, other) = (reserve(&shares, "one", true), reserve(&shares, "one", false));
        while spilling.try_grow(10).is_ok() {}
        assert_eq!(spilling.size(), 40);
        while other.try_grow(10).is_ok() {}
        assert_eq!(other.size(), 40);
    }

    #[test]
    fn a_merge_leaves_others_their_part() {
        let shares = Shares::new(Arc::new(GreedyMemoryPool::new(640)), 640);
        let share: Arc<dyn MemoryPool> = shares.of(&Principal("one".into()));
        let merge = |number| MemoryConsumer::new(format!("{MERGES}[{number}]")).register(&share);
        let (first, second) = (merge(0), merge(1));
        while first.try_grow(10).is_ok() {}
        while second.try_grow(10).is_ok() {}
        assert_eq!((first.size(), second.size()), (280, 280));
        drop(first);
        while second.try_grow(10).is_ok() {}
        assert_eq!(second.size(), 560);
        drop(second);
        let many: Vec<_> = (0..64).map(merge).collect();
        while many[0].try_grow(10).is_ok() {}
        assert_eq!(many[0].size(), 40);
    }

    #[test]
    fn each_sort_has_its_part() {
        let shares = Shares::new(Arc::new(GreedyMemoryPool::new(640)), 640);
        let share: Arc<dyn MemoryPool> = shares.of(&Principal("one".into()));
        let sort = |number| MemoryConsumer::new(format!("{SORT}{number}]")).with_can_spill(true).register(&share);
        let (first, second) = (sort(0), sort(1));
        while first.try_grow(10).is_ok() {}
        while second.try_grow(10).is_ok() {}
        assert_eq!((first.size(), second.size()), (120, 120));
        // What is merged is a reservation of its own: what the other one gives back meanwhile is not the sort's.
        let merged = first.split(120);
        merged.shrink(60);
        second.try_grow(10).unwrap_err();
        drop((first, merged));
        while second.try_grow(10).is_ok() {}
        assert_eq!(second.size(), 240);
    }
}
