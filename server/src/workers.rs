//! The threads on which statements are planned and run: apart from those of the protocols, so that a busy statement never
//! keeps a client, a health check or a Ctrl-C waiting.

use std::task::Poll;

use arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Result};
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

/// The threads that statements run on.
#[derive(Debug, Clone)]
pub struct Workers(pub Handle);

impl Workers {
    /// Does a piece of work on them. Dropping the future ends the work at its next pause.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let task = AbortOnDropHandle::new(self.0.spawn(work));
        task.await.unwrap_or_else(|error| Err(ended_early(Some(error))))
    }

    /// An answer, made on them and only a few batches ahead of the reader. Dropping it, or the future, ends the work at its
    /// next pause.
    pub async fn answer(&self, work: impl Future<Output = Result<Answer>> + Send + 'static) -> Result<Answer> {
        let (tell, told) = oneshot::channel();
        let (sender, receiver) = mpsc::channel(AHEAD);
        // One task from the statement to its last batch: each change of threads costs more than planning a small statement.
        let task = AbortOnDropHandle::new(self.0.spawn(async move {
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
        }));
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
