//! Every type of the type table through both profiles, and random batches compared value by value.

use std::collections::HashMap;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, concat};
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use proptest::prelude::*;

use super::*;

#[allow(non_camel_case_types)]
type f16 = <Float16Type as ArrowPrimitiveType>::Native;

fn list_view(values: ArrayRef, offsets: Vec<i32>, sizes: Vec<i32>, nulls: Option<NullBuffer>) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(ListViewArray::try_new(item, offsets.into(), sizes.into(), values, nulls).unwrap())
}

fn views(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().collect::<StringViewArray>())
}

fn dictionary(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>())
}

fn list_of(item: ArrayRef, offsets: Vec<i32>) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(item.data_type().clone(), true));
    Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), item, None).unwrap())
}

fn struct_of(children: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields: Fields = children.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let columns = children.into_iter().map(|(_, array)| array).collect();
    Arc::new(StructArray::try_new(fields, columns, Some(NullBuffer::from(vec![true, true, false]))).unwrap())
}

/// The type table of the clients' page: a column of three rows, and the type it is lowered to.
fn type_table() -> Vec<(&'static str, ArrayRef, DataType)> {
    use DataType as T;
    let text = [Some("short"), Some("longer than twelve bytes"), None];
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec![Some("a"), None])).unwrap();
    let mut map = MapBuilder::new(None, StringBuilder::new(), UInt64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(u64::MAX);
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    let map_of = |values| {
        let entries = vec![Field::new("keys", T::Utf8, false), Field::new("values", values, true)];
        T::Map(Arc::new(Field::new("entries", T::Struct(entries.into()), false)), false)
    };
    let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
    let fixed = FixedSizeListArray::try_new(item(T::UInt32), 1, Arc::new(UInt32Array::from(vec![1, u32::MAX, 3])), None);
    let second = TimeUnit::Second;
    let (nano, micro) = (TimeUnit::Nanosecond, TimeUnit::Microsecond);
    let numbers = || Arc::new(UInt64Array::from(vec![Some(1), None, Some(u64::MAX)])) as ArrayRef;
    let union_of = |number, text| {
        UnionFields::try_new([3, 5], [Field::new("number", number, true), Field::new("text", text, true)]).unwrap()
    };
    let union = |places| {
        let children = vec![numbers(), views(&text)];
        Arc::new(UnionArray::try_new(union_of(T::UInt64, T::Utf8View), vec![3_i8, 5, 3].into(), places, children).unwrap())
            as ArrayRef
    };
    let lowered = |mode| T::Union(union_of(T::Decimal128(20, 0), T::Utf8), mode);
    vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), T::Boolean),
        ("int8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])), T::Int8),
        ("int16", Arc::new(Int16Array::from(vec![i16::MIN, 0, i16::MAX])), T::Int16),
        ("int32", Arc::new(Int32Array::from(vec![i32::MIN, 0, i32::MAX])), T::Int32),
        ("int64", Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])), T::Int64),
        ("uint8", Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)])), T::Int16),
        ("uint16", Arc::new(UInt16Array::from(vec![0, 1, u16::MAX])), T::Int32),
        ("uint32", Arc::new(UInt32Array::from(vec![0, 1, u32::MAX])), T::Int64),
        ("uint64", numbers(), T::Decimal128(20, 0)),
        ("float16", Arc::new(Float16Array::from(vec![f16::from_f32(-0.5), f16::EPSILON, f16::from_f32(1.0999)])), T::Float32),
        ("float32", Arc::new(Float32Array::from(vec![f32::MIN, 0.1, f32::MAX])), T::Float32),
        ("float64", Arc::new(Float64Array::from(vec![f64::MIN, 0.1, f64::MAX])), T::Float64),
        (
            "decimal32",
            Arc::new(Decimal32Array::from(vec![1, -1, 999_999_999]).with_precision_and_scale(9, 2).unwrap()),
            T::Decimal128(9, 2),
        ),
        (
            "decimal64",
            Arc::new(Decimal64Array::from(vec![1, -1, 7]).with_precision_and_scale(18, 3).unwrap()),
            T::Decimal128(18, 3),
        ),
        (
            "decimal128",
            Arc::new(Decimal128Array::from(vec![1, -1, 7]).with_precision_and_scale(38, 9).unwrap()),
            T::Decimal128(38, 9),
        ),
        ("decimal256", Arc::new(Decimal256Array::new_null(3).with_precision_and_scale(76, 9).unwrap()), T::Decimal256(76, 9)),
        ("utf8", Arc::new(text.iter().collect::<StringArray>()), T::Utf8),
        ("large utf8", Arc::new(text.iter().collect::<LargeStringArray>()), T::LargeUtf8),
        ("utf8 view", views(&text), T::Utf8),
        ("binary", Arc::new(text.iter().collect::<BinaryArray>()), T::Binary),
        ("large binary", Arc::new(text.iter().collect::<LargeBinaryArray>()), T::LargeBinary),
        ("binary view", Arc::new(text.iter().collect::<BinaryViewArray>()), T::Binary),
        (
            "fixed size binary",
            Arc::new(FixedSizeBinaryArray::try_from_iter([b"ab", b"cd", b"ef"].iter()).unwrap()),
            T::FixedSizeBinary(2),
        ),
        ("date32", Arc::new(Date32Array::from(vec![Some(-1), None, Some(19_737)])), T::Date32),
        ("date64", Arc::new(Date64Array::from(vec![0, 86_400_000, -86_400_000])), T::Date64),
        ("time32", Arc::new(Time32SecondArray::from(vec![0, 1, 86_399])), T::Time32(second)),
        ("time64", Arc::new(Time64NanosecondArray::from(vec![0, 1, 86_399_999_999_999])), T::Time64(nano)),
        ("timestamp", Arc::new(TimestampNanosecondArray::from(vec![Some(-1), None, Some(i64::MAX)])), T::Timestamp(nano, None)),
        (
            "timestamp with zone",
            Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 1]).with_timezone("Europe/Berlin")),
            T::Timestamp(micro, None),
        ),
        ("duration", Arc::new(DurationNanosecondArray::from(vec![-1, 0, 1])), T::Duration(nano)),
        ("interval", Arc::new(IntervalMonthDayNanoArray::new_null(3)), T::Interval(IntervalUnit::MonthDayNano)),
        ("null", Arc::new(NullArray::new(3)), T::Null),
        ("dictionary", dictionary(&[Some("a"), None, Some("a")]), T::Utf8),
        ("run-end encoded", Arc::new(runs), T::Utf8),
        ("list", list_of(numbers(), vec![0, 2, 2, 3]), T::List(item(T::Decimal128(20, 0)))),
        ("list view", list_view(views(&text), vec![1, 0, 0], vec![2, 1, 0], None), T::List(item(T::Utf8))),
        ("fixed size list", Arc::new(fixed.unwrap()), T::FixedSizeList(item(T::Int64), 1)),
        ("map", Arc::new(map.finish()), map_of(T::Decimal128(20, 0))),
        ("dense union", union(Some(vec![2, 1, 1].into())), lowered(UnionMode::Dense)),
        ("sparse union", union(None), lowered(UnionMode::Sparse)),
        (
            "struct",
            struct_of(vec![("v", views(&text)), ("d", list_of(dictionary(&text), vec![0, 1, 3, 3]))]),
            T::Struct(vec![Field::new("v", T::Utf8, true), Field::new("d", T::List(item(T::Utf8)), true)].into()),
        ),
    ]
}

fn shown(array: &dyn Array) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}

fn batch_of(column: &ArrayRef) -> RecordBatch {
    let metadata = HashMap::from([("unit".to_owned(), "mm".to_owned())]);
    let field = Field::new("c", column.data_type().clone(), true).with_metadata(metadata.clone());
    let schema = Schema::new_with_metadata(vec![field], metadata);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(column)]).unwrap()
}

#[test]
fn every_type_keeps_its_values() {
    for (name, column, lowered_type) in type_table() {
        let batch = batch_of(&column);

        let native_schema = TypeProfile::Native.schema(&batch.schema());
        assert_eq!(native_schema, batch.schema(), "{name}");
        assert_eq!(TypeProfile::Native.batch(&batch, &native_schema).unwrap(), batch, "{name}");

        let schema = TypeProfile::Lowered.schema(&batch.schema());
        assert_eq!(schema.field(0).data_type(), &lowered_type, "{name}");
        let said = schema.field(0).metadata();
        assert!(batch.schema().field(0).metadata().iter().all(|(key, value)| said.get(key) == Some(value)), "{name}");
        assert!(said.contains_key("ARROW:FLIGHT:SQL:TYPE_NAME"), "{name}");
        assert_eq!(schema.metadata(), batch.schema().metadata(), "{name}");
        let lowered = TypeProfile::Lowered.batch(&batch, &schema).unwrap();
        assert_eq!(lowered.schema(), schema, "{name}");
        if name == "timestamp with zone" {
            // The instant stays; only its clock is now that of UTC.
            assert_eq!(lowered.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[-1, 0, 1]);
        } else {
            assert_eq!(shown(lowered.column(0)), shown(&column), "{name}");
        }
        // What is lowered stays as it is.
        assert_eq!(TypeProfile::Lowered.schema(&schema), schema, "{name}");
        assert_eq!(TypeProfile::Lowered.batch(&lowered, &schema).unwrap(), lowered, "{name}");
    }
}

#[test]
fn every_type_keeps_its_values_in_a_slice() {
    for (name, column, _) in type_table() {
        let twice = if matches!(column.data_type(), DataType::RunEndEncoded(_, _)) {
            column
        } else {
            concat(&[&column, &column]).unwrap()
        };
        let length = twice.len().min(3);
        let batch = batch_of(&twice).slice(twice.len() - length + 1, length - 1);
        for profile in [TypeProfile::Native, TypeProfile::Lowered] {
            if name == "timestamp with zone" && profile == TypeProfile::Lowered {
                continue;
            }
            let sent = profile.batch(&batch, &profile.schema(&batch.schema())).unwrap();
            assert_eq!(shown(sent.column(0)), shown(batch.column(0)), "{name} {profile}");
        }
    }
}

#[test]
fn a_result_without_columns_is_survivable() {
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();

    let schema = TypeProfile::Lowered.schema(&batch.schema());
    let sent = TypeProfile::Lowered.batch(&batch, &schema).unwrap();
    assert_eq!((sent.num_columns(), sent.num_rows()), (1, 2));

    let sent = TypeProfile::Native.batch(&batch, &TypeProfile::Native.schema(&batch.schema())).unwrap();
    assert_eq!((sent.num_columns(), sent.num_rows()), (0, 2));
    assert!(TypeProfile::Lowered.columns(&batch.schema()).fields().is_empty());
}

#[test]
fn a_slice_of_views_leaves_the_rest_behind() {
    let long = "x".repeat(1_000);
    let all: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..1_000).map(|row| format!("{row} {long}"))));
    let batch = batch_of(&all).slice(500, 2);
    let sent = TypeProfile::Native.batch(&batch, &batch.schema()).unwrap();
    assert_eq!(sent, batch);
    assert!(sent.column(0).as_string_view().data_buffers().iter().map(|buffer| buffer.len()).sum::<usize>() < 3_000);

    let lists = list_view(all, vec![990, 0, 5], vec![10, 10, 10], None);
    let batch = batch_of(&lists).slice(1, 1);
    let sent = TypeProfile::Native.batch(&batch, &batch.schema()).unwrap();
    assert_eq!(sent, batch);
    assert_eq!(sent.column(0).as_list_view::<i32>().values().len(), 10);
}

#[test]
fn a_dictionary_sheds_the_values_that_no_row_uses() {
    let keys = Int8Array::from(vec![Some(3), None, Some(1), Some(3)]);
    let values = StringArray::from(vec!["a", "b", "c", "d", "e"]);
    let column: ArrayRef = Arc::new(DictionaryArray::try_new(keys, Arc::new(values)).unwrap());
    let shed = shed_dictionaries(&batch_of(&column)).unwrap();
    let dictionary = shed.column(0).as_dictionary::<Int8Type>();
    assert_eq!(dictionary.values().as_string::<i32>(), &StringArray::from(vec!["d", "b"]));
    assert_eq!(shown(dictionary), ["d", "NULL", "b", "d"]);

    let nested = list_of(column, vec![0, 2, 4]);
    let shed = shed_dictionaries(&batch_of(&nested).slice(1, 1)).unwrap();
    assert_eq!(shown(shed.column(0)), ["[b, d]"]);
}

#[test]
fn a_batch_of_another_schema_is_refused() {
    let promised = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let batch = batch_of(&(Arc::new(StringArray::from(vec!["1"])) as ArrayRef));
    let error = TypeProfile::Native.batch(&batch, &promised).unwrap_err();
    insta::assert_snapshot!(error, @r#"the column "n" is Utf8 where Int64 was promised"#);
    let error = TypeProfile::Lowered.batch(&batch, &Arc::new(Schema::empty())).unwrap_err();
    insta::assert_snapshot!(error, @"a batch has 1 columns where 0 were promised");
}

#[test]
fn a_profile_is_chosen_by_the_user_agent() {
    let profile = TypeProfile::of_user_agent;
    assert_eq!(profile(Some("ADBC Flight SQL Driver v1.13.0 grpc-go/1.80.0")), TypeProfile::Native);
    assert_eq!(profile(Some("grpc-c++/1.71.0 grpc-c/46.0.0 (linux; chttp2)")), TypeProfile::Native);
    assert_eq!(profile(Some("grpc-java-netty/1.71.0")), TypeProfile::Lowered);
    assert_eq!(profile(Some("")), TypeProfile::Lowered);
    assert_eq!(profile(None), TypeProfile::Lowered);
}

#[test]
fn a_profile_has_a_name() {
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        assert_eq!(profile.to_string().parse::<TypeProfile>().unwrap(), profile);
        assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{profile}\""));
    }
    insta::assert_snapshot!("Native".parse::<TypeProfile>().unwrap_err(), @r#"unknown type profile "Native"; it is "native" or "lowered""#);
}

proptest! {
    #[test]
    fn numbers_come_back_as_they_went(values in prop::collection::vec(any::<Option<u64>>(), 0..40), start in 0usize..40) {
        let start = start.min(values.len());
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(values.clone()));
        let small: ArrayRef = Arc::new(UInt32Array::from_iter(values.iter().map(|value| value.map(|value| value as u32))));
        let half: ArrayRef = Arc::new(Float16Array::from_iter(values.iter().map(|value| value.map(|value| f16::from_bits(value as u16 & 0x7bff)))));
        let zoned: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter(values.iter().map(|value| value.map(|value| value as i64))).with_timezone("+02:00"));
        for column in [unsigned, small, half, zoned] {
            let batch = batch_of(&column).slice(start, values.len() - start);
            let schema = TypeProfile::Lowered.schema(&batch.schema());
            let sent = TypeProfile::Lowered.batch(&batch, &schema).unwrap();
            let raw = match column.data_type() {
                // To a timestamp with another zone the clock would be moved; the count since the epoch is what is sent.
                DataType::Timestamp(_, _) => (cast(sent.column(0), &DataType::Int64).unwrap(), cast(batch.column(0), &DataType::Int64).unwrap()),
                other => (cast(sent.column(0), other).unwrap(), Arc::clone(batch.column(0))),
            };
            prop_assert_eq!(&raw.0, &raw.1);
        }
    }

    #[test]
    fn texts_come_back_as_they_went(values in prop::collection::vec(any::<Option<String>>(), 0..40), start in 0usize..40) {
        let start = start.min(values.len());
        let views: ArrayRef = Arc::new(values.iter().collect::<StringViewArray>());
        let dictionary: ArrayRef = Arc::new(values.iter().map(Option::as_deref).collect::<DictionaryArray<Int16Type>>());
        let offsets: Vec<i32> = (0..=values.len() as i32).collect();
        let lists = list_of(Arc::clone(&views), offsets);
        for column in [views, dictionary, lists] {
            let batch = batch_of(&column).slice(start, values.len() - start);
            for profile in [TypeProfile::Native, TypeProfile::Lowered] {
                let sent = profile.batch(&batch, &profile.schema(&batch.schema())).unwrap();
                prop_assert_eq!(shown(sent.column(0)), shown(batch.column(0)));
            }
        }
    }
}
