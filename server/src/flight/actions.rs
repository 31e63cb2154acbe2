//! The actions: prepared statements, sessions, and what can be done to a statement that was described.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::Schema;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest, ActionBeginTransactionResult,
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest, ActionEndTransactionRequest, Any, EndTransaction,
    ProstMessageExt,
};
use arrow_flight::{Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, FlightInfo, RenewFlightEndpointRequest};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use nexus_flight_catalog::{Error, Result};
use prost::Message;
use tonic::{Response, Status};

use crate::flight::caller::Caller;
use crate::flight::encode::schema_bytes;
use crate::flight::options::{
    CloseSessionResult, CloseStatus, GetSessionOptionsResult, OptionError, OptionErrorValue, OptionValue, SessionOptionValue,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use crate::flight::service::{Service, TICKET};
use crate::flight::ticket::{Prepared, Statement};
use crate::flight::transactions;
use crate::query::Description;
use crate::seal::Purpose;
use crate::session::{LONGEST_NAME, options};
use crate::transactions::CLOSED_WITHIN;
use crate::write::count_schema;

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CREATE_PREPARED_PLAN: &str = "CreatePreparedSubstraitPlan";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL: &str = "CancelFlightInfo";
/// What `CancelFlightInfo` was before Flight had it for all.
const CANCEL_QUERY: &str = "CancelQuery";
const RENEW: &str = "RenewFlightEndpoint";
const BEGIN_TRANSACTION: &str = "BeginTransaction";
const END_TRANSACTION: &str = "EndTransaction";
const BEGIN_SAVEPOINT: &str = "BeginSavepoint";
const END_SAVEPOINT: &str = "EndSavepoint";
const SET_OPTIONS: &str = "SetSessionOptions";
const GET_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

type Results = BoxStream<'static, Result<arrow_flight::Result, Status>>;

/// The actions that [`run`] knows.
pub fn list() -> Vec<ActionType> {
    let action = |name: &str, description: &str| ActionType { r#type: name.to_owned(), description: description.to_owned() };
    vec![
        action(CREATE_PREPARED, "Prepares a statement: its columns and parameters, and a handle."),
        action(CREATE_PREPARED_PLAN, "Prepares a Substrait plan."),
        action(CLOSE_PREPARED, "Gives a handle back. Handles hold nothing here, so nothing is left to do."),
        action(CANCEL, "Ends a statement, while it waits, is planned or sends its rows."),
        action(CANCEL_QUERY, "The older form of CancelFlightInfo."),
        action(RENEW, "Lets the ticket of an endpoint hold for as long as a new one."),
        action(BEGIN_TRANSACTION, "Begins a transaction on this server."),
        action(END_TRANSACTION, "Commits a transaction or rolls it back."),
        action(BEGIN_SAVEPOINT, "Marks a moment in a transaction."),
        action(END_SAVEPOINT, "Goes back to a savepoint or forgets it."),
        action(
            SET_OPTIONS,
            "Sets options of the session: catalog, schema, time_zone, type_profile, cache, cache_tag, timeout, endpoints, max_rows.",
        ),
        action(GET_OPTIONS, "The options of the session."),
        action(CLOSE_SESSION, "Ends the session, and rolls back what it has not committed."),
    ]
}

/// Runs an action for a caller.
pub async fn run(service: &Service, mut caller: Caller, action: Action) -> Result<Response<Results>> {
    match action.r#type.as_str() {
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            let statement = service.stated(&caller, &request.query, request.transaction_id.as_deref())?;
            prepared(service, &caller, statement).await
        }
        CREATE_PREPARED_PLAN => {
            let request: ActionCreatePreparedSubstraitPlanRequest = unpack(&action.body)?;
            let statement = service.substrait(&caller, request.plan.as_ref(), request.transaction_id.as_deref())?;
            prepared(service, &caller, statement).await
        }
        CLOSE_PREPARED => {
            let _: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            caller.greet(respond(None))
        }
        CANCEL => {
            let request: CancelFlightInfoRequest = decode(CANCEL, &action.body)?;
            let info = request.info.ok_or_else(|| undecodable(CANCEL))?;
            let status = service.noted(&caller, TICKET, service.endpoints.cancel(&caller, &info).await)?;
            caller.greet(respond(Some(CancelFlightInfoResult::new(status).encode_to_vec())))
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(&action.body)?;
            let info: FlightInfo = decode(CANCEL_QUERY, &request.info)?;
            // The numbers of both results mean the same.
            let result = service.noted(&caller, TICKET, service.endpoints.cancel(&caller, &info).await)?.into();
            caller.greet(respond(Some(ActionCancelQueryResult { result }.as_any().encode_to_vec())))
        }
        RENEW => {
            let request: RenewFlightEndpointRequest = decode(RENEW, &action.body)?;
            let endpoint = request.endpoint.ok_or_else(|| undecodable(RENEW))?;
            let endpoint = service.noted(&caller, TICKET, service.endpoints.renew(&caller, endpoint))?;
            caller.greet(respond(Some(endpoint.encode_to_vec())))
        }
        BEGIN_TRANSACTION => {
            let ActionBeginTransactionRequest {} = unpack(&action.body)?;
            let begun = async { service.transactions.begin(&caller) };
            let transaction_id = service.recorded(&caller, "BEGIN", begun).await?.into();
            caller.greet(respond(Some(ActionBeginTransactionResult { transaction_id }.as_any().encode_to_vec())))
        }
        END_TRANSACTION => {
            let request: ActionEndTransactionRequest = unpack(&action.body)?;
            let what = if request.action() == EndTransaction::Commit { "COMMIT" } else { "ROLLBACK" };
            service.recorded(&caller, what, service.transactions.end(&caller, &request)).await?;
            caller.greet(respond(None))
        }
        BEGIN_SAVEPOINT => {
            let request: ActionBeginSavepointRequest = unpack(&action.body)?;
            let set = service.transactions.savepoint(&caller, &request);
            let savepoint_id = service.recorded(&caller, "SAVEPOINT", set).await?.into();
            caller.greet(respond(Some(ActionBeginSavepointResult { savepoint_id }.as_any().encode_to_vec())))
        }
        END_SAVEPOINT => {
            let request: ActionEndSavepointRequest = unpack(&action.body)?;
            let what = if request.action == transactions::RELEASE { "RELEASE SAVEPOINT" } else { "ROLLBACK TO SAVEPOINT" };
            service.recorded(&caller, what, service.transactions.end_savepoint(&caller, &request)).await?;
            caller.greet(respond(None))
        }
        SET_OPTIONS => {
            let request: SetSessionOptionsRequest = decode(SET_OPTIONS, &action.body)?;
            let errors = set_options(service, &mut caller, request).await?;
            caller.greet(respond(Some(SetSessionOptionsResult { errors }.encode_to_vec())))
        }
        GET_OPTIONS => {
            let session = &caller.session;
            let names = [("catalog", session.catalog.clone()), ("schema", session.schema.clone())];
            let others = options::NAMES.into_iter().filter_map(|name| Some((name, session.options.get(name)?)));
            let session_options = names.into_iter().chain(others);
            let session_options =
                session_options.map(|(name, value)| (name.to_owned(), SessionOptionValue::from(value.as_str()))).collect();
            caller.greet(respond(Some(GetSessionOptionsResult { session_options }.encode_to_vec())))
        }
        CLOSE_SESSION => {
            if caller.has_session {
                service.sessions.close(&caller.session).await;
                roll_back(service, &caller).await;
            }
            Ok(respond(Some(CloseSessionResult { status: CloseStatus::Closed.into() }.encode_to_vec())))
        }
        other => {
            Err(Error::unsupported(format!("the action {other} is not offered")).with_hint("ListActions lists those that are"))
        }
    }
}

/// Rolls back what a session that has ended left open. It has ended all the same where that fails.
async fn roll_back(service: &Service, caller: &Caller) {
    let until = Instant::now() + CLOSED_WITHIN;
    for open in service.transactions.all().take(&caller.principal, caller.session.id) {
        if let Err(error) = service.recorded(caller, "ROLLBACK", open.roll_back(until)).await {
            tracing::warn!(transaction = %open.id, %error, "the session of a transaction has ended and it cannot be rolled back");
        }
    }
}

fn respond(body: Option<Vec<u8>>) -> Response<Results> {
    let results = body.map(|body| Ok(arrow_flight::Result { body: body.into() }));
    Response::new(stream::iter(results).boxed())
}

fn decode<M: Message + Default>(what: &str, body: &Bytes) -> Result<M> {
    M::decode(&**body).map_err(|_| undecodable(what))
}

fn unpack<M: ProstMessageExt + Default>(body: &Bytes) -> Result<M> {
    let wanted = M::type_url().rsplit('.').next().unwrap_or_default();
    let any = Any::decode(&**body).map_err(|_| undecodable(wanted))?;
    any.unpack()?.ok_or_else(|| undecodable(wanted))
}

fn undecodable(what: &str) -> Error {
    Error::invalid(format!("the body of {what} is not of the form that Flight SQL gives it"))
}

/// `arrow.flight.protocol.sql.ActionCreatePreparedStatementResult` with the field that arrow-flight does not have (FlightSql.proto).
#[derive(Clone, PartialEq, Message)]
struct PreparedResult {
    #[prost(bytes = "bytes", tag = "1")]
    prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

const PREPARED_RESULT: &str = "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult";

async fn prepared(service: &Service, caller: &Caller, statement: Statement) -> Result<Response<Results>> {
    let result = prepare(service, caller, statement).await?;
    let result = Any { type_url: PREPARED_RESULT.to_owned(), value: result.encode_to_vec().into() };
    caller.greet(respond(Some(result.encode_to_vec())))
}

async fn prepare(service: &Service, caller: &Caller, statement: Statement) -> Result<PreparedResult> {
    let Description { schema, parameters, is_update, .. } = match service.control_of(caller, &statement)? {
        Some(_) => Description { schema: count_schema(), parameters: Arc::new(Schema::empty()), is_update: true, parts: vec![] },
        None => service.execute.describe(&service.query(caller, &statement)?).await?,
    };
    // The transaction of the session is that of then, when it runs.
    let transaction = statement.transaction.filter(|_| statement.transaction != caller.session.transaction);
    let statement = statement.within(transaction);
    let prepared = Prepared { principal: caller.principal.to_string(), profile: caller.profile, statement };
    // Older drivers tell a statement that writes by its lack of columns.
    let dataset_schema = if is_update { Bytes::new() } else { schema_bytes(&caller.profile.schema(&schema))? };
    Ok(PreparedResult {
        prepared_statement_handle: service.seal.seal(Purpose::Prepared, &prepared, service.session_ttl)?.into(),
        dataset_schema,
        parameter_schema: schema_bytes(&caller.profile.parameters(&parameters))?,
        is_update: Some(is_update),
    })
}

async fn set_options(
    service: &Service,
    caller: &mut Caller,
    request: SetSessionOptionsRequest,
) -> Result<std::collections::HashMap<String, OptionError>> {
    if !caller.keeps_cookies {
        return Err(Error::precondition("this client keeps no cookies, so its session cannot be carried").with_hint(
            "turn them on: adbc.flight.sql.rpc.with_cookie_middleware=true for ADBC, withCookieMiddleware for other clients",
        ));
    }
    let mut errors = std::collections::HashMap::new();
    for (name, value) in request.session_options {
        let set = match name.as_str() {
            "catalog" => set_catalog(service, caller, value),
            "schema" => set_schema(service, caller, value),
            name => set_option(caller, name, value),
        };
        if let Err(error) = set {
            errors.insert(name, OptionError { value: error.into() });
        }
    }
    caller.change().await;
    Ok(errors)
}

fn set_catalog(service: &Service, caller: &mut Caller, value: SessionOptionValue) -> Result<(), OptionErrorValue> {
    let catalog = text(value)?.unwrap_or_else(|| service.sessions.start().catalog);
    service.catalogs.source(&caller.principal, &catalog).map_err(|_| OptionErrorValue::InvalidValue)?;
    caller.set_catalog(catalog);
    Ok(())
}

fn set_schema(service: &Service, caller: &mut Caller, value: SessionOptionValue) -> Result<(), OptionErrorValue> {
    let schema = text(value)?.unwrap_or_else(|| service.sessions.start().schema);
    if schema.is_empty() || schema.len() > LONGEST_NAME {
        return Err(OptionErrorValue::InvalidValue);
    }
    caller.set_schema(schema);
    Ok(())
}

fn set_option(caller: &mut Caller, name: &str, value: SessionOptionValue) -> Result<(), OptionErrorValue> {
    if !options::NAMES.contains(&name) {
        return Err(OptionErrorValue::InvalidName);
    }
    caller.session.options.set(name, text(value)?.as_deref()).map_err(|_| OptionErrorValue::InvalidValue)
}

/// The text of a value; none where the option is to be unset.
fn text(value: SessionOptionValue) -> Result<Option<String>, OptionErrorValue> {
    match value.option_value {
        Some(OptionValue::Text(text)) => Ok(Some(text)),
        Some(OptionValue::Int64(number)) => Ok(Some(number.to_string())),
        None => Ok(None),
        _ => Err(OptionErrorValue::InvalidValue),
    }
}
