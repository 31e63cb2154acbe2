//! The manifest of new files, and the list of the manifests of a snapshot. Both are read again before they count: what the format's
//! crate cannot write of a partition, it does not always say.

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestFile, ManifestList, ManifestListWriter, ManifestWriterBuilder, PartitionField,
    PartitionSpec, SchemaRef,
};
use nexus_flight_catalog::{Error, Result};

use super::unwritten;
use crate::iceberg::avro;
use crate::iceberg::partition::named_as_written;
use crate::iceberg::table::Table;
use crate::lake::Room;
use crate::stores::ended_early;

/// Where the crate puts what it writes.
const MEMORY: &str = "memory://new.avro";
/// How the blocks of a file are packed.
const CODEC: &str = "avro.codec";

/// The bytes of a manifest of new files of a snapshot, and what a list says of it if it is at this address.
/// Errors: `Unsupported` for partitions that cannot be written.
pub(super) async fn manifest(table: &Table, files: Vec<DataFile>, snapshot: i64, address: &str) -> Result<(Bytes, ManifestFile)> {
    let metadata = &table.metadata;
    let (version, schema) = (metadata.format_version(), metadata.current_schema().clone());
    let spec = metadata.default_partition_spec().as_ref().clone();
    let (bytes, mut manifest) = in_task(written(version, schema, spec, files, snapshot)).await?;
    manifest.manifest_path = address.to_owned();
    manifest.manifest_length = i64::try_from(bytes.len()).map_err(|_| Error::internal("a manifest is too long"))?;
    Ok((bytes.into(), manifest))
}

async fn written(
    version: FormatVersion,
    schema: SchemaRef,
    spec: PartitionSpec,
    files: Vec<DataFile>,
    snapshot: i64,
) -> Result<(Vec<u8>, ManifestFile)> {
    let io = FileIO::new_with_memory();
    let output = io.new_output(MEMORY).map_err(failed)?;
    let builder = ManifestWriterBuilder::new(output, Some(snapshot), schema, with_avro_names(&spec)?);
    let mut writer = match version {
        FormatVersion::V1 => builder.build_v1(),
        FormatVersion::V2 => builder.build_v2_data(),
        FormatVersion::V3 => builder.build_v3_data(),
    };
    for file in &files {
        // Below zero is none: it inherits the number of its snapshot.
        writer.add_file(file.clone(), -1).map_err(failed)?;
    }
    let manifest = writer.write_manifest_file().await.map_err(failed)?;
    let bytes = io.new_input(MEMORY).map_err(failed)?.read().await.map_err(failed)?;
    let mut file = opened(&bytes)?;
    let named = serde_json::to_vec(spec.fields());
    let named = named.map_err(|cause| Error::internal("a partition spec is no JSON").caused_by(cause))?;
    file.header.insert("partition-spec".to_owned(), named);
    let bytes = file.bytes();
    named_as_written(&mut file)?;
    let read = Manifest::parse_avro(&file.bytes()).map_err(failed)?;
    let same = read.entries().iter().zip(&files).all(|(entry, file)| {
        let read = entry.data_file();
        read.partition() == file.partition()
            && read.record_count() == file.record_count()
            && read.lower_bounds() == file.lower_bounds()
            && read.upper_bounds() == file.upper_bounds()
    });
    if !same || read.entries().len() != files.len() {
        return Err(unwritten("the values of its partitions cannot be told in a manifest"));
    }
    Ok((bytes, manifest))
}

/// The bytes of the list of these manifests, and the number of the row after the last one, of format 3. Those that have no number
/// are of this snapshot.
pub(super) async fn list(table: &Table, manifests: Vec<ManifestFile>, snapshot: i64) -> Result<(Bytes, Option<u64>)> {
    let metadata = &table.metadata;
    let (version, parent) = (metadata.format_version(), metadata.current_snapshot_id());
    let (sequence, row) = (metadata.next_sequence_number(), metadata.next_row_id());
    in_task(async move {
        let io = FileIO::new_with_memory();
        let output = io.new_output(MEMORY).map_err(failed)?.writer().await.map_err(failed)?;
        let mut writer = match version {
            FormatVersion::V1 => ManifestListWriter::v1(output, snapshot, parent),
            FormatVersion::V2 => ManifestListWriter::v2(output, snapshot, parent, sequence),
            FormatVersion::V3 => ManifestListWriter::v3(output, snapshot, parent, sequence, Some(row)),
        };
        let count = manifests.len();
        writer.add_manifests(manifests.into_iter()).map_err(failed)?;
        let next_row = writer.next_row_id();
        writer.close().await.map_err(failed)?;
        let bytes = io.new_input(MEMORY).map_err(failed)?.read().await.map_err(failed)?;
        let bytes = opened(&bytes)?.bytes();
        let read = ManifestList::parse_with_version(&bytes, version).map_err(failed)?;
        if read.entries().len() != count {
            return Err(unwritten("the list of its manifests cannot be written"));
        }
        Ok((bytes.into(), next_row))
    })
    .await
}

/// A file that the crate wrote, which says that it is not packed: readers may not take that for granted, though Avro lets them.
fn opened(bytes: &Bytes) -> Result<avro::File> {
    let mut file = avro::File::new(bytes, &mut Room::new().taken())?;
    file.header.entry(CODEC.to_owned()).or_insert_with(|| b"null".to_vec());
    Ok(file)
}

/// What the crate does, which may panic.
async fn in_task<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(cause) if cause.is_panic() => Err(unwritten("its metadata cannot be written")),
        Err(cause) => Err(ended_early(cause)),
    }
}

fn failed(cause: iceberg::Error) -> Error {
    unwritten(&format!("its metadata cannot be written: {}", cause.message()))
}

/// Avro has names of few letters; readers know the values by the ids of the fields. The names are those that Iceberg itself takes.
fn with_avro_names(spec: &PartitionSpec) -> Result<PartitionSpec> {
    let fields = spec.fields().iter().map(|field| PartitionField { name: avro_name(&field.name), ..field.clone() });
    let fields: Vec<PartitionField> = fields.collect();
    let spec = serde_json::json!({ "spec-id": spec.spec_id(), "fields": fields });
    serde_json::from_value(spec).map_err(|cause| Error::internal("a partition spec cannot be renamed").caused_by(cause))
}

fn avro_name(name: &str) -> String {
    let letters = name.chars().enumerate().map(|(place, letter)| match letter {
        '_' | 'a'..='z' | 'A'..='Z' => letter.to_string(),
        '0'..='9' if place > 0 => letter.to_string(),
        '0'..='9' => format!("_{letter}"),
        other => format!("_x{:X}", u32::from(other)),
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::spec::{
        DataContentType, DataFileBuilder, DataFileFormat, Datum, Literal, ManifestContentType, PrimitiveType, Struct,
    };

    use super::*;
    use crate::iceberg::table::tests::{metadata, table};

    fn partitioned(version: u64) -> Table {
        let mut metadata = metadata();
        let field = |name: &str, transform: &str, source: i32, id: i32| serde_json::json!({ "name": name, "transform": transform, "source-id": source, "field-id": id });
        let fields = [field("名", "identity", 2, 1000), field("key_bucket", "bucket[4]", 1, 1001)];
        metadata["partition-specs"] = serde_json::json!([{ "spec-id": 0, "fields": fields }]);
        metadata["last-partition-id"] = 1001.into();
        metadata["format-version"] = version.into();
        if version == 3 {
            metadata["next-row-id"] = 100.into();
            for snapshot in metadata["snapshots"].as_array_mut().unwrap() {
                snapshot["first-row-id"] = 0.into();
                snapshot["added-rows"] = 50.into();
            }
        }
        table(&metadata).unwrap()
    }

    fn file(partition: [Option<Literal>; 2]) -> DataFile {
        let mut builder = DataFileBuilder::default();
        builder.content(DataContentType::Data).file_path("file:///w/t/data/a.parquet".to_owned());
        builder.file_format(DataFileFormat::Parquet).record_count(7).file_size_in_bytes(900);
        builder.partition(Struct::from_iter(partition)).lower_bounds(HashMap::from([(1, Datum::long(-5))]));
        builder.build().unwrap()
    }

    #[tokio::test]
    async fn a_manifest_is_listed_after_those_of_before() {
        for version in [2, 3] {
            let table = partitioned(version);
            let files = vec![file([Some(Literal::date(19_000)), Some(Literal::int(3))]), file([None, Some(Literal::int(0))])];
            let (bytes, new) = manifest(&table, files, 77, "file:///w/t/metadata/m.avro").await.unwrap();
            assert_eq!(new.manifest_length, bytes.len() as i64);
            assert_eq!((new.added_files_count, new.added_rows_count, new.added_snapshot_id), (Some(2), Some(14), 77));
            let read = avro::File::of_manifest(&bytes, &mut Room::new().taken()).unwrap();
            let least: Vec<_> = read.metrics.iter().map(|told| told.lower(1, &PrimitiveType::Long).unwrap()).collect();
            assert_eq!(least, [Some(Datum::long(-5)), Some(Datum::long(-5))]);
            let header = avro::File::new(&bytes, &mut Room::new().taken()).unwrap().header;
            let text = |name: &str| String::from_utf8(header[name].clone()).unwrap();
            assert!(text("partition-spec").contains(r#""name":"名""#), "{}", text("partition-spec"));
            assert!(text("avro.schema").contains(r#""_x540D""#), "{}", text("avro.schema"));
            let (bytes, next_row) = list(&table, vec![new], 77).await.unwrap();
            assert_eq!(next_row, (version == 3).then_some(114));
            let listed = ManifestList::parse_with_version(&bytes, table.metadata.format_version()).unwrap();
            let listed = listed.entries().first().unwrap();
            assert_eq!((listed.sequence_number, listed.content), (3, ManifestContentType::Data));
            assert_eq!(listed.first_row_id, (version == 3).then_some(100));
        }
    }

    #[test]
    fn names_of_avro_are_those_of_iceberg() {
        assert_eq!(avro_name("order-date"), "order_x2Ddate");
        assert_eq!(avro_name("7a_7"), "_7a_7");
    }
}
