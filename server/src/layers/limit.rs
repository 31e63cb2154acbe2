//! How many statements run at once. A permit lives as long as the stream that it was given for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use crate::config::Limits;
use crate::layers::Run;
use crate::plan::Planned;
use crate::query::Answer;

/// Lets so many statements run and so many wait, and refuses the rest at once.
#[derive(Debug)]
pub struct Limit<R> {
    inner: R,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    patience: Duration,
}

impl<R> Limit<R> {
    /// A limit as configured.
    pub fn new(inner: R, limits: &Limits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.concurrency as usize));
        Self { inner, permits, waiting: AtomicUsize::new(0), queue: limits.queue as usize, patience: limits.queue_wait.0 }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue)?;
        match tokio::time::timeout(self.patience, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| Error::unavailable("the server is closing")),
            Err(_) => Err(Error::exhausted(format!("no statement ended within {:?} to make room", self.patience))
                .with_hint("try again later, or raise limits.concurrency")),
        }
    }
}

/// A place in the queue, given back when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, queue: usize) -> Result<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= queue {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::exhausted(format!("{queue} statements are waiting already"))
                .with_hint("try again later, or raise limits.queue"));
        }
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl<R: Run> Run for Limit<R> {
    async fn run(&self, planned: Planned) -> Result<Answer> {
        let span = tracing::info_span!(target: TRACE, parent: &planned.query.cx.span, "wait");
        let permit = self.permit().instrument(span).await?;
        let mut answer = self.inner.run(planned).await?;
        answer.batches = answer
            .batches
            .map(move |batch| {
                // Held by the closure for as long as the stream lives.
                let _ = &permit;
                batch
            })
            .boxed();
        Ok(answer)
    }
}
