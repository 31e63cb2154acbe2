//! Which statements run, and whose turn is next. A slot is a statement's until the last of its work has ended. Those who have the fewest
//! slots are served first, and those who have the most statements waiting lose the last of them when the queue is full: who sends
//! little is let through beside who sends much.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Error, Principal, Result};
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
}

/// Lets so many statements run and so many wait, and refuses the rest at once.
#[derive(Debug)]
pub struct Gate {
    slots: usize,
    /// The slots that one principal can have.
    share: usize,
    queue: usize,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
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
    /// Over what runs statements.
    pub fn new(inner: R, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl Gate {
    /// As configured; one principal has at most `share` slots.
    pub fn new(limits: &Limits, share: usize) -> Arc<Self> {
        let (slots, queue, patience) = (limits.concurrency as usize, limits.queue as usize, limits.queue_wait.0);
        Arc::new(Self { slots, share, queue, patience, state: Mutex::default() })
    }

    /// Counts a statement that is to be planned among those that there is room for, for as long as this is held: where many come at
    /// once, those that would be refused afterwards are refused before. Errors: the refusal.
    pub fn announce(self: &Arc<Self>, principal: &Principal) -> Result<Coming> {
        let mut state = self.lock();
        let (running, coming, own) =
            state.lines.get(principal).map_or((0, 0, 0), |line| (line.running, line.coming, line.queued()));
        let left = self.queue.saturating_sub(state.waiting);
        let of_all = self.slots.saturating_sub(state.running) + left;
        let of_one = self.share.saturating_sub(running) + left;
        let is_full = state.coming >= of_all || coming >= of_one;
        if is_full && !state.lines.values().any(|line| line.queued() > own + 1) {
            drop(state);
            return Err(self.is_full());
        }
        state.coming += 1;
        state.lines.entry(principal.clone()).or_default().coming += 1;
        Ok(Coming { gate: Arc::clone(self), principal: principal.clone() })
    }

    async fn enter(self: &Arc<Self>, principal: &Principal) -> Result<Slot> {
        let mut place = match self.ask(principal)? {
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
            Err(_) => Err(self.refusal(&format!("no statement ended within {:?} to make room", self.patience))),
        }
    }

    fn ask(self: &Arc<Self>, principal: &Principal) -> Result<Asked> {
        let mut state = self.lock();
        state.turns += 1;
        let turn = state.turns;
        let line = state.lines.get(principal);
        let (own, is_free) = line.map_or((0, true), |line| {
            let own = line.waiting.len();
            (own, own == 0 && line.running < self.share)
        });
        if is_free && state.running < self.slots {
            let line = state.lines.entry(principal.clone()).or_default();
            line.running += 1;
            line.last = turn;
            state.running += 1;
            return Ok(Asked::Granted(Slot::new(self, principal)));
        }
        if state.waiting >= self.queue && !state.displace(own) {
            drop(state);
            return Err(self.is_full());
        }
        let (tell, told) = oneshot::channel();
        state.waiting += 1;
        state.lines.entry(principal.clone()).or_default().waiting.push_back(Waiting { turn, tell });
        Ok(Asked::Waits(Place { gate: Arc::clone(self), principal: principal.clone(), turn, told, is_settled: false }))
    }

    fn is_full(&self) -> Error {
        self.refusal(&format!("the queue of {} statements is full", self.queue))
    }

    fn leave(&self, principal: &Principal, held: Option<Duration>) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
        if let Some(line) = state.lines.get_mut(principal) {
            line.running = line.running.saturating_sub(1);
        }
        if let Some(held) = held {
            state.typical += LATEST * (held.as_secs_f64() - state.typical);
        }
        state.forget(principal);
        state.hand_out(self.slots, self.share);
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
        let wait = Duration::try_from_secs_f64(typical * (waiting + 1) as f64 / self.slots as f64).unwrap_or(RETRY.1);
        Error::exhausted(why)
            .with_hint("try again later, or raise limits.concurrency or limits.queue")
            .with_retry_after(wait.clamp(RETRY.0, RETRY.1))
    }
}

impl State {
    /// Gives free slots to those that wait: first to who has the fewest, and among those to who was served longest ago.
    fn hand_out(&mut self, slots: usize, share: usize) {
        while self.running < slots {
            let waits = |line: &&mut Line| line.running < share && !line.waiting.is_empty();
            let Some(line) = self.lines.values_mut().filter(waits).min_by_key(|line| (line.running, line.last)) else { return };
            let Some(next) = line.waiting.pop_front() else { return };
            self.waiting -= 1;
            self.turns += 1;
            line.last = self.turns;
            line.running += 1;
            self.running += 1;
            // One that is just going away gives it back by itself.
            let _ = next.tell.send(Turn::Granted);
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

/// A statement that is planned: there is room for it, until this is dropped.
#[derive(Debug)]
pub struct Coming {
    gate: Arc<Gate>,
    principal: Principal,
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.coming = state.coming.saturating_sub(1);
        if let Some(line) = state.lines.get_mut(&self.principal) {
            line.coming = line.coming.saturating_sub(1);
        }
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
    principal: Principal,
    turn: u64,
    told: oneshot::Receiver<Turn>,
    /// Whether it is in the queue no more, and owes nothing.
    is_settled: bool,
}

impl Place {
    fn granted(mut self) -> Slot {
        self.is_settled = true;
        Slot::new(&self.gate, &self.principal)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut state = self.gate.lock();
        let line = state.lines.get_mut(&self.principal);
        let at = line.as_ref().and_then(|line| line.waiting.iter().position(|waiting| waiting.turn == self.turn));
        if let (Some(line), Some(at)) = (line, at) {
            line.waiting.remove(at);
            state.waiting -= 1;
            state.forget(&self.principal);
            return;
        }
        drop(state);
        // Its turn had come when it went away.
        if let Ok(Turn::Granted) = self.told.try_recv() {
            self.gate.leave(&self.principal, None);
        }
    }
}

/// One of the slots, given back when it is dropped.
struct Slot {
    gate: Arc<Gate>,
    principal: Principal,
    since: Instant,
}

impl Slot {
    fn new(gate: &Arc<Gate>, principal: &Principal) -> Self {
        Self { gate: Arc::clone(gate), principal: principal.clone(), since: Instant::now() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.leave(&self.principal, Some(self.since.elapsed()));
    }
}

#[async_trait]
impl<R: Run> Run for Admission<R> {
    async fn run(&self, planned: Planned) -> Result<Answer> {
        let span = tracing::info_span!(target: TRACE, parent: &planned.query.cx.span, "wait");
        hold(self.gate.enter(&planned.query.cx.principal).instrument(span).await?);
        self.inner.run(planned).await
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn gate(slots: usize, share: usize, queue: usize) -> Arc<Gate> {
        Arc::new(Gate { slots, share, queue, patience: Duration::from_secs(60), state: Mutex::default() })
    }

    fn who(name: &str) -> Principal {
        Principal(name.into())
    }

    fn granted(gate: &Arc<Gate>, name: &str) -> Slot {
        match gate.ask(&who(name)) {
            Ok(Asked::Granted(slot)) => slot,
            _ => panic!("{name} was not let in"),
        }
    }

    fn waits(gate: &Arc<Gate>, name: &str) -> Place {
        match gate.ask(&who(name)) {
            Ok(Asked::Waits(place)) => place,
            _ => panic!("{name} does not wait"),
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
    fn a_full_queue_has_room_for_who_has_less_in_it() {
        let gate = gate(1, 1, 3);
        let _held = granted(&gate, "heavy");
        let mut heavy = [waits(&gate, "heavy"), waits(&gate, "heavy"), waits(&gate, "heavy")];
        let _light = [waits(&gate, "light")];
        let told: Vec<_> = heavy.iter_mut().map(|place| place.told.try_recv().is_ok()).collect();
        assert_eq!(told, [false, false, true]);
        let refused = gate.ask(&who("light")).err().expect("the queue is shared out");
        assert_eq!((refused.kind(), refused.retry_after()), (Kind::Exhausted, Some(RETRY.0)));
        let admitted = ["heavy", "light", "new"].map(|name| gate.announce(&who(name)).is_ok());
        assert_eq!(admitted, [false, false, true]);
        assert!(gate.ask(&who("heavy")).is_err());
    }

    #[test]
    fn no_more_are_planned_than_there_is_room_for() {
        let gate = gate(4, 2, 3);
        let coming: Vec<_> = std::iter::from_fn(|| gate.announce(&who("heavy")).ok()).collect();
        assert_eq!(coming.len(), 2 + 3);
        let light = gate.announce(&who("light")).unwrap();
        drop(coming);
        let _running = [granted(&gate, "heavy"), granted(&gate, "heavy")];
        let _waiting = [waits(&gate, "heavy"), waits(&gate, "heavy"), waits(&gate, "heavy")];
        assert!(gate.announce(&who("heavy")).is_err());
        drop(light);
        // Of the slots that are left to others.
        granted(&gate, "light");
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
        let held = granted(&gate, "a");
        let (left, granted_and_left, mut next) = (waits(&gate, "b"), waits(&gate, "c"), waits(&gate, "d"));
        drop(left);
        drop(held);
        drop(granted_and_left);
        assert!(is_granted(&mut next));
        drop(next.granted());
        let state = gate.lock();
        assert_eq!((state.running, state.waiting, state.lines.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn waiting_ends() {
        let gate = Arc::new(Gate { patience: Duration::from_millis(20), ..Arc::into_inner(gate(1, 1, 1)).unwrap() });
        let _held = granted(&gate, "a");
        let refused = gate.enter(&who("b")).await.err().expect("there is no room");
        assert_eq!(refused.message(), "no statement ended within 20ms to make room");
        assert_eq!(gate.lock().waiting, 0);
    }
}
