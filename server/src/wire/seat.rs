//! The seats of a port, one for each connection on which somebody has come in. Who has not may be let go for others.

use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The seat of one connection, which is given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    free: Arc<Semaphore>,
    taken: OnceCell<OwnedSemaphorePermit>,
    gone: CancellationToken,
}

impl Seat {
    /// One of these, not taken yet.
    pub fn new(free: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { free, taken: OnceCell::new(), gone: CancellationToken::new() })
    }

    /// Takes it, once one is free: a call was let in.
    pub async fn take(&self) {
        // They are counted for as long as there is a port.
        let _ = self.taken.get_or_try_init(|| Arc::clone(&self.free).acquire_owned()).await;
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
        first.take().await;
        // It has its own already.
        first.take().await;
        let mut waits = Box::pin(second.take());
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(!second.is_taken());
        drop(first);
        waits.await;
        assert!(second.is_taken());
    }
}
