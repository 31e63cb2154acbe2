//! Connections as they come in: a TLS hello on a plain port is told apart, so that the log can say what to change.

use std::net::SocketAddr;
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Connections that have said something and wait to be served.
const WAITING: usize = 64;
/// A client speaks first; one that does not say anything for so long is let go.
const SILENCE: Duration = Duration::from_secs(30);
/// The first byte of a TLS handshake record (RFC 8446, section 5.1); HTTP/2 begins with the letters "PRI".
const TLS_HANDSHAKE: u8 = 0x16;

/// The connections of a plain port, less those that begin with TLS. Ends when the reader does.
pub fn plain(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let sender = sender.clone();
                    // In a task of its own, so that a silent client keeps nobody waiting.
                    tokio::spawn(async move {
                        if let Some(stream) = greeted(stream, peer).await {
                            let _ = stream.set_nodelay(true);
                            // The server may have ended meanwhile.
                            let _ = sender.send(Ok(stream)).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Too many open files, mostly: closing ones make room.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn greeted(stream: TcpStream, peer: SocketAddr) -> Option<TcpStream> {
    let mut first = [0];
    let read = tokio::time::timeout(SILENCE, stream.peek(&mut first)).await.ok()?.ok()?;
    if read == 1 && first == [TLS_HANDSHAKE] {
        tracing::warn!(
            %peer,
            "a client began with TLS on this plain port; turn it off in the client: useEncryption=false for JDBC, grpc:// \
             instead of grpc+tls:// for the others"
        );
        return None;
    }
    (read == 1).then_some(stream)
}
