//! Rows and dictionaries as messages whose bodies are the buffers of the arrays themselves.
//!
//! arrow-ipc's generator copies each buffer into a vector that grows. For a scan that is every byte of the answer, more than
//! once, and a third of the server's time. The form is that of Message.fbs, `RecordBatch`: depth first a node for each column and
//! what is in it, and each buffer at its offset in the body.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteArray, GenericByteViewArray, GenericListViewArray, OffsetSizeTrait, PrimitiveArray,
    RecordBatch, RunArray, make_array,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{ByteArrayType, ByteViewType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType};
use arrow_flight::FlightData;
use arrow_ipc::{DictionaryBatchBuilder, FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use bytes::{Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;

use super::message::Message;
use crate::flight::profile::from_zero;

/// Each buffer begins at a multiple of this many bytes, as the format recommends.
const ALIGNMENT: usize = 64;
/// A buffer below this is copied beside its neighbours: one larger piece costs less than several small ones.
const COPIED: usize = 4 << 10;

/// The message of a batch. What its dictionaries hold goes before it.
pub(super) fn rows(batch: &RecordBatch) -> Message {
    let mut body = Body::default();
    batch.columns().iter().for_each(|column| body.put(column));
    body.message(batch.num_rows(), None)
}

/// The message of a dictionary of this number, in place of an earlier one.
pub(super) fn dictionary(number: i64, values: &dyn Array) -> Message {
    let mut body = Body::default();
    body.put(values);
    body.message(values.len(), Some(number))
}

/// The dictionary-encoded arrays in an array, in the order of their numbers: those within others come first.
pub(super) fn dictionaries(array: &ArrayRef, found: &mut Vec<ArrayRef>) {
    for child in array.to_data().child_data() {
        dictionaries(&make_array(child.clone()), found);
    }
    if matches!(array.data_type(), DataType::Dictionary(..)) {
        found.push(Arc::clone(array));
    }
}

/// A body as it grows.
#[derive(Default)]
struct Body {
    nodes: Vec<FieldNode>,
    buffers: Vec<arrow_ipc::Buffer>,
    /// Of each array of views, how many buffers it points into.
    pointed_at: Vec<i64>,
    pieces: Vec<Bytes>,
    /// What was copied since the last piece.
    copied: BytesMut,
    length: usize,
}

impl Body {
    /// An array and what is in it, of each no more than the rows that it shows.
    fn put(&mut self, array: &dyn Array) {
        let (rows, data_type) = (array.len(), array.data_type());
        let nulls = if matches!(data_type, DataType::Null) { rows } else { array.null_count() };
        self.nodes.push(FieldNode::new(rows as i64, nulls as i64));
        if !matches!(data_type, DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..)) {
            // An array without nulls may leave it empty.
            let validity = array.nulls().filter(|_| nulls > 0);
            self.push(validity.map_or_else(Buffer::default, |nulls| nulls.inner().sliced()));
        }
        match data_type {
            DataType::Null => {}
            DataType::Boolean => self.push(array.as_boolean().values().sliced()),
            DataType::Utf8 => self.put_texts(array.as_string::<i32>()),
            DataType::LargeUtf8 => self.put_texts(array.as_string::<i64>()),
            DataType::Binary => self.put_texts(array.as_binary::<i32>()),
            DataType::LargeBinary => self.put_texts(array.as_binary::<i64>()),
            DataType::Utf8View => self.put_views(array.as_string_view()),
            DataType::BinaryView => self.put_views(array.as_binary_view()),
            DataType::List(_) => self.put_lists(array.as_list::<i32>().offsets(), array.as_list::<i32>().values()),
            DataType::LargeList(_) => self.put_lists(array.as_list::<i64>().offsets(), array.as_list::<i64>().values()),
            DataType::Map(..) => self.put_lists(array.as_map().offsets(), array.as_map().entries()),
            DataType::ListView(_) => self.put_list_views(array.as_list_view::<i32>()),
            DataType::LargeListView(_) => self.put_list_views(array.as_list_view::<i64>()),
            DataType::FixedSizeList(..) => self.put(array.as_fixed_size_list().values()),
            DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| self.put(column)),
            DataType::Union(fields, _) => {
                let union = array.as_union();
                self.push(union.type_ids().inner().clone());
                if let Some(places) = union.offsets() {
                    self.push(places.inner().clone());
                }
                fields.iter().for_each(|(kind, _)| self.put(union.child(kind)));
            }
            DataType::Dictionary(keys, _) => self.put_fixed(array.as_any_dictionary().keys(), keys.primitive_width()),
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.put_runs(array.as_run::<Int16Type>()),
                DataType::Int32 => self.put_runs(array.as_run::<Int32Type>()),
                _ => self.put_runs(array.as_run::<Int64Type>()),
            },
            DataType::FixedSizeBinary(width) => self.put_fixed(array, usize::try_from(*width).ok()),
            other => self.put_fixed(array, other.primitive_width()),
        }
    }

    /// The values of an array, each of which takes so many bytes.
    fn put_fixed(&mut self, array: &dyn Array, width: Option<usize>) {
        let (data, width) = (array.to_data(), width.unwrap_or_default());
        self.push(data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width));
    }

    /// The offsets, counted from the first value that is sent, and the values that they span.
    fn put_texts<T: ByteArrayType>(&mut self, texts: &GenericByteArray<T>) {
        let (offsets, start, length) = from_zero(texts.offsets());
        self.push(offsets.into_inner().into_inner());
        self.push(texts.values().slice_with_length(start, length));
    }

    fn put_views<T: ByteViewType>(&mut self, views: &GenericByteViewArray<T>) {
        self.push(views.views().inner().clone());
        self.pointed_at.push(views.data_buffers().len() as i64);
        views.data_buffers().iter().for_each(|buffer| self.push(buffer.clone()));
    }

    fn put_lists<O: OffsetSizeTrait>(&mut self, offsets: &OffsetBuffer<O>, items: &dyn Array) {
        let (offsets, start, length) = from_zero(offsets);
        self.push(offsets.into_inner().into_inner());
        self.put(&items.slice(start, length));
    }

    /// Lists may lie in any order and over one another, so all that they point into is sent.
    fn put_list_views<O: OffsetSizeTrait>(&mut self, lists: &GenericListViewArray<O>) {
        self.push(lists.offsets().inner().clone());
        self.push(lists.sizes().inner().clone());
        let items = if lists.is_empty() { lists.values().slice(0, 0) } else { Arc::clone(lists.values()) };
        self.put(&items);
    }

    fn put_runs<R: RunEndIndexType>(&mut self, runs: &RunArray<R>) {
        self.put(&PrimitiveArray::<R>::from_iter_values(runs.run_ends().sliced_values()));
        self.put(&runs.values_slice());
    }

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

    /// The message of so many rows, or with a number that of so many values of a dictionary.
    fn message(mut self, rows: usize, dictionary: Option<i64>) -> Message {
        self.end_copied();
        let header = self.header(rows, dictionary);
        Message { head: FlightData::new().with_data_header(header), body: self.pieces }
    }

    fn header(&self, rows: usize, dictionary: Option<i64>) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let (buffers, nodes) = (builder.create_vector(&self.buffers), builder.create_vector(&self.nodes));
        let pointed_at = (!self.pointed_at.is_empty()).then(|| builder.create_vector(&self.pointed_at));
        let mut batch = RecordBatchBuilder::new(&mut builder);
        batch.add_length(rows as i64);
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        if let Some(counts) = pointed_at {
            batch.add_variadicBufferCounts(counts);
        }
        let batch = batch.finish();
        let (kind, content) = match dictionary {
            None => (MessageHeader::RecordBatch, batch.as_union_value()),
            Some(number) => {
                let mut dictionary = DictionaryBatchBuilder::new(&mut builder);
                dictionary.add_id(number);
                dictionary.add_data(batch);
                (MessageHeader::DictionaryBatch, dictionary.finish().as_union_value())
            }
        };
        let mut message = MessageBuilder::new(&mut builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(kind);
        message.add_bodyLength(self.length as i64);
        message.add_header(content);
        let message = message.finish();
        builder.finish(message, None);
        builder.finished_data().to_vec()
    }
}

/// A buffer that a piece keeps alive.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
