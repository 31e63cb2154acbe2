//! What the scenarios ask that is not Flight SQL, or not with this server's own names: turned into calls of the real service.
//!
//! A transaction is `transaction_id` to the client and a sealed id to the service, and so on: each fixed name stands for what
//! the service gave when it was asked. What is rewritten, and why, is listed in docs/src/decisions/scenarios.md.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    Any, Command, CommandGetSqlInfo, CommandStatementIngest, CommandStatementQuery, CommandStatementSubstraitPlan,
    ProstMessageExt, SqlInfo,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::middleware::Next;
use axum::response::Response as HttpResponse;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use http::HeaderValue;
use nexus_server::flight::caller::PROFILE;
use nexus_server::flight::service::Service;
use prost::Message;
use tonic::codec::Codec;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::backend::{PLAN, WRITING_PLAN};

/// The header that the scenario of middleware sends and wants back, whatever the answer.
const ECHOED: &str = "x-middleware";
/// How the client names a heavy query when it asks again.
const STARTED: &[u8] = b"a query that was started";

/// The calls of one scenario.
pub(crate) struct Route {
    pub(crate) scenario: &'static str,
    pub(crate) service: Arc<Service>,
    pub(crate) names: Mutex<Names>,
}

/// What the fixed names of the scenarios stand for.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) transaction: Bytes,
    pub(crate) savepoint: Bytes,
    pub(crate) prepared_plans: usize,
}

type Messages<T> = BoxStream<'static, Result<T, Status>>;

impl Route {
    pub(crate) fn new(scenario: &'static str, service: Arc<Service>) -> Self {
        Self { scenario, service, names: Mutex::default() }
    }

    /// What a fixed name of a transaction stands for.
    pub(crate) fn transaction(&self, named: Option<Bytes>) -> Option<Bytes> {
        named.map(|name| if &*name == b"transaction_id" { self.names.lock().unwrap().transaction.clone() } else { name })
    }

    /// A descriptor with what its fixed names stand for.
    fn real(&self, mut descriptor: FlightDescriptor) -> FlightDescriptor {
        let Some(command) = Any::decode(&*descriptor.cmd).ok().and_then(|any| Command::try_from(any).ok()) else {
            return descriptor;
        };
        let command = match command {
            Command::CommandStatementQuery(CommandStatementQuery { query, transaction_id }) => {
                CommandStatementQuery { query, transaction_id: self.transaction(transaction_id) }.as_any()
            }
            Command::CommandStatementUpdate(mut command) => {
                command.transaction_id = self.transaction(command.transaction_id);
                command.as_any()
            }
            Command::CommandStatementSubstraitPlan(CommandStatementSubstraitPlan { plan, transaction_id }) => {
                CommandStatementSubstraitPlan { plan, transaction_id: self.transaction(transaction_id) }.as_any()
            }
            // The client holds what it is told against fixed answers. These are true here; the others are not asked for.
            Command::CommandGetSqlInfo(mut command) if self.scenario == "flight_sql:extension" => {
                let true_here =
                    [SqlInfo::FlightSqlServerSubstrait, SqlInfo::FlightSqlServerTransaction, SqlInfo::FlightSqlServerCancel];
                command.info.retain(|info| true_here.iter().any(|known| *known as u32 == *info));
                CommandGetSqlInfo { info: command.info }.as_any()
            }
            _ => return descriptor,
        };
        descriptor.cmd = command.encode_to_vec().into();
        descriptor
    }

    /// The info of a statement, as the service gives it.
    async fn info(&self, like: &Request<()>, statement: &str) -> Result<Response<FlightInfo>, Status> {
        let command = CommandStatementQuery { query: statement.to_owned(), transaction_id: None };
        let cmd = command.as_any().encode_to_vec().into();
        let descriptor = FlightDescriptor { r#type: DescriptorType::Cmd.into(), cmd, path: Vec::new() };
        self.service.get_flight_info(again(like, descriptor)).await
    }

    /// The infos of several statements as one.
    async fn infos(&self, like: &Request<()>, statements: [&str; 3]) -> Result<Response<FlightInfo>, Status> {
        let mut all = self.info(like, statements[0]).await?;
        for statement in &statements[1..] {
            all.get_mut().endpoint.extend(self.info(like, statement).await?.into_inner().endpoint);
        }
        Ok(all)
    }
}

/// Another request of the same client.
pub(crate) fn again<T, U>(like: &Request<U>, message: T) -> Request<T> {
    Request::from_parts(like.metadata().clone(), like.extensions().clone(), message)
}

/// Has rows sent in their own types, and sends the header back that the scenario of middleware sends.
pub(crate) async fn middleware(mut request: HttpRequest, next: Next) -> HttpResponse {
    // The client reads every type, which its name does not tell.
    request.headers_mut().insert(PROFILE, HeaderValue::from_static("native"));
    let sent = request.headers().get(ECHOED).cloned();
    let mut response = next.run(request).await;
    if let Some(value) = sent {
        response.headers_mut().insert(ECHOED, value);
    }
    response
}

/// The same messages as a stream of tonic's, which makes them of bodies only.
fn streaming(messages: impl Stream<Item = FlightData> + Send + 'static) -> Streaming<FlightData> {
    let frames = messages.map(|message| {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(message.encoded_len() as u32);
        message.encode(&mut frame).unwrap();
        Ok::<_, Status>(frame.freeze())
    });
    let decoder = ProstCodec::<FlightData, FlightData>::default().decoder();
    Streaming::new_request(decoder, Body::from_stream(frames), None, None)
}

#[tonic::async_trait]
impl FlightService for Route {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        self.service.handshake(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let like = again(&request, ());
        let cmd = request.get_ref().cmd.clone();
        match &*cmd {
            b"success" | b"reuse" => self.info(&like, "SELECT STATEMENT").await,
            b"ordered" => {
                let mut info = self.infos(&like, ["INT32 1 2 3", "INT32 10 20 30", "INT32 100 200 300"]).await?;
                info.get_mut().ordered = true;
                Ok(info)
            }
            b"expiration_time" => {
                let mut info = self.infos(&like, ["UINT32 0", "UINT32 1", "UINT32 2"]).await?;
                // All expire here, and the client wants one that does not.
                info.get_mut().endpoint[0].expiration_time = None;
                Ok(info)
            }
            b"foobar" => {
                let mut info = self.info(&like, "SELECT STATEMENT").await?;
                info.get_mut().endpoint[0].app_metadata = cmd.clone();
                info.get_mut().app_metadata = cmd;
                Ok(info)
            }
            _ => self.service.get_flight_info(request.map(|descriptor| self.real(descriptor))).await,
        }
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let command = CommandStatementQuery { query: "SELECT STATEMENT".to_owned(), transaction_id: None };
        let real = FlightDescriptor { cmd: command.as_any().encode_to_vec().into(), ..request.get_ref().clone() };
        let mut answer = self.service.poll_flight_info(again(&request, real)).await?;
        // What the service plans is complete at once, so the first answer is made to look as if it were not.
        if request.get_ref().cmd != STARTED {
            let poll = answer.get_mut();
            poll.flight_descriptor = Some(FlightDescriptor { cmd: STARTED.into(), ..request.get_ref().clone() });
            poll.progress = Some(0.1);
            poll.expiration_time = Some((SystemTime::now() + std::time::Duration::from_secs(10)).into());
        }
        Ok(answer)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.service.get_schema(request.map(|descriptor| self.real(descriptor))).await
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        unreachable!("DoGet has a route of its own")
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let like = again(&request, ());
        let mut messages = request.into_inner();
        let mut first = messages.try_next().await?.unwrap();
        let descriptor = self.real(first.flight_descriptor.take().unwrap());
        let any = Any::decode(&*descriptor.cmd).unwrap();
        let command = match Command::try_from(any.clone()).unwrap() {
            Command::CommandStatementSubstraitPlan(mut command) => {
                let plan = command.plan.as_mut().unwrap();
                assert_eq!((&*plan.plan, &*plan.version), (PLAN, "version"));
                plan.plan = WRITING_PLAN.into();
                command.as_any()
            }
            Command::CommandStatementIngest(command) => self.ingest(&like, command).await?.as_any(),
            _ => any,
        };
        first.flight_descriptor = Some(FlightDescriptor { cmd: command.encode_to_vec().into(), ..descriptor });
        let rest = messages.map(|message| message.unwrap());
        self.service.do_put(again(&like, streaming(stream::iter([first]).chain(rest)))).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.act(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let listed: Vec<ActionType> = self.service.list_actions(request).await?.into_inner().try_collect().await?;
        // The client knows of no others.
        let known = ["CancelFlightInfo", "RenewFlightEndpoint"];
        let listed = listed.into_iter().filter(move |action| known.contains(&&*action.r#type));
        Ok(Response::new(stream::iter(listed.map(Ok)).boxed()))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.service.list_flights(request).await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.service.do_exchange(request).await
    }
}

impl Route {
    /// The ingest of the scenario: in a transaction that nobody began, into a temporary table, with options that mean nothing.
    async fn ingest(&self, like: &Request<()>, command: CommandStatementIngest) -> Result<CommandStatementIngest, Status> {
        assert!(command.temporary);
        assert_eq!(command.options.len(), 2);
        assert_eq!(command.transaction_id.as_deref(), Some(&b"123"[..]));
        let transaction_id = Some(self.begin(like).await?);
        Ok(CommandStatementIngest { temporary: false, options: HashMap::new(), transaction_id, ..command })
    }
}
