//! One engine: what is known of how it is, and who finds that out.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use nexus_engines::{Engine, Load};
use nexus_flight_catalog::{Context, Error, Kind, Principal, Result};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config;
use crate::engines::breaker::{Breaker, Way};
use crate::printable::shortened;
use crate::workers::Workers;

/// How long an engine may take to say how it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long who comes at a trial waits for it: an engine that is well says so sooner, and those who wait take the places of others.
const TRIED_WITHIN: Duration = Duration::from_secs(1);
/// The soonest that somebody is told to come back.
const SOONEST: Duration = Duration::from_secs(1);

/// The engine of one catalog.
#[derive(Debug)]
pub struct Watched {
    catalog: String,
    kind: &'static str,
    settings: config::Engines,
    workers: Workers,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    engine: Arc<dyn Engine>,
    breaker: Breaker,
    /// Whether it was asked anything yet.
    is_used: bool,
    /// Whether anything was asked of it since it was asked how it is.
    has_come: bool,
    /// Whether somebody asks it from time to time.
    is_watched: bool,
    drained: Option<SystemTime>,
    /// The probe that is under way.
    probe: Option<watch::Receiver<bool>>,
    load: Option<Load>,
    error: Option<String>,
}

/// Whether an engine takes statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was asked of it yet.
    Unused,
    /// It takes them.
    Up,
    /// It is asked whether it answers again.
    Trying,
    /// It does not answer.
    Out,
    /// An operator has said that it is to have none.
    Drained,
}

impl State {
    /// The name in tables and pages.
    pub const fn name(self) -> &'static str {
        match self {
            State::Unused => "unused",
            State::Up => "up",
            State::Trying => "trying",
            State::Out => "out",
            State::Drained => "drained",
        }
    }
}

/// What is known of an engine.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Whether it takes statements.
    pub state: State,
    /// Since when; none where it was not used.
    pub since: Option<SystemTime>,
    /// How often it did not answer, one time after the other.
    pub failures: u32,
    /// How busy it was when it was asked last; none where it was not, or did not say.
    pub load: Option<Load>,
    /// Its version, where it has said it.
    pub version: Option<String>,
    /// What was wrong last. It may quote what its user alone may know.
    pub error: Option<String>,
}

impl Watched {
    pub(super) fn new(
        catalog: &str,
        kind: &'static str,
        engine: Arc<dyn Engine>,
        settings: config::Engines,
        workers: Workers,
    ) -> Self {
        let breaker = Breaker::new(settings.failures, settings.retry.0, SystemTime::now());
        let (is_used, has_come, is_watched) = (false, false, false);
        let (drained, probe, load, error) = (None, None, None, None);
        let held = Mutex::new(Held { engine, breaker, is_used, has_come, is_watched, drained, probe, load, error });
        Self { catalog: catalog.to_owned(), kind, settings, workers, held }
    }

    /// The name of its catalog.
    pub fn catalog(&self) -> &str {
        &self.catalog
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What is known of it. Nothing is asked.
    pub fn standing(&self) -> Standing {
        let held = self.lock();
        let (state, since) = match held.drained {
            Some(since) => (State::Drained, Some(since)),
            None if held.breaker.is_trying() => (State::Trying, Some(held.breaker.since())),
            None if !held.breaker.is_closed() => (State::Out, Some(held.breaker.since())),
            None if held.is_used => (State::Up, Some(held.breaker.since())),
            None => (State::Unused, None),
        };
        let (failures, load, error) = (held.breaker.failures(), held.load, held.error.clone());
        let engine = Arc::clone(&held.engine);
        drop(held);
        Standing { state, since, failures, load, version: engine.version(), error }
    }

    /// A line about it for who asks whether the gateway is ready, where it takes no statements.
    pub fn outage(&self) -> Option<String> {
        let Standing { state, since, .. } = self.standing();
        let since = since.filter(|_| matches!(state, State::Out | State::Trying | State::Drained))?;
        let how = if state == State::Drained { "drained" } else { "out" };
        Some(format!("engine \"{}\" ({}) is {how} since {}", self.catalog, self.kind, written(since)))
    }

    /// Has it take no new statements, or take them again. Whether that changes anything. Those that run go on.
    pub fn drain(&self, is_drained: bool) -> bool {
        let mut held = self.lock();
        if held.drained.is_some() == is_drained {
            return false;
        }
        held.drained = is_drained.then(SystemTime::now);
        self.show(&held);
        drop(held);
        tracing::info!(catalog = self.catalog, is_drained, "an operator has changed which engines take statements");
        true
    }

    /// It was opened anew: as others may have made it, it is asked again.
    pub(super) fn opened(&self, engine: Arc<dyn Engine>) {
        let mut held = self.lock();
        held.engine = engine;
        held.breaker = Breaker::new(self.settings.failures, self.settings.retry.0, SystemTime::now());
        (held.load, held.error) = (None, None);
        self.show(&held);
    }

    /// Lets a call through. Where it is time for a trial the call waits for what that finds. Errors: `Unavailable` where the engine is
    /// drained, or does not answer.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<()> {
        let way = self.way()?;
        self.begin();
        let Some(mut told) = way else { return Ok(()) };
        // Where it has broken off, or takes longer, nothing is known.
        let _ = timeout(TRIED_WITHIN, told.wait_for(|is_over| *is_over)).await;
        match self.way()? {
            None => Ok(()),
            Some(_) => {
                let since = self.lock().breaker.since();
                Err(self.refusal(since, SOONEST))
            }
        }
    }

    /// Takes down what came of a call.
    pub(super) fn saw<T>(self: &Arc<Self>, result: Result<T>) -> Result<T> {
        match result.as_ref().err().map(|error| (error.kind(), error.retryable())) {
            None => self.lock().breaker.answered(),
            // What is not worth trying again was said by somebody.
            Some((Kind::Unavailable, true)) => {
                let mut held = self.lock();
                held.error = result.as_ref().err().map(said);
                metrics::counter!("nexus_engine_failures_total", "catalog" => self.catalog.clone()).increment(1);
                if held.breaker.failed() {
                    self.probe(&mut held);
                }
            }
            // It may be the source's own, which has asked nobody: a probe finds out whether somebody is there.
            Some(_) => {}
        }
        result
    }

    /// Begins to ask it how it is, each time that so long has passed, for as long as statements come.
    fn begin(self: &Arc<Self>) {
        let mut held = self.lock();
        held.has_come = true;
        if !mem::replace(&mut held.is_used, true) {
            self.show(&held);
        }
        let every = self.settings.probe.0;
        if every.is_zero() || mem::replace(&mut held.is_watched, true) {
            return;
        }
        drop(held);
        let watched = Arc::downgrade(self);
        self.workers.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(watched) = watched.upgrade() else { return };
                if !watched.is_wanted() {
                    return;
                }
                watched.look().await;
            }
        });
    }

    /// Whether it is to be asked again: nobody wants to know of one that has answered, and that nothing was asked of since.
    fn is_wanted(&self) -> bool {
        let mut held = self.lock();
        let has_come = mem::take(&mut held.has_come);
        held.is_watched = has_come || held.breaker.failures() > 0 || !held.breaker.is_closed();
        if !held.is_watched {
            // What it was busy with then is not what it is busy with.
            held.load = None;
            self.show(&held);
        }
        held.is_watched
    }

    /// Asks it how it is, and how busy.
    async fn look(self: &Arc<Self>) {
        let Some(mut told) = self.due() else { return };
        let _ = told.wait_for(|is_over| *is_over).await;
        let engine = {
            let held = self.lock();
            (held.breaker.is_closed() && held.drained.is_none()).then(|| Arc::clone(&held.engine))
        };
        let load = match engine {
            Some(engine) => {
                let cx = asking();
                // Who may not know how busy it is has an engine all the same.
                cx.run(engine.load(&cx)).await.ok()
            }
            None => None,
        };
        let mut held = self.lock();
        held.load = load;
        self.show(&held);
    }

    /// The probe of now, unless it is too early for a trial.
    fn due(self: &Arc<Self>) -> Option<watch::Receiver<bool>> {
        let mut held = self.lock();
        let is_early = matches!(held.breaker.way(Instant::now()), Way::Shut(_));
        (!is_early).then(|| self.probe(&mut held))
    }

    /// What a call has to wait for, if anything. Errors: the refusal.
    fn way(self: &Arc<Self>) -> Result<Option<watch::Receiver<bool>>> {
        let mut held = self.lock();
        if let Some(since) = held.drained {
            return Err(self.is_drained(since));
        }
        match held.breaker.way(Instant::now()) {
            Way::Free => Ok(None),
            Way::Trial => Ok(Some(self.probe(&mut held))),
            Way::Shut(left) => Err(self.refusal(held.breaker.since(), left)),
        }
    }

    /// Asks whether it takes statements, once for all who want to know at the same time.
    fn probe(self: &Arc<Self>, held: &mut Held) -> watch::Receiver<bool> {
        // One whose sender is gone has broken off.
        if let Some(told) = held.probe.as_ref().filter(|told| told.has_changed().is_ok()) {
            return told.clone();
        }
        let (tell, told) = watch::channel(false);
        held.probe = Some(told.clone());
        held.breaker.begins();
        let (watched, engine) = (Arc::clone(self), Arc::clone(&held.engine));
        self.workers.spawn(async move {
            let cx = asking();
            let began = Instant::now();
            let found = cx.run(engine.health(&cx)).await;
            let took = began.elapsed().as_secs_f64();
            metrics::histogram!("nexus_engine_probe_seconds", "catalog" => watched.catalog.clone()).record(took);
            watched.found(&engine, found);
            // Nobody may wait for it.
            let _ = tell.send(true);
        });
        told
    }

    /// Takes down what a probe has found.
    fn found(&self, engine: &Arc<dyn Engine>, found: Result<()>) {
        let mut held = self.lock();
        held.probe = None;
        if !Arc::ptr_eq(engine, &held.engine) {
            // It was opened anew meanwhile, and nothing is known of how it is now.
            return;
        }
        let was_closed = held.breaker.is_closed();
        let is_up = found.as_ref().err().is_none_or(|error| !is_silence(error));
        held.breaker.ends(is_up, Instant::now(), SystemTime::now());
        if let Err(error) = &found {
            held.error = Some(said(error));
        }
        if !is_up {
            metrics::counter!("nexus_engine_failures_total", "catalog" => self.catalog.clone()).increment(1);
        }
        self.show(&held);
        let (is_closed, failures) = (held.breaker.is_closed(), held.breaker.failures());
        drop(held);
        match found {
            Err(error) if was_closed && !is_closed => {
                tracing::warn!(catalog = self.catalog, kind = self.kind, failures, %error, "an engine does not answer, and is out");
            }
            _ if is_closed && !was_closed => tracing::info!(catalog = self.catalog, kind = self.kind, "an engine answers again"),
            _ => {}
        }
    }

    /// As numbers for who watches the gateway.
    fn show(&self, held: &Held) {
        let gauge = |name: &'static str| metrics::gauge!(name, "catalog" => self.catalog.clone());
        let is_up = held.drained.is_none() && held.breaker.is_closed();
        gauge("nexus_engine_up").set(if is_up { 1.0 } else { 0.0 });
        // Of what is not known there is no number.
        let (queued, running) = held.load.map_or((f64::NAN, f64::NAN), |load| (load.queued as f64, load.running as f64));
        gauge("nexus_engine_running").set(running);
        gauge("nexus_engine_queued").set(queued);
    }

    fn refusal(&self, since: SystemTime, left: Duration) -> Error {
        metrics::counter!("nexus_engine_refusals_total", "catalog" => self.catalog.clone(), "reason" => "out").increment(1);
        let hint = format!("the engine \"{}\" ({}) is out since {}; try again later", self.catalog, self.kind, written(since));
        Error::unavailable(format!("the engine of the catalog \"{}\" does not answer", self.catalog))
            .with_hint(hint)
            .with_retry_after(left.max(SOONEST))
    }

    fn is_drained(&self, since: SystemTime) -> Error {
        metrics::counter!("nexus_engine_refusals_total", "catalog" => self.catalog.clone(), "reason" => "drained").increment(1);
        let hint = format!(
            "the engine \"{}\" ({}) is drained since {}; try again later, or ask who runs this gateway",
            self.catalog,
            self.kind,
            written(since)
        );
        Error::unavailable(format!("the engine of the catalog \"{}\" takes no new statements", self.catalog)).with_hint(hint)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks an engine how it is: nobody in particular, and not for long.
fn asking() -> Context {
    Context { deadline: Some(Instant::now() + ANSWERS_WITHIN), ..Context::new(Principal::anonymous()) }
}

/// Whether an error of a probe means that nobody is there. Who refuses it, or is what stands before an engine, may let statements
/// through.
fn is_silence(error: &Error) -> bool {
    error.kind() == Kind::Timeout || (error.kind() == Kind::Unavailable && error.retryable())
}

fn said(error: &Error) -> String {
    shortened(error.message().to_owned())
}

fn written(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Secs, true)
}
