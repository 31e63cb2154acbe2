//! Tables that a server knows (Iceberg's REST OpenAPI), which may give the keys of the store for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Place, Result, TableEntry, information_schema};
use object_store::aws::AwsCredential;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use super::token::Tokens;
use super::vended::{Loaded, Vended};
use super::{Catalog, Current, Found, Outcome};
use crate::iceberg::append::Change;
use crate::iceberg::config;
use crate::iceberg::table::Table;
use crate::lake::{Answer, Http, Lake, MOST_NAMES, Page, Vending, Vends, encoded};
use crate::stores::{Given, Location, Store};

/// How many levels of namespaces are looked into.
const DEEPEST: usize = 16;
/// How many namespaces are looked into side by side.
const AT_ONCE: usize = 8;
/// What stands between the levels of a namespace where the server says nothing else.
const SEPARATOR: &str = "%1F";

/// The tables of one warehouse.
pub(in crate::iceberg) struct Rest {
    calls: Arc<Calls>,
    /// Read with the keys that are configured, or else with those of this machine.
    lake: Arc<Lake>,
    /// Read with the keys that the catalog gives, where none are configured: by the names of the table and the folder of its metadata.
    vending: Option<Vending>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rest({}, {:?})", self.calls.uri, self.lake)
    }
}

impl Rest {
    /// Opens a location whose tables a server knows, which is asked when it is needed. Errors: `NotFound` for a local folder that is
    /// not there.
    pub(in crate::iceberg) fn open(catalog: &str, location: &Location, config: config::Rest) -> Result<Self> {
        let lake = Arc::new(Lake::new(Arc::new(Store::open(catalog, location)?), location));
        let http = Http::new(Place::Key(format!("catalogs.{catalog}.uri")), "credential or token")?;
        let vending = Vending::new(catalog, location, &lake, &http);
        let config::Rest { uri, warehouse, asks } = config;
        let calls = Calls { http, tokens: asks.into(), uri, warehouse, settings: OnceCell::new() };
        Ok(Self { calls: Arc::new(calls), lake, vending })
    }

    /// The namespaces directly in another, or the outermost ones.
    async fn children(&self, parent: Vec<String>) -> Result<Vec<Vec<String>>> {
        let settings = self.calls.settings().await?;
        let address = match parent.is_empty() {
            true => format!("{}/namespaces", settings.root),
            false => format!("{}/namespaces?parent={}", settings.root, settings.namespace(&parent)),
        };
        let listed = match self.calls.listed::<Vec<String>>(&address).await {
            // It has gone meanwhile, or may not be looked into, or the server knows no namespaces in others.
            Err(error) if !parent.is_empty() && hides(error.kind()) => Vec::new(),
            listed => listed?,
        };
        let deeper = listed.into_iter().filter(|names| names.len() > parent.len() && names.starts_with(&parent));
        let children = deeper.map(|mut names| {
            names.truncate(parent.len() + 1);
            names
        });
        Ok(children.filter(|names| names.last().is_some_and(|name| is_level(name))).collect())
    }
}

#[async_trait]
impl Catalog for Rest {
    async fn ping(&self) -> Result<()> {
        self.calls.http.within(self.calls.configured()).await.map(|_| ())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let mut schemas = BTreeSet::new();
        let mut level = vec![Vec::new()];
        for _ in 0..DEEPEST {
            let children = level.into_iter().map(|parent| self.children(parent));
            let children: Vec<Vec<Vec<String>>> = stream::iter(children).buffered(AT_ONCE).try_collect().await?;
            level = children.into_iter().flatten().collect();
            schemas.extend(level.iter().map(|names| names.join(".")).filter(|name| name != information_schema::NAME));
            if schemas.len() > MOST_NAMES {
                return Err(self.calls.http.too_many());
            }
            if level.is_empty() {
                break;
            }
        }
        Ok(schemas.into_iter().collect())
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        let absent = || Error::not_found(format!("schema \"{schema}\" does not exist"));
        let namespace = levels(schema).ok_or_else(absent)?;
        let settings = self.calls.settings().await?;
        let address = format!("{}/namespaces/{}/tables", settings.root, settings.namespace(&namespace));
        let listed = self.calls.listed::<Identifier>(&address).await;
        let listed = listed.map_err(|error| if error.kind() == Kind::NotFound { absent() } else { error })?;
        let names: BTreeSet<String> = listed.into_iter().map(|table| table.name).filter(|name| is_table(name)).collect();
        Ok(names.into_iter().map(TableEntry::table).collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let Some(namespace) = levels(schema).filter(|_| is_table(table)) else { return Ok(None) };
        let Some(loaded) = self.calls.table(&namespace, table, self.vending.is_some()).await? else { return Ok(None) };
        let location = loaded.location().map_err(|error| self.calls.http.at(error))?.to_owned();
        let path = self.lake.inside(&location)?;
        let vended = match &self.vending {
            Some(vending) => loaded.vended().map_err(|error| self.calls.http.at(error))?.map(|vended| (vending, vended)),
            None => None,
        };
        let lake = match vended {
            Some((vending, Vended { keys, endpoint, region })) => {
                let folder = location.rsplit_once('/').map_or("", |(folder, _)| folder);
                let key = format!("{}\0{table}\0{folder}", namespace.join("."));
                let vends = Loads { calls: Arc::clone(&self.calls), namespace, table: table.to_owned() };
                let opened = vending.open(&key, endpoint, region, vends).await?;
                opened.hold(keys).await;
                Arc::clone(&opened.lake)
            }
            None => Arc::clone(&self.lake),
        };
        Ok(Some(Found { lake, current: Current { path, state: location } }))
    }

    fn check_commit(&self, _found: &Found, _table: &Table) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, schema: &str, table: &str, _found: &Found, change: &Change) -> Result<Outcome> {
        let namespace = levels(schema).ok_or_else(|| Error::internal("a table of a schema that there is not"))?;
        let url = self.calls.table_address(&namespace, table).await?;
        let body = serde_json::json!({
            "identifier": { "namespace": namespace, "name": table },
            "requirements": change.requirements(),
            "updates": change.updates(),
        });
        match self.calls.http.within(self.calls.post(&url, &body)).await {
            // The call may have broken off before the answer came.
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Data) => Ok(Outcome::Unknown(error)),
            Err(error) => Err(error),
            Ok((answer, error)) => became(answer.status.as_u16(), error),
        }
    }
}

/// What came of a commit that was answered so. Errors: where nothing was changed.
fn became(status: u16, error: Option<Error>) -> Result<Outcome> {
    match (status, error) {
        (409, _) => Ok(Outcome::Conflict),
        // Of most of these the specification says that nobody knows, and 503 is also what stands before a server says for it.
        (500 | 502.., Some(error)) => Ok(Outcome::Unknown(error)),
        (_, Some(error)) => Err(error),
        (_, None) => Ok(Outcome::Done),
    }
}

/// Whether an error says of a namespace that there is none in it for us.
fn hides(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Denied | Kind::Invalid | Kind::Unsupported)
}

/// The levels of the namespace that a schema is, where it can be one.
fn levels(schema: &str) -> Option<Vec<String>> {
    let levels = schema.split('.').map(|level| is_level(level).then(|| level.to_owned()));
    levels.collect()
}

/// A level with a stop in its name could not be told from two.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains('.')
}

/// Whether a table of this name can be asked for: no address has a part that is called as a folder or the one above it.
fn is_table(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['@', '$'])
}

/// What is asked of a server.
#[derive(Debug)]
struct Calls {
    http: Http,
    tokens: Tokens,
    uri: String,
    warehouse: Option<String>,
    /// Asked for at first, and again as long as that fails.
    settings: OnceCell<Settings>,
}

/// What a server wants of those who ask it.
#[derive(Debug)]
struct Settings {
    /// What all addresses but those of settings and tokens begin with.
    root: String,
    /// What stands between the levels of a namespace, as it is sent.
    separator: String,
}

impl Settings {
    fn namespace(&self, levels: &[String]) -> String {
        levels.iter().map(|level| encoded(level)).collect::<Vec<String>>().join(&self.separator)
    }
}

/// What it says of them. Addresses and tokens that stand there are not heeded.
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    overrides: BTreeMap<String, Value>,
    #[serde(default)]
    defaults: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Listed<T> {
    #[serde(rename = "namespaces", alias = "identifiers")]
    listed: Vec<T>,
    #[serde(rename = "next-page-token")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    name: String,
}

impl Calls {
    async fn settings(&self) -> Result<&Settings> {
        self.http.within(self.settings.get_or_try_init(|| self.configured())).await
    }

    /// What the server says now of how it is to be asked.
    async fn configured(&self) -> Result<Settings> {
        let warehouse = self.warehouse.as_deref().map(|name| format!("?warehouse={}", encoded(name))).unwrap_or_default();
        let url = self.http.url(&format!("{}/v1/config{warehouse}", self.uri))?;
        let Configuration { overrides, defaults } = self.get(&url, false).await?;
        let said = |name: &str| overrides.get(name).or_else(|| defaults.get(name))?.as_str();
        let prefix = said("prefix").unwrap_or_default().trim_matches('/');
        let separator = said("namespace-separator").unwrap_or(SEPARATOR);
        let leads_elsewhere = prefix.contains(['?', '#', '\\']) || prefix.split('/').any(|part| matches!(part, "." | ".."));
        if leads_elsewhere || separator.is_empty() || separator.contains(['/', '?', '#', '&', '\\']) {
            let error = Error::data("the catalog server wants a prefix or a separator that no address can have");
            return Err(self.http.at(error));
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Settings { root: format!("{}/v1{slash}{prefix}", self.uri), separator: separator.to_owned() })
    }

    /// All that is on the pages of a list.
    async fn listed<T: DeserializeOwned + Send + 'static>(&self, address: &str) -> Result<Vec<T>> {
        let joint = if address.contains('?') { '&' } else { '?' };
        let page = |token: String| async move {
            let url = self.http.url(&format!("{address}{joint}pageToken={}", encoded(&token)))?;
            let Listed { listed, next } = self.get(&url, false).await?;
            Ok::<_, Error>(Page { listed, next })
        };
        self.http.pages(page).await
    }

    /// A table as it is now, with keys of the store for it where they are wanted; none where it is not there.
    async fn table(&self, namespace: &[String], table: &str, wants_keys: bool) -> Result<Option<Loaded>> {
        let url = self.table_address(namespace, table).await?;
        match self.http.within(self.get(&url, wants_keys)).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    async fn table_address(&self, namespace: &[String], table: &str) -> Result<Url> {
        let settings = self.settings().await?;
        let (namespace, table) = (settings.namespace(namespace), encoded(table));
        self.http.url(&format!("{}/namespaces/{namespace}/tables/{table}", settings.root))
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, url: &Url, wants_keys: bool) -> Result<T> {
        let request = || {
            let request = self.http.client().get(url.clone());
            if wants_keys { request.header("x-iceberg-access-delegation", "vended-credentials") } else { request }
        };
        match self.call(request).await? {
            (answer, None) => self.http.parsed(answer.body).await,
            (_, Some(error)) => Err(error),
        }
    }

    /// The answer to something that is to be done, and the error that it is.
    async fn post(&self, url: &Url, body: &Value) -> Result<(Answer, Option<Error>)> {
        let body = serde_json::to_vec(body).map_err(|cause| Error::internal("a call is no JSON").caused_by(cause))?;
        self.call(|| self.http.client().post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())).await
    }

    /// Asks once, and once more with another token where the first one holds no more. Gives the error that the answer is with it.
    async fn call(&self, request: impl Fn() -> RequestBuilder + Send + Sync) -> Result<(Answer, Option<Error>)> {
        let mut token = self.tokens.get(&self.http).await?;
        let mut answer = self.http.send_with(request(), token.as_deref()).await?;
        if matches!(answer.status.as_u16(), 401 | 419)
            && let Some(refused) = &token
            && self.tokens.forget(refused).await
        {
            token = self.tokens.get(&self.http).await?;
            answer = self.http.send_with(request(), token.as_deref()).await?;
        }
        let secret = token.as_ref().map(|token| token.expose_secret());
        let error = (!answer.status.is_success()).then(|| self.http.refusal(&answer, secret.as_slice()));
        Ok((answer, error))
    }
}

/// The keys that come with one table whenever it is asked for.
#[derive(Debug)]
struct Loads {
    calls: Arc<Calls>,
    namespace: Vec<String>,
    table: String,
}

#[async_trait]
impl Vends for Loads {
    async fn vend(&self) -> Result<Given<AwsCredential>> {
        let loaded = self.calls.table(&self.namespace, &self.table, true).await?;
        let vended = loaded.map(|loaded| loaded.vended()).transpose().map_err(|error| self.calls.http.at(error))?.flatten();
        let none = || Error::unauthenticated("the catalog server gives no keys for this table any more");
        vended.map(|vended| vended.keys).ok_or_else(|| self.calls.http.at(none()))
    }
}

#[cfg(test)]
mod tests {
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
}
