//! Answers that were given out of date are made anew beside: as statements like any other, by the way that all of them go.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use nexus_flight_catalog::{Context, Result};

use crate::digest::Digest;
use crate::query::{Execute, Query};
use crate::session::cache_control::CacheControl;
use crate::workers::Workers;

/// Makes answers anew, each question's once at a time.
pub struct Refreshes {
    /// The way of all statements, once there is one.
    execute: OnceLock<Weak<dyn Execute>>,
    running: Arc<Mutex<HashSet<Digest>>>,
    workers: Workers,
    /// How long one may take.
    longest: Duration,
}

impl fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshes").finish_non_exhaustive()
    }
}

impl Refreshes {
    /// With threads to wait on, and a bound for the time that one takes.
    pub fn new(workers: Workers, longest: Duration) -> Self {
        Self { execute: OnceLock::new(), running: Arc::default(), workers, longest }
    }

    /// Takes the way of all statements, which is there later than its layers.
    pub fn go_by(&self, execute: &Arc<dyn Execute>) {
        // There is one for the whole life of the layers.
        let _ = self.execute.set(Arc::downgrade(execute));
    }

    /// Begins to make the answer to a question anew, as who asked now, unless that is being done.
    pub(super) fn begin(&self, question: Digest, query: &Query) {
        let Some(execute) = self.execute.get().and_then(Weak::upgrade) else { return };
        let Some(turn) = Turn::take(&self.running, question) else { return };
        let longest = query.session.options.timeout.map_or(self.longest, |timeout| timeout.min(self.longest));
        let cx = Context::new(query.cx.principal.clone());
        // It is not its client's to end, and its record is its own.
        let cx = Context { parent: query.cx.parent.clone(), deadline: Some(Instant::now() + longest), ..cx };
        let mut anew = Query { cx, touched: None, most: None, ..query.clone() };
        anew.session.options.cache = Some(CacheControl { no_cache: true, ..CacheControl::default() });
        self.workers.spawn(async move {
            let outcome = made(execute.as_ref(), anew).await.map_or_else(|error| error.kind().name(), |()| "finished");
            metrics::counter!("nexus_cache_refreshes_total", "outcome" => outcome).increment(1);
            drop(turn);
        });
    }
}

/// Makes an answer to its end, by which it is kept.
async fn made(execute: &dyn Execute, query: Query) -> Result<()> {
    let mut batches = execute.execute(query).await?.batches;
    while batches.try_next().await?.is_some() {}
    Ok(())
}

/// The one who makes the answer to a question anew, until it is dropped.
struct Turn {
    running: Arc<Mutex<HashSet<Digest>>>,
    question: Digest,
}

impl Turn {
    fn take(running: &Arc<Mutex<HashSet<Digest>>>, question: Digest) -> Option<Self> {
        let is_first = running.lock().unwrap_or_else(PoisonError::into_inner).insert(question);
        is_first.then(|| Self { running: Arc::clone(running), question })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_turn_of_a_question() {
        let running = Arc::default();
        let turn = Turn::take(&running, [1; 32]).unwrap();
        assert!(Turn::take(&running, [1; 32]).is_none() && Turn::take(&running, [2; 32]).is_some());
        drop(turn);
        assert!(Turn::take(&running, [1; 32]).is_some());
    }
}
