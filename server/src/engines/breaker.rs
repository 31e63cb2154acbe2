//! When an engine is asked no more: after so many failures one after the other, until a trial of it succeeds.
//!
//! A breaker counts what it is told, and knows no engine and no clock. It trips by a probe alone: what statements tell of may lie behind
//! the engine, so where they have failed often enough a probe decides.

use std::time::{Duration, Instant, SystemTime};

/// Whether an engine is asked.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The failures after which it is asked no more.
    most: u32,
    /// For how long.
    rest: Duration,
    /// How many came one after the other.
    failures: u32,
    place: Place,
    since: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Statements go through.
    Closed,
    /// None does until then.
    Open { until: Instant },
    /// A probe is under way that decides.
    Trying,
}

/// What becomes of a statement that comes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It goes through.
    Free,
    /// It waits for what a probe finds.
    Trial,
    /// It is refused, and has to wait so long until it is worth to come again.
    Shut(Duration),
}

impl Breaker {
    /// One that lets statements through, from `at` on.
    pub(super) fn new(most: u32, rest: Duration, at: SystemTime) -> Self {
        Self { most, rest, failures: 0, place: Place::Closed, since: at }
    }

    pub(super) fn way(&self, now: Instant) -> Way {
        match self.place {
            Place::Closed => Way::Free,
            Place::Trying => Way::Trial,
            Place::Open { until } if now >= until => Way::Trial,
            Place::Open { until } => Way::Shut(until - now),
        }
    }

    /// Whether statements go through.
    pub(super) fn is_closed(&self) -> bool {
        self.place == Place::Closed
    }

    /// Whether a probe is under way on which it hangs.
    pub(super) fn is_trying(&self) -> bool {
        self.place == Place::Trying
    }

    /// The failures that came one after the other.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when statements go through, or do not.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// A statement was answered.
    pub(super) fn answered(&mut self) {
        if self.is_closed() {
            self.failures = 0;
        }
    }

    /// A statement was not. Whether it is time for a probe to decide.
    pub(super) fn failed(&mut self) -> bool {
        if !self.is_closed() {
            // One that began before.
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures >= self.most
    }

    /// A probe begins.
    pub(super) fn begins(&mut self) {
        if !self.is_closed() {
            self.place = Place::Trying;
        }
    }

    /// A probe has ended.
    pub(super) fn ends(&mut self, is_up: bool, now: Instant, at: SystemTime) {
        let was_closed = self.is_closed();
        if is_up {
            (self.failures, self.place) = (0, Place::Closed);
        } else {
            self.failures = self.failures.saturating_add(1);
            if was_closed && self.failures < self.most {
                return;
            }
            self.place = Place::Open { until: now + self.rest };
        }
        if self.is_closed() != was_closed {
            self.since = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(30);

    #[test]
    fn it_trips_by_a_probe_after_so_many_failures() {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut breaker = Breaker::new(3, REST, at);
        assert!(!breaker.failed() && !breaker.failed());
        breaker.answered();
        assert_eq!(breaker.failures(), 0, "they have to come one after the other");
        assert!(!breaker.failed() && !breaker.failed() && breaker.failed());
        breaker.begins();
        assert_eq!(breaker.way(now), Way::Free, "until it is known");
        breaker.ends(true, now, at);
        assert_eq!((breaker.way(now), breaker.failures()), (Way::Free, 0), "it lay behind the engine");

        for _ in 0..2 {
            breaker.ends(false, now, at);
            assert_eq!(breaker.way(now), Way::Free);
        }
        let later = at + REST;
        breaker.ends(false, now, later);
        assert_eq!((breaker.way(now), breaker.since()), (Way::Shut(REST), later), "probes alone trip it too");
    }

    #[test]
    fn one_trial_decides() {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut breaker = Breaker::new(1, REST, at);
        breaker.ends(false, now, at);
        assert_eq!(breaker.way(now + REST / 2), Way::Shut(REST / 2));
        assert!(!breaker.failed(), "what began before it tripped");
        let mut now = now + REST;
        for failures in 2..5 {
            assert_eq!(breaker.way(now), Way::Trial);
            breaker.begins();
            assert!(breaker.is_trying());
            assert_eq!(breaker.way(now), Way::Trial, "who comes meanwhile waits for it too");
            breaker.ends(false, now, at + REST);
            assert_eq!((breaker.way(now), breaker.failures(), breaker.since()), (Way::Shut(REST), failures, at));
            now += REST;
        }
        breaker.begins();
        breaker.ends(true, now, at + REST);
        assert_eq!((breaker.way(now), breaker.failures(), breaker.since()), (Way::Free, 0, at + REST));
    }
}
