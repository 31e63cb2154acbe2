//! What is kept, under which question, and what never is.

use futures::StreamExt;
use nexus_server::query::CacheUse::{Bypass, Hit, Miss};

use crate::fixture::{Fixture, numbers};

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
    assert_eq!(answer.cache, Bypass);
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
        assert_eq!(answer.cache, Miss);
        let error = answer.batches.collect::<Vec<_>>().await.pop().unwrap().unwrap_err();
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
    for _ in 0..2 {
        let mut answer = fixture.execute("SELECT * FROM endless").await.unwrap();
        assert_eq!(answer.cache, Miss);
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
        assert_eq!(answer.cache, Miss);
        let rows = answer.batches.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>().await;
        assert_eq!(rows.iter().sum::<usize>(), 200_000);
    }
    let off = Fixture::new("cache.size = \"0\"\n");
    for _ in 0..2 {
        assert_eq!(off.run(QUESTION).await.unwrap().0, Bypass);
    }
}
