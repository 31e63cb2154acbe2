//! What is refused, and in which words.

use nexus_flight_catalog::Kind;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_writes_and_nothing_sets() {
    let fixture = Fixture::new("");
    let statements = [
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP TABLE numbers",
        "ALTER TABLE numbers ADD COLUMN a INT",
        "TRUNCATE TABLE numbers",
        "INSERT INTO numbers VALUES (9, 'n9')",
        "UPDATE numbers SET id = 1",
        "DELETE FROM numbers",
        "MERGE INTO numbers USING other ON numbers.id = other.id WHEN MATCHED THEN DELETE",
        "COPY numbers TO '/tmp/out.csv'",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "BEGIN",
        "COMMIT",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "GRANT SELECT ON numbers TO a",
        "CALL f()",
        "USE other",
        "VACUUM",
        "EXPLAIN INSERT INTO numbers VALUES (9, 'n9')",
        "EXPLAIN ANALYZE DELETE FROM numbers",
        "EXPLAIN ANALYZE COPY numbers TO '/tmp/out.csv'",
        "WITH x AS (SELECT 1) INSERT INTO numbers SELECT 1, 'a' FROM x",
    ];
    let mut messages = Vec::new();
    for statement in statements {
        let error = fixture.error(statement).await;
        assert!(matches!(error.kind(), Kind::Unsupported | Kind::Invalid), "{statement}: {error:?}");
        messages.push(format!("{statement}\n    {}: {error}", error.kind().name()));
    }
    assert!(fixture.rows("SELECT count(*) AS c FROM numbers").await.contains("| 3 |"));
    insta::assert_snapshot!(messages.join("\n"), @r#"
    CREATE TABLE t AS SELECT 1
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    CREATE VIEW v AS SELECT 1
        unsupported: CREATE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    CREATE SCHEMA s
        unsupported: CREATE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'
        unsupported: CREATE EXTERNAL TABLE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    CREATE FUNCTION f() RETURNS INT RETURN 1
        unsupported: CREATE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    DROP TABLE numbers
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    ALTER TABLE numbers ADD COLUMN a INT
        unsupported: ALTER is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    TRUNCATE TABLE numbers
        unsupported: TRUNCATE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    INSERT INTO numbers VALUES (9, 'n9')
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    UPDATE numbers SET id = 1
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    DELETE FROM numbers
        unsupported: a catalog of kind "counted" does not offer writing (ingest); the table of capabilities in the connector reference says what each kind offers
    MERGE INTO numbers USING other ON numbers.id = other.id WHEN MATCHED THEN DELETE
        unsupported: MERGE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    COPY numbers TO '/tmp/out.csv'
        unsupported: COPY is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    COPY (SELECT 1) TO '/tmp/out.csv'
        unsupported: COPY is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    SET datafusion.execution.batch_size = 1
        unsupported: SET is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    RESET datafusion.execution.batch_size
        unsupported: RESET is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    BEGIN
        unsupported: BEGIN is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    COMMIT
        unsupported: COMMIT is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    PREPARE p AS SELECT 1
        unsupported: PREPARE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    EXECUTE p
        unsupported: EXECUTE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    DEALLOCATE p
        unsupported: DEALLOCATE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    GRANT SELECT ON numbers TO a
        unsupported: GRANT is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    CALL f()
        unsupported: CALL is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    USE other
        unsupported: USE is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    VACUUM
        unsupported: VACUUM is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    EXPLAIN INSERT INTO numbers VALUES (9, 'n9')
        unsupported: INSERT INTO within another statement is not offered; send it by itself
    EXPLAIN ANALYZE DELETE FROM numbers
        unsupported: DELETE within another statement is not offered; send it by itself
    EXPLAIN ANALYZE COPY numbers TO '/tmp/out.csv'
        unsupported: COPY is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    WITH x AS (SELECT 1) INSERT INTO numbers SELECT 1, 'a' FROM x
        unsupported: INSERT is not offered; SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_and_no_address_is_reached_by_a_statement() {
    let fixture = Fixture::new("");
    for statement in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'http://127.0.0.1:1/a.parquet'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
    ] {
        let error = fixture.error(statement).await;
        assert!(matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Unsupported), "{statement}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named() {
    let fixture = Fixture::new("");
    let mut messages = Vec::new();
    for statement in [
        "SELEC 1",
        "SELECT * FROM numbers WHERE",
        "SELECT id + name FROM numbers WHERE name",
        "SELECT nosuch(id) FROM numbers",
        "SELECT id, count(*) FROM numbers",
        "SELECT * FROM numbers WHERE id = 'many'",
        "SELECT CAST('x' AS INT)",
        "SELECT 1 / 0",
        "SELECT (SELECT id FROM numbers)",
        "SELECT 1 UNION SELECT 1, 2",
        "SELECT * FROM numbers a JOIN other b ON a.id = b.idd",
    ] {
        let error = fixture.error(statement).await;
        messages.push(format!("{statement}\n    {}: {error}", error.kind().name()));
    }
    insta::assert_snapshot!(messages.join("\n"), @r#"
    SELEC 1
        invalid: line 1, column 1: syntax error: expected: an SQL statement, found: SELEC
    SELECT * FROM numbers WHERE
        invalid: line 1, column 28: syntax error: expected: an expression, found: EOF
    SELECT id + name FROM numbers WHERE name
        invalid: cannot create filter with non-boolean predicate 'numbers.name' returning Utf8
    SELECT nosuch(id) FROM numbers
        invalid: line 1, column 8: invalid function 'nosuch'; did you mean "cosh"?
    SELECT id, count(*) FROM numbers
        invalid: line 1, column 8: column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column "numbers.id" must appear in the GROUP BY clause or must be part of an aggregate function, currently only "count(Int64(1))" appears in the SELECT clause satisfies this requirement
    SELECT * FROM numbers WHERE id = 'many'
        invalid: "many" is not a number, and numbers.id is one, of type Int64; write a number, or cast the number to text to compare both as text
    SELECT CAST('x' AS INT)
        invalid: cannot cast string 'x' to value of Int32 type
    SELECT 1 / 0
        invalid: division by zero
    SELECT (SELECT id FROM numbers)
        invalid: a sub-query that stands for one value gave more than one row; add LIMIT 1 or an aggregate, or use IN or EXISTS
    SELECT 1 UNION SELECT 1, 2
        invalid: line 1, column 1: UNION queries have different number of columns
    SELECT * FROM numbers a JOIN other b ON a.id = b.idd
        invalid: line 1, column 48: column "idd" does not exist; did you mean "id"?
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_dropped_is_refused() {
    let fixture = Fixture::new("[catalogs.notes]\nkind = \"memory\"\nwritable = true\n");
    for (statement, what) in [
        ("SELECT * FROM numbers FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM (SELECT * FROM numbers FOR SHARE)", "FOR SHARE"),
        ("SELECT * FROM numbers WITH (NOLOCK)", "WITH (…) after a table"),
        ("CREATE TABLE notes.main.t (a BIGINT GENERATED ALWAYS AS IDENTITY)", "GENERATED ALWAYS AS IDENTITY"),
        ("CREATE TABLE notes.main.t (a VARCHAR COLLATE \"C\")", "COLLATE"),
        ("CREATE TABLE notes.main.t (a BIGINT AUTO_INCREMENT)", "AUTO_INCREMENT"),
        ("CREATE TABLE notes.main.t (a BIGINT COMMENT 'x')", "COMMENT"),
        ("CREATE TABLE notes.main.t (a BIGINT CHECK (a > 0))", "CHECK in CREATE TABLE is not offered"),
        ("CREATE TABLE notes.main.t (a BIGINT, CONSTRAINT c CHECK (a > 0))", "CHECK in CREATE TABLE is not offered"),
        ("CREATE TABLE notes.main.t (a BIGINT REFERENCES notes.main.o (a))", "FOREIGN KEY in CREATE TABLE is not offered"),
        ("CREATE TABLE notes.main.t (a BIGINT, FOREIGN KEY (a) REFERENCES notes.main.o (a))", "FOREIGN KEY in CREATE TABLE"),
        ("CREATE TABLE notes.main.t (a BIGINT, INDEX i (a))", "INDEX in CREATE TABLE is not offered"),
        ("DELETE FROM notes.main.t AS n WHERE n.a = 1", "an alias in DELETE is not offered: n"),
    ] {
        let error = fixture.error(statement).await;
        assert_eq!(error.kind(), Kind::Unsupported, "{statement}");
        assert!(error.message().starts_with(what), "{statement}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("leave it out")), "{statement}: {error}");
    }
    fixture.rows("CREATE TABLE notes.main.t (a FLOAT(53), b FLOAT(24))").await;
    let described = fixture.gateway.execute.describe(&fixture.query("SELECT * FROM notes.main.t")).await.unwrap();
    let types = described.schema.fields().iter().map(|field| field.data_type().to_string());
    assert_eq!(types.collect::<Vec<_>>(), ["Float64", "Float32"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_text_that_is_none_is_told() {
    let fixture = Fixture::new("");
    let error = fixture.error("SELECT TIMESTAMP 1").await;
    insta::assert_snapshot!(error, @"TIMESTAMP is followed by a text, and not by 1; write TIMESTAMP '1'");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_nanoseconds_do_not_reach_is_told() {
    let fixture = Fixture::new("");
    let error = fixture.error("SELECT TIMESTAMP '9999-12-31 23:59:59.999999' AS t").await;
    insta::assert_snapshot!(error, @"overflow converting 9999-12-31 23:59:59.999999 to a timestamp in nanoseconds; those are of 1677-09-21 to 2262-04-11; write CAST('…' AS TIMESTAMP(6)), which is in microseconds");
    assert_eq!(error.kind(), Kind::Invalid);
    let taken = fixture.rows("SELECT CAST('9999-12-31 23:59:59.999999' AS TIMESTAMP(6)) AS t").await;
    assert!(taken.contains("9999-12-31T23:59:59.999999"), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_many_parts_is_none() {
    let fixture = Fixture::new("");
    for statement in ["SELECT a.b.c.d.e.f", "SELECT id FROM numbers ORDER BY a.b.c.d.e.f.g"] {
        let error = fixture.error(statement).await;
        assert_eq!(error.kind(), Kind::Invalid, "{statement}: {error}");
        assert!(error.message().ends_with("has more than 5 parts"), "{error}");
    }
}
