//! The text of a statement at an engine: by `translate`, and in what EXPLAIN tells. The engine is asked for the columns of its tables alone.

use std::sync::Arc;

use nexus_engines::trino;
use nexus_flight_catalog::policy::{Action, Policies, Policy, PolicyText, RuleText};
use nexus_flight_catalog::{Error, Kind, Options, Principal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture::{Fixture, shown};

/// What a cluster says of the columns of its one table.
const PAGE: &str = r#"{"id":"q_1","columns":[{"name":"table_name","type":"varchar"},{"name":"column_name","type":"varchar"},{"name":"data_type","type":"varchar"}],"data":[["orders","id","bigint"],["orders","who","varchar(20)"],["orders","total","decimal(12,2)"]],"stats":{"state":"FINISHED"}}"#;

/// The address of a cluster with one table.
async fn cluster() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut request, mut piece) = (Vec::new(), [0; 4096]);
                // The name of the table ends what is asked.
                while !String::from_utf8_lossy(&request).contains("ordinal_position") {
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&piece[..count]),
                    }
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", PAGE.len());
                let _ = stream.write_all(format!("{head}{PAGE}").as_bytes()).await;
            });
        }
    });
    address
}

/// A gateway with the table `lake.main.orders`, which is `iceberg.main.orders` there.
async fn gateway() -> Fixture {
    let fixture = Fixture::new("");
    let values = serde_json::json!({ "url": cluster().await, "user": "me", "catalog": "iceberg" });
    let values = values.as_object().unwrap().clone();
    let source = (trino::SPEC.open)(&Options { catalog: "lake".into(), values, ..Options::default() }).unwrap();
    fixture.gateway.catalogs.register("lake", source);
    fixture
}

async fn ask(fixture: &Fixture, who: &str, statement: &str) -> Result<String, Error> {
    let mut query = fixture.query(statement);
    query.cx.principal = Principal(who.into());
    Ok(shown(fixture.gateway.execute.execute(query).await?).await?.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_told_as_it_would_be_there() {
    let fixture = gateway().await;
    for (statement, wanted) in [
        (
            "SELECT id FROM lake.main.orders WHERE id > 5 ORDER BY id",
            r#"| SELECT t1."id" AS "id" FROM "iceberg"."main"."orders" AS t1 WHERE (t1."id" > BIGINT '5') ORDER BY t1."id" ASC NULLS LAST |"#,
        ),
        // What the gateway makes of statements is undone: Trino does the same by itself.
        (
            "SELECT (SELECT id FROM lake.main.orders) AS a",
            r#"| SELECT (SELECT t1."id" FROM "iceberg"."main"."orders" AS t1) AS "a" |"#,
        ),
        (
            "SELECT id FROM lake.main.orders WHERE id NOT IN (SELECT id FROM lake.main.orders)",
            r#"(t1."id" NOT IN (SELECT t2."id" FROM "iceberg"."main"."orders" AS t2))"#,
        ),
        ("SELECT who || '!' AS a FROM lake.main.orders", r#"(t1."who" || '!') AS "a""#),
        ("SELECT sum(total) FILTER (WHERE id = 1) AS a FROM lake.main.orders", r#"sum(t1."total") FILTER (WHERE "#),
        ("SELECT id FROM lake.main.orders WHERE who LIKE 'a#%' ESCAPE '#'", r#"(t1."who" LIKE 'a#%' ESCAPE '#')"#),
        ("SELECT DISTINCT who FROM lake.main.orders UNION SELECT who FROM lake.main.orders", "UNION ALL"),
    ] {
        for target in ["lake", "trino"] {
            let text = fixture.rows(&format!("SELECT translate($${statement}$$, '{target}')")).await;
            assert!(text.contains(wanted), "{statement}\n{text}");
            assert!(text.starts_with("+-") && text.contains("| translate "), "{text}");
        }
        let told = fixture.rows(&format!("EXPLAIN {statement}")).await;
        assert!(told.contains("| translation "), "{told}");
    }
    assert!(
        fixture.rows("SELECT translate('SELECT 1 AS one', 'trino') AS sql").await.contains(r#"| SELECT BIGINT '1' AS "one" |"#)
    );
    // That of three texts is a function of rows.
    assert!(fixture.rows("SELECT translate('abc', 'a', 'x')").await.contains("xbc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let fixture = gateway().await;
    for (statement, target, wanted) in [
        (
            "SELECT upper(who) FROM lake.main.orders",
            "lake",
            "cannot translate the function upper, as it is called here for trino",
        ),
        ("SELECT * FROM lake.main.orders, numbers", "lake", "cannot translate the table \"test.main.numbers\" for trino"),
        ("SELECT * FROM numbers", "trino", "cannot translate the table \"test.main.numbers\" for trino"),
        ("SELECT * FROM lake.information_schema.tables", "lake", "cannot translate the table \"lake.information_schema.tables\""),
        ("INSERT INTO lake.main.orders VALUES (1, 'a', 2)", "lake", "cannot translate INSERT for trino"),
        ("EXPLAIN SELECT 1", "trino", "cannot translate EXPLAIN for trino"),
        ("SELECT translate('SELECT 1', 'trino')", "trino", "cannot translate a translation for trino"),
        ("SELECT id FROM lake.main.orders WHERE id = $1", "lake", "cannot translate a parameter for trino"),
        ("SELECT (1", "lake", "in the statement to translate, line 1, column "),
        ("SELECT 1", "nowhere", "there is no catalog or engine \"nowhere\""),
        ("SELECT 1", "test", "a catalog of kind \"counted\" does not offer translation"),
    ] {
        let error = fixture.error(&format!("SELECT translate($given${statement}$given$, '{target}')")).await;
        assert!(error.message().starts_with(wanted), "{statement}: {error}");
        assert!(error.place().is_none(), "{error}");
    }
    let told = fixture.rows("EXPLAIN SELECT upper(who) FROM lake.main.orders").await;
    assert!(told.contains("cannot translate the function upper"), "{told}");
    assert!(!fixture.rows("EXPLAIN SELECT * FROM numbers").await.contains("translation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_a_part_is_not_told_what_is_hidden() {
    let fixture = gateway().await;
    let rule = |who: &str, filter: Option<&str>| RuleText {
        users: Some([who.to_owned()].into()),
        tables: vec!["lake.*.*".to_owned()],
        allow: [Action::Read].into(),
        filter: filter.map(str::to_owned),
        ..RuleText::default()
    };
    let rules = vec![rule("ann", None), rule("bob", Some("who <> 'secret'"))];
    let policy = Policy::new(PolicyText { rules, ..PolicyText::default() }).unwrap();
    let policies = Policies::new(policy, fixture.gateway.planner.expressions(), false).unwrap();
    fixture.gateway.catalogs.govern(Arc::new(policies));
    let statement = "SELECT translate('SELECT id FROM lake.main.orders', 'lake')";
    assert!(ask(&fixture, "ann", statement).await.unwrap().contains(r#"FROM "iceberg"."main"."orders""#));
    let error = ask(&fixture, "bob", statement).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(
        error.message(),
        "you see only a part of the table \"lake.main.orders\", and its translation would tell what is hidden"
    );
    let error = ask(&fixture, "cid", statement).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let explained = "EXPLAIN SELECT id FROM lake.main.orders";
    assert!(ask(&fixture, "ann", explained).await.unwrap().contains("| translation "));
    let told = ask(&fixture, "bob", explained).await.unwrap();
    assert!(!told.contains("translation") && !told.contains("secret"), "{told}");
}
