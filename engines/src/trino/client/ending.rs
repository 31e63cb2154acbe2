//! How a statement is ended at Trino that nobody waits for any more.
//!
//! Each is asked for once. A server that does not hear it, as one that is frozen or starts again, is asked again for a while, for
//! a number of statements at most; those that are left Trino ends itself, after `query.client.timeout`.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use tokio::runtime::Handle;
use url::Url;

use super::{ANSWERS_WITHIN, Client, FIRST_WAIT, Running};

/// For how long a server is asked again to end a statement.
const ENDING_FOR: Duration = Duration::from_secs(60);
/// The longest time in between. With the time that an answer may take it is less than 10 s, within which a server that thaws
/// hears of it.
const LONGEST_ENDING_WAIT: Duration = Duration::from_secs(3);
/// For how many statements at once.
pub(super) const MOST_ENDINGS: usize = 64;

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(next), Ok(runtime)) = (self.next.take(), Handle::try_current()) else { return };
        let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
        runtime.spawn(async move { client.end(next, &id).await });
    }
}

impl Client {
    /// Ends a statement whose rows nobody wants any more.
    async fn end(&self, next: Url, id: &str) {
        let begun = Instant::now();
        if self.ended(&next).await {
            return;
        }
        if let Ok(_permit) = self.0.endings.try_acquire() {
            let mut wait = FIRST_WAIT;
            while begun.elapsed() < ENDING_FOR {
                tokio::time::sleep(wait).await;
                if self.ended(&next).await {
                    return;
                }
                wait = (wait * 2).min(LONGEST_ENDING_WAIT);
            }
        }
        tracing::warn!(query = id, "a statement that nobody waits for cannot be ended at trino");
    }

    /// Whether it is ended now, or was before.
    async fn ended(&self, next: &Url) -> bool {
        let answered = self.asked(Method::DELETE, next.clone()).timeout(ANSWERS_WITHIN).send().await;
        let status = answered.map(|answer| answer.status());
        status.is_ok_and(|status| status.is_success() || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE))
    }
}
