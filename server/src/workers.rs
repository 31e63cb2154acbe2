//! The threads on which statements are planned and run: apart from those of the protocols, so that a busy statement never
//! keeps a client, a health check or a Ctrl-C waiting.

use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::query::Batches;

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
        task.await.unwrap_or_else(|error| Err(Error::internal("a statement ended early").caused_by(error)))
    }

    /// The same batches, made on them and only a few ahead of the reader. Dropping the stream ends the work at its next pause.
    pub fn stream(&self, mut batches: Batches) -> Batches {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let task = AbortOnDropHandle::new(self.0.spawn(async move {
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        }));
        let state = (receiver, Some(task));
        stream::unfold(state, |(mut receiver, mut task)| async move {
            if let Some(batch) = receiver.recv().await {
                return Some((batch, (receiver, task)));
            }
            // A task that panicked has not sent all there is, which must not pass for the end.
            match task.take()?.await {
                Ok(()) => None,
                Err(error) => Some((Err(Error::internal("a statement ended early").caused_by(error)), (receiver, None))),
            }
        })
        .boxed()
    }
}
