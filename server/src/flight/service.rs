//! The Flight service: it decodes what Flight SQL puts into Flight messages and hands it on.
//!
//! It implements `FlightService` itself: arrow-flight's Flight SQL trait fixes `GetSchema` and `PollFlightInfo` to
//! unimplemented.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    Any, Command, CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan, SubstraitPlan,
};
use arrow_flight::{
    Action, ActionType, BasicAuth, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket as FlightTicket,
};
use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Catalogs, Context, Error, Principal, Result};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::audit::Trail;
use crate::flight::actions;
use crate::flight::caller::{self, Caller};
use crate::flight::commands::{self, Metadata};
use crate::flight::control::Control;
use crate::flight::encode::{self, ahead, encode, encode_shared, schema_bytes};
use crate::flight::endpoints::{self, Endpoints};
use crate::flight::profile::TypeProfile;
use crate::flight::put;
use crate::flight::status::{broken, status};
use crate::flight::ticket::{Prepared, Statement, Ticket, check_owner, fingerprint};
use crate::flight::transactions::Handles;
use crate::layers::admission::Gate;
use crate::query::{CacheUse, Cached, Client, Description, Execute, Protocol, Query};
use crate::seal::{Purpose, Seal};
use crate::session::Sessions;
use crate::shares::Shares;
use crate::statement::Caps;
use crate::substrait;
use crate::wire::auth::{Authenticator, Means, note_refusal};
use crate::wire::caching;
use crate::wire::connection::Peer;
use crate::workers::Workers;
use crate::write::{count_batch, count_schema};

/// The Flight SQL service.
pub struct Service {
    /// The one query path.
    pub execute: Arc<dyn Execute>,
    /// What the metadata commands list.
    pub catalogs: Arc<Catalogs>,
    /// What `GetSqlInfo` and the like answer.
    pub metadata: Arc<Metadata>,
    /// Whether there is room for one more list.
    pub gate: Arc<Gate>,
    /// Where lists are made.
    pub workers: Workers,
    /// Makes the endpoints that answers are fetched from.
    pub endpoints: Endpoints,
    /// Seals handles.
    pub seal: Arc<Seal>,
    /// Opens sessions.
    pub sessions: Arc<Sessions>,
    /// Makes tokens.
    pub authenticator: Arc<Authenticator>,
    /// The memory of each user.
    pub shares: Arc<Shares>,
    /// How long a prepared handle is good for.
    pub session_ttl: Duration,
    /// The open transactions.
    pub transactions: Handles,
    /// How large a statement may be.
    pub caps: Caps,
    /// Where statements are recorded.
    pub trail: Option<Arc<Trail>>,
}

/// What stands on record for a ticket of which no statement can be told.
pub const TICKET: &str = "(a ticket)";

/// How long a handshake may take to say who it is.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(10);

/// The messages of a statement's answer.
type Rows = BoxStream<'static, Result<encode::Message>>;

/// A stream of messages to a client.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller> {
        let extensions = request.extensions();
        let opened = async {
            let caller = Caller::new(request.metadata(), extensions, &self.sessions).await?;
            if request.metadata().contains_key(caller::CATALOG) {
                self.catalogs.source(&caller.principal, &caller.session.catalog)?;
            }
            Ok(caller)
        };
        let opened = opened.await;
        if let (Err(error), Some(principal)) = (&opened, extensions.get::<Principal>()) {
            let cx = Context::new(principal.clone());
            let client = Client::new(extensions.get::<Peer>().map(|peer| peer.address), None);
            let query = Query { client, ..Query::new(cx, "(a session)", self.sessions.start(), Protocol::Flight) };
            Trail::refused(self.trail.as_deref(), &query, error)?;
        }
        opened
    }

    /// Who shakes hands, by the credentials in the first message: those in a header were checked before.
    async fn log_in(
        &self,
        request: &mut Request<Streaming<HandshakeRequest>>,
        peer: Option<&Peer>,
    ) -> Result<(Principal, Means)> {
        let refused = |message: &str| {
            Error::unauthenticated(message)
                .with_hint("send a user name and password as BasicAuth, or in the header authorization")
        };
        let first = tokio::time::timeout(CREDENTIALS_WITHIN, request.get_mut().message()).await;
        let first = first.map_err(|_| refused("the handshake has no message"))?.map_err(broken)?;
        let payload = first.ok_or_else(|| refused("the handshake has no message"))?.payload;
        let BasicAuth { username, password } =
            BasicAuth::decode(payload).map_err(|_| refused("the message of the handshake has no user name and password"))?;
        self.authenticator.check_password(&username, &password, peer).await
    }

    /// What came of a step towards the query path, where all else is recorded: here only what was refused is.
    pub fn noted<T>(&self, caller: &Caller, statement: &str, done: Result<T>) -> Result<T> {
        done.or_else(|error| {
            Trail::refused(self.trail.as_deref(), &caller.query(statement.into(), None, None), &error)?;
            Err(error)
        })
    }

    /// The statement behind a command, or none where the command is about metadata. What was prepared comes in the types that
    /// were promised then: some clients send their headers with that call alone.
    fn statement(&self, caller: &mut Caller, command: &Command) -> Result<Option<Statement>> {
        match command {
            Command::CommandStatementQuery(CommandStatementQuery { query, transaction_id }) => {
                Ok(Some(self.stated(caller, query, transaction_id.as_deref())?))
            }
            Command::CommandStatementSubstraitPlan(CommandStatementSubstraitPlan { plan, transaction_id }) => {
                Ok(Some(self.substrait(caller, plan.as_ref(), transaction_id.as_deref())?))
            }
            Command::CommandPreparedStatementQuery(CommandPreparedStatementQuery { prepared_statement_handle }) => {
                let prepared = self.prepared(caller, prepared_statement_handle)?;
                caller.profile = prepared.profile;
                let transaction = prepared.statement.transaction.or(caller.session.transaction);
                Ok(Some(prepared.statement.within(transaction)))
            }
            _ => Ok(None),
        }
    }

    /// A text as a statement in the transaction that its client names, or in that of the session.
    pub fn stated(&self, caller: &Caller, text: &str, transaction: Option<&[u8]>) -> Result<Statement> {
        let transaction = self.noted(caller, text, self.transactions.opened(caller, transaction))?;
        Ok(Statement::new(text, transaction))
    }

    /// A Substrait plan as such a statement. Errors: `Invalid` where there is none.
    pub fn substrait(&self, caller: &Caller, plan: Option<&SubstraitPlan>, transaction: Option<&[u8]>) -> Result<Statement> {
        let none = || Error::invalid("the command has no Substrait plan").with_hint("put a serialised substrait.Plan into it");
        let plan = &self.noted(caller, "(a Substrait plan)", plan.ok_or_else(none))?.plan;
        let title = substrait::title(plan, &self.caps);
        let transaction = self.noted(caller, &title, self.transactions.opened(caller, transaction))?;
        Ok(Statement::of_plan(plan, &title, transaction))
    }

    /// What a caller prepared.
    pub fn prepared(&self, caller: &Caller, handle: &[u8]) -> Result<Prepared> {
        let opened = self.seal.open(Purpose::Prepared, handle).and_then(|prepared: Prepared| {
            check_owner(&prepared.principal, &caller.principal, "prepared statement")?;
            Ok(prepared)
        });
        self.noted(caller, "(a prepared statement)", opened)
    }

    /// A statement as a query of its caller.
    pub fn query(&self, caller: &Caller, statement: &Statement) -> Result<Query> {
        let transaction = statement.transaction.map(|id| self.transactions.open(caller, id)).transpose();
        let transaction = self.noted(caller, &statement.text, transaction)?;
        let query = caller.query(Arc::clone(&statement.text), statement.parameters()?, transaction);
        Ok(Query { substrait: statement.substrait.clone(), ..query })
    }

    /// What a caller takes memory from.
    pub fn memory(&self, caller: &Caller) -> Arc<dyn MemoryPool> {
        self.shares.of(&caller.principal)
    }

    /// Runs a statement that is about the transaction of its session. Gives whether it is one.
    pub async fn control(&self, caller: &mut Caller, statement: &Statement) -> Result<bool> {
        match self.control_of(caller, statement)? {
            Some(control) => {
                let query = caller.query(Arc::clone(&statement.text), None, None);
                let done = control.run(caller, statement.transaction, self.transactions.all());
                Trail::around(self.trail.as_deref(), &query, done).await.map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// Does for a caller what is about a transaction, and records it as such a statement.
    pub async fn recorded<T>(&self, caller: &Caller, statement: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        Trail::around(self.trail.as_deref(), &caller.query(statement.into(), None, None), work).await
    }

    /// What a statement does to the transaction of its session.
    pub fn control_of(&self, caller: &Caller, statement: &Statement) -> Result<Option<Control>> {
        if statement.substrait.is_some() {
            return Ok(None);
        }
        self.noted(caller, &statement.text, Control::of(&statement.text, &self.caps))
    }

    /// What a command gives. One that writes does so here, unless it is `polled`. Errors: `Unsupported` for such a one.
    async fn flight_info(&self, caller: &mut Caller, descriptor: FlightDescriptor, polled: bool) -> Result<FlightInfo> {
        let command = command(&descriptor)?;
        // A client polls again where an answer was lost on its way: nothing may come of that.
        let writes = |caller: &Caller, statement: &Statement| {
            let refused = Error::unsupported("a statement that writes is not polled for");
            self.noted(caller, &statement.text, Err(refused.with_hint("execute it by GetFlightInfo or DoPut")))
        };
        let (schema, endpoints) = match self.statement(caller, &command)? {
            Some(statement) if polled && self.control_of(caller, &statement)?.is_some() => return writes(caller, &statement),
            Some(statement) if self.control(caller, &statement).await? => {
                let schema = count_schema();
                let ticket = self.ticket(caller, statement, &schema, Some(0))?;
                (schema, vec![self.endpoints.of_statement(&ticket)?])
            }
            Some(statement) => {
                let mut query = self.query(caller, &statement)?;
                let options = &mut query.session.options;
                options.endpoints = options.endpoints.map(|wanted| wanted.min(statement.endpoints()));
                let Description { schema, is_update, parts, .. } = self.execute.describe(&query).await?;
                if polled && is_update {
                    return writes(caller, &statement);
                }
                // Here and not when the rows are fetched: many a client never fetches them, or more than once.
                let affected = if is_update { Some(self.execute.execute(query).await?.affected().await?) } else { None };
                let mut ticket = self.ticket(caller, statement, &schema, affected)?;
                let parts = if parts.is_empty() { vec![None] } else { parts.into_iter().map(Some).collect() };
                let of_part = |part| {
                    ticket.part = part;
                    self.endpoints.of_statement(&ticket)
                };
                (caller.profile.schema(&schema), parts.into_iter().map(of_part).collect::<Result<_>>()?)
            }
            None => {
                let schema = commands::schema(&command).ok_or_else(|| unknown_command(command.type_url()))?;
                (schema, vec![self.endpoints.of_metadata(command)])
            }
        };
        Ok(FlightInfo {
            schema: schema_bytes(&schema)?,
            flight_descriptor: Some(descriptor),
            endpoint: endpoints,
            total_records: -1,
            total_bytes: -1,
            ordered: false,
            app_metadata: Bytes::new(),
        })
    }

    fn ticket(&self, caller: &Caller, statement: Statement, schema: &Schema, affected: Option<i64>) -> Result<Ticket> {
        Ok(Ticket {
            id: Uuid::new_v4(),
            principal: caller.principal.to_string(),
            statement,
            session: caller.asking(&caller.session),
            profile: caller.profile,
            fingerprint: fingerprint(schema)?,
            part: None,
            affected,
        })
    }

    async fn schema(&self, caller: &mut Caller, descriptor: &FlightDescriptor) -> Result<Arc<Schema>> {
        let command = command(descriptor)?;
        match self.statement(caller, &command)? {
            Some(statement) if self.control_of(caller, &statement)?.is_some() => Ok(count_schema()),
            Some(statement) => {
                let query = self.query(caller, &statement)?;
                Ok(caller.profile.schema(&self.execute.describe(&query).await?.schema))
            }
            None => commands::schema(&command).ok_or_else(|| unknown_command(command.type_url())),
        }
    }

    /// The answer behind a ticket, its bodies as they lie in memory.
    pub async fn messages(&self, request: Request<FlightTicket>) -> Result<Response<Messages<encode::Message>>, Status> {
        respond(
            async {
                let caller = self.caller(&request).await?;
                let (rows, cached) = self.rows(&caller, &request.get_ref().ticket).await?;
                let mut response = Response::new(rows);
                for (name, value) in cached.iter().flat_map(caching::told) {
                    let value = value.parse().map_err(|_| Error::internal("what the cache did makes no header"))?;
                    response.metadata_mut().insert(name, value);
                }
                caller.greet(response)
            }
            .await,
        )
    }

    /// With what the cache had to do with them, where they are of a statement.
    async fn rows(&self, caller: &Caller, ticket: &[u8]) -> Result<(Messages<encode::Message>, Option<Cached>)> {
        let (messages, cached) = match endpoints::command(ticket)? {
            Command::TicketStatementQuery(sealed) => {
                let ticket = self.noted(caller, TICKET, self.endpoints.open(caller, &sealed))?;
                self.run(caller, ticket).await?
            }
            command => {
                let batch = self.list(caller, command).await?;
                let memory = MemoryConsumer::new("a list").register(&(self.shares.of(&caller.principal) as Arc<dyn MemoryPool>));
                memory.try_grow(batch.get_array_memory_size())?;
                let schema = batch.schema();
                // The schemas of metadata are fixed by the protocol, so nothing in them is lowered.
                let rows = encode(&schema, TypeProfile::Native, stream::iter([Ok(batch)]).boxed(), &self.memory(caller));
                (rows.inspect(move |_| _ = &memory).boxed(), None)
            }
        };
        Ok((messages.map_err(|error| status(&error)).boxed(), cached))
    }

    /// The answer to a command about metadata. It takes no slot, which a source that hangs would keep, and is made where statements of
    /// the user are planned. Errors: `Exhausted` where as many are made, or planned, as there is room for.
    async fn list(&self, caller: &Caller, command: Command) -> Result<RecordBatch> {
        let cx = caller.context();
        let coming = self.gate.announce(&caller.principal)?;
        let catalogs = self.sessions.temporaries().over(&self.catalogs, &caller.session);
        let (metadata, profile, within) = (Arc::clone(&self.metadata), caller.profile, cx.clone());
        let list = async move {
            let batch = metadata.answer(&within, &catalogs, profile, &command).await?;
            drop(coming);
            batch.ok_or_else(|| unknown_command(command.type_url()))
        };
        cx.run(self.workers.run(&caller.principal, list)).await
    }

    async fn run(&self, caller: &Caller, ticket: Ticket) -> Result<(Rows, Option<Cached>)> {
        if let Some(affected) = ticket.affected {
            let batch = count_batch(affected)?;
            let (schema, count) = (batch.schema(), stream::iter([Ok(batch)]).boxed());
            return Ok((encode(&schema, ticket.profile, count, &self.memory(caller)).boxed(), None));
        }
        let run = self.noted(caller, &ticket.statement.text, self.endpoints.begin(&ticket))?;
        let mut query = self.query(caller, &ticket.statement)?;
        query.session = caller.asking(&ticket.session);
        // Here, where rows are fetched: what writes answers with a count for each row of its parameters, and is done by then.
        query.most = query.session.options.max_rows;
        query.part = ticket.part;
        query.cx.cancel = run.token();
        let answer = self.execute.execute(query).await?;
        if fingerprint(&answer.schema)? != ticket.fingerprint {
            return Err(Error::precondition("a table of the statement has other columns than when it was described")
                .with_hint("send the statement again"));
        }
        let messages = encode_shared(&answer.schema, ticket.profile, answer.batches, &self.memory(caller), answer.shared);
        // Native messages lie where their rows do, and cost less to make than to hand on; lowered ones are made value by value. Those of an
        // answer that is kept are there from the second time on.
        let is_kept = matches!(answer.cache.how, CacheUse::Hit | CacheUse::Stale);
        let messages = match ticket.profile {
            TypeProfile::Lowered if !is_kept => ahead(messages).boxed(),
            _ => messages.boxed(),
        };
        let messages = messages.inspect(move |_| {
            // Held by the closure for as long as the stream lives.
            let _ = &run;
        });
        Ok((messages.boxed(), Some(answer.cache)))
    }
}

/// The command in a descriptor.
pub fn command(descriptor: &FlightDescriptor) -> Result<Command> {
    if descriptor.r#type() != DescriptorType::Cmd {
        return Err(
            Error::unsupported("a path is not offered: this is a Flight SQL endpoint").with_hint("send a Flight SQL command")
        );
    }
    let any = Any::decode(&*descriptor.cmd).map_err(|_| Error::invalid("the command is not one of Flight SQL"))?;
    Ok(Command::try_from(any)?)
}

/// What is said of a command that is not known, or not at this place.
pub fn unknown_command(type_url: &str) -> Error {
    match type_url.rsplit('.').next() {
        Some("") | None => Error::invalid("the command is not one of Flight SQL"),
        Some(name) => Error::unsupported(format!("the command {name} is not offered")),
    }
}

/// Every answer of the service, with its error as a status.
fn respond<T>(result: Result<Response<T>>) -> Result<Response<T>, Status> {
    result.map_err(|error| status(&error))
}

fn unimplemented<T>(what: &str) -> Result<T, Status> {
    let message = format!("{what} is not offered: this is a Flight SQL endpoint");
    Err(status(&Error::unsupported(message).with_hint("send a Flight SQL command by GetFlightInfo")))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn handshake(
        &self,
        mut request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        respond(
            async {
                if request.extensions().get::<Principal>().is_none() {
                    let peer = request.extensions().get::<Peer>().cloned();
                    let known = self.log_in(&mut request, peer.as_ref()).await;
                    let known = known.inspect_err(|error| note_refusal(error, peer.as_ref()))?;
                    if let Some(peer) = peer {
                        peer.seat.take().await?;
                    }
                    request.extensions_mut().insert(known.0);
                    request.extensions_mut().insert(known.1);
                }
                let caller = self.caller(&request).await?;
                let means = request.extensions().get().unwrap_or(&Means::None);
                let token = self.authenticator.token(&caller.principal, means)?;
                let bearer = format!("Bearer {token}").parse().map_err(|_| Error::internal("a token makes no header"))?;
                let response = HandshakeResponse { protocol_version: 0, payload: token.into_bytes().into() };
                let mut response = caller.greet(Response::new(stream::iter([Ok(response)]).boxed()))?;
                response.metadata_mut().insert("authorization", bearer);
                Ok(response)
            }
            .await,
        )
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        respond(
            async {
                let mut caller = self.caller(&request).await?;
                let info = self.flight_info(&mut caller, request.into_inner(), false).await?;
                caller.greet(Response::new(info))
            }
            .await,
        )
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        respond(
            async {
                let mut caller = self.caller(&request).await?;
                let schema = schema_bytes(&*self.schema(&mut caller, request.get_ref()).await?)?;
                caller.greet(Response::new(SchemaResult { schema }))
            }
            .await,
        )
    }

    async fn do_get(&self, request: Request<FlightTicket>) -> Result<Response<Self::DoGetStream>, Status> {
        Ok(self.messages(request).await?.map(|messages| messages.map_ok(FlightData::from).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        respond(
            async {
                let mut caller = self.caller(&request).await?;
                let result = put::put(self, &mut caller, request.into_inner()).await?;
                caller.greet(Response::new(stream::iter([Ok(result)]).boxed()))
            }
            .await,
        )
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        respond(
            async {
                let caller = self.caller(&request).await?;
                actions::run(self, caller, request.into_inner()).await
            }
            .await,
        )
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(stream::iter(actions::list()).map(Ok).boxed()))
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        unimplemented("ListFlights")
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        respond(
            async {
                let mut caller = self.caller(&request).await?;
                let info = self.flight_info(&mut caller, request.into_inner(), true).await?;
                // Complete, so there is nothing to ask for again.
                let poll = PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
                caller.greet(Response::new(poll))
            }
            .await,
        )
    }

    async fn do_exchange(&self, _request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        unimplemented("DoExchange")
    }
}
