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
    GetSessionOptionsResult, OptionError, OptionErrorValue, OptionValue, SetSessionOptionsRequest, SetSessionOptionsResult,
};
use nexus_server::flight::service::Service;
use prost::Message;
use tonic::{Request, Response, Status};
use uuid::Uuid;

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

    /// The session is the service's, and so is its cookie; of its options it knows none of the names.
    async fn set_options(&self, request: &Request<Action>) -> Result<Response<Bodies>, Status> {
        let asked = SetSessionOptionsRequest::decode(&*request.get_ref().body).unwrap();
        let none = SetSessionOptionsRequest::default().encode_to_vec().into();
        let action = Action { body: none, ..request.get_ref().clone() };
        let answer = self.service.do_action(again(request, action)).await?;
        let session = session(&self.service, request).await;
        let mut names = self.names.lock().unwrap();
        let options = names.options.entry(session).or_default();
        let mut result = SetSessionOptionsResult::default();
        for (name, value) in asked.session_options {
            let invalid = OptionValue::Text("lol_invalid".to_owned());
            if name == "lol_invalid" {
                result.errors.insert(name, OptionError { value: OptionErrorValue::InvalidName.into() });
            } else if value.option_value == Some(invalid) {
                result.errors.insert(name, OptionError { value: OptionErrorValue::InvalidValue.into() });
            } else if value.option_value.is_none() {
                options.remove(&name);
            } else {
                options.insert(name, value);
            }
        }
        Ok(answer.map(|_| stream::iter([Ok(Body { body: result.encode_to_vec().into() })]).boxed()))
    }

    async fn get_options(&self, request: &Request<Action>) -> Result<Response<Bodies>, Status> {
        let answer = self.service.do_action(again(request, request.get_ref().clone())).await?;
        let mut result = GetSessionOptionsResult::default();
        if request.metadata().contains_key("cookie") {
            let session = session(&self.service, request).await;
            result.session_options = self.names.lock().unwrap().options.get(&session).cloned().unwrap_or_default();
        }
        Ok(answer.map(|_| stream::iter([Ok(Body { body: result.encode_to_vec().into() })]).boxed()))
    }
}

/// The session that the client carries.
async fn session(service: &Service, request: &Request<Action>) -> Uuid {
    let cookie = request.metadata().get("cookie").unwrap().to_str().unwrap();
    let sealed = cookie.strip_prefix("nexus-session=").unwrap().trim_matches('"');
    service.sessions.open(request.extensions().get().unwrap(), sealed).await.unwrap().id
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
    Ok(answer.into_inner().try_next().await?.unwrap().body)
}

fn unpack<M: ProstMessageExt + Default>(body: &Bytes) -> M {
    Any::decode(&**body).unwrap().unpack().unwrap().unwrap()
}
