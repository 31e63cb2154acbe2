//! Rules that cannot hold: refused where their text alone says so, and closed where they do not fit a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use nexus_flight_catalog::policy::{Action, Policy, PolicyText, RuleText};
use nexus_flight_catalog::{Kind, TableName};

use super::{Governed, restricted, schema, set};

#[tokio::test(flavor = "multi_thread")]
async fn what_no_table_makes_good_is_refused_when_it_is_read() {
    let governed = Governed::new().await;
    governed.rules(vec![restricted()]);
    let refused = |filter: &str| {
        let rule = RuleText { filter: Some(filter.to_owned()), ..restricted() };
        let policy = Policy::new(PolicyText { rules: vec![rule], ..PolicyText::default() }).unwrap();
        let error = governed.policies.replace(policy).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        error.to_string()
    };
    insta::assert_snapshot!(refused("x IN (SELECT x FROM b.main.t)"), @r#"rule 1: "x IN (SELECT x FROM b.main.t)" has a sub-select; a rule is about one row alone: write it with its columns, values and $user"#);
    insta::assert_snapshot!(refused("x > sum(x)"), @r#"rule 1: "x > sum(x)" calls "sum" over several rows; a rule is about one row alone: write it with its columns, values and $user"#);
    insta::assert_snapshot!(refused("row_number() OVER () > 1"), @r#"rule 1: "row_number() OVER () > 1" calls "row_number" over several rows; a rule is about one row alone: write it with its columns, values and $user"#);
    insta::assert_snapshot!(refused("unnest([x]) > 1"), @r#"rule 1: "unnest([x]) > 1" calls "unnest" over several rows; a rule is about one row alone: write it with its columns, values and $user"#);
    insta::assert_snapshot!(refused("y = $usr"), @r#"rule 1: "y = $usr" has the parameter "$usr", which nothing gives a value; who asks is written as $user, and there is no other"#);
    insta::assert_snapshot!(refused("x = $1"), @r#"rule 1: "x = $1" has the parameter "$1", which nothing gives a value; who asks is written as $user, and there is no other"#);
    insta::assert_snapshot!(refused("uper(y) = 'X'"), @r#"rule 1: "uper(y) = 'X'" calls "uper", and there is no such function; did you mean "upper"?"#);
    // What was there before stays.
    let seen = governed.run("cid", "SELECT count(*) AS c FROM a.main.t").await.unwrap();
    assert!(seen.contains("| 3 |"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_rule_does_not_fit_is_closed_and_hides_no_other() {
    let governed = Governed::new().await;
    let other = RuleText { tables: vec!["a.main.u".to_owned()], allow: [Action::Read].into(), ..RuleText::default() };
    let masked = |column: &str, mask: &str| BTreeMap::from([(column.to_owned(), mask.to_owned())]);
    let (whole, filtered) = (|| RuleText { filter: None, ..restricted() }, |filter: &str| Some(filter.to_owned()));
    for rule in [
        RuleText { filter: filtered("nope = 1"), ..restricted() },
        RuleText { filter: filtered("x"), ..restricted() },
        RuleText { filter: filtered("NULL"), ..restricted() },
        RuleText { masks: masked("y", "upper(nope)"), ..whole() },
        RuleText { masks: masked("nope", "1"), ..whole() },
        RuleText { masks: masked("Y", "'?'"), ..whole() },
    ] {
        governed.rules(vec![rule.clone(), other.clone()]);
        for statement in ["SELECT * FROM a.main.t", "SELECT 1 AS a FROM a.main.t", "DESCRIBE a.main.t", "DELETE FROM a.main.t"] {
            let error = governed.run("cid", statement).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{statement}: {error} {rule:?}");
            assert!(!error.to_string().contains("nope"), "{error}");
        }
        let error = governed.run("cid", "SELECT * FROM a.main.t").await.unwrap_err();
        assert_eq!(error.message(), "a rule about the table \"a.main.t\" does not fit its columns", "{rule:?}");
        for view in ["columns", "key_column_usage", "table_constraints"] {
            let named = format!(
                "SELECT DISTINCT table_name AS n FROM a.information_schema.{view} WHERE table_schema = 'main' ORDER BY 1"
            );
            let found = governed.run("cid", &named).await;
            assert!(found.as_ref().is_ok_and(|found| found.contains("| u |") && !found.contains("| t |")), "{view}: {found:?}");
        }
        // Its columns are not looked at in lists.
        let listed = "SELECT table_name AS n FROM a.information_schema.tables WHERE table_schema = 'main' ORDER BY 1";
        let listed = governed.run("cid", listed).await.unwrap();
        assert!(listed.contains("| t |") && listed.contains("| u |"), "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_said_with_the_rule() {
    let governed = Governed::new().await;
    let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(schema()));
    let name = TableName::new("a", "main", "t");
    let unfit = |rule: RuleText| {
        governed.rules(vec![rule]);
        assert!(governed.policies.current().exact().iter().eq([&name]));
        let unfit = governed.policies.unfit(&name, &table);
        unfit.iter().map(|error| error.message().to_owned()).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(unfit(restricted()), "");
    let whole = || RuleText { filter: None, masks: BTreeMap::new(), ..restricted() };
    insta::assert_snapshot!(unfit(RuleText { columns: Some(set(["nope"])), ..whole() }), @r#"rule 2: the table "a.main.t" has no column "nope""#);
    insta::assert_snapshot!(unfit(RuleText { filter: Some("x".to_owned()), ..whole() }), @r#"rule 2: "x" does not fit the table "a.main.t": a filter is true or false of a row, and this one is of the type Int64"#);
    let broken = unfit(RuleText { filter: Some("nope = 1".to_owned()), ..whole() });
    assert!(broken.starts_with("rule 2: \"nope = 1\" does not fit the table \"a.main.t\": "), "{broken}");
}
