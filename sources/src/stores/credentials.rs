//! What is given for a time and asked for again before that is over: keys of stores, and tokens.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_flight_catalog::{Error, Result};
use tokio::sync::Mutex;

/// How long something is used of which nobody has said how long it holds.
const UNKNOWN: Duration = Duration::from_secs(300);
/// How much of a life is left, where it is long enough, when another is asked for.
const LEFT: Duration = Duration::from_secs(60);
/// How long something is used at most, however long it would hold.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// When it is tried again to get another while the old one still holds.
const AGAIN: Duration = Duration::from_secs(10);

/// What was given, and how long it holds from now on.
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// None where nobody has said.
    pub(crate) life: Option<Duration>,
}

/// A value that is renewed while it is in use: by one of those who want it, for all of them.
pub(crate) struct Renewed<T>(Mutex<Option<Held<T>>>);

struct Held<T> {
    value: Arc<T>,
    /// When another is asked for.
    renew: Instant,
    ends: Option<Instant>,
}

impl<T> Renewed<T> {
    /// Has nothing yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Takes what was given in another way.
    pub(crate) async fn set(&self, given: Given<T>) {
        *self.0.lock().await = Some(Held::new(given));
    }

    /// The value, for which `ask` asks when there is none that holds for long. Errors: those of `ask`, unless they are worth another
    /// try and the old value holds still.
    pub(crate) async fn get(&self, ask: impl Future<Output = Result<Given<T>>>) -> Result<Arc<T>> {
        let mut held = self.0.lock().await;
        if let Some(known) = held.as_ref().filter(|known| Instant::now() < known.renew) {
            return Ok(Arc::clone(&known.value));
        }
        match ask.await {
            Ok(given) => Ok(Arc::clone(&held.insert(Held::new(given)).value)),
            Err(error) => match held.as_mut().filter(|known| error.retryable() && known.holds()) {
                Some(known) => {
                    let again = Instant::now() + AGAIN;
                    known.renew = known.ends.map_or(again, |ends| ends.min(again));
                    Ok(Arc::clone(&known.value))
                }
                None => Err(error),
            },
        }
    }

    /// Gives up a value that was refused, unless another has come meanwhile.
    pub(crate) async fn forget(&self, refused: &Arc<T>) {
        let mut held = self.0.lock().await;
        if held.as_ref().is_some_and(|known| Arc::ptr_eq(&known.value, refused)) {
            *held = None;
        }
    }
}

impl<T> Held<T> {
    fn new(given: Given<T>) -> Self {
        let now = Instant::now();
        let life = given.life.map(|life| life.min(LONGEST));
        let used = life.map_or(UNKNOWN, used);
        Self { value: Arc::new(given.value), renew: now + used, ends: life.map(|life| now + life) }
    }

    fn holds(&self) -> bool {
        self.ends.is_none_or(|ends| Instant::now() < ends)
    }
}

/// How much of a life passes before another is asked for: all but a minute or a tenth, and at least half.
fn used(life: Duration) -> Duration {
    life.saturating_sub(LEFT.max(life / 10)).max(life / 2)
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds is secret.
        f.write_str("Renewed")
    }
}

/// An error of who gives the keys of a store, for whoever reads from it.
pub(super) fn of_keys(cause: &object_store::Error) -> Option<&Error> {
    match cause {
        object_store::Error::Generic { source, .. } => source.downcast_ref(),
        _ => None,
    }
}

/// The same error, for the store.
pub(crate) fn no_keys(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn given(value: u8, life: Option<Duration>) -> Result<Given<u8>> {
        Ok(Given { value, life })
    }

    async fn get(renewed: &Renewed<u8>, answer: Result<Given<u8>>) -> Result<u8> {
        renewed.get(async { answer }).await.map(|value| *value)
    }

    #[test]
    fn another_is_asked_for_before_the_end() {
        let seconds = |life: u64| used(Duration::from_secs(life)).as_secs();
        assert_eq!([0, 2, 100, 120, 600, 3_600].map(seconds), [0, 1, 50, 60, 540, 3_240]);
    }

    #[tokio::test]
    async fn what_holds_is_kept_and_what_has_ended_is_not() {
        let hour = Some(Duration::from_secs(3_600));
        let renewed = Renewed::new();
        assert_eq!(get(&renewed, given(1, Some(Duration::ZERO))).await.unwrap(), 1);
        assert_eq!(get(&renewed, given(2, None)).await.unwrap(), 2);
        assert_eq!(get(&renewed, given(3, hour)).await.unwrap(), 2);
        renewed.set(Given { value: 4, life: Some(Duration::MAX) }).await;
        assert_eq!(get(&renewed, given(5, hour)).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn what_was_refused_is_given_up_once() {
        let renewed = Renewed::new();
        renewed.set(Given { value: 1, life: None }).await;
        let first = renewed.get(async { given(2, None) }).await.unwrap();
        renewed.forget(&first).await;
        assert_eq!(get(&renewed, given(2, None)).await.unwrap(), 2);
        renewed.forget(&first).await;
        assert_eq!(get(&renewed, given(3, None)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_not_needed_while_the_old_value_holds() {
        let now = Instant::now();
        let held = |ends| Renewed(Mutex::new(Some(Held { value: Arc::new(1), renew: now, ends: Some(ends) })));
        let holds = held(now + Duration::from_secs(3_600));
        assert_eq!(get(&holds, Err(Error::unauthenticated("no"))).await.unwrap_err().kind(), Kind::Unauthenticated);
        assert_eq!(get(&holds, Err(Error::unavailable("no"))).await.unwrap(), 1);
        // Not at once again.
        assert_eq!(get(&holds, given(2, None)).await.unwrap(), 1);
        assert_eq!(get(&held(now), Err(Error::unavailable("no"))).await.unwrap_err().kind(), Kind::Unavailable);
    }
}
