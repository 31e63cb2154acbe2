//! Rows in PostgreSQL's binary form → columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder, StringBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::IntervalMonthDayNano;
use nexus_flight_catalog::{Error, Result};
use tokio_postgres::types::{FromSql, Type as Wire};
use uuid::Uuid;

use super::listing::Column;
use super::numeric;
use super::types::{Type, item};

/// PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
pub(super) const DAYS: i32 = 10_957;
pub(super) const MICROSECONDS: i64 = DAYS as i64 * 86_400_000_000;

/// A value as it came.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Wire, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Wire) -> bool {
        true
    }
}

/// Why a value is not read: what it is.
type Refused = &'static str;

const UNKNOWN: Refused = "a value in a form that is not known";
const INFINITY: Refused = "infinity";

/// A column that is being filled.
pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, i8),
    Number(StringBuilder),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    List { element: Type, values: Box<Builder>, offsets: Vec<i32>, valid: NullBufferBuilder },
}

impl Builder {
    pub(super) fn new(ty: &Type) -> Self {
        match ty {
            Type::Bool => Builder::Bool(BooleanBuilder::new()),
            Type::Int2 => Builder::Int2(Int16Builder::new()),
            Type::Int4 => Builder::Int4(Int32Builder::new()),
            Type::Int8 => Builder::Int8(Int64Builder::new()),
            Type::Float4 => Builder::Float4(Float32Builder::new()),
            Type::Float8 => Builder::Float8(Float64Builder::new()),
            Type::Decimal(_, scale) => Builder::Decimal(Decimal128Builder::new().with_data_type(ty.arrow()), *scale),
            Type::Number => Builder::Number(StringBuilder::new()),
            Type::Text | Type::Padded | Type::Name | Type::Json | Type::Enum => Builder::Text(StringBuilder::new()),
            Type::Jsonb => Builder::Jsonb(StringBuilder::new()),
            Type::Uuid => Builder::Uuid(StringBuilder::new()),
            Type::Bytes => Builder::Bytes(BinaryBuilder::new()),
            Type::Date => Builder::Date(Date32Builder::new()),
            Type::Time => Builder::Time(Time64MicrosecondBuilder::new()),
            Type::Timestamp | Type::TimestampTz => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.arrow()))
            }
            Type::Interval => Builder::Interval(IntervalMonthDayNanoBuilder::new()),
            Type::List(element) => Builder::List {
                element: Type::clone(element),
                values: Box::new(Builder::new(element)),
                offsets: vec![0],
                valid: NullBufferBuilder::new(0),
            },
        }
    }

    /// Adds a value, or NULL. Errors: `Data` with the column and what is in it.
    pub(super) fn push(&mut self, column: &Column, raw: Option<&[u8]>) -> Result<()> {
        self.append(raw).map_err(|what| {
            let Column { name, sql_type, .. } = column;
            Error::data(format!("the column \"{name}\" of the type {sql_type} holds {what}, which cannot be read"))
                .with_hint("leave such rows out, or read the column through a view that casts it to text")
        })
    }

    fn append(&mut self, raw: Option<&[u8]>) -> Result<(), Refused> {
        match self {
            Builder::Bool(out) => out.append_option(raw.map(boolean).transpose()?),
            Builder::Int2(out) => out.append_option(raw.map(|raw| fixed(raw).map(i16::from_be_bytes)).transpose()?),
            Builder::Int4(out) => out.append_option(raw.map(integer).transpose()?),
            Builder::Int8(out) => out.append_option(raw.map(long).transpose()?),
            // There is one NaN in PostgreSQL, whatever bits it has.
            Builder::Float4(out) => out.append_option(raw.map(real).transpose()?),
            Builder::Float8(out) => out.append_option(raw.map(double).transpose()?),
            Builder::Decimal(out, scale) => out.append_option(raw.map(|raw| numeric::unscaled(raw, *scale)).transpose()?),
            Builder::Number(out) => out.append_option(raw.map(numeric::text).transpose()?),
            Builder::Text(out) => out.append_option(raw.map(text).transpose()?),
            Builder::Jsonb(out) => out.append_option(raw.map(jsonb).transpose()?),
            Builder::Uuid(out) => {
                out.append_option(raw.map(|raw| fixed(raw).map(Uuid::from_bytes)).transpose()?.map(|id| id.to_string()))
            }
            Builder::Bytes(out) => out.append_option(raw),
            Builder::Date(out) => out.append_option(raw.map(date).transpose()?),
            Builder::Time(out) => out.append_option(raw.map(time).transpose()?),
            Builder::Timestamp(out) => out.append_option(raw.map(timestamp).transpose()?),
            Builder::Interval(out) => out.append_option(raw.map(interval).transpose()?),
            Builder::List { values, offsets, valid, .. } => {
                let mut end = *offsets.last().unwrap_or(&0);
                if let Some(raw) = raw {
                    end = end.checked_add(elements(raw, values)?).ok_or("too many elements")?;
                }
                offsets.push(end);
                valid.append(raw.is_some());
            }
        }
        Ok(())
    }

    /// The column of what was added.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Builder::Bool(mut out) => Arc::new(out.finish()),
            Builder::Int2(mut out) => Arc::new(out.finish()),
            Builder::Int4(mut out) => Arc::new(out.finish()),
            Builder::Int8(mut out) => Arc::new(out.finish()),
            Builder::Float4(mut out) => Arc::new(out.finish()),
            Builder::Float8(mut out) => Arc::new(out.finish()),
            Builder::Decimal(mut out, _) => Arc::new(out.finish()),
            Builder::Number(mut out) | Builder::Text(mut out) | Builder::Jsonb(mut out) | Builder::Uuid(mut out) => {
                Arc::new(out.finish())
            }
            Builder::Bytes(mut out) => Arc::new(out.finish()),
            Builder::Date(mut out) => Arc::new(out.finish()),
            Builder::Time(mut out) => Arc::new(out.finish()),
            Builder::Timestamp(mut out) => Arc::new(out.finish()),
            Builder::Interval(mut out) => Arc::new(out.finish()),
            Builder::List { element, values, offsets, mut valid } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(Arc::new(item(&element)), offsets, values.finish()?, valid.finish())?)
            }
        })
    }
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], Refused> {
    raw.try_into().map_err(|_| UNKNOWN)
}

fn boolean(raw: &[u8]) -> Result<bool, Refused> {
    fixed(raw).map(|[byte]| byte != 0)
}

fn integer(raw: &[u8]) -> Result<i32, Refused> {
    fixed(raw).map(i32::from_be_bytes)
}

fn long(raw: &[u8]) -> Result<i64, Refused> {
    fixed(raw).map(i64::from_be_bytes)
}

fn real(raw: &[u8]) -> Result<f32, Refused> {
    let value = f32::from_be_bytes(fixed(raw)?);
    Ok(if value.is_nan() { f32::NAN } else { value })
}

fn double(raw: &[u8]) -> Result<f64, Refused> {
    let value = f64::from_be_bytes(fixed(raw)?);
    Ok(if value.is_nan() { f64::NAN } else { value })
}

fn text(raw: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(raw).map_err(|_| "text that is not UTF-8")
}

/// A byte for the version of the form, then the text.
fn jsonb(raw: &[u8]) -> Result<&str, Refused> {
    match raw {
        [1, rest @ ..] => text(rest),
        _ => Err(UNKNOWN),
    }
}

fn date(raw: &[u8]) -> Result<i32, Refused> {
    match integer(raw)? {
        i32::MIN | i32::MAX => Err(INFINITY),
        days => days.checked_add(DAYS).ok_or("a date that is out of range"),
    }
}

fn time(raw: &[u8]) -> Result<i64, Refused> {
    match long(raw)? {
        86_400_000_000 => Err("24:00"),
        microseconds => Ok(microseconds),
    }
}

fn timestamp(raw: &[u8]) -> Result<i64, Refused> {
    match long(raw)? {
        i64::MIN | i64::MAX => Err(INFINITY),
        microseconds => microseconds.checked_add(MICROSECONDS).ok_or("a time that is out of range"),
    }
}

fn interval(raw: &[u8]) -> Result<IntervalMonthDayNano, Refused> {
    let (microseconds, rest) = raw.split_at_checked(8).ok_or(UNKNOWN)?;
    let (days, months) = rest.split_at_checked(4).ok_or(UNKNOWN)?;
    let nanoseconds = long(microseconds)?.checked_mul(1_000).ok_or("an interval of more than 292 years of hours")?;
    Ok(IntervalMonthDayNano::new(integer(months)?, integer(days)?, nanoseconds))
}

/// Adds the elements of an array, `array_send` of arrayfuncs.c, and says how many there are.
fn elements(raw: &[u8], values: &mut Builder) -> Result<i32, Refused> {
    let mut rest = raw;
    let mut next = |length: usize| {
        let (head, tail) = rest.split_at_checked(length).ok_or(UNKNOWN)?;
        rest = tail;
        Ok::<_, Refused>(head)
    };
    let dimensions = integer(next(4)?)?;
    // Whether there is a NULL, and the type of the elements.
    next(8)?;
    let count = match dimensions {
        0 => 0,
        1 => integer(next(4)?)?,
        _ => return Err("an array of more than one dimension"),
    };
    if dimensions == 1 && integer(next(4)?)? != 1 {
        return Err("an array that does not begin at 1");
    }
    for _ in 0..count {
        match usize::try_from(integer(next(4)?)?) {
            Ok(length) => values.append(Some(next(length)?))?,
            Err(_) => values.append(None)?,
        }
    }
    Ok(count)
}
