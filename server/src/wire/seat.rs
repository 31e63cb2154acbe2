//! The seats of a port, one for each connection on which somebody has come in. Who has not may be let go for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus_flight_catalog::{Error, Result};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a call waits for a seat: whoever was let in before it may not be any more a long time later.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many handshakes of one connection may be on their way before somebody has come in.
const KNOCKS: usize = 4;

/// The seat of one connection, which is given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    free: Arc<Semaphore>,
    wanted: AtomicBool,
    knocks: Arc<Semaphore>,
    taken: OnceCell<OwnedSemaphorePermit>,
    gone: CancellationToken,
}

impl Seat {
    /// One of these, not taken yet.
    pub fn new(free: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            free,
            wanted: AtomicBool::default(),
            knocks: Arc::new(Semaphore::new(KNOCKS)),
            taken: OnceCell::new(),
            gone: CancellationToken::new(),
        })
    }

    /// Takes it, once one is free: a call was let in. Errors: `Exhausted` where none is for too long.
    pub async fn take(&self) -> Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        // They are counted for as long as there is a port.
        let taken = self.taken.get_or_try_init(|| Arc::clone(&self.free).acquire_owned());
        tokio::time::timeout(PATIENCE, taken).await.map(drop).map_err(|_| {
            Error::exhausted("all connections of this port are in use")
                .with_hint("try again later, or raise limits.connections")
                .with_retry_after(PATIENCE)
        })
    }

    /// Begins a handshake, until it is dropped; none where there are as many already.
    pub fn knock(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.knocks).try_acquire_owned().ok()
    }

    /// Whether somebody who has come in waits for it, or has it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether it is taken: then its connection makes way for nobody.
    pub fn is_taken(&self) -> bool {
        self.taken.initialized()
    }

    /// Lets its connection go, unless it is taken.
    pub fn give_way(&self) {
        self.gone.cancel();
    }

    /// Tells when its connection is to make way.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_next_connection_waits_until_one_ends() {
        let free = Arc::new(Semaphore::new(1));
        let (first, second) = (Seat::new(Arc::clone(&free)), Seat::new(free));
        first.take().await.unwrap();
        // It has its own already.
        first.take().await.unwrap();
        let mut waits = Box::pin(second.take());
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(second.is_wanted() && !second.is_taken());
        drop(first);
        waits.await.unwrap();
        assert!(second.is_taken());
    }
}
