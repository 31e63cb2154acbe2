//! A snapshot more of a table: what a catalog server is told of it, and the file of metadata that says so. Of that file nothing else
//! is changed, known here or not.

use iceberg::spec::{FormatVersion, MAIN_BRANCH};
use nexus_flight_catalog::{Error, Result};
use serde_json::{Map, Value, json};

use super::folder_of_metadata;
use crate::iceberg::table::Table;

/// How many files of metadata of before are remembered where the table does not say.
const REMEMBERED: usize = 100;

/// The next state of a table, whose newest snapshot is the one of the branch main.
#[derive(Debug)]
pub(in crate::iceberg) struct Change {
    /// The file of metadata as it was.
    before: Map<String, Value>,
    version: FormatVersion,
    location: String,
    folder: String,
    snapshot: Map<String, Value>,
    /// What the branch says besides its snapshot.
    branch: Map<String, Value>,
    /// The first row of the snapshot and the one after the last, of format 3.
    rows: Option<(u64, u64)>,
}

/// What is new.
pub(super) struct Snapshot<'a> {
    pub(super) id: i64,
    pub(super) list: &'a str,
    pub(super) summary: Map<String, Value>,
    /// The number of the row after its last one, of format 3.
    pub(super) next_row: Option<u64>,
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

impl Change {
    /// A snapshot behind the newest of a table. Errors: `Data` for a file of metadata that is none.
    pub(super) fn new(table: &Table, whole: Value, new: Snapshot<'_>) -> Result<Self> {
        let Value::Object(before) = whole else { return Err(Error::data("a file of metadata is no object")) };
        let metadata = &table.metadata;
        let version = metadata.format_version();
        // No log of a table goes back, whatever the clocks of those who write say.
        let now = new.now.max(metadata.last_updated_ms());
        let mut snapshot = Map::new();
        let mut say = |key: &str, value: Value| snapshot.insert(key.to_owned(), value);
        say("snapshot-id", new.id.into());
        if let Some(parent) = metadata.current_snapshot_id() {
            say("parent-snapshot-id", parent.into());
        }
        if version != FormatVersion::V1 {
            say("sequence-number", metadata.next_sequence_number().into());
        }
        say("timestamp-ms", now.into());
        say("manifest-list", new.list.into());
        say("summary", Value::Object(new.summary));
        if before.contains_key("schemas") {
            say("schema-id", metadata.current_schema_id().into());
        }
        let rows = new.next_row.map(|next| (metadata.next_row_id(), next));
        if let Some((first, next)) = rows {
            say("first-row-id", first.into());
            say("added-rows", next.saturating_sub(first).into());
        }
        let branch = before.get("refs").and_then(|refs| refs.get(MAIN_BRANCH)).and_then(Value::as_object).cloned();
        let mut branch = branch.unwrap_or_default();
        branch.insert("type".to_owned(), "branch".into());
        branch.insert("snapshot-id".to_owned(), new.id.into());
        let (location, folder) = (metadata.location().to_owned(), folder_of_metadata(table));
        Ok(Self { before, version, location, folder, snapshot, branch, rows })
    }

    /// The address of the table.
    pub(in crate::iceberg) fn location(&self) -> &str {
        &self.location
    }

    /// The address of the folder of its metadata.
    pub(in crate::iceberg) fn folder(&self) -> &str {
        &self.folder
    }

    /// A property of the table.
    pub(in crate::iceberg) fn property(&self, name: &str) -> Option<&str> {
        self.before.get("properties")?.get(name)?.as_str()
    }

    /// The new snapshot, as the file of metadata has it.
    pub(in crate::iceberg) fn snapshot(&self) -> &Map<String, Value> {
        &self.snapshot
    }

    /// What has to be as it was found, in the words of Iceberg's REST OpenAPI (`TableRequirement`).
    pub(in crate::iceberg) fn requirements(&self) -> Value {
        let was = |key: &str| self.before.get(key).cloned().unwrap_or_default();
        let parent = self.snapshot.get("parent-snapshot-id").cloned().unwrap_or_default();
        let mut required = vec![
            json!({ "type": "assert-table-uuid", "uuid": was("table-uuid") }),
            json!({ "type": "assert-ref-snapshot-id", "ref": MAIN_BRANCH, "snapshot-id": parent }),
        ];
        for (key, kind) in [("current-schema-id", "assert-current-schema-id"), ("default-spec-id", "assert-default-spec-id")] {
            if self.before.contains_key(key) {
                required.push(json!({ "type": kind, key: was(key) }));
            }
        }
        required.into()
    }

    /// What is done then (`TableUpdate`).
    pub(in crate::iceberg) fn updates(&self) -> Value {
        let mut branch = self.branch.clone();
        branch.insert("action".to_owned(), "set-snapshot-ref".into());
        branch.insert("ref-name".to_owned(), MAIN_BRANCH.into());
        json!([{ "action": "add-snapshot", "snapshot": self.snapshot }, branch])
    }

    /// The next file of metadata, where the one of before is at this address.
    pub(in crate::iceberg) fn metadata(&self, address: &str) -> Result<Vec<u8>> {
        let mut after = self.before.clone();
        let (id, now) = (of(&self.snapshot, "snapshot-id"), of(&self.snapshot, "timestamp-ms"));
        push(&mut after, "snapshots", Value::Object(self.snapshot.clone()));
        push(&mut after, "snapshot-log", json!({ "snapshot-id": id, "timestamp-ms": now }));
        let then = of(&self.before, "last-updated-ms");
        push(&mut after, "metadata-log", json!({ "metadata-file": address, "timestamp-ms": then }));
        let most = self.before.get("properties").and_then(|properties| properties.get("write.metadata.previous-versions-max"));
        let most = most.and_then(Value::as_str).and_then(|most| most.parse::<usize>().ok()).unwrap_or(REMEMBERED).max(1);
        if let Some(Value::Array(log)) = after.get_mut("metadata-log") {
            log.drain(..log.len().saturating_sub(most));
        }
        after.insert("current-snapshot-id".to_owned(), id);
        after.insert("last-updated-ms".to_owned(), now);
        if self.version != FormatVersion::V1 {
            after.insert("last-sequence-number".to_owned(), of(&self.snapshot, "sequence-number"));
        }
        if self.version != FormatVersion::V1 || after.contains_key("refs") {
            let refs = after.entry("refs").or_insert(Value::Null);
            if !refs.is_object() {
                *refs = Value::Object(Map::new());
            }
            if let Some(refs) = refs.as_object_mut() {
                refs.insert(MAIN_BRANCH.to_owned(), Value::Object(self.branch.clone()));
            }
        }
        if let Some((_, next)) = self.rows {
            after.insert("next-row-id".to_owned(), next.into());
        }
        serde_json::to_vec(&after).map_err(|cause| Error::internal("metadata is no JSON").caused_by(cause))
    }
}

fn of(object: &Map<String, Value>, key: &str) -> Value {
    object.get(key).cloned().unwrap_or_default()
}

/// Adds a value to a list, which may not be there yet.
fn push(object: &mut Map<String, Value>, key: &str, value: Value) {
    match object.get_mut(key) {
        Some(Value::Array(values)) => values.push(value),
        _ => {
            object.insert(key.to_owned(), Value::Array(vec![value]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::table::tests::{metadata, table};

    fn change(whole: Value, next_row: Option<u64>) -> Change {
        let summary = Map::from_iter([("operation".to_owned(), "append".into())]);
        let new = Snapshot { id: 33, list: "file:///w/t/metadata/c.avro", summary, next_row, now: 5 };
        Change::new(&table(&whole).unwrap(), whole, new).unwrap()
    }

    #[test]
    fn what_is_not_known_stays() {
        let mut whole = metadata();
        whole["something-new"] = json!([1]);
        whole["refs"]["main"]["max-ref-age-ms"] = 7.into();
        whole["properties"] = json!({ "write.metadata.previous-versions-max": "1" });
        whole["metadata-log"] = json!([{ "metadata-file": "old", "timestamp-ms": 1 }]);
        let after = change(whole.clone(), None).metadata("file:///w/t/metadata/v2.metadata.json").unwrap();
        let after: Value = serde_json::from_slice(&after).unwrap();
        assert_eq!(after["something-new"], json!([1]));
        assert_eq!(after["refs"]["main"], json!({ "type": "branch", "snapshot-id": 33, "max-ref-age-ms": 7 }));
        assert_eq!(after["refs"]["first"], whole["refs"]["first"]);
        let log = json!([{ "metadata-file": "file:///w/t/metadata/v2.metadata.json", "timestamp-ms": 1_704_153_600_000_i64 }]);
        assert_eq!(after["metadata-log"], log);
        // A clock that is behind does not turn the time of the table back.
        let read = table(&after).unwrap();
        let newest = read.metadata.current_snapshot().unwrap();
        assert_eq!((newest.snapshot_id(), newest.parent_snapshot_id(), newest.sequence_number()), (33, Some(22), 3));
        assert_eq!((newest.timestamp_ms(), read.metadata.last_sequence_number()), (1_704_153_600_000, 3));
        assert_eq!(read.metadata.history().len(), 3);
    }

    #[test]
    fn a_server_is_told_what_it_was_and_will_be() {
        let change = change(metadata(), None);
        assert_eq!(
            change.requirements(),
            json!([
                { "type": "assert-table-uuid", "uuid": "fb072c92-a02b-11e9-ae9c-1bb7bc9eca94" },
                { "type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": 22 },
                { "type": "assert-current-schema-id", "current-schema-id": 1 },
                { "type": "assert-default-spec-id", "default-spec-id": 0 },
            ])
        );
        let snapshot = json!({
            "snapshot-id": 33, "parent-snapshot-id": 22, "sequence-number": 3, "timestamp-ms": 1_704_153_600_000_i64,
            "manifest-list": "file:///w/t/metadata/c.avro", "summary": { "operation": "append" }, "schema-id": 1,
        });
        let branch = json!({ "action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": 33 });
        assert_eq!(change.updates(), json!([{ "action": "add-snapshot", "snapshot": snapshot }, branch]));
    }

    #[test]
    fn the_first_snapshot_has_no_parent() {
        let mut whole = metadata();
        for key in ["current-snapshot-id", "snapshots", "snapshot-log", "refs"] {
            whole.as_object_mut().unwrap().remove(key);
        }
        let change = change(whole, None);
        assert_eq!(change.requirements()[1]["snapshot-id"], Value::Null);
        let after: Value = serde_json::from_slice(&change.metadata("v1.metadata.json").unwrap()).unwrap();
        assert_eq!(table(&after).unwrap().metadata.current_snapshot_id(), Some(33));
    }
}
