//! A gateway in this process, reached as from outside: by requests to the routes of its port, with credentials.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;

use arrow_flight::sql::{ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor};
use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use nexus_server::config::Config;
use nexus_server::gateway::Gateway;
use nexus_server::serve;
use nexus_server::wire::auth::hash_password;
use nexus_server::wire::tokens;
use nexus_server::workers::{self, Workers};
use prost::Message;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::seeds::TABLES;
use crate::targets::Target;

/// The most that is read of an answer.
const MOST: usize = 4 << 20;

/// A gateway on threads with the stacks of those of the binary.
pub(crate) struct Outside {
    door: Arc<Door>,
    runtime: Runtime,
}

/// What stands between a client and what it is after.
pub(crate) struct Door {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) folder: TempDir,
    /// Credentials of "ann", as headers.
    pub(crate) good: Vec<String>,
    /// Handles of prepared statements: one that reads, and one that writes.
    pub(crate) prepared: [Bytes; 2],
    routes: Router,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) body: Vec<u8>,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let runtime = workers::threads("test").unwrap();
        let door = runtime.block_on(runtime.spawn(Door::open())).unwrap();
        Self { door: Arc::new(door), runtime }
    }

    /// Takes some bytes. Panics where what comes of them must not.
    pub(crate) fn take(&self, target: Target, bytes: &[u8]) {
        let (door, bytes) = (Arc::clone(&self.door), bytes.to_vec());
        let taken = self.runtime.block_on(self.runtime.spawn(async move { target.take(&door, &bytes).await }));
        taken.unwrap_or_else(|failed| resume_unwind(failed.into_panic()));
    }

    /// Bytes of a target as clients send them.
    pub(crate) fn seeds(&self, target: Target) -> Vec<Vec<u8>> {
        let door = Arc::clone(&self.door);
        self.runtime.block_on(self.runtime.spawn(async move { target.seeds(&door).await })).unwrap()
    }
}

impl Door {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (token, entry) = tokens::new("ann").unwrap();
        std::fs::write(folder.path().join("tokens.toml"), entry).unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = URL_SAFE_NO_PAD.encode(key.public_key());
        let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{public}"}}]}}"#);
        std::fs::write(folder.path().join("keys.json"), keys).unwrap();
        let config = Config::parse(&settings(), &folder.path().join("nexus.toml"), &|_| None).unwrap();
        let gateway = Gateway::new(&config, Workers::here(), None).unwrap();
        let service = Arc::new(serve::service(&config, &gateway));
        let routes = serve::routes(Arc::clone(&service), service);
        let good = vec![format!("Bearer {token}"), format!("Bearer {}", signed(&key)), "Basic YW5uOmNvcnJlY3Q=".to_owned()];
        let mut door = Self { gateway, folder, good, prepared: Default::default(), routes };
        for table in TABLES {
            door.put(&update(table)).await.succeeded();
        }
        let statements = ["SELECT id, name FROM numbers WHERE id = ? OR name = ?", "INSERT INTO numbers VALUES (?, ?)"];
        for (at, statement) in statements.into_iter().enumerate() {
            door.prepared[at] = door.prepare(statement).await;
        }
        door
    }

    /// One message there, and all that comes back, with the credentials of "ann".
    pub(crate) async fn call(&self, method: &str, message: &impl Message) -> Answer {
        self.send(method, &[], frame(message)).await.unwrap()
    }

    /// Some bytes there as the body of a call, with further headers; nothing where no such header can be sent.
    pub(crate) async fn send(&self, method: &str, headers: &[(HeaderName, &[u8])], body: Vec<u8>) -> Option<Answer> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = format!("/arrow.flight.protocol.FlightService/{method}").parse().unwrap();
        let all = request.headers_mut();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        all.insert(AUTHORIZATION, self.good[0].parse().unwrap());
        for (name, value) in headers {
            all.insert(name, HeaderValue::from_bytes(value).ok()?);
        }
        let Ok(response) = Service::call(&mut self.routes.clone(), request).await;
        let (parts, mut frames) = response.into_parts();
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        while let Some(frame) = frames.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
            if body.len() > MOST {
                return Some(Answer { status: Status::ok(""), body });
            }
        }
        let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&parts.headers));
        Some(Answer { status: status.unwrap_or_else(|| Status::unknown("there is no status")), body })
    }

    /// A command put with nothing after it.
    async fn put(&self, command: &Any) -> Answer {
        self.call("DoPut", &FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command.encode_to_vec()))).await
    }

    async fn prepare(&self, query: &str) -> Bytes {
        let request = ActionCreatePreparedStatementRequest { query: query.to_owned(), transaction_id: None };
        let body = request.as_any().encode_to_vec().into();
        let action = Action { r#type: "CreatePreparedStatement".to_owned(), body };
        let result: arrow_flight::Result = self.call("DoAction", &action).await.message();
        let result = Any::decode(result.body).unwrap();
        ActionCreatePreparedStatementResult::decode(result.value).unwrap().prepared_statement_handle
    }
}

impl Answer {
    /// The one message, of a call that succeeded.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        self.succeeded();
        M::decode(&self.body[5..]).unwrap()
    }

    pub(crate) fn succeeded(&self) {
        assert_eq!(self.status.code(), Code::Ok, "{:?}", self.status);
    }

    /// Whether it is one that a client may get for what it sent.
    pub(crate) fn holds(&self) {
        assert!(!matches!(self.status.code(), Code::Internal | Code::Unknown), "{:?}", self.status);
    }
}

/// A message as gRPC frames it.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut frame).unwrap();
    frame
}

/// A command that runs a statement.
pub(crate) fn update(query: &str) -> Any {
    arrow_flight::sql::CommandStatementUpdate { query: query.to_owned(), transaction_id: None }.as_any()
}

/// A JSON Web Token of "ann" that holds for long (RFC 7515, 3.1).
fn signed(key: &Ed25519KeyPair) -> String {
    let claims = r#"{"iss":"https://login.example.com/","aud":"nexus","sub":"ann","exp":9999999999}"#;
    let signed = [r#"{"alg":"EdDSA","kid":"a"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())))
}

fn settings() -> String {
    let (key, hash) = (format!("{}Bwc=", "CxcI".repeat(10)), hash_password("correct".into()).unwrap());
    format!(
        r#"
[auth]
mode = "basic"
tokens = "tokens.toml"
users.ann.password_hash = "{hash}"
[auth.jwt]
issuer = "https://login.example.com/"
audience = "nexus"
key = "keys.json"
[tickets]
keys = ["{key}"]
[limits]
memory = "64MiB"
temporary = "1MiB"
[cache]
size = "0"
[catalogs.test]
kind = "memory"
size = "8MiB"
writable = true
"#
    )
}

/// The configurations and policies of this project's documentation.
pub(crate) fn documented() -> Vec<Vec<u8>> {
    let top = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned();
    let pages = [
        "docs/src/security.md",
        "docs/src/connectors.md",
        "docs/src/policy.md",
        "docs/src/getting-started.md",
        "docs/src/operations.md",
    ];
    let texts = pages.map(|page| std::fs::read_to_string(top.join(page)).unwrap());
    let blocks = texts.iter().flat_map(|text| text.split("```").skip(1).step_by(2));
    let blocks = blocks.filter(|block| block.starts_with("toml") || block.starts_with("text\n[groups]"));
    blocks.filter_map(|block| block.split_once('\n')).map(|(_, text)| text.as_bytes().to_vec()).collect()
}
