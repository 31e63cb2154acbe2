//! Connections as they come in: a TLS hello on a plain port is told apart, so that the log can say what to change.

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::wire::connection::{Connection, Port};

/// Connections that have said something and wait to be served.
const WAITING: usize = 64;
/// A client speaks first; one that does not say anything for so long is let go.
const SILENCE: Duration = Duration::from_secs(30);
/// The first byte of a TLS handshake record (RFC 8446, section 5.1); HTTP/2 begins with the letters "PRI".
const TLS_HANDSHAKE: u8 = 0x16;

/// As much of a hello as is read.
const LONGEST_HELLO: usize = 16 << 10;
/// An empty SETTINGS frame, with which an HTTP/2 server begins (RFC 9113, section 3.4): clients take it for what it is, no TLS.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The connections of a plain port, less those that begin with TLS. Ends when the reader does.
pub fn plain(mut port: Port) -> impl Stream<Item = std::io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let (connection, peer) = tokio::select! {
                () = sender.closed() => return,
                accepted = port.accept() => accepted,
            };
            let sender = sender.clone();
            // In a task of its own, so that a silent client keeps nobody waiting.
            tokio::spawn(async move {
                if let Some(connection) = greeted(connection, peer).await {
                    // The server may have ended meanwhile.
                    let _ = sender.send(Ok(connection)).await;
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn greeted(mut connection: Connection, peer: SocketAddr) -> Option<Connection> {
    if tokio::time::timeout(SILENCE, connection.first()).await.ok()?? == TLS_HANDSHAKE {
        // What is not read when a connection is closed resets it, and the client would not see what it got.
        let _ = connection.read(&mut [0; LONGEST_HELLO]).await;
        let _ = connection.write_all(&SETTINGS).await;
        let _ = connection.shutdown().await;
        tracing::warn!(
            %peer,
            "a client began with TLS on this plain port; turn it off in the client: useEncryption=false for JDBC, grpc:// \
             instead of grpc+tls:// for the others"
        );
        return None;
    }
    Some(connection)
}
