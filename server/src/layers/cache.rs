//! Answers that are kept: bounded, by what was asked, with the versions that they are of, and only when complete; and those on their way,
//! each of which is made once for all who ask for it meanwhile.

mod bypass;
mod entry;
mod filling;
mod fills;
mod prefix;
mod refresh;

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use moka::Expiry;
use moka::future::Cache as Store;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use nexus_flight_catalog::{Error, Result, Version, information_schema};

use crate::config::{Config, Period};
use crate::digest::{Digest, digest};
use crate::flight::encode::{Room, Shared};
use crate::layers::Run;
use crate::layers::cache::bypass::Bypass;
use crate::layers::cache::entry::{Entry, Key, Standing};
use crate::layers::cache::filling::Filling;
use crate::layers::cache::fills::{Fills, Maker, NotBegun, Place, Reader};
use crate::layers::cache::prefix::Prefix;
use crate::plan::Planned;
use crate::procedures::{Call, Invalidate};
use crate::query::{Answer, CacheUse, Cached};
use crate::running::Running;
use crate::session::cache_control::CacheControl;
use crate::touched::{tell_again, told};
use crate::workers::Workers;
use crate::write::count_batch;
use crate::writes::Writes;

pub use refresh::Refreshes;

/// How long what has run out is kept for who takes it all the same.
const RUN_OUT: Duration = Duration::from_secs(86_400);
/// How often who asks waits for other users to be let in with the same; after that it asks for itself, as it would without them.
const WAITS: usize = 2;
/// Why an answer was not made for its statement alone.
const JOINED: &str = "the same was being made for another statement, and both have it";

/// Which part of the cache is for messages that were made of answers, beside what they share with the rows of those.
const MESSAGES: u64 = 4;

/// The answers that are kept: of each question the latest.
#[derive(Debug)]
pub struct Kept {
    answers: Store<Digest, Arc<Entry>>,
    /// For what Flight sends of them.
    room: Arc<Room>,
    capacity: u64,
    largest: u64,
    /// For how long a table of unknown version may be taken as unchanged, by catalog; absent means never.
    patience: HashMap<String, Duration>,
    /// For how long an answer over a catalog may be out of date where its client does not say.
    late: HashMap<String, Duration>,
    /// For how long the version of a table may be taken as it was looked up.
    check: Duration,
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
        let room = Room::new(config.cache.size.0 / MESSAGES);
        let capacity = config.cache.size.0 - config.cache.size.0 / MESSAGES;
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
        let (largest, check) = (config.cache.entry.0.min(capacity), config.cache.check.0);
        Self { answers, room, capacity, largest, patience, late, check, writes, redacts }
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
        Usage { entries: self.answers.entry_count(), bytes: self.answers.weighted_size() + self.room.used() }
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
        let bound = Some(entry.bound(key, now));
        control.admits(age).then_some((entry, Cached { how, age: Some(age), bound, why: None }))
    }

    /// The answer that may be given to such a statement with no source asked: it was known to be of its tables' state a moment ago, and none of
    /// them was changed through this gateway since. That moment counts, and not in which state somebody else has seen a table meanwhile.
    async fn known(&self, planned: &Planned) -> Option<(Key, Arc<Entry>, Cached)> {
        let control = planned.query.session.options.cache.unwrap_or_default();
        let key = self.key(planned, control).ok()?;
        let entry = self.answers.get(&key.digests.question).await?;
        let changed = self.writes.changed(planned.tables.iter().map(|(name, _)| name));
        let now = Instant::now();
        let (age, bound) = (entry.age(now), entry.holds(&key, changed, now)?);
        let cached = Cached { how: CacheUse::Hit, age: Some(age), bound: Some(bound), why: None };
        (bound <= self.check && control.admits(age)).then_some((key, entry, cached))
    }

    /// What an answer to such a key is told to be beforehand: how, and how long ago the tables may have changed of which it is, at most.
    fn foreseen(&self, key: &Key, how: CacheUse, late: Duration) -> String {
        let bound = match how {
            CacheUse::Hit => key.lives.unwrap_or_default().max(self.check),
            CacheUse::Stale => late,
            CacheUse::Miss | CacheUse::Bypass => Duration::ZERO,
        };
        match bound.is_zero() {
            true => how.name().to_owned(),
            false => format!("{}, out of date by {} at most", how.name(), Period(bound)),
        }
    }

    /// Keeps an answer in place of an earlier one to its question, unless it is of a part that the policy shows no more.
    async fn keep(&self, entry: Entry) {
        let is_of_today = self.writes.policy().is_none_or(|changed| changed < entry.key.began);
        if entry.is_part && !is_of_today {
            return;
        }
        let (question, entry) = (entry.key.digests.question, Arc::new(entry));
        let place = self.answers.entry(question);
        place
            .and_compute_with(|there| {
                // One that began later may have ended sooner.
                let is_late = there.is_some_and(|there| there.value().key.began > entry.key.began);
                ready(if is_late { Op::Nop } else { Op::Put(entry) })
            })
            .await;
    }
}

/// The layer that answers from what is kept, and has what is not made once for all who ask the same meanwhile.
pub struct Cache<R> {
    inner: Arc<R>,
    kept: Arc<Kept>,
    refreshes: Arc<Refreshes>,
    fills: Arc<Fills>,
    workers: Workers,
    /// For how long those who read one answer wait for each of them.
    stall: Duration,
}

impl<R: Run + 'static> Cache<R> {
    /// A layer over a store, in which `refreshes` has what was given out of date made anew. What is not there is made on `workers`; those
    /// who read it together wait for each of them for `stall` at most.
    pub fn new(inner: R, kept: Arc<Kept>, refreshes: Arc<Refreshes>, workers: Workers, stall: Duration) -> Self {
        Self { inner: Arc::new(inner), kept, refreshes, fills: Arc::default(), workers, stall }
    }

    /// The answer to a statement that may be kept.
    async fn answer(&self, mut planned: Planned, key: Key, control: CacheControl, late: Duration) -> Result<Answer> {
        let (mut leads, mut waited) = (None, 0);
        loop {
            if let Some((entry, cached)) = self.kept.find(&key, control, late).await {
                let answer = self.given(&planned, &key, &entry, cached);
                planned.state.give_back();
                return Ok(answer);
            }
            if control.only_if_cached {
                return Err(not_kept("none is kept that may be given"));
            }
            if let Some((maker, reader, filling)) = leads.take() {
                return self.lead(maker, reader, planned, filling).await;
            }
            let (filling, asks) =
                (Filling::new(key, &planned, self.kept.redacts, Shared::new(&self.kept.room)), &planned.query.cx.principal);
            let new = || Prefix::new(filling.room(self.kept.largest), planned.state.memory());
            match self.fills.place(&key, control, asks, waited < WAITS, self.stall, new) {
                // One may have ended, and be kept, since it was looked for.
                Place::Leads(maker, reader) => leads = Some((maker, reader, filling)),
                Place::Follows(reader) => {
                    // It wants no slot, and the one who has it made may wait long for one.
                    planned.coming = None;
                    match reader.joins().await {
                        Ok(schema) => return Ok(follow(reader, schema, planned)),
                        Err(NotBegun::Failed(error)) => return Err(error),
                        Err(NotBegun::Again) => waited += 1,
                    }
                }
            }
        }
    }

    /// One that is made, by work of its own: others may read it for longer than who asked first.
    async fn lead(&self, maker: Maker, reader: Reader, planned: Planned, filling: Filling) -> Result<Answer> {
        metrics::counter!("nexus_cache_misses_total").increment(1);
        let (inner, kept) = (Arc::clone(&self.inner), Arc::clone(&self.kept));
        let principal = planned.query.cx.principal.clone();
        maker.begin(|mut maker| {
            self.workers.begin(&principal, async move {
                maker.runs();
                // When the end is told, the slot is free again.
                let made = Running::within(made(&*inner, &maker, planned, filling)).await;
                let ended = match made {
                    Ok(Some(entry)) => {
                        kept.keep(entry).await;
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                maker.end(ended);
            })
        })?;
        let schema = reader.begins().await?;
        Ok(Answer { cache: Cached { how: CacheUse::Miss, ..Cached::default() }, ..Answer::new(schema, reader.batches()) })
    }

    /// The answer to a statement over its tables as they were looked up lately, which is taken to be the one of now; none where there is none.
    pub async fn known(&self, planned: &Planned) -> Option<Answer> {
        let (key, entry, cached) = self.kept.known(planned).await?;
        Some(self.given(planned, &key, &entry, cached))
    }

    /// Whether there is one.
    pub async fn has(&self, planned: &Planned) -> bool {
        self.kept.known(planned).await.is_some()
    }

    /// An answer that is kept, as it is given to a statement.
    fn given(&self, planned: &Planned, key: &Key, entry: &Entry, cached: Cached) -> Answer {
        match cached.how {
            CacheUse::Stale => {
                metrics::counter!("nexus_cache_stale_total").increment(1);
                if !planned.query.session.options.cache.unwrap_or_default().only_if_cached {
                    self.refreshes.begin(key.digests.question, &planned.query);
                }
            }
            _ => metrics::counter!("nexus_cache_hits_total").increment(1),
        }
        entry.give();
        tell_again(&planned.query.touched, &entry.touched);
        let (schema, batches, shared) = (Arc::clone(&entry.schema), Arc::clone(&entry.batches), Arc::downgrade(&entry.shared));
        let batches = stream::iter((0..batches.len()).map(move |at| Ok(batches[at].clone()))).boxed();
        Answer { schema, batches, cache: cached, shared }
    }
}

/// Makes an answer to its end, as its readers want it, and gives it to be kept where it is small enough. Errors: also `Timeout`.
async fn made<R: Run>(inner: &R, maker: &Maker, planned: Planned, filling: Filling) -> Result<Option<Entry>> {
    let (cx, telling) = (planned.query.cx.clone(), planned.query.touched.clone());
    let work = async {
        let asked = Instant::now();
        let Answer { schema, mut batches, .. } = inner.run(planned).await?;
        let mut took = asked.elapsed();
        maker.begins(Arc::clone(&schema), told(&telling));
        loop {
            maker.wanted().await;
            let asked = Instant::now();
            let batch = batches.next().await;
            took += asked.elapsed();
            match batch {
                Some(batch) => maker.add(batch?).await,
                None => break,
            }
        }
        let whole = maker.whole();
        Ok::<_, Error>(whole.map(|(batches, bytes)| filling.entry(schema, batches, bytes as u64, told(&telling), took)))
    };
    cx.run(work).await
}

/// One that is being made for somebody else.
fn follow(reader: Reader, schema: SchemaRef, planned: Planned) -> Answer {
    metrics::counter!("nexus_cache_joined_total").increment(1);
    tell_again(&planned.query.touched, &reader.touched());
    planned.state.give_back();
    let cache = Cached { how: CacheUse::Miss, age: Some(reader.age()), bound: None, why: Some(JOINED) };
    Answer { cache, ..Answer::new(schema, reader.batches()) }
}

#[async_trait]
impl<R: Run + 'static> Run for Cache<R> {
    async fn run(&self, mut planned: Planned) -> Result<Answer> {
        let control = planned.query.session.options.cache.unwrap_or_default();
        if let Some(call) = &planned.call {
            let count = match call {
                Call::Invalidate(what) => self.kept.invalidate(what).await,
                // Here, since what an operator says waits for no slot.
                Call::Drain { engine, is_drained } => i64::from(engine.drain(*is_drained)),
            };
            let batch = count_batch(count)?;
            planned.state.give_back();
            return Ok(Answer::new(batch.schema(), stream::iter([Ok(batch)]).boxed()));
        }
        if let Some(write) = &planned.write {
            // One that failed, or was left, may have been done all the same, or be done yet: what goes on of it holds the other one.
            let (writing, still) = (self.kept.writes.writing(&write.name), self.kept.writes.writing(&write.name));
            planned.query.cx = planned.query.cx.holding(still);
            let answer = self.inner.run(planned).await;
            drop(writing);
            return Ok(Answer { cache: Bypass::Writes.told(), ..answer? });
        }
        let (key, late) = (self.kept.key(&planned, control), self.kept.late(&planned, control));
        if let Some(explain) = &mut planned.explain {
            explain.cache = match key {
                Ok(key) => {
                    let found = self.kept.find(&key, control, late).await;
                    self.kept.foreseen(&key, found.map_or(CacheUse::Miss, |(_, cached)| cached.how), late)
                }
                Err(why) => format!("{}: {}", CacheUse::Bypass.name(), why.reason()),
            };
            return self.inner.run(planned).await;
        }
        match key {
            Ok(key) => self.answer(planned, key, control, late).await,
            Err(why) if control.only_if_cached => Err(not_kept(why.reason())),
            Err(why) => Ok(Answer { cache: why.told(), ..self.inner.run(planned).await? }),
        }
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
