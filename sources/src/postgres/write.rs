//! Writing: tables are made, filled by COPY, changed and dropped, each time all or nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::{Bytes, BytesMut};
use datafusion::common::{Column as Named, DFSchema};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use futures::{SinkExt, StreamExt, TryStreamExt};
use nexus_flight_catalog::sql::{self, Dialect};
use nexus_flight_catalog::{Change, Context, Error, IfExists, Kind, Put, Result, Target, Version};
use tokio_postgres::CopyInSink;

use super::access::{Access, Held, Session};
use super::dialect::Postgres;
use super::encode::{self, Slot};
use super::error;
use super::listing::{self, Shape};
use super::pool::Lease;
use super::types::Type;

/// How many bytes of rows are read before they are copied. In a transaction the rows may come over the connection that
/// they are copied over, and that does one thing at a time.
const CHUNK: usize = 8 << 20;
/// How many bytes are handed to the socket at once.
const PIECE: usize = 64 << 10;

/// Puts rows into a table.
pub(super) async fn ingest(cx: &Context, access: &Access, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
    if matches!(target.if_exists, IfExists::Rewrite(_)) {
        return Err(Error::unsupported("a table of PostgreSQL is not written anew to change its rows"));
    }
    let target = target.clone();
    atomically(cx, access, move |access| async move {
        let schema = rows.schema();
        let there = on(&access, async |lease| match listing::shape(lease, &target.schema, &target.table).await {
            Ok(shape) => Ok(Some(shape)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let there = there.await?;
        let slots = match target.put(there.as_ref().map(|_| &Version::Unknown))? {
            Put::Keep => return Ok(0),
            Put::Append => slots(&schema, there.as_ref(), &target)?,
            put => {
                let (slots, create) = created(&schema, &target)?;
                let mut names = vec![target.schema.clone(), target.table.clone()];
                names.extend(slots.iter().map(|slot| slot.name.clone()));
                if let Some(name) = impossible(&access, &names).await? {
                    return Err(Error::invalid(format!("nothing can be called \"{name}\" in PostgreSQL"))
                        .with_hint("take a name of 1 to 63 bytes, without a zero"));
                }
                let drop =
                    if put == Put::Replace { format!("{}; ", dropped(&target.schema, &target.table)) } else { String::new() };
                run(&access, &format!("{drop}{create}")).await?;
                slots
            }
        };
        copy(&access, &target, &slots, rows).await
    })
    .await
}

/// Drops a table. Errors: `NotFound`.
pub(super) async fn drop_table(cx: &Context, access: &Access, schema: &str, table: &str) -> Result<()> {
    let names = [schema.to_owned(), table.to_owned()];
    atomically(cx, access, move |access| async move {
        let [schema, table] = &names;
        // A name that no table can have is one that is not there.
        if impossible(&access, &names).await?.is_some() {
            return Err(Error::not_found(format!("table \"{schema}.{table}\" does not exist")));
        }
        run(&access, &dropped(schema, table)).await
    })
    .await
}

/// Updates or deletes rows and says how many.
pub(super) async fn change(cx: &Context, access: &Access, change: &Change) -> Result<u64> {
    let Change { schema, table, filter, set } = change.clone();
    atomically(cx, access, move |access| async move {
        let held = access.hold().await?;
        let changed = changed(&held, [&schema, &table], filter, set).await;
        held.settle(changed)
    })
    .await
}

async fn changed(lease: &Lease, table: [&str; 2], filter: Option<Expr>, set: Option<Vec<(Named, Expr)>>) -> Result<u64> {
    let [schema, name] = table;
    let shape = listing::shape(lease, schema, name).await?;
    let what = if set.is_some() { "an UPDATE" } else { "a DELETE" };
    let condition = |expr: Expr| {
        let written = sql::condition(&simplified(expr, &shape)?, &shape, true);
        written.ok_or_else(|| {
            Error::unsupported(format!("the condition of {what} cannot be said in PostgreSQL as it is meant here"))
                .with_hint("compare columns with values by =, <>, <, <=, >, >=, IN, BETWEEN or IS NULL; text by =, <> and IN")
        })
    };
    let conditions: Vec<String> = filter.map(condition).transpose()?.into_iter().collect();
    let sql = match set {
        None => sql::delete(&Postgres, table, &conditions),
        Some(set) => {
            let set: Vec<(String, String)> = set
                .into_iter()
                .map(|(column, value)| Ok((column.name.clone(), assigned(column, value, &shape)?)))
                .collect::<Result<_>>()?;
            let set: Vec<(&str, String)> = set.iter().map(|(column, value)| (column.as_str(), value.clone())).collect();
            // Each column gets the value that it has: the rows still count.
            if set.is_empty() {
                let counted = sql::select(&Postgres, &[], table, &conditions, None);
                return lease.answer(lease.client()?.execute(&counted, &[])).await;
            }
            sql::update(&Postgres, table, &set, &conditions)
        }
    };
    lease.answer(lease.client()?.execute(&sql, &[])).await
}

/// The new value of a column, as SQL.
fn assigned(column: Named, value: Expr, shape: &Shape) -> Result<String> {
    let written = sql::value(&simplified(value, shape)?, shape);
    let (Some(value), Some(own)) = (written, shape.find(&column.name)) else {
        let message = format!("the new value of \"{}\" cannot be said in PostgreSQL as it is meant here", column.name);
        return Err(Error::unsupported(message)
            .with_hint("give a value, a column, or what +, -, * and || make of them; compute others first"));
    };
    if own.sql_type == "name" {
        let message = format!("the column \"{}\" is of the type name, to which PostgreSQL cuts what is too long", column.name);
        return Err(Error::unsupported(message).with_hint("update it at the database"));
    }
    // What is text here and not there. Text is not cast: that would cut it to the length of the column.
    Ok(if own.ty.is_cast_from_text() { format!("CAST({value} AS {})", own.sql_type) } else { value })
}

/// An expression whose constants are computed.
fn simplified(expr: Expr, shape: &Shape) -> Result<Expr> {
    let schema = Arc::new(DFSchema::try_from(Arc::clone(&shape.schema))?);
    let context = SimplifyContext::default().with_schema(schema).with_current_time();
    Ok(ExprSimplifier::new(context).simplify(expr)?)
}

fn dropped(schema: &str, table: &str) -> String {
    format!("DROP TABLE {}", sql::qualified(&Postgres, [schema, table]))
}

/// The columns that rows are for, of a table that is there.
fn slots(schema: &SchemaRef, there: Option<&Shape>, target: &Target) -> Result<Vec<Slot>> {
    let slot = |name: &String| match there.and_then(|shape| shape.find(name)) {
        Some(column) => Ok(Slot { name: name.clone(), ty: column.ty.clone() }),
        None => Err(Error::precondition(format!("the table \"{}.{}\" has no column \"{name}\"", target.schema, target.table))
            .with_hint("send the statement again")
            .with_retryable(true)),
    };
    schema.fields().iter().map(|field| slot(field.name())).collect()
}

/// The columns of a table for such rows, and the statement that makes it. Errors: `Unsupported` where one has no type.
fn created(schema: &SchemaRef, target: &Target) -> Result<(Vec<Slot>, String)> {
    let (mut slots, mut parts) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let Some((ty, name)) = Type::made(field.data_type()) else {
            let message =
                format!("no type of PostgreSQL holds the column \"{}\" of the type {}", field.name(), field.data_type());
            return Err(Error::unsupported(message).with_hint("cast it, or leave it out"));
        };
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        parts.push(format!("{} {name}{not_null}", Postgres.identifier(field.name())));
        slots.push(Slot { name: field.name().clone(), ty });
    }
    if !target.primary_key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", names(target.primary_key.iter())));
    }
    let table = sql::qualified(&Postgres, [&target.schema, &target.table]);
    Ok((slots, format!("CREATE TABLE {table} ({})", parts.join(", "))))
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| Postgres.identifier(name)).collect::<Vec<_>>().join(", ")
}

/// Copies all rows, as many at once as a chunk holds.
async fn copy(access: &Access, target: &Target, slots: &[Slot], rows: SendableRecordBatchStream) -> Result<u64> {
    let table = sql::qualified(&Postgres, [&target.schema, &target.table]);
    let sql = format!("COPY {table} ({}) FROM STDIN BINARY", names(slots.iter().map(|slot| &slot.name)));
    let (mut rows, mut count) = (rows.fuse(), 0);
    loop {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK {
            let Some(batch) = rows.try_next().await? else { break };
            bytes += batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
            chunk.push(batch);
        }
        if chunk.is_empty() {
            return Ok(count);
        }
        let held = access.hold().await?;
        let copied = copy_chunk(&held, &sql, slots, &chunk).await;
        count += held.settle(copied)?;
    }
}

async fn copy_chunk(lease: &Lease, sql: &str, slots: &[Slot], chunk: &[RecordBatch]) -> Result<u64> {
    let sink: CopyInSink<Bytes> = lease.answer(lease.client()?.copy_in(sql)).await?;
    let mut sink = Box::pin(sink);
    let mut out = BytesMut::from(encode::HEADER);
    for batch in chunk {
        let mut rows = encode::rows(batch, slots)?;
        while rows.put(&mut out, PIECE)? {
            lease.answer(sink.send(out.split().freeze())).await?;
        }
    }
    out.extend_from_slice(encode::TRAILER);
    lease.answer(sink.send(out.freeze())).await?;
    lease.answer(sink.as_mut().finish()).await
}

/// The first of some names that nothing can have.
async fn impossible(access: &Access, names: &[String]) -> Result<Option<String>> {
    on(access, async |lease| listing::impossible(lease, names).await).await
}

/// Runs a statement without an answer.
async fn run(access: &Access, sql: &str) -> Result<()> {
    on(access, async |lease| lease.run(sql).await).await
}

/// Does something on a connection.
async fn on<T>(access: &Access, work: impl AsyncFnOnce(&Lease) -> Result<T>) -> Result<T> {
    let held: Held<'_> = access.hold().await?;
    let result = work(&held).await;
    held.settle(result)
}

/// Does all of some work or nothing: in a transaction of its own, or behind a savepoint in the one that runs.
async fn atomically<T, F>(cx: &Context, access: &Access, work: impl FnOnce(Access) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match access {
        Access::Pool(connections) => {
            let mut lease = connections.get().await?;
            lease.holds(cx);
            lease.run("BEGIN").await?;
            let session = Arc::new(Session::new(lease));
            let result = work(Access::Transaction(Arc::clone(&session))).await;
            let lease = match (session.end().await, &result) {
                (Ok(lease), _) => lease,
                // It broke off, and with it all that was done.
                (Err(_), Err(_)) => return result,
                (Err(error), Ok(_)) => return Err(error),
            };
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = lease.run(end).await;
            match (result, ended) {
                (Ok(done), Ok(())) => {
                    lease.give_back();
                    Ok(done)
                }
                (Ok(_), Err(error)) => Err(error::of_commit(error)),
                (Err(error), ended) => {
                    // Where it cannot be rolled back, it is closed, which does the same.
                    if ended.is_ok() {
                        lease.give_back();
                    }
                    Err(error)
                }
            }
        }
        Access::Transaction(session) => {
            let _alone = session.writes.lock().await;
            run(access, "SAVEPOINT nexus_statement").await?;
            let result = work(access.clone()).await;
            let end =
                if result.is_ok() { "RELEASE nexus_statement" } else { "ROLLBACK TO nexus_statement; RELEASE nexus_statement" };
            match (result, run(access, end).await) {
                (Ok(done), Ok(())) => Ok(done),
                (Ok(_), Err(error)) => Err(error),
                (Err(error), _) => Err(error),
            }
        }
    }
}
