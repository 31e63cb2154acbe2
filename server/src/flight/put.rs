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
use crate::flight::ticket::{self, Prepared};
use crate::query::{Ingest, Query};
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
            let prepared = service.prepared(caller, &handle)?;
            let rows = cx.run(decode::parameters(first, messages, &memory, ticket::PARAMETERS)).await;
            let bound = rows.and_then(|rows| prepared.statement.bound(rows.filter(|rows| rows.num_rows() > 0).as_ref()));
            let statement = service.noted(caller, &prepared.statement.text, bound)?;
            let handle = service.seal.seal(Purpose::Prepared, &Prepared { statement, ..prepared }, service.session_ttl)?;
            let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.into()) };
            Ok(PutResult { app_metadata: result.encode_to_vec().into() })
        }
        Command::CommandStatementUpdate(CommandStatementUpdate { query, transaction_id }) => {
            let statement = service.stated(caller, &query, transaction_id.as_deref())?;
            if service.control(caller, &statement).await? {
                return updated(0);
            }
            updated(update(service, caller, service.query(caller, &statement)?).await?)
        }
        Command::CommandStatementSubstraitPlan(CommandStatementSubstraitPlan { plan, transaction_id }) => {
            let statement = service.substrait(caller, plan.as_ref(), transaction_id.as_deref())?;
            updated(update(service, caller, service.query(caller, &statement)?).await?)
        }
        Command::CommandPreparedStatementUpdate(CommandPreparedStatementUpdate { prepared_statement_handle: handle }) => {
            let statement = service.prepared(caller, &handle)?.statement;
            if service.control(caller, &statement).await? {
                return updated(0);
            }
            let transaction = statement.transaction.or(caller.session.transaction);
            let statement = statement.within(transaction);
            let mut query = service.query(caller, &statement)?;
            // Rows that come along are bound; else those that were bound before count.
            let rows = cx.run(decode::parameters(first, messages, &memory, PARAMETERS)).await;
            if let Some(rows) = service.noted(caller, &query.statement, rows)? {
                if rows.num_rows() == 0 {
                    // For no row it runs never.
                    check_writes(service, caller, &query).await?;
                    return updated(0);
                }
                query.parameters = Some(rows);
            }
            updated(update(service, caller, query).await?)
        }
        Command::CommandStatementIngest(command) => ingest(service, caller, command, first, messages).await,
        Command::Unknown(any) => Err(unknown_command(&any.type_url)),
        other => Err(Error::unsupported(format!("{} cannot be put", other.type_url().rsplit('.').next().unwrap_or_default()))
            .with_hint("ask GetFlightInfo for it")),
    }
}

/// The most bytes of parameters of an update: they are used at once and travel no further.
const PARAMETERS: usize = 64 << 20;

fn updated(count: i64) -> Result<PutResult> {
    Ok(PutResult { app_metadata: DoPutUpdateResult { record_count: count }.encode_to_vec().into() })
}

/// Runs a statement that writes and gives the rows that it affected. Errors: `Invalid` for a statement that reads.
async fn update(service: &Service, caller: &Caller, query: Query) -> Result<i64> {
    check_writes(service, caller, &query).await?;
    service.execute.execute(query).await?.affected().await
}

async fn check_writes(service: &Service, caller: &Caller, query: &Query) -> Result<()> {
    if query.ingest.is_some() || service.execute.describe(query).await?.is_update {
        return Ok(());
    }
    let refused = Error::invalid("the statement writes nothing").with_hint("send it as a query");
    service.noted(caller, &query.statement, Err(refused))
}

async fn ingest(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    first: FlightData,
    rest: Streaming<FlightData>,
) -> Result<PutResult> {
    let transaction = command.transaction_id.as_deref();
    let mut query =
        service.query(caller, &service.stated(caller, &format!("INGEST INTO \"{}\"", command.table), transaction)?)?;
    query.session.catalog = command.catalog.clone().unwrap_or(query.session.catalog);
    query.session.schema = command.schema.clone().unwrap_or(query.session.schema);
    let name = match command.temporary {
        true => temporary::name(&command.table),
        false => TableName::new(&*query.session.catalog, &*query.session.schema, &*command.table),
    };
    query.statement = format!("INGEST INTO \"{}\".\"{}\".\"{}\"", name.catalog, name.schema, name.table).into();
    let rows = query.cx.run(sent(service, caller, command, first, rest)).await;
    query.ingest = Some(Arc::new(service.noted(caller, &query.statement, rows)?));
    updated(update(service, caller, query).await?)
}

/// The rows of an ingest, of which the first message has come.
async fn sent(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    first: FlightData,
    rest: Streaming<FlightData>,
) -> Result<Ingest> {
    let CommandStatementIngest { table_definition_options, table, schema, catalog, temporary, options, .. } = command;
    if temporary && (catalog.is_some() || schema.is_some()) {
        return Err(Error::invalid("a temporary table is in no catalog and schema of its client's choice")
            .with_hint("leave the catalog and the schema out"));
    }
    if let Some(option) = options.keys().min() {
        return Err(Error::unsupported(format!("unknown option \"{option}\" for ingest")).with_hint("leave it out"));
    }
    let (if_missing, if_exists) = modes(table_definition_options)?;
    let sent = decode::sent(first, rest, &service.memory(caller)).await?;
    let Some(schema) = sent.schema else {
        return Err(Error::invalid("the stream has no schema").with_hint("send the columns, and rows of them"));
    };
    let mut ingest = Ingest::new(table, if_missing, if_exists, schema, sent.batches.chain(settled()).boxed());
    ingest.temporary = temporary;
    Ok(ingest)
}

/// How long the end of a stream of rows has to stand.
const SETTLES: Duration = Duration::from_millis(50);

/// No more rows, but a moment later. A program whose rows break off within the Go driver ends its stream as if they were all,
/// and takes the call back at once: what is put then has to wait for that.
fn settled() -> impl Stream<Item = Result<RecordBatch>> + Send {
    let settles = async {
        // Made here, so that its time begins after the last rows and not with the call.
        tokio::time::sleep(SETTLES).await;
    };
    stream::once(settles).filter_map(|()| future::ready(None))
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
