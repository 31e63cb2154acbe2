//! The answers of `DoGet` as gRPC frames whose bodies are handed to HTTP/2 as they are.
//!
//! tonic's encoder copies each message into a buffer of its own, which for large results costs a third of the time that
//! sending takes. A route of its own for this one call writes the frames below that encoder; all else is tonic's. A message goes on as
//! one, in the pieces that it lies in (`wire/sent.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::{FlightData, Ticket};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::{BufMut, BytesMut};
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::codec::{Codec, Streaming};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::flight::encode::{DATA_BODY, Message};
use crate::flight::service::Service;
use crate::wire::sent::{Pieces, with_frames};

/// A flag for compression and the length stand before each message.
const PREFIX: usize = 5;
/// A body below this is copied behind its header: one small write costs less than two.
const COPIED: usize = 4 << 10;

/// The route of `DoGet`. A request message may have up to `largest` bytes.
pub fn route(service: Arc<Service>, largest: usize) -> Router {
    let do_get = move |State(service): State<Arc<Service>>, request: Request<Body>| async move {
        let answer = async { service.messages(ticket(request, largest).await?).await };
        answer.await.map_or_else(Status::into_http, response)
    };
    let path = format!("/{}/DoGet", FlightServiceServer::<Service>::NAME);
    Router::new().route(&path, post(do_get)).with_state(service)
}

/// The one message of the request.
async fn ticket(request: Request<Body>, largest: usize) -> Result<tonic::Request<Ticket>, Status> {
    let (parts, body) = request.into_parts();
    if parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed messages are not offered; send them as they are"));
    }
    let decoder = ProstCodec::<FlightData, Ticket>::default().decoder();
    let mut messages = Streaming::new_request(decoder, body, None, Some(largest));
    let ticket = messages.message().await?.ok_or_else(|| Status::internal("the request has no message"))?;
    Ok(tonic::Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, ticket))
}

fn response(answer: tonic::Response<BoxStream<'static, Result<Message, Status>>>) -> Response<Body> {
    let (metadata, messages, extensions) = answer.into_parts();
    let mut response = with_frames(Frames { messages, ended: false });
    *response.headers_mut() = metadata.into_headers();
    response.extensions_mut().extend(extensions);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Messages as frames, and the status as trailers.
pub struct Frames {
    messages: BoxStream<'static, Result<Message, Status>>,
    ended: bool,
}

impl http_body::Body for Frames {
    type Data = Pieces;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match std::task::ready!(self.messages.as_mut().poll_next(cx)) {
            Some(Ok(message)) => match frame(message) {
                Ok(pieces) => return Poll::Ready(Some(Ok(Frame::data(pieces)))),
                Err(status) => status,
            },
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

/// The bytes before a message's body with a small body, or before the pieces of a large one.
fn frame(message: Message) -> Result<Pieces, Status> {
    let (head, body) = (message.head_len(), message.body_len());
    let length = u32::try_from(head + body).map_err(|_| Status::out_of_range("one row has more than 4 GiB"))?;
    let is_small = body < COPIED;
    let mut bytes = BytesMut::with_capacity(PREFIX + head + if is_small { body } else { 0 });
    bytes.put_u8(0);
    bytes.put_u32(length);
    message.head.encode_raw(&mut bytes);
    if body > 0 {
        encode_key(DATA_BODY, WireType::LengthDelimited, &mut bytes);
        encode_varint(body as u64, &mut bytes);
    }
    if is_small {
        message.body.iter().for_each(|piece| bytes.put_slice(piece));
        return Ok(Pieces::from(bytes.freeze()));
    }
    Ok(Pieces::new(bytes.freeze(), message.body))
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_what_prost_writes(header in 0..300usize, metadata in 0..40usize, pieces in proptest::collection::vec(prop_oneof![0..3usize, 2_000..4_200usize, 70_000..70_003usize], 0..4)) {
            let head = FlightData::new().with_data_header(vec![1; header]).with_app_metadata(vec![2; metadata]);
            let body: Vec<Bytes> = pieces.iter().map(|length| vec![3; *length].into()).collect();
            let message = head.clone().with_data_body(body.concat());
            let mut pieces = frame(Message { head, body }).unwrap();
            let written = pieces.copy_to_bytes(pieces.remaining());
            prop_assert_eq!(&written[1..5], &u32::to_be_bytes(message.encoded_len() as u32));
            prop_assert_eq!(written[0], 0);
            prop_assert_eq!(FlightData::decode(&written[5..]).unwrap(), message);
        }
    }

    async fn collected(messages: Vec<Result<Message, Status>>) -> (usize, HeaderMap) {
        let frames = Frames { messages: stream::iter(messages).boxed(), ended: false };
        let collected = frames.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        (collected.to_bytes().len(), trailers)
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_status() {
        let message = || Ok(Message { head: FlightData::new(), body: vec![vec![0; 5_000].into()] });
        let (bytes, trailers) = collected(vec![message(), message()]).await;
        assert_eq!((bytes, trailers["grpc-status"].to_str().unwrap()), (2 * (5 + 2 + 2 + 5_000), "0"));
        // What comes after an error is not sent.
        let (bytes, trailers) = collected(vec![message(), Err(Status::not_found("gone")), message()]).await;
        assert_eq!(
            (bytes, trailers["grpc-status"].to_str().unwrap(), trailers["grpc-message"].to_str().unwrap()),
            (5_009, "5", "gone")
        );
    }
}
