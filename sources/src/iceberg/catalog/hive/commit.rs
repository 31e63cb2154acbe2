//! How a table of a metastore gets its next file of metadata, as Iceberg's own `HiveTableOperations` does it: under a lock of the
//! table, and only in place of the file that was read, where the metastore compares that (HIVE-26882).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nexus_flight_catalog::{Error, Kind, Result};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::{ANSWERED_WITHIN, Hive, Session, in_time, refusal, value};
use crate::iceberg::append::{Change, put};
use crate::iceberg::catalog::thrift::{self, Answers, Call, I32, I64, MAP, STRUCT, TEXT, check, wrong};
use crate::iceberg::catalog::{Found, Outcome, successor};
use crate::stores::Made;

/// How long a call may take that changes something, of tables or of locks.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);
/// How long is waited for a lock that others hold.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);
/// How long is waited before it is looked after at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Who holds a lock, as those are told who ask the metastore.
const HOLDER: &str = "nexus-gateway";

// What a lock is of, and what it may be.
const EXCLUSIVE: i32 = 3;
const TABLE: i32 = 2;
const ACQUIRED: i32 = 1;
const WAITING: i32 = 2;

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
        Some(locked(hive, schema, name).await?)
    };
    let exchange = Exchange { hive, schema, name, before, after: &after };
    let outcome = exchange.run(change, &mut made).await;
    // A change that may still be on its way would be made over that of the next who has the lock, unless it is compared.
    if let Some(lock) = lock
        && (!matches!(outcome, Ok(Outcome::Unknown(_))) || check_compares(hive).await.is_ok())
    {
        unlock(hive, lock).await;
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

    /// What comes of a call that returns nothing.
    async fn call(&mut self, call: &Call) -> Result<thrift::Outcome> {
        in_time(self.server, CHANGED_WITHIN, self.answers.call(call)).await
    }

    /// The number of a lock and how it is with it, of calls that say that.
    async fn lock(&mut self, call: &Call) -> Result<(i64, i32)> {
        let answers = &mut self.answers;
        in_time(self.server, CHANGED_WITHIN, async move {
            check(value(answers.call(call).await?)?, STRUCT)?;
            let (mut lock, mut state) = (None, None);
            while let Some((kind, id)) = answers.field().await? {
                match (kind, id) {
                    (I64, 1) => lock = Some(answers.long().await?),
                    (I32, 2) => state = Some(answers.number().await?),
                    _ => answers.skip(kind).await?,
                }
            }
            answers.end().await?;
            lock.zip(state).ok_or_else(|| wrong("there is no lock in it"))
        })
        .await
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

/// The number of a lock of a table, once nobody else has one. Where the metastore does not answer and has given it all the same, it
/// ends in its time, as all do that are not looked after.
async fn locked(hive: &Hive, schema: &str, name: &str) -> Result<i64> {
    let mut session = hive.session().await?;
    let (lock, mut state) = session.lock(&lock_call(schema, name)).await.map_err(|error| {
        let hint = "see whether the metastore has its tables of locks and transactions, and what it says in its log";
        if error.hint().is_none() { error.with_hint(hint) } else { error }
    })?;
    drop(session);
    let (until, mut wait) = (Instant::now() + LOCKED_WITHIN, FIRST_WAIT);
    let error = loop {
        match state {
            ACQUIRED => return Ok(lock),
            WAITING if Instant::now() < until => {}
            WAITING => {
                let message = format!("others have held the lock of \"{schema}.{name}\" for {} s", LOCKED_WITHIN.as_secs());
                break Error::unavailable(message).with_hint("send the statement again; SHOW LOCKS of Hive tells who they are");
            }
            _ => break Error::unavailable(format!("the metastore gives no lock of \"{schema}.{name}\"")),
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        // This also tells the metastore that somebody still waits.
        state = match checked(hive, lock).await {
            Ok((_, state)) => state,
            Err(error) => break error,
        };
    };
    unlock(hive, lock).await;
    Err(error)
}

fn lock_call(schema: &str, name: &str) -> Call {
    let call = Call::new("lock").begin(1);
    let call = call.begin_only(1).number(1, EXCLUSIVE).number(2, TABLE).text(3, schema).text(4, name).end();
    call.text(3, HOLDER).text(4, HOLDER).text(5, HOLDER).end().end()
}

async fn checked(hive: &Hive, lock: i64) -> Result<(i64, i32)> {
    hive.session().await?.lock(&Call::new("check_lock").begin(1).long(1, lock).end().end()).await
}

/// Gives a lock back.
async fn unlock(hive: &Hive, lock: i64) {
    let call = Call::new("unlock").begin(1).long(1, lock).end().end();
    let done = async { hive.session().await?.call(&call).await };
    match done.await {
        Ok(thrift::Outcome::Done) => {}
        Ok(outcome) => tracing::warn!(lock, ?outcome, "a lock in the metastore could not be given back, and ends in its time"),
        Err(cause) => tracing::warn!(lock, %cause, "a lock in the metastore could not be given back, and ends in its time"),
    }
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
    fn a_lock_is_of_the_whole_table() {
        let of = &b"\x08\x00\x01\x00\x00\x00\x03\x08\x00\x02\x00\x00\x00\x02"[..];
        let component = [of, &text(3, "shop")[..], &text(4, "t")[..]].concat();
        let holder = [text(3, HOLDER), text(4, HOLDER), text(5, HOLDER)].concat();
        let wanted = Call::new("lock").fields(b"\x0c\x00\x01\x0f\x00\x01\x0c\x00\x00\x00\x01").fields(&component).end();
        assert_eq!(lock_call("shop", "t"), wanted.fields(&holder).end().end());
    }

    #[test]
    fn not_each_metastore_compares() {
        assert!(["4.0.0", "4.0.1", "4.0.0-beta-1", "10.1"].into_iter().all(compares));
        assert!(!["", "3.0", "3.1.3", "4.0.0-alpha-2", "none", "v4"].into_iter().any(compares));
    }
}
