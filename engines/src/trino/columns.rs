//! The columns of tables. Those that are looked up at once for one statement are asked for in one query: beginning and ending it
//! takes Trino longer than to tell of one table more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::iter::once;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nexus_flight_catalog::{Context, Result};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::client::{Client, Named};
use super::dialect::quoted;
use super::listing::{answer, within};

/// The most tables of one query. Up to 100 names Trino looks up one by one, and for more it goes through the whole schema
/// (`optimizer.experimental-max-prefetched-information-schema-prefixes`).
const MOST: usize = 64;

/// How long one waits for what another asks for, which a server may have wait too. That the other one is not polled any more is not
/// known to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A statement, and the schema in which it looks up, as a literal.
type Key = (Uuid, String);

/// The look-ups that wait until others of their statement have come, or the time for that is over.
#[derive(Debug, Default)]
pub(super) struct Gathered(Mutex<HashMap<Key, Vec<Waiting>>>);

/// A look-up that another one asks for.
#[derive(Debug)]
struct Waiting {
    /// The name of the table as a literal.
    table: String,
    tell: oneshot::Sender<Result<Vec<Named>>>,
}

impl Gathered {
    /// The columns of a table of a schema, both as literals; none where there is no such table. Errors: those of [`answer`].
    pub(super) async fn columns(
        &self,
        cx: &Context,
        client: &Client,
        catalog: &str,
        [schema, table]: [&str; 2],
    ) -> Result<Vec<Named>> {
        let key = (cx.query, schema.to_owned());
        if let Some(told) = self.behind(key.clone(), table) {
            return match timeout(PATIENCE, told).await {
                Ok(Ok(told)) => told,
                // It is not asked for by the other one, or not any more, or that one does not go on.
                _ => alone(cx, client, catalog, schema, table).await,
            };
        }
        let mut open = Open { gathered: self, key: Some(key) };
        // Those beside it in its task have their turn before it goes on.
        tokio::task::yield_now().await;
        let waiting = open.close();
        let tables = once(table).chain(waiting.iter().map(|other| other.table.as_str())).collect::<Vec<_>>().join(", ");
        match ask(cx, client, catalog, schema, &tables).await {
            // One that is not waited for any more is told nothing.
            Ok(mut all) => {
                for Waiting { table, tell } in waiting {
                    let _ = tell.send(Ok(all.get(&table).cloned().unwrap_or_default()));
                }
                Ok(all.remove(table).unwrap_or_default())
            }
            // With a place it is about the way to Trino, and of all of them.
            Err(error) if waiting.is_empty() || error.place().is_some() => {
                for Waiting { tell, .. } in waiting {
                    let _ = tell.send(Err(error.copied()));
                }
                Err(error)
            }
            // It may be about one of them, or there may be too much of all: each asks for itself.
            Err(_) => {
                drop(waiting);
                alone(cx, client, catalog, schema, table).await
            }
        }
    }

    /// Puts a look-up behind one that waits for others. None where there is none: then it is the one that the next wait for.
    fn behind(&self, key: Key, table: &str) -> Option<oneshot::Receiver<Result<Vec<Named>>>> {
        match self.lock().entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Vec::new());
                None
            }
            Entry::Occupied(mut entry) => {
                let (tell, told) = oneshot::channel();
                let waiting = entry.get_mut();
                // Where there is no place, nobody tells.
                if waiting.len() + 1 < MOST {
                    waiting.push(Waiting { table: table.to_owned(), tell });
                }
                Some(told)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up that others can come behind. Dropped before it is closed, it leaves them to themselves.
struct Open<'a> {
    gathered: &'a Gathered,
    /// None once it is closed.
    key: Option<Key>,
}

impl Open<'_> {
    fn close(&mut self) -> Vec<Waiting> {
        let Some(key) = self.key.take() else { return Vec::new() };
        self.gathered.lock().remove(&key).unwrap_or_default()
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

async fn alone(cx: &Context, client: &Client, catalog: &str, schema: &str, table: &str) -> Result<Vec<Named>> {
    Ok(ask(cx, client, catalog, schema, table).await?.remove(table).unwrap_or_default())
}

/// The columns of tables in their order, by the names as literals. Errors: those of [`answer`].
async fn ask(cx: &Context, client: &Client, catalog: &str, schema: &str, tables: &str) -> Result<HashMap<String, Vec<Named>>> {
    let sql = format!(
        "SELECT table_name, column_name, data_type FROM {} WHERE table_schema = {schema} AND table_name IN ({tables}) \
         ORDER BY ordinal_position",
        within(catalog, "columns")
    );
    let rows: Vec<(String, String, String)> = answer(cx, client, &sql).await?;
    let mut all: HashMap<String, Vec<Named>> = HashMap::new();
    for (table, name, type_name) in rows {
        if let Some(table) = quoted(&table) {
            all.entry(table).or_default().push(Named { name, type_name });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;
    use futures::{FutureExt, StreamExt, TryStreamExt, stream};
    use nexus_flight_catalog::Kind;

    use super::super::listing::tests::{client, texts};
    use super::*;

    const TABLES: [&str; 3] = ["'a'", "'b'", "'it''s'"];

    /// What is said of a query over columns: those of each table that it names, called by the table and a number.
    fn told(request: &str) -> String {
        let rows: Vec<String> = [("'a'", "a"), ("'b'", "b"), ("'it''s'", "it's")]
            .into_iter()
            .filter(|(literal, _)| request.contains(literal))
            .flat_map(|(_, name)| [1, 2].map(|number| format!(r#"["{name}","{name} {number}","bigint"]"#)))
            .collect();
        texts(&["table_name", "column_name", "data_type"], &format!("[{}]", rows.join(",")))
    }

    /// A client of a server that answers so, and the queries that it has got.
    async fn asked(said: impl Fn(&str) -> String + Send + Sync + 'static) -> (Context, Client, Arc<Mutex<Vec<String>>>) {
        let all = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&all);
        let (cx, client) = client(move |request| {
            let (_, sql) = request.split_once("\r\n\r\n").unwrap();
            seen.lock().unwrap().push(sql.to_owned());
            said(sql)
        })
        .await;
        (cx, client, all)
    }

    fn names(columns: &Result<Vec<Named>>) -> Vec<&str> {
        columns.as_ref().unwrap().iter().map(|column| column.name.as_str()).collect()
    }

    #[tokio::test]
    async fn those_that_come_at_once_are_asked_for_at_once() {
        let (cx, client, asked) = asked(told).await;
        let gathered = Gathered::default();
        let tables = TABLES.into_iter().chain(["'gone'"]);
        let all = join_all(tables.map(|table| gathered.columns(&cx, &client, "lake", ["'s'", table]))).await;
        assert_eq!(names(&all[0]), ["a 1", "a 2"]);
        assert_eq!(names(&all[1]), ["b 1", "b 2"]);
        assert_eq!(names(&all[2]), ["it's 1", "it's 2"]);
        assert!(names(&all[3]).is_empty());
        assert_eq!(
            *asked.lock().unwrap(),
            ["SELECT table_name, column_name, data_type FROM \"lake\".information_schema.columns WHERE table_schema = 's' \
              AND table_name IN ('a', 'b', 'it''s', 'gone') ORDER BY ordinal_position"]
        );
        assert!(gathered.lock().is_empty());
    }

    #[tokio::test]
    async fn a_listing_that_opens_some_at_once_asks_for_so_many_at_once() {
        let (cx, client, asked) = asked(told).await;
        let gathered = Gathered::default();
        let (cx, client, gathered) = (&cx, &client, &gathered);
        let tables = stream::iter((0..40).map(|number| format!("'t{number}'")));
        let columns = tables.map(|table| async move { gathered.columns(cx, client, "lake", ["'s'", &table]).await });
        assert_eq!(columns.buffered(16).try_collect::<Vec<_>>().await.unwrap().len(), 40);
        let counts: Vec<usize> = asked.lock().unwrap().iter().map(|sql| sql.matches("'t").count()).collect();
        assert_eq!(counts, [16, 16, 8]);
    }

    #[tokio::test]
    async fn one_statement_and_one_schema_are_not_mixed_with_others() {
        let (cx, client, asked) = asked(told).await;
        let other = Context { query: Uuid::now_v7(), ..cx.clone() };
        let gathered = Gathered::default();
        let one = gathered.columns(&cx, &client, "lake", ["'s'", "'a'"]);
        let elsewhere = gathered.columns(&cx, &client, "lake", ["'t'", "'a'"]);
        let theirs = gathered.columns(&other, &client, "lake", ["'s'", "'a'"]);
        for columns in join_all([one, elsewhere, theirs]).await {
            assert_eq!(names(&columns), ["a 1", "a 2"]);
        }
        assert_eq!(asked.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_fails_for_one_of_them_does_not_for_the_others() {
        let (cx, client, asked) = asked(|sql| match sql.contains("'b'") {
            true => r#""error":{"message":"no","errorName":"ICEBERG_INVALID_METADATA","errorType":"EXTERNAL"}"#.to_owned(),
            false => told(sql),
        })
        .await;
        let gathered = Gathered::default();
        let all = join_all(TABLES.map(|table| gathered.columns(&cx, &client, "lake", ["'s'", table]))).await;
        assert_eq!(names(&all[0]), ["a 1", "a 2"]);
        assert_eq!(all[1].as_ref().unwrap_err().kind(), Kind::Data);
        assert_eq!(names(&all[2]), ["it's 1", "it's 2"]);
        assert_eq!(asked.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_way_to_trino_is_asked_for_once() {
        // No number is an address.
        let (cx, client, asked) = asked(|_| r#""nextUri":7"#.to_owned()).await;
        let gathered = Gathered::default();
        let all = join_all(TABLES.map(|table| gathered.columns(&cx, &client, "lake", ["'s'", table]))).await;
        for error in all.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.kind(), Kind::Data);
            assert!(error.message().starts_with("the answer of trino is not as its protocol has it"), "{error}");
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_one_that_is_left_asks_alone() {
        let (cx, client, asked) = asked(told).await;
        let gathered = Gathered::default();
        for turns in [1, 2] {
            let mut left = Box::pin(gathered.columns(&cx, &client, "lake", ["'s'", "'a'"]));
            assert!(left.as_mut().now_or_never().is_none());
            let mut waits = Box::pin(gathered.columns(&cx, &client, "lake", ["'s'", "'b'"]));
            assert!(waits.as_mut().now_or_never().is_none());
            // In its second turn it is closed, and asks.
            for _ in 1..turns {
                assert!(left.as_mut().now_or_never().is_none());
            }
            assert_eq!(gathered.lock().is_empty(), turns == 2);
            drop(left);
            assert_eq!(names(&waits.await), ["b 1", "b 2"]);
            assert!(gathered.lock().is_empty());
        }
        assert!(asked.lock().unwrap().iter().any(|sql| sql.contains("IN ('b')")));
    }

    #[tokio::test]
    async fn a_query_has_a_bounded_number_of_tables() {
        let (cx, client, asked) = asked(told).await;
        let gathered = Gathered::default();
        let tables: Vec<String> = (0..=MOST).map(|number| format!("'t{number}'")).collect();
        join_all(tables.iter().map(|table| gathered.columns(&cx, &client, "lake", ["'s'", table]))).await;
        let asked = asked.lock().unwrap();
        let mut counts: Vec<usize> = asked.iter().map(|sql| sql.matches("'t").count()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, MOST]);
    }
}
