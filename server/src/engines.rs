//! The engines behind catalogs: whether each takes statements, and who keeps them from it: it does not answer, or an operator drains it.

mod breaker;
mod source;
mod watched;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use nexus_engines::Engine;
use nexus_flight_catalog::{Error, Result, Source};

use crate::config;
use crate::engines::source::WatchedSource;
use crate::workers::Workers;

pub use watched::{Standing, State, Watched};

/// The engines by the names of their catalogs: as many as are configured.
#[derive(Debug)]
pub struct Engines {
    settings: config::Engines,
    workers: Workers,
    watched: RwLock<BTreeMap<String, Arc<Watched>>>,
}

impl Engines {
    /// None yet. They are asked how they are on the threads beside those of statements.
    pub fn new(settings: config::Engines, workers: Workers) -> Self {
        Self { settings, workers, watched: RwLock::default() }
    }

    /// The source of a catalog, whose calls are held against how its engine is. Opened anew, it is drained where it was before, and
    /// what was known of it otherwise counts no more.
    pub fn watch(&self, catalog: &str, inner: Arc<dyn Source>, engine: Arc<dyn Engine>) -> Arc<dyn Source> {
        let mut all = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        let watched = match all.get(catalog) {
            Some(watched) => {
                watched.opened(engine);
                Arc::clone(watched)
            }
            None => {
                let kind = inner.spec().kind;
                let watched = Arc::new(Watched::new(catalog, kind, engine, self.settings.clone(), self.workers.clone()));
                all.insert(catalog.to_owned(), Arc::clone(&watched));
                watched
            }
        };
        Arc::new(WatchedSource::new(inner, watched))
    }

    /// All of them, sorted by catalog.
    pub fn all(&self) -> Vec<Arc<Watched>> {
        self.watched.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The engine of a catalog. Errors: `NotFound`.
    pub fn get(&self, catalog: &str) -> Result<Arc<Watched>> {
        let all = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = all.get(catalog) {
            return Ok(Arc::clone(watched));
        }
        Err(Error::not_found(format!("there is no engine behind a catalog \"{catalog}\""))
            .with_hint("system.engines has those that there are"))
    }
}
