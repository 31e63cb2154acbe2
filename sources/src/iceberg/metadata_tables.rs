//! What the metadata of a table says, as tables: `"t$snapshots"` and its like, with the columns that other engines give them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int32Builder, Int64Array, Int64Builder, MapBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMillisecondArray,
};
use datafusion::datasource::MemTable;
use iceberg::spec::{DataContentType, DataFile, ManifestContentType, ManifestFile, SnapshotRetention, Transform};
use nexus_flight_catalog::Result;
use object_store::path::Path;

use super::manifests::{Files, files, list};
use super::metrics::ById;
use super::snapshot::Entry;
use super::table::{Table, parsed, unreadable};
use crate::lake::Lake;

/// A table about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataTable {
    Files,
    History,
    Manifests,
    Partitions,
    Refs,
    Snapshots,
}

impl MetadataTable {
    /// Each, with what stands after the `$` in its name.
    pub(super) const ALL: [(&'static str, Self); 6] = [
        ("files", Self::Files),
        ("history", Self::History),
        ("manifests", Self::Manifests),
        ("partitions", Self::Partitions),
        ("refs", Self::Refs),
        ("snapshots", Self::Snapshots),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, table)| *table)
    }

    /// Its rows for the state of now; `path` is the file that tells of it. Errors: `Data` for metadata that is missing or not
    /// sound.
    pub(super) async fn read(self, lake: &Arc<Lake>, table: &Arc<Table>, path: &Path) -> Result<MemTable> {
        let now = table.metadata.current_snapshot();
        let manifests = match (self, now) {
            (Self::Files | Self::Partitions | Self::Manifests, Some(snapshot)) => list(lake, table, snapshot).await?,
            _ => Vec::new(),
        };
        let found = match self {
            Self::Files | Self::Partitions => files(lake, table, manifests.clone()).await?,
            _ => Vec::new(),
        };
        let table = Arc::clone(table);
        // The crate of the format panics where it shows a value that is none of its type.
        let batch = parsed(lake, path, move || match self {
            Self::Snapshots => snapshots(&table),
            Self::History => history(&table),
            Self::Refs => refs(&table),
            Self::Manifests => of_manifests(&manifests),
            Self::Files => of_files(&table, &found),
            Self::Partitions => partitions(&table, &found),
        });
        let batch = batch.await?;
        Ok(MemTable::try_new(batch.schema(), vec![vec![batch]])?)
    }
}

type Column = (&'static str, ArrayRef, bool);

fn column(name: &'static str, values: ArrayRef, nullable: bool) -> Column {
    (name, values, nullable)
}

fn longs(name: &'static str, values: impl Iterator<Item = i64>) -> Column {
    column(name, Arc::new(Int64Array::from_iter_values(values)), false)
}

fn some_longs(name: &'static str, values: impl Iterator<Item = Option<i64>>) -> Column {
    column(name, Arc::new(Int64Array::from_iter(values)), true)
}

fn ints(name: &'static str, values: impl Iterator<Item = i32>) -> Column {
    column(name, Arc::new(Int32Array::from_iter_values(values)), false)
}

fn texts(name: &'static str, values: impl Iterator<Item = String>) -> Column {
    column(name, Arc::new(StringArray::from_iter_values(values)), false)
}

fn some_texts(name: &'static str, values: impl Iterator<Item = Option<String>>) -> Column {
    column(name, Arc::new(StringArray::from_iter(values)), true)
}

fn times(name: &'static str, values: impl Iterator<Item = Option<i64>>) -> Column {
    column(name, Arc::new(TimestampMillisecondArray::from_iter(values).with_timezone("UTC")), true)
}

/// A count of the metadata. None there is beyond what this holds.
fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn batch(columns: Vec<Column>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn snapshots(table: &Table) -> Result<RecordBatch> {
    let mut all: Vec<_> = table.metadata.snapshots().collect();
    all.sort_by_key(|snapshot| (snapshot.timestamp_ms(), snapshot.snapshot_id()));
    let mut summary = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for snapshot in &all {
        let sorted: BTreeMap<&String, &String> = snapshot.summary().additional_properties.iter().collect();
        for (key, value) in sorted {
            summary.keys().append_value(key);
            summary.values().append_value(value);
        }
        summary.append(true)?;
    }
    batch(vec![
        times("committed_at", all.iter().map(|snapshot| Some(snapshot.timestamp_ms()))),
        longs("snapshot_id", all.iter().map(|snapshot| snapshot.snapshot_id())),
        some_longs("parent_id", all.iter().map(|snapshot| snapshot.parent_snapshot_id())),
        texts("operation", all.iter().map(|snapshot| snapshot.summary().operation.as_str().to_owned())),
        texts("manifest_list", all.iter().map(|snapshot| snapshot.manifest_list().to_owned())),
        column("summary", Arc::new(summary.finish()), false),
    ])
}

fn history(table: &Table) -> Result<RecordBatch> {
    let mut ancestors = HashSet::new();
    let mut next = table.metadata.current_snapshot_id();
    while let Some(id) = next {
        // A chain that leads back to itself has an end too.
        next = if ancestors.insert(id) {
            table.metadata.snapshot_by_id(id).and_then(|snapshot| snapshot.parent_snapshot_id())
        } else {
            None
        };
    }
    let log = table.metadata.history();
    let parent = |id: i64| table.metadata.snapshot_by_id(id)?.parent_snapshot_id();
    let current: BooleanArray = log.iter().map(|entry| Some(ancestors.contains(&entry.snapshot_id))).collect();
    batch(vec![
        times("made_current_at", log.iter().map(|entry| Some(entry.timestamp_ms))),
        longs("snapshot_id", log.iter().map(|entry| entry.snapshot_id)),
        some_longs("parent_id", log.iter().map(|entry| parent(entry.snapshot_id))),
        column("is_current_ancestor", Arc::new(current), false),
    ])
}

fn refs(table: &Table) -> Result<RecordBatch> {
    let all = || table.refs.values().map(|reference| &reference.retention);
    let kind = |retention: &SnapshotRetention| match retention {
        SnapshotRetention::Branch { .. } => "BRANCH".to_owned(),
        SnapshotRetention::Tag { .. } => "TAG".to_owned(),
    };
    let age = |retention: &SnapshotRetention| match retention {
        SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms } => *max_ref_age_ms,
    };
    let least = |retention: &SnapshotRetention| match retention {
        SnapshotRetention::Branch { min_snapshots_to_keep, .. } => *min_snapshots_to_keep,
        SnapshotRetention::Tag { .. } => None,
    };
    let oldest = |retention: &SnapshotRetention| match retention {
        SnapshotRetention::Branch { max_snapshot_age_ms, .. } => *max_snapshot_age_ms,
        SnapshotRetention::Tag { .. } => None,
    };
    batch(vec![
        texts("name", table.refs.keys().cloned()),
        texts("type", all().map(kind)),
        longs("snapshot_id", table.refs.values().map(|reference| reference.snapshot_id)),
        some_longs("max_reference_age_in_ms", all().map(age)),
        column("min_snapshots_to_keep", Arc::new(Int32Array::from_iter(all().map(least))), true),
        some_longs("max_snapshot_age_in_ms", all().map(oldest)),
    ])
}

fn of_manifests(all: &[ManifestFile]) -> Result<RecordBatch> {
    let (data, deletes) = (ManifestContentType::Data, ManifestContentType::Deletes);
    batch(vec![
        ints("content", all.iter().map(|manifest| manifest.content as i32)),
        texts("path", all.iter().map(|manifest| manifest.manifest_path.clone())),
        longs("length", all.iter().map(|manifest| manifest.manifest_length)),
        ints("partition_spec_id", all.iter().map(|manifest| manifest.partition_spec_id)),
        longs("added_snapshot_id", all.iter().map(|manifest| manifest.added_snapshot_id)),
        column("added_data_files_count", count(all, data, |manifest| manifest.added_files_count), true),
        column("existing_data_files_count", count(all, data, |manifest| manifest.existing_files_count), true),
        column("deleted_data_files_count", count(all, data, |manifest| manifest.deleted_files_count), true),
        column("added_delete_files_count", count(all, deletes, |manifest| manifest.added_files_count), true),
        column("existing_delete_files_count", count(all, deletes, |manifest| manifest.existing_files_count), true),
        column("deleted_delete_files_count", count(all, deletes, |manifest| manifest.deleted_files_count), true),
    ])
}

/// How many files of a content each manifest has in some status.
fn count(all: &[ManifestFile], content: ManifestContentType, of: fn(&ManifestFile) -> Option<u32>) -> ArrayRef {
    let counts = all.iter().map(|manifest| match manifest.content == content {
        true => of(manifest).and_then(|count| i32::try_from(count).ok()),
        false => Some(0),
    });
    Arc::new(Int32Array::from_iter(counts))
}

fn entries(manifests: &[Files]) -> Vec<Entry<'_>> {
    manifests.iter().flat_map(Files::each).collect()
}

/// The bounds of columns are not here: they are values of rows, which not everybody may see who may see the table.
fn of_files(table: &Table, manifests: &[Files]) -> Result<RecordBatch> {
    let all = entries(manifests);
    let files = || all.iter().map(|entry| entry.entry.data_file());
    let partitions = all.iter().map(|entry| partition(table, entry)).collect::<Result<Vec<Option<String>>>>()?;
    batch(vec![
        ints("content", files().map(|file| file.content_type() as i32)),
        texts("file_path", files().map(|file| file.file_path().to_owned())),
        texts("file_format", files().map(|file| file.file_format().to_string().to_uppercase())),
        ints("spec_id", all.iter().map(|entry| entry.files.spec)),
        some_texts("partition", partitions.into_iter()),
        longs("record_count", files().map(|file| long(file.record_count()))),
        longs("file_size_in_bytes", files().map(|file| long(file.file_size_in_bytes()))),
        column("column_sizes", counts(all.iter().map(|entry| &entry.metrics.sizes))?, false),
        column("value_counts", counts(all.iter().map(|entry| &entry.metrics.values))?, false),
        column("null_value_counts", counts(all.iter().map(|entry| &entry.metrics.nulls))?, false),
        column("nan_value_counts", counts(all.iter().map(|entry| &entry.metrics.nans))?, false),
        column("sort_order_id", Arc::new(Int32Array::from_iter(files().map(DataFile::sort_order_id))), true),
    ])
}

fn counts<'a>(files: impl Iterator<Item = &'a ById<u64>>) -> Result<ArrayRef> {
    let mut counts = MapBuilder::new(None, Int32Builder::new(), Int64Builder::new());
    for file in files {
        for (id, count) in file.iter() {
            counts.keys().append_value(id);
            counts.values().append_value(long(*count));
        }
        counts.append(true)?;
    }
    Ok(Arc::new(counts.finish()))
}

/// The partition of a file as its folder would be called; none where the table has none. It is made from the columns of then.
fn partition(table: &Table, entry: &Entry<'_>) -> Result<Option<String>> {
    let Some(spec) = table.metadata.partition_spec_by_id(entry.files.spec).filter(|spec| !spec.is_unpartitioned()) else {
        return Ok(None);
    };
    let parts = spec.fields().iter().zip(entry.entry.data_file().partition().iter()).map(|(field, value)| -> Result<String> {
        // The column of a field that was dropped may be gone.
        if field.transform == Transform::Void {
            return Ok(format!("{}=null", field.name));
        }
        let column = entry.files.schema.field_by_id(field.source_id);
        let column = column.ok_or_else(|| unreadable(&format!("no column has the id {} of a partition", field.source_id)))?;
        let of = field.transform.result_type(&column.field_type).map_err(|cause| unreadable(&cause.message()))?;
        Ok(format!("{}={}", field.name, field.transform.to_human_string(&of, value)))
    });
    Ok(Some(parts.collect::<Result<Vec<String>>>()?.join("/")))
}

/// What the files of a partition come to.
#[derive(Default)]
struct Sums {
    rows: u64,
    files: i32,
    bytes: u64,
    by_position: (u64, i32),
    by_value: (u64, i32),
}

fn partitions(table: &Table, manifests: &[Files]) -> Result<RecordBatch> {
    let mut sums: BTreeMap<(Option<String>, i32), Sums> = BTreeMap::new();
    for entry in entries(manifests) {
        let (file, key) = (entry.entry.data_file(), (partition(table, &entry)?, entry.files.spec));
        let sums = sums.entry(key).or_default();
        match file.content_type() {
            DataContentType::Data => {
                sums.rows = sums.rows.saturating_add(file.record_count());
                sums.files = sums.files.saturating_add(1);
                sums.bytes = sums.bytes.saturating_add(file.file_size_in_bytes());
            }
            content => {
                let by_position = content == DataContentType::PositionDeletes;
                let deletes = if by_position { &mut sums.by_position } else { &mut sums.by_value };
                *deletes = (deletes.0.saturating_add(file.record_count()), deletes.1.saturating_add(1));
            }
        }
    }
    let all = || sums.values();
    batch(vec![
        some_texts("partition", sums.keys().map(|(partition, _)| partition.clone())),
        ints("spec_id", sums.keys().map(|(_, spec)| *spec)),
        longs("record_count", all().map(|sums| long(sums.rows))),
        ints("file_count", all().map(|sums| sums.files)),
        longs("total_data_file_size_in_bytes", all().map(|sums| long(sums.bytes))),
        longs("position_delete_record_count", all().map(|sums| long(sums.by_position.0))),
        ints("position_delete_file_count", all().map(|sums| sums.by_position.1)),
        longs("equality_delete_record_count", all().map(|sums| long(sums.by_value.0))),
        ints("equality_delete_file_count", all().map(|sums| sums.by_value.1)),
    ])
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::super::table::tests::{metadata, table};
    use super::*;

    #[test]
    fn history_and_references_are_tables() {
        let table = table(&metadata()).unwrap();
        insta::assert_snapshot!(pretty_format_batches(&[history(&table).unwrap()]).unwrap(), @r"
        +----------------------+-------------+-----------+---------------------+
        | made_current_at      | snapshot_id | parent_id | is_current_ancestor |
        +----------------------+-------------+-----------+---------------------+
        | 2024-01-01T00:00:00Z | 11          |           | true                |
        | 2024-01-02T00:00:00Z | 22          | 11        | true                |
        +----------------------+-------------+-----------+---------------------+
        ");
        let names = refs(&table).unwrap().column(0).as_any().downcast_ref::<StringArray>().unwrap().clone();
        assert_eq!(names.iter().flatten().collect::<Vec<_>>(), ["first", "main", "work"]);
        assert_eq!(snapshots(&table).unwrap().num_rows(), 2);
    }

    #[test]
    fn names_are_those_of_iceberg() {
        assert_eq!(MetadataTable::named("files"), Some(MetadataTable::Files));
        assert_eq!(MetadataTable::named("file"), None);
    }
}
