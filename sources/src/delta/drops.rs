//! Tables that are dropped: a last commit that no reader knows how to read, and then file by file.
//!
//! The commit counts at once, for all readers and writers of any engine, and stays until all else is gone. So nobody sees a part of
//! the table, or an older version, and whoever stops half way leaves what the next one can tell and finish.

use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::features::{self, DROPPED};
use super::log::log_of;
use crate::stores::Store;

/// How long removing the files may take before it is left to the next one.
const CLEANUP: Duration = Duration::from_secs(30);
/// After this time the one who has dropped the table is not there any more, and another may finish for it.
const LEFT: Duration = Duration::from_secs(60);
/// The most bytes of a commit that drops a table.
const MOST_BYTES: u64 = 4096;

/// The actions of a commit that drops a table.
pub(super) fn actions() -> [serde_json::Value; 1] {
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
    let read = async { store.objects().get(&last.location).await?.bytes().await };
    match read.await {
        Ok(bytes) => Ok(Some(last).filter(|_| bytes.windows(DROPPED.len()).any(|part| part == DROPPED.as_bytes()))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(cause) => Err(store.error(&cause, &last.location)),
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
        // Nobody is to have anything removed elsewhere by a link.
        store.stays_within(path).await?;
        match store.objects().delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(cause) => return Err(store.write_error(&cause, path)),
        }
    }
    Ok(())
}
