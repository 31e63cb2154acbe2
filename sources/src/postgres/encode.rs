//! Columns → rows in the binary form of COPY.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use nexus_flight_catalog::compact::exactly;
use nexus_flight_catalog::{Error, Result};
use uuid::Uuid;

use super::decode::{DAYS, MICROSECONDS};
use super::numeric;
use super::types::Type;

/// What a COPY in the binary form begins with: the signature, flags, and an extension of no bytes.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// A column that rows are for.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) ty: Type,
}

/// Why a value is not written: what it is.
type Refused = &'static str;

const OUT_OF_RANGE: Refused = "a value out of the range of PostgreSQL";

/// The rows of a batch, whose columns are in this order. Errors: `Invalid` with the column and what it cannot hold.
pub(super) fn rows<'a>(batch: &RecordBatch, columns: &'a [Slot]) -> Result<Rows<'a>> {
    let arrays = batch.columns().iter().zip(columns).map(|(array, slot)| fitted(array, slot)).collect::<Result<Vec<_>>>()?;
    Ok(Rows { columns, arrays, rows: 0..batch.num_rows() })
}

/// Rows that are still to be written.
pub(super) struct Rows<'a> {
    columns: &'a [Slot],
    arrays: Vec<ArrayRef>,
    rows: std::ops::Range<usize>,
}

impl Rows<'_> {
    /// Writes rows until there are so many bytes; whether more are left.
    pub(super) fn put(&mut self, out: &mut BytesMut, bytes: usize) -> Result<bool> {
        while out.len() < bytes {
            let Some(row) = self.rows.next() else { return Ok(false) };
            out.put_i16(i16::try_from(self.arrays.len()).map_err(|_| Error::invalid("a table has fewer columns"))?);
            for (array, slot) in self.arrays.iter().zip(self.columns) {
                put(out, array, row, &slot.ty).map_err(|what| refused(slot, what))?;
            }
        }
        Ok(true)
    }
}

fn refused(slot: &Slot, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the column \"{}\" cannot hold {what}", slot.name))
        .with_hint("change such values, or the column's type")
}

/// An array in the type that is written. Errors: `Invalid` where it would be another value.
fn fitted(array: &ArrayRef, slot: &Slot) -> Result<ArrayRef> {
    let wanted = slot.ty.arrow();
    if *array.data_type() == wanted {
        return Ok(ArrayRef::clone(array));
    }
    let cast = exactly(array, &wanted).map_err(|error| refused(slot, error))?;
    if has_nanoseconds(array.data_type()) {
        let back = exactly(&cast, array.data_type()).map_err(|error| refused(slot, error))?;
        if back.as_ref() != array.as_ref() {
            return Err(refused(slot, "nanoseconds"));
        }
    }
    Ok(cast)
}

fn has_nanoseconds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Time64(unit) => *unit == TimeUnit::Nanosecond,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => has_nanoseconds(item.data_type()),
        _ => false,
    }
}

/// A value with its length in front, which is -1 for NULL.
fn put(out: &mut BytesMut, array: &ArrayRef, row: usize, ty: &Type) -> Result<(), Refused> {
    if array.is_null(row) {
        out.put_i32(-1);
        return Ok(());
    }
    let at = out.len();
    out.put_i32(0);
    put_value(out, array, row, ty)?;
    let length = i32::try_from(out.len() - at - 4).map_err(|_| "a value of more than 2 GiB")?;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn put_value(out: &mut BytesMut, array: &ArrayRef, row: usize, ty: &Type) -> Result<(), Refused> {
    match ty {
        Type::Bool => out.put_u8(u8::from(array.as_boolean().value(row))),
        Type::Int2 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        Type::Int4 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        Type::Int8 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        Type::Float4 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        Type::Float8 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        Type::Decimal(_, scale) => {
            numeric::put_unscaled(out, array.as_primitive::<Decimal128Type>().value(row), scale.unsigned_abs());
        }
        Type::Number => numeric::put_text(out, array.as_string::<i32>().value(row))?,
        Type::Text | Type::Padded | Type::Name | Type::Json | Type::Enum => {
            out.put_slice(array.as_string::<i32>().value(row).as_bytes());
        }
        Type::Jsonb => {
            out.put_u8(1);
            out.put_slice(array.as_string::<i32>().value(row).as_bytes());
        }
        Type::Uuid => {
            let id = Uuid::parse_str(array.as_string::<i32>().value(row)).map_err(|_| "text that is no UUID")?;
            out.put_slice(id.as_bytes());
        }
        Type::Bytes => out.put_slice(array.as_binary::<i32>().value(row)),
        Type::Date => {
            let days = array.as_primitive::<Date32Type>().value(row).checked_sub(DAYS);
            out.put_i32(days.filter(|days| *days != i32::MIN).ok_or(OUT_OF_RANGE)?);
        }
        Type::Time => out.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row)),
        Type::Timestamp | Type::TimestampTz => {
            let at = array.as_primitive::<TimestampMicrosecondType>().value(row).checked_sub(MICROSECONDS);
            out.put_i64(at.filter(|at| *at != i64::MIN).ok_or(OUT_OF_RANGE)?);
        }
        Type::Interval => {
            let interval = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            if interval.nanoseconds % 1_000 != 0 {
                return Err("nanoseconds");
            }
            out.put_i64(interval.nanoseconds / 1_000);
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }
        Type::List(element) => {
            let items = array.as_list::<i32>().value(row);
            let count = i32::try_from(items.len()).map_err(|_| "so many elements")?;
            out.put_i32(i32::from(count > 0));
            out.put_i32(i32::from(items.null_count() > 0));
            out.put_u32(element.oid().ok_or("elements of a type of its own")?);
            if count > 0 {
                out.put_i32(count);
                out.put_i32(1);
            }
            for at in 0..items.len() {
                put(out, &items, at, element)?;
            }
        }
    }
    Ok(())
}
