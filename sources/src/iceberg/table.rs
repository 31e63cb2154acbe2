//! What a file of metadata says of a table: its columns, its snapshots, and which of them a name means.

use std::collections::{BTreeMap, HashSet};
use std::io::{Cursor, ErrorKind, Read};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, MAIN_BRANCH, NameMapping, NestedFieldRef, SchemaRef, SnapshotRef, SnapshotReference,
    SnapshotRetention, TableMetadata,
};
use nexus_flight_catalog::error::{list, shortened};
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;
use serde_json::Value;

use crate::lake::{Lake, Taken, moment};
use crate::stores::{ended_early, hex};

/// The most bytes of a file of metadata, packed or not: it takes many times as much where it is parsed.
const LARGEST: u64 = 128 * 1024 * 1024;
/// The milliseconds that are waited before each further look at a file that is not whole.
const WAITS: [u64; 4] = [10, 20, 30, 40];
/// How many snapshots are named where one is not there.
const NAMED: usize = 5;
/// The types that have no length, by the names of the specification.
const PRIMITIVES: &[&str] = &[
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "timestamp_ns",
    "timestamptz_ns",
    "string",
    "uuid",
    "binary",
];

/// What a file of metadata says.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) metadata: TableMetadata,
    /// The branches and tags.
    pub(super) refs: BTreeMap<String, SnapshotReference>,
    /// How files without field ids name the columns.
    pub(super) mapping: Option<NameMapping>,
    /// What a version has to tell besides the UUID, the snapshot and the number of the schema: the name mapping, and the columns where
    /// the table has no UUID or its schemas no numbers.
    pub(super) mark: Option<String>,
    /// The ids of the fields that are not NULL in files that are older than they.
    pub(super) defaults: HashSet<i32>,
    /// How large the file was.
    pub(super) bytes: usize,
}

/// A state of a table.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// None of a table that never had rows.
    pub(super) snapshot: Option<SnapshotRef>,
    /// The columns that are read.
    pub(super) schema: SchemaRef,
}

impl Table {
    /// Reads a file of metadata. Errors: `Unsupported` for what this connector does not read, by name; `Data` for bytes that are
    /// no metadata, worth another look where the file ends before it is whole.
    pub(super) async fn read(lake: &Lake, path: &Path) -> Result<Self> {
        let mut taken = lake.room.taken();
        let bytes = lake.read_in(path, LARGEST, &mut taken).await?;
        parsed(lake, path, move || Self::parse(bytes, &mut taken)).await
    }

    /// The same, with all that the file says, for who writes the next one. Errors: as those of reading.
    pub(super) async fn read_whole(lake: &Lake, path: &Path) -> Result<(Self, Value)> {
        let mut taken = lake.room.taken();
        let bytes = lake.read_in(path, LARGEST, &mut taken).await?;
        let parse = move || {
            let bytes = if bytes.starts_with(&[0x1F, 0x8B]) { unpacked(bytes)? } else { bytes };
            taken.grow_by_json(&bytes)?;
            let whole = json(&bytes)?;
            Ok((Self::parse(bytes, &mut taken)?, whole))
        };
        parsed(lake, path, parse).await
    }

    fn parse(bytes: Bytes, room: &mut Taken) -> Result<Self> {
        let bytes = if bytes.starts_with(&[0x1F, 0x8B]) { unpacked(bytes)? } else { bytes };
        room.grow_by_json(&bytes)?;
        let mut raw = json(&bytes)?;
        supported(&raw)?;
        let mut defaults = HashSet::new();
        for key in ["schema", "schemas"] {
            with_defaults(raw.get(key).unwrap_or(&Value::Null), &mut defaults);
        }
        let is_numbered = ["table-uuid", "schemas"].iter().all(|key| raw.get(key).is_some_and(|value| !value.is_null()));
        let unnumbered = (!is_numbered).then(|| format!("{:?}{:?}", raw.get("schema"), raw.get("schemas")));
        let refs = raw.get("refs").filter(|refs| !refs.is_null()).cloned();
        let refs: Option<BTreeMap<String, SnapshotReference>> =
            refs.map(serde_json::from_value).transpose().map_err(|cause| unreadable(&cause))?;
        let mut refs = refs.unwrap_or_default();
        // Those of a table that was of format 1 have none, which is 0 (Iceberg specification, Sequence Numbers); the crate wants one.
        for snapshot in
            raw.get_mut("snapshots").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            snapshot.entry("sequence-number").or_insert_with(|| 0.into());
        }
        let metadata: TableMetadata = serde_json::from_value(raw).map_err(|cause| unreadable(&cause))?;
        if let Some(id) = metadata.current_snapshot_id() {
            let main = || SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
            refs.entry(MAIN_BRANCH.to_owned()).or_insert_with(main);
        }
        let written = metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING);
        let mapping = written.map(|written| {
            serde_json::from_str::<NameMapping>(written).map_err(|cause| {
                Error::data(format!("the property {DEFAULT_SCHEMA_NAME_MAPPING} is no name mapping: {cause}"))
                    .with_hint("correct the property of the table")
            })
        });
        let mapping = mapping.transpose()?;
        let mark = match (&unnumbered, written) {
            (None, None) => None,
            marked => Some(hex(&format!("{marked:?}"), 8)),
        };
        Ok(Self { metadata, refs, mapping, mark, defaults, bytes: bytes.len() })
    }

    /// The name of a state: no other state of any table has the same. That of a snapshot has its list of manifests in it, since some rewrite a
    /// table, or make it anew, under the numbers that it had.
    pub(super) fn version(&self, state: &State) -> String {
        let (id, list) = match &state.snapshot {
            Some(snapshot) => (snapshot.snapshot_id().to_string(), format!(":{}", hex(snapshot.manifest_list(), 8))),
            None => ("-".to_owned(), String::new()),
        };
        let mark = self.mark.as_ref().map(|mark| format!(":{mark}")).unwrap_or_default();
        format!("{}:{id}:{}{list}{mark}", self.metadata.uuid(), state.schema.schema_id())
    }

    /// The state of now.
    pub(super) fn now(&self) -> State {
        let schema = self.metadata.current_schema();
        State { snapshot: self.metadata.current_snapshot().cloned(), schema: schema.clone() }
    }

    /// The state that a text means: the id of a snapshot, a branch, a tag, or a moment. A branch has the columns of now, as the
    /// table has; whatever else was at some time has the columns of then. Errors: `NotFound` with what there is.
    pub(super) fn at(&self, point: &str) -> Result<State> {
        if let Some(snapshot) = point.parse::<i64>().ok().and_then(|id| self.metadata.snapshot_by_id(id)) {
            return self.of_then(snapshot);
        }
        if let Some(reference) = self.refs.get(point) {
            let Some(snapshot) = self.metadata.snapshot_by_id(reference.snapshot_id) else {
                return Err(Error::data(format!("\"{point}\" is snapshot {}, which is not there", reference.snapshot_id)));
            };
            return match reference.is_branch() {
                true => Ok(State { snapshot: Some(snapshot.clone()), schema: self.metadata.current_schema().clone() }),
                false => self.of_then(snapshot),
            };
        }
        let Some(moment) = moment(point) else {
            return Err(Error::not_found(format!("\"{point}\" is no snapshot, branch or tag of the table, and no time"))
                .with_hint(self.known()));
        };
        let logged = self.metadata.history().iter().rfind(|entry| entry.timestamp_ms <= moment);
        let Some(logged) = logged else {
            return Err(Error::not_found(format!("of {point} no snapshot is known")).with_hint(self.known()));
        };
        let Some(snapshot) = self.metadata.snapshot_by_id(logged.snapshot_id) else {
            let message = format!("the snapshot of {point}, {}, has expired", logged.snapshot_id);
            return Err(Error::not_found(message).with_hint(self.known()));
        };
        self.of_then(snapshot)
    }

    fn of_then(&self, snapshot: &SnapshotRef) -> Result<State> {
        let schema = match snapshot.schema_id() {
            None => self.metadata.current_schema(),
            Some(id) => self.metadata.schema_by_id(id).ok_or_else(|| {
                Error::data(format!("snapshot {} has the columns of schema {id}, which is not there", snapshot.snapshot_id()))
            })?,
        };
        Ok(State { snapshot: Some(snapshot.clone()), schema: schema.clone() })
    }

    /// The newest snapshots, and the branches and tags, for people.
    fn known(&self) -> String {
        let mut snapshots: Vec<&SnapshotRef> = self.metadata.snapshots().collect();
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.timestamp_ms(), snapshot.snapshot_id())));
        if snapshots.is_empty() {
            return "the table has no snapshots".to_owned();
        }
        let newest =
            snapshots.iter().take(NAMED).map(|snapshot| match DateTime::from_timestamp_millis(snapshot.timestamp_ms()) {
                Some(time) => format!("{} of {}", snapshot.snapshot_id(), time.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
                None => snapshot.snapshot_id().to_string(),
            });
        let newest: Vec<String> = newest.collect();
        let refs: Vec<&str> = self.refs.keys().map(String::as_str).collect();
        format!("of {} snapshots the newest are {}; branches and tags are {}", snapshots.len(), newest.join(", "), list(&refs))
    }

    /// A field with this id of any schema, the newest first, right among the columns. Columns that are gone still tell deleted rows.
    pub(super) fn past_column(&self, id: i32) -> Option<NestedFieldRef> {
        let schemas = self.metadata.schemas_iter();
        let holding = schemas.filter_map(|schema| Some((schema.schema_id(), schema.as_struct().field_by_id(id)?)));
        holding.max_by_key(|(schema, _)| *schema).map(|(_, field)| field.clone())
    }
}

/// What a look at a table finds, which is taken again where the file of metadata ends before it is whole: on a local disk it is
/// seen while it is written. The state before is not taken instead, since a file that was cut when it counted already looks the
/// same. Errors: those of the last look.
pub(super) async fn when_whole<T, F: Future<Output = Result<T>>>(look: impl Fn() -> F) -> Result<T> {
    for wait in WAITS {
        match look().await {
            Err(error) if error.kind() == Kind::Data && error.retryable() => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            found => return found,
        }
    }
    look().await
}

/// Runs a parser over a file, on a thread that may be busy. Whatever it meets is about the file, and so is a panic.
pub(super) async fn parsed<T: Send + 'static>(
    lake: &Lake,
    path: &Path,
    parse: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let parsed = match tokio::task::spawn_blocking(parse).await {
        Ok(parsed) => parsed,
        Err(cause) if cause.is_panic() => Err(Error::data("the file is not sound: its parts contradict each other")),
        Err(cause) => return Err(ended_early(cause)),
    };
    parsed.map_err(|error| error.at(lake.store.place(path)))
}

/// What a parser says of a file, without what the file holds.
pub(super) fn unreadable(cause: &dyn std::fmt::Display) -> Error {
    let text = cause.to_string();
    let line = text.lines().next().unwrap_or_default().to_owned();
    Error::data(format!("this is not as the table format says: {}", shortened(line, 300)))
        .with_hint("restore the file, or go back to an earlier state of the table")
}

/// A file that ends before it is whole. Another look may find that it is by then.
fn cut() -> Error {
    let message = "this ends before it is whole: it is being written, or whoever wrote it has died, or it was cut";
    let hint = "run the statement again; if it stays so, restore it, or remove it for the state before if no catalog names it";
    Error::data(message).with_hint(hint).with_retryable(true)
}

fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|cause| if cause.is_eof() { cut() } else { unreadable(&cause) })
}

fn unpacked(bytes: Bytes) -> Result<Bytes> {
    let mut unpacked = Vec::new();
    let reader = FileCompressionType::GZIP.convert_read(Cursor::new(bytes))?;
    let read = reader.take(LARGEST + 1).read_to_end(&mut unpacked);
    read.map_err(|cause| if cause.kind() == ErrorKind::UnexpectedEof { cut() } else { unreadable(&cause) })?;
    if unpacked.len() as u64 > LARGEST {
        return Err(Error::data(format!("this unpacks to more than {LARGEST} bytes, and should be metadata")));
    }
    Ok(unpacked.into())
}

/// Errors: `Unsupported` for what the crate of the format does not know, or would say nothing of.
fn supported(raw: &Value) -> Result<()> {
    let version = raw.get("format-version").and_then(Value::as_u64);
    match version {
        Some(1..=3) => {}
        Some(version) => return Err(refused(format!("tables of format version {version}"))),
        None => return Err(Error::data("this is not as the table format says: it has no format-version")),
    }
    let properties = raw.get("properties");
    let key = properties.and_then(|properties| properties.get("encryption.key-id"));
    let keys = raw.get("encryption-keys").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    if keys || key.is_some() {
        return Err(refused("encrypted tables".to_owned()));
    }
    for key in ["schema", "schemas"] {
        known_types(raw.get(key).unwrap_or(&Value::Null))?;
    }
    // Of two the crate of the format would take the last.
    for (list, key) in [("snapshots", "snapshot-id"), ("schemas", "schema-id"), ("partition-specs", "spec-id")] {
        let mut seen = HashSet::new();
        let of_list = raw.get(list).and_then(Value::as_array).into_iter().flatten();
        let mut ids = of_list.filter_map(|of| of.get(key)?.as_i64());
        if let Some(twice) = ids.find(|id| !seen.insert(*id)) {
            return Err(unreadable(&format!("two of its {list} have the {key} {twice}")));
        }
    }
    Ok(())
}

pub(super) fn refused(what: String) -> Error {
    Error::unsupported(format!("{what} are not read here")).with_hint("the page of the connector says what is")
}

/// Goes through fields at any depth; JSON is bounded in depth by whoever parsed it.
fn known_types(value: &Value) -> Result<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(known_types),
        Value::Object(object) => {
            for key in ["type", "element", "key", "value"] {
                let Some(Value::String(name)) = object.get(key) else { continue };
                let of_fields = key == "type" && matches!(name.as_str(), "struct" | "list" | "map");
                let with_length = name.starts_with("decimal(") || name.starts_with("fixed[");
                if !of_fields && !with_length && !PRIMITIVES.contains(&name.as_str()) {
                    let column = object.get("name").and_then(Value::as_str);
                    let column = column.map(|column| format!(", as \"{column}\" is,")).unwrap_or_default();
                    return Err(refused(format!("columns of the type {name}{column}")));
                }
            }
            for key in ["fields", "type", "element", "key", "value"] {
                known_types(object.get(key).unwrap_or(&Value::Null))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn with_defaults(value: &Value, found: &mut HashSet<i32>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| with_defaults(value, found)),
        Value::Object(object) => {
            let default = object.get("initial-default").filter(|default| !default.is_null());
            if let (Some(_), Some(id)) = (default, object.get("id").and_then(Value::as_i64)) {
                found.extend(i32::try_from(id));
            }
            for key in ["fields", "type", "element", "key", "value"] {
                with_defaults(object.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;
    use crate::lake::Room;

    /// A table of format 2 with two snapshots, a tag and a branch.
    pub(in crate::iceberg) fn metadata() -> Value {
        serde_json::json!({
            "format-version": 2, "table-uuid": "fb072c92-a02b-11e9-ae9c-1bb7bc9eca94", "location": "file:///w/t",
            "last-sequence-number": 2, "last-updated-ms": 1_704_153_600_000_i64, "last-column-id": 3, "current-schema-id": 1,
            "schemas": [
                { "type": "struct", "schema-id": 0, "fields": [{ "id": 1, "name": "id", "required": true, "type": "int" }] },
                { "type": "struct", "schema-id": 1, "fields": [
                    { "id": 1, "name": "key", "required": true, "type": "long" },
                    { "id": 2, "name": "day", "required": false, "type": "date" },
                ] },
            ],
            "partition-specs": [{ "spec-id": 0, "fields": [] }], "default-spec-id": 0, "last-partition-id": 999,
            "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0, "current-snapshot-id": 22,
            "snapshots": [
                { "snapshot-id": 11, "sequence-number": 1, "timestamp-ms": 1_704_067_200_000_i64, "schema-id": 0,
                  "manifest-list": "file:///w/t/metadata/a.avro", "summary": { "operation": "append" } },
                { "snapshot-id": 22, "sequence-number": 2, "timestamp-ms": 1_704_153_600_000_i64, "schema-id": 1,
                  "parent-snapshot-id": 11, "manifest-list": "file:///w/t/metadata/b.avro", "summary": { "operation": "delete" } },
            ],
            "snapshot-log": [
                { "snapshot-id": 11, "timestamp-ms": 1_704_067_200_000_i64 },
                { "snapshot-id": 22, "timestamp-ms": 1_704_153_600_000_i64 },
            ],
            "refs": {
                "main": { "snapshot-id": 22, "type": "branch" },
                "first": { "snapshot-id": 11, "type": "tag" },
                "work": { "snapshot-id": 11, "type": "branch" },
            },
        })
    }

    pub(in crate::iceberg) fn table(metadata: &Value) -> Result<Table> {
        Table::parse(serde_json::to_vec(metadata).unwrap().into(), &mut Room::new().taken())
    }

    #[test]
    fn a_state_is_named_by_snapshot_reference_and_time() {
        let table = table(&metadata()).unwrap();
        let named = |point: &str| {
            let state = table.at(point).unwrap();
            (state.snapshot.unwrap().snapshot_id(), state.schema.schema_id())
        };
        assert_eq!(named("11"), (11, 0));
        assert_eq!(named("first"), (11, 0));
        assert_eq!(named("work"), (11, 1));
        assert_eq!(named("2024-01-01"), (11, 0));
        assert_eq!(named("2024-01-01T23:59:59.999Z"), (11, 0));
        assert_eq!(named("2024-01-02T01:00:00+01:00"), (22, 1));
        insta::assert_snapshot!(table.at("12").unwrap_err(), @r#""12" is no snapshot, branch or tag of the table, and no time; of 2 snapshots the newest are 22 of 2024-01-02T00:00:00.000Z, 11 of 2024-01-01T00:00:00.000Z; branches and tags are "first", "main", "work""#);
        insta::assert_snapshot!(table.at("2023-12-31").unwrap_err().message(), @"of 2023-12-31 no snapshot is known");
    }

    #[test]
    fn a_version_tells_what_numbers_do_not() {
        let version = |metadata: &Value| {
            let table = table(metadata).unwrap();
            table.version(&table.now())
        };
        let plain = metadata();
        assert_eq!(version(&plain), "fb072c92-a02b-11e9-ae9c-1bb7bc9eca94:22:1:06019b53a70e709c");
        let mut rewritten = metadata();
        rewritten["snapshots"][1]["manifest-list"] = "file:///w/t/metadata/c.avro".into();
        assert_ne!(version(&rewritten), version(&plain));
        let mapped = |names: &str| {
            let mut metadata = metadata();
            let mapping = format!(r#"[{{"field-id":1,"names":["{names}"]}}]"#);
            metadata["properties"] = serde_json::json!({ DEFAULT_SCHEMA_NAME_MAPPING: mapping });
            version(&metadata)
        };
        assert_eq!(mapped("a"), mapped("a"));
        assert_ne!(mapped("a"), mapped("b"));
        assert!(mapped("a").starts_with(&version(&plain)));
        // Of the first format, with neither a UUID nor numbers of schemas.
        let first = |name: &str| {
            let fields = serde_json::json!([{ "id": 1, "name": name, "required": true, "type": "int" }]);
            version(&serde_json::json!({
                "format-version": 1, "location": "file:///w/t", "last-updated-ms": 1_704_153_600_000_i64, "last-column-id": 1,
                "schema": { "type": "struct", "fields": fields }, "partition-spec": [],
            }))
        };
        assert_eq!(first("a"), first("a"));
        assert_ne!(first("a"), first("b"));
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        let refusal = |change: &dyn Fn(&mut Value)| {
            let mut metadata = metadata();
            change(&mut metadata);
            table(&metadata).unwrap_err().message().to_owned()
        };
        let column = |name: Value| refusal(&|metadata| metadata["schemas"][1]["fields"][1]["type"] = name.clone());
        insta::assert_snapshot!(refusal(&|metadata| metadata["format-version"] = 4.into()), @"tables of format version 4 are not read here");
        insta::assert_snapshot!(refusal(&|metadata| metadata["encryption-keys"] = serde_json::json!([{}])), @"encrypted tables are not read here");
        insta::assert_snapshot!(column("variant".into()), @r#"columns of the type variant, as "day" is, are not read here"#);
        let nested = serde_json::json!({ "type": "list", "element-id": 9, "element-required": false, "element": "geometry" });
        insta::assert_snapshot!(column(nested), @"columns of the type geometry are not read here");
        assert_eq!(table(&serde_json::json!({})).unwrap_err().kind(), nexus_flight_catalog::Kind::Data);
        insta::assert_snapshot!(refusal(&|metadata| metadata["snapshots"][1]["snapshot-id"] = 11.into()), @"this is not as the table format says: two of its snapshots have the snapshot-id 11");
        insta::assert_snapshot!(refusal(&|metadata| metadata["schemas"][1]["schema-id"] = 0.into()), @"this is not as the table format says: two of its schemas have the schema-id 0");
    }

    #[test]
    fn defaults_are_found() {
        let mut metadata = metadata();
        metadata["schemas"][1]["fields"][1]["initial-default"] = "2024-01-01".into();
        assert_eq!(table(&metadata).unwrap().defaults, HashSet::from([2]));
        metadata["schemas"][1]["fields"][1]["initial-default"] = Value::Null;
        assert!(table(&metadata).unwrap().defaults.is_empty());
    }

    #[test]
    fn packed_metadata_is_unpacked() {
        let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
        assert_eq!(unpacked(Bytes::from_static(packed)).unwrap(), Bytes::from_static(b"{}"));
        for end in [2, 9, 12, packed.len() - 1] {
            let error = unpacked(Bytes::copy_from_slice(&packed[..end])).unwrap_err();
            assert_eq!((error.kind(), error.retryable()), (Kind::Data, true), "{end}: {error}");
        }
        let mut changed = packed.to_vec();
        changed[14] ^= 0xFF;
        assert!(!unpacked(changed.into()).unwrap_err().retryable());
    }

    #[test]
    fn a_file_that_is_not_whole_is_told_from_a_damaged_one() {
        let refusal = |bytes: &[u8]| Table::parse(Bytes::copy_from_slice(bytes), &mut Room::new().taken()).unwrap_err();
        let whole = metadata().to_string();
        for end in 0..whole.len() {
            let error = refusal(&whole.as_bytes()[..end]);
            assert_eq!((error.kind(), error.retryable()), (Kind::Data, true), "{end}: {error}");
        }
        insta::assert_snapshot!(refusal(b""), @"this ends before it is whole: it is being written, or whoever wrote it has died, or it was cut; run the statement again; if it stays so, restore it, or remove it for the state before if no catalog names it");
        for damaged in [whole.replacen(':', ";", 1), format!("{whole}}}"), "{}".to_owned(), "0".to_owned()] {
            assert!(!refusal(damaged.as_bytes()).retryable(), "{damaged}");
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_is_looked_at_again() {
        let looks = Cell::new(0_usize);
        let look = |of: fn() -> Error, last: usize| {
            looks.set(looks.get() + 1);
            ready(if looks.get() < last { Err(of()) } else { Ok(looks.get()) })
        };
        assert_eq!(when_whole(|| look(cut, 3)).await.unwrap(), 3);
        looks.set(0);
        assert!(when_whole(|| look(cut, 9)).await.unwrap_err().retryable());
        assert_eq!(looks.replace(0), 1 + WAITS.len());
        assert!(when_whole(|| look(|| unreadable(&"damaged"), 9)).await.is_err());
        assert_eq!(looks.get(), 1);
    }
}
