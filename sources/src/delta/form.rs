//! How the rows of a table are stored: which columns its files hold, under which names, and which ones its folders do.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::NullBuffer;
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use delta_kernel::schema::{DataType as DeltaType, StructField, StructType};
use delta_kernel::table_features::ColumnMappingMode;
use nexus_flight_catalog::write::filled;
use nexus_flight_catalog::{Error, Result};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::made::conformed;
use super::types;

/// Of how many columns the log has bounds, unless the table says it.
const INDEXED: usize = 32;

/// How the rows of a table are stored.
#[derive(Debug)]
pub(super) struct Form {
    /// The columns as clients see them.
    pub(super) columns: SchemaRef,
    /// The columns that files hold, as these call them.
    pub(super) stored: SchemaRef,
    /// Their places in `columns`.
    pub(super) held: Vec<usize>,
    /// The others, by the names that the log has for them, with their places in `columns`.
    pub(super) partitions: Vec<(String, usize)>,
    /// Of how many of the columns that files hold the log has bounds; the first ones.
    pub(super) indexed: usize,
    /// What the table says of its columns.
    table: StructType,
    /// Whether rows come in other types than those of the table, and become those.
    casts: bool,
}

impl Form {
    /// Of a table with these columns, of which some are its partitions. Errors: `Unsupported` for columns that are not written here.
    pub(super) fn new(
        table: &StructType,
        mode: ColumnMappingMode,
        partitions: &[String],
        configuration: &HashMap<String, String>,
    ) -> Result<Self> {
        let (columns, _) = types::shape(table, mode)?;
        let all: Fields = stored(table, mode, columns.fields())?;
        let place = |name: &String| {
            let field = columns.index_of(name).ok().and_then(|place| Some((all.get(place)?.name().clone(), place)));
            field.ok_or_else(|| Error::data(format!("the table has no column \"{name}\", and should be divided by it")))
        };
        let partitions = partitions.iter().map(place).collect::<Result<Vec<(String, usize)>>>()?;
        let held: Vec<usize> = (0..all.len()).filter(|place| partitions.iter().all(|(_, other)| other != place)).collect();
        if held.is_empty() {
            return Err(Error::unsupported("the table has partition columns and no others").with_hint("add a column"));
        }
        for (_, place) in &partitions {
            let field = columns.field(*place);
            if field.data_type().is_nested() || *field.data_type() == DataType::Binary {
                return Err(Error::unsupported(format!("the partition column \"{}\" is binary or nested", field.name()))
                    .with_hint("write with what made the table"));
            }
        }
        let stored = Schema::new(held.iter().filter_map(|place| all.get(*place).cloned()).collect::<Vec<_>>());
        let indexed = match configuration.get("delta.dataSkippingNumIndexedCols") {
            // A negative number stands for all.
            Some(number) => number.parse::<i64>().map_or(INDEXED, |number| usize::try_from(number).unwrap_or(usize::MAX)),
            None => INDEXED,
        };
        Ok(Self { columns, stored: Arc::new(stored), held, partitions, indexed, table: table.clone(), casts: false })
    }

    /// The same for rows with other types than those of the table. Errors: `Unsupported` for a type that does not become the table's.
    pub(super) fn casting(self, rows: &SchemaRef) -> Result<Self> {
        for (from, to) in rows.fields().iter().zip(self.columns.fields()) {
            if !can_cast_types(from.data_type(), to.data_type()) {
                let message = format!("the column \"{}\" of the type {} is not taken as it is", from.name(), from.data_type());
                return Err(Error::unsupported(message).with_hint("cast it, or leave it out"));
            }
        }
        Ok(Self { casts: true, ..self })
    }

    /// The same with bounds of all columns in the log.
    pub(super) fn bounded(self) -> Self {
        Self { indexed: usize::MAX, ..self }
    }

    /// Rows with all columns of the table, in its types. Errors: `Invalid` for a value that the table does not take; `Precondition`
    /// where rows that are added have other types than the table.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = if self.casts { self.cast(batch)? } else { filled(batch, &self.columns)? };
        for (field, column) in self.table.fields().zip(rows.columns()) {
            complete(field, column, None, field.name())?;
        }
        Ok(rows)
    }

    fn cast(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let both = self.columns.fields().iter().zip(batch.columns());
        let columns = both.map(|(field, column)| conformed(column, field.data_type(), field.name()));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.columns), columns, &options)?)
    }
}

/// The fields with the names and ids that files have for them.
fn stored(of: &StructType, mode: ColumnMappingMode, fields: &Fields) -> Result<Fields> {
    of.fields().zip(fields).map(|(field, arrow)| one(field, mode, arrow)).collect()
}

fn one(field: &StructField, mode: ColumnMappingMode, arrow: &Field) -> Result<Field> {
    let data_type = within(field.data_type(), mode, arrow.data_type())?;
    let stored = Field::new(field.physical_name(mode), data_type, arrow.is_nullable());
    if mode == ColumnMappingMode::None {
        return Ok(stored);
    }
    let id = field.column_mapping_id().and_then(|id| i32::try_from(id).ok());
    let id = id.ok_or_else(|| Error::data(format!("the table has no id for its column \"{}\"", field.name())))?;
    Ok(stored.with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())])))
}

fn within(of: &DeltaType, mode: ColumnMappingMode, arrow: &DataType) -> Result<DataType> {
    let named = |of: &DeltaType, field: &Field| -> Result<Field> {
        Ok(Field::new(field.name(), within(of, mode, field.data_type())?, field.is_nullable()))
    };
    Ok(match (of, arrow) {
        (DeltaType::Struct(of), DataType::Struct(fields)) => DataType::Struct(stored(of, mode, fields)?),
        (DeltaType::Array(of), DataType::List(item)) => DataType::List(Arc::new(named(of.element_type(), item)?)),
        (DeltaType::Map(of), DataType::Map(entries, sorted)) => {
            let DataType::Struct(entry) = entries.data_type() else {
                return Err(Error::internal("a map has entries that are no struct"));
            };
            let [key, value] = &**entry else { return Err(Error::internal("a map has entries that are no pairs")) };
            let entry = vec![named(of.key_type(), key)?, named(of.value_type(), value)?];
            let entries = Field::new(entries.name(), DataType::Struct(entry.into()), entries.is_nullable());
            DataType::Map(Arc::new(entries), *sorted)
        }
        (_, plain) => plain.clone(),
    })
}

/// Errors: `Invalid` for a NULL where the table takes none; `above` tells what is NULL as a whole.
fn complete(field: &StructField, column: &ArrayRef, above: Option<&NullBuffer>, path: &str) -> Result<()> {
    if !field.is_nullable() {
        let missing = match above {
            None => column.null_count() > 0,
            Some(above) => (0..column.len()).any(|row| above.is_valid(row) && column.is_null(row)),
        };
        if missing {
            return Err(no_null(path));
        }
    }
    complete_within(field.data_type(), column, above, path)
}

fn complete_within(of: &DeltaType, column: &ArrayRef, above: Option<&NullBuffer>, path: &str) -> Result<()> {
    match of {
        DeltaType::Struct(of) => {
            let values = column.as_struct();
            let nulls = NullBuffer::union(above, values.nulls());
            for (field, column) in of.fields().zip(values.columns()) {
                complete(field, column, nulls.as_ref(), &format!("{path}.{}", field.name()))?;
            }
            Ok(())
        }
        DeltaType::Array(of) => {
            let list = column.as_list::<i32>();
            let values = of_rows(list.values(), list.value_offsets());
            element(of.element_type(), of.contains_null(), &values, &format!("{path}.element"))
        }
        DeltaType::Map(of) => {
            let map = column.as_map();
            let (keys, values) = (of_rows(map.keys(), map.value_offsets()), of_rows(map.values(), map.value_offsets()));
            element(of.key_type(), false, &keys, &format!("{path}.key"))?;
            element(of.value_type(), of.value_contains_null(), &values, &format!("{path}.value"))
        }
        DeltaType::Primitive(_) | DeltaType::Variant(_) => Ok(()),
    }
}

/// What lists or maps hold, without what they share it with: rows may be a part of others.
fn of_rows(values: &ArrayRef, offsets: &[i32]) -> ArrayRef {
    match offsets {
        [first, .., end] => values.slice(*first as usize, (end - first) as usize),
        _ => values.slice(0, 0),
    }
}

fn element(of: &DeltaType, may_be_null: bool, values: &ArrayRef, path: &str) -> Result<()> {
    match !may_be_null && values.null_count() > 0 {
        true => Err(no_null(path)),
        false => complete_within(of, values, None, path),
    }
}

fn no_null(path: &str) -> Error {
    Error::invalid(format!("the column \"{path}\" takes no NULL")).with_hint("give a value for it in every row")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StructArray};
    use arrow::datatypes::Int64Type;
    use serde_json::json;

    use super::*;

    fn table() -> StructType {
        let field = |name: &str, of: serde_json::Value, nullable: bool, id: i64| {
            let metadata = json!({ "delta.columnMapping.id": id, "delta.columnMapping.physicalName": format!("col-{id}") });
            json!({ "name": name, "type": of, "nullable": nullable, "metadata": metadata })
        };
        let inner = json!({ "type": "struct", "fields": [field("x", json!("long"), false, 3)] });
        let fields = [field("p", json!("long"), true, 1), field("s", inner, true, 2)];
        serde_json::from_value(json!({ "type": "struct", "fields": fields })).unwrap()
    }

    #[test]
    fn files_have_names_and_ids_of_their_own() {
        let none = HashMap::new();
        let form = Form::new(&table(), ColumnMappingMode::Name, &["p".to_owned()], &none).unwrap();
        assert_eq!((form.partitions.as_slice(), form.held.as_slice()), (&[("col-1".to_owned(), 0)][..], &[1][..]));
        let field = form.stored.field(0);
        assert_eq!((field.name().as_str(), field.metadata()[PARQUET_FIELD_ID_META_KEY].as_str()), ("col-2", "2"));
        let DataType::Struct(inner) = field.data_type() else { unreachable!("a struct") };
        assert_eq!((inner[0].name().as_str(), inner[0].metadata()[PARQUET_FIELD_ID_META_KEY].as_str()), ("col-3", "3"));
        let plain = Form::new(&table(), ColumnMappingMode::None, &[], &none).unwrap();
        assert_eq!((plain.stored.field(1).name().as_str(), plain.stored.field(1).metadata().len()), ("s", 0));
        assert!(Form::new(&table(), ColumnMappingMode::None, &["s".to_owned()], &none).is_err());
    }

    #[test]
    fn what_other_rows_hold_is_nobodys_matter() {
        let array = json!({ "type": "array", "containsNull": false, "elementType": "long" });
        let field = json!({ "name": "l", "type": array, "nullable": true, "metadata": {} });
        let table: StructType = serde_json::from_value(json!({ "type": "struct", "fields": [field] })).unwrap();
        let form = Form::new(&table, ColumnMappingMode::None, &[], &HashMap::new()).unwrap();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![None]), Some(vec![Some(1)]), None]);
        let (_, offsets, values, nulls) = lists.into_parts();
        let DataType::List(element) = form.columns.field(0).data_type() else { unreachable!("a list") };
        let lists: ArrayRef = Arc::new(ListArray::new(Arc::clone(element), offsets, values, nulls));
        let all = RecordBatch::try_new(Arc::clone(&form.columns), vec![lists]).unwrap();
        assert_eq!(form.rows(&all.slice(1, 2)).unwrap().num_rows(), 2);
        insta::assert_snapshot!(form.rows(&all).unwrap_err(), @r#"the column "l.element" takes no NULL; give a value for it in every row"#);
    }

    #[test]
    fn what_takes_no_null_within_a_struct_may_go_with_it() {
        let form = Form::new(&table(), ColumnMappingMode::None, &[], &HashMap::new()).unwrap();
        let DataType::Struct(fields) = form.columns.field(1).data_type().clone() else { unreachable!("a struct") };
        let rows = |nulls: Vec<bool>| {
            let x: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
            let s = StructArray::new(fields.clone(), vec![x], Some(NullBuffer::from(nulls)));
            let p: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
            form.rows(&RecordBatch::try_new(Arc::clone(&form.columns), vec![p, Arc::new(s)]).unwrap())
        };
        assert_eq!(rows(vec![true, false]).unwrap().num_rows(), 2);
        insta::assert_snapshot!(rows(vec![true, true]).unwrap_err(), @r#"the column "s.x" takes no NULL; give a value for it in every row"#);
    }
}
