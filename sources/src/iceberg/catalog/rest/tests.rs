//! Servers that say what is said here, and what becomes of it.

use super::*;
use crate::lake::{Reply, served};

/// A catalog over a folder.
async fn catalog(folder: &std::path::Path, answers: &'static [Reply]) -> Rest {
    let (uri, warehouse) = (served(answers).await, Some("w 1".to_owned()));
    let config = config::Rest { uri, warehouse, asks: config::Asks::Nobody };
    Rest::open("lake", &Location::Folder(folder.to_owned()), config).unwrap()
}

const CONFIG: Reply =
    ("GET /v1/config?warehouse=w%201 ", "200 OK", r#"{"defaults":{"prefix":"no"},"overrides":{"prefix":"a%7Cb"}}"#);

#[test]
fn a_server_that_fails_may_have_done_it() {
    let became = |status| became(status, Some(Error::unavailable("no")));
    assert!([500, 502, 503, 504].into_iter().all(|status| matches!(became(status), Ok(Outcome::Unknown(_)))));
    assert!(matches!(became(409), Ok(Outcome::Conflict)));
    assert!([400, 403, 404, 422, 429, 501].into_iter().all(|status| became(status).is_err()));
}

#[tokio::test]
async fn namespaces_have_pages_and_levels() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(
        folder.path(),
        &[
            CONFIG,
            ("GET /v1/a%7Cb/namespaces?pageToken= ", "503 Busy\r\nretry-after: 0", ""),
            (
                "GET /v1/a%7Cb/namespaces?pageToken= ",
                "200 OK",
                r#"{"namespaces":[["shop"],["a.b"],["information_schema"]],"next-page-token":"2"}"#,
            ),
            ("GET /v1/a%7Cb/namespaces?pageToken=2 ", "200 OK", r#"{"namespaces":[["空"]],"next-page-token":null}"#),
            ("GET /v1/a%7Cb/namespaces?parent=shop&", "200 OK", r#"{"namespaces":[["shop","old"],["shop"]]}"#),
            (
                "GET /v1/a%7Cb/namespaces/shop%1Fold/tables?pageToken= ",
                "200 OK",
                r#"{"identifiers":[{"namespace":["shop","old"],"name":"b"},{"namespace":["shop","old"],"name":"a@1"}]}"#,
            ),
            ("GET /v1/a%7Cb/namespaces/again/tables", "200 OK", r#"{"identifiers":[],"next-page-token":"1"}"#),
            ("GET /v1/a%7Cb/namespaces/views/tables", "200 OK", r#"{"views":[]}"#),
        ],
    )
    .await;
    assert_eq!(catalog.schemas().await.unwrap(), ["shop", "shop.old", "空"]);
    let tables = catalog.tables("shop.old").await.unwrap();
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let refusal = async |schema: &str| catalog.tables(schema).await.unwrap_err();
    insta::assert_snapshot!(refusal("nowhere").await, @r#"schema "nowhere" does not exist"#);
    insta::assert_snapshot!(refusal("shop.").await, @r#"schema "shop." does not exist"#);
    insta::assert_snapshot!(refusal("again").await, @"catalogs.lake.uri: the catalog server gives a page of a list again, and so without end");
    assert_eq!(refusal("views").await.kind(), Kind::Data);
}

#[tokio::test]
async fn a_table_is_within_the_location() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(
        folder.path(),
        &[
            CONFIG,
            ("GET /v1/a%7Cb/namespaces/shop/tables/out ", "200 OK", r#"{"metadata-location":"file:///v1.metadata.json"}"#),
            ("GET /v1/a%7Cb/namespaces?pageToken= ", "200 OK", r#"{"namespaces":[["shop"]]}"#),
            (
                "GET /v1/a%7Cb/namespaces/shop/tables?pageToken= ",
                "200 OK",
                r#"{"identifiers":[{"namespace":["shop"],"name":"out"}]}"#,
            ),
            ("GET /v1/a%7Cb/namespaces/shop/tables/hidden ", "403 Forbidden", r#"{"error":{"message":"not for you"}}"#),
        ],
    )
    .await;
    for absent in ["nothing", "..", ""] {
        assert!(catalog.find("shop", absent).await.unwrap().is_none());
    }
    assert_eq!(catalog.find("shop", "out").await.unwrap_err().kind(), Kind::Denied);
    let hidden = catalog.find("shop", "hidden").await.unwrap_err();
    assert_eq!(hidden.kind(), Kind::Denied);
    insta::assert_snapshot!(hidden, @"catalogs.lake.uri: the catalog server does not allow this: not for you; grant it to who is named by credential or token");
}

/// Its server finds tables by more names than it lists: it heeds no case, and what separates levels may stand in the name of one.
#[tokio::test]
async fn a_table_has_the_name_alone_that_is_listed() {
    // It is out of the location, which is seen only where the name is right.
    const TABLE: &str = r#"{"metadata-location":"file:///v1.metadata.json"}"#;
    const LISTED: &str = r#"{"identifiers":[{"namespace":["shop","old"],"name":"orders"}]}"#;
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(
        folder.path(),
        &[
            CONFIG,
            ("GET /v1/a%7Cb/namespaces?pageToken= ", "200 OK", r#"{"namespaces":[["other"]],"next-page-token":"2"}"#),
            ("GET /v1/a%7Cb/namespaces?pageToken=2 ", "200 OK", r#"{"namespaces":[["shop"]]}"#),
            ("GET /v1/a%7Cb/namespaces?parent=shop&", "200 OK", r#"{"namespaces":[["shop","old"]]}"#),
            ("GET /v1/a%7Cb/namespaces/shop%1Fold/tables?", "200 OK", LISTED),
            ("GET /v1/a%7Cb/namespaces/shop%1FOLD/tables?", "200 OK", LISTED),
            ("GET /v1/a%7Cb/namespaces/shop%1Fold/tables/orders ", "200 OK", TABLE),
            ("GET /v1/a%7Cb/namespaces/shop%1Fold/tables/Orders ", "200 OK", TABLE),
            ("GET /v1/a%7Cb/namespaces/shop%1FOLD/tables/orders ", "200 OK", TABLE),
        ],
    )
    .await;
    // Before it is known and after.
    for _ in 0..2 {
        for (schema, table) in [("shop.old", "Orders"), ("shop.OLD", "orders"), ("shop\u{1f}old", "orders")] {
            assert!(catalog.find(schema, table).await.unwrap().is_none(), "{schema} {table}");
        }
        assert_eq!(catalog.find("shop.old", "orders").await.unwrap_err().kind(), Kind::Denied);
    }
    assert!(catalog.tables("shop.OLD").await.unwrap().is_empty());
}
