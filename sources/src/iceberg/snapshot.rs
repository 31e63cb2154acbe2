//! A state of a table as the scan of lakes reads it: its files, what is known of their values, and what is deleted of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use iceberg::spec::{
    DataContentType, DataFileFormat, Datum, ManifestContentType, ManifestEntry, NestedField, PartitionField, PrimitiveType,
    Schema, Transform,
};
use nexus_flight_catalog::{Error, Result};

use super::buckets::lacking;
use super::deletes::Deleted;
use super::manifests::{Files, RESTORE, files, list, place};
use super::metrics::Metrics;
use super::table::{State, Table, refused};
use super::types::{bounds_are_values, columns, ids_among, value};
use crate::lake::{Bounds, DataFile, Lake, Snapshot};
use crate::stores::ended_early;

/// A file of a manifest, with that manifest.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) files: &'a Files,
    pub(super) entry: &'a ManifestEntry,
    pub(super) metrics: &'a Metrics,
}

impl Files {
    pub(super) fn each(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(move |(entry, metrics)| Entry { files: self, entry, metrics })
    }
}

impl Entry<'_> {
    /// The number that tells whether deletes are newer than rows.
    pub(super) fn sequence(&self) -> i64 {
        self.entry.sequence_number.unwrap_or_default()
    }

    /// Whether a file is known to hold a column: its metrics tell of it.
    pub(super) fn holds(&self, id: i32) -> bool {
        self.metrics.hold(id)
    }

    /// Whether the partition of a file gives a value to a column as it is.
    pub(super) fn is_partitioned_by(&self, table: &Table, id: i32) -> bool {
        identity(table, self.files.spec, id).is_some()
    }
}

/// The place in the partitions of a spec, and the field, that has the values of a column as they are.
fn identity(table: &Table, spec: i32, id: i32) -> Option<(usize, &PartitionField)> {
    let spec = table.metadata.partition_spec_by_id(spec)?;
    spec.fields().iter().enumerate().find(|(_, field)| field.source_id == id && field.transform == Transform::Identity)
}

/// Reads the metadata of a state, with the number of its files of deletes. Errors: `Data` for metadata that is missing or not sound;
/// `Unsupported` for what cannot be read right, with the file.
pub(super) async fn read(lake: &Arc<Lake>, table: &Arc<Table>, state: &State) -> Result<(Snapshot, usize)> {
    let manifests = match &state.snapshot {
        Some(snapshot) => files(lake, table, list(lake, table, snapshot).await?).await?,
        None => Vec::new(),
    };
    // What is left is work for a thread that may be busy: there may be a hundred thousand files.
    let (lake, table, state) = (Arc::clone(lake), Arc::clone(table), state.clone());
    let put_together = tokio::task::spawn_blocking(move || assemble(&lake, &table, &state, &manifests));
    put_together.await.map_err(ended_early)?
}

fn assemble(lake: &Arc<Lake>, table: &Table, state: &State, manifests: &[Files]) -> Result<(Snapshot, usize)> {
    let of = |content: ManifestContentType| {
        manifests.iter().filter(|files| files.content == content).flat_map(Files::each).collect::<Vec<Entry<'_>>>()
    };
    let (data, deletes) = (of(ManifestContentType::Data), of(ManifestContentType::Deletes));
    let (schema, known) = columns(&state.schema, table.mapping.as_ref())?;
    let constants = constants(table, &state.schema, &data);
    let specs = data.iter().map(|entry| entry.files.spec).collect();
    let doubtful = doubtful(table, &state.schema, &constants, specs);
    let deleted = Deleted::new(lake, table, &state.schema, &deletes)?;
    let mut rows = Vec::with_capacity(data.len());
    for entry in &data {
        let file = entry.entry.data_file();
        let path = place(lake, entry.entry)?;
        if file.content_type() != DataContentType::Data {
            let error = Error::data("deletes stand among the files of rows").with_hint(RESTORE);
            return Err(error.at(lake.store.place(&path)));
        }
        if file.file_format() != DataFileFormat::Parquet {
            return Err(refused(format!("{} files of Iceberg tables", file.file_format())).at(lake.store.place(&path)));
        }
        let doubtful = doubtful.get(&entry.files.spec).map(Vec::as_slice).unwrap_or_default();
        if let Some(id) = doubtful.iter().find(|id| !entry.holds(**id)) {
            let name = state.schema.name_by_field_id(*id).unwrap_or_default();
            let what = format!("values of \"{name}\" that a file may have to be given, by a default or its partition,");
            return Err(refused(what).at(lake.store.place(&path)));
        }
        let given = constants.iter().map(|column| given(table, &state.schema, *column, entry));
        let given = given.collect::<Result<Vec<ScalarValue>>>().map_err(|error| error.at(lake.store.place(&path)))?;
        let (deletes, count) = deleted.of(entry)?;
        rows.push(DataFile {
            path,
            name: file.file_path().to_owned(),
            size: file.file_size_in_bytes(),
            rows: Some(file.record_count()),
            deleted: count,
            constants: given,
            deletes,
        });
    }
    let fields = state.schema.as_struct().fields().iter().zip(schema.fields()).enumerate();
    let bounds = fields.map(|(place, (field, arrow))| match constants.iter().position(|constant| *constant == place) {
        Some(constant) => of_constant(&rows, constant, field, arrow.data_type()),
        None => bounds(lake, &data, field, arrow.data_type()),
    });
    let bounds = bounds.collect::<Result<Vec<Bounds>>>()?;
    let columns = Arc::new(known.without(&constants));
    let lacking = lacking(table, &state.schema, &schema, &data);
    Ok((Snapshot { schema, columns, constants, files: rows, bounds, lacking }, deletes.len()))
}

/// The columns that every file's partition gives the value of. Files of migrated tables do not hold them, others hold the same value.
fn constants(table: &Table, schema: &Schema, data: &[Entry<'_>]) -> Vec<usize> {
    let specs: BTreeSet<i32> = data.iter().map(|entry| entry.files.spec).collect();
    let fields = schema.as_struct().fields().iter().enumerate();
    let given = |field: &NestedField| !specs.is_empty() && specs.iter().all(|spec| identity(table, *spec, field.id).is_some());
    fields.filter(|(_, field)| field.field_type.is_primitive() && given(field)).map(|(place, _)| place).collect()
}

/// The columns that a file of each spec must be known to hold, because NULL is not what they are without: those with a default, and
/// those that its partition gives, where that of others does not.
fn doubtful(table: &Table, schema: &Schema, constants: &[usize], specs: BTreeSet<i32>) -> HashMap<i32, Vec<i32>> {
    let of_spec = specs.into_iter().map(|id| {
        let mut wanted: HashSet<i32> = table.defaults.clone();
        let fields = table.metadata.partition_spec_by_id(id).map(|spec| spec.fields()).unwrap_or_default();
        let given = fields.iter().filter(|field| field.transform == Transform::Identity);
        wanted.extend(given.map(|field| field.source_id));
        for field in constants.iter().filter_map(|place| schema.as_struct().fields().get(*place)) {
            wanted.remove(&field.id);
        }
        (id, ids_among(schema, &wanted))
    });
    of_spec.collect()
}

/// The value of a column in all rows of a file.
fn given(table: &Table, schema: &Schema, column: usize, entry: &Entry<'_>) -> Result<ScalarValue> {
    let unsound = || Error::data("the partition of this file is not as the table's metadata says");
    let field = schema.as_struct().fields().get(column).ok_or_else(unsound)?;
    let now = field.field_type.as_primitive_type().ok_or_else(unsound)?;
    let (place, _) = identity(table, entry.files.spec, field.id).ok_or_else(unsound)?;
    let literal = match entry.entry.data_file().partition().fields().get(place).ok_or_else(unsound)? {
        None => return null(now),
        Some(literal) => literal.as_primitive_literal().ok_or_else(unsound)?,
    };
    let written = entry.files.schema.field_by_id(field.id).and_then(|field| field.field_type.as_primitive_type());
    value(&literal, written.ok_or_else(unsound)?, now).ok_or_else(unsound)
}

fn null(primitive: &PrimitiveType) -> Result<ScalarValue> {
    let field = NestedField::optional(0, "", primitive.clone().into());
    let (field, _) = super::types::column(&field, None)?;
    Ok(ScalarValue::try_from(field.data_type())?)
}

fn of_constant(rows: &[DataFile], constant: usize, field: &NestedField, data_type: &DataType) -> Result<Bounds> {
    let values: Vec<&ScalarValue> = rows.iter().filter_map(|file| file.constants.get(constant)).collect();
    let orders = field
        .field_type
        .as_primitive_type()
        .is_some_and(|primitive| !matches!(primitive, PrimitiveType::Float | PrimitiveType::Double));
    let unknown = Bounds::unknown(data_type, rows.len());
    let null_counts = values.iter().zip(rows).map(|(value, file)| if value.is_null() { file.rows } else { Some(0) });
    let nulls = UInt64Array::from_iter(null_counts);
    if values.is_empty() || !orders {
        return Ok(Bounds { nulls, ..unknown });
    }
    let min = ScalarValue::iter_to_array(values.iter().map(|value| (*value).clone()))?;
    let exact: Vec<bool> = values.iter().zip(rows).map(|(value, file)| !value.is_null() && file.rows != Some(0)).collect();
    Ok(Bounds { max: Arc::clone(&min), min, nulls, exact: BooleanArray::from(exact) })
}

fn bounds(lake: &Lake, data: &[Entry<'_>], field: &NestedField, data_type: &DataType) -> Result<Bounds> {
    let nulls =
        data.iter().map(|entry| entry.metrics.nulls.get(field.id).copied().filter(|nulls| *nulls <= entry.entry.record_count()));
    let nulls = UInt64Array::from_iter(nulls);
    let unknown = Bounds::unknown(data_type, data.len());
    let primitive = field.field_type.as_primitive_type();
    let Some((now, are_values)) = primitive.and_then(|now| Some((now, bounds_are_values(now)?))) else {
        return Ok(Bounds { nulls, ..unknown });
    };
    if data.is_empty() {
        return Ok(unknown);
    }
    let null = ScalarValue::try_from(data_type)?;
    let (mut min, mut max, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for entry in data {
        let written = entry.files.schema.field_by_id(field.id).and_then(|field| field.field_type.as_primitive_type());
        let placed = |error: Error| error.at(lake.store.place(&entry.files.path));
        let bound = |datum: Datum| value(datum.literal(), datum.data_type(), now);
        let (low, high) = match written {
            Some(written) => {
                let (low, high) = (entry.metrics.lower(field.id, written), entry.metrics.upper(field.id, written));
                (low.map_err(placed)?, high.map_err(placed)?)
            }
            None => (None, None),
        };
        let (low, high) = (low.and_then(bound), high.and_then(bound));
        exact.push(are_values && low.is_some() && high.is_some());
        min.push(low.unwrap_or_else(|| null.clone()));
        max.push(high.unwrap_or_else(|| null.clone()));
    }
    let (min, max) = (ScalarValue::iter_to_array(min)?, ScalarValue::iter_to_array(max)?);
    Ok(Bounds { min, max, nulls, exact: BooleanArray::from(exact) })
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{metadata, table};
    use super::*;

    #[test]
    fn columns_that_some_partitions_give_are_doubtful_in_those() {
        let mut metadata = metadata();
        let day = serde_json::json!({ "name": "day", "transform": "identity", "source-id": 2, "field-id": 1000 });
        metadata["partition-specs"] = serde_json::json!([{ "spec-id": 0, "fields": [] }, { "spec-id": 1, "fields": [day] }]);
        let table = table(&metadata).unwrap();
        let schema = table.metadata.current_schema();
        let both = BTreeSet::from([0, 1]);
        assert_eq!(doubtful(&table, schema, &[], both.clone()), HashMap::from([(0, vec![]), (1, vec![2])]));
        assert_eq!(doubtful(&table, schema, &[1], both), HashMap::from([(0, vec![]), (1, vec![])]));
    }
}
