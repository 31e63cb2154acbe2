//! Statements that write, into tables in memory.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use nexus_flight_catalog::Kind;
use nexus_server::query::Query;
use nexus_server::transactions::Transactions;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

use crate::fixture::Fixture;

/// A gateway whose default catalog takes rows; `test` is read-only.
fn fixture() -> Fixture {
    Fixture::new(
        "defaults.catalog = \"kept\"\n[catalogs.test]\nkind = \"memory\"\n[catalogs.kept]\nkind = \"memory\"\nwritable = true\n",
    )
}

impl Fixture {
    async fn affected(&self, statement: &str) -> i64 {
        self.affected_by(self.query(statement)).await
    }

    async fn affected_by(&self, query: Query) -> i64 {
        self.gateway.execute.execute(query).await.unwrap().affected().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_from_its_making_to_its_end() {
    let fixture = fixture();
    assert_eq!(fixture.affected("CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR, price DECIMAL(9, 2))").await, 0);
    assert_eq!(fixture.affected("INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', NULL)").await, 2);
    assert_eq!(fixture.affected("INSERT INTO t (name, id) VALUES ('three', 3)").await, 1);
    assert_eq!(fixture.affected("INSERT INTO t SELECT id + 10, name, 7 FROM test.numbers").await, 3);
    assert_eq!(fixture.affected("UPDATE t SET price = price * 2, name = upper(name) WHERE id < 3").await, 2);
    assert_eq!(fixture.affected("UPDATE t AS x SET name = x.name || '!' WHERE x.id = 3").await, 1);
    assert_eq!(fixture.affected("DELETE FROM t WHERE price > 5 AND id <> 12").await, 2);
    insta::assert_snapshot!(fixture.rows("SELECT * FROM t ORDER BY id").await, @"
    +----+--------+-------+
    | id | name   | price |
    +----+--------+-------+
    | 1  | ONE    | 3.00  |
    | 2  | TWO    |       |
    | 3  | three! |       |
    | 12 | n2     | 7.00  |
    +----+--------+-------+
    ");
    assert_eq!(fixture.affected("DELETE FROM t WHERE false").await, 0);
    assert_eq!(fixture.affected("DELETE FROM t").await, 4);
    assert_eq!(fixture.affected("DROP TABLE t").await, 0);
    assert_eq!(fixture.error("SELECT * FROM t").await.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_of_queries_and_found_by_short_names() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE kept.a AS SELECT id, name FROM test.numbers WHERE id > 1").await;
    fixture.affected("CREATE TABLE IF NOT EXISTS a AS SELECT 1 AS other").await;
    assert!(fixture.rows("SELECT count(*) AS c FROM kept.main.a").await.contains("| 2 |"));
    fixture.affected("CREATE OR REPLACE TABLE a AS SELECT id * 2 AS id FROM a").await;
    assert!(fixture.rows("SELECT sum(id) AS s FROM kept.a").await.contains("| 10 |"));
    fixture.affected("CREATE TABLE kept.other.b AS SELECT * FROM a").await;
    assert!(fixture.rows("SELECT sum(id) AS s FROM other.b").await.contains("| 10 |"));
    fixture.affected("DROP TABLE IF EXISTS kept.nowhere.c").await;
    fixture.affected("DROP TABLE IF EXISTS other.b").await;
    assert_eq!(fixture.error("SELECT * FROM other.b").await.kind(), Kind::NotFound);
    fixture.affected("DROP TABLE IF EXISTS other.b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn select_into_makes_a_table_or_is_refused() {
    let fixture = fixture();
    assert_eq!(fixture.affected("SELECT id, name INTO t FROM test.numbers WHERE id > 1 ORDER BY id LIMIT 1").await, 1);
    assert_eq!(fixture.affected("WITH n AS (SELECT id FROM test.numbers) SELECT id INTO kept.other.u FROM n").await, 3);
    assert!(fixture.rows("SELECT id, name, (SELECT count(*) FROM kept.other.u) AS c FROM t").await.contains("| 2  | n2   | 3 |"));
    assert_eq!(fixture.error("SELECT 1 AS id INTO t").await.kind(), Kind::Exists);
    for statement in [
        "SELECT 1 AS a INTO TEMPORARY v",
        "SELECT 1 AS a INTO UNLOGGED v",
        "SELECT 1 AS a INTO v UNION SELECT 2",
        "SELECT 1 AS a UNION SELECT 2 INTO v",
        "SELECT * FROM (SELECT 1 AS a INTO v) w",
        "SELECT (SELECT 1 AS a INTO v)",
        "WITH w AS (SELECT 1 AS a INTO v) SELECT * FROM w",
        "INSERT INTO t SELECT 1, 'a' INTO v",
        "CREATE TABLE x AS SELECT 1 AS a INTO v",
    ] {
        let error = fixture.error(statement).await;
        assert_eq!(error.kind(), Kind::Unsupported, "{statement}: {error}");
        assert!(error.message().starts_with("SELECT … INTO within another query, or with TEMPORARY"), "{statement}: {error}");
    }
    assert_eq!(fixture.error("EXPLAIN SELECT 1 AS a INTO v").await.kind(), Kind::Unsupported);
    assert_eq!(fixture.error("SELECT * FROM v").await.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_question_sees_what_was_written() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t AS SELECT 1 AS id").await;
    for rows in 1..4 {
        assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains(&format!("| {rows} |")));
        fixture.affected("INSERT INTO t VALUES (2)").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_says_why_and_leaves_all_as_it_was() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t (id INT NOT NULL, name VARCHAR)").await;
    fixture.affected("INSERT INTO t VALUES (1, 'one')").await;
    let statements = [
        "INSERT INTO test.numbers VALUES (9, 'n9')",
        "CREATE TABLE test.main.t AS SELECT 1",
        "DROP TABLE test.numbers",
        "CREATE TABLE system.main.t AS SELECT 1",
        "CREATE TABLE information_schema.t AS SELECT 1",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE u AS SELECT 1 AS a, 2 AS \"A\", 3 AS a",
        "CREATE TABLE u (a INT DEFAULT 3)",
        "CREATE TABLE u (a INT UNIQUE)",
        "CREATE TEMPORARY TABLE u (a INT)",
        "INSERT INTO t (name) VALUES ('no id')",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1, 'a'), (99999999999, 'b')",
        "INSERT INTO t SELECT CAST(name AS INT), name FROM test.numbers",
        "INSERT INTO missing VALUES (1)",
        "INSERT OVERWRITE t VALUES (1, 'a')",
        "UPDATE t SET missing = 1",
        "UPDATE t SET id = NULL",
        "UPDATE t SET id = 1 / (id - 1)",
        "UPDATE t SET name = n.name FROM test.numbers n WHERE n.id = t.id",
        "DELETE FROM t WHERE random() < 2",
        "DROP TABLE missing",
        "EXPLAIN INSERT INTO t VALUES (2, 'two')",
        "EXPLAIN ANALYZE DELETE FROM t",
    ];
    let mut messages = Vec::new();
    for statement in statements {
        let error = fixture.error(statement).await;
        assert_ne!(error.kind(), Kind::Internal, "{statement}: {error:?}");
        messages.push(format!("{statement}\n    {}: {error}", error.kind().name()));
    }
    assert!(fixture.rows("SELECT count(*) AS c, max(name) AS n FROM t").await.contains("| 1 | one |"));
    insta::assert_snapshot!(messages.join("\n"), @r#"
    INSERT INTO test.numbers VALUES (9, 'n9')
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    CREATE TABLE test.main.t AS SELECT 1
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    DROP TABLE test.numbers
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    CREATE TABLE system.main.t AS SELECT 1
        unsupported: a catalog of kind "system" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    CREATE TABLE information_schema.t AS SELECT 1
        unsupported: information_schema cannot be written: it is made of what is there
    CREATE TABLE t AS SELECT 1
        exists: table "main.t" exists already; append to it, replace it, or take another name
    CREATE TABLE u AS SELECT 1 AS a, 2 AS "A", 3 AS a
        invalid: projections require unique expression names but the expression "Int64(1) AS a" at position 0 and "Int64(3) AS a" at position 2 have the same name. Consider aliasing ("AS") one of them
    CREATE TABLE u (a INT DEFAULT 3)
        unsupported: DEFAULT in CREATE TABLE is not offered; leave it out, and give the value in each INSERT
    CREATE TABLE u (a INT UNIQUE)
        unsupported: UNIQUE in CREATE TABLE is not offered; leave it out: nothing would hold it
    CREATE TEMPORARY TABLE u (a INT)
        precondition: this client keeps no session that temporary tables could belong to; turn cookies on: adbc.flight.sql.rpc.with_cookie_middleware=true for ADBC, withCookieMiddleware for other clients
    INSERT INTO t (name) VALUES ('no id')
        invalid: the column "id" takes no NULL; give a value for it in every row
    INSERT INTO t VALUES (1)
        invalid: inconsistent data length across values list: got 1 values in row 0 but expected 2
    INSERT INTO t VALUES (1, 'a'), (99999999999, 'b')
        invalid: can't cast value 99999999999 to type Int32
    INSERT INTO t SELECT CAST(name AS INT), name FROM test.numbers
        invalid: projections require unique expression names but the expression "CAST(test.numbers.name AS Int32)" at position 0 and "test.numbers.name" at position 1 have the same name. Consider aliasing ("AS") one of them
    INSERT INTO missing VALUES (1)
        not_found: table "kept.main.missing" does not exist; there are "t"
    INSERT OVERWRITE t VALUES (1, 'a')
        unsupported: INSERT OVERWRITE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    UPDATE t SET missing = 1
        invalid: column "missing" does not exist; the columns here are "id", "name"
    UPDATE t SET id = NULL
        invalid: the column "id" takes no NULL; give a value for it in every row
    UPDATE t SET id = 1 / (id - 1)
        invalid: division by zero
    UPDATE t SET name = n.name FROM test.numbers n WHERE n.id = t.id
        unsupported: UPDATE ... FROM is not supported
    DELETE FROM t WHERE random() < 2
        unsupported: rows cannot be chosen by a function that gives another value each time; compute the values into a column first
    DROP TABLE missing
        not_found: table "main.missing" does not exist
    EXPLAIN INSERT INTO t VALUES (2, 'two')
        unsupported: INSERT INTO within another statement is not offered; send it by itself
    EXPLAIN ANALYZE DELETE FROM t
        unsupported: DELETE within another statement is not offered; send it by itself
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_memory_has_a_bound() {
    let fixture = Fixture::new(
        "defaults.catalog = \"kept\"\n[catalogs.test]\nkind = \"memory\"\n[catalogs.kept]\nkind = \"memory\"\nwritable = true\nsize = \"1MiB\"\n",
    );
    let error = fixture.error("CREATE TABLE t AS SELECT * FROM generate_series(1, 1000000)").await;
    insta::assert_snapshot!(error, @"the tables of this catalog would have more than 1MiB; drop tables, or raise its option size");
    fixture.affected("CREATE TABLE t AS SELECT * FROM generate_series(1, 100000)").await;
    let error = fixture.error("INSERT INTO t SELECT * FROM generate_series(1, 100000)").await;
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains("| 100000 |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_when_it_commits() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t AS SELECT 1 AS id").await;
    let transactions = Transactions::new(Duration::from_secs(60), Duration::from_secs(600), Arc::default());
    let cx = fixture.query("").cx;
    for (commits, after) in [(false, "| 1 |"), (true, "| 2 |")] {
        let id = transactions.begin(&cx.principal, Uuid::nil()).unwrap();
        let inside = |statement: &str| Query {
            transaction: Some(transactions.get(&cx.principal, id).unwrap()),
            ..fixture.query(statement)
        };
        assert_eq!(fixture.affected_by(inside("INSERT INTO t VALUES (2)")).await, 1);
        let open = transactions.get(&cx.principal, id).unwrap();
        let savepoint = open.savepoint(&cx).await.unwrap();
        fixture.affected_by(inside("DELETE FROM t")).await;
        fixture.affected_by(inside("CREATE TABLE u AS SELECT 1 AS a")).await;
        open.end_savepoint(&cx, savepoint, false).await.unwrap();
        let answer = fixture.gateway.execute.execute(inside("SELECT count(*) AS c FROM t")).await.unwrap();
        assert!(crate::fixture::shown(answer).await.unwrap().1.contains("| 2 |"));
        assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains("| 1 |"));
        let refused = fixture.gateway.execute.execute(inside("INSERT INTO test.numbers VALUES (1, 'a')")).await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Unsupported);
        transactions.end(&cx, id, commits).await.unwrap();
        assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains(after));
        assert_eq!(transactions.get(&cx.principal, id).unwrap_err().kind(), Kind::Precondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_that_change_one_table_the_first_wins() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t AS SELECT 1 AS id").await;
    let transactions = Transactions::new(Duration::from_secs(60), Duration::from_secs(600), Arc::default());
    let cx = fixture.query("").cx;
    let ids = [(); 2].map(|()| transactions.begin(&cx.principal, Uuid::nil()).unwrap());
    for id in ids {
        let transaction = Some(transactions.get(&cx.principal, id).unwrap());
        fixture.affected_by(Query { transaction, ..fixture.query("INSERT INTO t VALUES (2)") }).await;
    }
    transactions.end(&cx, ids[0], true).await.unwrap();
    let error = transactions.end(&cx, ids[1], true).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"table "main.t" was changed by another transaction; do the transaction again"#);
    assert!(error.retryable());
    assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains("| 2 |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_left_alone_is_rolled_back() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t AS SELECT 1 AS id").await;
    let transactions = Arc::new(Transactions::new(Duration::from_millis(50), Duration::from_secs(600), Arc::default()));
    let cx = fixture.query("").cx;
    let id = transactions.begin(&cx.principal, Uuid::nil()).unwrap();
    // One that only reads gives back what it holds and stays: it sees what came meanwhile.
    let reader = transactions.begin(&cx.principal, Uuid::nil()).unwrap();
    let seen = async || {
        let transaction = Some(transactions.get(&cx.principal, reader).unwrap());
        let query = Query { transaction, ..fixture.query("SELECT count(*) AS c FROM t") };
        crate::fixture::shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap().1
    };
    assert!(seen().await.contains("| 1 |"));
    fixture.affected("INSERT INTO t VALUES (3)").await;
    let transaction = Some(transactions.get(&cx.principal, id).unwrap());
    fixture.affected_by(Query { transaction, ..fixture.query("INSERT INTO t VALUES (2)") }).await;
    // Asking for it would keep it, so its end is seen by how many there may be.
    tokio::time::timeout(Duration::from_secs(30), async {
        while transactions.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    insta::assert_snapshot!(transactions.get(&cx.principal, id).unwrap_err(), @"the transaction is not open here; it has ended, was left alone for too long, or is open on another server: begin another one; behind a balancer, keep to one connection to one server, or commit automatically");
    assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains("| 2 |"));
    assert!(seen().await.contains("| 2 |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_parameters_are_written_as_one() {
    let fixture = fixture();
    fixture.affected("CREATE TABLE t (id INT, name VARCHAR, price DECIMAL(9, 2))").await;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=5_000));
    let names: ArrayRef = Arc::new(StringArray::from_iter((1..=5_000).map(|id| (id % 2 == 0).then(|| format!("n{id}")))));
    let rows = RecordBatch::try_from_iter_with_nullable([("1", ids, false), ("2", names, true)]).unwrap();
    let insert = Query { parameters: Some(rows), ..fixture.query("INSERT INTO t VALUES (? + 1, upper(?), 1.5)") };
    assert_eq!(fixture.affected_by(insert).await, 5_000);
    insta::assert_snapshot!(fixture.rows("SELECT count(*) AS c, count(name) AS n, min(id) AS a, sum(id) AS s, sum(price) AS p, max(name) AS m FROM t").await, @"
    +------+------+---+----------+---------+------+
    | c    | n    | a | s        | p       | m    |
    +------+------+---+----------+---------+------+
    | 5000 | 2500 | 2 | 12507500 | 7500.00 | N998 |
    +------+------+---+----------+---------+------+
    ");
    // What does not fit in one row leaves all out.
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
    let insert = Query {
        parameters: Some(RecordBatch::try_from_iter([("1", ids)]).unwrap()),
        ..fixture.query("INSERT INTO t (id) VALUES (?)")
    };
    assert_eq!(fixture.gateway.execute.execute(insert).await.err().unwrap().kind(), Kind::Invalid);
    assert!(fixture.rows("SELECT count(*) AS c FROM t").await.contains("| 5000 |"));
    // Other statements run for each row.
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![2, 4, 7_000]));
    let rows = RecordBatch::try_from_iter([("1", ids)]).unwrap();
    for (statement, affected) in
        [("UPDATE t SET name = 'x' WHERE id = ?", 2), ("INSERT INTO t (id) SELECT id FROM t WHERE id = ?", 2)]
    {
        let query = Query { parameters: Some(rows.clone()), ..fixture.query(statement) };
        assert_eq!(fixture.affected_by(query).await, affected, "{statement}");
    }
}
