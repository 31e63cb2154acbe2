//! A Flight message on its way out, its body in the pieces that it lies in.

use arrow_flight::FlightData;
use arrow_ipc::writer::EncodedData;
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{encoded_len_varint, key_len};

/// The number of the field `data_body` in `FlightData` (Flight.proto).
pub const DATA_BODY: u32 = 1_000;

/// A `FlightData` whose body is not one piece, since putting it together would be a copy of every row.
#[derive(Debug, Clone)]
pub struct Message {
    /// All but the body.
    pub head: FlightData,
    /// The body, one piece after the other.
    pub body: Vec<Bytes>,
}

impl Message {
    /// The bytes of the body.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The bytes of the message before its body, the key and the length of the body included.
    pub fn head_len(&self) -> usize {
        let body = match self.body_len() {
            0 => 0,
            length => key_len(DATA_BODY) + encoded_len_varint(length as u64),
        };
        self.head.encoded_len() + body
    }

    /// The bytes of the whole message.
    pub fn encoded_len(&self) -> usize {
        self.head_len() + self.body_len()
    }
}

impl From<EncodedData> for Message {
    fn from(data: EncodedData) -> Self {
        let body = if data.arrow_data.is_empty() { vec![] } else { vec![data.arrow_data.into()] };
        Self { head: FlightData::new().with_data_header(data.ipc_message), body }
    }
}

impl From<Message> for FlightData {
    fn from(Message { head, mut body }: Message) -> Self {
        // One piece stays as it is; several are copied.
        let body = if body.len() == 1 { body.remove(0) } else { Bytes::from(body.concat()) };
        head.with_data_body(body)
    }
}
