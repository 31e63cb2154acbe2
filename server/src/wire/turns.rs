//! Turns to have a password checked: so many at once, and so many that wait. The addresses that they come from take turns, and when no
//! more can wait the one with most of them there loses the last: who tries passwords from one address keeps no other out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives the turns.
#[derive(Debug)]
pub struct Turns {
    at_once: usize,
    waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Those that wait, the next one first.
    lines: VecDeque<Line>,
}

/// Those of one network.
#[derive(Debug)]
struct Line {
    network: IpAddr,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn, which is the next one's when it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Turns>);

impl Turns {
    /// So many at once, and so many that wait.
    pub fn new(at_once: usize, waiting: usize) -> Arc<Self> {
        Arc::new(Self { at_once, waiting, state: Mutex::default() })
    }

    /// A turn for somebody at this address, once it has come; none where there is no room to wait for it, or no more.
    pub async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Turn> {
        let told = {
            let mut state = self.lock();
            if state.running < self.at_once {
                state.running += 1;
                return Some(Turn(Arc::clone(self)));
            }
            state.wait(network(address), self.waiting)?
        };
        told.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, network: IpAddr, most: usize) -> Option<oneshot::Receiver<Turn>> {
        for line in &mut self.lines {
            line.waiting.retain(|tell| !tell.is_closed());
        }
        let waiting: usize = self.lines.iter().map(|line| line.waiting.len()).sum();
        if waiting >= most {
            let own = self.lines.iter().find(|line| line.network == network).map_or(0, |line| line.waiting.len());
            let longest = self.lines.iter_mut().max_by_key(|line| line.waiting.len())?;
            if longest.waiting.len() <= own + 1 {
                return None;
            }
            // Whose turn cannot come any more is told so by that.
            longest.waiting.pop_back();
        }
        let (tell, told) = oneshot::channel();
        match self.lines.iter_mut().find(|line| line.network == network) {
            Some(line) => line.waiting.push_back(tell),
            None => self.lines.push_back(Line { network, waiting: VecDeque::from([tell]) }),
        }
        Some(told)
    }

    /// Who is next; the others of its network come after those of all others. With nobody there a turn is free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(mut line) = self.lines.pop_front() {
            let Some(next) = line.waiting.pop_front() else { continue };
            if !line.waiting.is_empty() {
                self.lines.push_back(line);
            }
            return Some(next);
        }
        self.running = self.running.saturating_sub(1);
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.0.lock().next();
        if let Some(next) = next {
            // One that has gone away gives it back by itself.
            let _ = next.send(Self(Arc::clone(&self.0)));
        }
    }
}

/// The addresses that count as one: of IPv6 those of a network, since one client has all of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn who_has_most_waiting_gives_way_and_addresses_take_turns() {
        let turns = Turns::new(1, 3);
        let held = turns.take(MANY).await.unwrap();
        let mut many: VecDeque<_> = (0..3).map(|_| Box::pin(turns.take(MANY))).collect();
        assert!(many.iter_mut().all(|waits| waits.as_mut().now_or_never().is_none()));
        // One more of its own takes no place.
        assert!(turns.take(MANY).now_or_never().unwrap().is_none());
        let mut one = Box::pin(turns.take(ONE));
        assert!(one.as_mut().now_or_never().is_none());
        assert!(many.pop_back().unwrap().await.is_none());
        drop(held);
        let first = many.pop_front().unwrap().now_or_never().unwrap().unwrap();
        assert!(one.as_mut().now_or_never().is_none());
        drop(first);
        // Before the second of the others.
        let between = one.now_or_never().unwrap().unwrap();
        let mut second = many.pop_front().unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        drop(between);
        drop(second.now_or_never().unwrap().unwrap());
        let state = turns.lock();
        assert_eq!((state.running, state.lines.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_goes_away_keeps_neither_a_turn_nor_a_place() {
        let turns = Turns::new(1, 2);
        let held = turns.take(ONE).await.unwrap();
        let mut waits = [(); 2].map(|()| Box::pin(turns.take(ONE)));
        assert!(waits.iter_mut().all(|waits| waits.as_mut().now_or_never().is_none()));
        let [gone, stays] = waits;
        drop(gone);
        let mut last = Box::pin(turns.take(ONE));
        assert!(last.as_mut().now_or_never().is_none());
        // Its turn comes, and it goes away without a look at it.
        drop(held);
        drop(stays);
        drop(last.now_or_never().unwrap().unwrap());
        assert_eq!(turns.lock().running, 0);
    }

    #[test]
    fn the_addresses_of_a_network_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:127.0.0.1"), ONE);
        assert_ne!(of("127.0.0.1"), MANY);
    }
}
