//! Open transactions: kept in this process, bounded in number, and rolled back when their client leaves them alone.
//!
//! Many a client begins one as it connects and never ends it. So one that has written nothing gives back what it holds of its
//! sources when it is left alone, and goes on with their state of then when its client comes back: after a while, or after a
//! moment where others wait for what it holds, those that were left alone the longest first.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nexus_flight_catalog::{Catalogs, Context, Error, Principal, Result, Source, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::writes::Writes;

/// How many transactions may be open at once, and how many of them one user's.
const OPEN: usize = 1_000;
const OF_ONE: usize = OPEN / 4 * 3;
/// How many savepoints one of them may have.
const SAVEPOINTS: usize = 100;
/// How long one that has written nothing keeps what others wait for, since its client may be about to read on.
const MOMENT: Duration = Duration::from_secs(2);
/// How long a source may take to roll back what was left alone.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(30);
/// How long the end of a session waits for what it has left open: its client waits for that, and may itself hold up an answer.
pub const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// The open transactions.
#[derive(Debug)]
pub struct Transactions {
    open: Arc<Mutex<HashMap<Uuid, Arc<Open>>>>,
    /// How long one may be left alone.
    idle: Duration,
    /// How long one that has written nothing is remembered.
    lives: Duration,
    writes: Arc<Writes>,
}

/// An open transaction. A source takes part from the first statement on that names it.
pub struct Open {
    /// Its id.
    pub id: Uuid,
    principal: Principal,
    /// The session that it was begun in.
    session: Uuid,
    parts: tokio::sync::Mutex<Parts>,
    /// When a statement began or ended to use it last.
    used: watch::Sender<Instant>,
    writes: Arc<Writes>,
}

/// An open transaction that a statement uses: as long as one does, it is not left alone.
#[derive(Debug)]
pub struct Using(Arc<Open>);

impl Deref for Using {
    type Target = Open;

    fn deref(&self) -> &Open {
        &self.0
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.used.send_replace(Instant::now());
    }
}

#[derive(Default)]
struct Parts {
    begun: BTreeMap<String, Arc<dyn Transaction>>,
    /// The oldest first. The sources know them by these ids; the names that clients give may come twice.
    savepoints: Vec<Uuid>,
    /// Those of them that have names, the latest last.
    named: Vec<(String, Uuid)>,
    /// The one catalog that was written to.
    written: Option<String>,
    ended: bool,
}

impl Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Transactions {
    /// With a time after which one that is left alone is rolled back, and one after which it is forgotten.
    pub fn new(idle: Duration, lives: Duration, writes: Arc<Writes>) -> Self {
        Self { open: Arc::default(), idle, lives, writes }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        lock(&self.open).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins one in a session. Errors: `Exhausted` where there are too many.
    pub fn begin(&self, principal: &Principal, session: Uuid) -> Result<Uuid> {
        let open = Arc::new(Open {
            id: Uuid::new_v4(),
            principal: principal.clone(),
            session,
            parts: tokio::sync::Mutex::default(),
            used: watch::Sender::new(Instant::now()),
            writes: Arc::clone(&self.writes),
        });
        let (id, used) = (open.id, open.used.subscribe());
        let mut all = lock(&self.open);
        let own = all.values().filter(|open| open.principal == *principal).count();
        if own >= OF_ONE && !forget_one(&mut all, principal) {
            return Err(Error::exhausted(format!("you have {OF_ONE} open transactions")).with_hint("end some"));
        }
        let busiest = (all.len() >= OPEN).then(|| busiest(&all));
        if busiest.is_some_and(|busiest| !forget_one(&mut all, &busiest)) {
            return Err(Error::exhausted(format!("{OPEN} transactions are open")).with_hint("end some, or try again later"));
        }
        tokio::spawn(left_alone(Arc::downgrade(&open), used, Arc::clone(&self.open), self.idle, self.lives));
        all.insert(id, open);
        Ok(id)
    }

    /// One that is open here. Errors: `Precondition` where it is not, `Denied` where it is another principal's.
    pub fn get(&self, principal: &Principal, id: Uuid) -> Result<Arc<Using>> {
        let open = lock(&self.open).get(&id).cloned().ok_or_else(not_open)?;
        if open.principal != *principal {
            return Err(Error::denied("the transaction was begun by another user").with_hint("begin one of your own"));
        }
        open.used.send_replace(Instant::now());
        Ok(Arc::new(Using(open)))
    }

    /// Ends one: it is not open any more, however that goes. Errors: those of the sources; then nothing was written.
    pub async fn end(&self, cx: &Context, id: Uuid, commits: bool) -> Result<()> {
        let open = self.get(&cx.principal, id)?;
        lock(&self.open).remove(&id);
        open.end(cx, commits).await
    }

    /// Takes out those that were begun in a session which has ended: they are not open any more.
    pub fn take(&self, principal: &Principal, session: Uuid) -> Vec<Arc<Open>> {
        let mut all = lock(&self.open);
        all.extract_if(|_, open| open.session == session && open.principal == *principal).map(|(_, open)| open).collect()
    }
}

impl Open {
    /// The catalogs as this transaction sees them, with a source begun for each of these names that has transactions.
    pub async fn catalogs(&self, cx: &Context, catalogs: &Arc<Catalogs>, names: Vec<String>) -> Result<Arc<Catalogs>> {
        let mut parts = self.parts.lock().await;
        if parts.ended {
            return Err(not_open());
        }
        for name in names {
            let Ok(source) = catalogs.source(&cx.principal, &name) else { continue };
            if parts.begun.contains_key(&name) || !source.spec().capabilities.transactions {
                continue;
            }
            let begun = cx.run(source.begin(cx)).await?;
            for savepoint in &parts.savepoints {
                cx.run(begun.savepoint(cx, &savepoint.to_string())).await?;
            }
            parts.begun.insert(name, begun);
        }
        let begun = parts.begun.iter().map(|(name, source)| (name.clone(), Arc::clone(source) as Arc<dyn Source>));
        Ok(Arc::new(catalogs.replaced(begun)))
    }

    /// Notes that a catalog is written to. Errors: `Unsupported` where another one was, since two sources cannot commit as one.
    pub async fn writes(&self, catalog: &str) -> Result<()> {
        let mut parts = self.parts.lock().await;
        match &parts.written {
            Some(written) if written != catalog => Err(Error::unsupported(format!(
                "the transaction has written to \"{written}\" and cannot write to \"{catalog}\" as well"
            ))
            .with_hint("commit it, and write to the other catalog in a transaction of its own")),
            _ => {
                parts.written = Some(catalog.to_owned());
                Ok(())
            }
        }
    }

    /// Sets a savepoint and gives its id. Errors: `Exhausted` where there are too many.
    pub async fn savepoint(&self, cx: &Context) -> Result<Uuid> {
        let mut parts = self.parts.lock().await;
        if parts.savepoints.len() >= SAVEPOINTS {
            return Err(Error::exhausted(format!("the transaction has {SAVEPOINTS} savepoints"))
                .with_hint("release some")
                .with_retryable(false));
        }
        let id = Uuid::new_v4();
        for source in parts.begun.values() {
            cx.run(source.savepoint(cx, &id.to_string())).await?;
        }
        parts.savepoints.push(id);
        Ok(id)
    }

    /// Sets a savepoint under a name, which may be taken more than once: the latest counts.
    pub async fn name_savepoint(&self, cx: &Context, name: String) -> Result<()> {
        let id = self.savepoint(cx).await?;
        self.parts.lock().await.named.push((name, id));
        Ok(())
    }

    /// Ends the latest savepoint of a name. Errors: as [`Open::end_savepoint`].
    pub async fn end_named(&self, cx: &Context, name: &str, releases: bool) -> Result<()> {
        let id = {
            let parts = self.parts.lock().await;
            let of_name = |(known, id): &&(String, Uuid)| known == name && parts.savepoints.contains(id);
            parts.named.iter().rev().find(of_name).map(|(_, id)| *id)
        };
        let missing = || Error::not_found(format!("there is no savepoint \"{name}\"")).with_hint("set it by SAVEPOINT");
        self.end_savepoint(cx, id.ok_or_else(missing)?, releases).await
    }

    /// Ends a savepoint: goes back to it, or forgets it. Errors: `NotFound` where it is none of this transaction.
    pub async fn end_savepoint(&self, cx: &Context, id: Uuid, releases: bool) -> Result<()> {
        let mut parts = self.parts.lock().await;
        let Some(at) = parts.savepoints.iter().position(|savepoint| *savepoint == id) else {
            return Err(Error::not_found("the savepoint is not one of this transaction").with_hint("it may have been released"));
        };
        for source in parts.begun.values() {
            match releases {
                true => cx.run(source.release(cx, &id.to_string())).await?,
                false => cx.run(source.rollback_to(cx, &id.to_string())).await?,
            }
        }
        parts.savepoints.truncate(if releases { at } else { at + 1 });
        let Parts { named, savepoints, .. } = &mut *parts;
        named.retain(|(_, id)| savepoints.contains(id));
        Ok(())
    }

    /// What it has, unless a statement uses it: besides the list and who asks, whoever holds it is one. One that comes now waits
    /// until this is dropped.
    fn alone(self: &Arc<Self>) -> Option<tokio::sync::MutexGuard<'_, Parts>> {
        let parts = self.parts.try_lock().ok()?;
        (Arc::strong_count(self) <= 2).then_some(parts)
    }

    /// Rolls it back, for one that is not in the list any more: what is late goes as it is dropped, which its sources forget.
    pub async fn roll_back(&self, until: Instant) -> Result<()> {
        let cx = self.context(until);
        cx.run(self.end(&cx, false)).await
    }

    /// For what is done without its client.
    fn context(&self, until: Instant) -> Context {
        Context { deadline: Some(until), ..Context::new(self.principal.clone()) }
    }

    async fn end(&self, cx: &Context, commits: bool) -> Result<()> {
        let mut parts = self.parts.lock().await;
        if std::mem::replace(&mut parts.ended, true) {
            // Somebody else has, a moment before: nothing is left to commit.
            return if commits { Err(not_open()) } else { Ok(()) };
        }
        let written = parts.written.take();
        let committing = written.as_ref().filter(|_| commits).map(|catalog| self.writes.committing(catalog));
        let mut outcome = Ok(());
        for (name, source) in std::mem::take(&mut parts.begun) {
            // Those that were only read have nothing to commit.
            let ended = match commits && written.as_ref() == Some(&name) {
                true => {
                    // What goes on of it when it is left holds another one.
                    let cx = cx.holding(self.writes.committing(&name));
                    cx.run(source.commit(&cx)).await
                }
                false => cx.run(source.rollback(cx)).await,
            };
            outcome = outcome.and(ended);
        }
        drop(committing);
        outcome
    }
}

impl Parts {
    /// Gives back what it holds of its sources, unless it has written; whether it did.
    async fn rest(&mut self, cx: &Context) -> bool {
        if self.written.is_some() {
            return false;
        }
        for source in std::mem::take(&mut self.begun).into_values() {
            // It wrote nothing, and a source forgets what is dropped.
            let _ = cx.run(source.rollback(cx)).await;
        }
        true
    }

    /// Where others ask for what it could give back.
    fn wanted(&self) -> Vec<Arc<Semaphore>> {
        let begun = self.begun.values().filter(|_| self.written.is_none());
        begun.filter_map(|source| source.wanted()).collect()
    }
}

/// Who has the most of them.
fn busiest(all: &HashMap<Uuid, Arc<Open>>) -> Principal {
    let mut counts: HashMap<&Principal, usize> = HashMap::new();
    for open in all.values() {
        *counts.entry(&open.principal).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(Principal::anonymous, |(principal, _)| principal.clone())
}

/// Makes room: forgets the transaction of a principal that was left alone the longest of those that have written nothing.
fn forget_one(all: &mut HashMap<Uuid, Arc<Open>>, principal: &Principal) -> bool {
    // Whoever uses one holds it, beside the list.
    let is_clean =
        |open: &Arc<Open>| Arc::strong_count(open) == 1 && open.parts.try_lock().is_ok_and(|parts| parts.written.is_none());
    let is_theirs = |open: &&Arc<Open>| open.principal == *principal && is_clean(open);
    let oldest = all.values().filter(is_theirs).min_by_key(|open| *open.used.borrow()).map(|open| open.id);
    oldest.is_some_and(|id| all.remove(&id).is_some())
}

/// Rolls a transaction back once it was left alone for so long, or is to give back what it holds, and ends it if it has written
/// or is past its time.
async fn left_alone(
    open: Weak<Open>,
    mut used: watch::Receiver<Instant>,
    all: Arc<Mutex<HashMap<Uuid, Arc<Open>>>>,
    idle: Duration,
    lives: Duration,
) {
    let mut rested = None;
    loop {
        let last = *used.borrow_and_update();
        // Once it holds nothing there is nothing more to give back until it is used again.
        let until = last + if rested == Some(last) { lives.max(idle) } else { idle };
        let turn = tokio::select! {
            biased;
            used = used.changed() => match used {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = tokio::time::sleep_until(until.into()) => None,
            turn = turn(&open, last + MOMENT) => Some(turn),
        };
        let Some(open) = open.upgrade() else { return };
        let Some(mut parts) = open.alone() else {
            open.used.send_replace(Instant::now());
            continue;
        };
        let cx = open.context(Instant::now() + ROLLED_BACK_WITHIN);
        if rested != Some(last) && parts.rest(&cx).await {
            rested = Some(last);
            if let Some(turn) = turn {
                tracing::info!(transaction = %open.id, "a transaction that has written nothing makes room for others");
                turn.forget();
            }
            continue;
        }
        // What it has written it keeps: another one is asked.
        if turn.is_some() {
            continue;
        }
        drop(parts);
        lock(&all).remove(&open.id);
        match open.end(&cx, false).await {
            Ok(()) => tracing::info!(transaction = %open.id, "a transaction was left alone and is rolled back"),
            Err(error) => {
                tracing::warn!(transaction = %open.id, %error, "a transaction was left alone and cannot be rolled back")
            }
        }
        return;
    }
}

/// The turn of a transaction, left alone until then, to give back what others wait for. Those that were left alone for longer
/// have theirs before it; not taken for good, it is that of the next.
async fn turn(open: &Weak<Open>, from: Instant) -> OwnedSemaphorePermit {
    tokio::time::sleep_until(from.into()).await;
    let wanted = open.upgrade().and_then(|open| open.alone().map(|parts| parts.wanted()));
    let mut turns: FuturesUnordered<_> = wanted.into_iter().flatten().map(|wanted| wanted.acquire_owned()).collect();
    match turns.next().await {
        Some(Ok(turn)) => turn,
        _ => std::future::pending().await,
    }
}

fn not_open() -> Error {
    Error::precondition("the transaction is not open here")
        .with_hint("it has ended, was left alone for too long, or is open on another server: begin another one; behind a balancer, keep to one connection to one server, or commit automatically")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    /// Transactions that nobody ends while a test runs.
    fn transactions() -> Transactions {
        let long = Duration::from_secs(3_600);
        Transactions::new(long, long, Arc::default())
    }

    fn user(name: &str) -> Principal {
        Principal(name.into())
    }

    fn begun(all: &Transactions, principal: &Principal, count: usize) -> Vec<Uuid> {
        (0..count).map(|_| all.begin(principal, Uuid::nil()).unwrap()).collect()
    }

    /// Lets transactions have written, so that none of them is forgotten.
    async fn write(all: &Transactions, principal: &Principal, ids: &[Uuid]) {
        for id in ids {
            all.get(principal, *id).unwrap().writes("demo").await.unwrap();
        }
    }

    fn is_open(all: &Transactions, principal: &Principal, id: Uuid) -> bool {
        lock(&all.open).get(&id).is_some_and(|open| open.principal == *principal)
    }

    #[tokio::test]
    async fn one_user_forgets_the_oldest_that_has_written_nothing() {
        let (all, ann, bob) = (transactions(), user("ann"), user("bob"));
        let ids = begun(&all, &ann, OF_ONE);
        let other = begun(&all, &bob, 1);
        write(&all, &ann, &ids[..1]).await;
        // The second was used a moment ago, so the third was left alone the longest.
        all.get(&ann, ids[1]).unwrap();
        let one_more = begun(&all, &ann, 1);
        assert_eq!(all.len(), OF_ONE + 1);
        assert_eq!(all.get(&ann, ids[2]).unwrap_err().kind(), Kind::Precondition);
        for id in [ids[0], ids[1], ids[3], one_more[0]] {
            assert!(is_open(&all, &ann, id));
        }
        assert!(is_open(&all, &bob, other[0]));
    }

    #[tokio::test]
    async fn one_user_who_has_written_in_all_of_them_has_no_more() {
        let (all, ann, bob) = (transactions(), user("ann"), user("bob"));
        let ids = begun(&all, &ann, OF_ONE);
        write(&all, &ann, &ids).await;
        let error = all.begin(&ann, Uuid::nil()).unwrap_err();
        assert_eq!((error.kind(), all.len()), (Kind::Exhausted, OF_ONE));
        insta::assert_snapshot!(error, @"you have 750 open transactions; end some");
        begun(&all, &bob, 1);
        all.end(&Context::new(ann.clone()), ids[0], false).await.unwrap();
        // In the place of one that has ended are those that have not written yet, one at a time.
        let clean = begun(&all, &ann, 2);
        assert_eq!((is_open(&all, &ann, clean[0]), is_open(&all, &ann, clean[1])), (false, true));
        assert_eq!(all.len(), OF_ONE + 1);
    }

    #[tokio::test]
    async fn where_all_are_taken_who_has_the_most_forgets_one() {
        let (all, ann, bob, eve) = (transactions(), user("ann"), user("bob"), user("eve"));
        let least = begun(&all, &bob, OPEN - OF_ONE);
        let most = begun(&all, &ann, OF_ONE);
        assert_eq!(all.len(), OPEN);
        let own = begun(&all, &eve, 1);
        assert_eq!(all.len(), OPEN);
        assert!(is_open(&all, &eve, own[0]));
        assert!(!is_open(&all, &ann, most[0]));
        assert!(most[1..].iter().all(|id| is_open(&all, &ann, *id)));
        assert!(least.iter().all(|id| is_open(&all, &bob, *id)));
        // What others have is not taken, also where they have written nothing.
        write(&all, &ann, &most[1..]).await;
        let error = all.begin(&eve, Uuid::nil()).unwrap_err();
        assert_eq!((error.kind(), all.len()), (Kind::Exhausted, OPEN));
        insta::assert_snapshot!(error, @"1000 transactions are open; end some, or try again later");
        assert!(least.iter().all(|id| is_open(&all, &bob, *id)));
        all.end(&Context::new(bob.clone()), least[0], false).await.unwrap();
        begun(&all, &eve, 1);
        assert_eq!(all.len(), OPEN);
    }

    #[tokio::test]
    async fn with_a_session_go_its_own_transactions() {
        let (all, ann, bob) = (transactions(), user("ann"), user("bob"));
        let (ended, lasts) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of_ann = [ended, ended, lasts].map(|session| all.begin(&ann, session).unwrap());
        let of_bob = all.begin(&bob, ended).unwrap();
        write(&all, &ann, &of_ann).await;
        let running = all.get(&ann, of_ann[0]).unwrap();
        let taken = all.take(&ann, ended);
        assert_eq!(taken.len(), 2);
        assert_eq!(of_ann.map(|id| is_open(&all, &ann, id)), [false, false, true]);
        assert!(is_open(&all, &bob, of_bob));
        for open in taken {
            open.roll_back(Instant::now() + CLOSED_WITHIN).await.unwrap();
        }
        // A statement that holds it comes too late.
        let catalogs = Arc::new(Catalogs::default());
        let late = running.catalogs(&Context::new(ann.clone()), &catalogs, vec![]).await;
        assert_eq!(late.unwrap_err().kind(), Kind::Precondition);
        assert!(all.take(&ann, ended).is_empty());
    }

    #[tokio::test]
    async fn one_transaction_has_only_so_many_savepoints() {
        let (all, ann) = (transactions(), user("ann"));
        let cx = Context::new(ann.clone());
        let open = all.get(&ann, begun(&all, &ann, 1)[0]).unwrap();
        let mut set = Vec::new();
        for _ in 0..SAVEPOINTS {
            set.push(open.savepoint(&cx).await.unwrap());
        }
        let error = open.savepoint(&cx).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
        insta::assert_snapshot!(error, @"the transaction has 100 savepoints; release some");
        open.name_savepoint(&cx, "s".to_owned()).await.unwrap_err();
        // Going back to the last forgets none; to the one before it, that last one.
        open.end_savepoint(&cx, set[SAVEPOINTS - 1], false).await.unwrap();
        open.savepoint(&cx).await.unwrap_err();
        open.end_savepoint(&cx, set[SAVEPOINTS - 2], false).await.unwrap();
        open.name_savepoint(&cx, "s".to_owned()).await.unwrap();
        open.savepoint(&cx).await.unwrap_err();
        // With the first all that were set after it are released.
        open.end_savepoint(&cx, set[0], true).await.unwrap();
        assert_eq!(open.end_named(&cx, "s", false).await.unwrap_err().kind(), Kind::NotFound);
        for _ in 0..SAVEPOINTS {
            open.savepoint(&cx).await.unwrap();
        }
        open.savepoint(&cx).await.unwrap_err();
    }
}
