//! What a table's log tells of it, as tables: its history, and its files.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::log::log_of;
use super::within::LARGEST;
use crate::lake::{Lake, Snapshot};

/// How many commits are told of, the newest ones.
const COMMITS: usize = 1000;
/// How many of them are read side by side.
const AT_ONCE: usize = 8;

/// What made a version. Each line of a commit holds one action, and this is one of them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    timestamp: Option<i64>,
    in_commit_timestamp: Option<i64>,
    operation: Option<String>,
    operation_parameters: Option<Box<RawValue>>,
    engine_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<Info>,
}

/// The versions whose commits are there, newest first: what made each, when, and with what. Errors: `Data` for a commit that is no JSON.
pub(super) async fn history(lake: &Lake, table: &Path) -> Result<Arc<dyn TableProvider>> {
    let log = log_of(table);
    let listed = lake.store.objects().list_with_delimiter(Some(&log)).await;
    let listed = listed.map_err(|cause| lake.store.list_error(&cause, &log))?;
    let commit = |path: &Path| path.filename()?.strip_suffix(".json").filter(|name| name.len() == 20)?.parse::<i64>().ok();
    let mut commits: Vec<(i64, i64, Path)> = Vec::new();
    for meta in listed.objects {
        if let Some(version) = commit(&meta.location) {
            commits.push((version, meta.last_modified.timestamp_millis(), meta.location));
        }
    }
    commits.sort_unstable_by(|one, other| other.cmp(one));
    commits.truncate(COMMITS);
    let read = |(version, written, path): (i64, i64, Path)| async move {
        let info = info(lake, &path).await?;
        Ok::<_, Error>((version, written, info))
    };
    let commits: Vec<(i64, i64, Info)> = stream::iter(commits).map(read).buffered(AT_ONCE).try_collect().await?;
    let time = |(_, written, info): &(i64, i64, Info)| {
        info.in_commit_timestamp.or(info.timestamp).unwrap_or(*written).saturating_mul(1000)
    };
    let versions: Int64Array = commits.iter().map(|(version, ..)| Some(*version)).collect();
    let times: TimestampMicrosecondArray = commits.iter().map(|commit| Some(time(commit))).collect();
    let operations: StringArray = commits.iter().map(|(.., info)| info.operation.as_deref()).collect();
    let parameters: StringArray =
        commits.iter().map(|(.., info)| info.operation_parameters.as_ref().map(|json| json.get())).collect();
    let engines: StringArray = commits.iter().map(|(.., info)| info.engine_info.as_deref()).collect();
    provided([
        ("version", Arc::new(versions)),
        ("timestamp", Arc::new(times.with_timezone("UTC"))),
        ("operation", Arc::new(operations)),
        ("operation_parameters", Arc::new(parameters)),
        ("engine_info", Arc::new(engines)),
    ])
}

/// What one commit says of itself.
async fn info(lake: &Lake, path: &Path) -> Result<Info> {
    let mut taken = lake.room.taken();
    let bytes = lake.read_in(path, LARGEST, &mut taken).await?;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|cause| {
            Error::data(format!("a line of this commit cannot be read: {cause}"))
                .with_hint("restore the file, or write the table again")
                .at(lake.store.place(path))
        })?;
        if let Some(info) = line.commit_info {
            return Ok(info);
        }
    }
    Ok(Info::default())
}

/// The files of a snapshot: where each is, its bytes, rows and deleted rows, and its partition values as JSON.
pub(super) fn files(snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let files = &snapshot.files;
    let partitions = files.iter().map(|file| {
        let names = snapshot.constants.iter().map(|column| snapshot.schema.field(*column).name().clone());
        let values = file.constants.iter().map(|value| match value.is_null() {
            true => serde_json::Value::Null,
            false => serde_json::Value::String(value.to_string()),
        });
        Some(serde_json::Value::Object(names.zip(values).collect()).to_string())
    });
    let paths: StringArray = files.iter().map(|file| Some(file.path.as_ref())).collect();
    let sizes: UInt64Array = files.iter().map(|file| Some(file.size)).collect();
    let rows: UInt64Array = files.iter().map(|file| file.rows).collect();
    let deleted: UInt64Array = files.iter().map(|file| file.deleted).collect();
    let partitions: StringArray = partitions.collect();
    provided([
        ("path", Arc::new(paths)),
        ("size", Arc::new(sizes)),
        ("rows", Arc::new(rows)),
        ("deleted", Arc::new(deleted)),
        ("partition_values", Arc::new(partitions)),
    ])
}

fn provided<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<Arc<dyn TableProvider>> {
    let columns = columns.into_iter().map(|(name, values)| (name, values, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|cause| Error::internal("a table cannot be made").caused_by(cause))?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}
