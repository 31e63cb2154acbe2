//! Which statements run, and whose turn is next. A slot is a statement's until the last of its work has ended. Those who have the fewest
//! slots are served first, and those who have the most statements waiting lose the last of them when the queue is full: who sends
//! little is let through beside who sends much. A source whose answers can stay out has a share of the slots too, and what waits for one
//! that is at its share is passed over: what hangs at one leaves slots to the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Catalogs, Error, Principal, Result};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::config::Limits;
use crate::layers::Run;
use crate::plan::Planned;
use crate::query::Answer;
use crate::running::hold;

/// The soonest and the latest that somebody is told to come back.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How much the latest statement counts in what one typically takes.
const LATEST: f64 = 0.1;

/// Lets run what the gate lets through.
#[derive(Debug)]
pub struct Admission<R> {
    inner: R,
    gate: Arc<Gate>,
    catalogs: Arc<Catalogs>,
}

/// Lets so many statements run and so many wait, and refuses the rest at once.
#[derive(Debug)]
pub struct Gate {
    slots: Slots,
    queue: usize,
    patience: Duration,
    state: Mutex<State>,
}

/// How many statements run at once.
#[derive(Debug, Clone, Copy)]
struct Slots {
    all: usize,
    of_principal: usize,
    /// Of those over one source whose answers can stay out.
    of_source: usize,
}

/// Who wants a slot, and for what.
#[derive(Debug, Clone)]
struct Claim {
    principal: Principal,
    /// The catalogs that it reads or writes whose answers can stay out.
    sources: Arc<[String]>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Of these, those over each source.
    sources: HashMap<String, usize>,
    waiting: usize,
    /// Those that are planned, and will want a slot or a place then.
    coming: usize,
    /// Who has statements that run or wait.
    lines: HashMap<Principal, Line>,
    /// Counts the statements that were let in or have waited.
    turns: u64,
    /// How long a statement typically keeps its slot, in seconds.
    typical: f64,
}

/// The statements of one principal.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiting>,
    coming: usize,
    /// When one of them was last let in.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    turn: u64,
    claim: Claim,
    tell: oneshot::Sender<Turn>,
}

/// What becomes of one that waits.
#[derive(Debug)]
enum Turn {
    Granted,
    /// Somebody with fewer has its place.
    Displaced,
}

impl<R> Admission<R> {
    /// Over what runs statements that read and write these catalogs.
    pub fn new(inner: R, gate: Arc<Gate>, catalogs: Arc<Catalogs>) -> Self {
        Self { inner, gate, catalogs }
    }

    fn claim(&self, planned: &Planned) -> Claim {
        let principal = planned.query.cx.principal.clone();
        let is_elsewhere = |name: &&str| self.catalogs.source(&principal, name).is_ok_and(|source| source.is_elsewhere());
        let sources = planned.catalogs().into_iter().filter(is_elsewhere).map(str::to_owned).collect();
        Claim { principal, sources }
    }
}

impl Gate {
    /// As configured; one principal has at most `share` slots.
    pub fn new(limits: &Limits, share: usize) -> Arc<Self> {
        let (all, queue, patience) = (limits.concurrency as usize, limits.queue as usize, limits.queue_wait.0);
        // Of two slots already one is left to the other sources.
        let slots = Slots { all, of_principal: share, of_source: (all - all.div_ceil(4)).max(1) };
        Arc::new(Self { slots, queue, patience, state: Mutex::default() })
    }

    /// Counts a statement that is to be planned among those that there is room for, for as long as this is held: where many come at
    /// once, those that would be refused afterwards are refused before. Errors: the refusal.
    pub fn announce(self: &Arc<Self>, principal: &Principal) -> Result<Coming> {
        let mut state = self.lock();
        let (running, coming, own) =
            state.lines.get(principal).map_or((0, 0, 0), |line| (line.running, line.coming, line.queued()));
        let left = self.queue.saturating_sub(state.waiting);
        let of_all = self.slots.all.saturating_sub(state.running) + left;
        let of_one = self.slots.of_principal.saturating_sub(running) + left;
        let is_full = state.coming >= of_all || coming >= of_one;
        if is_full && !state.lines.values().any(|line| line.queued() > own + 1) {
            drop(state);
            return Err(self.is_full());
        }
        state.coming += 1;
        state.lines.entry(principal.clone()).or_default().coming += 1;
        Ok(Coming { gate: Arc::clone(self), principal: principal.clone(), has_arrived: false })
    }

    /// How many statements have a slot, and how many wait for one or are planned and will.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running, state.waiting + state.coming)
    }

    async fn enter(self: &Arc<Self>, claim: &Claim, coming: Option<Coming>) -> Result<Slot> {
        let mut place = match self.ask(claim, coming)? {
            Asked::Granted(slot) => return Ok(slot),
            Asked::Waits(place) => place,
        };
        match tokio::time::timeout(self.patience, &mut place.told).await {
            Ok(Ok(Turn::Granted)) => Ok(place.granted()),
            Ok(Ok(Turn::Displaced)) => {
                place.is_settled = true;
                Err(self.refusal("others have fewer statements here, and were let through before this one"))
            }
            Ok(Err(_)) => Err(Error::unavailable("the server is closing")),
            Err(_) => {
                let state = self.lock();
                let full = self.slots.full(&state.sources, claim).filter(|_| state.running < self.slots.all);
                drop(state);
                let over = full.map_or_else(String::new, |source| format!(" over the catalog \"{source}\""));
                Err(self.refusal(&format!("no statement{over} ended within {:?} to make room", self.patience)))
            }
        }
    }

    fn ask(self: &Arc<Self>, claim: &Claim, coming: Option<Coming>) -> Result<Asked> {
        let mut state = self.lock();
        if let Some(coming) = coming {
            // In one with what it has from here on: who came in between would be planned, and only then refused.
            coming.arrives(&mut state);
        }
        let (running, own) = state.lines.get(&claim.principal).map_or((0, 0), |line| (line.running, line.waiting.len()));
        let is_free = state.running < self.slots.all && running < self.slots.of_principal;
        // Nobody waits who could have that slot: it would have been handed out.
        if is_free && self.slots.full(&state.sources, claim).is_none() {
            state.begin(claim);
            return Ok(Asked::Granted(Slot::new(self, claim)));
        }
        if state.waiting >= self.queue && !state.displace(own) {
            state.forget(&claim.principal);
            drop(state);
            return Err(self.is_full());
        }
        let (tell, told) = oneshot::channel();
        state.turns += 1;
        let turn = state.turns;
        state.waiting += 1;
        let line = state.lines.entry(claim.principal.clone()).or_default();
        line.waiting.push_back(Waiting { turn, claim: claim.clone(), tell });
        Ok(Asked::Waits(Place { gate: Arc::clone(self), claim: claim.clone(), turn, told, is_settled: false }))
    }

    fn is_full(&self) -> Error {
        self.refusal(&format!("the queue of {} statements is full", self.queue))
    }

    fn leave(&self, claim: &Claim, held: Option<Duration>) {
        let mut state = self.lock();
        state.end(claim);
        if let Some(held) = held {
            state.typical += LATEST * (held.as_secs_f64() - state.typical);
        }
        state.hand_out(self.slots);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, why: &str) -> Error {
        metrics::counter!("nexus_statements_refused_total").increment(1);
        let (waiting, typical) = {
            let state = self.lock();
            (state.waiting, state.typical)
        };
        let wait = Duration::try_from_secs_f64(typical * (waiting + 1) as f64 / self.slots.all as f64).unwrap_or(RETRY.1);
        Error::exhausted(why)
            .with_hint("try again later, or raise limits.concurrency or limits.queue")
            .with_retry_after(wait.clamp(RETRY.0, RETRY.1))
    }
}

impl Slots {
    /// The first source of a statement that has no room for it, where so many run over each.
    fn full<'a>(&self, running: &HashMap<String, usize>, claim: &'a Claim) -> Option<&'a str> {
        let is_full = |source: &&str| running.get(*source).is_some_and(|running| *running >= self.of_source);
        claim.sources.iter().map(String::as_str).find(is_full)
    }
}

impl State {
    /// Counts one less of those that are planned.
    fn arrive(&mut self, principal: &Principal) {
        self.coming = self.coming.saturating_sub(1);
        if let Some(line) = self.lines.get_mut(principal) {
            line.coming = line.coming.saturating_sub(1);
        }
    }

    /// Counts a statement that has a slot from now on.
    fn begin(&mut self, claim: &Claim) {
        self.turns += 1;
        self.running += 1;
        for source in claim.sources.iter() {
            *self.sources.entry(source.clone()).or_default() += 1;
        }
        let line = self.lines.entry(claim.principal.clone()).or_default();
        line.running += 1;
        line.last = self.turns;
    }

    /// Counts it no more.
    fn end(&mut self, claim: &Claim) {
        self.running = self.running.saturating_sub(1);
        for source in claim.sources.iter() {
            if let Some(running) = self.sources.get_mut(source) {
                *running = running.saturating_sub(1);
            }
        }
        if let Some(line) = self.lines.get_mut(&claim.principal) {
            line.running = line.running.saturating_sub(1);
        }
        self.forget(&claim.principal);
    }

    /// Gives free slots to those that wait and whose sources have room: first to who has the fewest, and among those to who was served
    /// longest ago.
    fn hand_out(&mut self, slots: Slots) {
        while self.running < slots.all {
            let has_room = |waiting: &Waiting| slots.full(&self.sources, &waiting.claim).is_none();
            let lines = self.lines.values_mut().filter(|line| line.running < slots.of_principal);
            let able = lines.filter_map(|line| Some((line.waiting.iter().position(has_room)?, line)));
            let Some((at, line)) = able.min_by_key(|(_, line)| (line.running, line.last)) else { return };
            let Some(Waiting { claim, tell, .. }) = line.waiting.remove(at) else { return };
            self.waiting -= 1;
            self.begin(&claim);
            // One that is just going away gives it back by itself.
            let _ = tell.send(Turn::Granted);
        }
    }

    /// Makes room in the queue for somebody who has so many statements there: the last of who has most goes, where that is more than
    /// the other one would have. Whether there is one.
    fn displace(&mut self, own: usize) -> bool {
        let Some(longest) = self.lines.values_mut().max_by_key(|line| line.waiting.len()) else { return false };
        if longest.waiting.len() <= own + 1 {
            return false;
        }
        let Some(last) = longest.waiting.pop_back() else { return false };
        self.waiting -= 1;
        let _ = last.tell.send(Turn::Displaced);
        true
    }

    fn forget(&mut self, principal: &Principal) {
        if self.lines.get(principal).is_some_and(|line| line.running == 0 && line.queued() == 0) {
            self.lines.remove(principal);
        }
    }
}

impl Line {
    /// Those that wait, or will.
    fn queued(&self) -> usize {
        self.waiting.len() + self.coming
    }
}

/// A statement that is planned: there is room for it, until it asks for a slot or this is dropped.
#[derive(Debug)]
pub struct Coming {
    gate: Arc<Gate>,
    principal: Principal,
    has_arrived: bool,
}

impl Coming {
    fn arrives(mut self, state: &mut State) {
        state.arrive(&self.principal);
        self.has_arrived = true;
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.has_arrived {
            return;
        }
        let mut state = self.gate.lock();
        state.arrive(&self.principal);
        state.forget(&self.principal);
    }
}

enum Asked {
    Granted(Slot),
    Waits(Place),
}

/// A place in the queue, given back when it is dropped.
struct Place {
    gate: Arc<Gate>,
    claim: Claim,
    turn: u64,
    told: oneshot::Receiver<Turn>,
    /// Whether it is in the queue no more, and owes nothing.
    is_settled: bool,
}

impl Place {
    fn granted(mut self) -> Slot {
        self.is_settled = true;
        Slot::new(&self.gate, &self.claim)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut state = self.gate.lock();
        let line = state.lines.get_mut(&self.claim.principal);
        let at = line.as_ref().and_then(|line| line.waiting.iter().position(|waiting| waiting.turn == self.turn));
        if let (Some(line), Some(at)) = (line, at) {
            line.waiting.remove(at);
            state.waiting -= 1;
            state.forget(&self.claim.principal);
            return;
        }
        drop(state);
        // Its turn had come when it went away.
        if let Ok(Turn::Granted) = self.told.try_recv() {
            self.gate.leave(&self.claim, None);
        }
    }
}

/// One of the slots, given back when it is dropped.
struct Slot {
    gate: Arc<Gate>,
    claim: Claim,
    since: Instant,
}

impl Slot {
    fn new(gate: &Arc<Gate>, claim: &Claim) -> Self {
        Self { gate: Arc::clone(gate), claim: claim.clone(), since: Instant::now() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.leave(&self.claim, Some(self.since.elapsed()));
    }
}

#[async_trait]
impl<R: Run> Run for Admission<R> {
    async fn run(&self, mut planned: Planned) -> Result<Answer> {
        let span = tracing::info_span!(target: TRACE, parent: &planned.query.cx.span, "wait");
        let claim = self.claim(&planned);
        let coming = planned.coming.take();
        hold(self.gate.enter(&claim, coming).instrument(span).await?);
        self.inner.run(planned).await
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn gate(all: usize, of_principal: usize, queue: usize) -> Arc<Gate> {
        gate_of(Slots { all, of_principal, of_source: all }, queue)
    }

    /// Where so many run at once, and so many of them over one source.
    fn gate_to_sources(all: usize, of_source: usize) -> Arc<Gate> {
        gate_of(Slots { all, of_principal: all, of_source }, 10)
    }

    fn gate_of(slots: Slots, queue: usize) -> Arc<Gate> {
        Arc::new(Gate { slots, queue, patience: Duration::from_secs(60), state: Mutex::default() })
    }

    fn who(name: &str) -> Principal {
        Principal(name.into())
    }

    /// Who, and after that over which sources.
    fn claim(words: &str) -> Claim {
        let mut words = words.split(' ');
        let principal = who(words.next().unwrap());
        Claim { principal, sources: words.map(str::to_owned).collect() }
    }

    fn granted(gate: &Arc<Gate>, words: &str) -> Slot {
        match gate.ask(&claim(words), None) {
            Ok(Asked::Granted(slot)) => slot,
            _ => panic!("{words} was not let in"),
        }
    }

    fn waits(gate: &Arc<Gate>, words: &str) -> Place {
        match gate.ask(&claim(words), None) {
            Ok(Asked::Waits(place)) => place,
            _ => panic!("{words} does not wait"),
        }
    }

    fn is_granted(place: &mut Place) -> bool {
        matches!(place.told.try_recv(), Ok(Turn::Granted))
    }

    #[test]
    fn who_has_fewer_is_next() {
        let gate = gate(2, 2, 10);
        let (first, _second) = (granted(&gate, "heavy"), granted(&gate, "heavy"));
        let (mut heavy, mut light) = (waits(&gate, "heavy"), waits(&gate, "light"));
        drop(first);
        assert!(is_granted(&mut light) && !is_granted(&mut heavy));
        drop(light.granted());
        assert!(is_granted(&mut heavy));
    }

    #[test]
    fn nobody_has_all_slots() {
        let gate = gate(4, 3, 10);
        let _held = [granted(&gate, "heavy"), granted(&gate, "heavy"), granted(&gate, "heavy")];
        let _waiting = waits(&gate, "heavy");
        granted(&gate, "light");
    }

    #[test]
    fn who_waits_for_a_source_at_its_share_is_passed_over() {
        let gate = gate_to_sources(4, 2);
        let (first, _second) = (granted(&gate, "a shop"), granted(&gate, "a shop"));
        let (mut third, mut other) = (waits(&gate, "a shop"), waits(&gate, "b shop"));
        // Those that come later have the other slots, whoever they are of.
        let (lake, _none) = (granted(&gate, "a lake"), granted(&gate, "a"));
        let mut later = waits(&gate, "a lake");
        drop(lake);
        assert!(is_granted(&mut later) && !is_granted(&mut third) && !is_granted(&mut other));
        // As soon as the source has room it is the turn of who has fewer.
        drop(first);
        assert!(is_granted(&mut other) && !is_granted(&mut third));
        drop(other.granted());
        assert!(is_granted(&mut third));
    }

    #[test]
    fn a_statement_counts_for_each_of_its_sources() {
        let gate = gate_to_sources(4, 1);
        let both = granted(&gate, "a shop lake");
        let (mut shop, mut lake, mut again) = (waits(&gate, "b shop"), waits(&gate, "b lake"), waits(&gate, "b lake shop"));
        drop(both);
        assert!(is_granted(&mut shop) && is_granted(&mut lake));
        drop(shop.granted());
        assert!(!is_granted(&mut again));
        drop(lake.granted());
        assert!(is_granted(&mut again));
    }

    #[test]
    fn no_source_has_all_slots_where_there_are_two() {
        let shares = [1, 2, 3, 4, 5, 16].map(|concurrency| {
            let limits = Limits { concurrency, ..Limits::default() };
            Gate::new(&limits, concurrency as usize).slots.of_source
        });
        assert_eq!(shares, [1, 1, 2, 3, 3, 12]);
    }

    #[test]
    fn a_full_queue_has_room_for_who_has_less_in_it() {
        let gate = gate(1, 1, 3);
        let _held = granted(&gate, "heavy");
        let mut heavy = [waits(&gate, "heavy"), waits(&gate, "heavy"), waits(&gate, "heavy")];
        let _light = [waits(&gate, "light")];
        let told: Vec<_> = heavy.iter_mut().map(|place| place.told.try_recv().is_ok()).collect();
        assert_eq!(told, [false, false, true]);
        let refused = gate.ask(&claim("light"), None).err().expect("the queue is shared out");
        assert_eq!((refused.kind(), refused.retry_after()), (Kind::Exhausted, Some(RETRY.0)));
        let admitted = ["heavy", "light", "new"].map(|name| gate.announce(&who(name)).is_ok());
        assert_eq!(admitted, [false, false, true]);
        assert!(gate.ask(&claim("heavy"), None).is_err());
    }

    #[test]
    fn no_more_are_planned_than_there_is_room_for() {
        let gate = gate(4, 2, 3);
        let coming: Vec<_> = std::iter::from_fn(|| gate.announce(&who("heavy")).ok()).collect();
        assert_eq!((coming.len(), gate.load()), (2 + 3, (0, 5)));
        let light = gate.announce(&who("light")).unwrap();
        drop(coming);
        let _running = [granted(&gate, "heavy"), granted(&gate, "heavy")];
        let _waiting = [waits(&gate, "heavy"), waits(&gate, "heavy"), waits(&gate, "heavy")];
        assert_eq!(gate.load(), (2, 3 + 1));
        assert!(gate.announce(&who("heavy")).is_err());
        drop(light);
        // Of the slots that are left to others.
        granted(&gate, "light");
    }

    #[test]
    fn what_was_planned_has_the_room_that_was_kept_for_it() {
        let gate = gate(1, 1, 1);
        let coming = [gate.announce(&who("a")).unwrap(), gate.announce(&who("a")).unwrap()];
        let asked = coming.map(|coming| gate.ask(&claim("a"), Some(coming)));
        assert!(matches!(asked, [Ok(Asked::Granted(_)), Ok(Asked::Waits(_))]));
        assert_eq!(gate.load(), (1, 1));
        assert!(gate.announce(&who("a")).is_err());
        drop(asked);
        assert_eq!((gate.load(), gate.lock().lines.len()), ((0, 0), 0));
    }

    #[test]
    fn each_may_come_for_whom_there_is_a_slot() {
        let gate = gate(4, 1, 0);
        let coming = ["a", "b", "c", "d", "e"].map(|name| gate.announce(&who(name)));
        assert_eq!(coming.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, true, false]);
    }

    #[test]
    fn who_goes_away_leaves_nothing() {
        let gate = gate(1, 1, 3);
        let held = granted(&gate, "a shop");
        let (left, granted_and_left, mut next) = (waits(&gate, "b shop"), waits(&gate, "c shop lake"), waits(&gate, "d shop"));
        drop(left);
        drop(held);
        drop(granted_and_left);
        assert!(is_granted(&mut next));
        drop(next.granted());
        let state = gate.lock();
        assert_eq!((state.running, state.waiting, state.lines.len()), (0, 0, 0));
        assert_eq!(state.sources.values().sum::<usize>(), 0);
    }

    #[tokio::test]
    async fn waiting_ends() {
        let gate = Arc::new(Gate { patience: Duration::from_millis(20), ..Arc::into_inner(gate_to_sources(2, 1)).unwrap() });
        let _over_shop = granted(&gate, "a shop");
        let over = "no statement over the catalog \"shop\" ended within 20ms to make room";
        let any = "no statement ended within 20ms to make room";
        let refused = async |words| gate.enter(&claim(words), None).await.err().expect("there is no room");
        assert_eq!(refused("b shop").await.message(), over);
        let _other = granted(&gate, "a");
        assert_eq!(refused("b shop").await.message(), any);
        assert_eq!(refused("b").await.message(), any);
        assert_eq!(gate.lock().waiting, 0);
    }
}
