//! The connections of a port: no more at once than the configuration says, those on which nobody has come in yet aside. Each is plain or
//! under TLS, and what is above does not see which.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::reload::Seen;
use crate::wire::outbox::Shared;
use crate::wire::seat::Seat;
use crate::wire::tls::Tls;

/// Calls at once on one connection; the libraries set no bound of their own, or another one.
pub const STREAMS: u32 = 256;
/// The most bytes of the headers of a call, uncompressed: a session and a token take a part of them.
pub const HEADERS: u32 = 16 << 10;
/// Calls that a client may begin and give up before one of them is looked at; then its connection is closed.
pub const GIVEN_UP: usize = 64;
/// How many bytes of an answer wait for its client before its stream makes no more: a message of rows, so that the next one is there when the
/// last one has gone out. The library's 400 KiB are less than one.
pub const SEND_AHEAD: usize = 1 << 20;
/// How often a client of HTTP/2 that says nothing is asked whether it is there, and how long it may take to say so.
pub const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// With what every client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As much as is read at once to find out what a client speaks: the head of most requests of HTTP/1.
const HELLO: usize = 1 << 10;

/// A port with so many connections at once.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

/// A connection as it came in.
#[derive(Debug)]
pub struct Accepted {
    /// The bytes.
    pub stream: TcpStream,
    /// Who is there.
    pub peer: Peer,
}

/// A connection that calls are read from.
#[derive(Debug)]
pub struct Connection {
    wire: Shared,
    peer: Peer,
    /// What was read to find out what the client speaks, and is to be read again.
    hello: Bytes,
    /// When it is to make way for others; none once its seat is taken.
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it has shown.
    pub certificate: Option<Shown>,
    /// The seat of its connection.
    pub seat: Arc<Seat>,
}

/// A certificate that a client has shown, of those that are taken here.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its subject, as RFC 4514 writes it.
    pub subject: Arc<str>,
    /// Until when it holds, in seconds since 1970.
    pub until: u64,
    /// Tells the authority that has issued it from others.
    pub issuer: Seen,
}

/// The bytes of a connection as the system has them.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The way out.
    pub fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl Port {
    /// Over a bound listener.
    pub fn new(listener: TcpListener, connections: u32) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(connections as usize)) }
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    let seat = Seat::new(Arc::clone(&self.seats));
                    return Accepted { stream, peer: Peer { address, certificate: None, seat } };
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Too many open files, mostly: closing ones make room.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Accepted {
    /// The first byte that the client says, left where it is; none where it goes away without a word.
    pub async fn first(&self) -> Option<u8> {
        let mut first = [0];
        (self.stream.peek(&mut first).await.ok()? == 1).then_some(first[0])
    }

    /// As it is.
    pub fn plain(self) -> Connection {
        Connection::new(Stream::Plain(self.stream), self.peer)
    }

    /// After a handshake.
    pub async fn under(self, tls: &Tls) -> io::Result<Connection> {
        let (stream, certificate) = tls.accept(self.stream).await?;
        let peer = Peer { certificate, ..self.peer };
        Ok(Connection::new(Stream::Tls(Box::new(stream)), peer))
    }
}

impl Connection {
    fn new(stream: Stream, peer: Peer) -> Self {
        let gone = Some(Box::pin(peer.seat.gone().clone().cancelled_owned()));
        Self { wire: Shared::new(stream), peer, hello: Bytes::new(), gone }
    }

    /// Whether the client speaks HTTP/2, once it has said as much as tells; none where it goes away before that. What it said is left
    /// to be read.
    pub async fn is_http2(&mut self) -> Option<bool> {
        let mut hello = BytesMut::with_capacity(HELLO);
        while PREFACE.starts_with(&hello) && hello.len() < PREFACE.len() {
            if self.read_buf(&mut hello).await.ok()? == 0 {
                return None;
            }
        }
        self.hello = hello.freeze();
        Some(self.hello.starts_with(PREFACE))
    }

    /// Where its bytes go, for who sends what is put together there.
    pub fn wire(&self) -> Shared {
        self.wire.clone()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Holds that it has not been let go; else who reads or writes is woken for the error.
    fn goes_on(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.peer.seat.is_taken() {
            self.gone = None;
        }
        if let Some(gone) = &mut self.gone
            && gone.as_mut().poll(cx).is_ready()
        {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it has made way for others"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.goes_on(cx)?;
        if self.hello.has_remaining() {
            let fits = self.hello.len().min(buffer.remaining());
            buffer.put_slice(&self.hello.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        match &mut self.wire.lock().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.goes_on(cx)?;
        self.wire.lock().poll_take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// HTTP/2 asks for this after each frame: what waits is sent when the work on the connection pauses.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(cx)?;
        let mut wire = self.wire.lock();
        ready!(wire.poll_send(cx))?;
        wire.stream.writer().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_has_come_in_makes_no_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut port = Port::new(listener, 1);
        let (_first, _second) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (mut first, mut second) = (port.accept().await.plain(), port.accept().await.plain());
        let seats = [&first, &second].map(|connection| Arc::clone(&connection.peer().seat));
        seats[0].take().await.unwrap();
        let read = tokio::spawn(async move { second.read(&mut [0]).await });
        // So that it reads when it is let go.
        tokio::task::yield_now().await;
        seats.iter().for_each(|seat| seat.give_way());
        assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(first.read(&mut [0]).now_or_never().is_none());
    }
}
