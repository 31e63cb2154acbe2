//! Streams are decoded again and compared; no message may be above the limit unless it is one row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use futures::executor::block_on;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn messages(schema: &SchemaRef, profile: TypeProfile, batches: Vec<RecordBatch>) -> Vec<FlightData> {
    let batches = stream::iter(batches.into_iter().map(Ok)).boxed();
    block_on(encode(schema, profile, batches).map_ok(FlightData::from).try_collect()).unwrap()
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
    let first = encode(&batch.schema(), TypeProfile::Lowered, stream::iter([Ok(batch)]).boxed()).take(4);
    let sizes: Vec<usize> = block_on(first.map_ok(|message| message.encoded_len()).try_collect()).unwrap();
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
    let mut sent = std::pin::pin!(encode(&schema, TypeProfile::Native, batches.boxed()));
    for expected in [0, 1, 2] {
        block_on(sent.next()).unwrap().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn an_error_ends_the_stream_after_what_came_before() {
    let batch = batch_of(columns(&[5; 10]));
    let batches = stream::iter([Ok(batch.clone()), Err(Error::unavailable("the source went away")), Ok(batch.clone())]);
    let sent: Vec<Result<Message>> = block_on(encode(&batch.schema(), TypeProfile::Native, batches.boxed()).collect());
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
        let message = flat::message(&batch).unwrap();
        // The large buffers are those of the column.
        assert!(message.body.iter().map(Bytes::len).max().unwrap() > 1_000, "{:?}", batch.schema());
        for (start, rows) in [(0, 9_000), (0, 1), (1, 8_999), (8, 4_000), (13, 7), (8_999, 1)] {
            check(TypeProfile::Native, vec![batch.slice(start, rows)]);
        }
    }
    assert!(flat::message(&batch_of(vec![columns(&[1])[1].clone()])).is_none());
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
