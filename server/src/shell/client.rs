//! The Flight SQL side of `nexus sql`: connecting, signing in, and the rows of a statement one batch at a time.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables};
use arrow_flight::{FlightInfo, HandshakeRequest, IpcMessage, Ticket};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Result};
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use url::Url;

use super::cookies::Cookies;
use crate::flight::caller::PROFILE;
use crate::session::cache_control::CacheControl;
use crate::wire::caching;

/// The largest message taken from a server. tonic makes room for what a message says its length is.
const LARGEST_MESSAGE: usize = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to one server.
pub(super) struct Client {
    sql: FlightSqlServiceClient<Cookies<Channel>>,
    address: Address,
}

/// What the user gave as `--url`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    authority: String,
    tls: bool,
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        let forms = "write grpc://HOST:PORT, or grpc+tls://HOST:PORT for TLS";
        let parsed =
            Url::parse(url).map_err(|cause| Error::invalid(format!("\"{url}\" is not a URL: {cause}")).with_hint(forms))?;
        let tls = match parsed.scheme() {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "grpcs" | "https" => true,
            other => return Err(Error::invalid(format!("\"{other}\" is no scheme of a Flight SQL server")).with_hint(forms)),
        };
        if parsed.username() != "" || parsed.password().is_some() {
            return Err(Error::invalid("the URL holds a user or a password")
                .with_hint("give the user with --user and the password in the environment variable NEXUS_PASSWORD"));
        }
        match parsed.host_str() {
            Some(host) if !host.is_empty() => {
                let port = parsed.port().unwrap_or(if tls { 443 } else { 31337 });
                Ok(Self { authority: format!("{host}:{port}"), tls })
            }
            _ => Err(Error::invalid(format!("\"{url}\" names no host")).with_hint(forms)),
        }
    }

    /// What went wrong below gRPC, as far as it can be told: who answers there, and in what language.
    fn explain(&self, cause: &(dyn std::error::Error + 'static)) -> Error {
        let authority = &self.authority;
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(inner) = next {
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::ConnectionRefused
            {
                return Error::unavailable(format!("nothing listens at {authority}"))
                    .with_hint("is the gateway running, and is --url what flight.listen says in its configuration?");
            }
            text = inner.to_string();
            next = inner.source();
        }
        let error = Error::unavailable(format!("no connection to {authority}: {text}"));
        if self.tls && (text.contains("InvalidContentType") || text.contains("corrupt message")) {
            Error::unavailable(format!("the server at {authority} speaks without TLS")).with_hint("use grpc:// in --url")
        } else if text.contains("certificate") {
            error.with_hint("add the authority that signed it to the system's, or name its file in SSL_CERT_FILE")
        } else if text.contains("lookup") {
            error.with_hint("check the host name in --url")
        } else if self.tls {
            error.with_hint("check --url")
        } else {
            error.with_hint("if the server there wants TLS, use grpc+tls:// in --url")
        }
    }

    /// What a server said, in its own words; or why no word came through.
    fn status(&self, status: &Status) -> Error {
        // Only trouble on this side of the wire has a cause.
        if let Some(cause) = status.source() {
            return self.explain(cause);
        }
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::NotFound => Kind::NotFound,
            Code::Unauthenticated => Kind::Unauthenticated,
            Code::PermissionDenied => Kind::Denied,
            Code::Unimplemented => Kind::Unsupported,
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => Kind::Precondition,
            Code::ResourceExhausted => Kind::Exhausted,
            Code::Unavailable => Kind::Unavailable,
            Code::Cancelled => Kind::Cancelled,
            Code::DeadlineExceeded => Kind::Timeout,
            Code::DataLoss => Kind::Data,
            Code::Ok | Code::Unknown | Code::Internal => Kind::Internal,
        };
        match status.message() {
            // The body of an HTTP error, taken for a frame.
            message if message.contains("invalid compression flag") => {
                Error::unavailable(format!("the server at {} does not speak gRPC", self.authority))
                    .with_hint("give the port of flight.listen in --url, not that of http.listen")
            }
            "" => Error::new(kind, format!("the server says no more than \"{}\"", status.code().description())),
            message => Error::new(kind, message),
        }
    }

    fn flight(&self, error: FlightError) -> Error {
        match error {
            FlightError::Tonic(status) => self.status(&status),
            FlightError::Arrow(cause) => Error::from(cause),
            other => Error::data(format!("the server's answer cannot be read: {other}")),
        }
    }
}

impl Client {
    /// Connects, and signs in where a user is given. Those of the headers that have a value go with every call.
    pub(super) async fn connect(
        url: &str,
        user: Option<(&str, &SecretString)>,
        headers: &[(&str, Option<&str>)],
    ) -> Result<Self> {
        let address = Address::parse(url)?;
        let scheme = if address.tls { "https" } else { "http" };
        let unusable = |cause: tonic::transport::Error| address.explain(&cause);
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", address.authority))
            .and_then(|endpoint| endpoint.user_agent(concat!("nexus-sql/", env!("CARGO_PKG_VERSION"))))
            .map_err(unusable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(60)));
        if address.tls {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(unusable)?;
        }
        let channel = endpoint.connect().await.map_err(unusable)?;
        let flight = FlightServiceClient::new(Cookies::new(channel)).max_decoding_message_size(LARGEST_MESSAGE);
        let mut client = Self { sql: FlightSqlServiceClient::new_from_inner(flight), address };
        if let Some((name, password)) = user {
            client.sign_in(name, password).await?;
        }
        // It reads every Arrow type, and writes files of them.
        client.sql.set_header(PROFILE, "native");
        for (name, value) in headers {
            if let Some(value) = value {
                client.sql.set_header(*name, *value);
            }
        }
        Ok(client)
    }

    /// Says from now on with every call which answers that are kept are taken.
    pub(super) fn take_kept(&mut self, control: CacheControl) {
        self.sql.set_header(caching::CONTROL, control.to_string());
    }

    /// Basic credentials for a bearer token. arrow-flight's own handshake hides the status in a text.
    async fn sign_in(&mut self, name: &str, password: &SecretString) -> Result<()> {
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.expose_secret())));
        let mut basic: AsciiMetadataValue =
            basic.parse().map_err(|_| Error::internal("base64 that does not fit into a header"))?;
        basic.set_sensitive(true);
        let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
        request.metadata_mut().insert("authorization", basic);
        let response = self.sql.inner_mut().handshake(request).await.map_err(|status| self.address.status(&status))?;
        let bearer = response.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
            self.sql.set_token(token.to_owned());
        }
        // A refusal may also come as the end of the stream.
        let mut answers = response.into_inner();
        while answers.message().await.map_err(|status| self.address.status(&status))?.is_some() {}
        Ok(())
    }

    /// Runs a statement.
    pub(super) async fn query(&mut self, statement: &str) -> Result<Rows<'_>> {
        let info = self.sql.execute(statement.to_owned(), None).await;
        self.rows(info)
    }

    /// Lists the tables whose names are like a pattern, or all.
    pub(super) async fn tables(&mut self, pattern: Option<&str>) -> Result<Rows<'_>> {
        let command = CommandGetTables { table_name_filter_pattern: pattern.map(str::to_owned), ..CommandGetTables::default() };
        let info = self.sql.get_tables(command).await;
        self.rows(info)
    }

    /// Lists the catalogs.
    pub(super) async fn catalogs(&mut self) -> Result<Rows<'_>> {
        let info = self.sql.get_catalogs().await;
        self.rows(info)
    }

    /// Lists the schemas.
    pub(super) async fn schemas(&mut self) -> Result<Rows<'_>> {
        let info = self.sql.get_db_schemas(CommandGetDbSchemas::default()).await;
        self.rows(info)
    }

    /// The columns of the tables of a name, which may be written with its schema, or with its catalog too. Errors:
    /// `NotFound` where there is none.
    pub(super) async fn columns(&mut self, table: &str) -> Result<Rows<'_>> {
        let parts: Vec<&str> = table.rsplit('.').collect();
        let part = |at: usize| parts.get(at).map(|name| name.trim_matches('"').to_owned());
        let command = CommandGetTables {
            catalog: part(2),
            // It is a pattern, in which these are no letters.
            db_schema_filter_pattern: part(1).map(|name| literal(&name)),
            table_name_filter_pattern: part(0).map(|name| literal(&name)),
            include_schema: true,
            ..CommandGetTables::default()
        };
        let info = self.sql.get_tables(command).await;
        let mut tables = self.rows(info)?;
        let mut described = Vec::new();
        while let Some(batch) = tables.next().await? {
            described.push(described_columns(&batch)?);
        }
        drop(tables);
        if described.iter().all(|batch| batch.num_rows() == 0) {
            return Err(Error::not_found(format!("there is no table {table}")).with_hint("\\d lists the tables"));
        }
        let schema = described.first().map(RecordBatch::schema);
        Ok(Rows { client: self, ready: described.into(), tickets: VecDeque::new(), stream: None, schema, cached: None })
    }

    fn rows(&mut self, info: Result<FlightInfo, FlightError>) -> Result<Rows<'_>> {
        let info = info.map_err(|error| self.address.flight(error))?;
        // Locations are left aside: the server that was asked is the one that can be reached.
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.clone()).collect();
        let schema = if info.schema.is_empty() { None } else { info.try_decode_schema().ok().map(SchemaRef::new) };
        Ok(Rows { client: self, ready: VecDeque::new(), tickets, stream: None, schema, cached: None })
    }
}

/// The rows of a statement. Dropping it cancels what still runs.
pub(super) struct Rows<'a> {
    client: &'a mut Client,
    /// Those that are here already.
    ready: VecDeque<RecordBatch>,
    tickets: VecDeque<Ticket>,
    stream: Option<FlightRecordBatchStream>,
    schema: Option<SchemaRef>,
    cached: Option<String>,
}

impl Rows<'_> {
    /// What the cache of the server had to do with them, in words, once a batch was asked for; none where it says nothing of one.
    pub(super) fn cached(&self) -> Option<&str> {
        self.cached.as_deref()
    }

    /// The columns: as the rows have them once a batch was asked for, before that as they were announced.
    pub(super) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// The next batch.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Some(batch));
        }
        let address = &self.client.address;
        loop {
            let Some(stream) = &mut self.stream else {
                let Some(ticket) = self.tickets.pop_front() else { return Ok(None) };
                let opened = self.client.sql.do_get(ticket).await.map_err(|error| address.flight(error))?;
                // Of an answer in parts each says the same.
                self.cached = self.cached.take().or_else(|| caching::words(opened.headers().as_ref()));
                self.stream = Some(opened);
                continue;
            };
            let batch = stream.next().await.transpose().map_err(|error| address.flight(error))?;
            if let Some(schema) = stream.schema() {
                self.schema = Some(schema.clone());
            }
            match batch {
                Some(batch) => return Ok(Some(batch)),
                None => self.stream = None,
            }
        }
    }
}

/// A name as a pattern that only it matches.
fn literal(name: &str) -> String {
    name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// The columns of tables that were listed with their schemas, a row each.
fn described_columns(tables: &RecordBatch) -> Result<RecordBatch> {
    let text = |name: &str| tables.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let unread = || Error::data("the list of tables is not as Flight SQL has it");
    let names = text("table_name").ok_or_else(unread)?;
    let schemas = tables.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(unread)?;
    let mut rows: [Vec<Option<String>>; 6] = Default::default();
    for table in 0..tables.num_rows() {
        let schema = Schema::try_from(IpcMessage(Bytes::copy_from_slice(schemas.value(table))))?;
        for field in schema.fields() {
            let said = |key: &str| field.metadata().get(key).cloned();
            let of = |column: Option<&StringArray>| {
                column.filter(|column| column.is_valid(table)).map(|column| column.value(table).to_owned())
            };
            let row = [
                of(text("catalog_name")),
                of(text("db_schema_name")),
                Some(names.value(table).to_owned()),
                Some(field.name().clone()),
                Some(said("ARROW:FLIGHT:SQL:TYPE_NAME").unwrap_or_else(|| field.data_type().to_string())),
                Some(if field.is_nullable() { "yes" } else { "no" }.to_owned()),
            ];
            rows.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
    }
    let names = ["catalog", "schema", "table", "column", "type", "nullable"];
    let columns = names.into_iter().zip(rows).map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn urls_are_taken_apart() {
        let address =
            |url| Address::parse(url).map(|address| (address.authority, address.tls)).map_err(|error| error.to_string());
        assert_eq!(address("grpc://127.0.0.1:31337"), Ok(("127.0.0.1:31337".into(), false)));
        assert_eq!(address("grpc://localhost"), Ok(("localhost:31337".into(), false)));
        assert_eq!(address("grpc+tls://[::1]:443"), Ok(("[::1]:443".into(), true)));
        insta::assert_snapshot!(address("localhost:31337").unwrap_err(), @r#""localhost" is no scheme of a Flight SQL server; write grpc://HOST:PORT, or grpc+tls://HOST:PORT for TLS"#);
        insta::assert_snapshot!(address("grpc://ann:hunter2@there:1").unwrap_err(), @"the URL holds a user or a password; give the user with --user and the password in the environment variable NEXUS_PASSWORD");
        insta::assert_snapshot!(address("nothing").unwrap_err(), @r#""nothing" is not a URL: relative URL without a base; write grpc://HOST:PORT, or grpc+tls://HOST:PORT for TLS"#);
    }

    async fn said(url: &str) -> String {
        match Client::connect(url, None, &[]).await {
            Err(error) => error.to_string(),
            Ok(mut client) => client.query("SELECT 1").await.map(|_| ()).unwrap_err().to_string(),
        }
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let said = said(&format!("grpc://{free}")).await;
        assert!(said.starts_with(&format!("nothing listens at {free}; is the gateway running")), "{said}");
    }

    /// Answers every connection with the same bytes and closes it.
    async fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_that_wants_tls_is_explained() {
        // The alert that a TLS server sends to what is no ClientHello: a fatal one about an unexpected message.
        let address = server(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a]).await;
        let said = said(&format!("grpc://{address}")).await;
        assert!(said.contains(&address) && said.contains("use grpc+tls://"), "{said}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_explained() {
        // The settings frame with which an HTTP/2 server begins.
        let address = server(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        let said = said(&format!("grpc+tls://{address}")).await;
        assert_eq!(said, format!("the server at {address} speaks without TLS; use grpc:// in --url"));
    }
}
