//! What is denied against what is missing: nothing that is said tells one from the other.

use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetTables};
use nexus_flight_catalog::policy::{Action, RuleText};
use nexus_flight_catalog::{Context, Error, Principal};
use nexus_server::flight::metadata;
use nexus_server::flight::profile::TypeProfile;

use super::{Governed, set};

/// Ways to ask for a table, or to change it.
const STATEMENTS: [&str; 17] = [
    "SELECT * FROM {}",
    "SELECT count(*) FROM {} a JOIN a.main.t b ON a.x = b.x",
    "SELECT x FROM a.main.t WHERE x IN (SELECT x FROM {})",
    "EXPLAIN SELECT * FROM {}",
    "EXPLAIN ANALYZE SELECT * FROM {}",
    "DESCRIBE {}",
    "SHOW COLUMNS FROM {}",
    "INSERT INTO {} VALUES (1, '', 1)",
    "INSERT INTO {} SELECT x, '', x FROM a.main.t",
    "UPDATE {} SET x = 1",
    "DELETE FROM {}",
    "DELETE FROM {} WHERE x = 1",
    "DROP TABLE {}",
    "DROP TABLE IF EXISTS {}",
    "CREATE TABLE {} AS SELECT 1 AS x",
    "CREATE TABLE IF NOT EXISTS {} AS SELECT 1 AS x",
    "CREATE OR REPLACE TABLE {} AS SELECT 1 AS x",
];

/// A text with one word in place of another.
fn renamed(text: &str, from: &str, to: &str) -> String {
    let words = text.split_inclusive(|letter: char| !letter.is_alphanumeric());
    let renamed = words.map(|word| match word.strip_prefix(from) {
        Some(rest) if !rest.starts_with(char::is_alphanumeric) => format!("{to}{rest}"),
        _ => word.to_owned(),
    });
    renamed.collect()
}

/// All that a user is told of a table, by every way in.
async fn told(governed: &Governed, table: &str) -> Vec<String> {
    let text = |outcome: Result<String, Error>| match outcome {
        Ok(rows) => rows,
        Err(error) => format!("{}: {error}", error.kind().name()),
    };
    let mut all = Vec::new();
    for statement in STATEMENTS {
        let statement = statement.replace("{}", table);
        all.push(format!("{statement}\n{}", text(governed.run("ann", &statement).await)));
    }
    let statement = format!("SELECT * FROM {table} WHERE x = ?");
    let described = governed.fixture.gateway.execute.describe(&governed.query("ann", &statement)).await;
    all.push(text(described.map(|known| known.schema.to_string())));
    all.push(text(governed.ingest("ann", table).await.map(|()| "taken".to_owned())));
    all.push(text(governed.substrait("ann", table).await));
    let (status, body) = governed.http("ann", &format!("SELECT * FROM {table}")).await;
    all.push(format!("{status}\n{body}"));
    let (catalogs, cx) = (&governed.fixture.gateway.catalogs, Context::new(Principal("ann".into())));
    let (catalog, schema, name) = (Some(table[..1].to_owned()), Some("main".to_owned()), table[7..].to_owned());
    let tables = CommandGetTables {
        catalog: catalog.clone(),
        db_schema_filter_pattern: schema.clone(),
        table_name_filter_pattern: Some(name.clone()),
        table_types: vec![],
        include_schema: true,
    };
    let listed = metadata::tables(catalogs, &cx, TypeProfile::Native, &tables).await;
    all.push(text(listed.map(|listed| listed.num_rows().to_string())));
    let keys = CommandGetPrimaryKeys { catalog, db_schema: schema, table: name };
    let listed = metadata::primary_keys(catalogs, &cx, &keys).await;
    all.push(text(listed.map(|listed| listed.num_rows().to_string())));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_looks_like_what_is_missing() {
    let governed = Governed::new().await;
    governed.rules(vec![RuleText {
        tables: vec!["a.main.t".to_owned()],
        columns: Some(set(["x"])),
        allow: [Action::Read].into(),
        ..RuleText::default()
    }]);
    for (denied, missing, from, to) in [("a.main.u", "a.main.v", "u", "v"), ("b.main.t", "c.main.t", "b", "c")] {
        let (denied, missing) = (told(&governed, denied).await, told(&governed, missing).await);
        for (denied, missing) in denied.iter().zip(&missing) {
            assert_eq!(renamed(denied, from, to), renamed(missing, from, to));
        }
    }
    let said = async |statement: &str| governed.run("ann", statement).await.unwrap_err().to_string();
    // Who is not admin of the cache is told of its calls what is told of any other.
    // So it is with those of engines.
    for call in [
        "CALL system.invalidate('a.main.t')",
        "CALL system.invalidate_tag('x')",
        "CALL system.invalidate(1)",
        "CALL system.drain('a')",
        "CALL system.undrain('x')",
    ] {
        assert_eq!(said(call).await, said("CALL f()").await);
    }
    for (denied, missing, from, to) in [
        ("SELECT y FROM a.main.t", "SELECT w FROM a.main.t", "y", "w"),
        ("SELECT t.y FROM a.main.t", "SELECT t.w FROM a.main.t", "y", "w"),
        ("SELECT x FROM a.main.t WHERE y = ''", "SELECT x FROM a.main.t WHERE w = ''", "y", "w"),
        ("INSERT INTO a.main.t (y) VALUES ('')", "INSERT INTO a.main.t (w) VALUES ('')", "y", "w"),
        ("UPDATE a.main.t SET y = ''", "UPDATE a.main.t SET w = ''", "y", "w"),
        ("DELETE FROM a.main.t WHERE y = ''", "DELETE FROM a.main.t WHERE w = ''", "y", "w"),
        ("SELECT * FROM b.information_schema.tables", "SELECT * FROM c.information_schema.tables", "b", "c"),
    ] {
        let (denied_said, missing_said) = (said(denied).await, said(missing).await);
        assert_eq!(renamed(&denied_said, from, to), renamed(&missing_said, from, to), "{denied}");
    }
}
