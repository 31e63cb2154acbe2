//! Tables that a server knows (Iceberg's REST OpenAPI), which may give the keys of the store for each of them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use moka::policy::EvictionPolicy;
use nexus_flight_catalog::{Error, Kind, Place, Result, TableEntry, information_schema};
use object_store::aws::AwsCredential;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use secrecy::ExposeSecret;
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
use crate::lake::{Answer, Http, Lake, MOST_NAMES, Page, Vending, Vends, encoded};
use crate::stores::{Given, Location, Store};

/// How many levels of namespaces are looked into.
const DEEPEST: usize = 16;
/// How many namespaces are looked into side by side.
const AT_ONCE: usize = 8;
/// How many tables and namespaces are remembered as listed, and for how long.
const MOST_LISTED: u64 = 10_000;
const LISTED_FOR: Duration = Duration::from_secs(600);
/// What stands between the levels of a namespace where the server says nothing else.
const SEPARATOR: &str = "%1F";

/// The tables of one warehouse.
pub(in crate::iceberg) struct Rest {
    calls: Arc<Calls>,
    /// Read with the keys that are configured, or else with those of this machine.
    lake: Arc<Lake>,
    /// Read with the keys that the catalog gives, where none are configured: by the names of the table and the folder of its metadata.
    vending: Option<Vending>,
    /// Tables that the server has listed lately by just these names: of the namespace, and of the table; without the latter, namespaces.
    listed: moka::future::Cache<(Vec<String>, String), ()>,
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
        let listed = moka::future::Cache::builder()
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(MOST_LISTED)
            .time_to_live(LISTED_FOR)
            .build();
        Ok(Self { calls: Arc::new(calls), lake, vending, listed })
    }

    /// The namespaces directly in another, or the outermost ones.
    async fn children(&self, parent: Vec<String>) -> Result<Vec<Vec<String>>> {
        let address = self.calls.settings().await?.children(&parent);
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
        let children: Vec<Vec<String>> = children.filter(|names| names.last().is_some_and(|name| is_level(name))).collect();
        for namespace in &children {
            self.listed.insert((namespace.clone(), String::new()), ()).await;
        }
        Ok(children)
    }

    /// Whether the server lists a table by just these names. Some heed no case, and one may take a level with a separator in its name for
    /// two; access rules are about names as they are listed.
    async fn is_listed(&self, namespace: &[String], table: &str) -> Result<bool> {
        let name = (namespace.to_vec(), table.to_owned());
        if self.listed.contains_key(&name) {
            return Ok(true);
        }
        let settings = self.calls.settings().await?;
        for depth in 0..namespace.len() {
            let wanted = (namespace[..=depth].to_vec(), String::new());
            if self.listed.contains_key(&wanted) {
                continue;
            }
            let address = settings.children(&namespace[..depth]);
            if !self.calls.lists(&address, |names: &Vec<String>| names.starts_with(&wanted.0)).await? {
                return Ok(false);
            }
            self.listed.insert(wanted, ()).await;
        }
        let is_it = |found: &Identifier| found.name == table && *found.namespace == *namespace;
        let is_listed = self.calls.lists(&settings.tables(namespace), is_it).await?;
        if is_listed {
            self.listed.insert(name, ()).await;
        }
        Ok(is_listed)
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
        let address = self.calls.settings().await?.tables(&namespace);
        let listed = self.calls.listed::<Identifier>(&address).await;
        let listed = listed.map_err(|error| if error.kind() == Kind::NotFound { absent() } else { error })?;
        let own = listed.into_iter().filter(|table| table.namespace == namespace);
        let names: BTreeSet<String> = own.map(|table| table.name).filter(|name| is_table(name)).collect();
        // Who goes through them all then asks for no list again because of each.
        if self.listed.contains_key(&(namespace.clone(), String::new())) {
            for name in &names {
                self.listed.insert((namespace.clone(), name.clone()), ()).await;
            }
        }
        Ok(names.into_iter().map(TableEntry::table).collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let Some(namespace) = levels(schema).filter(|_| is_table(table)) else { return Ok(None) };
        let Some(loaded) = self.calls.table(&namespace, table, self.vending.is_some()).await? else { return Ok(None) };
        if !self.is_listed(&namespace, table).await? {
            return Ok(None);
        }
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

    /// The address of the namespaces directly in another, or of the outermost ones.
    fn children(&self, parent: &[String]) -> String {
        match parent.is_empty() {
            true => format!("{}/namespaces", self.root),
            false => format!("{}/namespaces?parent={}", self.root, self.namespace(parent)),
        }
    }

    /// The address of the tables in a namespace.
    fn tables(&self, namespace: &[String]) -> String {
        format!("{}/namespaces/{}/tables", self.root, self.namespace(namespace))
    }
}

/// What it says of them.
#[derive(Deserialize)]
struct Configuration {
    overrides: Option<Wanted>,
    defaults: Option<Wanted>,
}

/// What is heeded of that: addresses and tokens that stand there are not.
#[derive(Default, Deserialize)]
struct Wanted {
    prefix: Option<String>,
    #[serde(rename = "namespace-separator")]
    separator: Option<String>,
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
    namespace: Vec<String>,
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
        let (overrides, defaults) = (overrides.unwrap_or_default(), defaults.unwrap_or_default());
        let prefix = overrides.prefix.or(defaults.prefix).unwrap_or_default();
        let prefix = prefix.trim_matches('/');
        let separator = overrides.separator.or(defaults.separator).unwrap_or_else(|| SEPARATOR.to_owned());
        let leads_elsewhere = prefix.contains(['?', '#', '\\']) || prefix.split('/').any(|part| matches!(part, "." | ".."));
        if leads_elsewhere || separator.is_empty() || separator.contains(['/', '?', '#', '&', '\\']) {
            let error = Error::data("the catalog server wants a prefix or a separator that no address can have");
            return Err(self.http.at(error));
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Settings { root: format!("{}/v1{slash}{prefix}", self.uri), separator })
    }

    /// All that is on the pages of a list.
    async fn listed<T: DeserializeOwned + Send + 'static>(&self, address: &str) -> Result<Vec<T>> {
        self.http.pages(|token| self.page(address, token)).await
    }

    /// Whether something is on a page of a list, which may be longer than what is shown of one.
    async fn lists<T: DeserializeOwned + Send + 'static>(
        &self,
        address: &str,
        is_it: impl Fn(&T) -> bool + Send + Sync,
    ) -> Result<bool> {
        let mut found = false;
        let look = |page: Vec<T>| {
            found |= page.iter().any(&is_it);
            Ok(found)
        };
        match self.http.turn(|token| self.page(address, token), look).await {
            // Where that is which should have it is not there.
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            turned => turned.map(|()| found),
        }
    }

    /// The page of a list that a token is for.
    async fn page<T: DeserializeOwned + Send + 'static>(&self, address: &str, token: String) -> Result<Page<T>> {
        let joint = if address.contains('?') { '&' } else { '?' };
        let url = self.http.url(&format!("{address}{joint}pageToken={}", encoded(&token)))?;
        let answer = self.answered(&url, false).await?;
        let bytes = answer.body.len();
        let Listed { listed, next } = self.http.parsed(answer.body).await?;
        Ok(Page { listed, next, bytes })
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
        self.http.url(&format!("{}/{}", settings.tables(namespace), encoded(table)))
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, url: &Url, wants_keys: bool) -> Result<T> {
        let answer = self.answered(url, wants_keys).await?;
        self.http.parsed(answer.body).await
    }

    /// What is there. Errors: the one that the answer is.
    async fn answered(&self, url: &Url, wants_keys: bool) -> Result<Answer> {
        let request = || {
            let request = self.http.client().get(url.clone());
            if wants_keys { request.header("x-iceberg-access-delegation", "vended-credentials") } else { request }
        };
        match self.call(request).await? {
            (answer, None) => Ok(answer),
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
        let token = self.tokens.get(&self.http).await?;
        let mut answer = self.http.send_with(request(), token.as_deref()).await?;
        let mut other = None;
        if matches!(answer.status.as_u16(), 401 | 419)
            && let Some(refused) = &token
            && self.tokens.forget(refused).await
        {
            other = self.tokens.get(&self.http).await?;
            answer = self.http.send_with(request(), other.as_deref()).await?;
        }
        // The answer to the other one may still be about the first.
        let secrets: Vec<&str> = token.iter().chain(&other).map(|token| token.expose_secret()).collect();
        let error = (!answer.status.is_success()).then(|| self.http.refusal(&answer, &secrets));
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
mod tests;
