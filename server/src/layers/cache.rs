//! Answers that are kept: bounded, keyed by what was asked of which versions, and only when complete.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use moka::Expiry;
use moka::future::Cache as Store;
use nexus_flight_catalog::policy::Guarded;
use nexus_flight_catalog::{Result, TableName, Version, information_schema};

use crate::config::Config;
use crate::digest::{Digest, NoDigest, digest};
use crate::layers::Run;
use crate::plan::Planned;
use crate::query::{Answer, Batches, CacheUse};
use crate::session::options::CacheControl;
use crate::touched::{Telling, Touched, tell_again, told};
use crate::writes::Writes;

/// The answers that are kept.
#[derive(Debug)]
pub struct Kept {
    answers: Store<Digest, Arc<Entry>>,
    capacity: u64,
    largest: u64,
    /// For how long a table of unknown version may be taken as unchanged, by catalog; absent means never.
    patience: HashMap<String, Duration>,
    writes: Arc<Writes>,
    /// Counts the changes of the policy.
    policy: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    bytes: u64,
    lives: Option<Duration>,
    touched: Touched,
    /// Which policy it goes by, where one hides a part of a table.
    policy: Option<u64>,
}

/// The cache in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Answers.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The most bytes that there may be.
    pub capacity: u64,
}

struct Lives;

impl Expiry<Digest, Arc<Entry>> for Lives {
    fn expire_after_create(&self, _key: &Digest, entry: &Arc<Entry>, _at: Instant) -> Option<Duration> {
        entry.lives
    }
}

impl Kept {
    /// An empty cache of the configured size.
    pub fn new(config: &Config, writes: Arc<Writes>) -> Self {
        let capacity = config.cache.size.0;
        let answers = Store::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Arc<Entry>| u32::try_from(entry.bytes).unwrap_or(u32::MAX))
            .expire_after(Lives)
            .support_invalidation_closures()
            .build();
        let patience = config.catalogs.iter().map(|(name, catalog)| (name.clone(), catalog.ttl.0));
        let patience = patience.filter(|(_, ttl)| !ttl.is_zero()).collect();
        Self { answers, capacity, largest: config.cache.entry.0.min(capacity), patience, writes, policy: AtomicU64::default() }
    }

    /// Gives up what hangs on the policy, which is another one from now on: nobody would be given it any more.
    pub fn forget_governed(&self) {
        self.policy.fetch_add(1, Ordering::SeqCst);
        // It can only fail where the store was made without closures.
        let _ = self.answers.invalidate_entries_if(|_, entry| entry.policy.is_some());
    }

    /// How full it is.
    pub async fn usage(&self) -> Usage {
        self.answers.run_pending_tasks().await;
        Usage { entries: self.answers.entry_count(), bytes: self.answers.weighted_size(), capacity: self.capacity }
    }

    /// The key of a statement, and how long an answer to it lives; or why it must not be kept.
    fn key(&self, planned: &Planned) -> Result<(Digest, Option<Duration>), Bypass> {
        let control = planned.query.session.options.cache;
        let tables = || planned.tables.iter();
        let refused = [
            (self.capacity == 0, Bypass::Off),
            (control == Some(CacheControl::Bypass), Bypass::Asked),
            (planned.query.part.is_some(), Bypass::Part),
            (planned.write.is_some(), Bypass::Writes),
            (planned.query.transaction.is_some(), Bypass::Transaction),
            (tables().any(|(name, _)| name.schema == information_schema::NAME), Bypass::Listing),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(is, _)| *is) {
            return Err(why);
        }
        let writes = |name: &TableName| self.patience.contains_key(&name.catalog).then(|| self.writes.count(&name.catalog));
        let key = digest(planned, writes).map_err(Bypass::NoDigest)?;
        let unversioned = tables().filter(|(_, table)| table.version == Version::Unknown);
        let lives = unversioned.filter_map(|(name, _)| self.patience.get(&name.catalog)).min().copied();
        Ok((key, lives))
    }
}

/// Why an answer is neither taken from the cache nor kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bypass {
    /// There is no cache.
    Off,
    /// The session wants none.
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
    /// The reason in words.
    const fn reason(self) -> &'static str {
        match self {
            Bypass::Off => "the cache has no size",
            Bypass::Asked => "the session turned it off",
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
}

/// The layer that answers from what is kept.
pub struct Cache<R> {
    inner: R,
    kept: Arc<Kept>,
}

impl<R> Cache<R> {
    /// A layer over a store.
    pub fn new(inner: R, kept: Arc<Kept>) -> Self {
        Self { inner, kept }
    }
}

#[async_trait]
impl<R: Run> Run for Cache<R> {
    async fn run(&self, mut planned: Planned) -> Result<Answer> {
        let control = planned.query.session.options.cache.unwrap_or(CacheControl::Use);
        let key = self.kept.key(&planned);
        if let Some(explain) = &mut planned.explain {
            explain.cache = match key {
                Ok((key, _)) if self.kept.answers.contains_key(&key) => CacheUse::Hit.name().to_owned(),
                Ok(_) => CacheUse::Miss.name().to_owned(),
                Err(why) => format!("{}: {}", CacheUse::Bypass.name(), why.reason()),
            };
            return self.inner.run(planned).await;
        }
        if let Some(write) = &planned.write {
            let catalog = write.name.catalog.clone();
            let answer = self.inner.run(planned).await;
            // A write that failed may have been done all the same.
            self.kept.writes.note(&catalog);
            return answer;
        }
        let Ok((key, lives)) = key else { return self.inner.run(planned).await };
        if let Some(entry) = self.kept.answers.get(&key).await.filter(|_| control == CacheControl::Use) {
            tell_again(&planned.query.touched, &entry.touched);
            planned.state.give_back();
            let batches = entry.batches.clone();
            let schema = Arc::clone(&entry.schema);
            return Ok(Answer { schema, batches: stream::iter(batches).map(Ok).boxed(), cache: CacheUse::Hit });
        }
        let telling = planned.query.touched.clone();
        let is_governed = planned.tables.iter().any(|(_, table)| table.provider.as_any().is::<Guarded>());
        let policy = is_governed.then(|| self.kept.policy.load(Ordering::SeqCst));
        let Answer { schema, batches, .. } = self.inner.run(planned).await?;
        let filling = Filling { key, lives, schema: Arc::clone(&schema), batches: Some(Vec::new()), bytes: 0, telling, policy };
        let batches = filled(batches, filling, Arc::clone(&self.kept));
        Ok(Answer { schema, batches, cache: CacheUse::Miss })
    }
}

/// An answer on its way, copied until it is too large.
struct Filling {
    key: Digest,
    lives: Option<Duration>,
    schema: SchemaRef,
    batches: Option<Vec<RecordBatch>>,
    bytes: u64,
    telling: Telling,
    /// Which policy it goes by, where one hides a part of a table.
    policy: Option<u64>,
}

impl Filling {
    fn add(&mut self, batch: &RecordBatch, largest: u64) {
        let Some(batches) = &mut self.batches else { return };
        self.bytes += batch.get_array_memory_size() as u64;
        if self.bytes > largest {
            self.batches = None;
        } else {
            batches.push(batch.clone());
        }
    }
}

/// The same batches; what failed or was left early is not kept, since it never gets to the end.
fn filled(batches: Batches, filling: Filling, kept: Arc<Kept>) -> Batches {
    stream::unfold((batches, Some(filling)), move |(mut batches, mut filling)| {
        let kept = Arc::clone(&kept);
        async move {
            let next = batches.next().await;
            match (&next, &mut filling) {
                (Some(Ok(batch)), Some(filling)) => filling.add(batch, kept.largest),
                (Some(Err(_)), _) => filling = None,
                (None, _) => {
                    if let Some(Filling { key, lives, schema, batches: Some(batches), bytes, telling, policy }) = filling.take()
                        && policy.is_none_or(|policy| policy == kept.policy.load(Ordering::SeqCst))
                    {
                        // The key and the entry's own parts weigh too.
                        let bytes = bytes + 1_024;
                        let entry = Entry { schema, batches, bytes, lives, touched: told(&telling), policy };
                        kept.answers.insert(key, Arc::new(entry)).await;
                    }
                }
                _ => {}
            }
            next.map(|batch| (batch, (batches, filling)))
        }
    })
    .boxed()
}
