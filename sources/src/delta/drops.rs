//! Tables that are dropped: a last commit that no reader knows how to read, and then file by file.
//!
//! The commit counts at once, for all readers and writers of any engine, and stays until all else is gone. So nobody sees a part of
//! the table, or an older version, and whoever stops half way leaves what the next one can tell and finish.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde_json::Value;

use super::features;
use super::log::log_of;
use super::writing::is_of_rows;
use crate::stores::Store;

/// How long removing the files may take before it is left to the next one.
const CLEANUP: Duration = Duration::from_secs(30);
/// After this time the one who has dropped the table is not there any more, and another may finish for it.
const LEFT: Duration = Duration::from_secs(60);
/// The most bytes of a commit that drops a table.
const MOST_BYTES: u64 = 4096;

/// The actions of a commit that drops a table.
pub(super) fn actions() -> [Value; 1] {
    [features::dropped()]
}

/// The commit that has dropped a table, if the last one has. Errors: those of the store.
pub(super) async fn mark(store: &Store, table: &Path) -> Result<Option<ObjectMeta>> {
    let log = log_of(table);
    let listed = match store.objects().list_with_delimiter(Some(&log)).await {
        Ok(listed) => listed.objects,
        Err(object_store::Error::NotFound { .. }) if store.folder.is_some() => return Ok(None),
        Err(cause) => return Err(store.list_error(&cause, &log)),
    };
    let is_commit = |meta: &ObjectMeta| {
        let number = meta.location.filename().and_then(|name| name.strip_suffix(".json"));
        number.is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let last = listed.into_iter().filter(is_commit).max_by(|one, other| one.location.cmp(&other.location));
    let Some(last) = last.filter(|last| last.size <= MOST_BYTES) else { return Ok(None) };
    let read = async {
        let opened = store.objects().get(&last.location).await?;
        // It may be another by now than was listed.
        match opened.meta.size <= MOST_BYTES {
            true => opened.bytes().await,
            false => Ok(Bytes::new()),
        }
    };
    match read.await {
        Ok(bytes) => Ok(Some(last).filter(|_| drops(&bytes))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(cause) => Err(store.error(&cause, &last.location)),
    }
}

/// Whether a commit drops its table. What the feature is called may also stand among the values that a commit tells of.
fn drops(commit: &[u8]) -> bool {
    let [action] = actions();
    commit.split(|byte| *byte == b'\n').any(|line| serde_json::from_slice::<Value>(line).is_ok_and(|found| found == action))
}

/// Errors: `Invalid` for a folder that holds what no statement has left there: with the table it would be removed.
pub(super) async fn check_vacant(store: &Store, table: &Path) -> Result<()> {
    let log = log_of(table);
    let mut listed = store.objects().list(Some(table));
    loop {
        let path = match listed.try_next().await {
            Ok(Some(found)) => found.location,
            Ok(None) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) if store.folder.is_some() => return Ok(()),
            Err(cause) => return Err(store.list_error(&cause, table)),
        };
        // Of a log that comes to be meanwhile, the commit tells.
        if !path.prefix_matches(&log) && !path.filename().is_some_and(is_of_rows) {
            return Err(Error::invalid("the folder that the table would have holds other files")
                .with_hint("take another name, or move them away")
                .at(store.place(&path)));
        }
    }
}

/// Finishes a drop that was left half way, if there is one. Errors: `Precondition` while it may still go on.
pub(super) async fn finish(store: &Store, table: &Path) -> Result<()> {
    let Some(mark) = mark(store, table).await? else { return Ok(()) };
    let age = SystemTime::now().duration_since(mark.last_modified.into()).unwrap_or_default();
    if age < LEFT {
        return Err(Error::precondition("the table is being dropped")
            .with_hint("send the statement again in a minute")
            .with_retryable(true)
            .at(store.place(table)));
    }
    remove(store, table, &mark.location).await
}

/// Removes what a table was, whose last commit says that it is dropped. What cannot be removed now is read no more, and is removed
/// when a table of its name is made or dropped.
pub(super) async fn clean(store: &Store, table: &Path, mark: &Path) {
    let failed = match tokio::time::timeout(CLEANUP, remove(store, table, mark)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it takes too long".to_owned(),
    };
    tracing::warn!(folder = store.show(table), failed, "files of a table that was dropped could not be removed yet");
}

async fn remove(store: &Store, table: &Path, mark: &Path) -> Result<()> {
    let log = log_of(table);
    let listed = store.objects().list(Some(table)).map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await;
    let mut paths = listed.map_err(|cause| store.list_error(&cause, table))?;
    paths.retain(|path| path != mark);
    // Rows first, so that a log which is only in part there names none.
    paths.sort_unstable_by_key(|path| (path.prefix_matches(&log), path.clone()));
    for path in paths.iter().chain([mark]) {
        delete(store, path).await?;
    }
    Ok(())
}

async fn delete(store: &Store, path: &Path) -> Result<()> {
    // Nobody is to have anything removed elsewhere by a link.
    store.stays_within(path).await?;
    match store.objects().delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(cause) => Err(store.write_error(&cause, path)),
    }
}

/// Removes the checkpoint of a version, and the note of which is the last one. Errors: those of the store.
pub(super) async fn remove_checkpoint(store: &Store, table: &Path, version: u64) -> Result<()> {
    let log = log_of(table);
    let listed = match store.objects().list_with_delimiter(Some(&log)).await {
        Ok(listed) => listed.objects,
        Err(object_store::Error::NotFound { .. }) if store.folder.is_some() => return Ok(()),
        Err(cause) => return Err(store.list_error(&cause, &log)),
    };
    let start = format!("{version:020}.checkpoint.");
    let is_of_it = |name: &str| name.starts_with(&start) || name == "_last_checkpoint";
    for found in listed.iter().filter(|found| found.location.filename().is_some_and(is_of_it)) {
        delete(store, &found.location).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;
    use serde_json::json;

    use super::*;
    use crate::stores::Location;

    #[test]
    fn a_word_in_a_value_drops_nothing() {
        let added = json!({ "add": { "path": "a.parquet", "stats": r#"{"minValues":{"t":"nexusDropped"}}"# } });
        let [dropped] = actions();
        assert!(!drops(added.to_string().as_bytes()));
        assert!(drops(format!("{}\n{dropped}", json!({ "commitInfo": {} })).as_bytes()));
    }

    #[tokio::test]
    async fn what_others_have_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("lake", &Location::Folder(folder.path().to_owned())).unwrap();
        let table = Path::from("shop");
        check_vacant(&store, &table).await.unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        put("shop/_delta_log/00000000000000000000.json");
        put("shop/part-00000-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f-c000.zstd.parquet");
        put("shopping/a.parquet");
        check_vacant(&store, &table).await.unwrap();
        put("shop/orders/metadata/v1.metadata.json");
        let error = check_vacant(&store, &table).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("shop/orders/metadata/v1.metadata.json"), "{error}");
    }
}
