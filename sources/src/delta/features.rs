//! What a table asks of who writes to it, and whether that is done here.

use std::collections::BTreeSet;

use delta_kernel::actions::Protocol;
use delta_kernel::snapshot::SnapshotRef;
use nexus_flight_catalog::error::list;
use nexus_flight_catalog::{Error, Result};
use serde_json::{Value, json};

/// The features that a table may have that is written here.
const WRITTEN: &[&str] = &[
    "allowColumnDefaults",
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    CLUSTERING,
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "identityColumns",
    IN_COMMIT_TIMESTAMP,
    "invariants",
    WITHOUT_ZONE,
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];
/// What the versions of the protocol before the one with names ask of a writer, from the version on.
const LEGACY: &[(i32, &str)] = &[
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];
/// The versions of the protocol in which features go by their names.
const NAMED: (i32, i32) = (3, 7);
/// The feature of columns that hold times without a zone.
pub(super) const WITHOUT_ZONE: &str = "timestampNtz";
/// The feature of a table whose files have bounds of the columns that it is ordered by.
const CLUSTERING: &str = "clustering";
/// The feature of a table whose commits say when they were made.
const IN_COMMIT_TIMESTAMP: &str = "inCommitTimestamp";
/// The feature that no reader knows, of a table that is dropped.
pub(super) const DROPPED: &str = "nexusDropped";

/// What the metadata of a column says where a value is checked or made that is not made here, and the feature that it belongs to.
const COLUMNS: &[(&str, &str)] = &[
    ("delta.invariants", "invariants"),
    ("delta.generationExpression", "generatedColumns"),
    ("delta.identity.", "identityColumns"),
    ("CURRENT_DEFAULT", "allowColumnDefaults"),
];

/// Errors: `Unsupported` for a table that is not written here, or whose rows may not be replaced where that is wanted; with the feature.
pub(super) fn check(snapshot: &SnapshotRef, replaces: bool) -> Result<()> {
    let table = snapshot.table_configuration();
    let names = of_writers(table.protocol());
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !WRITTEN.contains(name)).collect();
    if !unknown.is_empty() {
        return Err(Error::unsupported(format!("the table has features that are not written here: {}", list(&unknown)))
            .with_hint("write with what made the table, or drop the features"));
    }
    let metadata = table.metadata();
    let mut used = BTreeSet::new();
    let schema: Value = serde_json::from_str(metadata.schema_string())
        .map_err(|cause| Error::data("the columns of the table cannot be read").caused_by(cause))?;
    marks(&schema, &mut used);
    if metadata.configuration().keys().any(|key| key.starts_with("delta.constraints.")) {
        used.insert("checkConstraints");
    }
    if let Some(feature) = used.first() {
        return Err(Error::unsupported(format!("the table uses \"{feature}\", and nothing here checks or makes such values"))
            .with_hint("write with what made the table"));
    }
    let is_set = |key: &str| metadata.configuration().get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let refused = |why: &str| Err(Error::unsupported(format!("the rows of this table cannot be replaced: {why}")));
    match replaces {
        true if is_set("delta.appendOnly") => refused("it only takes more of them (delta.appendOnly)"),
        true if is_set("delta.enableChangeDataFeed") => refused("it tells of each change (delta.enableChangeDataFeed)"),
        _ => Ok(()),
    }
}

/// Whether the bounds of all columns of a table are to be told, not only those of the first.
pub(super) fn is_clustered(snapshot: &SnapshotRef) -> bool {
    of_writers(snapshot.table_configuration().protocol()).contains(CLUSTERING)
}

/// Whether the commits of a table say when they were made.
pub(super) fn is_timed(snapshot: &SnapshotRef) -> bool {
    let table = snapshot.table_configuration();
    let enabled = table.metadata().configuration().get("delta.enableInCommitTimestamps");
    of_writers(table.protocol()).contains(IN_COMMIT_TIMESTAMP) && enabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The action that gives a table a feature of readers and writers which it does not have; none where it has it.
pub(super) fn with(protocol: &Protocol, feature: &str) -> Option<Value> {
    let mut writers = of_writers(protocol);
    if !writers.insert(feature.to_owned()) {
        return None;
    }
    let named = protocol.reader_features().unwrap_or_default().iter().map(ToString::to_string);
    let mut readers: BTreeSet<String> = named.chain([feature.to_owned()]).collect();
    // What an older version has without a name, and both lists have by name.
    if writers.contains("columnMapping") {
        readers.insert("columnMapping".to_owned());
    }
    Some(protocol_of(&readers, &writers))
}

/// The protocol of a new table, as an action: the least that its columns need.
pub(super) fn new(mapped: bool, without_zone: bool) -> Value {
    let legacy = |reader: i32, writer: i32| json!({ "protocol": { "minReaderVersion": reader, "minWriterVersion": writer } });
    if !without_zone {
        return if mapped { legacy(2, 5) } else { legacy(1, 2) };
    }
    let both = ["columnMapping", WITHOUT_ZONE].into_iter().filter(|name| mapped || *name != "columnMapping");
    let readers: BTreeSet<String> = both.map(str::to_owned).collect();
    let writers = ["appendOnly", "invariants"].into_iter().map(str::to_owned).chain(readers.iter().cloned()).collect();
    protocol_of(&readers, &writers)
}

/// The protocol that no reader knows, as an action.
pub(super) fn dropped() -> Value {
    let only = BTreeSet::from([DROPPED.to_owned()]);
    protocol_of(&only, &only)
}

fn protocol_of(readers: &BTreeSet<String>, writers: &BTreeSet<String>) -> Value {
    let (reader, writer) = NAMED;
    json!({ "protocol": {
        "minReaderVersion": reader, "minWriterVersion": writer, "readerFeatures": readers, "writerFeatures": writers
    } })
}

/// What a protocol asks of writers, by name.
fn of_writers(protocol: &Protocol) -> BTreeSet<String> {
    let version = protocol.min_writer_version();
    let legacy = LEGACY.iter().filter(|(from, _)| version < NAMED.1 && version >= *from).map(|(_, name)| (*name).to_owned());
    let named = protocol.writer_features().unwrap_or_default().iter().map(ToString::to_string);
    legacy.chain(named).collect()
}

/// The features that columns use, at every level.
fn marks(of: &Value, used: &mut BTreeSet<&'static str>) {
    match of {
        Value::Object(parts) => {
            for key in parts.get("metadata").and_then(Value::as_object).into_iter().flat_map(|metadata| metadata.keys()) {
                used.extend(COLUMNS.iter().filter(|(mark, _)| key.starts_with(mark)).map(|(_, feature)| *feature));
            }
            parts.values().for_each(|part| marks(part, used));
        }
        Value::Array(parts) => parts.iter().for_each(|part| marks(part, used)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(json: Value) -> Protocol {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn older_versions_ask_for_features_without_their_names() {
        let of = |version: i32| of_writers(&protocol(json!({ "minReaderVersion": 1, "minWriterVersion": version }))).len();
        assert_eq!([1, 2, 3, 4].map(of), [0, 2, 3, 5]);
        let named = json!({ "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking"] });
        assert_eq!(of_writers(&protocol(named)), BTreeSet::from(["rowTracking".to_owned()]));
    }

    #[test]
    fn a_feature_that_comes_keeps_those_that_are_there() {
        let mapped = protocol(json!({ "minReaderVersion": 2, "minWriterVersion": 5 }));
        let action = with(&mapped, WITHOUT_ZONE).unwrap();
        assert_eq!(action["protocol"]["readerFeatures"], json!(["columnMapping", "timestampNtz"]));
        assert_eq!(action["protocol"]["writerFeatures"].as_array().unwrap().len(), 7);
        let again: Protocol = protocol(action["protocol"].clone());
        assert_eq!(with(&again, WITHOUT_ZONE), None);
        let plain = new(false, true);
        assert_eq!(plain["protocol"]["writerFeatures"], json!(["appendOnly", "invariants", "timestampNtz"]));
    }

    #[test]
    fn what_columns_use_is_found_at_every_level() {
        let inner = json!({ "name": "x", "type": "long", "nullable": true, "metadata": { "delta.identity.start": 1 } });
        let array = json!({ "type": "array", "containsNull": true, "elementType": { "type": "struct", "fields": [inner] } });
        let mut used = BTreeSet::new();
        marks(&json!({ "type": "struct", "fields": [{ "name": "a", "type": array, "metadata": {} }] }), &mut used);
        assert_eq!(used, BTreeSet::from(["identityColumns"]));
    }
}
