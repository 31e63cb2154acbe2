//! Trails that are written, cut, killed and verified.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Context, Kind, Principal};
use uuid::Uuid;

use super::*;
use crate::config::Size;
use crate::layers::audit::{Audit, History};
use crate::query::{Answer, Description, Execute, Protocol};
use crate::session::Session;

fn config(folder: &Path) -> config::Audit {
    config::Audit { folder: folder.join("trail"), key: None, rotate: Size(8 << 10), keep: 100, redact: false }
}

fn key(letter: &str) -> Option<config::TicketKey> {
    format!("{}=", letter.repeat(43)).parse().ok()
}

fn query(statement: &str) -> Query {
    let session = Session {
        id: Uuid::nil(),
        catalog: "demo".to_owned(),
        schema: "main".to_owned(),
        started: SystemTime::now(),
        revision: 0,
        options: Default::default(),
        transaction: None,
        temporary: None,
    };
    Query::new(Context::new(Principal("ann".into())), statement, session, Protocol::Http)
}

fn end(trail: &Trail, query: &Query) {
    let touched = Touched::default();
    let (outcome, error, cache) = ("finished", None, None);
    let ended = Ended { outcome, error, rows: 1, bytes: 8, milliseconds: 2, cache, touched: &touched };
    trail.end(query.cx.query, "ann", &ended).unwrap();
}

fn fill(trail: &Trail, statements: usize) {
    for number in 0..statements {
        let query = query(&format!("select {number}"));
        trail.start(&query).unwrap();
        end(trail, &query);
    }
}

#[test]
fn what_is_written_verifies_after_each_opening() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for round in 1..=3 {
        fill(&Trail::open(&config, folder.path()).unwrap(), 40);
        let verified = verify(&config, folder.path(), None).unwrap();
        assert_eq!(verified.first, 0);
        assert!(verified.last >= round * 80, "{verified:?}");
        assert_eq!(verify(&config, folder.path(), Some((verified.last, &verified.head))).unwrap(), verified);
    }
    assert!(files(&config.folder).unwrap().len() > 3);
}

#[test]
fn old_files_go_and_the_others_verify() {
    let folder = tempfile::tempdir().unwrap();
    let config = config::Audit { keep: 2, ..config(folder.path()) };
    let trail = Trail::open(&config, folder.path()).unwrap();
    fill(&trail, 200);
    let left = files(&config.folder).unwrap();
    assert_eq!(left.len(), 2);
    let verified = verify(&config, folder.path(), None).unwrap();
    assert_eq!(verified.first, left[0].0);
    fs::remove_file(&left[0].1).unwrap();
    let error = verify(&config, folder.path(), None).unwrap_err();
    assert!(error.message().starts_with("record 0 is missing, and those after it up to "), "{error}");
}

#[test]
fn one_gateway_writes_a_trail() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let _held = Trail::open(&config, folder.path()).unwrap();
    let error = Trail::open(&config, folder.path()).unwrap_err();
    assert!(error.message().contains("another gateway writes it"), "{error}");
}

#[test]
fn a_record_that_was_cut_short_is_written_anew_and_one_that_is_gone_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    fill(&Trail::open(&config, folder.path()).unwrap(), 3);
    let (_, path) = files(&config.folder).unwrap().pop().unwrap();
    let whole = fs::read(&path).unwrap();
    // The process ended within the next record.
    fs::write(&path, [&whole[..], b"{\"index\":7,\"at\""].concat()).unwrap();
    let verified = verify(&config, folder.path(), None).unwrap();
    assert_eq!((verified.last, verified.torn), (6, 15));
    fill(&Trail::open(&config, folder.path()).unwrap(), 1);
    let verified = verify(&config, folder.path(), None).unwrap();
    assert_eq!((verified.last, verified.torn), (8, 0));
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = verify(&config, folder.path(), None).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Data, "record 6 is missing, and those after it"));
    assert!(Trail::open(&config, folder.path()).unwrap_err().message().contains("records at its end are missing"));
}

#[test]
fn a_chain_with_a_key_cannot_be_made_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let with = config::Audit { key: key("A"), ..config(folder.path()) };
    fill(&Trail::open(&with, folder.path()).unwrap(), 1);
    verify(&with, folder.path(), None).unwrap();
    for other in [None, key("E")] {
        let other = config::Audit { key: other, ..with.clone() };
        let error = verify(&other, folder.path(), None).unwrap_err();
        assert_eq!(error.message(), "record 0 is not as it was written, or one before it is missing");
        // Nobody goes on with it by another key and finds out later.
        let error = Trail::open(&other, folder.path()).unwrap_err();
        assert!(error.message().contains("records at its end are missing or changed"), "{error}");
    }
    fill(&Trail::open(&with, folder.path()).unwrap(), 1);
}

/// Three of the records at the end are cut off, and the head is made from the last that is left, in each way that takes no key.
#[test]
fn a_head_for_what_is_left_is_made_by_who_has_the_key_alone() {
    for letter in [Some("A"), None] {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Audit { key: letter.and_then(key), ..config(folder.path()) };
        fill(&Trail::open(&config, folder.path()).unwrap(), 3);
        let whole = verify(&config, folder.path(), None).unwrap();
        assert_eq!(whole.last, 6);
        let (_, path) = files(&config.folder).unwrap().pop().unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        let left: Vec<&str> = lines.split_inclusive('\n').take(4).collect();
        fs::write(&path, left.concat()).unwrap();
        let hash = left[3].rsplit('"').nth(1).unwrap();
        let old = fs::read_to_string(config.folder.join(HEAD)).unwrap();
        let link = format!("{:020} {hash}", 3);
        let known = |index| verify(&config, folder.path(), Some((index, hash)));
        if letter.is_none() {
            fs::write(config.folder.join(HEAD), &link).unwrap();
            assert_eq!(known(3).unwrap().last, 3);
            // Who has kept what an earlier look told finds it.
            let error = verify(&config, folder.path(), Some((whole.last, &whole.head))).unwrap_err();
            assert_eq!(error.message(), "record 4 is missing, and those after it");
            fill(&Trail::open(&config, folder.path()).unwrap(), 1);
            continue;
        }
        let tag = &old[link.len()..];
        assert_eq!(tag.len(), 65);
        let signed = Chain::new(key("E").as_ref()).head(&Link::known(3, hash).unwrap());
        for head in
            [link.clone(), format!("{link}{tag}"), format!("{link} {hash}"), signed, format!("{old} "), old[1..].to_owned()]
        {
            fs::write(config.folder.join(HEAD), &head).unwrap();
            let error = verify(&config, folder.path(), None).unwrap_err();
            let told = "record 4 is missing, or the head of the trail is not as it was written";
            assert_eq!((error.kind(), error.message()), (Kind::Data, told), "{head}");
            let error = Trail::open(&config, folder.path()).unwrap_err();
            assert!(error.message().contains("records at its end are missing or changed"), "{head}: {error}");
        }
        fs::write(config.folder.join(HEAD), old).unwrap();
        assert_eq!(known(3).unwrap_err().message(), "record 4 is missing, and those after it");
    }
}

/// A disk that takes the record and not the head.
#[test]
fn a_record_without_its_head_counts_as_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let trail = Trail::open(&config, folder.path()).unwrap();
    fill(&trail, 1);
    let open = |can_write| OpenOptions::new().read(true).write(can_write).open(config.folder.join(HEAD)).unwrap();
    trail.state.lock().unwrap().head = open(false);
    assert_eq!(trail.start(&query("select 1")).unwrap_err().kind(), Kind::Unavailable);
    trail.state.lock().unwrap().head = open(true);
    fill(&trail, 1);
    assert_eq!(verify(&config, folder.path(), None).unwrap().last, 4);
}

#[test]
fn values_are_left_out_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let config = config::Audit { redact: true, ..config(folder.path()) };
    let trail = Trail::open(&config, folder.path()).unwrap();
    trail.start(&query("select 'hunter2', 12.5 from \"t\" -- hunter3\n where a = $1")).unwrap();
    let (_, path) = files(&config.folder).unwrap().pop().unwrap();
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains("hunter"), "{text}");
    assert_eq!(redacted("select 'it''s', $$x$$, X'00', N'a', 1e5, a.b, \"c\", $1"), "select ?, ?, ?, ?, ?, a.b, \"c\", $1");
    assert_eq!(redacted("select 'open"), "(not a statement)");
    assert_eq!(redacted("select * from t where name = ‘hunter2’"), "(not a statement)");
}

/// The lines of the latest file.
fn lines(config: &config::Audit) -> Vec<String> {
    let (_, path) = files(&config.folder).unwrap().pop().unwrap();
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_long_statement_takes_so_much_of_the_trail_and_is_known_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let config = config::Audit { rotate: Size(64 << 20), ..config(folder.path()) };
    let trail = Trail::open(&config, folder.path()).unwrap();
    // Of letters that take one, two, three and six bytes of a line.
    let letters = ["x", "\n", "\"", "€", "\u{1}"];
    for letter in letters {
        let just = letter.repeat(TEXT / (serde_json::to_string(letter).unwrap().len() - 2));
        for (statement, is_cut) in [(just.clone(), false), (format!("{just}{letter}"), true)] {
            trail.start(&query(&statement)).unwrap();
            let line = lines(&config).pop().unwrap();
            assert!(line.len() < TEXT + 1_000, "{}", line.len());
            let record: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record["statement"], just);
            assert_eq!(record.get("statement_bytes").is_some(), is_cut);
            if is_cut {
                assert_eq!(record["statement_bytes"], statement.len());
                assert_eq!(record["statement_sha256"], hex::encode(digest(&SHA256, statement.as_bytes())));
            }
        }
    }
    assert_eq!(verify(&config, folder.path(), None).unwrap().last, 2 * letters.len() as u64);
}

#[test]
fn what_is_told_of_a_long_statement_tells_no_values() {
    let folder = tempfile::tempdir().unwrap();
    let config = config::Audit { redact: true, rotate: Size(64 << 20), ..config(folder.path()) };
    let trail = Trail::open(&config, folder.path()).unwrap();
    for value in ["hunter2", "hunter3"] {
        trail.start(&query(&format!("select '{value}'{}", ", a".repeat(TEXT)))).unwrap();
    }
    let told: Vec<_> = lines(&config)
        .iter()
        .filter_map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            Some((record.get("statement_sha256")?.clone(), record["statement_bytes"].clone()))
        })
        .collect();
    let whole = format!("select ?{}", ", a".repeat(TEXT));
    let wanted = (serde_json::json!(hex::encode(digest(&SHA256, whole.as_bytes()))), serde_json::json!(whole.len()));
    assert_eq!(told, [wanted.clone(), wanted]);
}

/// Fails in words that quote the statement: at once, or after its rows have begun.
struct Failing;

fn wrong() -> Error {
    Error::invalid("'hunter2' is not a number").with_hint("write a number in place of 'hunter2'")
}

#[async_trait]
impl Execute for Failing {
    async fn describe(&self, _query: &Query) -> Result<Description> {
        Err(wrong())
    }

    async fn execute(&self, query: Query) -> Result<Answer> {
        if query.statement.contains("later") {
            return Ok(Answer::new(Arc::new(Schema::empty()), stream::iter([Err(wrong())]).boxed()));
        }
        Err(wrong())
    }
}

#[tokio::test]
async fn values_are_left_out_of_ends_and_their_errors_too() {
    for redact in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Audit { redact, ..config(folder.path()) };
        let trail = Arc::new(Trail::open(&config, folder.path()).unwrap());
        let history = Arc::new(History::default());
        let audit = Audit::new(Failing, Arc::clone(&history), Some(Arc::clone(&trail)), Duration::from_secs(60));
        // Who asked is told all of it.
        let told = |error: Error| assert_eq!(error.to_string(), wrong().to_string());
        told(audit.describe(&query("select cast('hunter2' as int)")).await.unwrap_err());
        told(audit.execute(query("select cast('hunter2' as int)")).await.map(|_| ()).unwrap_err());
        let mut answer = audit.execute(query("select cast('hunter2' as int) from later")).await.unwrap();
        told(answer.batches.next().await.unwrap().unwrap_err());
        let work = async { Err::<(), _>(wrong()) };
        told(Trail::around(Some(trail.as_ref()), &query("savepoint 'hunter2'"), work).await.unwrap_err());
        let files = files(&config.folder).unwrap();
        let written: String = files.iter().map(|(_, path)| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(written.matches("\"event\":\"end\"").count(), 4, "{written}");
        assert_eq!(written.matches("\"outcome\":\"invalid\"").count(), 4, "{written}");
        // A statement, and an error with its hint, for each of the four.
        assert_eq!(written.matches("hunter2").count(), if redact { 0 } else { 12 }, "{written}");
        let records = history.records();
        let values = records.iter().map(|record| format!("{} {:?}", record.statement, record.error));
        assert_eq!(values.filter(|values| values.contains("hunter2")).count(), if redact { 0 } else { 3 });
    }
}
