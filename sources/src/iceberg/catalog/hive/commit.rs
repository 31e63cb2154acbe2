//! How a table of a metastore gets its next file of metadata, as Iceberg's own `HiveTableOperations` does it: under a lock of the
//! table, and only in place of the file that was read, where the metastore compares that (HIVE-26882).

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_flight_catalog::{Error, Kind, Result};
use serde_json::{Map, Value};

use super::locks::Lock;
use super::{ANSWERED_WITHIN, Hive, Session, in_time, refusal, value};
use crate::iceberg::append::{Change, put};
use crate::iceberg::catalog::thrift::{self, Answers, Call, MAP, TEXT, check, wrong};
use crate::iceberg::catalog::{Found, Outcome, successor};
use crate::stores::Made;

/// The field of a table that its parameters are, and the most of them.
const PARAMETERS: i16 = 9;
const MOST_PARAMETERS: u64 = 100_000;
const LOCATION: &str = "metadata_location";
const PREVIOUS: &str = "previous_metadata_location";

/// The property of a table by which those who write it lock it, or leave that to the metastore that compares.
const LOCKS: &str = "engine.hive.lock-enabled";
/// How an exception begins that says that the parameter is another.
const MODIFIED: &str = "The table has been modified";

/// Makes a changed table the one of now, as `Catalog::commit` wants it.
pub(super) async fn commit(hive: &Hive, schema: &str, name: &str, found: &Found, change: &Change) -> Result<Outcome> {
    let before = found.current.state.as_str();
    let after = successor(change.folder(), before);
    let mut made = put(&found.lake, &after, Bytes::from(change.metadata(before)?)).await?;
    let lock = if change.property(LOCKS).is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        check_compares(hive).await?;
        None
    } else {
        Some(Lock::of(hive, schema, name).await?)
    };
    let exchange = Exchange { hive, schema, name, before, after: &after, lock: lock.as_ref() };
    let exchanged = exchange.run(change, &mut made);
    let outcome = match &lock {
        Some(lock) => lock.during(exchanged).await,
        None => exchanged.await,
    };
    // A change that may still be on its way would be made over that of the next who has the lock, unless it is compared.
    if let Some(lock) = lock
        && (!matches!(outcome, Ok(Outcome::Unknown(_))) || check_compares(hive).await.is_ok())
    {
        lock.give_back().await;
    }
    outcome
}

/// One file of metadata in place of another.
struct Exchange<'a> {
    hive: &'a Hive,
    schema: &'a str,
    name: &'a str,
    before: &'a str,
    after: &'a str,
    /// Under which it is done; none where the metastore compares.
    lock: Option<&'a Lock<'a>>,
}

impl Exchange<'_> {
    /// The new file is kept where the metastore names it, or may.
    async fn run(&self, change: &Change, made: &mut Made) -> Result<Outcome> {
        let mut session = self.hive.session().await?;
        // Others may have been before the lock.
        let Some(mut table) = session.registered(self.schema, self.name).await? else { return Ok(Outcome::Conflict) };
        if table.location() != Some(self.before) {
            return Ok(Outcome::Conflict);
        }
        table.exchange(self.before, self.after, change.snapshot());
        if let Some(lock) = self.lock {
            lock.check_held()?;
        }
        let changed = session.call(&table.call(self.schema, self.name, self.before)).await;
        let (error, is_answered) = match changed {
            Ok(thrift::Outcome::Done) => {
                made.keep();
                return Ok(Outcome::Done);
            }
            Ok(thrift::Outcome::Thrown { message, .. }) => (refusal(&message).at(session.server.place()), true),
            Ok(thrift::Outcome::Value(_)) => (wrong("it returns what that call does not"), false),
            Err(error) if error.kind() == Kind::Unsupported => return Err(error),
            Err(error) => (error, false),
        };
        drop(session);
        // A metastore that tries again itself may refuse what it has done at first.
        let now = self.now().await.map(|table| table.and_then(|table| table.location().map(str::to_owned)));
        let now = now.as_ref().map(Option::as_deref);
        match now {
            Ok(Some(now)) if is_answered && now == self.before => {
                return if error.message().contains(MODIFIED) { Ok(Outcome::Conflict) } else { Err(error) };
            }
            _ => made.keep(),
        }
        Ok(match now {
            Ok(Some(now)) if now == self.after => Outcome::Done,
            Ok(_) if is_answered => Outcome::Conflict,
            _ => Outcome::Unknown(error),
        })
    }

    async fn now(&self) -> Result<Option<Registered>> {
        self.hive.session().await?.registered(self.schema, self.name).await
    }
}

/// A table as it is in the metastore, of which nothing but parameters is changed.
#[derive(Debug)]
struct Registered {
    /// Its fields but for the parameters, as they came, known here or not.
    others: Vec<u8>,
    parameters: BTreeMap<String, String>,
}

impl Registered {
    /// From the struct that it is.
    async fn read(bytes: &[u8]) -> Result<Self> {
        let mut answers = Answers::new(bytes);
        let (mut others, mut parameters) = (Vec::new(), BTreeMap::new());
        while let Some((kind, id)) = answers.field().await? {
            if id != PARAMETERS {
                others.push(kind);
                others.extend(id.to_be_bytes());
                others.extend(answers.raw(kind).await?);
                continue;
            }
            check(kind, MAP)?;
            let (kinds, pairs) = answers.map().await?;
            if pairs > MOST_PARAMETERS {
                return Err(wrong("a table in it has more than 100,000 parameters"));
            }
            for _ in 0..pairs {
                check(kinds[0], TEXT)?;
                check(kinds[1], TEXT)?;
                let key = answers.text().await?;
                parameters.insert(key, answers.text().await?);
            }
        }
        Ok(Self { others, parameters })
    }

    fn location(&self) -> Option<&str> {
        self.parameters.get(LOCATION).map(String::as_str)
    }

    /// Names another file of metadata, and what its newest snapshot is where that was told of the one before.
    fn exchange(&mut self, before: &str, after: &str, snapshot: &Map<String, Value>) {
        let summary = snapshot.get("summary").and_then(Value::as_object).map(|summary| {
            let mut summary = summary.clone();
            summary.remove("operation");
            summary
        });
        let total = |key: &str| summary.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let number = |key: &str| snapshot.get(key).map(Value::to_string);
        let told = [
            ("numFiles", total("total-data-files")),
            ("numRows", total("total-records")),
            ("totalSize", total("total-files-size")),
            ("current-snapshot-id", number("snapshot-id")),
            ("current-snapshot-timestamp-ms", number("timestamp-ms")),
            ("current-snapshot-summary", summary.clone().map(|summary| Value::Object(summary).to_string())),
            ("COLUMN_STATS_ACCURATE", None),
        ];
        for (key, value) in told {
            if !self.parameters.contains_key(key) {
                continue;
            }
            match value {
                Some(value) => self.parameters.insert(key.to_owned(), value),
                None => self.parameters.remove(key),
            };
        }
        self.parameters.insert(LOCATION.to_owned(), after.to_owned());
        self.parameters.insert(PREVIOUS.to_owned(), before.to_owned());
    }

    /// The call that makes the table of the metastore this one, if its file of metadata is still the one of before.
    fn call(&self, schema: &str, name: &str, before: &str) -> Call {
        let parameters = self.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let context =
            [("DO_NOT_UPDATE_STATS", "true"), ("expected_parameter_key", LOCATION), ("expected_parameter_value", before)];
        let call = Call::new("alter_table_with_environment_context").text(1, schema).text(2, name);
        let call = call.begin(3).fields(&self.others).pairs(PARAMETERS, parameters).end();
        call.begin(4).pairs(1, context.into_iter()).end().end()
    }
}

impl Session<'_> {
    /// A table, to be changed; none where it is not there.
    async fn registered(&mut self, schema: &str, name: &str) -> Result<Option<Registered>> {
        let Some(bytes) = self.raw_table(schema, name).await? else { return Ok(None) };
        let registered = Registered::read(&bytes).await;
        registered.map(Some).map_err(|error| error.at(self.server.place()))
    }

    /// The version of Hive that the metastore is of.
    async fn version(&mut self) -> Result<String> {
        let answers = &mut self.answers;
        in_time(self.server, ANSWERED_WITHIN, async move {
            check(value(answers.call(&Call::new("getVersion").end()).await?)?, TEXT)?;
            let version = answers.text().await?;
            answers.end().await?;
            Ok(version)
        })
        .await
    }
}

/// Errors: `Unsupported` for a metastore that changes a table whatever others have made of it.
async fn check_compares(hive: &Hive) -> Result<()> {
    let version = hive.session().await?.version().await?;
    if compares(&version) {
        return Ok(());
    }
    let message = format!("{LOCKS} of this table says that it is written to without locks, for which Hive {version} is too old");
    Err(Error::unsupported(message).with_hint("remove this property of the table, for all who write to it"))
}

/// Whether a metastore of this version knows of expected parameters. Those of 2.3 call themselves 3.0.
fn compares(version: &str) -> bool {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= 4) && !version.contains("alpha")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{put, text};
    use super::*;

    /// Fields before the parameters and after them, of which two are not known to anybody.
    const FIRST: &[u8] = b"\x0b\x00\x01\x00\x00\x00\x01t\
        \x0c\x00\x07\x0f\x00\x01\x0c\x00\x00\x00\x01\x08\x00\x01\x00\x00\x00\x07\x00\x00";
    const LAST: &[u8] = b"\x0a\x03\xe8\x00\x00\x00\x00\x00\x00\x00\x09\
        \x0d\x03\xe9\x0b\x02\x00\x00\x00\x01\x00\x00\x00\x01k\x01";

    fn table(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = [FIRST, &b"\x0d\x00\x09\x0b\x0b"[..], &(parameters.len() as u32).to_be_bytes()[..]].concat();
        for (key, value) in parameters {
            bytes.extend([put(key), put(value)].concat());
        }
        [&bytes[..], LAST, &[0][..]].concat()
    }

    #[tokio::test]
    async fn a_table_stays_but_for_where_its_metadata_is() {
        let written = table(&[("EXTERNAL", "TRUE"), ("comment", "空"), (LOCATION, "m/1"), (PREVIOUS, "m/0")]);
        let mut read = Registered::read(&written).await.unwrap();
        assert_eq!(read.location(), Some("m/1"));
        let (others, was) = (read.others.clone(), read.parameters.clone());
        assert_eq!(others, [FIRST, LAST].concat());
        read.exchange("m/1", "m/2", &Map::new());
        let kept = |parameters: &BTreeMap<String, String>| {
            let kept = parameters.iter().filter(|(key, _)| !key.ends_with(LOCATION));
            kept.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(kept(&read.parameters), ["EXTERNAL=TRUE", "comment=空"]);
        assert_eq!(kept(&read.parameters), kept(&was));
        assert_eq!((read.location(), read.parameters[PREVIOUS].as_str()), (Some("m/2"), "m/1"));
        // As it is sent, it is read again as the same.
        let sent = read.call("shop", "t", "m/1");
        let parameters = [("EXTERNAL", "TRUE"), ("comment", "空"), (LOCATION, "m/2"), (PREVIOUS, "m/1")];
        let context =
            [("DO_NOT_UPDATE_STATS", "true"), ("expected_parameter_key", LOCATION), ("expected_parameter_value", "m/1")];
        let wanted = Call::new("alter_table_with_environment_context").fields(&text(1, "shop")).fields(&text(2, "t"));
        let wanted = wanted.begin(3).fields(&others).pairs(9, parameters.into_iter()).end();
        assert_eq!(sent, wanted.begin(4).pairs(1, context.into_iter()).end().end());
        for length in 0..written.len() {
            assert!(Registered::read(&written[..length]).await.is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_told_of_the_newest_snapshot_is_of_that() {
        let snapshot = json!({
            "snapshot-id": 33, "timestamp-ms": 5,
            "summary": { "operation": "append", "total-records": "4", "total-data-files": "2" },
        });
        let told = [("numRows", "3"), ("totalSize", "9"), ("current-snapshot-id", "22"), ("COLUMN_STATS_ACCURATE", "{}")];
        let bytes = table(&[&told[..], &[("current-snapshot-summary", "{}")][..]].concat());
        let mut read = Registered::read(&bytes).await.unwrap();
        read.exchange("m/1", "m/2", snapshot.as_object().unwrap());
        let now = read.parameters.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(
            now,
            [
                "current-snapshot-id=33",
                r#"current-snapshot-summary={"total-data-files":"2","total-records":"4"}"#,
                "metadata_location=m/2",
                "numRows=4",
                "previous_metadata_location=m/1",
            ]
        );
    }

    #[test]
    fn not_each_metastore_compares() {
        assert!(["4.0.0", "4.0.1", "4.0.0-beta-1", "10.1"].into_iter().all(compares));
        assert!(!["", "3.0", "3.1.3", "4.0.0-alpha-2", "none", "v4"].into_iter().any(compares));
    }
}
