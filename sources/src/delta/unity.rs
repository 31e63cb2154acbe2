//! Tables that a server of Unity Catalog knows, which may give the keys of the store for each of them (its OpenAPI, 2.1).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use nexus_flight_catalog::{Error, Kind, Place, Result, information_schema};
use object_store::aws::AwsCredential;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use secrecy::SecretString;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Found};
use super::config;
use super::log::log_of;
use crate::lake::{Answer, Folder, Http, Lake, Page, Vending, Vends, encoded, life};
use crate::stores::{Given, Location};

/// The tables of one catalog of a server.
pub(super) struct Unity {
    calls: Arc<Calls>,
    /// Reads with the keys that are configured.
    lake: Arc<Lake>,
    /// Reads with the keys that the server gives, where none are configured: by the name of the table, and where it is.
    vending: Option<Vending>,
}

impl fmt::Debug for Unity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unity({}, {:?})", self.calls.root, self.lake)
    }
}

impl Unity {
    /// A location, read by `lake`, whose tables a server knows, which is asked when it is needed. Errors: `Internal`.
    pub(super) fn new(catalog: &str, location: &Location, lake: Arc<Lake>, config: config::Unity) -> Result<Self> {
        let http = Http::new(Place::Key(format!("catalogs.{catalog}.uri")), "token")?;
        let vending = Vending::new(catalog, location, &lake, &http);
        let config::Unity { uri, warehouse, token } = config;
        let calls = Calls { http, token, root: format!("{uri}/api/2.1/unity-catalog"), warehouse };
        Ok(Self { calls: Arc::new(calls), lake, vending })
    }
}

#[async_trait]
impl Catalog for Unity {
    async fn ping(&self) -> Result<()> {
        let Calls { http, warehouse, .. } = &*self.calls;
        let Named { name } = http.within(self.calls.get(format!("catalogs/{}", encoded(warehouse)))).await?;
        if name == *warehouse {
            return Ok(());
        }
        // Its tables would be of another catalog than the one that is meant.
        let error = Error::invalid(format!("the catalog server calls the catalog \"{warehouse}\" \"{name}\""));
        Err(http.at(error.with_hint("set warehouse to that")))
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let address = format!("schemas?catalog_name={}", encoded(&self.calls.warehouse));
        let listed: Vec<Named> = self.calls.listed(&address).await?;
        let names = listed.into_iter().map(|schema| schema.name);
        let names: BTreeSet<String> = names.filter(|name| is_part(name) && name != information_schema::NAME).collect();
        Ok(names.into_iter().collect())
    }

    async fn tables(&self, schema: &str) -> Result<Vec<String>> {
        let absent = || Error::not_found(format!("schema \"{schema}\" does not exist"));
        if !is_part(schema) {
            return Err(absent());
        }
        let address = format!("tables?catalog_name={}&schema_name={}", encoded(&self.calls.warehouse), encoded(schema));
        let listed = self.calls.listed::<Table>(&address).await;
        let listed = listed.map_err(|error| if error.kind() == Kind::NotFound { absent() } else { error })?;
        let own = listed.into_iter().filter(|table| table.is_in(&self.calls.warehouse, schema));
        let read = own.filter(|table| table.is_not_read().is_none()).map(|table| table.name);
        let names: BTreeSet<String> = read.filter(|name| is_table(name)).collect();
        Ok(names.into_iter().collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        if !is_part(schema) || !is_table(table) {
            return Ok(None);
        }
        let Some(known) = self.calls.table(schema, table).await? else { return Ok(None) };
        if let Some(why) = known.is_not_read() {
            let error = Error::unsupported(format!("the table \"{table}\" is not read: {why}"));
            return Err(self.calls.http.at(error));
        }
        let location = known.storage_location.ok_or_else(|| {
            self.calls.http.at(Error::data(format!("the catalog server does not say where the table \"{table}\" is")))
        })?;
        let folder = self.lake.inside(&format!("{}/", location.trim_end_matches('/')))?;
        self.lake.store.stays_within(&log_of(&folder)).await?;
        let lake = match &self.vending {
            Some(vending) => {
                let key = format!("{schema}.{table}\0{location}");
                let asks = Asks { calls: Arc::clone(&self.calls), schema: schema.to_owned(), table: table.to_owned() };
                let opened = vending.open(&key, None, None, asks).await?;
                Arc::clone(&opened.lake)
            }
            None => Arc::clone(&self.lake),
        };
        Ok(Some(Found { lake, folder }))
    }

    fn written(&self) -> Result<&Folder> {
        Err(Error::unsupported("tables that Unity Catalog knows are read, and not written")
            .with_hint("write them by a catalog of kind \"delta\" whose location is the folder above them"))
    }
}

/// Whether this can be one of the names that stand with stops between them.
fn is_part(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '/'])
}

/// The same of a table, whose name says by itself that it is meant as it is now.
fn is_table(name: &str) -> bool {
    is_part(name) && !name.contains(['@', '$'])
}

/// What is asked of a server.
#[derive(Debug)]
struct Calls {
    http: Http,
    token: Option<SecretString>,
    /// What all addresses begin with.
    root: String,
    /// The catalog that is meant.
    warehouse: String,
}

#[derive(Deserialize)]
struct Listed<T> {
    /// Some servers leave out what is empty.
    #[serde(rename = "schemas", alias = "tables")]
    listed: Option<Vec<T>>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// A table as the server has it now (`TableInfo`). Of its columns only what is hidden in them is heeded: the log knows better.
#[derive(Deserialize)]
struct Table {
    catalog_name: Option<String>,
    schema_name: Option<String>,
    name: String,
    table_type: Option<String>,
    data_source_format: Option<String>,
    storage_location: Option<String>,
    table_id: Option<String>,
    row_filter: Option<IgnoredAny>,
    columns: Option<Vec<Column>>,
}

#[derive(Deserialize)]
struct Column {
    mask: Option<IgnoredAny>,
}

impl Table {
    /// Whether it is listed in a schema of just this name.
    fn is_in(&self, catalog: &str, schema: &str) -> bool {
        self.catalog_name.as_deref() == Some(catalog) && self.schema_name.as_deref() == Some(schema)
    }

    /// Why the files of its location are not its rows for everybody; none where they are.
    fn is_not_read(&self) -> Option<String> {
        let kind = self.table_type.as_deref().unwrap_or("nothing");
        if !matches!(kind, "MANAGED" | "EXTERNAL") {
            return Some(format!("for the catalog server it is {kind}, and those of MANAGED and EXTERNAL are read"));
        }
        let format = self.data_source_format.as_deref().unwrap_or("nothing");
        if format != "DELTA" {
            return Some(format!("its format is {format}, and those of DELTA are read"));
        }
        let is_masked = self.columns.iter().flatten().any(|column| column.mask.is_some());
        let is_hidden = self.row_filter.is_some() || is_masked;
        is_hidden.then(|| "the catalog server hides a part of it, which its files do not".to_owned())
    }
}

/// What keys are for (`GenerateTemporaryTableCredential`).
#[derive(Serialize)]
struct Wanted {
    table_id: String,
    operation: &'static str,
}

/// Keys of the store (`TemporaryCredentials`).
#[derive(Deserialize)]
struct Credentials {
    aws_temp_credentials: Option<AwsKeys>,
    /// In milliseconds since 1970.
    expiration_time: Option<u64>,
}

#[derive(Deserialize)]
struct AwsKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Credentials {
    /// Errors: `Unsupported` where they are not for S3.
    fn given(self) -> Result<Given<AwsCredential>> {
        let Some(AwsKeys { access_key_id, secret_access_key, session_token }) = self.aws_temp_credentials else {
            return Err(Error::unsupported("the catalog server gives no keys of S3 for this table")
                .with_hint("set access_key_id and secret_access_key"));
        };
        let token = session_token.filter(|token| !token.is_empty());
        let value = AwsCredential { key_id: access_key_id, secret_key: secret_access_key, token };
        Ok(Given { value, life: self.expiration_time.map(life) })
    }
}

impl Calls {
    /// All that is on the pages of a list, whose address has parameters.
    async fn listed<T: DeserializeOwned + Send + 'static>(&self, address: &str) -> Result<Vec<T>> {
        let page = |token: String| async move {
            let next = if token.is_empty() { String::new() } else { format!("&page_token={}", encoded(&token)) };
            // As many on a page as the server likes.
            let answer = self.send(format!("{address}&max_results=0{next}")).await?;
            let bytes = answer.body.len();
            let Listed { listed, next_page_token } = self.http.understood(answer, self.token.as_ref()).await?;
            Ok::<_, Error>(Page { listed: listed.unwrap_or_default(), next: next_page_token, bytes })
        };
        self.http.pages(page).await
    }

    /// A table by its name in a schema; none where it is not there.
    async fn table(&self, schema: &str, name: &str) -> Result<Option<Table>> {
        let whole = format!("{}.{schema}.{name}", self.warehouse);
        match self.http.within(self.get::<Table>(format!("tables/{}", encoded(&whole)))).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            // A server may heed no case; access rules are about names as they are listed.
            table => Ok(Some(table?).filter(|table| table.is_in(&self.warehouse, schema) && table.name == name)),
        }
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, address: String) -> Result<T> {
        let answer = self.send(address).await?;
        self.http.understood(answer, self.token.as_ref()).await
    }

    async fn send(&self, address: String) -> Result<Answer> {
        let url = self.http.url(&format!("{}/{address}", self.root))?;
        self.http.send_with(self.http.client().get(url), self.token.as_ref()).await
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(&self, request: RequestBuilder) -> Result<T> {
        let answer = self.http.send_with(request, self.token.as_ref()).await?;
        self.http.understood(answer, self.token.as_ref()).await
    }
}

/// Asks for the keys of one table, by its name: there may be another of this name by now, and who reads the old one has it no more.
#[derive(Debug)]
struct Asks {
    calls: Arc<Calls>,
    schema: String,
    table: String,
}

#[async_trait]
impl Vends for Asks {
    async fn vend(&self) -> Result<Given<AwsCredential>> {
        let Calls { http, root, .. } = &*self.calls;
        let table = self.calls.table(&self.schema, &self.table).await?;
        let absent = || http.at(Error::not_found("the catalog server does not have this table any more"));
        let table_id = table.and_then(|table| table.table_id).ok_or_else(absent)?;
        let body = serde_json::to_string(&Wanted { table_id, operation: "READ" });
        let body = body.map_err(|cause| Error::internal("the request has no JSON").caused_by(cause))?;
        let request = http.client().post(http.url(&format!("{root}/temporary-table-credentials"))?);
        let credentials: Credentials = self.calls.ask(request.header(CONTENT_TYPE, "application/json").body(body)).await?;
        credentials.given().map_err(|error| http.at(error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as LocalPath;

    use serde_json::{Value, json};

    use super::*;
    use crate::lake::{Reply, served};
    use crate::stores::Store;

    /// A catalog over a folder.
    async fn catalog(folder: &LocalPath, answers: &'static [Reply]) -> Unity {
        let location = Location::Folder(folder.to_owned());
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        let config = config::Unity { uri: served(answers).await, warehouse: "w 1".to_owned(), token: Some("hunter2".into()) };
        Unity::new("lake", &location, Arc::new(lake), config).unwrap()
    }

    const SCHEMAS: &str = "GET /api/2.1/unity-catalog/schemas?catalog_name=w%201&max_results=0";

    #[tokio::test]
    async fn lists_have_pages() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(
            folder.path(),
            &[
                ("GET /api/2.1/unity-catalog/catalogs/w%201 ", "200 OK", r#"{"name":"w 1"}"#),
                (
                    "GET /api/2.1/unity-catalog/schemas?catalog_name=w%201&max_results=0 ",
                    "200 OK",
                    r#"{"schemas":[{"name":"shop"},{"name":"information_schema"}],"next_page_token":"a/b"}"#,
                ),
                (
                    "GET /api/2.1/unity-catalog/schemas?catalog_name=w%201&max_results=0&page_token=a%2Fb ",
                    "200 OK",
                    r#"{"schemas":[{"name":"空"}],"next_page_token":""}"#,
                ),
                (
                    "GET /api/2.1/unity-catalog/tables?catalog_name=w%201&schema_name=shop&max_results=0 ",
                    "200 OK",
                    r#"{"tables":[
                        {"catalog_name":"w 1","schema_name":"shop","name":"b","table_type":"MANAGED","data_source_format":"DELTA","columns":[{"name":"x"}]},
                        {"catalog_name":"w 1","schema_name":"shop","name":"a@1","table_type":"MANAGED","data_source_format":"DELTA"},
                        {"catalog_name":"w 1","schema_name":"shop","name":"text","table_type":"EXTERNAL","data_source_format":"CSV"},
                        {"catalog_name":"w 1","schema_name":"shop","name":"seen","table_type":"VIEW"},
                        {"catalog_name":"w 1","schema_name":"Shop","name":"c","table_type":"MANAGED","data_source_format":"DELTA"}]}"#,
                ),
                ("GET /api/2.1/unity-catalog/tables?catalog_name=w%201&schema_name=empty&", "200 OK", "{}"),
                (
                    "GET /api/2.1/unity-catalog/tables?catalog_name=w%201&schema_name=again&",
                    "200 OK",
                    r#"{"tables":[],"next_page_token":"1"}"#,
                ),
            ],
        )
        .await;
        catalog.ping().await.unwrap();
        assert_eq!(catalog.schemas().await.unwrap(), ["shop", "空"]);
        assert_eq!(catalog.tables("shop").await.unwrap(), ["b"]);
        assert!(catalog.tables("empty").await.unwrap().is_empty());
        let refusal = async |schema: &str| catalog.tables(schema).await.unwrap_err();
        insta::assert_snapshot!(refusal("nowhere").await, @r#"schema "nowhere" does not exist"#);
        insta::assert_snapshot!(refusal("a.b").await, @r#"schema "a.b" does not exist"#);
        insta::assert_snapshot!(refusal("again").await, @"catalogs.lake.uri: the catalog server gives a page of a list again, and so without end");
    }

    #[tokio::test]
    async fn a_server_that_refuses_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let answers: &[Reply] =
            &[(SCHEMAS, "401 Unauthorized", r#"{"error_code":"UNAUTHENTICATED","message":"the token has ended"}"#)];
        let catalog = catalog(folder.path(), answers).await;
        insta::assert_snapshot!(catalog.schemas().await.unwrap_err(), @"catalogs.lake.uri: the catalog server does not know who asks: the token has ended; check token");
        insta::assert_snapshot!(catalog.ping().await.unwrap_err(), @"catalogs.lake.uri: the catalog server does not have this; check uri and warehouse");
    }

    /// It is out of the location, which is seen only where the name is right.
    const OUT: &str = r#"{"catalog_name":"w 1","schema_name":"shop","name":"out","table_type":"EXTERNAL",
        "data_source_format":"DELTA","storage_location":"file:///elsewhere"}"#;

    #[tokio::test]
    async fn a_table_is_within_the_location() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(
            folder.path(),
            &[
                ("GET /api/2.1/unity-catalog/tables/w%201.shop.out ", "200 OK", OUT),
                (
                    "GET /api/2.1/unity-catalog/tables/w%201.shop.nowhere ",
                    "200 OK",
                    r#"{"catalog_name":"w 1","schema_name":"shop","name":"nowhere","table_type":"EXTERNAL","data_source_format":"DELTA"}"#,
                ),
            ],
        )
        .await;
        for (schema, table) in [("shop", "nothing"), ("shop", ".."), ("shop", ""), ("a.b", "out"), ("shop", "a/b")] {
            assert!(catalog.find(schema, table).await.unwrap().is_none(), "{schema}.{table}");
        }
        assert_eq!(catalog.find("shop", "out").await.unwrap_err().kind(), Kind::Denied);
        insta::assert_snapshot!(catalog.find("shop", "nowhere").await.unwrap_err(), @r#"catalogs.lake.uri: the catalog server does not say where the table "nowhere" is"#);
    }

    /// Its server heeds no case, and a name without these of its schema and catalog could be of any.
    #[tokio::test]
    async fn a_table_has_the_name_alone_that_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(
            folder.path(),
            &[
                ("GET /api/2.1/unity-catalog/catalogs/w%201 ", "200 OK", r#"{"name":"W 1"}"#),
                ("GET /api/2.1/unity-catalog/tables/w%201.shop.out ", "200 OK", OUT),
                ("GET /api/2.1/unity-catalog/tables/w%201.shop.Out ", "200 OK", OUT),
                ("GET /api/2.1/unity-catalog/tables/w%201.Shop.out ", "200 OK", OUT),
                (
                    "GET /api/2.1/unity-catalog/tables/w%201.shop.any ",
                    "200 OK",
                    r#"{"name":"any","table_type":"EXTERNAL","data_source_format":"DELTA","storage_location":"file:///elsewhere"}"#,
                ),
            ],
        )
        .await;
        for (schema, table) in [("shop", "Out"), ("Shop", "out"), ("shop", "any")] {
            assert!(catalog.find(schema, table).await.unwrap().is_none(), "{schema}.{table}");
        }
        assert_eq!(catalog.find("shop", "out").await.unwrap_err().kind(), Kind::Denied);
        insta::assert_snapshot!(catalog.ping().await.unwrap_err(), @r#"catalogs.lake.uri: the catalog server calls the catalog "w 1" "W 1"; set warehouse to that"#);
    }

    #[test]
    fn what_is_no_table_of_files_is_not_read() {
        let why = |table: Value| serde_json::from_value::<Table>(table).unwrap().is_not_read().unwrap_or_default();
        let delta = |more: Value| {
            let mut table = json!({ "name": "t", "table_type": "MANAGED", "data_source_format": "DELTA" });
            table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            why(table)
        };
        assert_eq!(delta(json!({ "row_filter": null, "columns": [{ "mask": null }] })), "");
        insta::assert_snapshot!(delta(json!({ "table_type": "VIEW" })), @"for the catalog server it is VIEW, and those of MANAGED and EXTERNAL are read");
        insta::assert_snapshot!(delta(json!({ "data_source_format": "ICEBERG" })), @"its format is ICEBERG, and those of DELTA are read");
        let by = json!({ "function_name": "f" });
        for hides in [json!({ "row_filter": by }), json!({ "columns": [{}, { "mask": by }] })] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(delta(hides), @"the catalog server hides a part of it, which its files do not");
            }
        }
    }

    #[test]
    fn keys_are_those_of_s3() {
        let given = |credentials: Value| serde_json::from_value::<Credentials>(credentials).unwrap().given();
        let keys = json!({ "access_key_id": "i", "secret_access_key": "s", "session_token": "" });
        let given_keys = given(json!({ "aws_temp_credentials": keys, "expiration_time": 1 })).unwrap();
        assert_eq!((given_keys.value.key_id.as_str(), given_keys.value.token.as_deref()), ("i", None));
        assert_eq!(given_keys.life, Some(std::time::Duration::ZERO));
        let other = given(json!({ "gcp_oauth_token": { "oauth_token": "hunter2" } })).err().expect("a refusal");
        insta::assert_snapshot!(other, @"the catalog server gives no keys of S3 for this table; set access_key_id and secret_access_key");
    }
}
