//! Statements that their clients can end, by the id in the ticket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use nexus_flight_catalog::{Error, Result};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::latest::{REFUSED, latest};

/// The statements that run here, and the tickets that shall not run any more.
#[derive(Debug)]
pub struct Cancellations {
    running: Mutex<HashMap<Uuid, Running>>,
    /// For as long as a ticket would hold.
    cancelled: Cache<Uuid, ()>,
}

/// All the runs of one ticket: a client may try again, or read twice.
#[derive(Debug, Default)]
struct Running {
    token: CancellationToken,
    runs: usize,
}

/// One run, counted until it is dropped.
#[derive(Debug)]
pub struct Run {
    id: Uuid,
    token: CancellationToken,
    all: Arc<Cancellations>,
}

impl Cancellations {
    /// With tickets that hold for so long.
    pub fn new(lives: Duration) -> Self {
        let cancelled = latest(REFUSED).time_to_live(lives).build();
        Self { running: Mutex::default(), cancelled }
    }

    /// Begins a run. Errors: `Cancelled` where its ticket was.
    pub fn begin(self: &Arc<Self>, id: Uuid) -> Result<Run> {
        let token = {
            let mut running = self.running();
            let running = running.entry(id).or_default();
            running.runs += 1;
            running.token.clone()
        };
        let run = Run { id, token, all: Arc::clone(self) };
        // After it is entered: a cancellation that came too early to see it has left its mark by now.
        if self.cancelled.contains_key(&id) {
            return Err(Error::cancelled().with_hint("send the statement again"));
        }
        Ok(run)
    }

    /// Ends the runs of a ticket, and lets it begin none here. Gives whether there was one.
    pub async fn cancel(&self, id: Uuid) -> bool {
        self.cancelled.insert(id, ()).await;
        self.running().get(&id).inspect(|running| running.token.cancel()).is_some()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Fires when the client cancels.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.all.running();
        if let Some(runs) = running.get_mut(&self.id) {
            runs.runs -= 1;
            if runs.runs == 0 {
                running.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_runs_of_a_ticket_end_and_none_begins_again() {
        let all = Arc::new(Cancellations::new(Duration::from_secs(60)));
        let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
        let (first, second, apart) = (all.begin(id).unwrap(), all.begin(id).unwrap(), all.begin(other).unwrap());
        assert!(all.cancel(id).await && !all.cancel(Uuid::new_v4()).await);
        assert!(first.token().is_cancelled() && second.token().is_cancelled() && !apart.token().is_cancelled());
        insta::assert_snapshot!(all.begin(id).unwrap_err(), @"the statement was cancelled; send the statement again");
        drop((first, second, apart));
        assert!(all.running().is_empty());
    }
}
