//! What no rule can be applied to, statements in a source's own language and a table at another time: who may ask, and that what is refused
//! never gets there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::Schema;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::*;
use crate::policy::{Expressions, Policy, PolicyText, RuleText};
use crate::source::{Capabilities, Proof};

static SPEC: Spec = Spec {
    kind: "native",
    summary: "counts the statements in its own language",
    options: &[],
    capabilities: Capabilities { native: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::unsupported("only made in tests")),
};

#[derive(Debug, Default)]
struct Native {
    asked: AtomicUsize,
}

#[async_trait]
impl Source for Native {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn tables(&self, _cx: &Context, _schema: &str) -> Result<Vec<TableEntry>> {
        Ok(Vec::new())
    }

    async fn table(&self, _cx: &Context, _schema: &str, table: &str) -> Result<Resolved> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(match table {
            "odd" => Error::data("a row of it is secret"),
            "keyed" => Error::invalid("a row of another is secret").at(Place::Key("catalogs.shop.tables.keyed".to_owned())),
            "t@7" => Error::not_found("there are 6 versions of it").at(Place::File { path: "t".to_owned(), line: None }),
            _ => Error::not_found("not there"),
        })
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        Some(name.split_once('@')?.0)
    }

    async fn native_describe(&self, _cx: &Context, _sql: &str) -> Result<SchemaRef> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Schema::empty()))
    }

    async fn native_query(&self, _cx: &Context, _sql: &str) -> Result<SendableRecordBatchStream> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Box::pin(EmptyRecordBatchStream::new(Arc::new(Schema::empty()))))
    }
}

/// A policy with the group `staff` of "ann".
fn policy(rules: Vec<RuleText>) -> Policy {
    let groups = BTreeMap::from([("staff".to_owned(), ["ann".to_owned()].into())]);
    Policy::new(PolicyText { groups, rules }).unwrap()
}

fn policies(rules: Vec<RuleText>) -> Arc<Policies> {
    let parse = |text: &str| {
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr_with_alias());
        parsed.map_err(|error| Error::invalid(error.to_string()))
    };
    let expressions = Expressions::new(SessionStateBuilder::new().build(), parse);
    Arc::new(Policies::new(policy(rules), expressions, false).unwrap())
}

/// Whether "ann" may ask the catalog `shop` for the columns and the rows of such a statement.
async fn asks(source: &Governed<Native>) -> bool {
    let (cx, sql, before) = (Context::new(Principal("ann".into())), "SELECT 1", source.inner.asked.load(Ordering::Relaxed));
    let described = source.native_describe(&cx, sql).await.map(|_| ());
    let outcomes = [described, source.native_query(&cx, sql).await.map(|_| ())];
    let count = source.inner.asked.load(Ordering::Relaxed) - before;
    let refused: Vec<Kind> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(Error::kind).collect();
    // All of it or nothing, and what is refused is not asked of the source.
    assert!((refused.is_empty() && count == 2) || (refused == [Kind::Denied; 2] && count == 0), "{refused:?} {count}");
    count > 0
}

fn rule(tables: &str, allow: &[Action]) -> RuleText {
    RuleText { tables: vec![tables.to_owned()], allow: allow.iter().copied().collect(), ..RuleText::default() }
}

fn filtered(rule: RuleText) -> RuleText {
    RuleText { filter: Some("a > 1".to_owned()), ..rule }
}

fn masked(rule: RuleText) -> RuleText {
    RuleText { masks: BTreeMap::from([("a".to_owned(), "NULL".to_owned())]), ..rule }
}

fn of_column(rule: RuleText) -> RuleText {
    RuleText { columns: Some(["a".to_owned()].into()), ..rule }
}

fn of_bob(rule: RuleText) -> RuleText {
    RuleText { users: Some(["bob".to_owned()].into()), ..rule }
}

fn of_staff(rule: RuleText) -> RuleText {
    RuleText { groups: Some(["staff".to_owned()].into()), ..rule }
}

#[tokio::test]
async fn native_statements_are_for_whom_nothing_is_hidden_from() {
    let (read, both) = ([Action::Read], [Action::Read, Action::Native]);
    let all = || rule("*.*.*", &both);
    let cases = [
        ("nothing is allowed", vec![], false),
        ("reading alone", vec![rule("*.*.*", &read)], false),
        ("writing and administering too", vec![rule("*.*.*", &[Action::Read, Action::Write, Action::Admin])], false),
        ("native alone", vec![rule("*.*.*", &[Action::Native])], false),
        ("all of all", vec![all()], true),
        ("all of this catalog", vec![rule("shop.*.*", &both)], true),
        ("all of catalogs like it", vec![rule("sh?p.*.*", &both)], true),
        ("all of another catalog", vec![rule("other.*.*", &both)], false),
        ("a schema of it", vec![rule("shop.main.*", &both)], false),
        ("tables of a name", vec![rule("shop.*.t", &both)], false),
        ("a table of it", vec![rule("shop.main.t", &both)], false),
        ("a table and the rest", vec![rule("shop.main.t", &both), all()], true),
        ("what is for another user", vec![of_bob(all())], false),
        ("what is for their group", vec![of_staff(all())], true),
        ("a filter of all", vec![filtered(all())], false),
        ("a mask of all", vec![masked(all())], false),
        ("one column of all", vec![of_column(all())], false),
        ("a filter of a table", vec![filtered(rule("shop.main.t", &both)), all()], false),
        ("a mask of a table", vec![masked(rule("shop.main.t", &both)), all()], false),
        ("a filter of a table in any catalog", vec![filtered(rule("*.main.t", &both)), all()], false),
        ("a filter of a schema", vec![filtered(rule("shop.main.*", &both)), all()], false),
        ("a filter for their group", vec![of_staff(filtered(rule("shop.main.t", &both))), all()], false),
        ("a hidden table", vec![rule("shop.main.t", &[]), all()], false),
        ("a hidden column", vec![of_column(rule("shop.main.t", &[])), all()], false),
        ("a table that is only read", vec![rule("shop.main.t", &read), all()], false),
        ("a filter of another catalog", vec![filtered(rule("other.main.t", &both)), all()], true),
        ("a mask of another catalog", vec![masked(rule("other.*.*", &both)), all()], true),
        ("a filter for another user", vec![of_bob(filtered(rule("shop.main.t", &both))), all()], true),
        ("a filter that never counts", vec![rule("shop.*.*", &both), filtered(rule("shop.main.t", &both))], true),
    ];
    for (what, rules, may) in cases {
        let source = Governed::new(Arc::new(Native::default()), "shop", policies(rules.clone()));
        assert_eq!(policy(rules).allows_native(&Principal("ann".into()), "shop"), may, "{what}");
        assert_eq!(asks(&source).await, may, "{what}");
    }
}

#[test]
fn a_policy_takes_a_source_nowhere_else() {
    let source = Governed::new(Arc::new(Native::default()), "shop", policies(Vec::new()));
    assert!(!source.is_elsewhere());
}

#[tokio::test]
async fn another_policy_takes_at_once_for_native_statements() {
    let both = [Action::Read, Action::Native];
    let policies = policies(vec![rule("*.*.*", &both)]);
    let source = Governed::new(Arc::new(Native::default()), "shop", Arc::clone(&policies));
    assert!(asks(&source).await);
    policies.replace(policy(vec![masked(rule("shop.main.t", &both)), rule("*.*.*", &both)])).unwrap();
    assert!(!asks(&source).await);
    policies.replace(policy(vec![rule("*.*.*", &both)])).unwrap();
    assert!(asks(&source).await);
}

#[tokio::test]
async fn a_table_at_another_time_is_for_whom_nothing_of_it_is_hidden_from() {
    let read = || rule("shop.main.t", &[Action::Read]);
    for (rules, may, kind) in [
        (vec![read()], true, Kind::NotFound),
        (vec![rule("shop.*.*", &[Action::Read])], true, Kind::NotFound),
        (vec![filtered(read())], false, Kind::Denied),
        (vec![masked(read())], false, Kind::Denied),
        (vec![of_column(rule("shop.main.t", &[])), read()], false, Kind::Denied),
        (vec![of_bob(read())], false, Kind::NotFound),
        (vec![rule("shop.main.t", &[Action::Write])], false, Kind::NotFound),
        // No rule is about the name itself.
        (vec![rule("shop.main.t@7", &[Action::Read])], false, Kind::NotFound),
        (vec![filtered(rule("shop.main.t", &[Action::Read])), rule("shop.main.t@7", &[Action::Read])], false, Kind::Denied),
    ] {
        let source = Governed::new(Arc::new(Native::default()), "shop", policies(rules.clone()));
        let error = source.table(&Context::new(Principal("ann".into())), "main", "t@7").await.unwrap_err();
        assert_eq!((source.inner.asked.load(Ordering::Relaxed) == 1, error.kind()), (may, kind), "{rules:?}");
        // Why it is not there is told to none but those who may see it.
        assert_eq!((error.place().is_some(), error.message() == "there are 6 versions of it"), (may, may), "{rules:?}: {error}");
    }
}

#[tokio::test]
async fn what_is_wrong_at_a_key_is_told_to_who_sees_all_of_the_catalog() {
    let read = |tables: &str| rule(tables, &[Action::Read]);
    let hidden = "a table of which you see a part cannot be read";
    for (rules, odd, keyed) in [
        (vec![read("shop.*.*")], "a row of it is secret", "a row of another is secret"),
        (
            vec![read("shop.main.*")],
            "a row of it is secret",
            "the table cannot be read, for a reason that may be of what you do not see",
        ),
        (vec![filtered(read("shop.main.*")), read("shop.*.*")], hidden, hidden),
    ] {
        let source = Governed::new(Arc::new(Native::default()), "shop", policies(rules.clone()));
        for (table, told) in [("odd", odd), ("keyed", keyed)] {
            let error = source.table(&Context::new(Principal("ann".into())), "main", table).await.unwrap_err();
            assert_eq!(error.message(), told, "{table}: {rules:?}");
            assert!(error.place().is_none() || told.contains("secret"), "{table}: {error}");
        }
    }
}
