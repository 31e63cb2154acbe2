//! Columns that are being filled.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int8Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, IntervalYearMonthBuilder, ListArray,
    MapArray, NullArray, NullBufferBuilder, StringBuilder, StructArray, make_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::text::{self, BEYOND, Refused, UNKNOWN};
use crate::trino::types::{Type, entries, fields, item, pair};

const NUMBER: Refused = "a number, which is not of its type";
const TEXT: Refused = "a text, which is not of its type";
const BOOLEAN: Refused = "a truth value, which is not of its type";
pub(super) const ARRAY: Refused = "an array, which is not of its type";
pub(super) const OBJECT: Refused = "an object, which is not of its type";
pub(super) const FEW: Refused = "a row with fewer fields than its type has";
pub(super) const MANY: Refused = "a row with more fields than its type has";
pub(super) const FULL: Refused = "too many rows with too many fields that are NULL as a whole";

/// A column that is being filled. It begins with no room at all: a statement may have thousands of them.
pub(super) enum Column {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal {
        out: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    Text(StringBuilder),
    /// As it comes: of a text what it says, of all else the JSON.
    Other(StringBuilder),
    Bytes {
        out: BinaryBuilder,
        /// Room for one value.
        decoded: Vec<u8>,
    },
    Date(Date32Builder),
    /// Times and timestamps: how many of a part of a second of so many digits.
    Ticks {
        out: Int64Builder,
        data_type: DataType,
        digits: u32,
        read: fn(&str, u32) -> Result<i64, Refused>,
    },
    YearMonth(IntervalYearMonthBuilder),
    DayTime(IntervalMonthDayNanoBuilder),
    List {
        item: FieldRef,
        values: Box<Column>,
        offsets: Vec<i32>,
        valid: NullBufferBuilder,
    },
    Map {
        entries: FieldRef,
        pair: Fields,
        keys: Box<Column>,
        values: Box<Column>,
        offsets: Vec<i32>,
        valid: NullBufferBuilder,
    },
    Row {
        fields: Fields,
        columns: Vec<Column>,
        valid: NullBufferBuilder,
    },
    Null(usize),
}

impl Column {
    pub(super) fn new(ty: &Type) -> Self {
        match ty {
            Type::Boolean => Column::Boolean(BooleanBuilder::with_capacity(0)),
            Type::TinyInt => Column::Int8(Int8Builder::with_capacity(0)),
            Type::SmallInt => Column::Int16(Int16Builder::with_capacity(0)),
            Type::Integer => Column::Int32(Int32Builder::with_capacity(0)),
            Type::BigInt => Column::Int64(Int64Builder::with_capacity(0)),
            Type::Real => Column::Float32(Float32Builder::with_capacity(0)),
            Type::Double => Column::Float64(Float64Builder::with_capacity(0)),
            Type::Decimal(precision, scale) => Column::Decimal {
                out: Decimal128Builder::with_capacity(0).with_data_type(ty.arrow()),
                precision: *precision,
                scale: *scale,
            },
            Type::Varchar | Type::Char => Column::Text(StringBuilder::with_capacity(0, 0)),
            Type::Other => Column::Other(StringBuilder::with_capacity(0, 0)),
            Type::Bytes => Column::Bytes { out: BinaryBuilder::with_capacity(0, 0), decoded: Vec::new() },
            Type::Date => Column::Date(Date32Builder::with_capacity(0)),
            Type::Time(_) => ticks(ty.arrow(), text::time),
            Type::Timestamp(_) => ticks(ty.arrow(), text::timestamp),
            Type::TimestampTz(_) => ticks(ty.arrow(), text::instant),
            Type::YearMonth => Column::YearMonth(IntervalYearMonthBuilder::with_capacity(0)),
            Type::DayTime => Column::DayTime(IntervalMonthDayNanoBuilder::with_capacity(0)),
            Type::List(element) => Column::List {
                item: item(element),
                values: Box::new(Column::new(element)),
                offsets: vec![0],
                valid: NullBufferBuilder::new(0),
            },
            Type::Map(key, value) => Column::Map {
                entries: entries(key, value),
                pair: pair(key, value),
                keys: Box::new(Column::new(key)),
                values: Box::new(Column::new(value)),
                offsets: vec![0],
                valid: NullBufferBuilder::new(0),
            },
            Type::Row(parts) => Column::Row {
                fields: fields(parts),
                columns: parts.iter().map(|(_, ty)| Column::new(ty)).collect(),
                valid: NullBufferBuilder::new(0),
            },
            Type::Unknown => Column::Null(0),
        }
    }

    /// Whether it takes its values as they are written. What reads JSON does not read numbers with a point to their last bit.
    pub(super) fn is_verbatim(&self) -> bool {
        matches!(self, Column::Float32(_) | Column::Float64(_) | Column::Other(_))
    }

    /// Adds a value as it is written in JSON, to a column that takes it so.
    pub(super) fn verbatim(&mut self, json: &str, spare: &mut usize) -> Result<(), Refused> {
        match self {
            _ if json == "null" => self.null(spare)?,
            Column::Float32(out) => out.append_value(float(bare(json)?)?),
            Column::Float64(out) => out.append_value(float(bare(json)?)?),
            Column::Other(out) => match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(plain) if !plain.contains('\\') => out.append_value(plain),
                Some(_) => out.append_value(serde_json::from_str::<String>(json).map_err(|_| UNKNOWN)?),
                None => out.append_value(json),
            },
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }

    /// Adds NULL. The fields of a row have a value each where the row has none: `spare` says how many of them may still be made.
    pub(super) fn null(&mut self, spare: &mut usize) -> Result<(), Refused> {
        match self {
            Column::Boolean(out) => out.append_null(),
            Column::Int8(out) => out.append_null(),
            Column::Int16(out) => out.append_null(),
            Column::Int32(out) => out.append_null(),
            Column::Int64(out) => out.append_null(),
            Column::Float32(out) => out.append_null(),
            Column::Float64(out) => out.append_null(),
            Column::Decimal { out, .. } => out.append_null(),
            Column::Text(out) | Column::Other(out) => out.append_null(),
            Column::Bytes { out, .. } => out.append_null(),
            Column::Date(out) => out.append_null(),
            Column::Ticks { out, .. } => out.append_null(),
            Column::YearMonth(out) => out.append_null(),
            Column::DayTime(out) => out.append_null(),
            Column::List { offsets, valid, .. } | Column::Map { offsets, valid, .. } => {
                let end = last(offsets);
                offsets.push(end);
                valid.append_null();
            }
            Column::Row { columns, valid, .. } => {
                *spare = spare.checked_sub(columns.len()).ok_or(FULL)?;
                for column in columns {
                    column.null(spare)?;
                }
                valid.append_null();
            }
            Column::Null(rows) => *rows += 1,
        }
        Ok(())
    }

    pub(super) fn boolean(&mut self, value: bool) -> Result<(), Refused> {
        match self {
            Column::Boolean(out) => out.append_value(value),
            _ => return Err(BOOLEAN),
        }
        Ok(())
    }

    pub(super) fn integer(&mut self, value: i64) -> Result<(), Refused> {
        match self {
            Column::Int8(out) => out.append_value(i8::try_from(value).map_err(|_| BEYOND)?),
            Column::Int16(out) => out.append_value(i16::try_from(value).map_err(|_| BEYOND)?),
            Column::Int32(out) => out.append_value(i32::try_from(value).map_err(|_| BEYOND)?),
            Column::Int64(out) => out.append_value(value),
            _ => return Err(NUMBER),
        }
        Ok(())
    }

    /// A number that is not whole, or is beyond 64 bits: there is no column for it.
    pub(super) fn number(&self) -> Refused {
        match self {
            Column::Int8(_) | Column::Int16(_) | Column::Int32(_) | Column::Int64(_) => BEYOND,
            _ => NUMBER,
        }
    }

    pub(super) fn text(&mut self, value: &str) -> Result<(), Refused> {
        match self {
            Column::Decimal { out, precision, scale } => out.append_value(text::decimal(value, *precision, *scale)?),
            Column::Text(out) => out.append_value(value),
            Column::Bytes { out, decoded } => {
                decoded.clear();
                STANDARD.decode_vec(value, decoded).map_err(|_| "a text that is not base64")?;
                out.append_value(decoded.as_slice());
            }
            Column::Date(out) => out.append_value(text::date(value)?),
            Column::Ticks { out, digits, read, .. } => out.append_value(read(value, *digits)?),
            Column::YearMonth(out) => out.append_value(text::year_month(value)?),
            Column::DayTime(out) => out.append_value(text::day_time(value)?),
            _ => return Err(TEXT),
        }
        Ok(())
    }

    /// Adds a key of a map, which is a text whatever its type.
    pub(super) fn key(&mut self, value: &str) -> Result<(), Refused> {
        match self {
            Column::Boolean(_) => self.boolean(value.parse().map_err(|_| TEXT)?),
            Column::Int8(_) | Column::Int16(_) | Column::Int32(_) | Column::Int64(_) => {
                self.integer(value.parse().map_err(|_| TEXT)?)
            }
            Column::Float32(out) => float(value).map(|value| out.append_value(value)),
            Column::Float64(out) => float(value).map(|value| out.append_value(value)),
            Column::Other(out) => {
                out.append_value(value);
                Ok(())
            }
            _ => self.text(value),
        }
    }

    /// The column of what was added.
    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Boolean(mut out) => Arc::new(out.finish()),
            Column::Int8(mut out) => Arc::new(out.finish()),
            Column::Int16(mut out) => Arc::new(out.finish()),
            Column::Int32(mut out) => Arc::new(out.finish()),
            Column::Int64(mut out) => Arc::new(out.finish()),
            Column::Float32(mut out) => Arc::new(out.finish()),
            Column::Float64(mut out) => Arc::new(out.finish()),
            Column::Decimal { mut out, .. } => Arc::new(out.finish()),
            Column::Text(mut out) | Column::Other(mut out) => Arc::new(out.finish()),
            Column::Bytes { mut out, .. } => Arc::new(out.finish()),
            Column::Date(mut out) => Arc::new(out.finish()),
            Column::Ticks { mut out, data_type, .. } => {
                make_array(out.finish().into_data().into_builder().data_type(data_type).build()?)
            }
            Column::YearMonth(mut out) => Arc::new(out.finish()),
            Column::DayTime(mut out) => Arc::new(out.finish()),
            Column::List { item, values, offsets, mut valid } => {
                Arc::new(ListArray::try_new(item, starts(offsets), values.finish()?, valid.finish())?)
            }
            Column::Map { entries, pair, keys, values, offsets, mut valid } => {
                let both = StructArray::try_new(pair, vec![keys.finish()?, values.finish()?], None)?;
                Arc::new(MapArray::try_new(entries, starts(offsets), both, valid.finish(), false)?)
            }
            Column::Row { fields, columns, mut valid } => {
                let columns = columns.into_iter().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new(fields, columns, valid.finish())?)
            }
            Column::Null(rows) => Arc::new(NullArray::new(rows)),
        })
    }
}

/// A column of times, by what reads them.
fn ticks(data_type: DataType, read: fn(&str, u32) -> Result<i64, Refused>) -> Column {
    let digits = match data_type {
        DataType::Time64(TimeUnit::Nanosecond) | DataType::Timestamp(TimeUnit::Nanosecond, _) => 9,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
        _ => 6,
    };
    Column::Ticks { out: Int64Builder::with_capacity(0), data_type, digits, read }
}

/// Where the next list begins.
pub(super) fn last(offsets: &[i32]) -> i32 {
    offsets.last().copied().unwrap_or_default()
}

fn starts(offsets: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

/// A number as JSON has it. What JSON has no number for comes as a text.
fn bare(json: &str) -> Result<&str, Refused> {
    match json {
        "\"NaN\"" => Ok("NaN"),
        "\"Infinity\"" => Ok("Infinity"),
        "\"-Infinity\"" => Ok("-Infinity"),
        _ => match json.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Ok(json),
            Some(b'"') => Err(TEXT),
            Some(b't' | b'f') => Err(BOOLEAN),
            Some(b'[') => Err(ARRAY),
            _ => Err(OBJECT),
        },
    }
}

/// The nearest number. One of digits that is too great is refused, and not infinity.
fn float<F: FromStr + Copy + Into<f64>>(text: &str) -> Result<F, Refused> {
    let value: F = text.parse().map_err(|_| TEXT)?;
    let wide: f64 = value.into();
    if !wide.is_finite() && text.ends_with(|last: char| last.is_ascii_digit()) { Err(BEYOND) } else { Ok(value) }
}
