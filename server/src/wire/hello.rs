//! Connections as they come in: where a client and its port disagree about TLS, the log says what to change.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info;
use axum::serve::{IncomingStream, Listener};
use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::wire::connection::{Accepted, Connection, Greeted, Peer, Port};
use crate::wire::tls::Tls;

/// Connections that have said something and wait to be served.
const WAITING: usize = 64;
/// A client speaks first; one that does not say anything, or does not come to the end of its handshake, for so long is let go.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections that have not begun, or wait for others to end. When there are more the oldest is let go: an honest client is soon done
/// with its hello, and those who open connections to hold them keep nobody out.
const BEGINNING: usize = 1_024;
/// The first byte of a TLS handshake record (RFC 8446, section 5.1); HTTP/2 begins with the letters "PRI".
const TLS_HANDSHAKE: u8 = 0x16;

/// As much of a hello as is read.
const LONGEST_HELLO: usize = 16 << 10;
/// An empty SETTINGS frame, with which an HTTP/2 server begins (RFC 9113, section 3.4): clients take it for what it is, no TLS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// What a client reads that began without TLS; those of gRPC tell that this is no HTTP/2.
const USE_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n\
    this port speaks TLS: connect with grpc+tls:// or https://\n";

/// The connections of a port that are ready for calls. Ends when nobody takes them any more.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    address: io::Result<SocketAddr>,
}

impl Incoming {
    /// Those of a port, under TLS or plain; one that begins otherwise is told so and let go.
    pub fn new(mut port: Port, tls: Option<Tls>) -> Self {
        let address = port.address();
        let (sender, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let (permits, mut beginning) = (port.permits(), VecDeque::new());
            loop {
                let accepted = tokio::select! {
                    () = sender.closed() => return,
                    accepted = port.accept() => accepted,
                };
                let (sender, tls, permits) = (sender.clone(), tls.clone(), Arc::clone(&permits));
                // In a task of its own, so that a silent client keeps nobody waiting.
                let task = tokio::spawn(async move {
                    let greeted = tokio::time::timeout(SILENCE, greeted(accepted, tls.as_ref())).await.ok()??;
                    // The server may have ended meanwhile.
                    sender.send(greeted.admitted(permits).await?).await.ok()
                });
                beginning.push_back(task);
                if beginning.len() > BEGINNING {
                    beginning.retain(|task: &JoinHandle<_>| !task.is_finished());
                }
                if beginning.len() > BEGINNING
                    && let Some(oldest) = beginning.pop_front()
                {
                    oldest.abort();
                }
            }
        });
        Self { ready, address }
    }
}

async fn greeted(accepted: Accepted, tls: Option<&Tls>) -> Option<Greeted> {
    let peer = accepted.peer.address;
    let begins_with_tls = accepted.first().await? == TLS_HANDSHAKE;
    match (tls, begins_with_tls) {
        (None, false) => Some(accepted.plain()),
        (Some(tls), true) => match accepted.under(tls).await {
            Ok(connection) => Some(connection),
            Err(error) => {
                tracing::warn!(
                    %peer,
                    %error,
                    "a TLS handshake failed; where the client does not trust the certificate, give it the authority that issued it"
                );
                None
            }
        },
        (None, true) => {
            turn_away(accepted, SETTINGS).await;
            tracing::warn!(
                %peer,
                "a client began with TLS on this plain port; turn it off in the client: useEncryption=false for JDBC, grpc:// \
                 instead of grpc+tls:// for the others; or give the gateway a certificate in [tls]"
            );
            None
        }
        (Some(_), false) => {
            turn_away(accepted, USE_TLS).await;
            tracing::warn!(
                %peer,
                "a client began without TLS on this port, which has a certificate; turn it on in the client: useEncryption=true \
                 for JDBC, grpc+tls:// instead of grpc:// for the others"
            );
            None
        }
    }
}

/// Says something in the client's own language and closes.
async fn turn_away(mut accepted: Accepted, answer: &[u8]) {
    // What is not read when a connection is closed resets it, and the client would not see what it got.
    let _ = accepted.stream.read(&mut [0; LONGEST_HELLO]).await;
    let _ = accepted.stream.write_all(answer).await;
    let _ = accepted.stream.shutdown().await;
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => {
                let address = connection.peer().address;
                (connection, address)
            }
            // The port goes on for as long as this is there.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| io::Error::from(error.kind()))
    }
}

impl connect_info::Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        stream.io().peer().clone()
    }
}
