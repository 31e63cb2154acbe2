//! The manifests of a snapshot: which files it is made of.

use std::sync::Arc;

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    FormatVersion, Manifest, ManifestContentType, ManifestEntry, ManifestEntryRef, ManifestFile, ManifestList, ManifestMetadata,
    ManifestStatus, PartitionField, SchemaRef, Snapshot, Transform,
};
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use serde_json::Value;

use super::avro;
use super::metrics::Metrics;
use super::partition::named_as_written;
use super::table::{Table, parsed, refused, unreadable};
use crate::lake::{Lake, Taken};

/// How many manifests are read side by side.
const AT_ONCE: usize = 8;
/// How many files of a manifest are worth a thread to decode them.
const PART: u64 = 1000;

/// The counts of a list of manifests, as writers name them now, and as they once did.
const COUNTS: [(&str, &str); 3] = [
    ("added_files_count", "added_data_files_count"),
    ("existing_files_count", "existing_data_files_count"),
    ("deleted_files_count", "deleted_data_files_count"),
];

/// A manifest with the files in it that the snapshot has.
#[derive(Debug)]
pub(super) struct Files {
    /// Where the manifest is.
    pub(super) path: Path,
    pub(super) content: ManifestContentType,
    pub(super) spec: i32,
    /// The columns of the table when it was written.
    pub(super) schema: SchemaRef,
    /// With the numbers that they have from the manifest, and without metrics, which stand beside them.
    pub(super) entries: Vec<(ManifestEntry, Metrics)>,
    /// The memory that they take.
    _taken: Taken,
}

/// The manifests of a snapshot. Errors: `Data` where their list is not there or not sound.
pub(super) async fn list(lake: &Lake, table: &Table, snapshot: &Snapshot) -> Result<Vec<ManifestFile>> {
    let path = lake.inside(snapshot.manifest_list())?;
    let (version, mut taken) = (table.metadata.format_version(), lake.room.taken());
    let bytes = lake.read_in(&path, avro::LARGEST as u64, &mut taken).await?;
    let list = parsed(lake, &path, move || {
        let mut file = avro::File::new(&bytes, &mut taken)?;
        if version == FormatVersion::V1 {
            counted(&mut file)?;
        }
        let list = ManifestList::parse_with_version(&file.bytes(), version).map_err(|cause| unreadable(&cause.message()))?;
        if list.entries().len() as u64 != file.values {
            return Err(cut());
        }
        Ok(list)
    });
    Ok(list.await?.consume_entries().into_iter().collect())
}

/// Gives the counts of a list of format 1 their old names: by others its reader does not find them, and takes them for not told.
fn counted(file: &mut avro::File) -> Result<()> {
    let schema = file.header.get_mut("avro.schema").ok_or_else(cut)?;
    let mut list: Value = serde_json::from_slice(schema).map_err(|cause| unreadable(&cause))?;
    let fields = list.get_mut("fields").and_then(Value::as_array_mut);
    for name in fields.into_iter().flatten().filter_map(|field| field.get_mut("name")) {
        if let Some((_, old)) = COUNTS.iter().find(|(now, _)| name.as_str() == Some(*now)) {
            *name = (*old).into();
        }
    }
    *schema = serde_json::to_vec(&list).map_err(|cause| unreadable(&cause))?;
    Ok(())
}

/// The files of some manifests that are not deleted, in the order of the manifests.
/// Errors: `Data` where one is not there, not sound, or has not as many files as its list says.
pub(super) async fn files(lake: &Arc<Lake>, table: &Arc<Table>, manifests: Vec<ManifestFile>) -> Result<Vec<Files>> {
    // Also those that are said to have none: nothing but what they hold tells a number that is wrong.
    let read = manifests.into_iter().map(|manifest| read(Arc::clone(lake), Arc::clone(table), manifest));
    stream::iter(read.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
}

async fn read(lake: Arc<Lake>, table: Arc<Table>, manifest: ManifestFile) -> Result<Files> {
    let path = lake.inside(&manifest.manifest_path)?;
    if manifest.key_metadata.as_ref().is_some_and(|key| !key.is_empty()) {
        return Err(refused("encrypted manifests".to_owned()).at(lake.store.place(&path)));
    }
    let mut taken = lake.room.taken();
    let bytes = lake.read_in(&path, avro::LARGEST as u64, &mut taken).await?;
    let counts = [manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count];
    // Tables of format 1 need not have counts.
    let is_other = counts.contains(&None) && i64::try_from(bytes.len()) != Ok(manifest.manifest_length);
    let unpacked = parsed(&lake, &path, move || {
        let mut file = avro::File::of_manifest(&bytes, &mut taken)?;
        if is_other {
            return Err(cut());
        }
        named_as_written(&mut file)?;
        let parts = (file.values / PART).clamp(1, AT_ONCE as u64) as usize;
        let parts = file.parts(parts);
        Ok((file.metrics, parts, taken))
    });
    let (metrics, parts, taken) = unpacked.await?;
    let decode =
        |part: Vec<u8>| parsed(&lake, &path, move || Manifest::parse_avro(&part).map_err(|cause| unreadable(&cause.message())));
    let decoded = try_join_all(parts.into_iter().map(decode).collect::<Vec<_>>()).await?;
    let own = path.clone();
    parsed(&lake, &path, move || {
        let (metadata, entries) = joined(decoded).ok_or_else(cut)?;
        if entries.len() != metrics.len() {
            return Err(cut());
        }
        check(&table, &manifest, &metadata, &entries)?;
        let schema = Arc::clone(metadata.schema());
        let alive = entries.into_iter().zip(metrics).filter(|(entry, _)| entry.is_alive());
        let inherited =
            alive.map(|(entry, metrics)| inherit(Arc::unwrap_or_clone(entry), &manifest).map(|entry| (entry, metrics)));
        let entries = inherited.collect::<Result<_>>()?;
        Ok(Files { path: own, content: manifest.content, spec: manifest.partition_spec_id, schema, entries, _taken: taken })
    })
    .await
}

/// What stands in the header of the manifest of which these are the parts, and its files.
fn joined(parts: Vec<Manifest>) -> Option<(ManifestMetadata, Vec<ManifestEntryRef>)> {
    let mut parts = parts.into_iter().map(Manifest::into_parts);
    let (mut entries, metadata) = parts.next()?;
    entries.extend(parts.flat_map(|(entries, _)| entries));
    Some((metadata, entries))
}

/// Whether a manifest is the one that its list tells of.
fn check(table: &Table, manifest: &ManifestFile, metadata: &ManifestMetadata, entries: &[ManifestEntryRef]) -> Result<()> {
    let with = |status| entries.iter().filter(|entry| entry.status() == status).count();
    for (said, status) in [
        (manifest.added_files_count, ManifestStatus::Added),
        (manifest.existing_files_count, ManifestStatus::Existing),
        (manifest.deleted_files_count, ManifestStatus::Deleted),
    ] {
        if said.is_some_and(|said| with(status) != said as usize) {
            return Err(cut());
        }
    }
    let Some(spec) = table.metadata.partition_spec_by_id(manifest.partition_spec_id) else {
        return Err(Error::data(format!("the table has no partition spec {}", manifest.partition_spec_id)).with_hint(RESTORE));
    };
    let own = metadata.partition_spec().fields();
    let same = |(own, known): (&PartitionField, &PartitionField)| {
        own.transform == known.transform && (own.source_id == known.source_id || own.transform == Transform::Void)
    };
    let has_spec = own.len() == spec.fields().len() && own.iter().zip(spec.fields()).all(same);
    if *metadata.content() != manifest.content || !has_spec {
        return Err(cut());
    }
    if let Some(entry) = entries.iter().find(|entry| entry.is_alive() && lacks_values(manifest, own, entry)) {
        let message = format!("the partition of {} has NULL where the list of manifests says that none has", entry.file_path());
        return Err(Error::data(message).with_hint("write the manifest again, or go back to an earlier state of the table"));
    }
    Ok(())
}

/// Whether the partition of a file has NULL for what no file of the manifest is said to have NULL for.
fn lacks_values(manifest: &ManifestFile, fields: &[PartitionField], entry: &ManifestEntry) -> bool {
    let summaries = manifest.partitions.as_deref().unwrap_or_default();
    let mut values = summaries.iter().zip(fields).zip(entry.data_file().partition().fields());
    values.any(|((summary, field), value)| !summary.contains_null && value.is_none() && field.transform != Transform::Void)
}

/// What is advised where metadata is damaged.
pub(super) const RESTORE: &str = "restore the file, or go back to an earlier state of the table";

/// The file is another than the one that is meant.
pub(super) fn cut() -> Error {
    Error::data("this is not the file that the table's metadata tells of: it was cut or replaced").with_hint(RESTORE)
}

/// Sequence numbers and snapshots are those of the manifest where a file has none, as the specification says of inheritance.
fn inherit(mut entry: ManifestEntry, manifest: &ManifestFile) -> Result<ManifestEntry> {
    let inherits = entry.status == ManifestStatus::Added || manifest.sequence_number == 0;
    let inherited = inherits.then_some(manifest.sequence_number);
    entry.snapshot_id = entry.snapshot_id.or(Some(manifest.added_snapshot_id));
    entry.sequence_number = entry.sequence_number.or(inherited);
    if entry.sequence_number.is_none() {
        return Err(Error::data(format!("{} is from before and has no sequence number", entry.file_path())));
    }
    Ok(entry)
}

/// Where a file of rows or deletes is. Errors: `Unsupported` for an encrypted one.
pub(super) fn place(lake: &Lake, entry: &ManifestEntry) -> Result<Path> {
    let path = lake.inside(entry.file_path())?;
    if entry.data_file().key_metadata().is_some_and(|key| !key.is_empty()) {
        return Err(refused("encrypted files".to_owned()).at(lake.store.place(&path)));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::avro::tests::of_header;
    use super::*;

    #[test]
    fn counts_have_their_old_names() {
        let field = |name: &str| json!({ "name": name, "type": ["null", "int"], "default": null });
        let fields = |names: [&str; 3]| json!({ "type": "record", "name": "manifest_file", "fields": names.map(field) });
        let old = fields(["added_data_files_count", "added_rows_count", "deleted_data_files_count"]);
        for written in [fields(["added_files_count", "added_rows_count", "deleted_files_count"]), old.clone()] {
            let mut file = of_header(&[("avro.schema", written)]);
            counted(&mut file).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&file.header["avro.schema"]).unwrap(), old);
        }
    }
}
