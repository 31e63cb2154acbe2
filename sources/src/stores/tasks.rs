//! Work that is done in a task of its own.

use nexus_flight_catalog::{Context, Error, Result};
use tokio::task::JoinError;

/// What is said of a task that gave no answer.
pub(crate) fn ended_early(cause: JoinError) -> Error {
    Error::broken_off().caused_by(cause)
}

/// Does to its end what has begun, whether it is still wanted or not: others would have to finish the half of it.
pub(crate) async fn unbroken<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(ended_early)?
}

/// The same with what changes a table, which holds what the context does for that.
pub(crate) async fn carried_out<T: Send + 'static>(
    cx: &Context,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let held = cx.held.clone();
    unbroken(async move {
        let done = work.await;
        drop(held);
        done
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use nexus_flight_catalog::Principal;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_left_is_held_until_it_is_carried_out() {
        let held = Arc::new(());
        let cx = Context::new(Principal::anonymous()).holding(Arc::clone(&held));
        let (commit, committed) = oneshot::channel::<()>();
        let mut work = Box::pin(carried_out(&cx, async move { committed.await.map_err(|_| Error::internal("left")) }));
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        drop(cx);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2);
        commit.send(()).unwrap();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
