//! The columns of a table that is made, from those of its rows.

use std::collections::HashSet;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use nexus_flight_catalog::{Error, Result};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What no column has in its name unless files know it by another.
const SPECIAL: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// Makes columns.
#[derive(Debug)]
pub(super) struct Making {
    /// The greatest id that a column has, where files know columns by names that are made up; none where they know them by their own.
    pub(super) last_id: Option<i64>,
    /// Whether a column holds times without a zone.
    pub(super) without_zone: bool,
}

impl Making {
    /// With ids after this one, if columns are to have any.
    pub(super) fn new(last_id: Option<i64>) -> Self {
        Self { last_id, without_zone: false }
    }

    /// The columns as Delta writes them, all of which may be NULL.
    /// Errors: `Unsupported` for a type that Delta does not have, `Invalid` for two of one name.
    pub(super) fn columns(&mut self, rows: &Fields) -> Result<Value> {
        if rows.is_empty() {
            return Err(Error::unsupported("a Delta table has a column at least").with_hint("add a column"));
        }
        self.all(rows, "")
    }

    fn all(&mut self, fields: &Fields, within: &str) -> Result<Value> {
        let mut names = HashSet::new();
        let mut made = Vec::with_capacity(fields.len());
        for field in fields {
            let path = format!("{within}{}", field.name());
            if !names.insert(field.name().to_lowercase()) {
                return Err(Error::invalid(format!(
                    "two columns are called \"{path}\", which Delta does not tell apart by case"
                ))
                .with_hint("rename one of them"));
            }
            let data_type = self.one(field.data_type(), &path)?;
            let mut metadata = Map::new();
            if let Some(comment) = field.metadata().get("comment") {
                metadata.insert("comment".to_owned(), json!(comment));
            }
            if let Some(last) = &mut self.last_id {
                *last += 1;
                metadata.insert("delta.columnMapping.id".to_owned(), json!(*last));
                metadata.insert("delta.columnMapping.physicalName".to_owned(), json!(format!("col-{}", Uuid::new_v4())));
            }
            made.push(json!({ "name": field.name(), "type": data_type, "nullable": true, "metadata": metadata }));
        }
        Ok(json!({ "type": "struct", "fields": made }))
    }

    fn one(&mut self, data_type: &DataType, path: &str) -> Result<Value> {
        let plain = match data_type {
            DataType::Boolean => "boolean",
            DataType::Int8 => "byte",
            DataType::Int16 => "short",
            DataType::Int32 => "integer",
            DataType::Int64 => "long",
            DataType::Float32 => "float",
            DataType::Float64 => "double",
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "binary",
            DataType::Date32 => "date",
            DataType::Timestamp(_, Some(_)) => "timestamp",
            DataType::Timestamp(_, None) => {
                self.without_zone = true;
                "timestamp_ntz"
            }
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
                if u8::try_from(*scale).is_ok_and(|scale| scale <= *precision) =>
            {
                return Ok(json!(format!("decimal({precision},{scale})")));
            }
            DataType::Dictionary(_, values) => return self.one(values, path),
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::FixedSizeList(field, _) => {
                let element = self.one(field.data_type(), &format!("{path}.element"))?;
                return Ok(json!({ "type": "array", "elementType": element, "containsNull": true }));
            }
            DataType::Map(entries, _) => return self.map(entries, path),
            DataType::Struct(fields) if !fields.is_empty() => return self.all(fields, &format!("{path}.")),
            other => {
                return Err(Error::unsupported(format!("Delta has no type for the column \"{path}\" of the type {other}"))
                    .with_hint("cast it, or leave it out"));
            }
        };
        Ok(json!(plain))
    }

    fn map(&mut self, entries: &Field, path: &str) -> Result<Value> {
        let DataType::Struct(entry) = entries.data_type() else {
            return Err(Error::internal("a map has entries that are no struct"));
        };
        let [key, value] = &**entry else { return Err(Error::internal("a map has entries that are no pairs")) };
        let key = self.one(key.data_type(), &format!("{path}.key"))?;
        let value = self.one(value.data_type(), &format!("{path}.value"))?;
        Ok(json!({ "type": "map", "keyType": key, "valueType": value, "valueContainsNull": true }))
    }
}

/// Whether files have to know these columns by other names than their own, at any level.
pub(super) fn needs_names(fields: &Fields) -> bool {
    fields.iter().any(|field| field.name().is_empty() || field.name().contains(SPECIAL) || needs_names_within(field.data_type()))
}

fn needs_names_within(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => needs_names(fields),
        DataType::Map(entries, _) => match entries.data_type() {
            // What the entries and their parts are called here is of no matter.
            DataType::Struct(entry) => entry.iter().any(|part| needs_names_within(part.data_type())),
            _ => false,
        },
        other => item(other).is_some_and(|item| needs_names_within(item.data_type())),
    }
}

/// What a list holds.
fn item(data_type: &DataType) -> Option<&Field> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => Some(field),
        _ => None,
    }
}

/// A column in the type that the table has for it. Errors: `Invalid` where a value would be another one in that type.
pub(super) fn conformed(column: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(ArrayRef::clone(column));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let loses = |why: String| {
        let message = format!("the column \"{name}\" has a value that {to} does not hold{why}");
        Error::invalid(message).with_hint("cast or round it before")
    };
    let cast = |column: &ArrayRef, to: &DataType| cast_with_options(column, to, &options);
    let cast_to = cast(column, to).map_err(|cause| loses(format!(": {cause}")))?;
    if is_finer(column.data_type()) {
        let back = cast(&cast_to, column.data_type()).map_err(|cause| loses(format!(": {cause}")))?;
        if back.as_ref() != column.as_ref() {
            return Err(loses(", whose times end at microseconds".to_owned()));
        }
    }
    Ok(cast_to)
}

/// Whether a type holds times that are finer than those of Delta.
fn is_finer(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => true,
        DataType::Dictionary(_, values) => is_finer(values),
        DataType::Struct(fields) => fields.iter().any(|field| is_finer(field.data_type())),
        DataType::Map(entries, _) => is_finer(entries.data_type()),
        other => item(other).is_some_and(|item| is_finer(item.data_type())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, TimestampNanosecondArray};
    use arrow::datatypes::IntervalUnit;

    use super::*;

    fn made(fields: Vec<Field>) -> Result<Value> {
        Making::new(None).columns(&fields.into())
    }

    #[test]
    fn types_are_those_of_delta() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let list = DataType::LargeList(Arc::new(Field::new("item", dictionary, false)));
        let fields = vec![Field::new("a", list, true), Field::new("b", DataType::Decimal64(12, 2), false)];
        insta::assert_snapshot!(made(fields).unwrap(), @r#"{"fields":[{"metadata":{},"name":"a","nullable":true,"type":{"containsNull":true,"elementType":"string","type":"array"}},{"metadata":{},"name":"b","nullable":true,"type":"decimal(12,2)"}],"type":"struct"}"#);
    }

    #[test]
    fn what_delta_lacks_is_refused_by_name() {
        for other in [
            DataType::UInt8,
            DataType::Float16,
            DataType::Date64,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(IntervalUnit::YearMonth),
            DataType::Decimal128(10, -2),
            DataType::Decimal256(40, 0),
            DataType::Null,
            DataType::Struct(Fields::empty()),
        ] {
            let within = DataType::Struct(vec![Field::new("x", other, true)].into());
            let error = made(vec![Field::new("s", within, true)]).unwrap_err();
            assert!(error.message().starts_with("Delta has no type for the column \"s.x\""), "{error}");
        }
        let twice = ["a", "A"].map(|name| Field::new(name, DataType::Int8, true)).to_vec();
        assert!(made(twice).unwrap_err().message().contains("by case"));
    }

    #[test]
    fn ids_go_on_from_the_last_one() {
        let inner = DataType::Struct(vec![Field::new("x y", DataType::Int8, true)].into());
        let fields: Fields = vec![Field::new("s", inner, true), Field::new("t", DataType::Int8, true)].into();
        assert!(needs_names(&fields));
        let mut making = Making::new(Some(7));
        let text = making.columns(&fields).unwrap().to_string();
        assert_eq!((making.last_id, text.matches("col-").count()), (Some(10), 3));
    }

    #[test]
    fn times_are_kept_or_refused() {
        let to = DataType::Timestamp(TimeUnit::Microsecond, None);
        let whole: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(5_000), None]));
        assert_eq!(conformed(&whole, &to, "t").unwrap().null_count(), 1);
        let finer: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![5_001]));
        assert!(conformed(&finer, &to, "t").unwrap_err().message().contains("\"t\""));
    }
}
