//! The threads on which statements are planned and run: apart from those of the protocols, so that a busy statement never
//! keeps a client, a health check or a Ctrl-C waiting; and in several lanes, so that one of a busy user does not keep those of others
//! waiting. On the threads of one lane a statement goes on when another one pauses, and it pauses often between its beginning and its
//! end; between lanes the system shares the processors out, and interrupts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Principal, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use crate::query::{Answer, Batches};

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
pub const LANES: usize = 4;

/// The threads that statements run on.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Lanes>);

#[derive(Debug)]
struct Lanes {
    threads: Vec<Handle>,
    taken: Mutex<HashMap<Principal, Taken>>,
}

/// The lane of a user who has statements that run.
#[derive(Debug)]
struct Taken {
    lane: usize,
    statements: usize,
}

/// A statement on a lane, which is its user's for that long.
struct Stay {
    lanes: Arc<Lanes>,
    principal: Principal,
    threads: Handle,
}

impl Lanes {
    fn stay(self: &Arc<Self>, principal: &Principal) -> Result<Stay> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = match taken.get_mut(principal) {
            Some(own) => {
                own.statements += 1;
                own.lane
            }
            None => {
                let users = |lane: &usize| taken.values().filter(|other| other.lane == *lane).count();
                let lane = (0..self.threads.len()).min_by_key(users).unwrap_or_default();
                taken.insert(principal.clone(), Taken { lane, statements: 1 });
                lane
            }
        };
        let threads = self.threads.get(lane).cloned().ok_or_else(|| Error::internal("there are no threads"))?;
        Ok(Stay { lanes: Arc::clone(self), principal: principal.clone(), threads })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut taken = self.lanes.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.principal) {
            own.statements -= 1;
            if own.statements == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}

impl Workers {
    /// Lanes of threads, one at least.
    pub fn new(threads: Vec<Handle>) -> Self {
        Self(Arc::new(Lanes { threads, taken: Mutex::default() }))
    }

    /// Those of the runtime that this is called on, for all.
    pub fn here() -> Self {
        Self::new(vec![Handle::current()])
    }

    /// Has a task run beside the statements for as long as it takes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(threads) = self.0.threads.first() {
            threads.spawn(task);
        }
    }

    /// A piece of work on the lane of a user, which is taken for as long as it goes on, also where nobody waits for it any more.
    fn task<T: Send + 'static>(
        &self,
        principal: &Principal,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<AbortOnDropHandle<T>> {
        let stay = self.0.stay(principal)?;
        let threads = stay.threads.clone();
        Ok(AbortOnDropHandle::new(threads.spawn(async move {
            let _stay = stay;
            work.await
        })))
    }

    /// Does a piece of work for a user on them. Dropping the future ends the work at its next pause.
    pub async fn run<T: Send + 'static>(
        &self,
        principal: &Principal,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.task(principal, work)?.await.unwrap_or_else(|error| Err(ended_early(Some(error))))
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
        let task = self.task(principal, async move {
            let Answer { schema, mut batches, cache } = match work.await {
                Ok(answer) => answer,
                Err(error) => {
                    // Nobody may want to know any more.
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            // What is ready at once goes along with the head.
            let ended = fill(&mut batches, &sender).await;
            if tell.send(Ok((schema, cache))).is_ok() && !ended {
                while let Some(batch) = batches.next().await {
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
            }
        })?;
        let Ok(head) = told.await else {
            return Err(ended_early(task.await.err()));
        };
        let (schema, cache) = head?;
        let state = (receiver, Some(task));
        let batches = stream::unfold(state, |(mut receiver, mut task)| async move {
            if let Some(batch) = receiver.recv().await {
                return Some((batch, (receiver, task)));
            }
            // A task that panicked has not sent all there is, which must not pass for the end.
            match task.take()?.await {
                Ok(()) => None,
                Err(error) => Some((Err(ended_early(Some(error))), (receiver, None))),
            }
        });
        Ok(Answer { schema, batches: batches.boxed(), cache })
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

fn ended_early(cause: Option<JoinError>) -> Error {
    let error = Error::internal("a statement ended early");
    match cause {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_are_shared_out_over_the_lanes_and_stay_on_theirs() {
        let workers = Workers::new(vec![Handle::current(), Handle::current()]);
        let lane = |stay: &Stay| workers.0.taken.lock().unwrap().get(&stay.principal).unwrap().lane;
        let stay = |name: &str| workers.0.stay(&Principal(name.into())).unwrap();
        let (first, second, again) = (stay("ann"), stay("bob"), stay("ann"));
        assert_ne!(lane(&first), lane(&second));
        assert_eq!(lane(&first), lane(&again));
        drop(first);
        assert_eq!(lane(&again), lane(&stay("ann")));
        drop((again, second));
        assert!(workers.0.taken.lock().unwrap().is_empty());
    }
}
