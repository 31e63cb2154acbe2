//! What is kept, under which question, and what never is.

use std::sync::Arc;

use arrow_flight::FlightData;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::Result;
use nexus_server::flight::encode::{Message, encode_shared};
use nexus_server::flight::profile::TypeProfile;
use nexus_server::query::CacheUse::{Bypass, Hit, Miss, Stale};
use nexus_server::query::{CacheUse, Query};
use nexus_server::session::Session;

use crate::fixture::{Fixture, numbers, shown};

const QUESTION: &str = "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_question_in_other_words_is_one_entry() {
    let fixture = Fixture::new("");
    let (cache, rows) = fixture.run(QUESTION).await.unwrap();
    assert_eq!(cache, Miss);
    for other in [
        QUESTION,
        "select  n.id, COUNT(*) as c\nfrom numbers n /* all */ where n.id>1 group by n.id order by n.id",
        "SELECT x.id, count(*) AS c FROM test.main.numbers AS x WHERE x.id > 1 GROUP BY x.id ORDER BY x.id",
        "SELECT id, count(*) AS c FROM main.numbers WHERE id > 1 GROUP BY id ORDER BY id",
        "SELECT id, count(1) AS c FROM numbers WHERE id > 1 GROUP BY id ORDER BY id",
        "SELECT id, count(*) AS c FROM numbers WHERE id > 1 GROUP BY 1 ORDER BY 1",
    ] {
        assert_eq!(fixture.run(other).await.unwrap(), (Hit, rows.clone()), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_question_is_another_entry() {
    let fixture = Fixture::new("");
    fixture.run(QUESTION).await.unwrap();
    for other in [
        "SELECT n.id, count(*) AS d FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id > 2 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id >= 1 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id > 1.0 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id DESC",
        "SELECT n.id, count(*) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id LIMIT 1",
        "SELECT n.id, count(n.name) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(DISTINCT n.name) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, count(*) AS c FROM other n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id",
        "SELECT n.id, sum(1) AS c FROM numbers n WHERE n.id > 1 GROUP BY n.id ORDER BY n.id",
    ] {
        assert_eq!(fixture.run(other).await.unwrap().0, Miss, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_in_one_order_and_the_other_are_not_the_same() {
    let fixture = Fixture::new("");
    let one = fixture.rows("SELECT a.id AS x, b.id AS y FROM numbers a JOIN numbers b ON a.id < b.id ORDER BY 1, 2").await;
    let (cache, other) =
        fixture.run("SELECT b.id AS x, a.id AS y FROM numbers a JOIN numbers b ON a.id < b.id ORDER BY 1, 2").await.unwrap();
    assert_eq!(cache, Miss);
    assert_ne!(one, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_is_read_again() {
    let fixture = Fixture::new("");
    fixture.run("SELECT sum(id) FROM numbers").await.unwrap();
    fixture.source.put("numbers", numbers(&[10, 20]));
    let (cache, rows) = fixture.run("SELECT sum(id) FROM numbers").await.unwrap();
    assert_eq!(cache, Miss);
    assert!(rows.contains("30"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_place_to_look_names_up_is_another_question() {
    let fixture = Fixture::new("");
    fixture.run("SELECT name FROM numbers").await.unwrap();
    let mut query = fixture.query("SELECT catalog FROM sources");
    query.session.catalog = "system".to_owned();
    let answer = fixture.gateway.execute.execute(query).await.unwrap();
    assert_eq!(answer.cache.how, Bypass);
    fixture.source.put("sources", numbers(&[1]));
    assert_eq!(fixture.run("SELECT * FROM sources").await.unwrap().0, Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_answer_differently_is_never_kept() {
    let fixture = Fixture::new("");
    for statement in [
        "SELECT now()",
        "SELECT random() FROM numbers",
        "SELECT uuid()",
        "SELECT current_date",
        "SELECT id FROM numbers WHERE (SELECT random()) < 2",
        "SELECT id FROM numbers ORDER BY random()",
        "SELECT * FROM changing",
        "SELECT * FROM numbers JOIN changing USING (id)",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM system.main.queries",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
    ] {
        for _ in 0..2 {
            assert_eq!(fixture.run(statement).await.unwrap().0, Bypass, "{statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_unknown_version_is_kept_for_its_catalogs_time() {
    // The catalog is put in place of the configured one, under the same name.
    let fixture = Fixture::new("[catalogs.test]\nkind = \"memory\"\nttl = \"1h\"\n");
    assert_eq!(fixture.run("SELECT * FROM changing").await.unwrap().0, Miss);
    assert_eq!(fixture.run("SELECT * FROM changing").await.unwrap().0, Hit);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_or_was_left_early_is_not_kept() {
    let fixture = Fixture::new("");
    for _ in 0..2 {
        let answer = fixture.execute("SELECT 10 / (id - 3) FROM numbers").await.unwrap();
        assert_eq!(answer.cache.how, Miss);
        let error = answer.batches.collect::<Vec<_>>().await.pop().unwrap().unwrap_err();
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
    for _ in 0..2 {
        let mut answer = fixture.execute("SELECT * FROM endless").await.unwrap();
        assert_eq!(answer.cache.how, Miss);
        answer.batches.next().await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_kept_and_arrives_whole() {
    let fixture = Fixture::new("cache.entry = \"1MiB\"\n");
    for statement in ["SELECT count(*) FROM (SELECT * FROM endless LIMIT 100000)", "SELECT * FROM endless LIMIT 100"] {
        fixture.run(statement).await.unwrap();
        assert_eq!(fixture.run(statement).await.unwrap().0, Hit, "{statement}");
    }
    for _ in 0..2 {
        let answer = fixture.execute("SELECT * FROM endless LIMIT 200000").await.unwrap();
        assert_eq!(answer.cache.how, Miss);
        let rows = answer.batches.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>().await;
        assert_eq!(rows.iter().sum::<usize>(), 200_000);
    }
    let off = Fixture::new("cache.size = \"0\"\n");
    for _ in 0..2 {
        assert_eq!(off.run(QUESTION).await.unwrap().0, Bypass);
    }
}

/// What comes of a statement in a session that has set options.
pub(crate) async fn asked(fixture: &Fixture, statement: &str, options: &[(&str, &str)]) -> Result<(CacheUse, String)> {
    let mut query = fixture.query(statement);
    for &(name, value) in options {
        query.session.options.set(name, Some(value)).unwrap();
    }
    shown(fixture.gateway.execute.execute(query).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_what_it_takes() {
    let fixture = Fixture::new("");
    let run = async |control: &str| asked(&fixture, QUESTION, &[("cache", control)]).await.map(|(cache, _)| cache);
    insta::assert_snapshot!(run("only-if-cached").await.unwrap_err(), @"there is no answer in the cache: none is kept that may be given; leave only-if-cached out to have it made");
    for (control, wanted) in [
        ("no-store", Bypass),
        ("no-cache", Miss),
        ("only-if-cached", Hit),
        ("max-age=0", Miss),
        ("max-age=3600", Hit),
        ("max-age=3600, no-cache", Miss),
        ("use", Hit),
    ] {
        assert_eq!(run(control).await.unwrap(), wanted, "{control}");
    }
    let volatile = asked(&fixture, "SELECT random()", &[("cache", "only-if-cached")]).await.unwrap_err();
    insta::assert_snapshot!(volatile, @"there is no answer in the cache: a function may give another value each time; leave only-if-cached out to have it made");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_what_is_out_of_date_is_told_so() {
    for control in ["max-stale=3600", "max-stale, max-age=3600"] {
        let fixture = Fixture::new("");
        let run = async |control: &str| asked(&fixture, "SELECT sum(id) AS s FROM numbers", &[("cache", control)]).await.unwrap();
        let (_, before) = run("use").await;
        fixture.source.put("numbers", numbers(&[10, 20]));
        assert_eq!(run(control).await, (Stale, before), "{control}");
        // That is made by now, or is made for this statement.
        let (cache, after) = run("max-stale=0").await;
        assert_ne!(cache, Stale, "{control}");
        assert!(after.contains("30"), "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_how_old_it_is_and_why_it_is_not_of_the_cache() {
    let fixture = Fixture::new("");
    fixture.run(QUESTION).await.unwrap();
    let hit = fixture.execute(QUESTION).await.unwrap().cache;
    assert_eq!((hit.how, hit.age.is_some(), hit.why), (Hit, true, None));
    let past = fixture.execute("SELECT random()").await.unwrap().cache;
    assert_eq!((past.how, past.age, past.why), (Bypass, None, Some("a function may give another value each time")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_has_answers_of_its_own() {
    let fixture = Fixture::new("");
    let run = async |tag: &str| asked(&fixture, QUESTION, &[("cache_tag", tag)]).await.unwrap().0;
    assert_eq!((run("a").await, run("a").await, run("b").await), (Miss, Hit, Miss));
    assert_eq!(fixture.run(QUESTION).await.unwrap().0, Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_this_gateway_ends_what_could_be_given_late() {
    let fixture = Fixture::new("[catalogs.own]\nkind = \"memory\"\nwritable = true\n[defaults]\ncatalog = \"test\"\n");
    let run = async |statement: &str| asked(&fixture, statement, &[("cache", "max-stale=3600")]).await.unwrap();
    run("CREATE TABLE own.main.t AS SELECT 1 AS n").await;
    run("CREATE TABLE own.main.u AS SELECT 1 AS n").await;
    for table in ["t", "u"] {
        assert_eq!(run(&format!("SELECT sum(n) AS s FROM own.main.{table}")).await.0, Miss);
    }
    run("INSERT INTO own.main.t VALUES (41)").await;
    let (cache, rows) = run("SELECT sum(n) AS s FROM own.main.t").await;
    assert_eq!(cache, Miss);
    assert!(rows.contains("42"), "{rows}");
    assert_eq!(run("SELECT sum(n) AS s FROM own.main.u").await.0, Hit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_of_another_session_is_another_table() {
    let fixture = Fixture::new("");
    let run = async |session: &Session, statement: &str| {
        let mut query = Query { session: session.clone(), session_lasts: true, ..fixture.query(statement) };
        query.session.options.set("cache", Some("max-stale=3600")).unwrap();
        shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap()
    };
    let sessions = [fixture.gateway.sessions.start(), fixture.gateway.sessions.start()];
    for (session, n) in sessions.iter().zip(1..) {
        run(session, &format!("CREATE TEMPORARY TABLE mine AS SELECT {n} AS n")).await;
    }
    for (session, n) in sessions.iter().zip(1..) {
        let (cache, rows) = run(session, "SELECT n FROM mine").await;
        assert_eq!(cache, Miss);
        assert!(rows.contains(&format!("| {n} |")), "{rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_not_given_again() {
    let fixture = Fixture::new("");
    let call = async |what: &str| {
        let rows = fixture.rows(&format!("CALL system.{what}")).await;
        rows.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
    };
    let tagged = async || asked(&fixture, QUESTION, &[("cache_tag", "nightly"), ("cache", "max-stale")]).await.unwrap().0;
    fixture.run(QUESTION).await.unwrap();
    assert_eq!((tagged().await, tagged().await), (Miss, Hit));
    assert_eq!(call("invalidate_tag('nightly')").await, "1");
    assert_eq!((tagged().await, fixture.run(QUESTION).await.unwrap().0), (Miss, Hit));
    assert_eq!(call("invalidate('other')").await, "0");
    assert_eq!((tagged().await, fixture.run(QUESTION).await.unwrap().0), (Hit, Hit));
    assert_eq!(call("main.invalidate('test.main.numbers')").await, "2");
    assert_eq!((tagged().await, fixture.run(QUESTION).await.unwrap().0), (Miss, Miss));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_while_it_is_made_is_not_given_either() {
    let fixture = Fixture::new("");
    let mut under_way = fixture.execute("SELECT id FROM endless LIMIT 200000").await.unwrap();
    under_way.batches.next().await.unwrap().unwrap();
    fixture.run("CALL system.invalidate('test.main.endless')").await.unwrap();
    under_way.batches.collect::<Vec<_>>().await;
    assert_eq!(fixture.run("SELECT id FROM endless LIMIT 200000").await.unwrap().0, Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_listed() {
    let fixture = Fixture::new("");
    assert_eq!(asked(&fixture, QUESTION, &[("cache_tag", "nightly")]).await.unwrap().0, Miss);
    assert_eq!(asked(&fixture, QUESTION, &[("cache_tag", "nightly")]).await.unwrap().0, Hit);
    let listed = fixture.rows("SELECT principal, tables, tag, rows, hits, bytes > 0 AS weighs FROM system.main.cache").await;
    insta::assert_snapshot!(listed, @r"
    +-----------+-------------------+---------+------+------+--------+
    | principal | tables            | tag     | rows | hits | weighs |
    +-----------+-------------------+---------+------+------+--------+
    | anonymous | test.main.numbers | nightly | 2    | 1    | true   |
    +-----------+-------------------+---------+------+------+--------+
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_flight_sends_of_a_kept_answer_is_made_once_and_counts_as_any_other() {
    let fixture = Fixture::new("");
    let statement = "SELECT * FROM endless LIMIT 20000";
    let sent = async |profile| {
        let answer = fixture.execute(statement).await.unwrap();
        let how = answer.cache.how;
        let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let messages = encode_shared(&answer.schema, profile, answer.batches, &memory, answer.shared);
        (how, messages.try_collect::<Vec<Message>>().await.unwrap())
    };
    let bytes = |messages: &[Message]| messages.iter().cloned().map(FlightData::from).collect::<Vec<_>>();
    // The schema is of each stream.
    let lie = |messages: &[Message]| {
        let pieces = messages.iter().skip(1).flat_map(|message| [&message.head.data_header].into_iter().chain(&message.body));
        pieces.map(|piece| piece.as_ptr()).collect::<Vec<_>>()
    };
    let (first, live) = sent(TypeProfile::Native).await;
    assert_eq!(first, Miss);
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        let [made, found, again] = [sent(profile).await, sent(profile).await, sent(profile).await];
        assert_eq!([made.0, found.0, again.0], [Hit; 3]);
        assert_eq!(lie(&found.1), lie(&again.1));
        assert!(bytes(&made.1) == bytes(&again.1));
        if profile == TypeProfile::Native {
            assert!(bytes(&live) == bytes(&again.1));
        }
    }
    let counted = format!("SELECT DISTINCT cache, rows FROM system.main.queries WHERE statement = '{statement}' ORDER BY cache");
    insta::assert_snapshot!(fixture.rows(&counted).await, @r"
    +-------+-------+
    | cache | rows  |
    +-------+-------+
    | hit   | 20000 |
    | miss  | 20000 |
    +-------+-------+
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_out_of_date_is_made_anew_once() {
    let fixture = Fixture::new("[catalogs.test]\nkind = \"memory\"\nstale = \"1h\"\n");
    let statement = "SELECT sum(id) AS s FROM numbers";
    let (_, before) = fixture.run(statement).await.unwrap();
    fixture.source.put("numbers", numbers(&[10, 20]));
    // Who takes none but what is kept has nothing made.
    assert_eq!(asked(&fixture, statement, &[("cache", "only-if-cached")]).await.unwrap(), (Stale, before.clone()));
    loop {
        let (cache, rows) = fixture.run(statement).await.unwrap();
        match cache {
            Stale => assert_eq!(rows, before),
            _ => {
                assert_eq!(cache, Hit);
                assert!(rows.contains("30"), "{rows}");
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    let made = "FROM system.main.queries WHERE coalesce(cache, 'miss') = 'miss'";
    let rows = fixture.rows(&format!("SELECT count(*) AS c {made} AND statement = '{statement}'")).await;
    assert!(rows.contains("| 2 |"), "{rows}");
    // A client says for itself what it takes.
    fixture.source.put("numbers", numbers(&[7]));
    assert_eq!(asked(&fixture, statement, &[("cache", "max-stale=0")]).await.unwrap().0, Miss);
}
