//! The object stores of one statement: what a source registers for it, and nothing from outside.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::object_store::ObjectStore;
use nexus_flight_catalog::Error;
use url::Url;

/// A registry that is born empty and dies with its statement. No address that a client could write is ever in it.
#[derive(Debug, Default)]
pub struct StatementStores {
    stores: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
}

fn key(url: &Url) -> String {
    url[url::Position::BeforeScheme..url::Position::BeforePath].to_owned()
}

impl ObjectStoreRegistry for StatementStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key(url), store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let removed = self.stores.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&key(url));
        removed.ok_or_else(|| absent(url))
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let stores = self.stores.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        stores.get(&key(url)).cloned().ok_or_else(|| absent(url))
    }
}

fn absent(url: &Url) -> DataFusionError {
    Error::internal(format!("no store was registered for {}", key(url))).into()
}
