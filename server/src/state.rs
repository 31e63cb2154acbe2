//! The state of one statement: the shared functions, its own settings, and the object stores that sources register for it.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, TaskContext};
use datafusion::object_store::ObjectStore;
use nexus_flight_catalog::{Error, Tables};
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use crate::query::Query;
use crate::shares::{Share, Shares};

/// How many idle states are kept for the next statements.
const IDLE: usize = 64;

/// Gives each statement a state. Building one costs more than planning a small statement, since hundreds of functions go into
/// it, so those of statements that are planned are used again.
#[derive(Debug)]
pub struct States {
    base: SessionState,
    shares: Arc<Shares>,
    idle: Arc<Mutex<Vec<State>>>,
}

/// The state of one statement.
#[derive(Debug)]
pub struct State {
    /// What DataFusion plans with.
    pub session: SessionState,
    /// The memory of its user; none while nobody has it.
    share: Option<Arc<Share>>,
    stores: Arc<StatementStores>,
    /// Weak, since the states that wait there would else hold on to the place where they wait.
    idle: Weak<Mutex<Vec<State>>>,
}

impl States {
    /// States like this one, of whose memory one user has at most so many bytes.
    pub fn new(base: SessionState, share: usize) -> Self {
        let shares = Arc::new(Shares::new(Arc::clone(&base.runtime_env().memory_pool), share));
        Self { base, shares, idle: Arc::default() }
    }

    /// The one that the others are like.
    pub fn base(&self) -> &SessionState {
        &self.base
    }

    /// What the statements of each user take from.
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// A state for a query that starts now, with the names of its session, and as yet without tables and stores.
    pub fn take(&self, query: &Query) -> State {
        let session = &query.session;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = idle.unwrap_or_else(|| self.build());
        state.share = Some(self.shares.of(&query.cx.principal));
        let names = &state.session.config_options().catalog;
        if names.default_catalog != session.catalog || names.default_schema != session.schema {
            let names = &mut state.session.config_mut().options_mut().catalog;
            names.default_catalog.clone_from(&session.catalog);
            names.default_schema.clone_from(&session.schema);
        }
        let rows = self.base.config().batch_size();
        if state.session.config().batch_size() != rows {
            state.session.config_mut().options_mut().execution.batch_size = rows;
        }
        let (own, base) = (state.session.config_options(), self.base.config_options());
        if own.optimizer.enable_round_robin_repartition != base.optimizer.enable_round_robin_repartition {
            let options = state.session.config_mut().options_mut();
            options.execution.target_partitions = base.execution.target_partitions;
            options.optimizer.enable_round_robin_repartition = base.optimizer.enable_round_robin_repartition;
        }
        state.set_time_zone(session.options.time_zone.as_ref().or(self.base.config_options().execution.time_zone.as_ref()));
        state.session.mark_start_execution();
        state
    }

    fn build(&self) -> State {
        let stores = Arc::new(StatementStores::default());
        let runtime = RuntimeEnv { object_store_registry: Arc::clone(&stores) as _, ..(**self.base.runtime_env()).clone() };
        let builder = SessionStateBuilder::new_from_existing(self.base.clone()).with_runtime_env(Arc::new(runtime));
        State { session: builder.build(), share: None, stores, idle: Arc::downgrade(&self.idle) }
    }
}

impl State {
    /// Some functions keep the zone that they were made for.
    fn set_time_zone(&mut self, zone: Option<&String>) {
        if self.session.config_options().execution.time_zone.as_ref() == zone {
            return;
        }
        self.session.config_mut().options_mut().execution.time_zone = zone.cloned();
        let options = self.session.config_options();
        let changed =
            self.session.scalar_functions().values().filter_map(|function| function.inner().with_updated_config(options));
        for function in changed.collect::<Vec<_>>() {
            // Only a registry that cannot change refuses.
            let _ = self.session.register_udf(Arc::new(function));
        }
    }

    /// Lets planning see the tables of the statement, and no others.
    pub fn show(&mut self, tables: &Tables) {
        self.session.register_catalog_list(tables.catalog_list());
    }

    /// What the statement takes memory from.
    pub fn memory(&self) -> Arc<dyn MemoryPool> {
        match &self.share {
            Some(share) => Arc::clone(share) as _,
            None => Arc::clone(&self.session.runtime_env().memory_pool),
        }
    }

    /// The turn of its user to plan, until it is dropped.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let share = self.share.clone()?;
        share.turn().await
    }

    /// Has files shared out in so many groups, and their rows stay in them; else as the machine has processors.
    pub fn share_out(&mut self, groups: Option<usize>) {
        if let Some(groups) = groups {
            let options = self.session.config_mut().options_mut();
            options.execution.target_partitions = groups;
            options.optimizer.enable_round_robin_repartition = false;
        }
    }

    /// Lets no batch of the statement have more rows than this.
    pub fn limit_batches(&mut self, rows: usize) {
        let size = self.session.config().batch_size();
        if rows < size {
            self.session.config_mut().options_mut().execution.batch_size = rows;
        }
    }

    /// What the planned statement runs with: its stores go along, so that what a source registered for it goes with it.
    pub fn into_task(self) -> TaskContext {
        let stores = StatementStores { stores: RwLock::new(self.stores.take()) };
        let runtime = RuntimeEnv {
            object_store_registry: Arc::new(stores),
            memory_pool: self.memory(),
            ..(**self.session.runtime_env()).clone()
        };
        let (id, config) = (self.session.session_id().to_owned(), self.session.config().clone());
        self.give_back();
        // It needs no function registry: the plan holds its functions.
        TaskContext::new(None, id, config, HashMap::new(), HashMap::new(), HashMap::new(), Arc::new(runtime))
    }

    /// For the next statement. A state that is just dropped is lost, and costs only the time to build another.
    pub fn give_back(mut self) {
        self.share = None;
        self.stores.take();
        self.session.register_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
        let Some(idle) = self.idle.upgrade() else { return };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(self);
        }
    }
}

/// A registry that is born empty and dies with its statement. No address that a client could write is ever in it.
#[derive(Debug, Default)]
struct StatementStores {
    stores: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl StatementStores {
    fn take(&self) -> HashMap<String, Arc<dyn ObjectStore>> {
        mem::take(&mut self.stores.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(url: &Url) -> String {
    url[url::Position::BeforeScheme..url::Position::BeforePath].to_owned()
}

impl ObjectStoreRegistry for StatementStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.write().unwrap_or_else(PoisonError::into_inner).insert(key(url), store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let removed = self.stores.write().unwrap_or_else(PoisonError::into_inner).remove(&key(url));
        removed.ok_or_else(|| absent(url))
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(&key(url)).cloned().ok_or_else(|| absent(url))
    }
}

fn absent(url: &Url) -> DataFusionError {
    Error::internal(format!("no store was registered for {}", key(url))).into()
}
