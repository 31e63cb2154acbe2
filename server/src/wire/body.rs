//! The bodies of requests as they come in. Who takes messages sees none before its end, and has room made for all of it when it begins:
//! that counts as memory of the user until the message is whole and taken. A client that goes on with nothing is not waited for.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Buf, Bytes};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use http_body::{Frame, SizeHint};
use nexus_flight_catalog::{Error, Kind, Principal, Result};
use tokio::time::Sleep;

use crate::flight::status::status;
use crate::shares::Shares;
use crate::wire::is_grpc;

/// How long a client may send nothing in the middle of a body.
const SILENCE: Duration = Duration::from_secs(300);
/// When it is worth to send again what there was no memory for.
const AGAIN: Duration = Duration::from_secs(1);
/// The largest message of a client, parameters included: tonic refuses what is said to be larger.
pub const LARGEST: usize = 16 << 20;
/// A message up to this is not counted: a call takes more than that in any case.
const FREE: usize = 4 << 10;
/// What stands before each message of gRPC: a flag for compression, and the length.
const PREFIX: usize = 5;

/// Lets a request of somebody who is known pass, with its body counted and watched.
pub async fn watch(State(shares): State<Arc<Shares>>, request: Request, next: Next) -> Response {
    let Some(principal) = request.extensions().get::<Principal>() else { return next.run(request).await };
    let share = shares.of(principal);
    let is_grpc = is_grpc(request.headers());
    next.run(request.map(|body| Body::new(Watched::new(body, share, is_grpc)))).await
}

/// Our error behind one that a reader of a body met, where there is one.
pub fn refusal(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours.copied());
        }
        next = error.source();
    }
    None
}

struct Watched {
    body: Body,
    held: MemoryReservation,
    message: Message,
    silence: Option<Pin<Box<Sleep>>>,
}

/// The message that is not whole yet.
struct Message {
    /// As much as has come of what stands before it; none where it is no gRPC, and all is one message.
    prefix: Option<Vec<u8>>,
    /// What is still to come.
    left: usize,
    /// What it takes.
    takes: usize,
}

impl Watched {
    fn new(body: Body, share: Arc<dyn MemoryPool>, is_grpc: bool) -> Self {
        let held = MemoryConsumer::new("a message").register(&share);
        let message = Message { prefix: is_grpc.then(Vec::new), left: 0, takes: 0 };
        Self { body, held, message, silence: None }
    }

    fn hold(&self, bytes: usize) -> Result<()> {
        let counted = if bytes > FREE { bytes } else { 0 };
        self.held.try_resize(counted).map_err(|full| Error::from(full).with_retry_after(AGAIN))
    }
}

impl Message {
    fn take(&mut self, mut data: &[u8]) {
        let Some(prefix) = &mut self.prefix else {
            self.takes += data.len();
            return;
        };
        while data.has_remaining() {
            if self.left > 0 {
                let part = data.len().min(self.left);
                data.advance(part);
                self.left -= part;
            } else {
                prefix.push(data.get_u8());
                let Ok([_, length @ ..]) = <[u8; PREFIX]>::try_from(&**prefix) else { continue };
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.takes = if self.left > LARGEST { 0 } else { self.left };
                prefix.clear();
            }
            if self.left == 0 {
                self.takes = 0;
            }
        }
    }
}

fn refused(error: Error) -> axum::Error {
    // As a status, by which tonic answers, with our error behind it.
    let mut status = status(&error);
    status.set_source(Arc::new(error));
    axum::Error::new(status)
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        // Who asks for more has taken the messages that are whole.
        if let Err(error) = this.hold(this.message.takes) {
            return Poll::Ready(Some(Err(refused(error))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE))).as_mut().poll(cx));
            let error = Error::new(Kind::Timeout, format!("nothing came for {} s", SILENCE.as_secs()));
            return Poll::Ready(Some(Err(refused(error))));
        };
        this.silence = None;
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.message.take(data);
            if let Err(error) = this.hold(this.message.takes.max(this.held.size())) {
                return Poll::Ready(Some(Err(refused(error))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        [&[0][..], &u32::try_from(length).unwrap().to_be_bytes(), &vec![7; length]].concat()
    }

    fn body(pieces: Vec<Vec<u8>>) -> Body {
        let pieces = stream::iter(pieces.into_iter().map(|piece| Ok::<_, Error>(Bytes::from(piece))));
        Body::from_stream(pieces.chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_message_counts_until_it_is_whole_and_taken() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100_000));
        let both = [message(50_000), message(70_000)].concat();
        let pieces = [&both[..3], &both[3..30_000], &both[30_000..60_000], &both[60_000..]].map(<[u8]>::to_vec);
        let mut watched = Watched::new(body(pieces.into()), Arc::clone(&pool), true);
        let mut reserved = Vec::new();
        // The third piece is the end of the first message and the begin of the second.
        for _ in 0..4 {
            watched.frame().await.unwrap().unwrap();
            reserved.push(pool.reserved());
        }
        assert_eq!(reserved, [0, 50_000, 70_000, 70_000]);
        assert!(futures::poll!(watched.frame()).is_pending());
        assert_eq!(pool.reserved(), 0);
    }

    #[tokio::test]
    async fn what_there_is_no_memory_for_is_refused_as_a_status() {
        for (is_grpc, first) in [(true, message(4 << 20)), (false, vec![7; 4 << 20])] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
            let pieces = first.chunks(600_000).map(<[u8]>::to_vec).collect();
            let mut watched = Watched::new(body(pieces), Arc::clone(&pool), is_grpc);
            let error = loop {
                if let Err(error) = watched.frame().await.unwrap() {
                    break error;
                }
            };
            let status = tonic::Status::from_error(error.into());
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            let ours = refusal(&status).unwrap();
            assert_eq!((ours.kind(), ours.retry_after()), (Kind::Exhausted, Some(AGAIN)));
            drop(watched);
            assert_eq!(pool.reserved(), 0);
        }
    }
}
