//! The lanes of threads that statements run on, each user on one of them. A lane whose threads are all in calls that do not pause is
//! replaced: what has not begun there and what comes after goes on another one, and the old one ends with the last statement on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nexus_flight_catalog::{Principal, Result};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// How often lanes are asked for a sign, and after how long without one a lane is replaced.
const ASKED_EVERY: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_secs(2);
/// How many lanes there may be for one place. Each statement on an old lane still has its slot, so it takes many to come here.
const MOST: usize = 4;

/// All lanes.
pub struct Lanes {
    places: Mutex<Vec<Arc<Lane>>>,
    taken: Mutex<HashMap<Principal, Taken>>,
    /// Those that were replaced, for as long as anything goes on there: connections that others use too, or a commit to its end.
    replaced: Mutex<Vec<Arc<Lane>>>,
    /// Makes the threads of another lane; none where there are no others.
    threads: Option<fn() -> Result<Runtime>>,
    /// The lanes that are there, replaced ones too.
    alive: Arc<AtomicUsize>,
}

/// Some threads.
struct Lane {
    threads: Handle,
    runtime: Option<Runtime>,
    /// Since when a sign is waited for.
    asked: Mutex<Option<Instant>>,
    /// Fires when there is another one in its place.
    replaced: CancellationToken,
    alive: Arc<AtomicUsize>,
}

/// The lane of a user who has statements that run.
#[derive(Debug)]
struct Taken {
    place: usize,
    statements: usize,
}

/// A statement on a lane, which is its user's for that long.
pub struct Stay {
    lanes: Arc<Lanes>,
    principal: Principal,
    lane: Arc<Lane>,
}

impl Lane {
    fn new(threads: Handle, runtime: Option<Runtime>, alive: &Arc<AtomicUsize>) -> Arc<Self> {
        alive.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { threads, runtime, asked: Mutex::default(), replaced: CancellationToken::new(), alive: Arc::clone(alive) })
    }

    /// How long it owes a sign; it is asked for one where it owes none.
    fn owes(self: &Arc<Self>) -> Duration {
        let mut asked = lock(&self.asked);
        if let Some(since) = *asked {
            return since.elapsed();
        }
        *asked = Some(Instant::now());
        let lane = Arc::downgrade(self);
        self.threads.spawn(async move {
            if let Some(lane) = lane.upgrade() {
                *lock(&lane.asked) = None;
            }
        });
        Duration::ZERO
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        if let Some(runtime) = self.runtime.take() {
            // A call that does not pause must hold nothing up.
            runtime.shutdown_background();
        }
    }
}

impl Lanes {
    /// So many, each of threads of its own. They are watched for as long as they are there, from the threads that this is called on.
    pub fn of(count: usize, threads: fn() -> Result<Runtime>) -> Result<Arc<Self>> {
        let alive = Arc::default();
        let places = (0..count).map(|_| threads().map(|runtime| Lane::new(runtime.handle().clone(), Some(runtime), &alive)));
        let places = Mutex::new(places.collect::<Result<_>>()?);
        let lanes = Arc::new(Self { places, taken: Mutex::default(), replaced: Mutex::default(), threads: Some(threads), alive });
        tokio::spawn(watch(Arc::downgrade(&lanes)));
        Ok(lanes)
    }

    /// One, of the threads that this is called on.
    pub fn here() -> Arc<Self> {
        let alive = Arc::default();
        let places = Mutex::new(vec![Lane::new(Handle::current(), None, &alive)]);
        Arc::new(Self { places, taken: Mutex::default(), replaced: Mutex::default(), threads: None, alive })
    }

    /// A place for a statement of a user: that which the user has, or else the one that the fewest have.
    pub fn stay(self: &Arc<Self>, principal: &Principal) -> Option<Stay> {
        let (places, mut taken) = (lock(&self.places), lock(&self.taken));
        let place = match taken.get_mut(principal) {
            Some(own) => {
                own.statements += 1;
                own.place
            }
            None => {
                let users = |place: &usize| taken.values().filter(|other| other.place == *place).count();
                let place = (0..places.len()).min_by_key(users).unwrap_or_default();
                taken.insert(principal.clone(), Taken { place, statements: 1 });
                place
            }
        };
        let lane = places.get(place).map(Arc::clone);
        drop((places, taken));
        lane.map(|lane| Stay { lanes: Arc::clone(self), principal: principal.clone(), lane })
    }

    /// Replaces the lanes that have given no sign for so long.
    pub(crate) fn look(&self, silence: Duration) {
        lock(&self.replaced).retain(|lane| Arc::strong_count(lane) > 1 || lane.threads.metrics().num_alive_tasks() > 0);
        let mut places = lock(&self.places);
        let most = places.len() * MOST;
        for (place, lane) in places.iter_mut().enumerate() {
            let owes = lane.owes();
            let Some(threads) = self.threads.filter(|_| owes > silence && self.alive.load(Ordering::Relaxed) < most) else {
                continue;
            };
            match threads() {
                Ok(runtime) => {
                    let next = Lane::new(runtime.handle().clone(), Some(runtime), &self.alive);
                    let old = std::mem::replace(lane, next);
                    old.replaced.cancel();
                    lock(&self.replaced).push(old);
                    tracing::warn!(
                        lane = place,
                        "statements have kept all threads of a lane for {owes:?} without a pause; others go on beside them"
                    );
                }
                Err(error) => tracing::error!(%error, "a lane that gives no sign cannot be replaced"),
            }
        }
        let replaced = self.alive.load(Ordering::Relaxed).saturating_sub(places.len());
        metrics::gauge!("nexus_lanes_replaced").set(replaced as f64);
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("taken", &self.taken).field("alive", &self.alive).finish_non_exhaustive()
    }
}

async fn watch(lanes: Weak<Lanes>) {
    let mut ticks = tokio::time::interval(ASKED_EVERY);
    loop {
        ticks.tick().await;
        let Some(lanes) = lanes.upgrade() else { return };
        lanes.look(SILENCE);
    }
}

impl Stay {
    /// The threads to run it on.
    pub fn threads(&self) -> Handle {
        self.lane.threads.clone()
    }

    /// Fires when these threads have been replaced, and whatever has not begun there should begin on others.
    pub fn replaced(&self) -> CancellationToken {
        self.lane.replaced.clone()
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut taken = lock(&self.lanes.taken);
        if let Some(own) = taken.get_mut(&self.principal) {
            own.statements -= 1;
            if own.statements == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;

    use super::*;

    fn one_thread() -> Result<Runtime> {
        Ok(Builder::new_multi_thread().worker_threads(1).build().unwrap())
    }

    fn stay(lanes: &Arc<Lanes>, name: &str) -> Stay {
        lanes.stay(&Principal(name.into())).unwrap()
    }

    #[tokio::test]
    async fn users_are_shared_out_over_the_lanes_and_stay_on_theirs() {
        let lanes = Lanes::of(2, one_thread).unwrap();
        let place = |stay: &Stay| lock(&lanes.taken).get(&stay.principal).unwrap().place;
        let (first, second, again) = (stay(&lanes, "ann"), stay(&lanes, "bob"), stay(&lanes, "ann"));
        assert_ne!(place(&first), place(&second));
        assert_eq!(place(&first), place(&again));
        drop(first);
        assert_eq!(place(&again), place(&stay(&lanes, "ann")));
        drop((again, second));
        assert!(lock(&lanes.taken).is_empty());
    }

    #[tokio::test]
    async fn a_lane_without_a_pause_is_replaced_until_its_statements_have_ended() {
        let lanes = Lanes::of(1, one_thread).unwrap();
        let stuck = stay(&lanes, "ann");
        let (entered, is_in) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let call = stuck.threads().spawn(async move {
            entered.send(()).unwrap();
            released.recv().unwrap();
        });
        is_in.recv().unwrap();
        // The first look asks, and no thread is there to answer the second.
        lanes.look(Duration::ZERO);
        lanes.look(Duration::ZERO);
        let next = stay(&lanes, "ann");
        next.threads().spawn(async {}).await.unwrap();
        assert_eq!(lanes.alive.load(Ordering::Relaxed), 2);
        release.send(()).unwrap();
        call.await.unwrap();
        drop(stuck);
        while lanes.alive.load(Ordering::Relaxed) > 1 {
            tokio::task::yield_now().await;
            lanes.look(Duration::from_secs(60));
        }
    }
}
