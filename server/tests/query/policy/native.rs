//! Who may ask a catalog in its own SQL, by a statement: who sees all of it and may. To the others it is denied where they see the catalog, and
//! missing where they do not.

use std::sync::Arc;

use nexus_flight_catalog::Kind;
use nexus_flight_catalog::policy::{Action, RuleText};

use super::{Governed, set};
use crate::native::Native;

const STATEMENT: &str = "SELECT id FROM native('w', 'numbers')";

fn rule(who: &str, tables: &str, allow: &[Action]) -> RuleText {
    let (users, tables) = (Some(set([who])), vec![tables.to_owned()]);
    RuleText { users, tables, allow: allow.iter().copied().collect(), ..RuleText::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_those_alone_who_may() {
    let (governed, source) = (Governed::new().await, Arc::new(Native::default()));
    governed.fixture.gateway.catalogs.register("w", Arc::clone(&source) as _);
    let all = [Action::Read, Action::Native];
    let hidden = RuleText { filter: Some("id > 1".to_owned()), ..rule("dan", "w.main.t", &[Action::Read]) };
    governed.rules(vec![
        rule("ann", "w.*.*", &all),
        rule("ann", "a.*.*", &all),
        rule("bob", "w.*.*", &[Action::Read]),
        rule("bob", "a.*.*", &[Action::Read]),
        hidden,
        rule("dan", "w.*.*", &all),
    ]);
    let before = source.asked();
    for statement in [STATEMENT.to_owned(), format!("EXPLAIN {STATEMENT}"), format!("EXPLAIN ANALYZE {STATEMENT}")] {
        for (who, kind) in [("bob", Kind::Denied), ("dan", Kind::Denied), ("cid", Kind::NotFound)] {
            let error = governed.run(who, &statement).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{who}: {error}");
            let error = governed.fixture.gateway.execute.describe(&governed.query(who, &statement)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{who}: {error}");
        }
    }
    // What is refused never gets there.
    assert_eq!(source.asked(), before);
    let rows = governed.run("ann", STATEMENT).await.unwrap();
    assert!(["| 1  |", "| 2  |", "| 3  |"].iter().all(|row| rows.contains(row)), "{rows}");
    // Who may not ask is not told whether there is somebody who could.
    let said = async |who: &str, catalog: &str| {
        let statement = format!("SELECT * FROM native('{catalog}', 'numbers')");
        governed.run(who, &statement).await.unwrap_err().to_string()
    };
    assert_eq!(said("bob", "a").await, said("bob", "w").await.replace("\"w\"", "\"a\""));
    assert!(said("ann", "a").await.starts_with("a catalog of kind \"memory\" does not offer native statements"));
    assert_eq!(said("cid", "w").await, said("cid", "v").await.replace("\"v\"", "\"w\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_counts_for_the_next_statement() {
    let (governed, source) = (Governed::with("cache.check = \"1h\"\n").await, Arc::new(Native::default()));
    governed.fixture.gateway.catalogs.register("w", Arc::clone(&source) as _);
    governed.rules(vec![rule("ann", "w.*.*", &[Action::Read, Action::Native])]);
    governed.run("ann", STATEMENT).await.unwrap();
    governed.run("ann", STATEMENT).await.unwrap();
    governed.rules(vec![rule("ann", "w.*.*", &[Action::Read])]);
    assert_eq!(governed.run("ann", STATEMENT).await.unwrap_err().kind(), Kind::Denied);
    governed.rules(Vec::new());
    assert_eq!(governed.run("ann", STATEMENT).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(source.asked(), (2, 2));
}
