//! What Flight SQL says about a column beyond its Arrow type: the `ARROW:FLIGHT:SQL:*` keys of its field.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit};
use nexus_flight_catalog::TableName;

/// The same schema with the column metadata of Flight SQL: the type's SQL name, its precision and scale, what can be done with
/// the column, and for the columns of a table also the names of that. To be called before types are lowered.
/// `is_writable`: whether who asks may put values into them.
///
/// What a source says of its own types stays.
pub fn column_metadata(schema: &Schema, table: Option<&TableName>, is_writable: bool) -> Schema {
    let fields: Fields = schema.fields().iter().map(|field| Arc::new(described(field, table, is_writable))).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn described(field: &Field, table: Option<&TableName>, is_writable: bool) -> Field {
    let mut metadata = field.metadata().clone();
    let comment = metadata.get("comment").cloned();
    let mut put = |key: &str, value: String| {
        metadata.entry(format!("ARROW:FLIGHT:SQL:{key}")).or_insert(value);
    };
    put("TYPE_NAME", type_name(field.data_type()).to_owned());
    if let Some(precision) = precision(field.data_type()) {
        put("PRECISION", precision.to_string());
    }
    if let Some(scale) = scale(field.data_type()) {
        put("SCALE", scale.to_string());
    }
    put("IS_AUTO_INCREMENT", flag(false));
    put("IS_CASE_SENSITIVE", flag(is_text(field.data_type())));
    put("IS_SEARCHABLE", flag(!field.data_type().is_nested()));
    put("IS_READ_ONLY", flag(!is_writable));
    if let Some(table) = table {
        // An upstream may have written its own names; here the table is known by ours.
        let mut name = |key: &str, value: &str| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value.to_owned());
        name("CATALOG_NAME", &table.catalog);
        // The specification has the one key, and the drivers read the other.
        name("DB_SCHEMA_NAME", &table.schema);
        name("SCHEMA_NAME", &table.schema);
        name("TABLE_NAME", &table.table);
        // Of results JDBC would take it for the column's label, so it is for tables only.
        if let Some(comment) = comment {
            name("REMARKS", &comment);
        }
    }
    field.clone().with_metadata(metadata)
}

fn flag(value: bool) -> String {
    if value { "1" } else { "0" }.to_owned()
}

/// The SQL name of a type, as `GetXdbcTypeInfo` lists it.
pub(super) fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(_, _) | DataType::Decimal64(_, _) | DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => {
            "DECIMAL"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY",
        DataType::FixedSizeBinary(_) => "BINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(IntervalUnit::YearMonth) => "INTERVAL YEAR TO MONTH",
        DataType::Interval(IntervalUnit::DayTime) => "INTERVAL DAY TO SECOND",
        DataType::Interval(IntervalUnit::MonthDayNano) => "INTERVAL",
        DataType::Duration(_) => "DURATION",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(_, _) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(_, _) => "MAP",
        DataType::Union(_, _) => "UNION",
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

/// Decimal digits of a number, characters of a date or time, bytes of a fixed length; none where there is no bound.
fn precision(data_type: &DataType) -> Option<i32> {
    Some(match data_type {
        DataType::Boolean => 1,
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        DataType::UInt64 => 20,
        DataType::Float16 => 3,
        DataType::Float32 => 7,
        DataType::Float64 => 15,
        DataType::Decimal32(precision, _)
        | DataType::Decimal64(precision, _)
        | DataType::Decimal128(precision, _)
        | DataType::Decimal256(precision, _) => i32::from(*precision),
        DataType::FixedSizeBinary(bytes) => *bytes,
        DataType::Date32 | DataType::Date64 => 10,
        DataType::Time32(unit) | DataType::Time64(unit) => 8 + fraction(*unit),
        DataType::Timestamp(unit, _) => 19 + fraction(*unit),
        DataType::Dictionary(_, values) => return precision(values),
        DataType::RunEndEncoded(_, values) => return precision(values.data_type()),
        _ => return None,
    })
}

/// The characters of a fraction of a second, with its point.
fn fraction(unit: TimeUnit) -> i32 {
    match digits(unit) {
        0 => 0,
        digits => digits + 1,
    }
}

fn digits(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn scale(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(i32::from(*scale)),
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) => Some(digits(*unit)),
        DataType::Dictionary(_, values) => scale(values),
        DataType::RunEndEncoded(_, values) => scale(values.data_type()),
        integer if integer.is_integer() => Some(0),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    type_name(data_type) == "VARCHAR"
}
