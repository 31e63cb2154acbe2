//! Rows as clients put them: the messages of Arrow IPC, of many types, packed or not.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    FixedSizeListArray, Float64Array, Int32Array, Int64Array, ListArray, MapBuilder, NullArray, RecordBatch, RunArray,
    StringArray, StringBuilder, StringViewArray, StructArray, TimestampMicrosecondArray, UnionArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, UnionFields};
use arrow_flight::FlightData;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};

/// Streams of a schema, dictionaries and two batches, each column alone and several beside one another.
pub(crate) fn streams() -> Vec<Vec<FlightData>> {
    let all = columns();
    let several = RecordBatch::try_from_iter(all.iter().enumerate().map(|(at, column)| (format!("c{at}"), Arc::clone(column))));
    let wanted: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from(vec![1, 2, 3]))), ("name", Arc::new(StringArray::from(vec!["a", "b", "c"])))];
    let alone = all.into_iter().map(|column| RecordBatch::try_from_iter([("a", column)]));
    let batches: Vec<RecordBatch> = alone.chain([several, RecordBatch::try_from_iter(wanted)]).map(Result::unwrap).collect();
    let packings = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];
    packings.into_iter().flat_map(|packing| batches.iter().map(move |batch| messages(batch, packing))).collect()
}

fn columns() -> Vec<ArrayRef> {
    let text = || StringArray::from(vec![Some("long enough not to be kept inline"), None, Some("ü𝄞")]);
    let numbers = || Int64Array::from(vec![Some(1), None, Some(i64::MAX)]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k");
    map.values().append_value("v");
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.append(true).unwrap();
    let item = || Arc::new(Field::new_list_field(DataType::Int64, true));
    let of_union =
        UnionFields::try_new([0, 1], [Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)]).unwrap();
    let children: Vec<ArrayRef> = vec![Arc::new(numbers()), Arc::new(text())];
    let (dense, sparse) = (Some(vec![0, 0, 2].into()), None);
    let union = |offsets| UnionArray::try_new(of_union.clone(), vec![0, 1, 1].into(), offsets, children.clone());
    vec![
        Arc::new(text()),
        Arc::new(numbers()),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Float64Array::from(vec![f64::NAN, 0.0, -1.5])),
        Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(vec![0, 1, i64::MIN]).with_timezone("Europe/Berlin")),
        Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b"", b"abc"])),
        Arc::new(text().iter().collect::<StringViewArray>()),
        Arc::new(BinaryViewArray::from_iter_values([&[7_u8; 40][..], b"", b"abc"])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 16]; 3].into_iter()).unwrap()),
        Arc::new(NullArray::new(3)),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])])),
        Arc::new(FixedSizeListArray::try_new(item(), 1, Arc::new(numbers()), None).unwrap()),
        Arc::new(
            StructArray::try_from(vec![("n", Arc::new(numbers()) as ArrayRef), ("t", Arc::new(text()) as ArrayRef)]).unwrap(),
        ),
        Arc::new(map.finish()),
        Arc::new(DictionaryArray::<Int32Type>::new(vec![0, 1, 0].into(), Arc::new(text()))),
        Arc::new(RunArray::try_new(&Int32Array::from(vec![1, 2, 3]), &numbers()).unwrap()),
        Arc::new(union(dense).unwrap()),
        Arc::new(union(sparse).unwrap()),
    ]
}

fn messages(batch: &RecordBatch, packing: Option<CompressionType>) -> Vec<FlightData> {
    let options = IpcWriteOptions::default().try_with_compression(packing).unwrap();
    let mut tracker = DictionaryTracker::new(false);
    let schema = IpcDataGenerator {}.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
    let mut packed = CompressionContext::default();
    let (dictionaries, rows) = IpcDataGenerator {}.encode(batch, &mut tracker, &options, &mut packed).unwrap();
    let (_, again) = IpcDataGenerator {}.encode(batch, &mut tracker, &options, &mut packed).unwrap();
    std::iter::once(schema).chain(dictionaries).chain([rows, again]).map(Into::into).collect()
}
