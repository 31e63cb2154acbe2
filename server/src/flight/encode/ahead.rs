//! Messages that are made in a task of their own, beside the one that sends them.

use std::pin::pin;

use futures::{Stream, StreamExt};
use nexus_flight_catalog::{Error, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::message::Message;
use crate::workers::received;

/// How many messages wait to be sent while the next one is made: none of them is above `LARGEST_MESSAGE` unless one row is, so
/// this is a bound of bytes.
const AHEAD: usize = 1;

/// The same messages. Dropping them ends the task at its next pause.
pub fn ahead(messages: impl Stream<Item = Result<Message>> + Send + 'static) -> impl Stream<Item = Result<Message>> + Send {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let task = tokio::spawn(async move {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
    });
    received(receiver, AbortOnDropHandle::new(task), |error| Error::broken_off().caused_by(error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow_flight::FlightData;
    use futures::{TryStreamExt, stream};

    use super::*;

    fn message(number: u8) -> Message {
        Message { head: FlightData::new().with_data_header(vec![number]), body: Vec::new() }
    }

    #[tokio::test]
    async fn they_come_in_their_order_and_their_error_behind_them() {
        let made = stream::iter([Ok(message(1)), Ok(message(2)), Err(Error::unavailable("the source went away"))]);
        let mut got = pin!(ahead(made));
        assert_eq!(got.try_next().await.unwrap().unwrap().head.data_header[..], [1]);
        assert_eq!(got.try_next().await.unwrap().unwrap().head.data_header[..], [2]);
        insta::assert_snapshot!(got.try_next().await.unwrap_err(), @"the source went away");
        assert!(got.next().await.is_none());
    }

    #[tokio::test]
    async fn no_more_are_made_than_are_taken_and_dropping_them_ends_the_task() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = {
            let made = Arc::clone(&made);
            stream::repeat_with(move || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(message(0))
            })
        };
        let mut got = Box::pin(ahead(counted));
        for taken in 1..10 {
            got.next().await.unwrap().unwrap();
            // One waits, and one more is made.
            assert!(made.load(Ordering::Relaxed) <= taken + AHEAD + 1);
        }
        drop(got);
        while Arc::strong_count(&made) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_not_the_end() {
        let made = stream::iter([1, 0]).map(|divisor: u8| Ok(message(1_u8.checked_div(divisor).unwrap())));
        let got: Vec<Result<Message>> = ahead(made).collect().await;
        assert_eq!(got.len(), 2);
        insta::assert_snapshot!(got[1].as_ref().unwrap_err(), @"the engine failed on this statement; where a function gets a value beyond what it can compute with, leave such values out; the log of the gateway says what failed");
    }
}
