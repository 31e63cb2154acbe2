//! The types of PostgreSQL that are read and written, and what each is here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

/// A type whose values are read and written in PostgreSQL's binary form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `numeric` with a precision, of at most 38 digits.
    Decimal(u8, i8),
    /// `numeric` of any digits: as text, which holds them all, and NaN and infinity too.
    Number,
    Text,
    /// `char(n)`: with its padding, which PostgreSQL does not compare.
    Padded,
    /// `name`: cut at 63 bytes.
    Name,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    /// An enumeration, by its labels.
    Enum,
    /// An array of one dimension.
    List(Box<Type>),
}

/// A type as the system catalog has it, domains resolved.
pub(super) struct Described {
    pub(super) oid: u32,
    pub(super) modifier: i32,
    pub(super) is_enum: bool,
    /// The element of an array: its oid, and whether it is an enumeration.
    pub(super) element: Option<(u32, bool)>,
}

impl Type {
    /// The type behind a description. None for one that is not read.
    pub(super) fn of(described: &Described) -> Option<Self> {
        if let Some((oid, is_enum)) = described.element {
            let element = Described { oid, is_enum, element: None, modifier: described.modifier };
            return Some(Type::List(Box::new(Type::of(&element)?)));
        }
        // The oids of the types that PostgreSQL brings along are fixed: src/include/catalog/pg_type.dat.
        Some(match described.oid {
            16 => Type::Bool,
            17 => Type::Bytes,
            19 => Type::Name,
            20 => Type::Int8,
            21 => Type::Int2,
            23 => Type::Int4,
            25 | 1043 => Type::Text,
            114 => Type::Json,
            700 => Type::Float4,
            701 => Type::Float8,
            1042 => Type::Padded,
            1082 => Type::Date,
            1083 => Type::Time,
            1114 => Type::Timestamp,
            1184 => Type::TimestampTz,
            1186 => Type::Interval,
            1700 => numeric(described.modifier),
            2950 => Type::Uuid,
            3802 => Type::Jsonb,
            _ if described.is_enum => Type::Enum,
            _ => return None,
        })
    }

    /// What a column of the type is here.
    pub(super) fn arrow(&self) -> DataType {
        match self {
            Type::Bool => DataType::Boolean,
            Type::Int2 => DataType::Int16,
            Type::Int4 => DataType::Int32,
            Type::Int8 => DataType::Int64,
            Type::Float4 => DataType::Float32,
            Type::Float8 => DataType::Float64,
            Type::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Type::Number | Type::Text | Type::Padded | Type::Name | Type::Uuid | Type::Json | Type::Jsonb | Type::Enum => {
                DataType::Utf8
            }
            Type::Bytes => DataType::Binary,
            Type::Date => DataType::Date32,
            Type::Time => DataType::Time64(TimeUnit::Microsecond),
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Type::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Type::List(element) => DataType::List(Arc::new(item(element))),
        }
    }

    /// The type of a column that is made for values of an Arrow type, and its name. None where there is none that holds them.
    pub(super) fn made(data_type: &DataType) -> Option<(Self, String)> {
        let (made, name) = match data_type {
            DataType::Boolean => (Type::Bool, "boolean"),
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => (Type::Int2, "smallint"),
            DataType::UInt16 | DataType::Int32 => (Type::Int4, "integer"),
            DataType::UInt32 | DataType::Int64 => (Type::Int8, "bigint"),
            DataType::UInt64 => (Type::Decimal(20, 0), "numeric(20,0)"),
            DataType::Float16 | DataType::Float32 => (Type::Float4, "real"),
            DataType::Float64 => (Type::Float8, "double precision"),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
                if *scale >= 0 =>
            {
                return Some((Type::Decimal(*precision, *scale), format!("numeric({precision},{scale})")));
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => (Type::Text, "text"),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                (Type::Bytes, "bytea")
            }
            DataType::Date32 => (Type::Date, "date"),
            DataType::Time32(_) | DataType::Time64(_) => (Type::Time, "time"),
            DataType::Timestamp(_, None) => (Type::Timestamp, "timestamp"),
            DataType::Timestamp(_, Some(_)) => (Type::TimestampTz, "timestamptz"),
            DataType::Interval(_) => (Type::Interval, "interval"),
            DataType::Dictionary(_, value) => return Type::made(value),
            DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => {
                // An array of arrays is one array with more dimensions, and not of lists of any lengths.
                return match Type::made(item.data_type())? {
                    (Type::List(_), _) => None,
                    (element, name) => Some((Type::List(Box::new(element)), format!("{name}[]"))),
                };
            }
            _ => return None,
        };
        Some((made, name.to_owned()))
    }

    /// The oid that an array names for its elements. None for an enumeration, which every database numbers itself.
    pub(super) fn oid(&self) -> Option<u32> {
        Some(match self {
            Type::Bool => 16,
            Type::Bytes => 17,
            Type::Name => 19,
            Type::Int8 => 20,
            Type::Int2 => 21,
            Type::Int4 => 23,
            Type::Text => 25,
            Type::Json => 114,
            Type::Float4 => 700,
            Type::Float8 => 701,
            Type::Padded => 1042,
            Type::Date => 1082,
            Type::Time => 1083,
            Type::Timestamp => 1114,
            Type::TimestampTz => 1184,
            Type::Interval => 1186,
            Type::Decimal(..) | Type::Number => 1700,
            Type::Uuid => 2950,
            Type::Jsonb => 3802,
            Type::Enum | Type::List(_) => return None,
        })
    }

    /// Whether PostgreSQL makes a value of it from text by a cast alone.
    pub(super) fn is_cast_from_text(&self) -> bool {
        matches!(self, Type::Number | Type::Uuid | Type::Json | Type::Jsonb | Type::Enum)
    }
}

/// The elements of a list.
pub(super) fn item(element: &Type) -> Field {
    Field::new("item", element.arrow(), true)
}

/// The modifier holds precision and scale plus 4: `numeric_typmod_precision` and `numeric_typmod_scale` of numeric.c.
fn numeric(modifier: i32) -> Type {
    if modifier < 4 {
        return Type::Number;
    }
    let precision = ((modifier - 4) >> 16) & 0xffff;
    let scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
    // A negative scale means zeros before the point, and one above the precision zeros after it.
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= 38 => Type::Decimal(precision, scale),
        _ => Type::Number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        for (precision, scale, wanted) in [
            (15, 2, Type::Decimal(15, 2)),
            (38, 38, Type::Decimal(38, 38)),
            (39, 0, Type::Number),
            (3, 5, Type::Decimal(5, 5)),
            (3, -2, Type::Decimal(5, 0)),
            (1000, 1000, Type::Number),
        ] {
            assert_eq!(numeric(modifier(precision, scale)), wanted, "numeric({precision},{scale})");
        }
        assert_eq!(numeric(-1), Type::Number);
    }
}
