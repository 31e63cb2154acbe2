//! What was read of the deletes of tables: once for all who want it at the same time, and kept within a bound.

use std::hash::Hash;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use moka::future::Cache;
use nexus_flight_catalog::{Kind, Result};
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::equality::{EqualityFile, Keys};
use super::positions::{DeleteFile, Named, Tail};
use crate::stores::ended_early;

/// The memory that each kind of these may take.
const MOST: u64 = 64 * 1024 * 1024;

/// What a small allocation and a place in a map take besides what is in them.
pub(super) const EACH: usize = 64;

/// What was read of the deletes of the tables of one catalog.
pub(super) struct Kept {
    /// Of files of position deletes.
    pub(super) positions: Once<DeleteFile, Arc<Named>>,
    /// Of files of equality deletes.
    pub(super) keys: Once<EqualityFile, Arc<Keys>>,
    /// The deleted rows of one data file.
    pub(super) sets: Once<Set, Arc<RoaringTreemap>>,
}

/// Which rows of one data file are deleted, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Set {
    /// Those of a vector, which is for one data file only.
    Vector { file: DeleteFile, offset: u64, length: u64 },
    /// Those whose keys are deleted.
    Equality { path: Path, size: u64, deletes: Tail<EqualityFile> },
}

impl Kept {
    pub(super) fn new() -> Self {
        let named = |named: &Arc<Named>| named.iter().map(|(name, set)| name.len() + EACH + memory(set)).sum::<usize>();
        Self { positions: Once::new(named), keys: Once::new(|keys| keys.bytes), sets: Once::new(|set| memory(set)) }
    }

    /// The same room for who reads with other keys.
    pub(super) fn under(&self, of: &Arc<str>) -> Self {
        Self { positions: self.positions.under(of), keys: self.keys.under(of), sets: self.sets.under(of) }
    }
}

/// The memory that a set takes.
pub(super) fn memory(set: &RoaringTreemap) -> usize {
    let bitmaps = set.bitmaps().map(|(_, bitmap)| {
        let containers = bitmap.statistics().n_containers as usize;
        bitmap.serialized_size() + EACH * (containers + 1)
    });
    bitmaps.sum()
}

/// Values that are read when they are first asked for.
pub(super) struct Once<K, V> {
    cache: Cache<(Arc<str>, K), V>,
    /// For whom they are read: what was read with the keys of one is nothing that another has seen.
    of: Arc<str>,
}

impl<K, V> Once<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `weigh` says how much memory a value takes.
    fn new(weigh: fn(&V) -> usize) -> Self {
        let weigh = move |_: &(Arc<str>, K), value: &V| u32::try_from(weigh(value)).unwrap_or(u32::MAX);
        Self { cache: Cache::builder().max_capacity(MOST).weigher(weigh).build(), of: Arc::default() }
    }

    fn under(&self, of: &Arc<str>) -> Self {
        Self { cache: self.cache.clone(), of: Arc::clone(of) }
    }

    /// The value of a key, which `read` reads where it is not kept. Whoever asks for it meanwhile waits for the same reading;
    /// where that is cancelled, one of those who wait reads it. Errors: those of `read`, which are not kept.
    pub(super) async fn get<F>(&self, key: K, read: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let key = (Arc::clone(&self.of), key);
        loop {
            if let Some(kept) = self.cache.get(&key).await {
                return Ok(kept);
            }
            let (cache, key, reading) = (self.cache.clone(), key.clone(), read());
            // In a task, for whoever reads must not stop when its client does, while others wait for what it reads.
            let task = SpawnedTask::spawn(async move {
                let mut own = false;
                let reading = async {
                    own = true;
                    reading.await
                };
                let value = cache.try_get_with(key, reading).await;
                if own {
                    // What is larger than the bound leaves now, and not at the next use.
                    cache.run_pending_tasks().await;
                }
                (value, own)
            });
            match task.join().await {
                Ok((Ok(value), _)) => return Ok(value),
                // Another statement has less memory left, which says nothing of this one.
                Ok((Err(error), false)) if error.kind() == Kind::Exhausted => {}
                Ok((Err(error), _)) => return Err(error.copied()),
                Err(cause) => return Err(ended_early(cause)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nexus_flight_catalog::Error;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::*;

    fn once() -> Once<u8, u8> {
        Once::new(|_| 1)
    }

    #[tokio::test]
    async fn readers_at_the_same_time_read_once() {
        let (once, reads) = (once(), Arc::new(AtomicUsize::new(0)));
        let get = || {
            once.get(1, || {
                let reads = Arc::clone(&reads);
                async move {
                    reads.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                    Ok(7)
                }
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (7, 7, 7));
        assert_eq!(get().await.unwrap(), 7);
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_one_has_read_another_reads_anew() {
        let once = once();
        let other = once.under(&Arc::from("other"));
        assert_eq!(once.get(1, || async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(other.get(1, || async { Ok(8) }).await.unwrap(), 8);
        assert_eq!(once.get(1, || async { Ok(9) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_reader_that_is_cancelled_leaves_nobody_waiting() {
        let (once, begun) = (once(), Arc::new(Notify::new()));
        let never = once.get(1, || {
            let begun = Arc::clone(&begun);
            async move {
                begun.notify_one();
                std::future::pending().await
            }
        });
        let cancelled = async {
            tokio::select! {
                _ = never => panic!("it read nothing"),
                () = begun.notified() => {}
            }
        };
        let ((), other) = tokio::join!(cancelled, once.get(1, || async { Ok(2) }));
        assert_eq!(other.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_nobody_polls_holds_up_nobody() {
        let once = once();
        let read = || async {
            yield_now().await;
            Ok(1)
        };
        let mut stalled = pin!(once.get(1, read));
        assert!(futures::poll!(stalled.as_mut()).is_pending());
        assert_eq!(once.get(1, || async { Ok(2) }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_memory_that_another_lacks_is_no_error_of_ours() {
        let once = once();
        let poor = once.get(1, || async {
            yield_now().await;
            Err(Error::exhausted("no memory"))
        });
        let (poor, rich) = tokio::join!(poor, once.get(1, || async { Ok(2) }));
        assert_eq!(poor.unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(rich.unwrap(), 2);
    }

    #[test]
    fn sets_weigh_what_they_hold() {
        let dense: RoaringTreemap = (0..65_536_u64).collect();
        let scattered: RoaringTreemap = (0..100_u64).map(|place| place << 16).collect();
        assert!((8192..9000).contains(&memory(&dense)), "{}", memory(&dense));
        assert!((6400..9000).contains(&memory(&scattered)), "{}", memory(&scattered));
    }
}
