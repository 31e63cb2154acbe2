//! A connection of the runner: every statement goes the way of a client of Flight SQL, and the answer comes back as text.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, CommandStatementQuery, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{Action, FlightDescriptor};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use prost::Message;
use regex::Regex;
use sqllogictest::{AsyncDB, DBOutput};
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::pattern;
use crate::values::{self, Kind};

/// No statement of the suite takes this long.
const LONGEST: Duration = Duration::from_secs(60);
/// The zone of a session that has set none.
const UTC: &str = "+00:00";
/// Messages that the gateway sends are smaller than this unless one row is larger.
const LARGEST: usize = 64 << 20;

/// What the gateway said instead of an answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What kind of error it is.
    pub(crate) code: Code,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

impl From<FlightError> for Refusal {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => (*status).into(),
            other => Self { code: Code::Unknown, message: format!("the client cannot read the answer: {other}") },
        }
    }
}

impl From<tonic::transport::Error> for Refusal {
    fn from(error: tonic::transport::Error) -> Self {
        Self { code: Code::Unavailable, message: error.to_string() }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// A client in a session of its own.
#[derive(Debug)]
pub(crate) struct Connection {
    client: FlightSqlServiceClient<Channel>,
    /// Carries the session.
    cookie: String,
}

impl Connection {
    /// Connects to `http://host:port`.
    pub(crate) async fn open(endpoint: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await?;
        let mut inner = FlightServiceClient::new(channel).max_decoding_message_size(LARGEST);
        let first = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        let answer = inner.get_flight_info(FlightDescriptor::new_cmd(first.as_any().encode_to_vec())).await?;
        let mut client = FlightSqlServiceClient::new_from_inner(inner);
        client.set_header("x-nexus-type-profile", "native");
        let mut connection = Self { client, cookie: String::new() };
        connection.keep_cookie(answer.metadata());
        Ok(connection)
    }

    /// The kinds of the columns of an answer, and its rows as text.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<(Vec<Kind>, Vec<Vec<String>>)> {
        let info = self.client.execute(sql.to_owned(), None).await?;
        let (mut kinds, mut rows) = (vec![], vec![]);
        for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
            let mut answer = self.client.do_get(ticket).await?;
            while let Some(batch) = answer.next().await {
                rows.extend(values::rows(&batch?).map_err(FlightError::from)?);
            }
            let schema = answer.schema().ok_or_else(|| unreadable("there is no schema"))?;
            kinds = schema.fields().iter().map(|field| Kind::of(field)).collect();
        }
        Ok((kinds, rows))
    }

    /// Puts rows into a new table.
    pub(crate) async fn put(&mut self, [catalog, schema, table]: [&str; 3], batch: RecordBatch) -> Result<()> {
        let command = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Create.into(),
                if_exists: TableExistsOption::Replace.into(),
            }),
            table: table.to_owned(),
            schema: Some(schema.to_owned()),
            catalog: Some(catalog.to_owned()),
            ..CommandStatementIngest::default()
        };
        self.client.execute_ingest(command, stream::iter([Ok(batch)])).await?;
        Ok(())
    }

    /// Sets an option of the session. Errors: the value is not one that it takes.
    pub(crate) async fn set(&mut self, option: &str, value: &str) -> Result<()> {
        let text = SessionOptionValue { text: Some(value.to_owned()) };
        let request = SetSessionOptions { options: HashMap::from([(option.to_owned(), text)]) };
        let action = Action { r#type: "SetSessionOptions".to_owned(), body: request.encode_to_vec().into() };
        let mut request = tonic::Request::new(action);
        request.metadata_mut().insert("cookie", self.cookie.parse().map_err(|_| unreadable("its cookie is no header"))?);
        let mut answer = self.client.inner_mut().do_action(request).await?;
        self.keep_cookie(answer.metadata());
        let answer = answer.get_mut().message().await?.unwrap_or_default();
        // It is empty unless the option was not set.
        match answer.body.is_empty() {
            true => Ok(()),
            false => Err(Refusal { code: Code::InvalidArgument, message: format!("the option {option} does not take {value}") }),
        }
    }

    fn keep_cookie(&mut self, answer: &MetadataMap) {
        if let Some(cookie) = answer.get("set-cookie").and_then(|cookie| cookie.to_str().ok()?.split(';').next()) {
            cookie.clone_into(&mut self.cookie);
            self.client.set_header("cookie", cookie);
        }
    }
}

fn unreadable(why: &str) -> Refusal {
    Refusal { code: Code::Unknown, message: format!("the client cannot read the answer: {why}") }
}

/// `arrow.flight.protocol.SetSessionOptionsRequest`, which arrow-flight does not have.
#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptions {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, SessionOptionValue>,
}

/// The values that are text.
#[derive(Clone, PartialEq, prost::Message)]
struct SessionOptionValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = Refusal;
    type ColumnType = Kind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Kind>> {
        if let Some((option, value)) = session_option(sql) {
            self.set(option, &value).await?;
            return Ok(DBOutput::StatementComplete(0));
        }
        let answer = tokio::time::timeout(LONGEST, self.query(sql)).await;
        let (types, rows) =
            answer.map_err(|_| Refusal { code: Code::DeadlineExceeded, message: format!("no answer within {LONGEST:?}") })??;
        // The gateway counts the rows of a new table; the files do not.
        match DEFINES.is_match(sql) {
            true => Ok(DBOutput::StatementComplete(0)),
            false => Ok(DBOutput::Rows { types, rows }),
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "DataFusion"
    }
}

static DEFINES: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(create|drop)\s"));
static SET: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^\s*set\s+{OPTION}\s*(=|to)\s*'?([^';]*)'?\s*;?\s*$")));
static RESET: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^\s*reset\s+{OPTION}\s*;?\s*$")));
const OPTION: &str =
    r"(?<name>time\s+zone|timezone|datafusion\.execution\.time_zone|datafusion\.catalog\.default_(catalog|schema))";

/// What a statement sets that is an option of the session here, which clients set by an action.
fn session_option(sql: &str) -> Option<(&'static str, String)> {
    let (found, value) = match SET.captures(sql) {
        Some(found) => (found, None),
        None => (RESET.captures(sql)?, Some(UTC)),
    };
    let option = match found["name"].to_lowercase().rsplit('_').next() {
        Some("catalog") => "catalog",
        Some("schema") => "schema",
        _ => "time_zone",
    };
    let value = value.unwrap_or_else(|| found.iter().last().flatten().map_or("", |value| value.as_str()));
    Some((option, value.to_owned()))
}
