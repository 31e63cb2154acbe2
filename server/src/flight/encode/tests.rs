//! Streams are decoded again and compared; no message may be above the limit unless it is one row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, UnionFields};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_ipc::writer::CompressionContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
use futures::TryStreamExt;
use futures::executor::block_on;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn unbounded() -> Arc<dyn MemoryPool> {
    Arc::new(UnboundedMemoryPool::default())
}

fn messages(schema: &SchemaRef, profile: TypeProfile, batches: Vec<RecordBatch>) -> Vec<FlightData> {
    let batches = stream::iter(batches.into_iter().map(Ok)).boxed();
    block_on(encode(schema, profile, batches, &unbounded()).map_ok(FlightData::from).try_collect()).unwrap()
}

fn decoded(messages: Vec<FlightData>) -> Vec<RecordBatch> {
    let messages = stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
    block_on(FlightRecordBatchStream::new_from_flight_data(messages).try_collect()).unwrap()
}

fn rows_of(message: &FlightData) -> Option<i64> {
    let message = arrow_ipc::root_as_message(&message.data_header).unwrap();
    message.header_as_record_batch().map(|batch| batch.length())
}

/// Sends batches and checks what comes out; returns the messages that hold rows.
fn check(profile: TypeProfile, batches: Vec<RecordBatch>) -> usize {
    let schema = batches[0].schema();
    let target = profile.schema(&schema);
    let messages = messages(&schema, profile, batches.clone());
    for message in &messages {
        let size = 5 + message.encoded_len();
        let alone = rows_of(message).is_some_and(|rows| rows == 1);
        assert!(size <= LARGEST_MESSAGE || alone, "{size} bytes, rows {:?}", rows_of(message));
    }
    let sent: usize = messages.iter().filter(|message| rows_of(message).is_some()).count();
    let decoded = decoded(messages);
    assert_eq!(decoded.len(), sent);
    let wanted: Vec<RecordBatch> = batches.iter().map(|batch| profile.batch(batch, &target).unwrap()).collect();
    let (sent_rows, wanted) = (concat_batches(&target, &decoded).unwrap(), concat_batches(&target, &wanted).unwrap());
    assert!(sent_rows == wanted, "the rows differ");
    sent
}

fn batch_of(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = ["a", "b", "c", "d", "e", "f"];
    RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(name, column)| (name, column, true))).unwrap()
}

/// Texts of given lengths, as texts, as views, in lists, in a struct, and as list views.
fn columns(lengths: &[u32]) -> Vec<ArrayRef> {
    let texts: Vec<Option<String>> = lengths
        .iter()
        .enumerate()
        .map(|(row, length)| (length % 7 != 3).then(|| format!("{row}{}", "x".repeat(*length as usize))))
        .collect();
    let plain: ArrayRef = Arc::new(texts.iter().collect::<StringArray>());
    let views: ArrayRef = Arc::new(texts.iter().collect::<StringViewArray>());
    let item = |array: &ArrayRef| Arc::new(Field::new_list_field(array.data_type().clone(), true));
    let offsets = OffsetBuffer::from_repeated_length(1, lengths.len());
    let lists: ArrayRef = Arc::new(ListArray::new(item(&views), offsets, Arc::clone(&views), None));
    let fields = vec![Field::new("x", DataType::Utf8, true), Field::new("y", lists.data_type().clone(), true)];
    let structs: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![Arc::clone(&plain), Arc::clone(&lists)], None));
    let starts: Vec<i32> = (0..lengths.len() as i32).rev().collect();
    let ones = vec![1; lengths.len()];
    let list_views: ArrayRef = Arc::new(ListViewArray::new(item(&plain), starts.into(), ones.into(), Arc::clone(&plain), None));
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter(lengths.iter().map(|length| Some(u64::from(*length)))));
    vec![plain, views, lists, structs, list_views, numbers]
}

#[test]
fn the_schema_is_sent_without_rows() {
    let schema = batch_of(columns(&[1])).schema();
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        let messages = messages(&schema, profile, vec![]);
        assert_eq!(messages.len(), 1);
        assert_eq!(Schema::try_from(&messages[0]).unwrap(), *profile.schema(&schema));
    }
}

#[test]
fn a_schema_can_be_carried_outside_a_stream() {
    let schema = batch_of(columns(&[1])).schema();
    let bytes = schema_bytes(&schema).unwrap();
    assert_eq!(bytes[..4], [0xff; 4]);
    assert_eq!(Schema::try_from(IpcMessage(bytes)).unwrap(), *schema);
}

#[test]
fn even_rows_need_one_attempt_each() {
    // 20 MB of numbers: six messages, each almost full.
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_500_000));
    assert_eq!(check(TypeProfile::Native, vec![batch_of(vec![numbers])]), 7);
    let small: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8_192));
    assert_eq!(check(TypeProfile::Native, vec![batch_of(vec![Arc::clone(&small)]), batch_of(vec![small])]), 2);
}

#[test]
fn rows_without_columns_are_counted() {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    let messages = messages(&batch.schema(), TypeProfile::Native, vec![batch.clone()]);
    assert_eq!(rows_of(&messages[1]), Some(3));
    check(TypeProfile::Lowered, vec![batch]);
}

#[test]
fn one_row_may_be_larger() {
    let lengths = [10, 10, 4_000_000, 10, 4_000_001, 10];
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        for column in columns(&lengths) {
            check(profile, vec![batch_of(vec![column])]);
        }
    }
}

#[test]
fn slices_do_not_drag_what_they_leave_out() {
    let lengths: Vec<u32> = (0..20_000).map(|row| 200 + row % 100).collect();
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        for column in columns(&lengths) {
            let batch = batch_of(vec![column]);
            assert!(check(profile, vec![batch.slice(9_000, 2_000), batch.slice(3, 1)]) <= 3);
        }
    }
}

#[test]
fn dictionaries_are_sent_when_they_change() {
    let dictionary = |values: &[&str]| {
        batch_of(vec![Arc::new(values.iter().copied().map(Some).collect::<DictionaryArray<Int32Type>>()) as ArrayRef])
    };
    let batches =
        vec![dictionary(&["a", "b", "a"]), dictionary(&["a", "b", "b"]), dictionary(&["c", "a"]), dictionary(&["c", "a", "d"])];
    let sent = messages(&batches[0].schema(), TypeProfile::Native, batches.clone());
    // The schema, four batches, and a dictionary for the first, third and fourth.
    assert_eq!(sent.len(), 1 + 4 + 3);
    check(TypeProfile::Native, batches.clone());
    check(TypeProfile::Lowered, batches);
}

#[test]
fn a_dictionary_above_the_limit_is_cut_to_what_the_rows_use() {
    // 10 MB of values, of which every row uses another one, some more than once, in a column and in lists.
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(|row| format!("{row:010000}"))));
    let keys = Int16Array::from_iter((0..3_000).map(|row| (row % 11 != 0).then_some((row % 1_000) as i16)));
    let column: ArrayRef = Arc::new(DictionaryArray::<Int16Type>::new(keys, values));
    let item = Arc::new(Field::new_list_field(column.data_type().clone(), true));
    let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_repeated_length(3, 1_000), Arc::clone(&column), None));
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        check(profile, vec![batch_of(vec![Arc::clone(&column)])]);
        check(profile, vec![batch_of(vec![Arc::clone(&lists)])]);
        check(profile, vec![batch_of(vec![Arc::clone(&column), Arc::new(Int32Array::from_iter_values(0..3_000))])]);
    }
}

#[test]
fn a_long_value_used_often_is_not_written_out_at_once() {
    // Written out, these rows are 8 GB.
    let keys = Int16Array::from_iter_values((0..8_192).map(|row| i16::from(row % 2 == 0)));
    let values: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(2_000_000), "y".to_owned()]));
    let column: ArrayRef = Arc::new(DictionaryArray::<Int16Type>::new(keys, values));
    let batch = batch_of(vec![column]);
    let first = encode(&batch.schema(), TypeProfile::Lowered, stream::iter([Ok(batch)]).boxed(), &unbounded()).take(4);
    let sizes: Vec<usize> = block_on(first.map_ok(|message| message.encoded_len()).try_collect()).unwrap();
    assert!(sizes.iter().all(|size| *size <= LARGEST_MESSAGE), "{sizes:?}");
}

/// Views of one text, of which the first rows have all and the others an empty one.
fn shared_text(bytes: usize, rows: usize, with: usize) -> RecordBatch {
    let texts = [String::from("x").repeat(bytes), String::new()];
    let values = StringViewArray::from_iter_values(&texts);
    let places = UInt32Array::from_iter_values((0..rows).map(|row| u32::from(row >= with)));
    batch_of(vec![arrow::compute::take(&values, &places, None).unwrap()])
}

#[test]
fn a_few_long_rows_among_many_short_ones_are_not_made_at_once() {
    // As many rows as go on the average would be 500 MB here.
    let batch = shared_text(10_000_000, 8_192, 50);
    let encoder = |memory: &Arc<dyn MemoryPool>| {
        let (profile, none) = (TypeProfile::Lowered, stream::empty().boxed());
        Encoder::new(profile.schema(&batch.schema()), profile, none, memory, Weak::new())
    };
    let (unbounded, small): (_, Arc<dyn MemoryPool>) = (unbounded(), Arc::new(GreedyMemoryPool::new(8_000_000)));
    let mut first = encoder(&unbounded);
    first.begin(batch.clone());
    let piece = first.pieces.pop_front().unwrap();
    assert!(piece.at_once > 1);
    first.encode_piece(piece).unwrap();
    // The schema, and one row.
    assert_eq!(first.ready.len(), 2);
    assert!(first.ready[1].body_len() < 11_000_000);
    assert!(unbounded.reserved() >= 10_000_000);
    drop(first);
    assert_eq!(unbounded.reserved(), 0);
    let mut refused = encoder(&small);
    refused.begin(batch.clone());
    let piece = refused.pieces.pop_front().unwrap();
    let error = refused.encode_piece(piece).unwrap_err();
    assert_eq!(error.kind(), nexus_flight_catalog::Kind::Exhausted);
    assert!(error.message().contains("rows of an answer"), "{error}");
}

#[test]
fn list_views_of_the_same_items_count_each_of_them() {
    let values: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(100_000), String::new(), String::new()]));
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let (offsets, sizes) = (ScalarBuffer::from(vec![0_i32; 1_000]), ScalarBuffer::from(vec![1_i32; 1_000]));
    let views = ListViewArray::new(item, offsets, sizes, values, None);
    let batch = batch_of(vec![Arc::new(views)]);
    assert!(size::encoded(batch.column(0), TypeProfile::Native) >= 100_000_000);
    let sent = encode(&batch.schema(), TypeProfile::Native, stream::iter([Ok(batch)]).boxed(), &unbounded());
    let sizes: Vec<usize> = block_on(sent.take(5).map_ok(|message| message.encoded_len()).try_collect()).unwrap();
    assert!(sizes.iter().all(|size| *size <= LARGEST_MESSAGE), "{sizes:?}");
}

#[test]
fn a_batch_is_asked_for_when_the_one_before_is_sent() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let batch = batch_of(columns(&[5; 10]));
    let schema = batch.schema();
    let batches = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(batch.clone())
    });
    let mut sent = std::pin::pin!(encode(&schema, TypeProfile::Native, batches.boxed(), &unbounded()));
    for expected in [0, 1, 2] {
        block_on(sent.next()).unwrap().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn an_error_ends_the_stream_after_what_came_before() {
    let batch = batch_of(columns(&[5; 10]));
    let batches = stream::iter([Ok(batch.clone()), Err(Error::unavailable("the source went away")), Ok(batch.clone())]);
    let messages = encode(&batch.schema(), TypeProfile::Native, batches.boxed(), &unbounded());
    let sent: Vec<Result<Message>> = block_on(messages.collect());
    assert_eq!(sent.len(), 3);
    insta::assert_snapshot!(sent[2].as_ref().unwrap_err(), @"the source went away");
}

/// A column of each flat type, with and without NULLs.
fn flat_columns(rows: i32) -> Vec<ArrayRef> {
    let numbers = Int32Array::from_iter_values(0..rows);
    let holes = Int32Array::from_iter((0..rows).map(|row| (row % 3 != 1).then_some(row)));
    let flat = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Decimal256(40, 2),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Binary,
        DataType::LargeBinary,
    ];
    let casts = [&numbers, &holes].into_iter().flat_map(|column| {
        flat.iter().map(|data_type| {
            let wide = arrow::compute::cast(column, &DataType::Int64).unwrap();
            let text = arrow::compute::cast(&wide, &DataType::Utf8).unwrap();
            let is_bytes = matches!(data_type, DataType::Binary | DataType::LargeBinary);
            arrow::compute::cast(if is_bytes { &text } else { &wide }, data_type).unwrap()
        })
    });
    let three = (0..rows).map(|row| (row % 5 != 0).then_some([row as u8, 1, 2]));
    let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(three, 3).unwrap());
    casts.chain([fixed]).collect()
}

#[test]
fn flat_columns_go_as_they_lie_from_any_slice() {
    for column in flat_columns(9_000) {
        let batch = batch_of(vec![Arc::clone(&column), column]);
        let message = body::rows(&batch);
        // The large buffers are those of the column.
        assert!(message.body.iter().map(Bytes::len).max().unwrap() > 1_000, "{:?}", batch.schema());
        for (start, rows) in [(0, 9_000), (0, 1), (1, 8_999), (8, 4_000), (13, 7), (8_999, 1)] {
            check(TypeProfile::Native, vec![batch.slice(start, rows)]);
        }
    }
}

/// A column of each type that is not flat and has no columns in it, and one of a struct.
fn other_columns(rows: usize) -> Vec<ArrayRef> {
    let texts: Vec<Option<String>> =
        (0..rows).map(|row| (row % 3 != 1).then(|| format!("{row} {}", "y".repeat(row % 40)))).collect();
    let views: ArrayRef = Arc::new(texts.iter().collect::<StringViewArray>());
    let bytes = texts.iter().map(|text| text.as_ref().map(|text| text.as_bytes())).collect::<BinaryViewArray>();
    let keyed = (0..rows).map(|row| (row % 5 != 2).then_some(["a", "b", "c"][row % 3])).collect::<DictionaryArray<Int32Type>>();
    let runs = (0..rows).map(|row| (row % 20 < 13).then_some("p")).collect::<RunArray<Int16Type>>();
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter((0..rows).map(|row| (row % 4 != 0).then_some(row as i32))));
    let fields = vec![Field::new("x", DataType::Utf8View, true), Field::new("y", DataType::Int32, true)];
    let structs = StructArray::new(fields.into(), vec![Arc::clone(&views), numbers], Some(holes(rows)));
    vec![views, Arc::new(bytes), Arc::new(keyed), Arc::new(runs), Arc::new(structs), Arc::new(NullArray::new(rows))]
}

fn holes(rows: usize) -> NullBuffer {
    (0..rows).map(|row| row % 7 != 3).collect()
}

/// Columns of each kind of lists and unions.
fn nested_columns(rows: usize) -> Vec<ArrayRef> {
    let item = |array: &ArrayRef| Arc::new(Field::new_list_field(array.data_type().clone(), true));
    let lengths = || (0..rows).map(|row| (row + 1) % 4);
    let total: usize = lengths().sum();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for items in other_columns(total) {
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths());
        let large = OffsetBuffer::<i64>::from_lengths(lengths());
        let starts: ScalarBuffer<i32> = offsets[..rows].iter().copied().collect();
        let sizes: ScalarBuffer<i32> = lengths().map(|length| length as i32).collect();
        columns.push(Arc::new(ListArray::new(item(&items), offsets, Arc::clone(&items), Some(holes(rows)))));
        columns.push(Arc::new(LargeListArray::new(item(&items), large, Arc::clone(&items), None)));
        columns.push(Arc::new(ListViewArray::new(item(&items), starts, sizes, Arc::clone(&items), Some(holes(rows)))));
    }
    for items in other_columns(rows * 3) {
        columns.push(Arc::new(FixedSizeListArray::new(item(&items), 3, items, Some(holes(rows)))));
    }
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..total).map(|row| format!("k{row}"))));
    for values in other_columns(total) {
        let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", values.data_type().clone(), true)];
        let entries = StructArray::new(fields.into(), vec![Arc::clone(&names), values], None);
        let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        columns.push(Arc::new(MapArray::new(field, OffsetBuffer::from_lengths(lengths()), entries, Some(holes(rows)), false)));
    }
    let children = || vec![other_columns(rows).remove(0), Arc::new(Int32Array::from_iter_values(0..rows as i32)) as ArrayRef];
    let field = |data_type: DataType| Arc::new(Field::new(data_type.to_string(), data_type, true));
    let fields: UnionFields = [(0, field(DataType::Utf8View)), (1, field(DataType::Int32))].into_iter().collect();
    let kinds: ScalarBuffer<i8> = (0..rows).map(|row| (row % 2) as i8).collect();
    let places: ScalarBuffer<i32> = (0..rows).map(|row| (row / 2) as i32).collect();
    columns.push(Arc::new(UnionArray::try_new(fields.clone(), kinds.clone(), None, children()).unwrap()));
    columns.push(Arc::new(UnionArray::try_new(fields, kinds, Some(places), children()).unwrap()));
    columns
}

/// The dictionaries and rows of a batch, as arrow-ipc writes them and as they are sent.
fn both(batch: &RecordBatch) -> [Vec<FlightData>; 2] {
    let mut encoder = Encoder::new(batch.schema(), TypeProfile::Native, stream::empty().boxed(), &unbounded(), Weak::new());
    let (dictionaries, rows) = encoder.encode_batch(batch).unwrap();
    let sent = dictionaries.into_iter().chain([rows]).map(FlightData::from).collect();
    let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
    let mut tracker = DictionaryTracker::new(false);
    generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
    let (dictionaries, rows) = generator.encode(batch, &mut tracker, &options, &mut CompressionContext::default()).unwrap();
    let written = dictionaries.into_iter().chain([rows]).map(|data| FlightData::from(Message::from(data))).collect();
    [sent, written]
}

#[test]
fn bodies_are_those_that_the_format_asks_for() {
    let flat = flat_columns(90);
    for column in flat.into_iter().chain(other_columns(90)).chain(nested_columns(90)) {
        let batch = batch_of(vec![Arc::clone(&column), column]);
        for (start, rows) in [(0, 90), (0, 1), (1, 89), (8, 40), (13, 7), (89, 1)] {
            let slice = batch.slice(start, rows);
            let [sent, written] = both(&slice);
            assert_eq!(sent.len(), written.len(), "{}", batch.schema());
            for (sent, written) in sent.iter().zip(&written) {
                let header = |data: &FlightData| format!("{:?}", arrow_ipc::root_as_message(&data.data_header).unwrap());
                assert_eq!(header(sent), header(written), "{} from {start}", batch.schema());
                assert!(sent.data_body == written.data_body, "{} from {start}", batch.schema());
            }
            check_decoded(slice);
        }
    }
}

/// Sends a batch and compares what comes out. Runs and the like are only compared as the values that they stand for.
fn check_decoded(batch: RecordBatch) {
    let schema = batch.schema();
    let lowered = |batch: &RecordBatch| TypeProfile::Lowered.batch(batch, &TypeProfile::Lowered.schema(&schema)).unwrap();
    let got = decoded(messages(&schema, TypeProfile::Native, vec![batch.clone()]));
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].schema(), schema);
    assert!(lowered(&got[0]) == lowered(&batch), "{schema}");
}

#[test]
fn lists_of_nothing_hold_nothing() {
    for items in other_columns(10) {
        let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([0, 0, 10]), items, None));
        check_decoded(batch_of(vec![lists.slice(0, 2)]));
    }
}

#[test]
fn what_is_nested_goes_as_it_lies_too() {
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..1_000).map(|row| format!("{row:0100}"))));
    let lies: Vec<*const u8> = views.as_string_view().data_buffers().iter().map(|buffer| buffer.as_ptr()).collect();
    let item = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_repeated_length(2, 500), views, None));
    let message = body::rows(&batch_of(vec![lists]));
    assert!(lies.iter().all(|buffer| message.body.iter().any(|piece| piece.as_ptr() == *buffer)));
}

/// The messages of some batches, made or found where they are kept.
fn sent(profile: TypeProfile, batches: &[RecordBatch], shared: Weak<Shared>) -> Vec<Message> {
    let sent = batches.to_vec();
    let stream = stream::iter(sent.into_iter().map(Ok)).boxed();
    block_on(encode_shared(&batches[0].schema(), profile, stream, &unbounded(), shared).try_collect()).unwrap()
}

fn flattened(messages: &[Message]) -> Vec<FlightData> {
    messages.iter().cloned().map(FlightData::from).collect()
}

/// Where the bytes of messages lie.
fn places(messages: &[Message]) -> Vec<*const u8> {
    let of = |message: &Message| [vec![message.head.data_header.clone()], message.body.clone()].concat();
    // The schema is of each stream.
    messages.iter().skip(1).flat_map(of).map(|bytes| bytes.as_ptr()).collect()
}

#[test]
fn what_is_kept_is_made_once_and_is_what_would_be_made() {
    let batch = batch_of(columns(&(0..30_000).map(|row| row % 90).collect::<Vec<u32>>()));
    let batches = [batch.slice(0, 20_000), batch.slice(20_000, 10_000), batch.slice(0, 0), batch.slice(7, 5)];
    let room = Room::new(64 << 20);
    let shared = Arc::new(Shared::new(&room));
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        let live = sent(profile, &batches, Weak::new());
        assert!(live.len() > 1 + 3, "one batch takes several messages");
        let (first, used) = (sent(profile, &batches, Arc::downgrade(&shared)), room.used());
        assert!(flattened(&first) == flattened(&live));
        let again = [(); 2].map(|()| sent(profile, &batches, Arc::downgrade(&shared)));
        assert_eq!(places(&again[0]), places(&again[1]));
        assert!(flattened(&again[1]) == flattened(&live));
        assert!(used > 0);
        assert_eq!((room.used(), shared.bytes()), (used, used));
        // Other rows at the same places.
        let others = [batch.slice(0, 3), batch.slice(5, 2)];
        let other = sent(profile, &others, Arc::downgrade(&shared));
        assert!(flattened(&other) == flattened(&sent(profile, &others, Weak::new())));
    }
    drop(shared);
    assert_eq!(room.used(), 0);
}

#[test]
fn what_there_is_no_room_for_and_what_hangs_on_dictionaries_is_made_each_time() {
    let plain = [batch_of(columns(&[5; 1_000]))];
    let keyed = [batch_of(vec![Arc::new(["a", "b", "a"].into_iter().collect::<DictionaryArray<Int32Type>>()) as ArrayRef])];
    let room = Room::new(1_000);
    let shared = Arc::new(Shared::new(&room));
    for batches in [&plain, &keyed, &keyed] {
        let kept = sent(TypeProfile::Native, batches, Arc::downgrade(&shared));
        assert!(flattened(&kept) == flattened(&sent(TypeProfile::Native, batches, Weak::new())));
        assert_eq!((room.used(), shared.bytes()), (0, 0));
    }
    // Lowered, it has no dictionary.
    sent(TypeProfile::Lowered, &keyed, Arc::downgrade(&shared));
    assert!(room.used() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Mostly short rows with a few long ones, cut anywhere.
    #[test]
    fn any_rows_arrive(
        lengths in prop::collection::vec(prop_oneof![20 => 0u32..300, 1 => 100_000u32..2_000_000], 1..400),
        start in 0usize..400,
        which in 0usize..6,
        lowered in any::<bool>(),
    ) {
        let start = start.min(lengths.len() - 1);
        let profile = if lowered { TypeProfile::Lowered } else { TypeProfile::Native };
        let all = columns(&lengths);
        let batch = batch_of(vec![Arc::clone(&all[which]), Arc::clone(&all[5])]);
        check(profile, vec![batch.slice(start, batch.num_rows() - start), batch.slice(0, start)]);
    }
}
