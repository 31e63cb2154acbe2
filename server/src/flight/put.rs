//! What clients put: parameters, statements that write, and rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::sql::{
    Command, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, PutResult};
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use nexus_flight_catalog::{Error, IfExists, IfMissing, Result, TableName};
use prost::Message;
use tonic::Streaming;

use crate::flight::caller::Caller;
use crate::flight::decode;
use crate::flight::service::{Service, command, unknown_command};
use crate::flight::status::broken;
use crate::flight::ticket::{self, Prepared, Statement, check_owner};
use crate::query::{Execute, Ingest, Query};
use crate::seal::Purpose;
use crate::temporary;

/// Takes what a caller puts.
pub async fn put(service: &Service, caller: &mut Caller, mut messages: Streaming<FlightData>) -> Result<PutResult> {
    let none = || Error::invalid("the stream has no descriptor").with_hint("put the command into the first message");
    let empty = || {
        Error::invalid("the client sent nothing: neither a command nor rows").with_hint(
            "send the schema of the rows at least; some drivers send nothing where there is no batch, so give them an empty one",
        )
    };
    let (cx, memory) = (caller.context(), service.memory(caller));
    let first = cx.run(async { messages.try_next().await.map_err(broken)?.ok_or_else(empty) }).await?;
    match command(first.flight_descriptor.as_ref().ok_or_else(none)?)? {
        Command::CommandPreparedStatementQuery(CommandPreparedStatementQuery { prepared_statement_handle: handle }) => {
            let prepared = prepared(service, caller, &handle)?;
            let rows = cx
                .run(decode::parameters(first, messages, &memory, ticket::PARAMETERS))
                .await?
                .filter(|rows| rows.num_rows() > 0);
            let statement = prepared.statement.bound(rows.as_ref())?;
            let handle = service.seal.seal(Purpose::Prepared, &Prepared { statement, ..prepared }, service.session_ttl)?;
            let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.into()) };
            Ok(PutResult { app_metadata: result.encode_to_vec().into() })
        }
        Command::CommandStatementUpdate(CommandStatementUpdate { query, transaction_id }) => {
            let statement = Statement::new(&query, service.transactions.opened(caller, transaction_id.as_deref())?);
            if service.control(caller, &statement).await? {
                return updated(0);
            }
            updated(update(service.execute.as_ref(), service.query(caller, &statement)?).await?)
        }
        Command::CommandStatementSubstraitPlan(CommandStatementSubstraitPlan { plan, transaction_id }) => {
            let transaction = service.transactions.opened(caller, transaction_id.as_deref())?;
            let statement = service.substrait(plan.as_ref(), transaction)?;
            updated(update(service.execute.as_ref(), service.query(caller, &statement)?).await?)
        }
        Command::CommandPreparedStatementUpdate(CommandPreparedStatementUpdate { prepared_statement_handle: handle }) => {
            let statement = prepared(service, caller, &handle)?.statement;
            if service.control(caller, &statement).await? {
                return updated(0);
            }
            let transaction = statement.transaction.or(caller.session.transaction);
            let statement = statement.within(transaction);
            let mut query = service.query(caller, &statement)?;
            // Rows that come along are bound; else those that were bound before count.
            if let Some(rows) = cx.run(decode::parameters(first, messages, &memory, PARAMETERS)).await? {
                if rows.num_rows() == 0 {
                    // For no row it runs never.
                    check_writes(service.execute.as_ref(), &query).await?;
                    return updated(0);
                }
                query.parameters = Some(rows);
            }
            updated(update(service.execute.as_ref(), query).await?)
        }
        Command::CommandStatementIngest(command) => ingest(service, caller, command, first, messages).await,
        Command::Unknown(any) => Err(unknown_command(&any.type_url)),
        other => Err(Error::unsupported(format!("{} cannot be put", other.type_url().rsplit('.').next().unwrap_or_default()))
            .with_hint("ask GetFlightInfo for it")),
    }
}

/// The most bytes of parameters of an update: they are used at once and travel no further.
const PARAMETERS: usize = 64 << 20;

fn prepared(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Prepared> {
    let prepared: Prepared = service.seal.open(Purpose::Prepared, handle)?;
    check_owner(&prepared.principal, &caller.principal, "prepared statement")?;
    Ok(prepared)
}

fn updated(count: i64) -> Result<PutResult> {
    Ok(PutResult { app_metadata: DoPutUpdateResult { record_count: count }.encode_to_vec().into() })
}

/// Runs a statement that writes and gives the rows that it affected. Errors: `Invalid` for a statement that reads.
pub async fn update(execute: &dyn Execute, query: Query) -> Result<i64> {
    check_writes(execute, &query).await?;
    execute.execute(query).await?.affected().await
}

async fn check_writes(execute: &dyn Execute, query: &Query) -> Result<()> {
    match query.ingest.is_some() || execute.describe(query).await?.is_update {
        true => Ok(()),
        false => Err(Error::invalid("the statement writes nothing").with_hint("send it as a query")),
    }
}

async fn ingest(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    first: FlightData,
    rest: Streaming<FlightData>,
) -> Result<PutResult> {
    let CommandStatementIngest { table_definition_options, table, schema, catalog, temporary, transaction_id, options } = command;
    if temporary && (catalog.is_some() || schema.is_some()) {
        return Err(Error::invalid("a temporary table is in no catalog and schema of its client's choice")
            .with_hint("leave the catalog and the schema out"));
    }
    if let Some(option) = options.keys().min() {
        return Err(Error::unsupported(format!("unknown option \"{option}\" for ingest")).with_hint("leave it out"));
    }
    let statement = Statement::new("", service.transactions.opened(caller, transaction_id.as_deref())?);
    let mut query = service.query(caller, &statement)?;
    query.session.catalog = catalog.unwrap_or(query.session.catalog);
    query.session.schema = schema.unwrap_or(query.session.schema);
    let (if_missing, if_exists) = modes(table_definition_options)?;
    let sent = query.cx.run(decode::sent(first, rest, &service.memory(caller))).await?;
    let Some(schema) = sent.schema else {
        return Err(Error::invalid("the stream has no schema").with_hint("send the columns, and rows of them"));
    };
    let rows = sent.batches.chain(settled()).boxed();
    let name = if temporary {
        temporary::name(&table)
    } else {
        TableName::new(&*query.session.catalog, &*query.session.schema, &*table)
    };
    query.statement = format!("INGEST INTO \"{}\".\"{}\".\"{}\"", name.catalog, name.schema, name.table).into();
    let mut ingest = Ingest::new(table, if_missing, if_exists, schema, rows);
    ingest.temporary = temporary;
    query.ingest = Some(Arc::new(ingest));
    updated(update(service.execute.as_ref(), query).await?)
}

/// How long the end of a stream of rows has to stand.
const SETTLES: Duration = Duration::from_millis(50);

/// No more rows, but a moment later. A program whose rows break off within the Go driver ends its stream as if they were all,
/// and takes the call back at once: what is put then has to wait for that.
fn settled() -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::once(tokio::time::sleep(SETTLES)).filter_map(|()| future::ready(None))
}

/// Rows for a table that is there, unless the client says otherwise.
fn modes(options: Option<TableDefinitionOptions>) -> Result<(IfMissing, IfExists)> {
    let Some(options) = options else { return Ok((IfMissing::Fail, IfExists::Append)) };
    let if_missing = match options.if_not_exist() {
        TableNotExistOption::Create => IfMissing::Create,
        TableNotExistOption::Fail | TableNotExistOption::Unspecified => IfMissing::Fail,
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Fail => IfExists::Fail,
        TableExistsOption::Replace => IfExists::Replace,
        TableExistsOption::Append | TableExistsOption::Unspecified => IfExists::Append,
    };
    Ok((if_missing, if_exists))
}
