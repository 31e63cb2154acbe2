//! Statements that would change something, in the words of twelve dialects and in disguise: over a catalog that is read only none of
//! them is run, and what only looks like one is.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexus_flight_catalog::{Keys, Kind};
use nexus_sources::memory::MemorySource;

use crate::fixture::{Fixture, numbers};

/// Statements that write, define, or reach outside, as each dialect has them.
const DIALECTS: [(&str, &[&str]); 12] = [
    (
        "standard",
        &[
            "INSERT INTO numbers VALUES (9, 'x')",
            "INSERT INTO numbers SELECT * FROM other",
            "INSERT INTO numbers DEFAULT VALUES",
            "INSERT INTO numbers (SELECT * FROM other)",
            "INSERT INTO numbers VALUES (9, 'x') UNION ALL SELECT * FROM other",
            "INSERT INTO numbers (name, id) VALUES ('x', 9)",
            "UPDATE numbers SET id = 0",
            "UPDATE numbers SET id = 0 WHERE id = (SELECT max(id) FROM other)",
            "DELETE FROM numbers",
            "DELETE FROM numbers WHERE id IN (SELECT id FROM other)",
            "DELETE FROM \"test\".\"main\".\"numbers\"",
            "DELETE FROM numbers WHERE EXISTS (SELECT 1 FROM other)",
            "TRUNCATE TABLE numbers",
            "DROP TABLE numbers",
            "DROP TABLE numbers CASCADE",
            "CREATE TABLE test.main.t (a INT)",
            "CREATE TABLE test.main.t AS SELECT 1 AS a",
            "CREATE TABLE t AS VALUES (1)",
            "CREATE VIEW v AS SELECT 1",
            "DROP VIEW v",
            "CREATE SCHEMA s",
            "DROP SCHEMA main",
            "ALTER TABLE numbers ADD COLUMN c INT",
            "ALTER TABLE numbers DROP COLUMN id",
            "ALTER TABLE numbers RENAME TO n",
            "GRANT ALL ON numbers TO PUBLIC",
            "REVOKE ALL ON numbers FROM PUBLIC",
            "CREATE INDEX i ON numbers (id)",
            "DROP INDEX i",
            "MERGE INTO numbers n USING other o ON n.id = o.id WHEN MATCHED THEN DELETE",
            "WITH o AS (SELECT 1 AS id) INSERT INTO numbers SELECT id, 'x' FROM o",
            "CREATE ROLE r",
            "DROP ROLE r",
            "CREATE SEQUENCE s",
            "CALL p()",
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
            "CREATE TRIGGER t AFTER INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION f()",
        ],
    ),
    (
        "PostgreSQL",
        &[
            "INSERT INTO numbers VALUES (9, 'x') ON CONFLICT DO NOTHING",
            "INSERT INTO numbers VALUES (9, 'x') RETURNING id",
            "WITH d AS (DELETE FROM numbers RETURNING *) SELECT * FROM d",
            "WITH i AS (INSERT INTO numbers VALUES (9, 'x') RETURNING id) SELECT id FROM i",
            "WITH u AS (UPDATE numbers SET id = 0 RETURNING id) SELECT count(*) FROM u",
            "WITH o AS (SELECT 4 AS id) DELETE FROM numbers WHERE id IN (SELECT id FROM o)",
            "INSERT INTO numbers WITH o AS (SELECT * FROM other) SELECT * FROM o",
            "INSERT INTO numbers VALUES (9, E'\\x41')",
            "UPDATE numbers AS n SET name = upper(n.name)",
            "SELECT * INTO t FROM numbers",
            "SELECT id INTO TABLE test.main.t FROM numbers",
            "SELECT 1 INTO TEMPORARY t",
            "COPY numbers FROM '/etc/passwd'",
            "COPY numbers TO '/tmp/x'",
            "COPY (SELECT 1) TO PROGRAM 'sh'",
            "DO $$ BEGIN DELETE FROM numbers; END $$",
            "EXECUTE p",
            "PREPARE p AS DELETE FROM numbers",
            "DEALLOCATE p",
            "LISTEN c",
            "NOTIFY c",
            "VACUUM numbers",
            "ANALYZE numbers",
            "REINDEX TABLE numbers",
            "CLUSTER numbers",
            "LOCK TABLE numbers",
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "REFRESH MATERIALIZED VIEW v",
            "CREATE EXTENSION e",
            "DROP EXTENSION e",
            "CREATE TYPE t AS ENUM ('a')",
            "COMMENT ON TABLE numbers IS 'x'",
            "SECURITY LABEL ON TABLE numbers IS 'x'",
            "SET ROLE postgres",
            "RESET ALL",
            "DISCARD ALL",
            "SELECT * FROM numbers FOR UPDATE",
            "EXPLAIN ANALYZE DELETE FROM numbers",
            "EXPLAIN (ANALYZE) INSERT INTO numbers VALUES (9, 'x')",
            "EXPLAIN ANALYZE VERBOSE UPDATE numbers SET id = 0",
            "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO main",
            "CREATE SERVER s FOREIGN DATA WRAPPER w",
        ],
    ),
    (
        "MySQL",
        &[
            "REPLACE INTO numbers VALUES (9, 'x')",
            "INSERT IGNORE INTO numbers VALUES (9, 'x')",
            "INSERT INTO numbers SET id = 9",
            "INSERT INTO numbers VALUES (9, 'x') ON DUPLICATE KEY UPDATE id = 0",
            "DELETE numbers FROM numbers",
            "DELETE FROM numbers LIMIT 1",
            "DELETE FROM `numbers`",
            "UPDATE numbers SET id = 0 ORDER BY id LIMIT 1",
            "UPDATE numbers, other SET numbers.id = 0",
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE numbers",
            "SELECT 1 INTO OUTFILE '/tmp/x'",
            "SELECT 1 INTO DUMPFILE '/tmp/x'",
            "SELECT 1 INTO @x",
            "/*!50000 DELETE FROM numbers */",
            "/*! DELETE FROM numbers */",
            "RENAME TABLE numbers TO n",
            "HANDLER numbers OPEN",
            "LOCK TABLES numbers WRITE",
            "UNLOCK TABLES",
            "FLUSH TABLES",
            "OPTIMIZE TABLE numbers",
            "KILL 1",
            "SET GLOBAL x = 1",
            "SET @a = 1",
            "USE main",
            "DROP DATABASE test",
            "CREATE DATABASE d",
            "SHUTDOWN",
            "INSTALL PLUGIN p SONAME 'x'",
            "CREATE USER u",
            "SET PASSWORD = 'x'",
            "PURGE BINARY LOGS BEFORE '2024-01-01'",
        ],
    ),
    (
        "SQL Server",
        &[
            "SELECT id INTO t FROM numbers",
            "SELECT id INTO #t FROM numbers",
            "DELETE TOP (1) FROM numbers",
            "UPDATE n SET id = 0 FROM numbers n",
            "INSERT numbers VALUES (9, 'x')",
            "BULK INSERT numbers FROM '/etc/passwd'",
            "EXEC xp_cmdshell 'ls'",
            "EXECUTE sp_executesql N'DELETE FROM numbers'",
            "EXEC('DELETE FROM numbers')",
            "DECLARE @x INT",
            "DECLARE c CURSOR FOR SELECT 1",
            "DBCC CHECKDB",
            "BACKUP DATABASE test TO DISK = 'x'",
            "RESTORE DATABASE test FROM DISK = 'x'",
            "CREATE LOGIN l WITH PASSWORD = 'x'",
            "IF 1 = 1 DELETE FROM numbers",
            "WHILE 1 = 1 BREAK",
            "BEGIN DELETE FROM numbers END",
            "PRINT 'x'",
            "RAISERROR('x', 16, 1)",
            "WAITFOR DELAY '00:00:10'",
            "SELECT * FROM OPENROWSET('x', 'y', 'z')",
            "SELECT * FROM OPENQUERY(s, 'DELETE FROM x')",
            "GO",
            "DROP TABLE IF EXISTS numbers",
            "TRUNCATE TABLE dbo.numbers",
            "DENY SELECT ON numbers TO PUBLIC",
        ],
    ),
    (
        "Oracle",
        &[
            "INSERT ALL INTO numbers VALUES (9, 'x') SELECT 1 FROM dual",
            "INSERT FIRST WHEN 1 = 1 THEN INTO numbers VALUES (9, 'x') SELECT 1 FROM dual",
            "INSERT INTO numbers SELECT 9, 'x' FROM other",
            "DELETE numbers",
            "DELETE numbers WHERE id = 1",
            "UPDATE numbers n SET (id, name) = (SELECT 1, 'x' FROM dual)",
            "DROP TABLE numbers PURGE",
            "FLASHBACK TABLE numbers TO BEFORE DROP",
            "PURGE RECYCLEBIN",
            "BEGIN DELETE FROM numbers; END;",
            "DECLARE x INT; BEGIN NULL; END;",
            "ALTER SYSTEM KILL SESSION '1'",
            "ALTER SESSION SET CURRENT_SCHEMA = main",
            "CREATE OR REPLACE PACKAGE p AS x INT; END;",
            "CREATE SYNONYM s FOR numbers",
            "CREATE DATABASE LINK l",
            "LOCK TABLE numbers IN EXCLUSIVE MODE",
            "AUDIT SELECT ON numbers",
            "EXPLAIN PLAN FOR DELETE FROM numbers",
            "CREATE DIRECTORY d AS '/'",
            "AUTONOMOUS_TRANSACTION",
        ],
    ),
    (
        "Snowflake",
        &[
            "CREATE OR REPLACE TABLE numbers AS SELECT 1 AS a",
            "CREATE OR REPLACE TABLE numbers (id INT)",
            "CREATE TABLE numbers CLONE other",
            "UNDROP TABLE numbers",
            "PUT file:///etc/passwd @s",
            "GET @s file:///tmp",
            "COPY INTO numbers FROM @s",
            "COPY INTO @s FROM numbers",
            "REMOVE @s",
            "LIST @s",
            "CREATE STAGE s",
            "CREATE PIPE p AS COPY INTO numbers FROM @s",
            "CREATE STREAM s ON TABLE numbers",
            "CREATE TASK t AS DELETE FROM numbers",
            "EXECUTE TASK t",
            "EXECUTE IMMEDIATE 'DELETE FROM numbers'",
            "USE ROLE ACCOUNTADMIN",
            "ALTER WAREHOUSE w SUSPEND",
            "INSERT OVERWRITE INTO numbers SELECT * FROM other",
            "SELECT * FROM @s",
            "CREATE DYNAMIC TABLE d AS SELECT 1",
            "ALTER SESSION SET TIMEZONE = 'UTC'",
            "BEGIN LET x := 1; END",
        ],
    ),
    (
        "BigQuery",
        &[
            "DELETE numbers WHERE true",
            "UPDATE `test.main.numbers` SET id = 0 WHERE true",
            "INSERT numbers (id) VALUES (9)",
            "EXPORT DATA OPTIONS (uri = 'gs://b/x') AS SELECT 1",
            "LOAD DATA INTO numbers FROM FILES (format = 'CSV')",
            "CREATE TEMP FUNCTION f() AS (1); SELECT f()",
            "DECLARE x INT64 DEFAULT 1",
            "SET x = 1",
            "EXECUTE IMMEDIATE 'SELECT 1'",
            "CREATE MODEL m OPTIONS (x = 1) AS SELECT 1",
            "ASSERT 1 = 2",
            "CREATE SNAPSHOT TABLE s CLONE numbers",
            "CREATE EXTERNAL TABLE e OPTIONS (uris = ['gs://b/x'])",
            "CALL p.d.f()",
            "BEGIN TRANSACTION; SELECT 1",
            "FOR r IN (SELECT 1) DO SELECT 1; END FOR",
            "SELECT * FROM EXTERNAL_QUERY('c', 'DELETE FROM x')",
            "TRUNCATE TABLE `numbers`",
            "CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS a",
        ],
    ),
    (
        "ClickHouse",
        &[
            "INSERT INTO numbers FORMAT CSV",
            "INSERT INTO FUNCTION file('x.csv') SELECT 1",
            "ALTER TABLE numbers DELETE WHERE 1",
            "ALTER TABLE numbers UPDATE id = 0 WHERE 1",
            "OPTIMIZE TABLE numbers FINAL",
            "SYSTEM SHUTDOWN",
            "ATTACH TABLE numbers",
            "DETACH TABLE numbers",
            "EXCHANGE TABLES numbers AND other",
            "RENAME TABLE numbers TO n, other TO o",
            "KILL QUERY WHERE 1",
            "SELECT * FROM url('http://127.0.0.1/', 'CSV')",
            "SELECT * FROM file('/etc/passwd')",
            "SELECT * FROM remote('127.0.0.1', 'x', 'y')",
            "SELECT 1 INTO OUTFILE 'x'",
            "BACKUP TABLE numbers TO Disk('x')",
            "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a",
            "SET max_threads = 1",
            "WATCH v",
            "DETACH TABLE numbers PERMANENTLY",
            "MOVE USER a TO b",
        ],
    ),
    (
        "Databricks",
        &[
            "INSERT OVERWRITE TABLE numbers SELECT * FROM other",
            "INSERT OVERWRITE DIRECTORY '/tmp/x' SELECT 1",
            "INSERT INTO TABLE numbers SELECT * FROM other",
            "OPTIMIZE numbers",
            "VACUUM numbers RETAIN 0 HOURS",
            "RESTORE TABLE numbers TO VERSION AS OF 1",
            "CONVERT TO DELTA numbers",
            "COPY INTO numbers FROM '/x' FILEFORMAT = CSV",
            "CACHE TABLE numbers",
            "UNCACHE TABLE numbers",
            "REFRESH TABLE numbers",
            "MSCK REPAIR TABLE numbers",
            "ADD JAR '/x.jar'",
            "SET spark.x = 1",
            "RESET spark.x",
            "CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1",
            "SELECT * FROM csv.`/etc/passwd`",
            "SELECT * FROM read_files('/etc')",
            "MERGE INTO numbers USING other ON numbers.id = other.id WHEN NOT MATCHED THEN INSERT *",
            "ANALYZE TABLE numbers COMPUTE STATISTICS",
        ],
    ),
    (
        "DuckDB",
        &[
            "ATTACH 'x.db'",
            "DETACH x",
            "INSTALL httpfs",
            "LOAD httpfs",
            "PRAGMA database_list",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM read_parquet('/x')",
            "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM 'x.parquet'",
            "COPY numbers TO 'x.parquet'",
            "EXPORT DATABASE 'x'",
            "IMPORT DATABASE 'x'",
            "FROM numbers INSERT INTO other",
            "CREATE TABLE t AS FROM numbers",
            "CREATE MACRO m(a) AS a",
            "CREATE SECRET s (TYPE S3)",
            "CHECKPOINT",
            "FORCE CHECKPOINT",
            "SET threads = 1",
            "SELECT * FROM glob('/*')",
            "INSERT OR REPLACE INTO numbers VALUES (9, 'x')",
            "CALL pragma_version()",
            "UPDATE EXTENSIONS",
        ],
    ),
    (
        "SQLite",
        &[
            "INSERT OR IGNORE INTO numbers VALUES (9, 'x')",
            "INSERT OR ROLLBACK INTO numbers VALUES (9, 'x')",
            "REPLACE INTO numbers SELECT * FROM other",
            "ATTACH DATABASE 'x' AS x",
            "DETACH DATABASE x",
            "PRAGMA writable_schema = 1",
            "VACUUM",
            "VACUUM INTO 'x'",
            "REINDEX",
            "CREATE VIRTUAL TABLE v USING fts5(a)",
            "SELECT load_extension('x')",
            "SELECT writefile('x', 'y')",
            "SELECT readfile('/etc/passwd')",
            "UPDATE OR REPLACE numbers SET id = 0",
            "DROP TABLE IF EXISTS main.numbers",
            "ALTER TABLE numbers RENAME COLUMN id TO x",
        ],
    ),
    (
        "Hive and DataFusion",
        &[
            "INSERT OVERWRITE TABLE numbers VALUES (9, 'x')",
            "INSERT OVERWRITE LOCAL DIRECTORY '/tmp/x' SELECT 1",
            "LOAD DATA LOCAL INPATH '/etc/passwd' INTO TABLE numbers",
            "FROM other INSERT INTO TABLE numbers SELECT *",
            "EXPORT TABLE numbers TO '/x'",
            "IMPORT TABLE numbers FROM '/x'",
            "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE EXTERNAL TABLE e (a INT) STORED AS PARQUET LOCATION 's3://bucket/x'",
            "CREATE UNBOUNDED EXTERNAL TABLE e STORED AS CSV LOCATION '/x'",
            "COPY (SELECT 1) TO '/tmp/x' STORED AS CSV",
            "COPY numbers TO 's3://bucket/x' STORED AS PARQUET",
            "SET datafusion.execution.batch_size = 1",
            "SET datafusion.catalog.location = '/'",
            "RESET datafusion.execution.batch_size",
            "EXPLAIN COPY (SELECT 1) TO '/tmp/x' STORED AS CSV",
            "EXPLAIN ANALYZE INSERT INTO numbers VALUES (9, 'x')",
            "EXPLAIN ANALYZE CREATE TABLE test.main.t AS SELECT 1 AS a",
            "CREATE FUNCTION f(a INT) RETURNS INT RETURN a",
            "DROP FUNCTION abs",
            "DFS -ls /",
            "CREATE DATABASE IF NOT EXISTS d LOCATION '/'",
            "TRUNCATE numbers PARTITION (a = 1)",
            "ALTER TABLE numbers SET TBLPROPERTIES ('a' = 'b')",
            "ALTER TABLE numbers DROP PARTITION (a = 1)",
            "CREATE TABLE t LIKE numbers",
            "CREATE TABLE t STORED AS PARQUET AS SELECT 1 AS a",
            "CREATE TABLE t AS WITH o AS (SELECT 1 AS a) SELECT * FROM o",
            "DELETE FROM numbers USING other WHERE numbers.id = other.id",
            "UPDATE numbers SET id = 0 FROM other WHERE numbers.id = other.id",
            "INSERT INTO numbers TABLE other",
            "INSERT INTO information_schema.tables VALUES (1)",
            "DROP TABLE information_schema.tables",
            "INSERT INTO system.main.queries VALUES (1)",
            "DELETE FROM system.main.settings",
            "UPDATE system.main.settings SET value = 'x'",
            "DROP TABLE system.main.queries",
            "CREATE TABLE information_schema.t AS SELECT 1 AS a",
            "EXPLAIN ANALYZE WITH o AS (SELECT 1 AS id) INSERT INTO numbers SELECT id, 'x' FROM o",
            "EXPLAIN FORMAT TREE DELETE FROM numbers",
            "EXPLAIN ANALYZE EXPLAIN ANALYZE DROP TABLE numbers",
            "DESCRIBE DELETE FROM numbers",
            "SHOW CREATE TABLE numbers",
        ],
    ),
];

/// Ways to dress a statement that hide its first word from who looks at the text.
fn disguises(statement: &str) -> Vec<String> {
    vec![
        format!("/* SELECT 1 */ {statement}"),
        format!("-- SELECT 1\n{statement}"),
        format!("SELECT 1; {statement}"),
        format!("{statement}; SELECT 1"),
        format!("SELECT 1 /* */ ; /* */ {statement} --"),
        format!(";{statement}"),
        format!("({statement})"),
        format!("EXPLAIN {statement}"),
        format!("SELECT * FROM ({statement}) t"),
        format!("SELECT ({statement})"),
        format!("WITH t AS ({statement}) SELECT * FROM t"),
        format!("\u{feff}{statement}"),
        format!("SELECT 'a\\'; {statement} --'"),
        statement.to_lowercase(),
        statement.replacen(' ', "\t\r\n\u{a0}", 1),
        statement.replacen(' ', "/**/", 1),
    ]
}

/// What has the words of a write in it, and is none.
const HARMLESS: [&str; 14] = [
    "SELECT 'DELETE FROM numbers'",
    "SELECT 1 AS \"DROP TABLE numbers\"",
    "SELECT id AS insert FROM numbers",
    "SELECT 1 -- ; DELETE FROM numbers",
    "SELECT /* DROP TABLE numbers */ 1",
    "SELECT 1;",
    "SELECT ';', 'a;b'",
    "SELECT replace(name, 'n', 'x') FROM numbers",
    "WITH \"delete\" AS (SELECT 1 AS a) SELECT * FROM \"delete\"",
    "SELECT count(*) AS \"update\" FROM numbers",
    "VALUES (1, 'UPDATE')",
    "SELECT 'it''s; drop'",
    "SELECT name FROM numbers WHERE name <> 'TRUNCATE'",
    "SELECT insert.id FROM numbers AS insert",
];

/// A gateway over a catalog that could take rows, and does where it may.
fn filled(is_writable: bool) -> Fixture {
    let fixture = Fixture::new("");
    let source = MemorySource::new();
    for (table, ids) in [("numbers", &[1, 2, 3][..]), ("other", &[4])] {
        source.insert("main", table, vec![numbers(ids)], Keys::default()).unwrap();
    }
    fixture.gateway.catalogs.register("test", Arc::new(source));
    if is_writable {
        fixture.gateway.catalogs.allow_writes("test");
    }
    fixture
}

/// How many of the statements would be run where they may.
const RUN_ELSEWHERE: usize = 64;

/// Those that would be run on a writable catalog, 64 with the disguises, are denied on this one. Of all others, most of which are not even
/// SQL here, nothing is asked but that they end in an error which is no defect.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_writes_gets_through() {
    let fixture = filled(false);
    let before = fixture.rows("SELECT * FROM numbers ORDER BY id").await;
    let statements = DIALECTS.iter().flat_map(|(_, statements)| statements.iter().map(|text| (*text).to_owned()));
    // Each once, however many dialects have it.
    let statements: BTreeSet<String> = statements.collect();
    assert!(statements.len() >= 310, "{}", statements.len());
    let plain = ["DELETE FROM numbers", "INSERT INTO numbers VALUES (9, 'x')", "DROP TABLE numbers", "UPDATE numbers SET id = 0"];
    let mut run_elsewhere = 0;
    for statement in statements.into_iter().chain(plain.into_iter().flat_map(disguises)) {
        let described = fixture.gateway.execute.describe(&fixture.query(&statement)).await.map(drop);
        let kinds = [fixture.error(&statement).await.kind(), described.map_or_else(|error| error.kind(), |()| Kind::Denied)];
        assert!(!kinds.contains(&Kind::Internal), "{statement}");
        // What no gateway of ours would do is refused for that; all else since it may not be done here.
        if filled(true).run(&statement).await.is_ok() {
            run_elsewhere += 1;
            assert_eq!(kinds, [Kind::Denied; 2], "{statement}");
        }
    }
    assert_eq!(run_elsewhere, RUN_ELSEWHERE);
    assert_eq!(fixture.rows("SELECT * FROM numbers ORDER BY id").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_write_is_run() {
    let fixture = Fixture::new("");
    for statement in HARMLESS {
        fixture.run(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
