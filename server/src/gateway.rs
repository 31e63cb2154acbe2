//! The running gateway: what all protocols share, put together from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use futures::future::join_all;
use nexus_engines::Engine;
use nexus_flight_catalog::error::list;
use nexus_flight_catalog::{Catalogs, Context, Error, Kind, Place, Principal, Result, Source, Spec};

use crate::audit::Trail;
use crate::bounds;
use crate::config::{Config, policies};
use crate::engines::Engines;
use crate::kinds::{self, SPECS};
use crate::layers::admission::Gate;
use crate::layers::cache::Kept;
use crate::lookups::Lookups;
use crate::plan::Planner;
use crate::query::Execute;
use crate::reload;
use crate::seal::Seal;
use crate::session::Sessions;
use crate::stack;
use crate::statement::Caps;
use crate::system::{CATALOG, System, SystemSource};
use crate::temporary::Temporaries;
use crate::wire::auth::Authenticator;
use crate::wire::jwt::Jwt;
use crate::wire::tokens::ApiTokens;
use crate::workers::Workers;
use crate::writes::Writes;

/// How many of the largest users of memory an error about memory names.
const NAMED_CONSUMERS: usize = 3;
/// How long a source may take to say that it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What the protocols are served from.
pub struct Gateway {
    /// The one query path.
    pub execute: Arc<dyn Execute>,
    /// All registered sources.
    pub catalogs: Arc<Catalogs>,
    /// The sessions of clients.
    pub sessions: Arc<Sessions>,
    /// Who may come in.
    pub authenticator: Arc<Authenticator>,
    /// Seals what clients carry.
    pub seal: Arc<Seal>,
    /// Knows the functions that statements can call.
    pub planner: Arc<Planner>,
    /// When each table was written to last.
    pub writes: Arc<Writes>,
    /// Where statements are recorded.
    pub trail: Option<Arc<Trail>>,
    /// Whether there is room for one more of a user.
    pub gate: Arc<Gate>,
    /// The answers that are kept.
    pub kept: Arc<Kept>,
    /// How the engines behind catalogs are.
    pub engines: Arc<Engines>,
    /// The threads that what users ask for is made on.
    pub workers: Workers,
}

impl Gateway {
    /// Opens the configured sources, without asking anything of them, and builds the stack over them. Statements run on
    /// `workers`, and are recorded in the trail where there is one. The files that the configuration refers to are looked at for as
    /// long as the gateway is in use.
    /// Errors: `Invalid` with the file and line of the option that is wrong.
    pub fn new(config: &Config, workers: Workers, trail: Option<Arc<Trail>>) -> Result<Arc<Self>> {
        let catalogs = Arc::new(Catalogs::default());
        let pool = GreedyMemoryPool::new(config.limits.memory.bytes());
        let pool = TrackConsumersPool::new(pool, NAMED_CONSUMERS.try_into().unwrap_or(std::num::NonZeroUsize::MIN));
        // Footers are not kept: DataFusion keeps them by path alone, and two stores may hold different files of one path.
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_metadata_cache_limit(0).build_arc()?;
        let limits = &config.limits;
        let caps = Caps::new(limits);
        let most = bounds::most(limits.memory.bytes());
        let schema = config.defaults.schema.clone();
        let lives = config.tickets.session_ttl.0;
        let temporaries = Arc::new(Temporaries::new(limits.temporary, lives));
        let planner = Planner::new(
            Arc::clone(&catalogs),
            schema.clone(),
            Arc::clone(&temporaries),
            runtime,
            caps,
            config.memory_share(),
            most,
        )?;
        let writes = Arc::new(Writes::default());
        // Without a cache there are no answers that it could be for.
        let check = if config.cache.size.0 == 0 { Duration::ZERO } else { config.cache.check.0 };
        let engines = Arc::new(Engines::new(config.engines.clone(), workers.clone()));
        let planner = planner.with_lookups(Lookups::new(check, Arc::clone(&writes)));
        let planner = Arc::new(planner.with_engines(Arc::clone(&engines)));
        let stack = stack::build(
            config,
            Arc::clone(&catalogs),
            Arc::clone(&planner),
            workers.clone(),
            Arc::clone(&writes),
            trail.clone(),
        );
        if let Some(policy) = &config.policy {
            let redacts = config.audit.as_ref().is_some_and(|audit| audit.redact);
            let kept = Arc::downgrade(&stack.kept);
            let forget = move || {
                if let Some(kept) = kept.upgrade() {
                    kept.forget_governed();
                }
            };
            let (file, changed) = (config.base.join(&policy.file), forget);
            catalogs.govern(policies(&file, planner.expressions(), redacts, &workers, changed)?);
        }
        for (name, catalog) in &config.catalogs {
            let opened = kinds::open(&catalog.kind, &config.options(name, catalog));
            let (source, engine) = opened.map_err(|error| config.locate(error))?;
            catalogs.register(name, watched(&engines, name, source, engine));
            if catalog.writable {
                check_takes_rows(name, &catalog.kind).map_err(|error| config.locate(error))?;
                catalogs.allow_writes(name);
            }
        }
        let seal = Arc::new(Seal::new(&config.tickets)?);
        let catalog = default_catalog(config);
        let sessions = Arc::new(Sessions::new(Arc::clone(&seal), catalog, config, temporaries));
        let tokens = config.auth.tokens.as_ref().map(|file| ApiTokens::open(&config.base.join(file), &workers)).transpose()?;
        let jwt = config.auth.jwt.as_ref().map(|jwt| Jwt::open(jwt, &config.base, &workers)).transpose()?;
        let authenticator = Arc::new(Authenticator::new(&config.auth, tokens, jwt, Arc::clone(&seal), lives));
        let settings = config.resolved_settings(&SPECS);
        let shown = (Arc::clone(&stack.kept), Arc::clone(&sessions), Arc::clone(&engines));
        let system = System::new(schema, &catalogs, stack.history, shown, settings);
        catalogs.register(CATALOG, Arc::new(SystemSource(system)));
        let (execute, gate, kept) = (stack.execute, stack.gate, stack.kept);
        let gateway =
            Self { execute, catalogs, sessions, authenticator, seal, planner, writes, trail, gate, kept, engines, workers };
        let gateway = Arc::new(gateway);
        if config.has_files() {
            let (first, mut before) = (config.clone(), config.clone());
            let held = Arc::downgrade(&gateway);
            let take = move |config: Config| match held.upgrade() {
                None => Ok(false),
                Some(gateway) => {
                    gateway.renew(&before, &config)?;
                    before = config;
                    Ok(true)
                }
            };
            let read = move || first.again().map(|config| (config.referenced(), config));
            gateway.workers.spawn(reload::follow("secrets", config.referenced(), read, take));
        }
        Ok(gateway)
    }

    /// Takes over what the references of the same configuration give now, as far as that can change in a running process: all of it, or
    /// with an error nothing. A catalog is opened anew: what runs goes on with what it began with.
    fn renew(&self, before: &Config, config: &Config) -> Result<()> {
        let mut opened = BTreeMap::new();
        for (name, catalog) in &config.catalogs {
            if has_secrets(&catalog.kind) && before.catalogs.get(name).is_some_and(|before| !before.opens_as(catalog)) {
                let source = kinds::open(&catalog.kind, &config.options(name, catalog));
                opened.insert(name, source.map_err(|error| config.locate(error))?);
            }
        }
        self.seal.renew(&config.tickets)?;
        self.authenticator.renew(&config.auth);
        let counts = |key: &str| {
            let of_catalog = |name: &&String| key.starts_with(&format!("catalogs.{name}."));
            key == "tickets.keys" || key.starts_with("auth.users.") || opened.keys().any(of_catalog)
        };
        let later: Vec<&str> = config.changed(before).filter(|key| !counts(key)).collect();
        if !later.is_empty() {
            tracing::warn!(settings = later.join(", "), "files have changed whose values count from the next start on");
        }
        for (name, (source, engine)) in opened {
            self.catalogs.register(name, watched(&self.engines, name, source, engine));
            self.writes.opened(name);
        }
        Ok(())
    }

    /// The bytes that statements hold of `limits.memory`.
    pub fn reserved(&self) -> usize {
        self.planner.functions().runtime_env().memory_pool.reserved()
    }

    /// Asks all configured sources at once whether they answer. Gives an error for each that does not, with the file and line
    /// of what is wrong, or of its catalog.
    pub async fn unreachable(&self, config: &Config) -> Vec<Error> {
        let all: BTreeMap<_, _> = self.catalogs.all().into_iter().collect();
        let ping = async |name: &String| {
            let mut cx = Context::new(Principal::anonymous());
            cx.deadline = Some(Instant::now() + ANSWERS_WITHIN);
            let source = all.get(name).ok_or_else(|| Error::internal("a configured catalog is not there"))?;
            cx.run(source.ping(&cx)).await.map_err(|error| match error.kind() {
                Kind::Timeout => Error::new(Kind::Timeout, format!("no answer within {} s", ANSWERS_WITHIN.as_secs())),
                _ => error,
            })
        };
        let pings = config.catalogs.keys().map(async |name| {
            let failed = ping(name).await.err()?;
            let catalog = || Place::Key(format!("catalogs.{name}"));
            // What the user wrote is the catalog; where the source is follows from it.
            let (message, place) = match failed.place() {
                Some(key @ Place::Key(_)) => (failed.message().to_owned(), key.clone()),
                Some(place) => (format!("{place}: {}", failed.message()), catalog()),
                None => (failed.message().to_owned(), catalog()),
            };
            let error = Error::new(failed.kind(), message).with_retryable(failed.retryable()).at(place);
            Some(config.locate(error.with_hint(failed.hint().unwrap_or("check that it can be reached from this machine"))))
        });
        join_all(pings).await.into_iter().flatten().collect()
    }

    /// Looks at the tables that rules of the policy are about by their full names. Gives an error for each filter, mask and column that
    /// does not fit; what is not there, or cannot be looked at, says nothing against a rule.
    pub async fn unfit(&self, config: &Config) -> Vec<Error> {
        let Some(policies) = self.catalogs.policies() else { return Vec::new() };
        let (exact, mut unfit) = (policies.current().exact(), Vec::new());
        for (catalog, settings) in &config.catalogs {
            let named: Vec<_> = exact.iter().filter(|name| name.catalog == *catalog).collect();
            if named.is_empty() {
                continue;
            }
            // What is registered stands behind the policy, and shows what it lets be seen.
            let Ok((source, _)) = kinds::open(&settings.kind, &config.options(catalog, settings)) else { continue };
            for name in named.into_iter().filter(|name| source.about(&name.table).is_none()) {
                let mut cx = Context::new(Principal::anonymous());
                cx.deadline = Some(Instant::now() + ANSWERS_WITHIN);
                if let Ok(table) = cx.run(source.table(&cx, &name.schema, &name.table)).await {
                    unfit.extend(policies.unfit(name, &table.provider));
                }
            }
        }
        unfit
    }
}

/// The source of a catalog, held against how its engine is, where it is one of an engine.
fn watched(engines: &Engines, name: &str, source: Arc<dyn Source>, engine: Option<Arc<dyn Engine>>) -> Arc<dyn Source> {
    match engine {
        Some(engine) => engines.watch(name, source, engine),
        None => source,
    }
}

/// Whether there is anything to be opened anew for; a kind that keeps rows itself would lose them.
fn has_secrets(kind: &str) -> bool {
    SPECS.iter().any(|spec| spec.kind == kind && spec.options.iter().any(|option| option.secret))
}

/// A key that can have no effect is a mistake.
fn check_takes_rows(name: &str, kind: &str) -> Result<()> {
    let takes = |spec: &&&Spec| spec.capabilities.append;
    let known: Vec<&str> = SPECS.iter().filter(takes).map(|spec| spec.kind).collect();
    if known.contains(&kind) {
        return Ok(());
    }
    Err(Error::invalid(format!("a catalog of kind \"{kind}\" cannot be written to"))
        .with_hint(format!("leave the key out; the kinds that take rows are {}", list(&known)))
        .at(Place::Key(format!("catalogs.{name}.writable"))))
}

/// Where names without a catalog are looked up when the configuration does not say: in the only one there is. With several,
/// a guess would change its meaning with the next one that is added.
fn default_catalog(config: &Config) -> String {
    let only = || config.catalogs.keys().next().filter(|_| config.catalogs.len() == 1);
    config.defaults.catalog.as_ref().or_else(only).map_or_else(|| CATALOG.to_owned(), Clone::clone)
}
