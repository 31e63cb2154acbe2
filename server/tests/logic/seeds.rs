//! The tables that some files find there, as DataFusion's own runner of the suite gives them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, LargeBinaryArray, LargeStringArray, StringArray,
    TimestampNanosecondArray, UInt32Array, UInt64Array, UnionArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit, UnionFields};
use arrow::record_batch::RecordBatch;

use crate::connection::{Connection, Refusal};

const MOMENT: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Puts the tables of a file in place.
pub(crate) async fn sow(connection: &mut Connection, file: &str) -> Result<(), Refusal> {
    for (name, batch) in seeds(file) {
        connection.put(name, batch).await?;
    }
    Ok(())
}

/// Drops all tables.
pub(crate) async fn clear(connection: &mut Connection) -> Result<(), Refusal> {
    let listed = "SELECT table_schema, table_name FROM %.information_schema.tables WHERE table_schema <> 'information_schema'";
    for catalog in ["datafusion", "my_catalog", "my_other_catalog"] {
        for name in connection.query(&listed.replace('%', catalog)).await?.1 {
            let name = name.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect::<Vec<_>>().join(".");
            connection.query(&format!("DROP TABLE {catalog}.{name}")).await?;
        }
    }
    Ok(())
}

fn seeds(file: &str) -> Vec<([&'static str; 3], RecordBatch)> {
    match file {
        "information_schema_columns.slt" => vec![(["my_catalog", "my_schema", "table_with_many_types"], many_types())],
        "joins.slt" => vec![
            (["my_catalog", "my_schema", "table_with_many_types"], many_types()),
            (["datafusion", "public", "test_partition_table"], partition()),
        ],
        "map.slt" => vec![(["datafusion", "public", "table_with_map"], map())],
        "metadata.slt" => vec![(["datafusion", "public", "table_with_metadata"], metadata())],
        "union_function.slt" => vec![(["datafusion", "public", "union_table"], union())],
        "cte_quoted_reference.slt" => vec![(["datafusion", "public", "orders"], orders())],
        _ => vec![],
    }
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn many_types() -> RecordBatch {
    batch(vec![
        (Field::new("int32_col", DataType::Int32, false), Arc::new(Int32Array::from(vec![1]))),
        (Field::new("float64_col", DataType::Float64, true), Arc::new(Float64Array::from(vec![1.0]))),
        (Field::new("utf8_col", DataType::Utf8, true), Arc::new(StringArray::from(vec!["foo"]))),
        (Field::new("large_utf8_col", DataType::LargeUtf8, false), Arc::new(LargeStringArray::from(vec!["bar"]))),
        (Field::new("binary_col", DataType::Binary, false), Arc::new(BinaryArray::from(vec![b"foo" as &[u8]]))),
        (Field::new("large_binary_col", DataType::LargeBinary, false), Arc::new(LargeBinaryArray::from(vec![b"foo" as &[u8]]))),
        (Field::new("timestamp_nanos", MOMENT, false), Arc::new(TimestampNanosecondArray::from(vec![123]))),
    ])
}

/// The first of eleven rows is taken for the names of the columns there.
fn partition() -> RecordBatch {
    batch(vec![
        (Field::new("c1", DataType::UInt32, false), Arc::new(UInt32Array::from(vec![0; 10]))),
        (Field::new("c2", DataType::UInt64, false), Arc::new(UInt64Array::from_iter_values(1..=10))),
        (
            Field::new("c3", DataType::Boolean, false),
            Arc::new((1..=10).map(|number| Some(number % 2 == 0)).collect::<BooleanArray>()),
        ),
    ])
}

fn orders() -> RecordBatch {
    batch(vec![(Field::new("order_id", DataType::Int32, false), Arc::new(Int32Array::from(vec![1, 2])))])
}

fn map() -> RecordBatch {
    let pair = Fields::from(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Int64, true)]);
    let entries = Field::new("entries", DataType::Struct(pair), false);
    let fields = vec![
        Field::new("int_field", DataType::Int64, true),
        Field::new("map_field", DataType::Map(Arc::new(entries), false), true),
    ];
    RecordBatch::new_empty(Arc::new(Schema::new(fields)))
}

fn metadata() -> RecordBatch {
    let said = |field: Field, text: &str| field.with_metadata(HashMap::from([("metadata_key".to_owned(), text.to_owned())]));
    let text = |name| Field::new(name, DataType::Utf8, true);
    let batch = batch(vec![
        (said(Field::new("id", DataType::Int32, true), "the id field"), Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]))),
        (said(text("name"), "the name field"), Arc::new(StringArray::from(vec![None, Some("bar"), Some("baz")]))),
        (said(text("l_name"), "the l_name field"), Arc::new(StringArray::from(vec![None, Some("l_bar"), Some("l_baz")]))),
        (
            said(Field::new("ts", MOMENT, false), "ts non-nullable field"),
            Arc::new(TimestampNanosecondArray::from(vec![1_599_572_549_190_855_123; 3])),
        ),
        (
            said(text("nonnull_name").with_nullable(false), "the nonnull_name field"),
            Arc::new(StringArray::from(vec!["no_foo", "no_bar", "no_baz"])),
        ),
    ]);
    let schema = batch.schema().as_ref().clone();
    let schema = schema.with_metadata(HashMap::from([("metadata_key".to_owned(), "the entire schema".to_owned())]));
    batch.with_schema(Arc::new(schema)).unwrap()
}

fn union() -> RecordBatch {
    let fields = [Field::new("int", DataType::Int32, false), Field::new("string", DataType::Utf8, false)];
    let fields: UnionFields = [3, 1].into_iter().zip(fields.map(Arc::new)).collect();
    let (numbers, texts) = (Int32Array::from(vec![1, 2, 3]), StringArray::from(vec!["foo", "bar", "baz"]));
    let array = UnionArray::try_new(fields, vec![3, 1, 3].into(), None, vec![Arc::new(numbers), Arc::new(texts)]);
    let array = array.unwrap();
    batch(vec![(Field::new("union_column", arrow::array::Array::data_type(&array).clone(), false), Arc::new(array))])
}
