//! What is remembered by id: so many of them, and the latest always.

use moka::future::{Cache, CacheBuilder};
use moka::policy::EvictionPolicy;
use uuid::Uuid;

/// How many are remembered of those that are to be refused.
pub const REFUSED: u64 = 100_000;

/// Remembers the latest `most`. What is asked for often would keep new ids out otherwise, and what was refused last would not be.
pub fn latest<V: Clone + Send + Sync + 'static>(most: u64) -> CacheBuilder<Uuid, V, Cache<Uuid, V>> {
    Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_id_is_remembered_where_there_are_as_many_as_can_be() {
        const MOST: u64 = 2_000;
        let known = latest(MOST).build();
        let often = Uuid::nil();
        known.insert(often, ()).await;
        for id in 1..=2 * MOST {
            known.get(&often).await;
            known.insert(Uuid::from_u128(id.into()), ()).await;
        }
        known.run_pending_tasks().await;
        assert!(known.entry_count() <= MOST);
        let newest = (0..MOST / 2).map(|back| Uuid::from_u128((2 * MOST - back).into()));
        assert_eq!(newest.filter(|id| !known.contains_key(id)).count(), 0);
    }
}
