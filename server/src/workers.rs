//! The threads on which statements are planned and run: apart from those of the protocols, so that a busy statement never
//! keeps a client, a health check or a Ctrl-C waiting; and in several lanes, so that one of a busy user does not keep those of others
//! waiting. On the threads of one lane a statement goes on when another one pauses, and it pauses often between its beginning and its
//! end; between lanes the system shares the processors out, and interrupts. A lane whose threads are all in calls that do not pause
//! is replaced by another one for what comes after.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::RecordBatch;
use datafusion::common::runtime::set_join_set_tracer;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use nexus_flight_catalog::{Error, Principal, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::lanes::Lanes;
use crate::query::{Answer, Batches};
use crate::running::{Running, Tasks};

/// Batches on their way between the threads: one to send while the next one is made.
const AHEAD: usize = 2;

/// Plans are walked by recursion, so every thread that may plan has room for the deepest statement that the caps let in.
/// Only what is used of it takes memory.
const STACK: usize = 64 << 20;

/// Threads with room for the deepest statement.
pub fn threads(name: &str) -> Result<Runtime> {
    let threads = Builder::new_multi_thread().enable_all().thread_name(name).thread_stack_size(STACK).build();
    threads.map_err(|error| Error::internal(format!("no threads can be started: {error}")))
}

/// How many lanes there are.
const LANES: usize = 4;

/// The threads that statements run on.
#[derive(Debug, Clone)]
pub struct Workers {
    lanes: Arc<Lanes>,
    /// Those of the protocols.
    beside: Handle,
}

impl Workers {
    /// Lanes of threads, apart from those that this is called on.
    pub fn new() -> Result<Self> {
        Ok(Self::over(Lanes::of(LANES, || threads("nexus-statement"))?))
    }

    /// The threads that this is called on.
    pub fn here() -> Self {
        Self::over(Lanes::here())
    }

    fn over(lanes: Arc<Lanes>) -> Self {
        // The one of the process stays.
        let _ = set_join_set_tracer(&Tasks);
        Self { lanes, beside: Handle::current() }
    }

    /// Has a task run beside the statements for as long as it takes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.beside.spawn(task);
    }

    /// Begins a piece of work on the lane of a user, which is taken for as long as it goes on, also where nobody waits for it any more.
    fn task(&self, principal: &Principal, work: impl Future<Output = ()> + Send + 'static) -> Result<Task> {
        let waiting: Waiting = Arc::new(Mutex::new(Some(work.boxed())));
        let (handle, replaced) = begin(&self.lanes, principal, &waiting)?;
        Ok(Task { lanes: Arc::clone(&self.lanes), principal: principal.clone(), waiting, handle, replaced })
    }

    /// Begins a piece of work for a user on them, which tells by itself what comes of it. Dropping what this gives ends the work at its
    /// next pause.
    pub fn begin(&self, principal: &Principal, work: impl Future<Output = ()> + Send + 'static) -> Result<AbortOnDropHandle<()>> {
        let (tell, told) = oneshot::channel();
        let mut task = self.task(principal, async move {
            work.await;
            // Nobody may want to know any more.
            let _ = tell.send(());
        })?;
        // Beside the lanes, since the one that it has to begin on may give no sign.
        let watch = self.beside.spawn(async move {
            let _ = task.tells(told).await;
        });
        Ok(AbortOnDropHandle::new(watch))
    }

    /// Does a piece of work for a user on them. Dropping the future ends the work at its next pause.
    pub async fn run<T: Send + 'static>(
        &self,
        principal: &Principal,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let mut task = self.task(principal, async move {
            // Nobody may want to know any more.
            let _ = tell.send(work.await);
        })?;
        match task.tells(told).await? {
            Ok(result) => result,
            Err(_) => Err(ended_early(task.handle.await.err())),
        }
    }

    /// An answer for a user, made on them and only a few batches ahead of the reader. Dropping it, or the future, ends the work at its
    /// next pause.
    pub async fn answer(
        &self,
        principal: &Principal,
        work: impl Future<Output = Result<Answer>> + Send + 'static,
    ) -> Result<Answer> {
        let (tell, told) = oneshot::channel();
        let (sender, receiver) = mpsc::channel(AHEAD);
        // One task from the statement to its last batch: each change of threads costs more than planning a small statement.
        let mut task = self.task(principal, async move {
            let Answer { schema, mut batches, cache, shared } = match work.await {
                Ok(answer) => answer,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            // What is ready at once goes along with the head.
            let ended = fill(&mut batches, &sender).await;
            if tell.send(Ok((schema, cache, shared))).is_ok() && !ended {
                while let Some(batch) = batches.next().await {
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
            }
        })?;
        let Ok(head) = task.tells(told).await? else {
            return Err(ended_early(task.handle.await.err()));
        };
        let (schema, cache, shared) = head?;
        let batches = received(receiver, task.handle, |error| ended_early(Some(error)));
        Ok(Answer { schema, batches: batches.boxed(), cache, shared })
    }
}

/// Work that a task takes when it begins.
type Waiting = Arc<Mutex<Option<BoxFuture<'static, ()>>>>;

/// A piece of work on a lane; dropping it ends the work at its next pause.
struct Task {
    lanes: Arc<Lanes>,
    principal: Principal,
    waiting: Waiting,
    handle: AbortOnDropHandle<()>,
    replaced: CancellationToken,
}

fn begin(lanes: &Arc<Lanes>, principal: &Principal, waiting: &Waiting) -> Result<(AbortOnDropHandle<()>, CancellationToken)> {
    let stay = lanes.stay(principal).ok_or_else(|| Error::internal("there are no threads"))?;
    let (threads, replaced, waiting) = (stay.threads(), stay.replaced(), Arc::clone(waiting));
    let task = threads.spawn(async move {
        let work = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            Running::with(stay, work).await;
        }
    });
    Ok((AbortOnDropHandle::new(task), replaced))
}

impl Task {
    /// Waits for what the work tells. Where its lane is replaced before it has begun, it begins on the next one.
    async fn tells<T>(&mut self, told: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(told);
        loop {
            tokio::select! {
                biased;
                told = &mut told => return Ok(told),
                () = self.replaced.cancelled() => {}
            }
            // Taken away from there, so that it cannot begin twice.
            let Some(work) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(told.await);
            };
            self.waiting = Arc::new(Mutex::new(Some(work)));
            (self.handle, self.replaced) = begin(&self.lanes, &self.principal, &self.waiting)?;
        }
    }
}

/// Puts the batches that are ready into a channel, as far as they fit; whether that was all.
async fn fill(batches: &mut Batches, sender: &mpsc::Sender<Result<RecordBatch>>) -> bool {
    while let Ok(place) = sender.try_reserve() {
        match futures::poll!(batches.next()) {
            Poll::Ready(Some(batch)) => place.send(batch),
            Poll::Ready(None) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

/// What a task sends. One that panicked has not sent all there is, which must not pass for the end: `early` makes an error of that.
/// Dropping this ends the task at its next pause.
pub fn received<T>(
    receiver: mpsc::Receiver<Result<T>>,
    task: AbortOnDropHandle<()>,
    early: fn(JoinError) -> Error,
) -> impl Stream<Item = Result<T>> {
    stream::unfold((receiver, Some(task)), move |(mut receiver, mut task)| async move {
        if let Some(next) = receiver.recv().await {
            return Some((next, (receiver, task)));
        }
        match task.take()?.await {
            Ok(()) => None,
            Err(error) => Some((Err(early(error)), (receiver, None))),
        }
    })
}

fn ended_early(cause: Option<JoinError>) -> Error {
    let error = Error::broken_off();
    match cause {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use datafusion::common::runtime::SpawnedTask;

    use super::*;
    use crate::running::hold;

    #[tokio::test]
    async fn what_a_statement_holds_is_held_until_the_last_of_its_tasks_has_ended() {
        let workers = Workers::new().unwrap();
        let held = Arc::new(());
        let (entered, is_in) = oneshot::channel();
        let (release, released) = channel::<()>();
        let statement = {
            let held = Arc::clone(&held);
            workers.task(&Principal("ann".into()), async move {
                hold(held);
                let call = SpawnedTask::spawn(async move {
                    entered.send(()).unwrap();
                    released.recv().unwrap();
                });
                call.join().await.unwrap();
            })
        };
        is_in.await.unwrap();
        drop(statement.unwrap());
        assert_eq!(Arc::strong_count(&held), 2);
        release.send(()).unwrap();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn work_that_waits_for_a_lane_without_a_pause_begins_on_the_next_one() {
        let lanes = Lanes::of(1, || Ok(Builder::new_multi_thread().worker_threads(1).build().unwrap())).unwrap();
        let (workers, ann) = (Workers::over(Arc::clone(&lanes)), Principal("ann".into()));
        let (entered, is_in) = oneshot::channel();
        let (release, released) = channel::<()>();
        let stuck = workers.begin(&ann, async move {
            entered.send(()).unwrap();
            released.recv().unwrap();
        });
        is_in.await.unwrap();
        let (tell, told) = oneshot::channel();
        let waits = workers.begin(&ann, async move { tell.send(()).unwrap() });
        // The first look asks, and no thread is there to answer the second.
        lanes.look(Duration::ZERO);
        lanes.look(Duration::ZERO);
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap().unwrap();
        release.send(()).unwrap();
        drop((stuck.unwrap(), waits.unwrap()));
    }

    #[tokio::test]
    async fn what_is_held_within_a_piece_of_work_is_given_back_with_it() {
        let (around, held) = (Arc::new(()), Arc::new(()));
        let (outer, inner) = (Arc::clone(&around), Arc::clone(&held));
        let work = async {
            Running::within(async { hold(inner) }).await;
            assert_eq!((Arc::strong_count(&around), Arc::strong_count(&held)), (2, 1));
        };
        Running::with(outer, work).await;
        assert_eq!(Arc::strong_count(&around), 1);
    }
}
