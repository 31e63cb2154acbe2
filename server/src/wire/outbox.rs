//! What goes out on a connection, put together until it is worth a call to the system.
//!
//! HTTP/2 writes frame by frame: the head of an answer, each piece of a body and the trailers are a call of their own to the system, a
//! packet of their own, and wake the reader at the other end each. Here small writes wait for one another until the work on their
//! connection pauses, and go along with the next large one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use bytes::{Buf, BytesMut};

use crate::wire::connection::Stream;

/// A write up to this is put beside others: a frame of the size that every client takes, with its head. To copy a larger one costs more
/// than the call does that it saves.
const SMALL: usize = 20 << 10;
/// So much is put together, which the cache of a processor holds until it is sent.
const TOGETHER: usize = 128 << 10;

/// The bytes of a connection, in both directions.
#[derive(Debug)]
pub struct Wire {
    /// Where they go.
    pub stream: Stream,
    waits: BytesMut,
}

/// The same wire for who serves the connection and for who sends what waits there.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Wire>>);

impl Shared {
    /// Nothing waits there.
    pub fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Wire { stream, waits: BytesMut::new() })))
    }

    /// The wire, for one of the two.
    pub fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// Takes bytes, or some of them, to be sent: at once where they are many, else when [`Self::poll_send`] is called.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if length <= SMALL && self.waits.len() + length <= TOGETHER {
            if self.waits.len() + length > SMALL {
                // More than a small answer: it is not made larger again and again.
                self.waits.reserve(TOGETHER - self.waits.len());
            }
            slices.iter().for_each(|slice| self.waits.extend_from_slice(slice));
            return Poll::Ready(Ok(length));
        }
        loop {
            let before = self.waits.len();
            let waits = (before > 0).then(|| IoSlice::new(&self.waits));
            let all: Vec<IoSlice<'_>> = waits.into_iter().chain(slices.iter().map(|slice| IoSlice::new(slice))).collect();
            let sent = ready!(self.stream.writer().poll_write_vectored(cx, &all))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waits.advance(sent.min(before));
            if sent > before {
                return Poll::Ready(Ok(sent - before));
            }
        }
    }

    /// Sends all that waits.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waits.has_remaining() {
            let sent = ready!(self.stream.writer().poll_write(cx, &self.waits))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waits.advance(sent);
        }
        // A connection on which nothing happens holds no memory for it.
        self.waits = BytesMut::new();
        self.stream.writer().poll_flush(cx)
    }
}

/// A connection that is served, and sends what was put together each time that the work on it pauses.
pub struct Sending<C> {
    connection: Pin<Box<C>>,
    wire: Shared,
}

impl<C> Sending<C> {
    /// What serves a connection over a wire.
    pub fn new(connection: C, wire: Shared) -> Self {
        Self { connection: Box::pin(connection), wire }
    }

    /// The connection itself.
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future<Output = Result<(), BoxError>>> Future for Sending<C> {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.connection.as_mut().poll(cx);
        // One that has ended has sent its last when it closed the wire.
        match self.wire.lock().poll_send(cx) {
            Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error.into())),
            _ => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn both_ends() -> (Shared, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (here, _) = listener.accept().await.unwrap();
        (Shared::new(Stream::Plain(here)), there)
    }

    async fn take(wire: &Shared, bytes: &[u8]) -> usize {
        poll_fn(|cx| wire.lock().poll_take(cx, &[IoSlice::new(bytes)])).await.unwrap()
    }

    #[tokio::test]
    async fn small_writes_wait_for_one_another_and_go_before_a_large_one() {
        let (wire, mut there) = both_ends().await;
        assert_eq!((take(&wire, b"a").await, take(&wire, b"bc").await), (1, 2));
        assert_eq!(there.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let large = vec![b'd'; SMALL + 1];
        let mut taken = 0;
        while taken < large.len() {
            taken += take(&wire, &large[taken..]).await;
        }
        take(&wire, b"e").await;
        poll_fn(|cx| wire.lock().poll_send(cx)).await.unwrap();
        let mut read = vec![0; 3 + large.len() + 1];
        there.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [b"abc".as_slice(), &large, b"e"].concat());
    }

    #[tokio::test]
    async fn no_more_waits_than_is_put_together() {
        const FRAMES: usize = 2 * TOGETHER / SMALL;
        let (wire, mut there) = both_ends().await;
        let reader = tokio::spawn(async move {
            let mut read = vec![0; FRAMES * SMALL];
            there.read_exact(&mut read).await.unwrap();
            read
        });
        for number in 0..FRAMES {
            let frame = vec![number as u8; SMALL];
            let mut taken = 0;
            while taken < frame.len() {
                taken += take(&wire, &frame[taken..]).await;
            }
            assert!(wire.lock().waits.len() <= TOGETHER);
        }
        poll_fn(|cx| wire.lock().poll_send(cx)).await.unwrap();
        let read = reader.await.unwrap();
        assert!(read.chunks(SMALL).enumerate().all(|(number, frame)| frame.iter().all(|byte| usize::from(*byte) == number)));
    }
}
