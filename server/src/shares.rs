//! Memory by user: all statements take from one pool, and those of one user no more than a share of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size};
use nexus_flight_catalog::Principal;

/// Gives each user a share of a pool.
#[derive(Debug)]
pub struct Shares {
    pool: Arc<dyn MemoryPool>,
    /// The most bytes of one user.
    most: usize,
    given: Mutex<HashMap<Principal, Weak<Share>>>,
}

/// What the statements of one user take from.
#[derive(Debug)]
pub struct Share {
    pool: Arc<dyn MemoryPool>,
    most: usize,
    used: AtomicUsize,
}

impl Shares {
    /// Shares of so many bytes of a pool.
    pub fn new(pool: Arc<dyn MemoryPool>, most: usize) -> Self {
        Self { pool, most, given: Mutex::default() }
    }

    /// The one share of a user: there is no other for as long as a statement holds it.
    pub fn of(&self, principal: &Principal) -> Arc<Share> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = given.get(principal).and_then(Weak::upgrade) {
            return share;
        }
        // Users that have nothing run any more.
        given.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share { pool: Arc::clone(&self.pool), most: self.most, used: AtomicUsize::new(0) });
        given.insert(principal.clone(), Arc::downgrade(&share));
        share
    }
}

impl MemoryPool for Share {
    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let within = |used: usize| used.checked_add(additional).filter(|used| *used <= self.most);
        if let Err(used) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            // In DataFusion's words, by which its operators and our errors know it.
            return Err(DataFusionError::ResourcesExhausted(format!(
                "Failed to allocate additional {} for {} with {} already allocated for this reservation - {} remain available for one user",
                human_readable_size(additional),
                reservation.consumer().name(),
                human_readable_size(reservation.size()),
                human_readable_size(self.most.saturating_sub(used)),
            )));
        }
        self.pool.try_grow(reservation, additional).inspect_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
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

    #[test]
    fn one_user_takes_no_more_than_a_share() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let shares = Shares::new(Arc::clone(&pool), 75);
        let reserve = |name: &str| {
            let share: Arc<dyn MemoryPool> = shares.of(&Principal(name.into()));
            MemoryConsumer::new("sort").register(&share)
        };
        let (heavy, again, light) = (reserve("heavy"), reserve("heavy"), reserve("light"));
        heavy.try_grow(50).unwrap();
        let error = again.try_grow(30).unwrap_err();
        insta::assert_snapshot!(nexus_flight_catalog::Error::from(error), @"");
        light.try_grow(40).unwrap();
        // The pool has less than the share, and what it refuses is not counted.
        again.try_grow(20).unwrap_err();
        drop(light);
        again.try_grow(25).unwrap();
        drop((heavy, again));
        assert_eq!((pool.reserved(), shares.of(&Principal("heavy".into())).reserved()), (0, 0));
    }
}
