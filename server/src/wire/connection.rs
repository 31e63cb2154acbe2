//! The connections of a port: no more at once than the configuration says, those that have not begun to speak aside. Each is plain or
//! under TLS, and what is above does not see which.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::wire::tls::Tls;

/// A port with so many connections at once.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

/// A connection as it came in.
#[derive(Debug)]
pub struct Accepted {
    /// The bytes.
    pub stream: TcpStream,
    /// Who is there.
    pub peer: Peer,
}

/// A connection that has begun well, and is not counted yet.
#[derive(Debug)]
pub struct Greeted {
    stream: Stream,
    peer: Peer,
}

/// A connection that calls are read from, counted until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it has shown.
    pub certificate: Option<Shown>,
}

/// A certificate that a client has shown, of those that are taken here.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its subject, as RFC 4514 writes it.
    pub subject: Arc<str>,
    /// Until when it holds, in seconds since 1970.
    pub until: u64,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Port {
    /// Over a bound listener.
    pub fn new(listener: TcpListener, connections: u32) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(connections as usize)) }
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    return Accepted { stream, peer: Peer { address, certificate: None } };
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Too many open files, mostly: closing ones make room.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// What counts its connections.
    pub fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// Its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Accepted {
    /// The first byte that the client says, left where it is; none where it goes away without a word.
    pub async fn first(&self) -> Option<u8> {
        let mut first = [0];
        (self.stream.peek(&mut first).await.ok()? == 1).then_some(first[0])
    }

    /// As it is.
    pub fn plain(self) -> Greeted {
        Greeted { stream: Stream::Plain(self.stream), peer: self.peer }
    }

    /// After a handshake.
    pub async fn under(self, tls: &Tls) -> io::Result<Greeted> {
        let (stream, certificate) = tls.accept(self.stream).await?;
        let peer = Peer { certificate, ..self.peer };
        Ok(Greeted { stream: Stream::Tls(Box::new(stream)), peer })
    }
}

impl Greeted {
    /// The connection, once there is room for it; it gives its room back when it is dropped.
    pub async fn admitted(self, permits: Arc<Semaphore>) -> Option<Connection> {
        let permit = permits.acquire_owned().await.ok()?;
        Some(Connection { stream: self.stream, peer: self.peer, _permit: permit })
    }
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_next_connection_waits_until_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut port = Port::new(listener, 1);
        let (_first, _second) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, second) = (port.accept().await.plain(), port.accept().await.plain());
        let held = first.admitted(port.permits()).await.unwrap();
        let mut waits = Box::pin(second.admitted(port.permits()));
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waits).await.is_err());
        drop(held);
        waits.await.unwrap();
    }
}
