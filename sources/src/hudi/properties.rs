//! What `hoodie.properties` says of a table, and which tables are not read.

use std::collections::HashMap;

use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::HOODIE;
use crate::lake::Lake;
use crate::stores::hex;

/// The most bytes of the properties of a table.
const LARGEST: u64 = 4 * 1024 * 1024;
/// What a property may begin with that would tell the crate of the format to read otherwise than it is asked to.
const MEDDLING: &[&str] = &["hoodie.read.", "hoodie.internal.", "hoodie.base.path", "hoodie.merge.use.record.positions"];
/// Where a table names the class that decides between two records.
const PAYLOADS: &[&str] =
    &["hoodie.compaction.payload.class", "hoodie.datasource.write.payload.class", "hoodie.table.legacy.payload.class"];
/// The classes that do no more than the two orders of records.
const PLAIN_PAYLOADS: &[&str] = &[
    "org.apache.hudi.common.model.DefaultHoodieRecordPayload",
    "org.apache.hudi.common.model.EventTimeAvroPayload",
    "org.apache.hudi.common.model.OverwriteWithLatestAvroPayload",
];
/// Where a table names the strategy by which two records become one.
const STRATEGIES: &[&str] = &["hoodie.record.merge.strategy.id", "hoodie.compaction.record.merger.strategy"];
/// The strategies of the two orders: by event time, and by commit time.
const PLAIN_STRATEGIES: &[&str] = &["eeb8d96f-b1e4-49fd-bbf8-28ac514178e5", "ce9acb64-bde0-424c-9b91-f6ebba25356d"];
/// What a table may say of merging besides: which value of which field marks a deleted record.
const MERGE: &str = "hoodie.record.merge.property.";
const MARKERS: &[&str] = &["hoodie.payload.delete.field", "hoodie.payload.delete.marker"];
/// Where a table names what makes the keys of records.
const KEYS: &[&str] = &["hoodie.table.keygenerator.class", "hoodie.table.keygenerator.type"];
/// The fields by which records are told apart and ordered.
const FIELDS: &[&str] = &[
    "hoodie.table.recordkey.fields",
    "hoodie.table.ordering.fields",
    "hoodie.table.precombine.field",
    "hoodie.table.partition.fields",
];

/// How a table is kept.
#[derive(Debug)]
pub(super) struct Properties {
    values: HashMap<String, String>,
    /// Whether completed instants tell when they were completed, as they do from version 8 on.
    pub(super) has_completion: bool,
    pub(super) is_merge_on_read: bool,
    /// Whether the rows have Hudi's own columns.
    pub(super) has_meta: bool,
    /// Whether instants are times in UTC; otherwise they are those of a zone that only the writer knows.
    pub(super) in_utc: bool,
    /// Tells these properties from any others.
    pub(super) digest: String,
}

impl Properties {
    /// Of the table in a folder. Errors: `Unsupported` for what this connector does not read, by name; `Data` for what are no
    /// properties of a table.
    pub(super) async fn read(lake: &Lake, table: &Path) -> Result<Self> {
        let path = table.clone().join(HOODIE).join("hoodie.properties");
        let bytes = lake.read(&path, LARGEST).await?;
        let parsed = match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(damaged("it is no text")),
        };
        parsed.map_err(|error| error.at(lake.store.place(&path)))
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        let pairs = lines.map(|line| line.split_once('=').unwrap_or((line, "")));
        let values: HashMap<String, String> =
            pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect();
        let value = |key: &str| values.get(key).map(String::as_str);
        if let Some(key) = values.keys().find(|key| MEDDLING.iter().any(|start| key.starts_with(start))) {
            return Err(refused(format!("tables with the property {key}")));
        }
        let version = value("hoodie.table.version").ok_or_else(|| damaged("it has no hoodie.table.version"))?;
        let has_completion = match version {
            "6" => false,
            "8" | "9" => true,
            version => return Err(refused(format!("tables of version {version}"))),
        };
        let layout = if has_completion { "2" } else { "1" };
        if let Some(other) = value("hoodie.timeline.layout.version").filter(|written| *written != layout) {
            return Err(refused(format!("tables of version {version} with a timeline of layout {other}")));
        }
        let kind = value("hoodie.table.type").ok_or_else(|| damaged("it has no hoodie.table.type"))?;
        let is_merge_on_read = match kind {
            "COPY_ON_WRITE" => false,
            "MERGE_ON_READ" => true,
            kind => return Err(refused(format!("tables of the type {kind}"))),
        };
        let format = value("hoodie.table.base.file.format").unwrap_or("PARQUET");
        if !format.eq_ignore_ascii_case("parquet") {
            return Err(refused(format!("tables whose base files are {format}")));
        }
        for (key, what) in [
            ("hoodie.table.multiple.base.file.formats.enable", "tables with base files of several formats"),
            ("hoodie.datasource.write.drop.partition.columns", "tables whose files lack the partition columns"),
            ("hoodie.table.cdc.enabled", "tables that keep what changes (CDC)"),
        ] {
            if value(key).is_some_and(|set| set.eq_ignore_ascii_case("true")) {
                return Err(refused(format!("{what}, as {key} says,")));
            }
        }
        if value("hoodie.bootstrap.base.path").is_some_and(|path| !path.is_empty()) {
            return Err(refused("bootstrapped tables, whose rows are in the files of another one,".to_owned()));
        }
        let has_meta = !value("hoodie.populate.meta.fields").is_some_and(|set| set.eq_ignore_ascii_case("false"));
        let in_utc = value("hoodie.table.timeline.timezone").is_some_and(|zone| zone.eq_ignore_ascii_case("utc"));
        let digest = hex(text, 8);
        Ok(Self { has_completion, is_merge_on_read, has_meta, in_utc, digest, values })
    }

    /// What the table says at a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The columns that the table was made with, in Avro.
    pub(super) fn create_schema(&self) -> Option<&str> {
        self.value("hoodie.table.create.schema").filter(|schema| !schema.is_empty())
    }

    /// Where the instants of a table are. Errors: `Unsupported` for a folder that is none.
    pub(super) fn timeline(&self, table: &Path) -> Result<Path> {
        let hoodie = table.clone().join(HOODIE);
        if !self.has_completion {
            return Ok(hoodie);
        }
        let name = self.value("hoodie.timeline.path").unwrap_or("timeline");
        match Path::parse(name) {
            Ok(within) if !name.is_empty() => Ok(hoodie.parts().chain(within.parts()).collect()),
            _ => Err(refused(format!("tables whose timeline is in \"{name}\""))),
        }
    }

    /// Errors: `Unsupported` for a table whose records are merged in a way that the crate of the format does not have, which would
    /// merge them in another.
    pub(super) fn mergeable(&self) -> Result<()> {
        let value = |key: &str| self.value(key).filter(|value| !value.is_empty());
        let named = |keys: &'static [&'static str]| keys.iter().filter_map(move |key| Some((*key, value(key)?)));
        let merged = |what: &str, by: &str| -> Result<()> {
            Err(refused(format!("records in log files that are merged by the {what} {by}"))
                .with_hint("compact the table, or set read = \"read_optimized\" for what is compacted"))
        };
        let mode = value("hoodie.record.merge.mode");
        if let Some(mode) = mode.filter(|mode| !["COMMIT_TIME_ORDERING", "EVENT_TIME_ORDERING"].contains(mode)) {
            return merged("mode", mode);
        }
        if let Some((_, class)) = named(PAYLOADS).find(|(_, class)| !PLAIN_PAYLOADS.contains(class)) {
            return merged("class", class);
        }
        if let Some((_, id)) = named(STRATEGIES).find(|(_, id)| !PLAIN_STRATEGIES.contains(id)) {
            return merged("strategy", id);
        }
        if let Some(mode) = value("hoodie.table.partial.update.mode") {
            return merged("partial updates", mode);
        }
        let marker = |key: &str| key.strip_prefix(MERGE).is_some_and(|key| !MARKERS.contains(&key));
        if let Some(key) = self.values.keys().find(|key| marker(key)) {
            return merged("property", key);
        }
        // Before version 9 it is a setting of the writer whether such a key has the name of its field before it, where records are
        // deleted.
        let is_told = self.has_meta || value("hoodie.table.version") == Some("9");
        if let Some((_, class)) = named(KEYS).find(|(_, class)| !is_told && class.to_ascii_lowercase().contains("complex")) {
            return merged("keys that are not in the files, of", class);
        }
        // Java writes other letters than those of English as numbers, and the crate looks for columns that are called by those.
        if let Some((key, _)) = named(FIELDS).find(|(_, names)| names.contains('\\')) {
            return merged("names in", key);
        }
        Ok(())
    }
}

/// What is not read, for people.
pub(super) fn refused(what: String) -> Error {
    Error::unsupported(format!("{what} are not read here")).with_hint("the page of the connector says what is")
}

fn damaged(why: &str) -> Error {
    Error::data(format!("these are no properties of a table: {why}")).with_hint("restore the file from hoodie.properties.backup")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The properties of a table of a type and version.
    pub(in crate::hudi) fn properties(kind: &str, version: u8) -> String {
        let layout = if version < 8 { 1 } else { 2 };
        format!(
            "#Updated at 2024\nhoodie.table.name=t\nhoodie.table.type={kind}\nhoodie.table.version={version}\n\
             hoodie.timeline.layout.version={layout}\nhoodie.table.base.file.format=PARQUET\nhoodie.table.timeline.timezone=UTC\n"
        )
    }

    fn refusal(line: &str) -> String {
        let text = format!("{}{line}\n", properties("MERGE_ON_READ", 9));
        let parsed = Properties::parse(&text).and_then(|properties| properties.mergeable());
        parsed.unwrap_err().message().to_owned()
    }

    #[test]
    fn what_the_table_is_is_told() {
        let old = Properties::parse(&properties("COPY_ON_WRITE", 6)).unwrap();
        assert!(!old.has_completion && !old.is_merge_on_read && old.has_meta && old.in_utc);
        assert_eq!(old.timeline(&Path::from("t")).unwrap().as_ref(), "t/.hoodie");
        let new = Properties::parse(&properties("MERGE_ON_READ", 8)).unwrap();
        assert!(new.has_completion && new.is_merge_on_read && new.mergeable().is_ok());
        assert_eq!(new.timeline(&Path::from("t")).unwrap().as_ref(), "t/.hoodie/timeline");
        assert!(!Properties::parse("hoodie.table.version=9\nhoodie.table.type=COPY_ON_WRITE").unwrap().in_utc);
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        insta::assert_snapshot!(refusal("hoodie.table.version=5"), @"tables of version 5 are not read here");
        insta::assert_snapshot!(refusal("hoodie.timeline.layout.version=1"), @"tables of version 9 with a timeline of layout 1 are not read here");
        insta::assert_snapshot!(refusal("hoodie.table.base.file.format=HFILE"), @"tables whose base files are HFILE are not read here");
        insta::assert_snapshot!(refusal("hoodie.table.base.file.format=lance"), @"tables whose base files are lance are not read here");
        insta::assert_snapshot!(refusal("hoodie.datasource.write.drop.partition.columns=true"), @"tables whose files lack the partition columns, as hoodie.datasource.write.drop.partition.columns says, are not read here");
        insta::assert_snapshot!(refusal("hoodie.table.cdc.enabled=true"), @"tables that keep what changes (CDC), as hoodie.table.cdc.enabled says, are not read here");
        insta::assert_snapshot!(refusal("hoodie.bootstrap.base.path=/elsewhere"), @"bootstrapped tables, whose rows are in the files of another one, are not read here");
        insta::assert_snapshot!(refusal("hoodie.base.path=/elsewhere"), @"tables with the property hoodie.base.path are not read here");
        let elsewhere = Properties::parse(&format!("{}hoodie.timeline.path=../x\n", properties("COPY_ON_WRITE", 9))).unwrap();
        insta::assert_snapshot!(elsewhere.timeline(&Path::from("t")).unwrap_err().message(), @r#"tables whose timeline is in "../x" are not read here"#);
    }

    #[test]
    fn a_merge_of_its_own_is_refused_by_name() {
        insta::assert_snapshot!(refusal("hoodie.record.merge.mode=CUSTOM"), @"records in log files that are merged by the mode CUSTOM are not read here");
        insta::assert_snapshot!(refusal("hoodie.compaction.payload.class=org.apache.hudi.common.model.AWSDmsAvroPayload"), @"records in log files that are merged by the class org.apache.hudi.common.model.AWSDmsAvroPayload are not read here");
        insta::assert_snapshot!(refusal("hoodie.record.merge.strategy.id=00000000-0000-0000-0000-000000000000"), @"records in log files that are merged by the strategy 00000000-0000-0000-0000-000000000000 are not read here");
        insta::assert_snapshot!(refusal("hoodie.table.partial.update.mode=FILL_UNAVAILABLE"), @"records in log files that are merged by the partial updates FILL_UNAVAILABLE are not read here");
        let keys = "hoodie.table.version=8\nhoodie.populate.meta.fields=false\nhoodie.table.keygenerator.type=COMPLEX";
        insta::assert_snapshot!(refusal(keys), @"records in log files that are merged by the keys that are not in the files, of COMPLEX are not read here");
        insta::assert_snapshot!(refusal("hoodie.table.ordering.fields=\\u6642"), @"records in log files that are merged by the names in hoodie.table.ordering.fields are not read here");
    }

    #[test]
    fn what_are_no_properties_is_told() {
        assert_eq!(Properties::parse("{}").unwrap_err().kind(), nexus_flight_catalog::Kind::Data);
    }
}
