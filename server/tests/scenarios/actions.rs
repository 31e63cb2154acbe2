//! The actions of the scenarios, turned into those of the real service.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest, ActionBeginTransactionResult,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest,
    ActionEndTransactionRequest, Any, ProstMessageExt,
};
use arrow_flight::{Action, Result as Body};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::Principal;
use nexus_server::flight::options::{
    GetSessionOptionsResult, OptionValue, SessionOptionValue, SetSessionOptionsRequest, SetSessionOptionsResult, StringListValue,
};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::backend::{PLAN, PREPARED_WRITING_PLAN};
use crate::route::{Route, again};

type Bodies = BoxStream<'static, Result<Body, Status>>;

impl Route {
    pub(crate) async fn act(&self, request: Request<Action>) -> Result<Response<Bodies>, Status> {
        let body = request.get_ref().body.clone();
        match request.get_ref().r#type.as_str() {
            // What the scenario of logins asks: who am I?
            "" => {
                let principal = request.extensions().get::<Principal>().unwrap().to_string();
                Ok(one(principal.into_bytes().into()))
            }
            "BeginTransaction" => {
                let transaction = self.begin(&again(&request, ())).await?;
                self.names.lock().unwrap().transaction = transaction;
                Ok(packed(&ActionBeginTransactionResult { transaction_id: Bytes::from_static(b"transaction_id") }))
            }
            "BeginSavepoint" => {
                let mut asked: ActionBeginSavepointRequest = unpack(&body);
                asked.transaction_id = self.transaction(Some(asked.transaction_id)).unwrap();
                let result = first(self.service.do_action(with(&request, &asked)).await?).await?;
                let ActionBeginSavepointResult { savepoint_id } = unpack(&result);
                self.names.lock().unwrap().savepoint = savepoint_id;
                Ok(packed(&ActionBeginSavepointResult { savepoint_id: Bytes::from_static(b"savepoint_id") }))
            }
            "EndTransaction" => {
                let mut asked: ActionEndTransactionRequest = unpack(&body);
                asked.transaction_id = self.transaction(Some(asked.transaction_id)).unwrap();
                self.service.do_action(with(&request, &asked)).await
            }
            "EndSavepoint" => {
                let mut asked: ActionEndSavepointRequest = unpack(&body);
                assert_eq!(&*asked.savepoint_id, b"savepoint_id");
                asked.savepoint_id = self.names.lock().unwrap().savepoint.clone();
                self.service.do_action(with(&request, &asked)).await
            }
            "CreatePreparedStatement" => {
                let mut asked: ActionCreatePreparedStatementRequest = unpack(&body);
                asked.transaction_id = self.transaction(asked.transaction_id);
                self.service.do_action(with(&request, &asked)).await
            }
            "CreatePreparedSubstraitPlan" => {
                let mut asked: ActionCreatePreparedSubstraitPlanRequest = unpack(&body);
                asked.transaction_id = self.transaction(asked.transaction_id);
                let plan = asked.plan.as_mut().unwrap();
                assert_eq!((&*plan.plan, &*plan.version), (PLAN, "version"));
                // The client prepares the same plan twice: it reads by the first, and writes by the second.
                let writes = {
                    let mut names = self.names.lock().unwrap();
                    names.prepared_plans += 1;
                    names.prepared_plans.is_multiple_of(2)
                };
                if writes {
                    plan.plan = PREPARED_WRITING_PLAN.into();
                }
                self.service.do_action(with(&request, &asked)).await
            }
            "SetSessionOptions" => self.set_options(&request).await,
            "GetSessionOptions" => self.get_options(&request).await,
            _ => self.service.do_action(request).await,
        }
    }

    /// Begins a transaction of the service.
    pub(crate) async fn begin(&self, like: &Request<()>) -> Result<Bytes, Status> {
        let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec().into();
        let action = Action { r#type: "BeginTransaction".to_owned(), body };
        let result = first(self.service.do_action(again(like, action)).await?).await?;
        Ok(unpack::<ActionBeginTransactionResult>(&result).transaction_id)
    }

    /// Sets the options that those of the client stand for; what stands for none is told to the service as it is.
    async fn set_options(&self, request: &Request<Action>) -> Result<Response<Bodies>, Status> {
        let asked = SetSessionOptionsRequest::decode(&*request.get_ref().body).unwrap();
        let options = options();
        let real = asked.session_options.into_iter().map(|(name, value)| {
            let Some(option) = options.iter().find(|option| option.name == name) else { return (name, value) };
            let option_value = value.option_value.map(|value| {
                assert_eq!(value, option.value);
                OptionValue::Text(option.real.1.to_owned())
            });
            (option.real.0.to_owned(), SessionOptionValue { option_value })
        });
        let body = SetSessionOptionsRequest { session_options: real.collect() }.encode_to_vec().into();
        let answer = self.service.do_action(again(request, Action { body, ..request.get_ref().clone() })).await?;
        let answer = answered(answer).await?;
        let result = SetSessionOptionsResult::decode(&*answer.get_ref().body).unwrap();
        let errors = result.errors.into_iter().map(|(name, error)| {
            let option = options.iter().find(|option| option.real.0 == name);
            (option.map_or(name, |option| option.name.to_owned()), error)
        });
        let body = SetSessionOptionsResult { errors: errors.collect() }.encode_to_vec().into();
        Ok(answer.map(|_| stream::iter([Ok(Body { body })]).boxed()))
    }

    /// The options of the service that those of the client stand for. The others are set always, and it wants none at first.
    async fn get_options(&self, request: &Request<Action>) -> Result<Response<Bodies>, Status> {
        let answer = self.service.do_action(again(request, request.get_ref().clone())).await?;
        let answer = answered(answer).await?;
        let result = GetSessionOptionsResult::decode(&*answer.get_ref().body).unwrap();
        let set = options().into_iter().filter(|option| {
            result.session_options.get(option.real.0).is_some_and(|value| *value == SessionOptionValue::from(option.real.1))
        });
        let session_options =
            set.map(|option| (option.name.to_owned(), SessionOptionValue { option_value: Some(option.value) })).collect();
        let body = GetSessionOptionsResult { session_options }.encode_to_vec().into();
        Ok(answer.map(|_| stream::iter([Ok(Body { body })]).boxed()))
    }
}

/// An option of the scenario with its fixed value, and the name and the text that they stand for.
struct FixedOption {
    name: &'static str,
    value: OptionValue,
    real: (&'static str, &'static str),
}

fn options() -> [FixedOption; 4] {
    let texts = ["a", "b", "sea", "dee", " ", "  ", "geee", "(づ｡◕‿‿◕｡)づ"].map(str::to_owned);
    let texts = OptionValue::Texts(StringListValue { values: texts.into() });
    let invalid = OptionValue::Text("lol_invalid".to_owned());
    [
        FixedOption { name: "foolong", value: OptionValue::Int64(123), real: ("timeout", "30s") },
        FixedOption { name: "bardouble", value: OptionValue::Double(456.0), real: ("endpoints", "4") },
        FixedOption { name: "big_ol_string_list", value: texts, real: ("cache", "no-cache") },
        // Both refuse this value.
        FixedOption { name: "key_with_invalid_value", value: invalid, real: ("time_zone", "lol_invalid") },
    ]
}

/// The one body of an answer, with the head it came with.
async fn answered(answer: Response<Bodies>) -> Result<Response<Body>, Status> {
    let (head, mut bodies, extensions) = answer.into_parts();
    Ok(Response::from_parts(head, bodies.try_next().await?.unwrap(), extensions))
}

fn one(body: Bytes) -> Response<Bodies> {
    Response::new(stream::iter([Ok(Body { body })]).boxed())
}

fn packed(result: &impl ProstMessageExt) -> Response<Bodies> {
    one(result.as_any().encode_to_vec().into())
}

/// The same action with another body.
fn with(request: &Request<Action>, body: &impl ProstMessageExt) -> Request<Action> {
    let body = body.as_any().encode_to_vec().into();
    again(request, Action { r#type: request.get_ref().r#type.clone(), body })
}

async fn first(answer: Response<Bodies>) -> Result<Bytes, Status> {
    Ok(answered(answer).await?.into_inner().body)
}

fn unpack<M: ProstMessageExt + Default>(body: &Bytes) -> M {
    Any::decode(&**body).unwrap().unpack().unwrap().unwrap()
}
