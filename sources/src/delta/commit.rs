//! Commits: one file of the log each, whose name only one writer can take.

use std::time::{SystemTime, UNIX_EPOCH};

use object_store::path::Path;
use serde_json::{Value, json};
use uuid::Uuid;

use super::log::log_of;
use crate::lake::Lake;
use crate::stores::Created;

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
    ///
    /// A statement has one version of all that it tries: it goes on to the next one where another's commit has this one, which no
    /// request of its own that arrives late can take any more. Its files may be removed where none of its commits is there or can come
    /// to be, so not after [`Created::Unknown`].
    pub(super) async fn send(&self, lake: &Lake, table: &Path, version: u64, time: Option<i64>, actions: &[Value]) -> Created {
        let mut lines = self.info(time).to_string();
        for action in actions {
            lines.push('\n');
            lines.push_str(&action.to_string());
        }
        lake.store.create(&log_of(table).join(format!("{version:020}.json")), lines.into()).await
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

    #[tokio::test]
    async fn a_version_is_of_one_commit() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Folder(folder.path().to_owned());
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        let table = Path::from("t");
        let (one, other) = (Commit::new("WRITE", "Append"), Commit::new("WRITE", "Append"));
        let action = [json!({ "add": { "path": "文\n" } })];
        assert!(matches!(one.send(&lake, &table, 3, Some(7), &action).await, Created::Made));
        assert!(matches!(one.send(&lake, &table, 3, Some(7), &action).await, Created::Made));
        assert!(matches!(other.send(&lake, &table, 3, Some(7), &action).await, Created::Taken));
        let written = std::fs::read_to_string(folder.path().join("t/_delta_log/00000000000000000003.json")).unwrap();
        let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]), (2, &action[0]));
        assert_eq!(lines[0]["commitInfo"]["inCommitTimestamp"], json!(7));
    }
}
