//! Batches of flat columns as messages whose bodies are the buffers of the columns themselves.
//!
//! arrow-ipc's generator copies each buffer into a vector that grows. For a scan that is every byte of the answer, more than
//! once, and a third of the server's time. What it writes for nested, dictionary-encoded and view columns is left to it.
//! The form is that of Message.fbs, `RecordBatch`: a node for each column, and each buffer at its offset in the body.

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{ArrowNativeType, DataType};
use arrow_flight::FlightData;
use arrow_ipc::{FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use bytes::{Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;

use super::message::Message;

/// Each buffer begins at a multiple of this many bytes, as the format recommends.
const ALIGNMENT: usize = 64;
/// A buffer below this is copied beside its neighbours: one larger piece costs less than several small ones.
const COPIED: usize = 4 << 10;

/// The message of a batch; none where a column is not flat.
pub(super) fn message(batch: &RecordBatch) -> Option<Message> {
    let columns: Vec<Column> = batch.columns().iter().map(|column| Column::of(column.as_ref())).collect::<Option<_>>()?;
    let mut body = Body::default();
    let mut nodes = Vec::with_capacity(columns.len());
    for column in columns {
        nodes.push(FieldNode::new(batch.num_rows() as i64, column.nulls as i64));
        column.buffers.into_iter().for_each(|buffer| body.push(buffer));
    }
    let header = header(batch.num_rows(), &nodes, &body);
    Some(Message { head: FlightData::new().with_data_header(header), body: body.finish() })
}

fn header(rows: usize, nodes: &[FieldNode], body: &Body) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let (buffers, nodes) = (builder.create_vector(&body.buffers), builder.create_vector(nodes));
    let mut batch = RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows as i64);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish().as_union_value();
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_bodyLength(body.length as i64);
    message.add_header(batch);
    let message = message.finish();
    builder.finish(message, None);
    builder.finished_data().to_vec()
}

/// What a column puts into the body.
struct Column {
    nulls: usize,
    buffers: Vec<Buffer>,
}

impl Column {
    fn of(array: &dyn Array) -> Option<Self> {
        let data = array.to_data();
        let values = match data.data_type() {
            DataType::Boolean => vec![data.buffers()[0].bit_slice(data.offset(), data.len())],
            DataType::Utf8 | DataType::Binary => texts::<i32>(&data),
            DataType::LargeUtf8 | DataType::LargeBinary => texts::<i64>(&data),
            DataType::FixedSizeBinary(width) => fixed(&data, usize::try_from(*width).ok()?),
            other => fixed(&data, other.primitive_width()?),
        };
        let nulls = data.null_count();
        let validity = match data.nulls() {
            Some(bits) if nulls > 0 => bits.inner().sliced(),
            // A column without nulls may leave it empty.
            _ => Buffer::default(),
        };
        Some(Self { nulls, buffers: [vec![validity], values].concat() })
    }
}

fn fixed(data: &ArrayData, width: usize) -> Vec<Buffer> {
    vec![data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width)]
}

/// The offsets, counted from the first value that is sent, and the values that they span.
fn texts<O: ArrowNativeType + std::ops::Sub<Output = O>>(data: &ArrayData) -> Vec<Buffer> {
    let (offsets, values) = (&data.buffers()[0], &data.buffers()[1]);
    if data.is_empty() {
        return vec![Buffer::from_vec(vec![O::default()]), Buffer::default()];
    }
    let typed = &offsets.typed_data::<O>()[data.offset()..=data.offset() + data.len()];
    let (first, last) = (typed[0], typed[data.len()]);
    let values = values.slice_with_length(first.as_usize(), last.as_usize() - first.as_usize());
    let offsets = if first.as_usize() == 0 {
        offsets.slice_with_length(data.offset() * size_of::<O>(), size_of_val(typed))
    } else {
        Buffer::from_vec(typed.iter().map(|offset| *offset - first).collect::<Vec<O>>())
    };
    vec![offsets, values]
}

/// A body as it grows.
#[derive(Default)]
struct Body {
    buffers: Vec<arrow_ipc::Buffer>,
    pieces: Vec<Bytes>,
    /// What was copied since the last piece.
    copied: BytesMut,
    length: usize,
}

impl Body {
    fn push(&mut self, buffer: Buffer) {
        self.buffers.push(arrow_ipc::Buffer::new(self.length as i64, buffer.len() as i64));
        let padding = buffer.len().next_multiple_of(ALIGNMENT) - buffer.len();
        self.length += buffer.len() + padding;
        if buffer.len() < COPIED {
            self.copied.extend_from_slice(&buffer);
        } else {
            self.end_copied();
            self.pieces.push(Bytes::from_owner(Owned(buffer)));
        }
        self.copied.extend_from_slice(&[0; ALIGNMENT][..padding]);
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(self.copied.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.end_copied();
        self.pieces
    }
}

/// A buffer that a piece keeps alive.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
