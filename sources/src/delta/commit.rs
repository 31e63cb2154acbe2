//! Commits: one file of the log each, whose name only one writer can take.

use std::time::{SystemTime, UNIX_EPOCH};

use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde_json::{Value, json};
use uuid::Uuid;

use super::log::log_of;
use crate::lake::Lake;

/// The most bytes of a commit that is looked at to see whose it is.
const LARGEST: u64 = 512 * 1024 * 1024;

/// What became of a commit.
pub(super) enum Sent {
    /// It is there.
    Made,
    /// Another one is there.
    Taken,
    /// It is not there, and will not be.
    Failed(Error),
    /// It may be there or come to be.
    Unknown(Error),
}

/// The commit of one statement, which takes a version or the next one.
pub(super) struct Commit {
    /// What tells it from all others.
    id: String,
    /// What it does, in the words of Spark.
    operation: &'static str,
    /// How, as Spark has it.
    mode: &'static str,
}

impl Commit {
    /// That does this.
    pub(super) fn new(operation: &'static str, mode: &'static str) -> Self {
        Self { id: Uuid::new_v4().to_string(), operation, mode }
    }

    /// Puts the actions into the log as a version of the table. `time` is when the commit is made, in milliseconds since 1970, where the
    /// table wants its commits to tell.
    pub(super) async fn send(&self, lake: &Lake, table: &Path, version: u64, time: Option<i64>, actions: &[Value]) -> Sent {
        let path = log_of(table).join(format!("{version:020}.json"));
        let store = &lake.store;
        if let Err(error) = store.stays_within(&path).await {
            return Sent::Failed(error);
        }
        let mut lines = self.info(time).to_string();
        for action in actions {
            lines.push('\n');
            lines.push_str(&action.to_string());
        }
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(cause) = store.objects().put_opts(&path, lines.into(), create).await else { return Sent::Made };
        // A request whose answer is lost is sent again, and finds what it has put there itself.
        let found = self.is_at(lake, &path).await;
        let taken = matches!(cause, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. });
        became(found, taken, store.write_error(&cause, &path), store.folder.is_some())
    }

    fn info(&self, time: Option<i64>) -> Value {
        let mut info = json!({
            "timestamp": time.unwrap_or_else(now),
            "operation": self.operation,
            "operationParameters": { "mode": self.mode },
            "engineInfo": concat!("nexus-gateway/", env!("CARGO_PKG_VERSION")),
            "txnId": self.id,
        });
        if let (Some(time), Some(parts)) = (time, info.as_object_mut()) {
            parts.insert("inCommitTimestamp".to_owned(), json!(time));
        }
        json!({ "commitInfo": info })
    }

    /// Whether a commit is this one; none where there is none.
    async fn is_at(&self, lake: &Lake, path: &Path) -> Result<Option<bool>> {
        match lake.store.objects().head(path).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(lake.store.error(&cause, path)),
        }
        let bytes = lake.read(path, LARGEST).await?;
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let info = serde_json::from_slice::<Value>(first).unwrap_or_default();
        let id = info.get("commitInfo").and_then(|info| info.get("txnId")).and_then(Value::as_str);
        Ok(Some(id == Some(self.id.as_str())))
    }
}

/// What became of a commit that was not put, by what was found in its place: whether it is this one, if one is there.
fn became(found: Result<Option<bool>>, is_taken: bool, error: Error, is_local: bool) -> Sent {
    match found {
        Ok(Some(true)) => Sent::Made,
        Ok(Some(false)) => Sent::Taken,
        Ok(None) if is_taken => Sent::Taken,
        Err(error) if is_taken => Sent::Unknown(error),
        _ if is_local => Sent::Failed(error),
        // The keys may have ended between a try that came to be and the one that was refused: only the look tells.
        Ok(None) if matches!(error.kind(), Kind::Denied | Kind::Unauthenticated) => Sent::Failed(error),
        _ => Sent::Unknown(error),
    }
}

/// The milliseconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stores::{Location, Store};

    #[test]
    fn a_refusal_is_believed_where_nothing_is_found() {
        let refused = || Error::unauthenticated("the keys have ended");
        assert!(matches!(became(Ok(None), false, refused(), false), Sent::Failed(_)));
        assert!(matches!(became(Err(refused()), false, refused(), false), Sent::Unknown(_)));
        assert!(matches!(became(Err(refused()), false, refused(), true), Sent::Failed(_)));
        assert!(matches!(became(Ok(None), false, Error::unavailable("no answer"), false), Sent::Unknown(_)));
    }

    #[tokio::test]
    async fn a_version_is_of_one_commit() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Folder(folder.path().to_owned());
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        let table = Path::from("t");
        let (one, other) = (Commit::new("WRITE", "Append"), Commit::new("WRITE", "Append"));
        let action = [json!({ "add": { "path": "文\n" } })];
        assert!(matches!(one.send(&lake, &table, 3, Some(7), &action).await, Sent::Made));
        assert!(matches!(one.send(&lake, &table, 3, None, &action).await, Sent::Made));
        assert!(matches!(other.send(&lake, &table, 3, None, &action).await, Sent::Taken));
        let written = std::fs::read_to_string(folder.path().join("t/_delta_log/00000000000000000003.json")).unwrap();
        let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]), (2, &action[0]));
        assert_eq!(lines[0]["commitInfo"]["inCommitTimestamp"], json!(7));
    }
}
