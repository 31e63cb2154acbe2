//! Tables of a bucket that are read with keys which a catalog server gives for each of them.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use nexus_flight_catalog::{Error, Result};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::path::Path;
use url::Url;

use super::access::Lake;
use super::http::Http;
use crate::stores::{Access, Given, Location, Renewed, Store, no_keys};

/// How many tables are open with keys of their own.
const MOST_STORES: u64 = 256;

/// Gives the keys of the store for one table.
#[async_trait]
pub(crate) trait Vends: Debug + Send + Sync {
    /// Keys that hold from now on. Errors: `Unauthenticated` where there are none any more, and those of calls.
    async fn vend(&self) -> Result<Given<AwsCredential>>;
}

/// The tables of one catalog, as far as they are open.
pub(crate) struct Vending {
    catalog: String,
    bucket: String,
    prefix: Path,
    endpoint: Option<String>,
    region: Option<String>,
    allow_http: bool,
    lake: Arc<Lake>,
    http: Http,
    /// By what tells the table, and where the store is.
    opened: moka::future::Cache<String, Arc<Opened>>,
}

/// A table that is read with keys of its own.
pub(crate) struct Opened {
    pub(crate) lake: Arc<Lake>,
    keys: Arc<Keys>,
}

impl Opened {
    /// Takes keys that were given without being asked for.
    pub(crate) async fn hold(&self, keys: Given<AwsCredential>) {
        self.keys.held.set(keys).await;
    }
}

impl Debug for Vending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vending({:?})", self.lake)
    }
}

impl Vending {
    /// Of a location whose files `lake` reads without such keys; none where it is no bucket, or its keys are configured.
    pub(crate) fn new(catalog: &str, location: &Location, lake: &Arc<Lake>, http: &Http) -> Option<Self> {
        let Location::Bucket { bucket, prefix, access } = location else { return None };
        access.access_key_id.is_none().then(|| Self {
            catalog: catalog.to_owned(),
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            endpoint: access.endpoint.clone(),
            region: access.region.clone(),
            allow_http: access.allow_http,
            lake: Arc::clone(lake),
            http: http.clone(),
            opened: moka::future::Cache::new(MOST_STORES),
        })
    }

    /// A table by what tells it and its place from all others; `vends` gives its keys. An endpoint and a region that the server names
    /// count where none are configured. Errors: `Denied` for an endpoint that is not trusted.
    pub(crate) async fn open(
        &self,
        table: &str,
        endpoint: Option<String>,
        region: Option<String>,
        vends: impl Vends + 'static,
    ) -> Result<Arc<Opened>> {
        let endpoint = match (&self.endpoint, endpoint) {
            (Some(configured), _) => Some(configured.clone()),
            (None, Some(given)) => Some(self.trusted(given)?),
            (None, None) => None,
        };
        let region = self.region.clone().or(region);
        let (at, within) = (endpoint.as_deref().unwrap_or_default(), region.as_deref().unwrap_or_default());
        let key = format!("{table}\0{at}\0{within}");
        if let Some(opened) = self.opened.get(&key).await {
            return Ok(opened);
        }
        let keys = Arc::new(Keys { vends: Box::new(vends), http: self.http.clone(), held: Renewed::new() });
        let (access_key_id, secret_access_key, session_token) = (None, None, None);
        let allow_http = self.allow_http;
        let access = Access { endpoint, region, access_key_id, secret_access_key, session_token, allow_http };
        let location = Location::Bucket { bucket: self.bucket.clone(), prefix: self.prefix.clone(), access };
        let given: AwsCredentialProvider = keys.clone();
        let store = Store::with_credentials(&self.catalog, &location, given)?;
        let opened = Arc::new(Opened { lake: Arc::new(self.lake.through(Arc::new(store), &key)), keys });
        self.opened.insert(key, Arc::clone(&opened)).await;
        Ok(opened)
    }

    /// An address of the store that the server has chosen. Errors: `Denied` where what is read there could be changed on the way.
    fn trusted(&self, address: String) -> Result<String> {
        let is_safe = Url::parse(&address).is_ok_and(|url| {
            let scheme = url.scheme() == "https" || (url.scheme() == "http" && self.allow_http);
            scheme && url.has_host() && url.username().is_empty() && url.password().is_none()
        });
        if is_safe {
            return Ok(address);
        }
        let error = Error::denied("the catalog server names an address of the store that is not https");
        Err(self.http.at(error.with_hint("set endpoint to the address that is meant")))
    }
}

/// The keys for one table, for which the server is asked again while they are in use.
#[derive(Debug)]
struct Keys {
    vends: Box<dyn Vends>,
    http: Http,
    held: Renewed<AwsCredential>,
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.http.within(self.held.get(self.vends.vend())).await.map_err(no_keys)
    }
}

/// How long it is until a time in milliseconds since 1970.
pub(crate) fn life(ends: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(ends).saturating_sub(now)
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Place;

    use super::*;

    /// Gives nothing.
    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Vends for Nobody {
        async fn vend(&self) -> Result<Given<AwsCredential>> {
            Err(Error::unauthenticated("no keys"))
        }
    }

    fn vending(access_key_id: Option<String>, allow_http: bool) -> Option<Vending> {
        let (endpoint, session_token, region) = (None, None, Some("r".to_owned()));
        let secret_access_key = access_key_id.clone().map(Into::into);
        let access = Access { endpoint, region, access_key_id, secret_access_key, session_token, allow_http };
        let location = Location::Bucket { bucket: "b".to_owned(), prefix: Path::default(), access };
        let store = Store::open("lake", &location).unwrap();
        let http = Http::new(Place::Key("catalogs.lake.uri".to_owned()), "token").unwrap();
        Vending::new("lake", &location, &Arc::new(Lake::new(Arc::new(store), &location)), &http)
    }

    #[tokio::test]
    async fn keys_are_given_where_none_are_configured() {
        assert!(vending(Some("id".to_owned()), false).is_none());
        let vending = vending(None, false).unwrap();
        let opened = vending.open("t", None, None, Nobody).await.unwrap();
        let again = vending.open("t", None, Some("other".to_owned()), Nobody).await.unwrap();
        assert!(Arc::ptr_eq(&opened, &again));
        assert!(!Arc::ptr_eq(&opened, &vending.open("u", None, None, Nobody).await.unwrap()));
        assert!(opened.keys.get_credential().await.unwrap_err().to_string().contains("no keys"));
        let keys = AwsCredential { key_id: "id".to_owned(), secret_key: "s".to_owned(), token: None };
        opened.hold(Given { value: keys, life: None }).await;
        assert_eq!(again.keys.get_credential().await.unwrap().key_id, "id");
    }

    #[tokio::test]
    async fn a_store_that_the_server_names_is_trusted_by_https() {
        let vending = |allow_http| vending(None, allow_http).unwrap();
        for trusted in [vending(false).trusted("https://h:1".to_owned()), vending(true).trusted("http://h".to_owned())] {
            assert!(trusted.is_ok());
        }
        for address in ["http://h", "https://me:x@h", "file:///h", "h"] {
            let refused = vending(false).trusted(address.to_owned()).unwrap_err();
            insta::allow_duplicates! {
                insta::assert_snapshot!(refused, @"catalogs.lake.uri: the catalog server names an address of the store that is not https; set endpoint to the address that is meant");
            }
        }
    }
}
