//! Columns of a file as those of its table: what may differ between the two, and what is refused as it would not be right.
//!
//! By itself DataFusion casts whatever Arrow can cast, a number to a time too, and Arrow takes the fields of structs within lists
//! and maps by their places. Here fields are found at every level by their names, which are those of the table
//! ([`super::Columns`]), and plain values become wider ones only.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, new_empty_array, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast_with_options;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory};
use nexus_flight_catalog::{Error, Result};

use super::columns::AGAIN;
use super::floats::{Floats, by_text};

/// Makes the columns of files those of the table, file by file. A column that cannot be is refused where it is asked for.
#[derive(Debug)]
pub(super) struct Conforming(pub(super) Floats);

impl PhysicalExprAdapterFactory for Conforming {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> DataFusionResult<Arc<dyn PhysicalExprAdapter>> {
        // DataFusion is told of our columns in the types of the file, and so leaves them as they are.
        let fields = table.fields().iter().map(|field| match file.field_with_name(field.name()) {
            Ok(held) if is_ours(held.data_type(), field.data_type(), self.0) => {
                Arc::new(field.as_ref().clone().with_data_type(held.data_type().clone()))
            }
            _ => Arc::clone(field),
        });
        let left = Arc::new(Schema::new(fields.collect::<Fields>()));
        let others = DefaultPhysicalExprAdapterFactory.create(left, Arc::clone(&file))?;
        Ok(Arc::new(Adapter { table, file, floats: self.0, others }))
    }
}

/// From the table to one file.
#[derive(Debug)]
struct Adapter {
    table: SchemaRef,
    file: SchemaRef,
    floats: Floats,
    /// Knows all columns but ours: their casts, the missing ones, and where in the file each is.
    others: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        let ours = expr.transform(|expr| self.conformed(expr)).data()?;
        self.others.rewrite(ours)
    }
}

impl Adapter {
    /// A column as the table has it. Errors: `Data` where the file has values that cannot be.
    fn conformed(&self, expr: Arc<dyn PhysicalExpr>) -> DataFusionResult<Transformed<Arc<dyn PhysicalExpr>>> {
        let Some(column) = expr.as_any().downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        let Ok(held) = self.file.field_with_name(column.name()) else { return Ok(Transformed::no(expr)) };
        let Some((_, to)) = self.table.fields().find(column.name()) else { return Ok(Transformed::no(expr)) };
        // What an array of no values cannot become, no array can.
        conform(column.name(), &new_empty_array(held.data_type()), to.data_type())?;
        if !is_ours(held.data_type(), to.data_type(), self.floats) {
            return Ok(Transformed::no(expr));
        }
        Ok(Transformed::yes(Arc::new(Conformed { column: expr, to: Arc::clone(to), floats: self.floats })))
    }
}

/// Whether the values of a column are converted here. All others are cast by DataFusion, which sees through its own casts where it
/// leaves out what cannot meet a condition.
fn is_ours(from: &DataType, to: &DataType, floats: Floats) -> bool {
    match (from, to) {
        (DataType::Float32, DataType::Float64) => floats == Floats::ByText,
        // Arrow would wrap around, take a time without a zone for one of the zone, or drop digits.
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => true,
        (DataType::Timestamp(..), DataType::Timestamp(..)) => unit(from) < unit(to),
        _ => from != to && from.is_nested(),
    }
}

/// A column of a file as a column of the table.
#[derive(Debug, Eq)]
struct Conformed {
    /// The column as the file has it; a child, so that it is found wherever a reader puts it.
    column: Arc<dyn PhysicalExpr>,
    to: FieldRef,
    floats: Floats,
}

// By hand, as the compiler would move the column out to compare it.
impl PartialEq for Conformed {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.to == other.to && self.floats == other.floats
    }
}

impl Hash for Conformed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.to.hash(state);
        self.floats.hash(state);
    }
}

impl fmt::Display for Conformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.column, f)
    }
}

impl PhysicalExpr for Conformed {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn return_field(&self, _input: &Schema) -> DataFusionResult<FieldRef> {
        Ok(Arc::clone(&self.to))
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        let held = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(conform_by(self.floats, self.to.name(), &held, self.to.data_type())?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        let [column] = <[_; 1]>::try_from(children).map_err(|_| Error::internal("a conformed column is of one column"))?;
        Ok(Arc::new(Self { column, to: Arc::clone(&self.to), floats: self.floats }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}

/// The values of a file's column in the type of the table's. Errors: `Data` where the one is no narrower form of the other, where
/// the table's type does not hold a value exactly, or where a field is NULL that never is in the table.
pub(crate) fn conform(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    conform_by(Floats::Same, name, array, to)
}

fn conform_by(floats: Floats, name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = array.data_type();
    match (from, to) {
        _ if from == to => Ok(Arc::clone(array)),
        (DataType::Float32, DataType::Float64) if floats == Floats::ByText => Ok(by_text(array)),
        (DataType::Struct(_), DataType::Struct(fields)) => structure(floats, name, array.as_struct(), fields),
        (DataType::List(_), DataType::List(item)) => list(floats, name, array.as_list(), item),
        (DataType::LargeList(item) | DataType::FixedSizeList(item, _), DataType::List(_)) => {
            conform_by(floats, name, &cast(name, array, &DataType::List(Arc::clone(item)))?, to)
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => map(floats, name, array.as_map(), entries, *sorted),
        (DataType::Date32, DataType::Timestamp(_, None)) | (DataType::Timestamp(..), DataType::Timestamp(..)) => {
            instants(name, array, to)
        }
        _ if is_wider(from, to) => cast(name, array, to),
        _ => {
            let message = format!("the column \"{name}\" is {from} in the file and {to} in the table");
            Err(Error::data(message).with_hint(AGAIN))
        }
    }
}

/// Whether a column of one type may have become one of another: files with the one are read as the other.
pub(crate) fn becomes(from: &DataType, to: &DataType) -> bool {
    conform("", &new_empty_array(from), to).is_ok()
}

/// Fields by name: one that the file has not is NULL, and one that the table has not is left out.
fn structure(floats: Floats, name: &str, array: &StructArray, fields: &Fields) -> Result<ArrayRef> {
    let columns = fields.iter().map(|field| {
        let held = match array.column_by_name(field.name()) {
            Some(held) => masked(held, array.nulls())?,
            None => new_null_array(field.data_type(), array.len()),
        };
        within(floats, name, &held, field, array.nulls())
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())?))
}

/// A field, NULL where the struct is that it is in: the reader of Parquet says so of plain fields, and not of a struct that by itself
/// is never NULL.
fn masked(held: &ArrayRef, structs: Option<&NullBuffer>) -> Result<ArrayRef> {
    let (Some(inner), Some(_)) = (held.as_struct_opt(), structs) else { return Ok(Arc::clone(held)) };
    let (fields, columns) = (inner.fields().clone(), inner.columns().to_vec());
    let nulls = NullBuffer::union(inner.nulls(), structs);
    Ok(Arc::new(StructArray::try_new_with_length(fields, columns, nulls, inner.len())?))
}

fn list(floats: Floats, name: &str, array: &ListArray, item: &FieldRef) -> Result<ArrayRef> {
    let (offsets, first, count) = spoken_of(array.offsets());
    let items = within(floats, name, &array.values().slice(first, count), item, None)?;
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, array.nulls().cloned())?))
}

/// The key and the value by their places: writers have many names for them.
fn map(floats: Floats, name: &str, array: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef> {
    let DataType::Struct(fields) = entries.data_type() else { return Err(Error::internal("the entries of a map are no struct")) };
    let (offsets, first, count) = spoken_of(array.offsets());
    let columns = fields.iter().zip([array.keys(), array.values()]);
    let columns = columns.map(|(field, held)| within(floats, name, &held.slice(first, count), field, None));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let held = StructArray::try_new_with_length(fields.clone(), columns, None, count)?;
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, held, array.nulls().cloned(), sorted)?))
}

/// The values of a field in a column. Where the struct is NULL that it is in, it does not count whether it is.
fn within(floats: Floats, column: &str, held: &ArrayRef, field: &Field, structs: Option<&NullBuffer>) -> Result<ArrayRef> {
    let name = format!("{column}.{}", field.name());
    let values = conform_by(floats, &name, held, field.data_type())?;
    if field.is_nullable() {
        return Ok(values);
    }
    match values.logical_nulls() {
        Some(nulls) if nulls.null_count() > 0 && structs.is_none_or(|structs| !structs.contains(&nulls)) => {
            let message = format!("the column \"{name}\" is NULL in a row of the file, and never in the table");
            Err(Error::data(message).with_hint(AGAIN))
        }
        _ => Ok(values),
    }
}

/// The offsets of lists, counted from the first value that they speak of; the place of that one, and how many there are. A slice
/// of lists keeps the values of all.
fn spoken_of(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    let counted = OffsetBuffer::new(offsets.iter().map(|offset| offset - first).collect());
    (counted, first as usize, (last - first) as usize)
}

/// Times and days as times of another unit and zone. Whatever the zone, files count them from 1970 in UTC.
fn instants(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let (from, wanted) = (unit(array.data_type()), unit(to));
    let exact = |count: i64| match from >= wanted {
        true => count.checked_mul(from / wanted),
        false => (count % (wanted / from) == 0).then(|| count / (wanted / from)),
    };
    let counts = cast(name, array, &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    let counts = counts.try_unary::<_, Int64Type, Error>(|count| exact(count).ok_or_else(|| beyond(name, to)))?;
    let counts: ArrayRef = Arc::new(counts);
    cast(name, &counts, to)
}

/// How many nanoseconds are in one of what a type of times or days counts.
fn unit(of: &DataType) -> i64 {
    match of {
        DataType::Date32 => 86_400_000_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

/// Whether a plain type holds all values of another as they are: what Iceberg and Delta let the type of a column become, and text
/// or bytes in another form.
fn is_wider(from: &DataType, to: &DataType) -> bool {
    let integer = |of: &DataType| of.primitive_width().filter(|_| of.is_integer());
    match (from, to) {
        (DataType::Null, _) | (DataType::Float32, DataType::Float64) => return true,
        (DataType::Dictionary(_, values), _) => return is_bytes(values) && is_bytes(to),
        _ if is_bytes(from) => return is_bytes(to),
        _ => {}
    }
    match (integer(from), integer(to), decimal(from), decimal(to)) {
        (Some(held), Some(wanted), ..) => held < wanted && (from.is_unsigned_integer() || to.is_signed_integer()),
        (Some(1), _, _, Some((digits, _))) => digits >= 3,
        (Some(2), _, _, Some((digits, _))) => digits >= 5,
        (Some(4), _, _, Some((digits, _))) => digits >= 10,
        (Some(_), _, _, Some((digits, _))) => digits >= 20,
        (Some(held), ..) => held <= 4 && *to == DataType::Float64,
        (_, _, Some((digits, scale)), Some((wanted, scale_wanted))) => digits <= wanted && scale <= scale_wanted,
        _ => false,
    }
}

/// The digits before the point of a decimal type, and those after it.
fn decimal(of: &DataType) -> Option<(i16, i16)> {
    match of {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let (precision, scale) = (i16::from(*precision), i16::from(*scale));
            Some((precision - scale, scale))
        }
        _ => None,
    }
}

fn is_bytes(of: &DataType) -> bool {
    of.is_string() || matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn cast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast_with_options(array, to, &DEFAULT_CAST_OPTIONS).map_err(|cause| beyond(name, to).caused_by(cause))
}

/// What is said of a value that is of the right kind and yet none of the table's.
fn beyond(name: &str, to: &DataType) -> Error {
    Error::data(format!("the column \"{name}\" has a value in the file that {to} does not hold exactly")).with_hint(AGAIN)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Date32Array, DictionaryArray, Int32Array, StringArray};
    use arrow::array::{TimestampMillisecondArray, TimestampNanosecondArray};
    use arrow::datatypes::Int8Type;
    use arrow::json::writer::LineDelimited;
    use arrow::json::{ReaderBuilder, WriterBuilder};
    use nexus_flight_catalog::Kind;

    use super::*;

    fn field(name: &str, of: DataType) -> FieldRef {
        Arc::new(Field::new(name, of, true))
    }

    /// A struct.
    fn of(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, of)| field(name, of.clone())).collect())
    }

    fn list_of(item: DataType) -> DataType {
        DataType::List(field("element", item))
    }

    /// A map with texts as keys.
    fn map_of(entries: &str, value: DataType) -> DataType {
        let fields: Fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)].into();
        DataType::Map(Arc::new(Field::new(entries, DataType::Struct(fields), false)), false)
    }

    fn micros(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    /// Values in JSON, one a line.
    fn values(of: DataType, lines: &[&str]) -> ArrayRef {
        let rows: String = lines.iter().map(|line| format!("{{\"v\": {line}}}\n")).collect();
        let mut reader = ReaderBuilder::new(Arc::new(Schema::new(vec![field("v", of)]))).build(rows.as_bytes()).unwrap();
        let batch: RecordBatch = reader.next().unwrap().unwrap();
        Arc::clone(batch.column(0))
    }

    /// The same back again, NULL too.
    fn shown(values: &ArrayRef) -> String {
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(&RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(values), true)]).unwrap()).unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8(writer.into_inner()).unwrap();
        let lines = text.lines().map(|line| line.trim_start_matches("{\"v\":").strip_suffix('}').unwrap().to_owned());
        lines.collect::<Vec<_>>().join(" ")
    }

    fn refused(values: &ArrayRef, to: &DataType) -> String {
        let error = conform("c", values, to).unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        error.message().to_owned()
    }

    #[test]
    fn fields_are_found_by_name_within_lists() {
        let held = list_of(of(&[("a", DataType::Int32), ("gone", DataType::Utf8), ("b", DataType::Int32)]));
        let to = list_of(of(&[("b", DataType::Int64), ("new", list_of(DataType::Utf8)), ("a", DataType::Int32)]));
        let lines = [r#"[{"a": 1, "gone": "x", "b": 2}, null]"#, "null", "[]", r#"[{"a": 3, "gone": "y", "b": null}]"#];
        let held = values(held, &lines);
        let conformed = conform("c", &held, &to).unwrap();
        assert_eq!(conformed.data_type(), &to);
        insta::assert_snapshot!(shown(&conformed), @r#"[{"b":2,"new":null,"a":1},null] null [] [{"b":null,"new":null,"a":3}]"#);
        let sliced = conform("c", &held.slice(2, 2), &to).unwrap();
        assert_eq!(sliced.as_ref(), conformed.slice(2, 2).as_ref());
        assert_eq!(conform("c", &held.slice(1, 0), &to).unwrap().len(), 0);
    }

    #[test]
    fn a_struct_of_which_no_field_is_left_keeps_its_nulls() {
        let held = values(of(&[("a", DataType::Int32)]), &[r#"{"a": 1}"#, "null", r#"{"a": 2}"#]);
        let to = of(&[("b", of(&[("c", DataType::Utf8)]))]);
        insta::assert_snapshot!(shown(&conform("c", &held, &to).unwrap()), @r#"{"b":null} null {"b":null}"#);
        insta::assert_snapshot!(shown(&conform("c", &held.slice(1, 1), &to).unwrap()), @"null");
    }

    #[test]
    fn the_values_of_maps_are_those_of_the_table() {
        let held = map_of("key_value", of(&[("a", DataType::Int32), ("gone", DataType::Int32)]));
        let to = map_of("entries", of(&[("new", DataType::Int32), ("a", DataType::Int64)]));
        let held = values(held, &[r#"{"k": {"a": 1, "gone": 2}, "l": null}"#, "null", "{}", r#"{"m": {"a": 3}}"#]);
        let conformed = conform("c", &held, &to).unwrap();
        assert_eq!(conformed.data_type(), &to);
        insta::assert_snapshot!(shown(&conformed), @r#"{"k":{"new":null,"a":1},"l":null} null {} {"m":{"new":null,"a":3}}"#);
        let sliced = conform("c", &held.slice(3, 1), &to).unwrap();
        insta::assert_snapshot!(shown(&sliced), @r#"{"m":{"new":null,"a":3}}"#);
    }

    #[test]
    fn other_lists_become_lists() {
        let to = list_of(of(&[("a", DataType::Int64)]));
        let item = field("item", of(&[("b", DataType::Int32), ("a", DataType::Int32)]));
        let lines = [r#"[{"a": 1}, {"a": 2}]"#, "null", r#"[{"a": 3}, null]"#];
        for held in [DataType::LargeList(Arc::clone(&item)), DataType::List(item)] {
            let conformed = conform("c", &values(held, &lines), &to).unwrap();
            insta::allow_duplicates! {
                insta::assert_snapshot!(shown(&conformed), @r#"[{"a":1},{"a":2}] null [{"a":3},null]"#);
            }
        }
        let fixed = DataType::FixedSizeList(field("item", DataType::Int32), 2);
        let conformed = conform("c", &new_null_array(&fixed, 2), &list_of(DataType::Int64)).unwrap();
        insta::assert_snapshot!(shown(&conformed), @"null null");
    }

    #[test]
    fn plain_values_become_wider_ones_only() {
        use DataType::{
            Binary, BinaryView, Boolean, Date32, Decimal128, Decimal256, Dictionary, FixedSizeBinary, Float32, Float64, Int8,
            Int16, Int32, Int64, LargeBinary, LargeUtf8, Null, Time32, Time64, Timestamp, UInt32, UInt64, Utf8, Utf8View,
        };
        let nanos = Timestamp(TimeUnit::Nanosecond, None);
        let millis = Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let mut allowed = vec![
            (Int8, Int16),
            (Int32, Int64),
            (UInt32, Int64),
            (UInt32, UInt64),
            (Float32, Float64),
            (Int32, Float64),
            (Int8, Decimal128(5, 2)),
            (Int32, Decimal128(10, 0)),
            (Int64, Decimal128(22, 2)),
            (Decimal128(10, 2), Decimal128(20, 2)),
            (Decimal128(10, 2), Decimal128(12, 4)),
            (Decimal128(10, 2), Decimal256(50, 2)),
            (Date32, micros(None)),
            (nanos.clone(), micros(Some("UTC"))),
            (millis.clone(), micros(None)),
            (micros(Some("UTC")), micros(Some("+00:00"))),
            (micros(None), nanos),
            (FixedSizeBinary(4), FixedSizeBinary(4)),
            (Dictionary(Box::new(Int32), Box::new(Binary)), Utf8),
            (Null, of(&[("a", Int32)])),
        ];
        let bytes = [Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView];
        allowed.extend(bytes.iter().flat_map(|from| bytes.iter().map(move |to| (from.clone(), to.clone()))));
        for (from, to) in allowed {
            let conformed = conform("c", &new_null_array(&from, 2), &to).unwrap();
            assert_eq!((conformed.data_type(), conformed.null_count()), (&to, 2), "{from}");
        }
        for (from, to) in [
            (Int64, Int32),
            (Int32, UInt32),
            (UInt32, Int32),
            (UInt64, Int64),
            (Int64, Float64),
            (Int32, Float32),
            (Int32, Decimal128(10, 1)),
            (Int64, Decimal128(19, 0)),
            (Float64, Float32),
            (Float64, Int64),
            (Decimal128(10, 2), Decimal128(11, 4)),
            (Decimal128(10, 2), Decimal128(12, 1)),
            (Decimal128(10, 2), Float64),
            (Int64, micros(None)),
            (micros(None), Int64),
            (Date32, micros(Some("UTC"))),
            (millis, Date32),
            (Time32(TimeUnit::Millisecond), Time64(TimeUnit::Microsecond)),
            (Boolean, Int32),
            (Utf8, Int32),
            (Int32, Utf8),
            (FixedSizeBinary(4), FixedSizeBinary(5)),
            (FixedSizeBinary(4), Binary),
            (of(&[("a", Int32)]), list_of(Int32)),
            (Int32, list_of(Int32)),
            (list_of(Int32), Utf8),
        ] {
            let message = refused(&new_empty_array(&from), &to);
            assert_eq!(message, format!("the column \"c\" is {from} in the file and {to} in the table"));
        }
        let deep = refused(&new_empty_array(&list_of(of(&[("a", Int64)]))), &list_of(of(&[("a", Int32)])));
        insta::assert_snapshot!(deep, @r#"the column "c.element.a" is Int64 in the file and Int32 in the table"#);
    }

    #[test]
    fn times_keep_all_their_digits() {
        let counted = |held: ArrayRef, to: &DataType| {
            let conformed = conform("c", &held, to).unwrap();
            shown(&cast("c", &conformed, &DataType::Int64).unwrap())
        };
        let exact = TimestampNanosecondArray::from(vec![Some(-3000), None, Some(5000)]);
        insta::assert_snapshot!(counted(Arc::new(exact), &micros(None)), @"-3 null 5");
        let held: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
        insta::assert_snapshot!(refused(&held, &micros(None)), @r#"the column "c" has a value in the file that Timestamp(µs) does not hold exactly"#);
        // An instant is the same in every zone.
        let millis = TimestampMillisecondArray::from(vec![7]);
        insta::assert_snapshot!(counted(Arc::new(millis), &micros(Some("+02:00"))), @"7000");
        insta::assert_snapshot!(counted(Arc::new(Date32Array::from(vec![-1])), &micros(None)), @"-86400000000");
        let late: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]));
        refused(&late, &micros(None));
        let late: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX]));
        refused(&late, &micros(None));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let held: ArrayRef = Arc::new(BinaryArray::from(vec![b"a".as_slice(), b"\xc3"]));
        insta::assert_snapshot!(refused(&held, &DataType::Utf8), @r#"the column "c" has a value in the file that Utf8 does not hold exactly"#);
        let held: ArrayRef = Arc::new(BinaryArray::from(vec![b"a".as_slice(), "é".as_bytes()]));
        insta::assert_snapshot!(shown(&conform("c", &held, &DataType::Utf8).unwrap()), @r#""a" "é""#);
        let words: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::from_iter(["a", "b", "a"]));
        insta::assert_snapshot!(shown(&conform("c", &words, &DataType::Utf8).unwrap()), @r#""a" "b" "a""#);
    }

    #[test]
    fn what_is_never_null_in_the_table_must_be_in_the_file() {
        let to = DataType::Struct(vec![Field::new("a", DataType::Int32, false)].into());
        let missing = |line: &str| values(of(&[("b", DataType::Int32)]), &[line, "null"]);
        insta::assert_snapshot!(refused(&missing("{}"), &to), @r#"the column "c.a" is NULL in a row of the file, and never in the table"#);
        insta::assert_snapshot!(shown(&conform("c", &missing("null"), &to).unwrap()), @"null null");
        // In a struct that is NULL nothing counts, however deep.
        let deep = |of: DataType| DataType::Struct(vec![Field::new("s", of, false)].into());
        let inner = values(of(&[("a", DataType::Int32), ("b", DataType::Int32)]), &[r#"{"a": 1}"#, "{}"]);
        let outer = |nulls: Vec<bool>| -> ArrayRef {
            let fields = vec![field("s", inner.data_type().clone())].into();
            Arc::new(StructArray::new(fields, vec![Arc::clone(&inner)], Some(nulls.into())))
        };
        let conformed = conform("c", &outer(vec![true, false]), &deep(to.clone())).unwrap();
        insta::assert_snapshot!(shown(&conformed), @r#"{"s":{"a":1}} null"#);
        refused(&outer(vec![true, true]), &deep(to));
        let items = DataType::List(Arc::new(Field::new("element", DataType::Int64, false)));
        let held = values(list_of(DataType::Int32), &["[1]", "[null]", "null"]);
        insta::assert_snapshot!(refused(&held, &items), @r#"the column "c.element" is NULL in a row of the file, and never in the table"#);
        insta::assert_snapshot!(shown(&conform("c", &held.slice(0, 1), &items).unwrap()), @"[1]");
    }

    /// The values of a column of a table, by a file of these columns.
    fn read(file: &[(&str, ArrayRef)], table: Vec<FieldRef>, column: &str) -> Result<String> {
        let columns = file.iter().map(|(name, held)| (*name, Arc::clone(held), true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let table = Arc::new(Schema::new(table));
        let asked = Arc::new(Column::new_with_schema(column, &table).unwrap());
        let adapter = Conforming(Floats::Same).create(table, batch.schema()).unwrap();
        let value = adapter.rewrite(asked)?.evaluate(&batch)?.into_array(batch.num_rows())?;
        Ok(shown(&value))
    }

    #[test]
    fn floats_are_doubles_by_their_text_where_the_table_says_so() {
        let held = values(list_of(of(&[("a", DataType::Float32)])), &[r#"[{"a": 0.1}]"#]);
        let to = list_of(of(&[("a", DataType::Float64)]));
        let read = |floats| shown(&conform_by(floats, "c", &held, &to).unwrap());
        assert_eq!([Floats::Same, Floats::ByText].map(read), [r#"[{"a":0.10000000149011612}]"#, r#"[{"a":0.1}]"#]);
    }

    #[test]
    fn columns_are_conformed_wherever_they_are_in_the_file() {
        let held = values(list_of(of(&[("a", DataType::Int32)])), &[r#"[{"a": 1}]"#, "null"]);
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1, 2]));
        let file = [("n", numbers), ("t", nanos), ("l", held), ("text", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef)];
        let table = |number: DataType| {
            let l = list_of(of(&[("new", DataType::Utf8), ("a", DataType::Int64)]));
            vec![field("l", l), field("gone", list_of(DataType::Int32)), field("n", number), field("t", micros(None))]
        };
        let wider = table(DataType::Int64);
        insta::assert_snapshot!(read(&file, wider.clone(), "l").unwrap(), @r#"[{"new":null,"a":1}] null"#);
        insta::assert_snapshot!(read(&file, wider.clone(), "n").unwrap(), @"1 2");
        insta::assert_snapshot!(read(&file, wider.clone(), "gone").unwrap(), @"null null");
        assert_eq!(read(&file, wider, "t").unwrap_err().kind(), Kind::Data);
        // Only where it is asked for.
        let other = table(micros(None));
        insta::assert_snapshot!(read(&file, other.clone(), "l").unwrap(), @r#"[{"new":null,"a":1}] null"#);
        let error = read(&file, other, "n").unwrap_err();
        insta::assert_snapshot!(error.message(), @r#"the column "n" is Int32 in the file and Timestamp(µs) in the table"#);
    }
}
