//! The files of a table at one version, from the log as the kernel reads it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, MapArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use delta_kernel::SnapshotRef;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::scan::StatsOptions;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::deletes::{Kept, Vector};
use super::engine::Kernel;
use super::log::log_of;
use super::stats::{Collected, Stats};
use super::{types, values};
use crate::lake::{DataFile, Deletes, Lake, Snapshot};

/// The files of a table, whose folder is `table`, at the version of a kernel's snapshot.
/// Errors: `Unsupported` for columns that are not read; `Data` where the log is damaged.
pub(super) fn read(kernel: &Kernel, kept: &Kept, table: &Path, of: &SnapshotRef) -> Result<Snapshot> {
    let configuration = of.table_configuration();
    let (logical, mode) = (of.schema(), configuration.column_mapping_mode());
    let place = || kernel.lake().store.place(&log_of(table));
    let (schema, columns) = types::shape(&logical, mode).map_err(|error| error.at(place()))?;
    if schema.fields().is_empty() {
        return Err(Error::unsupported("the table has no columns").with_hint("add a column").at(place()));
    }
    let partitions = configuration.metadata().partition_columns();
    let constants =
        (0..).zip(logical.fields()).filter(|(_, field)| partitions.contains(field.name())).map(|(at, _)| at).collect();
    let mut reading = Reading {
        kernel,
        kept,
        table,
        names: logical.fields().map(|field| field.physical_name(mode).to_owned()).collect(),
        collected: schema.fields().iter().map(|field| Collected::new(field.data_type())).collect(),
        schema: Arc::clone(&schema),
        constants,
        files: Vec::new(),
    };
    // What checkpoints have as structures only is written as JSON; else every file's JSON would be parsed into structures too.
    let stats = if of.table_properties().should_write_stats_as_json() { StatsOptions::json_only() } else { StatsOptions::all() };
    let scan = Arc::clone(of).scan_builder().with_stats(stats).without_row_transforms().build();
    let scan = kernel.heard(scan)?;
    for some in kernel.heard(scan.scan_metadata(kernel.engine()))? {
        let (rows, chosen) = kernel.heard(some)?.scan_files.into_parts();
        let rows = kernel.heard(rows.try_into_record_batch())?;
        reading.add(&rows, &chosen)?;
    }
    let Reading { collected, constants, files, .. } = reading;
    let bounds = collected.into_iter().map(|column| column.finish(files.len())).collect::<Result<_>>()?;
    let columns = Arc::new(columns.without(&constants));
    Ok(Snapshot { schema, columns, constants, files, bounds, lacking: None })
}

/// What removes each file of a version, as actions of a commit that is made at this time, in milliseconds since 1970.
/// Errors: `Data` where the log is damaged.
pub(super) fn removals(kernel: &Kernel, of: &SnapshotRef, now: i64) -> Result<Vec<Value>> {
    let configuration = of.table_configuration();
    let (schema, mode) = (of.schema(), configuration.column_mapping_mode());
    let is_partition = |name: &String| configuration.metadata().partition_columns().contains(name);
    let partitions = schema.fields().filter(|field| is_partition(field.name()));
    let partitions: Vec<&str> = partitions.map(|field| field.physical_name(mode)).collect();
    let scan = kernel.heard(Arc::clone(of).scan_builder().without_row_transforms().build())?;
    let mut removals = Vec::new();
    for some in kernel.heard(scan.scan_metadata(kernel.engine()))? {
        let (rows, chosen) = kernel.heard(some)?.scan_files.into_parts();
        let rows = kernel.heard(rows.try_into_record_batch())?;
        let paths: &StringArray = typed(rows.column_by_name("path"))?;
        let sizes: &Int64Array = typed(rows.column_by_name("size"))?;
        let vectors = Vectors::of(typed(rows.column_by_name("deletionVector"))?)?;
        let more: &StructArray = typed(rows.column_by_name("fileConstantValues"))?;
        let values: &MapArray = typed(more.column_by_name("partitionValues"))?;
        for row in (0..rows.num_rows()).filter(|row| chosen.get(*row) != Some(&false) && paths.is_valid(*row)) {
            let written = partition_values(values, row)?;
            let values: Map<String, Value> =
                partitions.iter().map(|name| ((*name).to_owned(), json!(written.get(*name)))).collect();
            let mut removal = json!({
                "path": paths.value(row),
                "deletionTimestamp": now,
                "dataChange": true,
                "extendedFileMetadata": true,
                "partitionValues": values,
                "size": sizes.value(row),
            });
            if let (Some(vector), Some(parts)) = (vectors.written(row), removal.as_object_mut()) {
                parts.insert("deletionVector".to_owned(), vector);
            }
            removals.push(json!({ "remove": removal }));
        }
    }
    Ok(removals)
}

/// The snapshot as far as it is read.
struct Reading<'a> {
    kernel: &'a Kernel,
    kept: &'a Kept,
    table: &'a Path,
    /// What files and statistics call the columns.
    names: Vec<String>,
    collected: Vec<Collected>,
    schema: SchemaRef,
    constants: Vec<usize>,
    files: Vec<DataFile>,
}

impl Reading<'_> {
    /// Adds the files that rows of the log name, of those that are chosen: the ones that are not said not to be.
    fn add(&mut self, rows: &RecordBatch, chosen: &[bool]) -> Result<()> {
        let paths: &StringArray = typed(rows.column_by_name("path"))?;
        let sizes: &Int64Array = typed(rows.column_by_name("size"))?;
        let stats: &StringArray = typed(rows.column_by_name("stats"))?;
        let vectors = Vectors::of(typed(rows.column_by_name("deletionVector"))?)?;
        let more: &StructArray = typed(rows.column_by_name("fileConstantValues"))?;
        let partitions: &MapArray = typed(more.column_by_name("partitionValues"))?;
        for row in (0..rows.num_rows()).filter(|row| chosen.get(*row) != Some(&false) && paths.is_valid(*row)) {
            let name = paths.value(row);
            let stats = Stats::parse(stats.is_valid(row).then(|| stats.value(row)));
            let size = Some(sizes).filter(|sizes| sizes.is_valid(row)).and_then(|sizes| u64::try_from(sizes.value(row)).ok());
            let size = size.ok_or_else(|| self.kernel.damaged(format!("the log tells no size of the file \"{name}\"")))?;
            let constants = match self.constants.is_empty() {
                true => Vec::new(),
                false => self.constants(name, &partition_values(partitions, row)?)?,
            };
            let vector = self.vector(&vectors, row)?;
            for (column, collected) in self.collected.iter_mut().enumerate() {
                match self.constants.iter().position(|constant| *constant == column).and_then(|at| constants.get(at)) {
                    Some(value) => collected.add_constant(&stats, value)?,
                    None => collected.add(&stats, self.names.get(column).map_or("", String::as_str))?,
                }
            }
            self.files.push(DataFile {
                path: located(self.kernel.lake(), self.table, name)?,
                name: name.to_owned(),
                size,
                rows: stats.num_records,
                deleted: vector.as_ref().map_or(Some(0), Vector::cardinality),
                constants,
                deletes: vector.map(|vector| Arc::new(vector) as Arc<dyn Deletes>),
            });
        }
        Ok(())
    }

    /// The values of the partition columns in a file. One that the log does not have is NULL, and so is an empty text.
    fn constants(&self, file: &str, written: &HashMap<String, String>) -> Result<Vec<ScalarValue>> {
        let value = |column: &usize| {
            let field = self.schema.field(*column);
            let text = self.names.get(*column).and_then(|name| written.get(name)).filter(|text| !text.is_empty());
            let Some(text) = text else { return values::null(field.data_type()) };
            values::partition(field.data_type(), text).ok_or_else(|| {
                let message = format!("the partition column \"{}\" cannot be read as {}", field.name(), field.data_type());
                self.kernel.damaged(format!("{message} for the file \"{file}\""))
            })
        };
        self.constants.iter().map(value).collect()
    }

    fn vector(&self, vectors: &Vectors<'_>, row: usize) -> Result<Option<Vector>> {
        if vectors.kind.is_null(row) {
            return Ok(None);
        }
        if vectors.path.is_null(row) || vectors.size.is_null(row) || vectors.cardinality.is_null(row) {
            return Err(self.kernel.damaged("the log describes a deletion vector in part only"));
        }
        let kind = self.kernel.heard(vectors.kind.value(row).parse())?;
        let offset = vectors.offset.is_valid(row).then(|| vectors.offset.value(row));
        let (size, cardinality) = (vectors.size.value(row), vectors.cardinality.value(row));
        let described = DeletionVectorDescriptor::try_new(kind, vectors.path.value(row), offset, size, cardinality);
        let described = self.kernel.heard(described)?;
        Vector::new(self.kernel, self.kept, self.table, &log_of(self.table), described).map(Some)
    }
}

/// What describes the deletion vectors in rows of the log.
struct Vectors<'a> {
    kind: &'a StringArray,
    path: &'a StringArray,
    offset: &'a Int32Array,
    size: &'a Int32Array,
    cardinality: &'a Int64Array,
}

impl<'a> Vectors<'a> {
    fn of(described: &'a StructArray) -> Result<Self> {
        Ok(Self {
            kind: typed(described.column_by_name("storageType"))?,
            path: typed(described.column_by_name("pathOrInlineDv"))?,
            offset: typed(described.column_by_name("offset"))?,
            size: typed(described.column_by_name("sizeInBytes"))?,
            cardinality: typed(described.column_by_name("cardinality"))?,
        })
    }

    /// What describes the vector of a file, as an action has it; none where the file has none.
    fn written(&self, row: usize) -> Option<Value> {
        let mut vector = self.kind.is_valid(row).then(|| {
            json!({
                "storageType": self.kind.value(row),
                "pathOrInlineDv": self.path.value(row),
                "sizeInBytes": self.size.value(row),
                "cardinality": self.cardinality.value(row),
            })
        })?;
        if let (true, Some(parts)) = (self.offset.is_valid(row), vector.as_object_mut()) {
            parts.insert("offset".to_owned(), json!(self.offset.value(row)));
        }
        Some(vector)
    }
}

/// A column of what the kernel gives, whose types are fixed.
fn typed<T: 'static>(column: Option<&ArrayRef>) -> Result<&T> {
    let column = column.and_then(|column| column.as_any().downcast_ref::<T>());
    column.ok_or_else(|| Error::internal("the kernel gives other columns than it says"))
}

/// The partition values of a file, by what files call the columns; without those that are NULL.
fn partition_values(all: &MapArray, row: usize) -> Result<HashMap<String, String>> {
    if all.is_null(row) {
        return Ok(HashMap::new());
    }
    let entries = all.value(row);
    let keys: &StringArray = typed(entries.columns().first())?;
    let values: &StringArray = typed(entries.columns().get(1))?;
    let both = keys.iter().zip(values.iter());
    Ok(both.filter_map(|(key, value)| Some((key?.to_owned(), value?.to_owned()))).collect())
}

/// Where a file is that the log names by an address, or by a path within the table. Both are written as in a URL.
fn located(lake: &Lake, table: &Path, name: &str) -> Result<Path> {
    let damaged = |why: &str| {
        let error = Error::data(format!("the log names the file \"{name}\", {why}")).with_hint("write the table again");
        error.at(lake.store.place(&log_of(table)))
    };
    let decoded = percent_decode_str(name).decode_utf8().map_err(|_| damaged("which is not UTF-8"))?;
    if is_address(name) {
        return lake.inside(&decoded).map_err(|error| error.at(lake.store.place(&log_of(table))));
    }
    let within = Path::parse(&decoded).map_err(|_| damaged("which is no path"))?;
    if within.as_ref().is_empty() {
        return Err(damaged("which is the table itself"));
    }
    Ok(table.parts().chain(within.parts()).collect())
}

/// Whether a path begins at a root, or with a scheme.
fn is_address(path: &str) -> bool {
    let scheme = |start: &str| {
        start.starts_with(|first: char| first.is_ascii_alphabetic())
            && start.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    };
    path.starts_with('/') || path.split_once(':').is_some_and(|(start, _)| scheme(start))
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses_begin_with_a_scheme() {
        for address in ["/data/a.parquet", "file:///data/a.parquet", "s3a://b/a.parquet", "file:/a"] {
            assert!(is_address(address), "{address}");
        }
        for path in ["a.parquet", "time=10:00/a.parquet", "x/s3://b", "a%3Ab.parquet"] {
            assert!(!is_address(path), "{path}");
        }
    }
}
