//! A table with a column of each Arrow type: what a client shows of it is what it can read.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DictionaryArray,
    DurationMillisecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, MapBuilder, NullArray, RecordBatch, RunArray, StringArray, StringBuilder, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, IntervalMonthDayNano, IntervalUnit, Schema, TimeUnit, i256};
use nexus_flight_catalog::Result;

/// Four rows: ordinary values, the least, the greatest, and NULL.
pub(super) fn types() -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(Int32Array::from(vec![1, 2, 3, 4])))];
    columns.extend(numbers()?);
    columns.extend(texts()?);
    columns.extend(times()?);
    columns.extend(nested()?);
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), *name != "id")).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn numbers() -> Result<Columns> {
    let signed = |least: i64, greatest: i64| Int64Array::from(vec![Some(42), Some(least), Some(greatest), None]);
    let unsigned = |greatest: u64| UInt64Array::from(vec![Some(42), Some(0), Some(greatest), None]);
    let nines = |digits: u32| 10_i128.pow(digits) - 1;
    let decimal = |digits: u8| {
        let greatest = nines(u32::from(digits));
        Decimal128Array::from(vec![Some(4_225), Some(-greatest), Some(greatest), None]).with_precision_and_scale(digits, 2)
    };
    let huge = Decimal256Array::from(vec![
        Some(i256::from_i128(4_225)),
        Some(i256::from_i128(-nines(38))),
        Some(i256::from_i128(nines(38))),
        None,
    ]);
    let floats = Float64Array::from(vec![Some(42.25), Some(f64::MIN), Some(f64::MAX), None]);
    let halves = Float32Array::from(vec![Some(42.25), Some(-65_504.0), Some(65_504.0), None]);
    Ok(vec![
        ("c_null", Arc::new(NullArray::new(4))),
        ("c_boolean", Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None]))),
        ("c_int8", cast(&signed(-128, 127), &DataType::Int8)?),
        ("c_int16", cast(&signed(-32_768, 32_767), &DataType::Int16)?),
        ("c_int32", cast(&signed(i32::MIN.into(), i32::MAX.into()), &DataType::Int32)?),
        ("c_int64", Arc::new(signed(i64::MIN, i64::MAX))),
        ("c_uint8", cast(&unsigned(u8::MAX.into()), &DataType::UInt8)?),
        ("c_uint16", cast(&unsigned(u16::MAX.into()), &DataType::UInt16)?),
        ("c_uint32", cast(&unsigned(u32::MAX.into()), &DataType::UInt32)?),
        ("c_uint64", Arc::new(unsigned(u64::MAX))),
        ("c_float16", cast(&halves, &DataType::Float16)?),
        ("c_float32", Arc::new(Float32Array::from(vec![Some(42.25), Some(f32::MIN), Some(f32::MAX), None]))),
        ("c_float64", Arc::new(floats)),
        ("c_decimal32", cast(&decimal(9)?, &DataType::Decimal32(9, 2))?),
        ("c_decimal64", cast(&decimal(18)?, &DataType::Decimal64(18, 2))?),
        ("c_decimal128", Arc::new(decimal(38)?)),
        ("c_decimal256", Arc::new(huge.with_precision_and_scale(76, 2)?)),
    ])
}

fn texts() -> Result<Columns> {
    let text = StringArray::from(vec![Some("plain"), Some(""), Some("数据网关 🚪"), None]);
    let bytes = BinaryArray::from(vec![Some(&b"plain"[..]), Some(&b""[..]), Some(&[0, 255, 128][..]), None]);
    let fixed = [Some(*b"four"), Some([0; 4]), Some([255; 4]), None];
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed.into_iter(), 4)?;
    let dictionary: DictionaryArray<Int32Type> = text.iter().collect();
    let runs =
        RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3, 4]), &StringArray::from(vec![Some("run"), Some(""), None]))?;
    Ok(vec![
        ("c_utf8", Arc::new(text.clone())),
        ("c_large_utf8", cast(&text, &DataType::LargeUtf8)?),
        ("c_utf8_view", cast(&text, &DataType::Utf8View)?),
        ("c_binary", Arc::new(bytes.clone())),
        ("c_large_binary", cast(&bytes, &DataType::LargeBinary)?),
        ("c_binary_view", cast(&bytes, &DataType::BinaryView)?),
        ("c_fixed_size_binary", Arc::new(fixed)),
        ("c_dictionary", Arc::new(dictionary)),
        ("c_run_end_encoded", Arc::new(runs)),
    ])
}

fn times() -> Result<Columns> {
    // 2026-02-28, 0001-01-01 and 9999-12-31.
    let days = Date32Array::from(vec![Some(20_512), Some(-719_162), Some(2_932_896), None]);
    let micros = Time64MicrosecondArray::from(vec![Some(45_296_123_456), Some(0), Some(86_399_999_999), None]);
    // 2026-02-28 12:34:56.123456, and within what nanoseconds in 64 bits can say, 1677 and 2262.
    let instants = TimestampMicrosecondArray::from(vec![
        Some(1_772_282_096_123_456),
        Some(-9_214_560_000_000_000),
        Some(9_214_560_000_000_000),
        None,
    ]);
    let interval = |months, days, nanos| Some(IntervalMonthDayNano::new(months, days, nanos));
    let intervals =
        IntervalMonthDayNanoArray::from(vec![interval(14, 3, 4_000_000_000), interval(0, 0, 0), interval(-1, -1, -1_000), None]);
    let months = Int32Array::from(vec![Some(14), Some(-12), Some(0), None]);
    let millis = DurationMillisecondArray::from(vec![Some(61_001), Some(-1), Some(0), None]);
    let timestamp = |unit, zone: Option<&str>| cast(&instants, &DataType::Timestamp(unit, zone.map(Into::into)));
    Ok(vec![
        ("c_date32", Arc::new(days.clone())),
        ("c_date64", cast(&days, &DataType::Date64)?),
        ("c_time32_s", cast(&micros, &DataType::Time32(TimeUnit::Second))?),
        ("c_time32_ms", cast(&micros, &DataType::Time32(TimeUnit::Millisecond))?),
        ("c_time64_us", Arc::new(micros.clone())),
        ("c_time64_ns", cast(&micros, &DataType::Time64(TimeUnit::Nanosecond))?),
        ("c_timestamp_s", timestamp(TimeUnit::Second, None)?),
        ("c_timestamp_ms", timestamp(TimeUnit::Millisecond, None)?),
        ("c_timestamp_us", timestamp(TimeUnit::Microsecond, None)?),
        ("c_timestamp_ns", timestamp(TimeUnit::Nanosecond, None)?),
        ("c_timestamp_utc", timestamp(TimeUnit::Microsecond, Some("UTC"))?),
        ("c_timestamp_offset", timestamp(TimeUnit::Microsecond, Some("+08:00"))?),
        ("c_interval_months", cast(&months, &DataType::Interval(IntervalUnit::YearMonth))?),
        ("c_interval", Arc::new(intervals)),
        ("c_duration", Arc::new(millis)),
    ])
}

fn nested() -> Result<Columns> {
    let lists = [Some(vec![Some(1), None, Some(3)]), Some(vec![]), Some(vec![Some(i64::MAX)]), None];
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let pairs = [Some(vec![Some(1), Some(2)]), Some(vec![Some(0), None]), Some(vec![Some(i64::MIN), Some(i64::MAX)]), None];
    let pairs = ListArray::from_iter_primitive::<Int64Type, _, _>(pairs);
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, None]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), Some("数"), Some(""), None]));
    let fields = vec![Field::new("number", DataType::Int64, true), Field::new("text", DataType::Utf8, true)];
    let records = StructArray::try_new(fields.into(), vec![number, text], Some(vec![true, true, true, false].into()))?;
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int64Builder::new());
    for (key, value) in [("one", Some(1)), ("none", None)] {
        map.keys().append_value(key);
        map.values().append_option(value);
    }
    for present in [true, true, true, false] {
        map.append(present)?;
    }
    Ok(vec![
        ("c_list", Arc::new(list.clone())),
        ("c_large_list", cast(&list, &DataType::LargeList(Arc::clone(&item)))?),
        ("c_list_view", cast(&list, &DataType::ListView(Arc::clone(&item)))?),
        ("c_fixed_size_list", cast(&pairs, &DataType::FixedSizeList(item, 2))?),
        ("c_struct", Arc::new(records)),
        ("c_map", Arc::new(map.finish())),
    ])
}
