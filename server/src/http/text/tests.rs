//! What is written is what the writers of Arrow write, and no more than was foreseen.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::*;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
use futures::executor::block_on;
use nexus_flight_catalog::Kind;
use proptest::prelude::*;

use super::*;

fn batch_of(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = (0..).map(|place| format!("a \"name\", {place}\n"));
    RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(name, column)| (name, column, true))).unwrap()
}

fn foreseen(text: Text, rows: &RecordBatch, range: std::ops::Range<usize>) -> usize {
    length(rows.schema_ref().fields(), rows.columns(), range, text, usize::MAX)
}

/// Rows as they are written here and by Arrow; none where they have no text.
fn both(text: Text, rows: &RecordBatch) -> Option<[Vec<u8>; 2]> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let written = text.write(rows.clone(), &mut ours).is_ok();
    let wanted = match text {
        Text::Json => WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut theirs).write(rows).is_ok(),
        Text::Csv => csv::WriterBuilder::new().with_header(false).build(&mut theirs).write(rows).is_ok(),
    };
    assert_eq!(written, wanted, "{:?}", rows.schema());
    written.then_some([ours, theirs])
}

/// All rows at once, parts of them, and each by itself.
fn check(text: Text, rows: &RecordBatch) {
    let all = rows.num_rows();
    let ranges = [0..all, 0..all / 2, all / 3..all].into_iter().chain((0..all).map(|row| row..row + 1));
    for range in ranges {
        let part = rows.slice(range.start, range.len());
        let Some([ours, theirs]) = both(text, &part) else { continue };
        assert_eq!(String::from_utf8(ours.clone()).unwrap(), String::from_utf8(theirs).unwrap());
        for bound in [foreseen(text, rows, range.clone()), foreseen(text, &part, 0..part.num_rows())] {
            assert!(ours.len() <= bound, "{text:?}: {} bytes where {bound} were foreseen: {}", ours.len(), part.schema());
        }
    }
}

/// Numbers as each type of fixed width.
fn fixed(numbers: &[Option<i64>]) -> Vec<ArrayRef> {
    let longs: PrimitiveArray<Int64Type> = numbers.iter().copied().collect();
    let ints: PrimitiveArray<Int32Type> = numbers.iter().map(|number| number.map(|number| number as i32)).collect();
    let casts = [
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt16,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(38, 10),
        DataType::Decimal128(30, -5),
        DataType::Decimal256(76, 40),
    ];
    let mut columns: Vec<ArrayRef> = casts.iter().map(|data_type| cast(&longs, data_type).unwrap()).collect();
    let bits = longs.unary::<_, Float64Type>(|number| f64::from_bits(number as u64));
    let parts = || numbers.iter().map(|number| number.map(|number| (number as i32, (number >> 32) as i32, number)));
    let zoned = longs.reinterpret_cast::<TimestampMicrosecondType>().with_timezone("America/Argentina/ComodRivadavia");
    let months = parts().map(|parts| parts.map(|(months, days, nanos)| IntervalMonthDayNano::new(months, days, nanos)));
    let days = parts().map(|parts| parts.map(|(days, millis, _)| IntervalDayTime::new(days, millis)));
    columns.extend([
        Arc::new(bits) as ArrayRef,
        Arc::new(zoned),
        Arc::new(months.collect::<PrimitiveArray<IntervalMonthDayNanoType>>()),
        Arc::new(days.collect::<PrimitiveArray<IntervalDayTimeType>>()),
        Arc::new(longs.reinterpret_cast::<TimestampSecondType>()),
        Arc::new(longs.reinterpret_cast::<TimestampNanosecondType>()),
        Arc::new(longs.reinterpret_cast::<Date64Type>()),
        Arc::new(longs.reinterpret_cast::<Time64NanosecondType>()),
        Arc::new(longs.reinterpret_cast::<DurationMicrosecondType>()),
        Arc::new(ints.reinterpret_cast::<Date32Type>()),
        Arc::new(ints.reinterpret_cast::<Time32SecondType>()),
        Arc::new(ints.reinterpret_cast::<IntervalYearMonthType>()),
        Arc::new(NullArray::new(numbers.len())),
        Arc::new(longs),
        Arc::new(ints),
    ]);
    columns
}

/// Texts as each type that holds them.
fn texts(texts: &[Option<String>]) -> Vec<ArrayRef> {
    let plain: ArrayRef = Arc::new(texts.iter().collect::<StringArray>());
    let others = [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    ];
    let casts = others.map(|data_type| cast(&plain, &data_type).unwrap());
    let runs: RunArray<Int32Type> = texts.iter().map(Option::as_deref).collect();
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(texts.iter().map(|_| Some([0_u8, 255, 7])), 3).unwrap();
    let others: [ArrayRef; 3] = [plain, Arc::new(runs), Arc::new(fixed)];
    others.into_iter().chain(casts).collect()
}

/// The rows of a column in lists and structs; the rows are those of `lengths`.
fn nested(column: &ArrayRef, lengths: &[usize]) -> Vec<ArrayRef> {
    let rows = lengths.len();
    let item = Arc::new(Field::new_list_field(column.data_type().clone(), true));
    // Taken anew from the start where there are too few.
    let taken = |items: usize| {
        let places = UInt64Array::from_iter_values((0..items).map(|place| (place % column.len()) as u64));
        take(column, &places, None).unwrap()
    };
    let total = lengths.iter().sum::<usize>().max(1);
    let items = taken(total);
    let holes: NullBuffer = (0..rows).map(|row| row % 5 != 2).collect();
    let offsets = || OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
    let lists: ArrayRef = Arc::new(ListArray::new(Arc::clone(&item), offsets(), Arc::clone(&items), Some(holes.clone())));
    let large = OffsetBuffer::<i64>::from_lengths(lengths.iter().copied());
    let large = LargeListArray::new(Arc::clone(&item), large, Arc::clone(&items), None);
    // All of them begin at the first item.
    let sizes: ScalarBuffer<i32> = lengths.iter().map(|length| (*length).min(column.len()) as i32).collect();
    let starts = ScalarBuffer::from(vec![0_i32; rows]);
    let views = ListViewArray::new(Arc::clone(&item), starts, sizes, Arc::clone(column), None);
    let pairs = FixedSizeListArray::new(Arc::clone(&item), 2, taken(rows * 2), Some(holes.clone()));
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..total).map(|key| format!("k\"{key}"))));
    let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", items.data_type().clone(), true)];
    let entries = StructArray::new(fields.into(), vec![keys, items], None);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let maps = MapArray::new(field, offsets(), entries, Some(holes.clone()), false);
    let fields = vec![Field::new("x\ty", lists.data_type().clone(), true)];
    let structs = StructArray::new(fields.into(), vec![Arc::clone(&lists)], Some(holes));
    vec![lists, Arc::new(large), Arc::new(views), Arc::new(pairs), Arc::new(maps), Arc::new(structs)]
}

fn any_text() -> impl Strategy<Value = Option<String>> {
    let letter = prop_oneof![Just('"'), Just('\\'), Just(','), Just('\n'), Just('\u{1}'), Just('\u{7f}'), any::<char>()];
    let short = prop::collection::vec(letter, 0..9).prop_map(|letters| letters.into_iter().collect::<String>());
    let long = (short.clone(), 0..400usize).prop_map(|(text, times)| text.repeat(times));
    prop::option::of(prop_oneof![4 => short, 1 => long])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn rows_are_as_arrow_writes_them_and_no_longer_than_foreseen(
        rows in prop::collection::vec((any_text(), prop::option::of(any::<i64>()), 0..4usize, 0..60u32), 1..12),
    ) {
        let strings: Vec<Option<String>> = rows.iter().map(|row| row.0.clone()).collect();
        // Of all sizes, so that some are dates.
        let numbers: Vec<Option<i64>> = rows.iter().map(|row| row.1.map(|number| number >> row.3)).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.2).collect();
        let flat = [fixed(&numbers), texts(&strings)].concat();
        for column in &flat {
            // Alone, and beside another one.
            for batch in [batch_of(vec![Arc::clone(column)]), batch_of(vec![Arc::clone(column), Arc::clone(&flat[0])])] {
                check(Text::Csv, &batch);
                check(Text::Json, &batch);
            }
            for column in nested(column, &lengths) {
                check(Text::Json, &batch_of(vec![column]));
            }
        }
    }
}

/// Pieces of a batch, each with its lines.
fn pieces(text: Text, batch: &RecordBatch, memory: &Arc<dyn MemoryPool>) -> BoxStream<'static, Result<Bytes>> {
    text.pieces(batch.schema(), stream::iter([Ok(batch.clone())]).boxed(), Arc::clone(memory))
}

#[test]
fn rows_that_share_a_text_are_made_a_few_at_a_time() {
    // 33 GB of text.
    let values = StringViewArray::from_iter_values(["x".repeat(4_000_000)]);
    let shared = take(&values, &UInt32Array::from_value(0, 8_192), None).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8_192));
    let named = RecordBatch::try_from_iter([("n".repeat(4_000_000), numbers)]).unwrap();
    let memory: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(20_000_000));
    let shared = batch_of(vec![shared]);
    for (text, batch) in [(Text::Json, &shared), (Text::Csv, &shared), (Text::Json, &named)] {
        let mut made = pieces(text, batch, &memory);
        for _ in 0..5 {
            let piece = block_on(made.next()).unwrap().unwrap();
            assert!(piece.len() < 4_001_000);
            assert_eq!(memory.reserved(), piece.len());
        }
        // Three of them are there then, and what the next one needs is not.
        let held: Vec<Result<Bytes>> = block_on(made.take(5).collect());
        assert_eq!(held.last().unwrap().as_ref().unwrap_err().kind(), Kind::Exhausted);
    }
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn short_rows_go_many_at_a_time_and_in_their_order() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let made: Vec<Bytes> = block_on(pieces(Text::Csv, &batch_of(vec![numbers]), &memory).try_collect()).unwrap();
    assert!((2..20).contains(&made.len()), "{}", made.len());
    assert!(made.iter().all(|piece| piece.len() <= PIECE));
    let lines = String::from_utf8(made.concat()).unwrap();
    assert!(lines.lines().map(str::parse::<i64>).map(std::result::Result::unwrap).eq(0..100_000));
    drop(made);
    assert_eq!(memory.reserved(), 0);
}
