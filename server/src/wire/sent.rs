//! The bodies of answers as they are handed to HTTP, in the pieces that they lie in.
//!
//! axum's bodies are streams of single pieces, and HTTP/2 makes a frame of each at least. A large message of Flight is some thirty
//! pieces, a buffer of a column each, and goes out in a few frames where they are handed on together. So it is taken past axum: the
//! response carries it beside its body.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::flight::frames::Frames;

/// Bytes, the first of them in `first` and then in `rest`.
#[derive(Debug, Default)]
pub struct Pieces {
    first: Bytes,
    rest: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    /// One piece and others behind it.
    pub fn new(first: Bytes, rest: Vec<Bytes>) -> Self {
        let left = first.len() + rest.iter().map(Bytes::len).sum::<usize>();
        let mut pieces = Self { first, rest: rest.into(), left };
        pieces.skip(0);
        pieces
    }

    /// Drops so many bytes, and pieces of which none are left.
    fn skip(&mut self, mut count: usize) {
        while count > 0 || self.first.is_empty() {
            let part = count.min(self.first.len());
            self.first.advance(part);
            count -= part;
            if self.first.is_empty() {
                let Some(next) = self.rest.pop_front() else { return };
                self.first = next;
            }
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes, Vec::new())
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = std::iter::once(&self.first).chain(&self.rest).filter(|piece| !piece.is_empty());
        slices.iter_mut().zip(pieces).fold(0, |filled, (slice, piece)| {
            *slice = IoSlice::new(piece);
            filled + 1
        })
    }

    fn advance(&mut self, count: usize) {
        self.left -= count;
        self.skip(count);
    }
}

/// What a response carries beside its body.
#[derive(Clone)]
struct Beside(Arc<Mutex<Option<Frames>>>);

impl Beside {
    fn lock(&self) -> MutexGuard<'_, Option<Frames>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response with these frames as its body: to [`Sent::of`] as they are, and to who reads it as axum has it in one piece each.
pub fn with_frames(frames: Frames) -> Response {
    let beside = Beside(Arc::new(Mutex::new(Some(frames))));
    let mut response = Response::new(Body::new(Joined(beside.clone())));
    response.extensions_mut().insert(beside);
    response
}

/// Frames of which the pieces are joined; none where they were taken.
struct Joined(Beside);

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frames = self.0.lock();
        let Some(frames) = frames.as_mut() else { return Poll::Ready(None) };
        let joined = |frame: Frame<Pieces>| frame.map_data(|mut pieces| pieces.copy_to_bytes(pieces.remaining()));
        Pin::new(frames).poll_frame(cx).map_ok(joined)
    }
}

/// The body of an answer as HTTP has it.
pub enum Sent {
    /// As axum has it.
    Plain(Body),
    /// Messages of Flight.
    Frames(Frames),
}

impl Sent {
    /// A response with what goes out as its body.
    pub fn of(response: Response) -> http::Response<Self> {
        let (mut parts, body) = response.into_parts();
        let beside = parts.extensions.remove::<Beside>();
        let frames = beside.and_then(|beside| beside.lock().take());
        http::Response::from_parts(parts, frames.map_or(Self::Plain(body), Self::Frames))
    }
}

impl http_body::Body for Sent {
    type Data = Pieces;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, BoxError>>> {
        match self.get_mut() {
            Self::Plain(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(Pieces::from)).map_err(Into::into)))
            }
            Self::Frames(frames) => Pin::new(frames).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Frames(frames) => frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Frames(frames) => frames.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_read_as_one(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 1..6), steps in proptest::collection::vec(0..7usize, 0..9)) {
            let whole = pieces.concat();
            let mut rest: VecDeque<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let mut read = Pieces::new(rest.pop_front().unwrap(), rest.into());
            let mut at = 0;
            for step in steps {
                let step = step.min(read.remaining());
                read.advance(step);
                at += step;
                prop_assert_eq!(read.remaining(), whole.len() - at);
                prop_assert!(whole[at..].starts_with(read.chunk()));
                prop_assert_eq!(read.chunk().is_empty(), at == whole.len());
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = read.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert_eq!(&seen, &whole[at..]);
            }
        }
    }
}
