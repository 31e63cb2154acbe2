//! Connections as they come in: where a client does not speak the language of the port, or they disagree about TLS, client and log are told
//! what to change. One counts once a call was let in on it; of those before that the oldest makes way when there are too many.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::wire::connection::{Accepted, Connection, Port};
use crate::wire::seat::Seat;
use crate::wire::tls::Tls;

/// Connections that have said something and wait to be served.
const WAITING: usize = 64;
/// A client speaks first; one that is not through its handshake by then, or has not said in what language it speaks, is let go. So is one
/// of HTTP/1 whose next request has no whole head by then.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Connections on which no call was let in yet, or one waits for other connections to end. When there are more the oldest is let go: an
/// honest client is soon done with its first call, and those who open connections to hold them keep nobody out.
const BEGINNING: usize = 1_024;
/// The first byte of a TLS handshake record (RFC 8446, section 5.1); HTTP/2 begins with the letters "PRI".
const TLS_HANDSHAKE: u8 = 0x16;

/// As much of a hello as is read.
const LONGEST_HELLO: usize = 16 << 10;
/// How much is read, and for how long, of what a client says that was turned away.
const LONGEST_REST: u64 = 1 << 20;
const LINGER: Duration = Duration::from_secs(1);
/// An empty SETTINGS frame, with which an HTTP/2 server begins (RFC 9113, section 3.4): clients take it for what it is, no TLS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// What a client reads that began without TLS; those of gRPC tell that this is no HTTP/2.
const USE_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n\
    this port speaks TLS: connect with grpc+tls:// or https://\n";

/// What is spoken at a port.
#[derive(Debug, Clone, Copy)]
pub enum Speaks {
    /// HTTP/2 alone, as gRPC has it; those who speak HTTP/1 are told the port for that.
    Grpc {
        /// Where HTTP is.
        http: u16,
    },
    /// HTTP/1 and HTTP/2.
    Http,
}

impl Speaks {
    /// What to change in a client that begins with TLS where there is none.
    const fn without_tls(self) -> &'static str {
        match self {
            Speaks::Grpc { .. } => {
                "turn it off in the client: useEncryption=false for JDBC, grpc:// instead of grpc+tls:// for the others"
            }
            Speaks::Http => "ask http:// instead of https://",
        }
    }

    /// What to change in a client that begins without TLS where there is TLS.
    const fn with_tls(self) -> &'static str {
        match self {
            Speaks::Grpc { .. } => {
                "turn it on in the client: useEncryption=true for JDBC, grpc+tls:// instead of grpc:// for the others"
            }
            Speaks::Http => "ask https:// instead of http://",
        }
    }
}

/// The connections of a port that are ready for calls. Ends when nobody takes them any more.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

impl Incoming {
    /// Those of a port, under TLS or plain; one that begins otherwise is told so and let go.
    pub fn new(mut port: Port, tls: Option<Tls>, speaks: Speaks) -> Self {
        let (sender, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut beginning: VecDeque<Weak<Seat>> = VecDeque::new();
            loop {
                let accepted = tokio::select! {
                    () = sender.closed() => return,
                    accepted = port.accept() => accepted,
                };
                let seat = Arc::clone(&accepted.peer.seat);
                beginning.push_back(Arc::downgrade(&seat));
                let (sender, tls) = (sender.clone(), tls.clone());
                // In a task of its own, so that a silent client keeps nobody waiting.
                tokio::spawn(async move {
                    let greeted = tokio::time::timeout(SILENCE, greeted(accepted, tls.as_ref(), speaks));
                    let greeted = seat.gone().run_until_cancelled(greeted).await?.ok()??;
                    // The server may have ended meanwhile.
                    sender.send(greeted).await.ok()
                });
                if beginning.len() > BEGINNING {
                    beginning.retain(|seat| seat.upgrade().is_some_and(|seat| !seat.is_taken()));
                }
                if beginning.len() > BEGINNING {
                    // Those who wait for a seat have come in, and stay as long as there are others.
                    let is_strange = |seat: &Weak<Seat>| seat.upgrade().is_none_or(|seat| !seat.is_wanted());
                    let oldest = beginning.iter().position(is_strange).unwrap_or(0);
                    if let Some(oldest) = beginning.remove(oldest).and_then(|seat| seat.upgrade()) {
                        oldest.give_way();
                    }
                }
            }
        });
        Self(ready)
    }
}

async fn greeted(accepted: Accepted, tls: Option<&Tls>, speaks: Speaks) -> Option<Connection> {
    let peer = accepted.peer.address;
    let mut connection = begun(accepted, tls, speaks).await?;
    match (connection.is_http2().await?, speaks) {
        (true, _) | (false, Speaks::Http) => Some(connection),
        (false, Speaks::Grpc { http }) => {
            turn_away(&mut connection, &use_http(http)).await;
            tracing::warn!(%peer, "a client speaks no gRPC at the port for it; where it speaks HTTP, its port is {http}, that of http.listen");
            None
        }
    }
}

async fn begun(mut accepted: Accepted, tls: Option<&Tls>, speaks: Speaks) -> Option<Connection> {
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
            turn_away(&mut accepted.stream, SETTINGS).await;
            tracing::warn!(
                %peer,
                "a client began with TLS on this plain port; {}; or give the gateway a certificate in [tls], which is for \
                 both ports",
                speaks.without_tls()
            );
            None
        }
        (Some(_), false) => {
            turn_away(&mut accepted.stream, USE_TLS).await;
            tracing::warn!(%peer, "a client began without TLS on this port, which has a certificate; {}", speaks.with_tls());
            None
        }
    }
}

/// Says something in the client's own language and closes.
async fn turn_away(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) {
    let mut hello = [0; LONGEST_HELLO];
    let _ = stream.read(&mut hello).await;
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    // What is not read when a connection is closed resets it, and the client would not see what it got.
    let rest = stream.take(LONGEST_REST);
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut { rest }, &mut tokio::io::sink())).await;
}

/// What a client reads that speaks HTTP/1 where gRPC is spoken.
fn use_http(port: u16) -> Vec<u8> {
    let told = "this port speaks gRPC: connect with a Flight SQL client, or send HTTP requests to port";
    format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n{told} {port}\n").into_bytes()
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}
