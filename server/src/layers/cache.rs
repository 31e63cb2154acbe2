//! Answers that are kept: bounded, by what was asked, with the versions that they are of, and only when complete.

mod bypass;
mod entry;
mod filling;
mod refresh;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use moka::Expiry;
use moka::future::Cache as Store;
use moka::notification::RemovalCause;
use nexus_flight_catalog::policy::is_part;
use nexus_flight_catalog::{Error, Result, Version, information_schema};

use crate::config::Config;
use crate::digest::{Digest, digest};
use crate::layers::Run;
use crate::layers::cache::bypass::Bypass;
use crate::layers::cache::entry::{About, Entry, Key, Standing};
use crate::layers::cache::filling::{Filling, filled};
use crate::plan::Planned;
use crate::procedures::Invalidate;
use crate::query::{Answer, CacheUse, Cached};
use crate::session::cache_control::CacheControl;
use crate::touched::tell_again;
use crate::write::count_batch;
use crate::writes::Writes;

pub use refresh::Refreshes;

/// How long what has run out is kept for who takes it all the same.
const RUN_OUT: Duration = Duration::from_secs(86_400);

/// The answers that are kept: of each question the latest.
#[derive(Debug)]
pub struct Kept {
    answers: Store<Digest, Arc<Entry>>,
    capacity: u64,
    largest: u64,
    /// For how long a table of unknown version may be taken as unchanged, by catalog; absent means never.
    patience: HashMap<String, Duration>,
    /// For how long an answer over a catalog may be out of date where its client does not say.
    late: HashMap<String, Duration>,
    writes: Arc<Writes>,
    /// Whether the values in statements are not for everybody's eyes.
    redacts: bool,
}

/// An answer that is kept, as it is listed.
#[derive(Debug)]
pub struct Listed {
    /// Who asked.
    pub principal: String,
    /// In which words, cut to a length.
    pub statement: String,
    /// The tables that it reads, by their full names.
    pub tables: String,
    /// The name that its client has given to its answers.
    pub tag: Option<String>,
    /// Its rows.
    pub rows: u64,
    /// What it weighs.
    pub bytes: u64,
    /// How long ago its rows were read.
    pub age: Duration,
    /// What it took to make it.
    pub took: Duration,
    /// How often it was given.
    pub given: u64,
}

/// The cache in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Answers.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

struct Lives;

impl Expiry<Digest, Arc<Entry>> for Lives {
    fn expire_after_create(&self, _key: &Digest, entry: &Arc<Entry>, _at: Instant) -> Option<Duration> {
        entry.key.lives.map(|lives| lives.saturating_add(RUN_OUT))
    }

    fn expire_after_update(&self, key: &Digest, entry: &Arc<Entry>, at: Instant, _left: Option<Duration>) -> Option<Duration> {
        self.expire_after_create(key, entry, at)
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
            .eviction_listener(|_, _, cause| {
                metrics::counter!("nexus_cache_evictions_total", "reason" => reason(cause)).increment(1);
            })
            .build();
        let patience = config.catalogs.iter().map(|(name, catalog)| (name.clone(), catalog.ttl.0));
        let patience = patience.filter(|(_, ttl)| !ttl.is_zero()).collect();
        let late = config.catalogs.iter().map(|(name, catalog)| (name.clone(), catalog.stale.0)).collect();
        let redacts = config.audit.as_ref().is_some_and(|audit| audit.redact);
        Self { answers, capacity, largest: config.cache.entry.0.min(capacity), patience, late, writes, redacts }
    }

    /// Gives up what hangs on the policy, which is another one from now on: nobody would be given it any more.
    pub fn forget_governed(&self) {
        self.writes.governed();
        // It can only fail where the store was made without closures.
        let _ = self.answers.invalidate_entries_if(|_, entry| entry.is_part);
    }

    /// Gives up what is over tables, or has a tag, and says how many answers that are. One that is under way is not given either.
    async fn invalidate(&self, what: &Invalidate) -> i64 {
        self.writes.invalidated(what);
        let found = self.answers.iter().filter(|(_, entry)| entry.about.is_of(what)).map(|(question, _)| question);
        let found: Vec<Arc<Digest>> = found.collect();
        for question in &found {
            self.answers.invalidate(&**question).await;
        }
        i64::try_from(found.len()).unwrap_or(i64::MAX)
    }

    /// How full it is.
    pub async fn usage(&self) -> Usage {
        self.answers.run_pending_tasks().await;
        Usage { entries: self.answers.entry_count(), bytes: self.answers.weighted_size() }
    }

    /// All that are kept, those that were read last first.
    pub async fn list(&self) -> Vec<Listed> {
        self.answers.run_pending_tasks().await;
        let now = Instant::now();
        let mut all: Vec<Listed> = self.answers.iter().map(|(_, entry)| entry.listed(now)).collect();
        all.sort_by_key(|listed| listed.age);
        all
    }

    /// What a statement asks, of which state of things; or why its answer must not be kept.
    fn key(&self, planned: &Planned, control: CacheControl) -> Result<Key, Bypass> {
        let tables = || planned.tables.iter();
        let refused = [
            (self.capacity == 0, Bypass::Off),
            (control.no_store, Bypass::Asked),
            (planned.query.part.is_some(), Bypass::Part),
            (planned.write.is_some(), Bypass::Writes),
            (planned.query.transaction.is_some(), Bypass::Transaction),
            (tables().any(|(name, _)| name.schema == information_schema::NAME), Bypass::Listing),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(is, _)| *is) {
            return Err(why);
        }
        let digests = digest(planned, |name| self.patience.contains_key(&name.catalog)).map_err(Bypass::NoDigest)?;
        let unversioned = tables().filter(|(_, table)| table.version == Version::Unknown);
        let lives = unversioned.filter_map(|(name, _)| self.patience.get(&name.catalog)).min().copied();
        let tag = planned.query.session.options.cache_tag.as_deref();
        let (written, governed) = (self.writes.last(&planned.tables, tag), self.writes.policy());
        Ok(Key { digests, began: planned.began, lives, written, governed })
    }

    /// For how long the answer to a statement may be out of date: as its client says, or all of its catalogs.
    fn late(&self, planned: &Planned, control: CacheControl) -> Duration {
        if let Some(most) = control.max_stale {
            return Duration::from_secs(most.into());
        }
        let of_catalogs = planned.tables.iter().map(|(name, _)| self.late.get(&name.catalog).copied().unwrap_or_default());
        of_catalogs.min().unwrap_or_default()
    }

    /// The answer that may be given for a key, and what it is then.
    async fn find(&self, key: &Key, control: CacheControl, late: Duration) -> Option<(Arc<Entry>, Cached)> {
        if control.no_cache {
            return None;
        }
        let entry = self.answers.get(&key.digests.question).await?;
        let now = Instant::now();
        let age = entry.age(now);
        let how = match entry.standing(key, now) {
            Standing::Fresh => {
                entry.was_current(key.began);
                CacheUse::Hit
            }
            Standing::Stale(out) if !late.is_zero() && out <= late => CacheUse::Stale,
            Standing::Stale(_) | Standing::Gone => return None,
        };
        control.admits(age).then_some((entry, Cached { how, age: Some(age), why: None }))
    }

    /// Keeps an answer in place of an earlier one to its question, unless it is of a part that the policy shows no more.
    async fn keep(&self, entry: Entry) {
        let is_of_today = self.writes.policy().is_none_or(|changed| changed < entry.key.began);
        if !entry.is_part || is_of_today {
            self.answers.insert(entry.key.digests.question, Arc::new(entry)).await;
        }
    }
}

/// The layer that answers from what is kept.
pub struct Cache<R> {
    inner: R,
    kept: Arc<Kept>,
    refreshes: Arc<Refreshes>,
}

impl<R> Cache<R> {
    /// A layer over a store, in which `refreshes` has what was given out of date made anew.
    pub fn new(inner: R, kept: Arc<Kept>, refreshes: Arc<Refreshes>) -> Self {
        Self { inner, kept, refreshes }
    }
}

#[async_trait]
impl<R: Run> Run for Cache<R> {
    async fn run(&self, mut planned: Planned) -> Result<Answer> {
        let control = planned.query.session.options.cache.unwrap_or_default();
        if let Some(what) = &planned.call {
            let batch = count_batch(self.kept.invalidate(what).await)?;
            planned.state.give_back();
            return Ok(Answer { schema: batch.schema(), batches: stream::iter([Ok(batch)]).boxed(), cache: Cached::default() });
        }
        if let Some(write) = &planned.write {
            let name = write.name.clone();
            let answer = self.inner.run(planned).await;
            // A write that failed may have been done all the same.
            self.kept.writes.wrote(&name);
            return Ok(Answer { cache: Bypass::Writes.told(), ..answer? });
        }
        let (key, late) = (self.kept.key(&planned, control), self.kept.late(&planned, control));
        if let Some(explain) = &mut planned.explain {
            explain.cache = match key {
                Ok(key) => {
                    let found = self.kept.find(&key, control, late).await;
                    found.map_or(CacheUse::Miss, |(_, cached)| cached.how).name().to_owned()
                }
                Err(why) => format!("{}: {}", CacheUse::Bypass.name(), why.reason()),
            };
            return self.inner.run(planned).await;
        }
        let key = match key {
            Ok(key) => key,
            Err(why) if control.only_if_cached => return Err(not_kept(why.reason())),
            Err(why) => return Ok(Answer { cache: why.told(), ..self.inner.run(planned).await? }),
        };
        if let Some((entry, cached)) = self.kept.find(&key, control, late).await {
            match cached.how {
                CacheUse::Stale => {
                    metrics::counter!("nexus_cache_stale_total").increment(1);
                    if !control.only_if_cached {
                        self.refreshes.begin(key.digests.question, &planned.query);
                    }
                }
                _ => metrics::counter!("nexus_cache_hits_total").increment(1),
            }
            entry.give();
            tell_again(&planned.query.touched, &entry.touched);
            planned.state.give_back();
            let (schema, batches) = (Arc::clone(&entry.schema), entry.batches.clone());
            return Ok(Answer { schema, batches: stream::iter(batches).map(Ok).boxed(), cache: cached });
        }
        if control.only_if_cached {
            return Err(not_kept("none is kept that may be given"));
        }
        metrics::counter!("nexus_cache_misses_total").increment(1);
        let (telling, about) = (planned.query.touched.clone(), About::of(&planned, self.kept.redacts));
        let is_of_part = planned.tables.iter().any(|(_, table)| is_part(table));
        let asked = Instant::now();
        let Answer { schema, batches, .. } = self.inner.run(planned).await?;
        let filling = Filling::new(key, Arc::clone(&schema), telling, about, is_of_part, asked.elapsed());
        let batches = filled(batches, filling, Arc::clone(&self.kept));
        Ok(Answer { schema, batches, cache: Cached { how: CacheUse::Miss, ..Cached::default() } })
    }
}

/// Why an answer is kept no more, in metrics.
fn reason(cause: RemovalCause) -> &'static str {
    match cause {
        RemovalCause::Expired => "expired",
        RemovalCause::Explicit => "given_up",
        RemovalCause::Replaced => "replaced",
        RemovalCause::Size => "size",
    }
}

/// The answer to who takes only one that is kept.
fn not_kept(why: &str) -> Error {
    Error::precondition(format!("there is no answer in the cache: {why}"))
        .with_hint("leave only-if-cached out to have it made")
        .with_retryable(false)
}
