//! Answers on their way, each of which all read who ask the same meanwhile: the first of them has it made, and the others read along from
//! its beginning. It is made by work of its own, on the threads, in the slot and with the memory of the first, which ends with the last
//! reader and not with the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Principal, Result};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Period;
use crate::digest::Digest;
use crate::layers::cache::entry::Key;
use crate::layers::cache::prefix::{Next, Prefix};
use crate::query::Batches;
use crate::session::cache_control::CacheControl;
use crate::touched::Touched;

/// The answers that may be joined, by what they answer.
#[derive(Default)]
pub(super) struct Fills {
    running: Mutex<HashMap<Digest, Arc<Fill>>>,
}

/// An answer on its way.
struct Fill {
    key: Key,
    /// Who has it made.
    principal: Principal,
    /// For how long the others wait for one of its readers.
    stall: Duration,
    all: Arc<Fills>,
    state: Mutex<State>,
    /// Tells the readers that there is more, or that it has ended.
    grown: Notify,
    /// Tells who makes it that some of it was read.
    taken: Notify,
}

struct State {
    prefix: Prefix,
    /// Its columns and what it is made of, once it is being made.
    begun: Option<(SchemaRef, Touched)>,
    ended: Option<Ended>,
    /// The work.
    task: Option<AbortOnDropHandle<()>>,
}

/// How an answer ended.
enum Ended {
    Well,
    Failed(Error),
    /// Nobody began to make it.
    Unmade,
}

/// What who asks is to an answer.
pub(super) enum Place {
    /// The first reader, who has it made.
    Leads(Maker, Reader),
    /// One who reads along.
    Follows(Reader),
}

/// Why an answer that was joined did not begin.
pub(super) enum NotBegun {
    /// It failed.
    Failed(Error),
    /// That is no matter of who joined it: it can be asked for anew.
    Again,
}

impl Fills {
    /// A place at the answer for a key that is on its way, or else at a new one, of which nothing is there yet. Who does not wait joins
    /// none that has yet to begin.
    pub(super) fn place(
        self: &Arc<Self>,
        key: &Key,
        control: CacheControl,
        principal: &Principal,
        waits: bool,
        stall: Duration,
        new: impl FnOnce() -> Prefix,
    ) -> Place {
        let mut running = lock(&self.running);
        // Of tables of unknown version nobody knows whether two read the same.
        let name = key.lives.is_none().then(|| key.digests.whole());
        if let Some(reader) = name.and_then(|name| running.get(&name)?.join(key, control, principal, waits)) {
            return Place::Follows(reader);
        }
        let mut prefix = new();
        let id = prefix.join();
        let fill = Arc::new(Fill {
            key: *key,
            principal: principal.clone(),
            stall,
            all: Arc::clone(self),
            state: Mutex::new(State { prefix, begun: None, ended: None, task: None }),
            grown: Notify::new(),
            taken: Notify::new(),
        });
        if let Some(name) = name {
            running.insert(name, Arc::clone(&fill));
        }
        let reader = Reader { fill: Arc::clone(&fill), id, is_of_another: false };
        Place::Leads(Maker { fill, is_begun: false }, reader)
    }

    /// Has nobody join it any more.
    fn forget(&self, fill: &Fill) {
        let mut running = lock(&self.running);
        let name = fill.key.digests.whole();
        // There may be another one in its place by now.
        if running.get(&name).is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), fill)) {
            running.remove(&name);
        }
    }
}

impl Fill {
    /// One more reader, if it is the answer for its key and all of it is there to be read.
    fn join(self: &Arc<Self>, key: &Key, control: CacheControl, principal: &Principal, waits: bool) -> Option<Reader> {
        let began = self.key.began;
        // What was written or given up since is not in it, and it was begun under another policy, as with an answer that is kept.
        let is_changed = key.written.max(key.governed).is_some_and(|change| began <= change);
        // Who takes none that is kept wants rows that are read from now on.
        let is_refused = (control.no_cache && began < key.began) || !control.admits(began.elapsed());
        if is_changed || is_refused {
            return None;
        }
        let is_of_another = *principal != self.principal;
        let mut state = self.lock();
        let is_in_time = waits || state.begun.is_some();
        let can_be_joined = is_in_time && state.prefix.is_whole() && matches!(state.ended, None | Some(Ended::Well));
        can_be_joined.then(|| Reader { fill: Arc::clone(self), id: state.prefix.join(), is_of_another })
    }

    fn leave(&self, id: u64) {
        let (is_read, task) = {
            let mut state = self.lock();
            state.prefix.leave(id);
            let is_read = state.prefix.is_read();
            (is_read, if is_read { None } else { state.task.take() })
        };
        self.taken.notify_one();
        if !is_read {
            self.all.forget(self);
            drop(task);
        }
    }

    /// What there is for a reader; nothing as yet where it is pending.
    fn read(&self, id: u64) -> Poll<Option<Result<RecordBatch>>> {
        let mut state = self.lock();
        let before = state.prefix.marks();
        match state.prefix.next(id) {
            Next::Batch(batch) => {
                if state.prefix.marks() != before {
                    self.taken.notify_one();
                }
                Poll::Ready(Some(Ok(batch)))
            }
            Next::LeftBehind => {
                let message = format!("others read the same answer and have waited {} for this client", Period(self.stall));
                let error = Error::new(Kind::Timeout, message).with_hint("read on sooner, or raise limits.stall");
                Poll::Ready(Some(Err(error)))
            }
            Next::Nothing => match &mut state.ended {
                None => Poll::Pending,
                Some(Ended::Well) => Poll::Ready(None),
                Some(Ended::Failed(error)) => Poll::Ready(Some(Err(handed_out(error)))),
                Some(Ended::Unmade) => Poll::Ready(Some(Err(Error::broken_off()))),
            },
        }
    }

    /// The columns, once they are there, for its own user or another one.
    fn begun(&self, is_of_another: bool) -> Poll<Result<SchemaRef, NotBegun>> {
        let mut state = self.lock();
        if let Some((schema, _)) = &state.begun {
            return Poll::Ready(Ok(Arc::clone(schema)));
        }
        Poll::Ready(Err(match &mut state.ended {
            None => return Poll::Pending,
            Some(Ended::Well | Ended::Unmade) => NotBegun::Again,
            // There was no slot for another user, or no memory: for this one there may be.
            Some(Ended::Failed(why)) if is_of_another && why.kind() == Kind::Exhausted && why.retryable() => NotBegun::Again,
            Some(Ended::Failed(error)) => NotBegun::Failed(handed_out(error)),
        }))
    }

    fn end(&self, ended: Ended) {
        self.lock().ended.get_or_insert(ended);
        self.grown.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Who makes an answer. Dropped before its end, it has broken off.
pub(super) struct Maker {
    fill: Arc<Fill>,
    is_begun: bool,
}

impl Maker {
    /// Goes on with the work by what makes a task of it.
    pub(super) fn begin(self, task: impl FnOnce(Self) -> Result<AbortOnDropHandle<()>>) -> Result<()> {
        let fill = Arc::clone(&self.fill);
        let task = task(self)?;
        fill.lock().task = Some(task);
        Ok(())
    }

    /// Holds that the task runs: what breaks it off from now on is an error of all, and before that nobody has begun.
    pub(super) fn runs(&mut self) {
        self.is_begun = true;
    }

    /// Tells the columns, and what the answer is made of.
    pub(super) fn begins(&self, schema: SchemaRef, touched: Touched) {
        self.fill.lock().begun = Some((schema, touched));
        self.fill.grown.notify_waiters();
    }

    /// Returns when a reader wants more.
    pub(super) async fn wanted(&self) {
        loop {
            let taken = self.fill.taken.notified();
            let wants = self.fill.lock().prefix.wants();
            if wants {
                return;
            }
            taken.await;
        }
    }

    /// Adds a batch, when its readers have made room for it. Those who make none while others wait are left behind.
    pub(super) async fn add(&self, mut batch: RecordBatch) {
        let fill = &self.fill;
        let mut since = (0, Instant::now());
        loop {
            let taken = fill.taken.notified();
            let gone = {
                let mut state = fill.lock();
                match state.prefix.add(batch) {
                    Ok(()) => break,
                    Err(back) => batch = back,
                }
                state.prefix.marks().0
            };
            if gone != since.0 {
                since = (gone, Instant::now());
            }
            let left = fill.stall.saturating_sub(since.1.elapsed());
            if tokio::time::timeout(left, taken).await.is_err() {
                since = (gone, Instant::now());
                let is_left_behind = fill.lock().prefix.leave_behind();
                if is_left_behind {
                    fill.grown.notify_waiters();
                }
            }
        }
        fill.grown.notify_waiters();
    }

    /// All batches with what they have taken of the memory, where they are all there.
    pub(super) fn whole(&self) -> Option<(Vec<RecordBatch>, usize)> {
        self.fill.lock().prefix.whole()
    }

    /// Tells how it ended.
    pub(super) fn end(self, ended: Result<()>) {
        self.fill.end(ended.map_or_else(Ended::Failed, |()| Ended::Well));
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.fill.end(if self.is_begun { Ended::Failed(Error::broken_off()) } else { Ended::Unmade });
    }
}

/// One of those who read an answer. Dropping it leaves the answer to the others; with the last one its work ends.
pub(super) struct Reader {
    fill: Arc<Fill>,
    id: u64,
    /// Whether another user has it made.
    is_of_another: bool,
}

impl Reader {
    /// The columns of the answer, once they are there, for the one who has it made.
    pub(super) async fn begins(&self) -> Result<SchemaRef> {
        self.joins().await.map_err(|not| match not {
            NotBegun::Failed(error) => error,
            NotBegun::Again => Error::broken_off(),
        })
    }

    /// The same for one who has joined it: that another user was refused a slot, or had no memory left, says nothing of this one.
    pub(super) async fn joins(&self) -> Result<SchemaRef, NotBegun> {
        loop {
            let grown = self.fill.grown.notified();
            if let Poll::Ready(begun) = self.fill.begun(self.is_of_another) {
                return begun;
            }
            grown.await;
        }
    }

    /// What the answer is made of.
    pub(super) fn touched(&self) -> Touched {
        self.fill.lock().begun.as_ref().map(|(_, touched)| touched.clone()).unwrap_or_default()
    }

    /// How long ago its rows were read, at most.
    pub(super) fn age(&self) -> Duration {
        self.fill.key.began.elapsed()
    }

    /// All of its batches, as they are made.
    pub(super) fn batches(self) -> Batches {
        stream::unfold(Some(self), |reader| async move {
            let reader = reader?;
            let next = reader.next().await?;
            let goes_on = next.is_ok();
            Some((next, goes_on.then_some(reader)))
        })
        .boxed()
    }

    async fn next(&self) -> Option<Result<RecordBatch>> {
        loop {
            let grown = self.fill.grown.notified();
            if let Poll::Ready(next) = self.fill.read(self.id) {
                return next;
            }
            grown.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.leave(self.id);
    }
}

/// The error for one of those who wait: the first has its cause too.
fn handed_out(error: &mut Error) -> Error {
    let copy = error.copied();
    std::mem::replace(error, copy)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::execution::memory_pool::UnboundedMemoryPool;
    use futures::FutureExt;

    use super::*;
    use crate::digest::Digests;

    fn key() -> Key {
        let digests = Digests { question: [0; 32], state: [0; 32] };
        Key { digests, began: Instant::now(), lives: None, written: None, governed: None }
    }

    fn place(fills: &Arc<Fills>, key: &Key, user: &str, waits: bool) -> Place {
        let new = || Prefix::new(0, Arc::new(UnboundedMemoryPool::default()));
        fills.place(key, CacheControl::default(), &Principal(user.into()), waits, Duration::ZERO, new)
    }

    fn leads(place: Place) -> (Maker, Reader) {
        match place {
            Place::Leads(maker, reader) => (maker, reader),
            Place::Follows(_) => panic!("it follows another"),
        }
    }

    fn follows(place: Place) -> Reader {
        match place {
            Place::Leads(..) => panic!("it follows nobody"),
            Place::Follows(reader) => reader,
        }
    }

    #[test]
    fn what_nobody_began_to_make_is_asked_for_anew() {
        for runs in [false, true] {
            let (fills, key) = (Arc::default(), key());
            let (maker, first) = leads(place(&fills, &key, "ann", true));
            let second = follows(place(&fills, &key, "ann", true));
            let begun = maker.begin(|mut maker| {
                if runs {
                    maker.runs();
                }
                drop(maker);
                Err(Error::internal("there are no threads"))
            });
            begun.unwrap_err();
            let again = matches!(second.joins().now_or_never(), Some(Err(NotBegun::Again)));
            assert_eq!(again, !runs);
            drop(first);
        }
    }

    #[test]
    fn who_was_not_let_in_says_nothing_of_others_however_often() {
        let (fills, key) = (Arc::default(), key());
        let refused = Error::exhausted("the queue is full").with_retry_after(Duration::from_secs(1));
        for (user, error) in [("ann", refused), ("cid", Error::exhausted("the memory limit is reached"))] {
            let (maker, _first) = leads(place(&fills, &key, user, true));
            let (own, other) = (follows(place(&fills, &key, user, true)), follows(place(&fills, &key, "bob", true)));
            maker.end(Err(error));
            assert!(matches!(own.joins().now_or_never(), Some(Err(NotBegun::Failed(_)))));
            assert!(matches!(other.joins().now_or_never(), Some(Err(NotBegun::Again))));
        }
        let (maker, _first) = leads(place(&fills, &key, "ann", true));
        let other = follows(place(&fills, &key, "bob", true));
        // It would be for all.
        maker.end(Err(Error::exhausted("a value is too large").with_retryable(false)));
        assert!(matches!(other.joins().now_or_never(), Some(Err(NotBegun::Failed(_)))));
        // Who has waited often enough takes what has begun, or a place of its own.
        let (third, _waits) = leads(place(&fills, &key, "dan", true));
        let (fourth, _has_its_own) = leads(place(&fills, &key, "bob", false));
        for maker in [&third, &fourth] {
            maker.begins(Arc::new(Schema::empty()), Touched::default());
        }
        follows(place(&fills, &key, "eve", false));
    }
}
