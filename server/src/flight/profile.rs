//! The two type profiles: which Arrow types a client is sent, as its driver can read them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericByteViewArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray, UnionArray, new_null_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ByteViewType, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use nexus_flight_catalog::compact::{dictionary, exactly};
use nexus_flight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::flight::columns::column_metadata;

/// The column that stands for none, where a client takes a result without columns for no result.
const NO_COLUMNS: &str = "(no columns)";

/// Which Arrow types a client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeProfile {
    /// Every type as it is.
    Native,
    /// Only types that the JDBC driver reads right, each value unchanged.
    Lowered,
}

impl TypeProfile {
    /// The profile of a client by its `user-agent` header. Clients that are not known to read every type get the lowered one.
    pub fn of_user_agent(user_agent: Option<&str>) -> Self {
        match user_agent {
            Some(agent) if agent.contains("ADBC Flight SQL Driver") || agent.contains("grpc-c++") => Self::Native,
            _ => Self::Lowered,
        }
    }

    /// The schema of a result as it is sent. A lowered result has at least one column, since the JDBC driver takes an empty
    /// schema for a statement without a result.
    pub fn schema(self, schema: &Schema) -> SchemaRef {
        match self {
            Self::Lowered if schema.fields().is_empty() => {
                let column = Field::new(NO_COLUMNS, DataType::Null, true);
                Arc::new(Schema::new_with_metadata(vec![column], schema.metadata().clone()))
            }
            // Of its columns the JDBC driver tells precision and scale only from here.
            Self::Lowered => self.columns(&column_metadata(schema, None, false)),
            Self::Native => self.columns(schema),
        }
    }

    /// The same for columns that are only described: those of a table, or parameters. None stay none.
    pub fn columns(self, schema: &Schema) -> SchemaRef {
        match self {
            Self::Native => Arc::new(schema.clone()),
            Self::Lowered => {
                let fields: Fields = schema.fields().iter().map(lower_field).collect();
                Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
            }
        }
    }

    /// The same for parameters. The JDBC driver puts milliseconds into every parameter that is a time or timestamp, whatever its
    /// unit.
    pub fn parameters(self, schema: &Schema) -> SchemaRef {
        let columns = self.columns(schema);
        if self == Self::Native {
            return columns;
        }
        let fields: Fields = columns
            .fields()
            .iter()
            .map(|field| match field.data_type() {
                DataType::Timestamp(_, zone) => {
                    let data_type = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
                    Arc::new(field.as_ref().clone().with_data_type(data_type))
                }
                DataType::Time32(_) | DataType::Time64(_) => {
                    Arc::new(field.as_ref().clone().with_data_type(DataType::Time32(TimeUnit::Millisecond)))
                }
                _ => Arc::clone(field),
            })
            .collect();
        Arc::new(Schema::new_with_metadata(fields, columns.metadata().clone()))
    }

    /// The rows of a batch as they are sent, `target` being what [`TypeProfile::schema`] gave for their schema.
    ///
    /// Memory that belongs to rows outside the batch is left behind: string views and list views of a slice point into
    /// buffers of the whole. Errors: `Internal` where the batch is not of the schema that was promised.
    pub fn batch(self, batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        if self == Self::Lowered && batch.num_columns() == 0 && target.fields().len() == 1 {
            return rebuild(target, vec![new_null_array(&DataType::Null, rows)], rows);
        }
        if batch.num_columns() != target.fields().len() {
            let (found, promised) = (batch.num_columns(), target.fields().len());
            return Err(Error::internal(format!("a batch has {found} columns where {promised} were promised")));
        }
        let columns = batch.columns().iter().zip(target.fields()).map(|(column, field)| {
            if !self.lower(column.data_type()).equals_datatype(field.data_type()) {
                let (name, promised, found) = (field.name(), field.data_type(), column.data_type());
                return Err(Error::internal(format!("the column \"{name}\" is {found} where {promised} was promised")));
            }
            convert(column, field.data_type(), Shed::Views)
        });
        rebuild(target, columns.collect::<Result<_>>()?, rows)
    }

    /// Whether columns of a type may be copied to be sent.
    pub(super) fn copies(self, data_type: &DataType) -> bool {
        self.lower(data_type) != *data_type || Shed::Views.applies(data_type)
    }

    /// The type as which a type is sent.
    pub(super) fn lower(self, data_type: &DataType) -> DataType {
        match self {
            Self::Native => data_type.clone(),
            Self::Lowered => lower_type(data_type),
        }
    }
}

impl fmt::Display for TypeProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Lowered => "lowered",
        })
    }
}

impl FromStr for TypeProfile {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "native" => Ok(Self::Native),
            "lowered" => Ok(Self::Lowered),
            _ => Err(Error::invalid(format!("unknown type profile \"{name}\"")).with_hint("it is \"native\" or \"lowered\"")),
        }
    }
}

/// What the driver (18.3.0) makes of a type, and so what it is sent instead:
/// unsigned integers come out negative through `getObject` and near 2^64 through `getString`, so they go one width up;
/// `getObject` on a timestamp with a zone throws, so it goes without, in UTC; a dictionary gives its keys;
/// the other types here have no reader at all.
fn lower_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, None),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => lower_type(values),
        DataType::RunEndEncoded(_, values) => lower_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(lower_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(lower_field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(lower_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(lower_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(lower_field(entries), *sorted),
        DataType::Union(fields, mode) => {
            DataType::Union(fields.iter().map(|(kind, field)| (kind, lower_field(field))).collect(), *mode)
        }
        other => other.clone(),
    }
}

fn lower_field(field: &FieldRef) -> FieldRef {
    let lowered = lower_type(field.data_type());
    if &lowered == field.data_type() {
        return Arc::clone(field);
    }
    // The nulls of a run-end encoded column are those of its values.
    let nullable = match field.data_type() {
        DataType::RunEndEncoded(_, values) => field.is_nullable() || values.is_nullable(),
        _ => field.is_nullable(),
    };
    Arc::new(Field::new(field.name(), lowered, nullable).with_metadata(field.metadata().clone()))
}

fn rebuild(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|cause| Error::internal("a batch is not of the schema that was promised").caused_by(cause))
}

/// The same rows with dictionaries that hold only the values in use.
pub(super) fn shed_dictionaries(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| convert(column, column.data_type(), Shed::Dictionaries));
    rebuild(&batch.schema(), columns.collect::<Result<_>>()?, batch.num_rows())
}

/// What a conversion leaves behind besides the children of rows outside a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shed {
    /// The bytes that no view points to.
    Views,
    /// The values of dictionaries that no key points to.
    Dictionaries,
}

impl Shed {
    /// Whether there may be something to leave behind in a type.
    fn applies(self, data_type: &DataType) -> bool {
        match data_type {
            DataType::Utf8View | DataType::BinaryView => self == Self::Views,
            DataType::Dictionary(_, _) => self == Self::Dictionaries,
            DataType::ListView(_) | DataType::LargeListView(_) => true,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
                self.applies(item.data_type())
            }
            DataType::Struct(fields) => fields.iter().any(|field| self.applies(field.data_type())),
            _ => false,
        }
    }
}

/// The same values as another type, or as the same type without what is to be left behind.
///
/// Containers are taken apart here rather than by `cast`, which converts the children of a slice as a whole.
fn convert(array: &ArrayRef, target: &DataType, shed: Shed) -> Result<ArrayRef> {
    if array.data_type() == target && !shed.applies(target) {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), target) {
        (DataType::Utf8View, DataType::Utf8View) => Ok(compact_view(array, array.as_string_view())),
        (DataType::BinaryView, DataType::BinaryView) => Ok(compact_view(array, array.as_binary_view())),
        (from @ DataType::Dictionary(_, _), to) if from == to => Ok(dictionary(array)?),
        (DataType::List(_), DataType::List(item)) => convert_list(array.as_list::<i32>(), item, shed),
        (DataType::LargeList(_), DataType::LargeList(item)) => convert_list(array.as_list::<i64>(), item, shed),
        (DataType::ListView(from), DataType::List(_)) => {
            convert(&exactly(array, &DataType::List(Arc::clone(from)))?, target, shed)
        }
        (DataType::LargeListView(from), DataType::LargeList(_)) => {
            convert(&exactly(array, &DataType::LargeList(Arc::clone(from)))?, target, shed)
        }
        (DataType::ListView(_), DataType::ListView(item)) => {
            Ok(exactly(&convert(array, &DataType::List(Arc::clone(item)), shed)?, target)?)
        }
        (DataType::LargeListView(_), DataType::LargeListView(item)) => {
            Ok(exactly(&convert(array, &DataType::LargeList(Arc::clone(item)), shed)?, target)?)
        }
        (DataType::FixedSizeList(_, _), DataType::FixedSizeList(item, length)) => {
            let list = array.as_fixed_size_list();
            let values = convert(list.values(), item.data_type(), shed)?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(item), *length, values, nulls, list.len())?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => Ok(Arc::new(convert_struct(array.as_struct(), fields, shed)?)),
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let (offsets, start, length) = from_zero(map.offsets());
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(Error::internal(format!("the entries of a map are {}", entries.data_type())));
            };
            let children = convert_struct(&map.entries().slice(start, length), fields, shed)?;
            let nulls = map.nulls().cloned();
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, children, nulls, *sorted)?))
        }
        (DataType::Union(_, _), DataType::Union(fields, _)) => {
            let union = array.as_union();
            let children = fields.iter().map(|(kind, field)| convert(union.child(kind), field.data_type(), shed));
            let (kinds, places) = (union.type_ids().clone(), union.offsets().cloned());
            Ok(Arc::new(UnionArray::try_new(fields.clone(), kinds, places, children.collect::<Result<_>>()?)?))
        }
        _ => Ok(exactly(array, target)?),
    }
}

fn convert_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef, shed: Shed) -> Result<ArrayRef> {
    let (offsets, start, length) = from_zero(list.offsets());
    let values = convert(&list.values().slice(start, length), item.data_type(), shed)?;
    Ok(Arc::new(GenericListArray::try_new(Arc::clone(item), offsets, values, list.nulls().cloned())?))
}

fn convert_struct(array: &StructArray, fields: &Fields, shed: Shed) -> Result<StructArray> {
    let columns = array.columns().iter().zip(fields).map(|(column, field)| convert(column, field.data_type(), shed));
    let columns = columns.collect::<Result<_>>()?;
    Ok(StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())?)
}

/// The offsets of a slice as those of an array of its own, with the start and the length of what they point into.
pub(super) fn from_zero<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (OffsetBuffer<O>, usize, usize) {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    let (start, length) = (first.as_usize(), (last - first).as_usize());
    if start == 0 {
        return (offsets.clone(), start, length);
    }
    let moved: ScalarBuffer<O> = offsets.iter().map(|offset| *offset - first).collect();
    (OffsetBuffer::new(moved), start, length)
}

/// Views may share bytes, so a copy is made only where it is the smaller.
fn compact_view<T: ByteViewType>(array: &ArrayRef, views: &GenericByteViewArray<T>) -> ArrayRef {
    let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
    // A tenth of slack is cheaper to send than to copy away.
    if views.total_buffer_bytes_used() < held - held / 10 { Arc::new(views.gc()) } else { Arc::clone(array) }
}

#[cfg(test)]
mod tests;
