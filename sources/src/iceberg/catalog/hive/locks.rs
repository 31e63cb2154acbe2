//! The lock of a table in a metastore: asked for, waited for, kept as long as it is needed, and given back.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use nexus_flight_catalog::{Error, Result};
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{ANSWERED_WITHIN, CHANGED_WITHIN, Hive, Session, in_time, value};
use crate::iceberg::catalog::thrift::{Answers, Call, I32, I64, Outcome, STRUCT, TEXT, check, wrong};

/// How long is waited for a lock that others hold.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);
/// How long is waited before it is looked after at first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long it is until the metastore is told again that a lock is held, and how often it is: by default it ends one of which it has
/// heard nothing for five minutes.
const BEAT: Duration = Duration::from_secs(30);
const MOST_BEATS: u32 = 20;
/// Who holds a lock, as those are told who ask the metastore.
const HOLDER: &str = "nexus-gateway";

// What a lock is of, and what it may be.
const EXCLUSIVE: i32 = 3;
const TABLE: i32 = 2;
const ACQUIRED: i32 = 1;
const WAITING: i32 = 2;

/// The lock of a table, which is to be given back.
#[derive(Debug)]
pub(super) struct Lock<'a> {
    hive: &'a Hive,
    number: i64,
    /// Whether the metastore has said that it does not have it any more.
    is_lost: AtomicBool,
}

impl<'a> Lock<'a> {
    /// That of a table, once nobody else has one. Errors: `Unavailable` where others have it for too long, or the metastore gives none.
    pub(super) async fn of(hive: &'a Hive, schema: &str, name: &str) -> Result<Self> {
        let (number, mut state) = asked(hive, schema, name, &format!("{HOLDER}-{}", Uuid::new_v4())).await?;
        let lock = Self { hive, number, is_lost: AtomicBool::new(false) };
        let (until, mut wait) = (Instant::now() + LOCKED_WITHIN, FIRST_WAIT);
        let error = loop {
            match state {
                ACQUIRED => return Ok(lock),
                WAITING if Instant::now() < until => {}
                WAITING => {
                    let message = format!("others have held the lock of \"{schema}.{name}\" for {} s", LOCKED_WITHIN.as_secs());
                    break Error::unavailable(message)
                        .with_hint("send the statement again; SHOW LOCKS of Hive tells who they are");
                }
                _ => break Error::unavailable(format!("the metastore gives no lock of \"{schema}.{name}\"")),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            // This also tells the metastore that somebody still waits.
            state = match lock.state().await {
                Ok(state) => state,
                Err(error) => break error,
            };
        };
        lock.give_back().await;
        Err(error)
    }

    /// What comes of something that is done under the lock. Meanwhile the metastore is told that it is held, as often as that is done.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let told = async {
            for _ in 0..MOST_BEATS {
                sleep(BEAT).await;
                self.beat().await;
            }
        };
        let work = pin!(work);
        let told = pin!(told);
        match select(work, told).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => work.await,
        }
    }

    /// Errors: `Unavailable` where the metastore has ended the lock, so that another may have it.
    pub(super) fn check_held(&self) -> Result<()> {
        if !self.is_lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::unavailable("the metastore has ended the lock of the table before that was changed")
            .with_hint("send the statement again"))
    }

    /// Gives it back. Where that fails the metastore ends it in its time.
    pub(super) async fn give_back(self) {
        let lock = self.number;
        match self.told("unlock").await {
            Ok(Outcome::Done) => {}
            Ok(outcome) => tracing::warn!(lock, ?outcome, "a lock in the metastore was not given back, and ends in its time"),
            Err(cause) => tracing::warn!(lock, %cause, "a lock in the metastore was not given back, and ends in its time"),
        }
    }

    /// How it is with it.
    async fn state(&self) -> Result<i32> {
        let (_, state) = self.hive.session().await?.lock(&self.call("check_lock")).await?;
        Ok(state)
    }

    async fn beat(&self) {
        let lock = self.number;
        match self.told("heartbeat").await {
            Ok(Outcome::Thrown { message: said, .. }) => {
                tracing::warn!(lock, said, "the metastore has ended a lock that is held");
                self.is_lost.store(true, Ordering::Relaxed);
            }
            Ok(_) => {}
            // Perhaps it hears the next one.
            Err(cause) => tracing::debug!(lock, %cause, "the metastore could not be told that a lock is held"),
        }
    }

    /// What comes of a call about it that returns nothing.
    async fn told(&self, name: &'static str) -> Result<Outcome> {
        self.hive.session().await?.call(&self.call(name)).await
    }

    /// A call about it.
    fn call(&self, name: &'static str) -> Call {
        Call::new(name).begin(1).long(1, self.number).end().end()
    }
}

/// The number of a new lock of a table, and how it is with it. Where the answer is lost it is looked for by what its holder calls
/// itself there, since a lock that nobody knows ends only in its time.
async fn asked(hive: &Hive, schema: &str, name: &str, holder: &str) -> Result<(i64, i32)> {
    let call = lock_call(schema, name, holder);
    let given = async { hive.session().await?.lock(&call).await };
    let error = match given.await {
        Ok(given) => return Ok(given),
        Err(error) => error,
    };
    let found = async { hive.session().await?.lock_of(schema, name, holder).await };
    if let Ok(Some(given)) = found.await {
        return Ok(given);
    }
    let hint = "see whether the metastore has its tables of locks and transactions, and what it says in its log";
    Err(if error.hint().is_none() { error.with_hint(hint) } else { error })
}

fn lock_call(schema: &str, name: &str, holder: &str) -> Call {
    let call = Call::new("lock").begin(1);
    let call = call.begin_only(1).number(1, EXCLUSIVE).number(2, TABLE).text(3, schema).text(4, name).end();
    call.text(3, HOLDER).text(4, HOLDER).text(5, holder).end().end()
}

impl Session<'_> {
    /// The number of a lock and how it is with it, of calls that say that.
    async fn lock(&mut self, call: &Call) -> Result<(i64, i32)> {
        let answers = &mut self.answers;
        in_time(self.server, CHANGED_WITHIN, async move {
            check(value(answers.call(call).await?)?, STRUCT)?;
            let (mut lock, mut state) = (None, None);
            while let Some((kind, id)) = answers.field().await? {
                match (kind, id) {
                    (I64, 1) => lock = Some(answers.long().await?),
                    (I32, 2) => state = Some(answers.number().await?),
                    _ => answers.skip(kind).await?,
                }
            }
            answers.end().await?;
            lock.zip(state).ok_or_else(|| wrong("there is no lock in it"))
        })
        .await
    }

    /// The same of the lock of a table whose holder calls itself so, if there is one.
    async fn lock_of(&mut self, schema: &str, name: &str, holder: &str) -> Result<Option<(i64, i32)>> {
        let call = Call::new("show_locks").begin(1).text(1, schema).text(2, name).end().end();
        let answers = &mut self.answers;
        in_time(self.server, ANSWERED_WITHIN, async move {
            check(value(answers.call(&call).await?)?, STRUCT)?;
            let mut found = None;
            while let Some(count) = answers.structs().await? {
                for _ in 0..count {
                    found = shown(answers, holder).await?.or(found);
                }
            }
            answers.end().await?;
            Ok(found)
        })
        .await
    }
}

/// A lock that is shown, where it is that of this holder.
async fn shown<S: AsyncRead + Unpin>(answers: &mut Answers<S>, holder: &str) -> Result<Option<(i64, i32)>> {
    let (mut lock, mut state, mut is_ours) = (None, None, false);
    while let Some((kind, id)) = answers.field().await? {
        match (kind, id) {
            (I64, 1) => lock = Some(answers.long().await?),
            (I32, 5) => state = Some(answers.number().await?),
            (TEXT, 13) => is_ours = answers.text().await? == holder,
            _ => answers.skip(kind).await?,
        }
    }
    Ok(lock.zip(state).filter(|_| is_ours))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nexus_flight_catalog::Kind;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::tests::{put, text};
    use super::*;
    use crate::lake::Lake;
    use crate::stores::{Location, Store};

    /// A metastore that closes the first connection, and gives this answer on the second.
    async fn forgetful(answer: Vec<u8>) -> (Hive, TempDir) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("thrift://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut piece = [0; 1024];
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut piece[..1]).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            // Until the other side has closed it: what is not read yet would be lost.
            while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
        });
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Folder(folder.path().to_owned());
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        (Hive::open("lake", &uri, Arc::new(lake)).unwrap(), folder)
    }

    /// An answer to a call: what it returns.
    fn reply(name: &str, rest: &[u8]) -> Vec<u8> {
        [&b"\x80\x01\x00\x02"[..], &put(name)[..], &[0; 4][..], rest].concat()
    }

    /// The answer that shows these locks, which are waited for.
    fn shows(locks: &[(u8, &str)]) -> Vec<u8> {
        let mut rest = [&b"\x0c\x00\x00\x0f\x00\x01\x0c"[..], &(locks.len() as u32).to_be_bytes()[..]].concat();
        for (number, holder) in locks {
            rest.extend([&b"\x0a\x00\x01"[..], &[0; 7][..], &[*number][..], &text(2, "shop")[..]].concat());
            rest.extend([&b"\x08\x00\x05\x00\x00\x00\x02"[..], &text(13, holder)[..], &[0][..]].concat());
        }
        reply("show_locks", &[&rest[..], &[0, 0][..]].concat())
    }

    #[test]
    fn a_lock_is_of_the_whole_table() {
        let of = &b"\x08\x00\x01\x00\x00\x00\x03\x08\x00\x02\x00\x00\x00\x02"[..];
        let component = [of, &text(3, "shop")[..], &text(4, "t")[..]].concat();
        let holder = [text(3, HOLDER), text(4, HOLDER), text(5, "me")].concat();
        let wanted = Call::new("lock").fields(b"\x0c\x00\x01\x0f\x00\x01\x0c\x00\x00\x00\x01").fields(&component).end();
        assert_eq!(lock_call("shop", "t", "me"), wanted.fields(&holder).end().end());
    }

    #[tokio::test]
    async fn a_lock_whose_answer_is_lost_is_found_by_its_holder() {
        let (hive, _folder) = forgetful(shows(&[(7, "another"), (8, "me")])).await;
        assert_eq!(asked(&hive, "shop", "t", "me").await.unwrap(), (8, WAITING));
        let (hive, _folder) = forgetful(shows(&[(7, "another")])).await;
        assert_eq!(asked(&hive, "shop", "t", "me").await.unwrap_err().kind(), Kind::Unavailable);
    }

    #[tokio::test]
    async fn a_lock_that_the_metastore_has_ended_is_not_relied_on() {
        let thrown = [&b"\x0c\x00\x01"[..], &text(1, "no such lock")[..], &[0, 0][..]].concat();
        let (hive, _folder) = forgetful(reply("heartbeat", &thrown)).await;
        let lock = Lock { hive: &hive, number: 7, is_lost: AtomicBool::new(false) };
        lock.beat().await;
        lock.check_held().unwrap();
        lock.beat().await;
        insta::assert_snapshot!(lock.check_held().unwrap_err(), @"the metastore has ended the lock of the table before that was changed; send the statement again");
    }
}
