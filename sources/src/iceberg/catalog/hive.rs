//! A Hive metastore, whose tables name their files of metadata by a parameter. It is asked by Thrift, each time on a connection of
//! its own.

mod commit;
mod locks;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nexus_flight_catalog::{Error, Place, Result, TableEntry, information_schema};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use url::Url;

use super::thrift::{Answers, Call, LIST, MAP, Outcome, STRUCT, TEXT, check, wrong};
use super::{Catalog, Current, Found};
use crate::iceberg::append::Change;
use crate::lake::{Lake, Name};

/// How many connections there may be: a metastore has a thread for each.
const CONNECTIONS: usize = 8;
/// How long it may take until there is one.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long a call may take that changes something, of tables or of locks.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);
/// How many tables are asked for at once.
const AT_ONCE: usize = 100;
/// The most bytes of the names and comments of the tables of a schema.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
/// The port of a metastore where an address names none.
const PORT: u16 = 9083;
/// What metastores want clients to say before they tell of a table that only Hive adds rows to. Only its parameters are read.
const INSERT_ONLY_TABLES: i32 = 2;
/// The exception that says that there is no such table.
const NO_SUCH_OBJECT: i16 = 2;

/// The Iceberg tables that a metastore knows.
#[derive(Debug)]
pub(in crate::iceberg) struct Hive {
    lake: Arc<Lake>,
    /// Asked in this order: the first that can be connected to answers.
    servers: Vec<Server>,
    room: Semaphore,
}

impl Hive {
    /// At `thrift://host:port`, or at several of these with commas between them; no connection is made. The files of tables are
    /// read by `lake`. Errors: `Invalid` at the key `uri`.
    pub(in crate::iceberg) fn open(catalog: &str, uri: &str, lake: Arc<Lake>) -> Result<Self> {
        let servers = uri.split(',').map(|address| Server::parse(address.trim())).collect::<Option<Vec<_>>>();
        let servers = servers.ok_or_else(|| {
            Error::invalid("this is no address of a metastore")
                .with_hint("write it as thrift://host:9083; put commas between several")
                .at(Place::Key(format!("catalogs.{catalog}.uri")))
        })?;
        Ok(Self { lake, servers, room: Semaphore::new(CONNECTIONS) })
    }

    /// A connection to the first server that has one. Errors: `Unavailable`.
    async fn session(&self) -> Result<Session<'_>> {
        let room = self.room.acquire().await;
        let room = room.map_err(|cause| Error::internal("there is no room for a connection").caused_by(cause))?;
        let mut failure = Error::internal("no metastore is configured");
        for server in &self.servers {
            let connecting = timeout(CONNECTED_WITHIN, TcpStream::connect((server.host.as_str(), server.port))).await;
            let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => return Ok(Session { server, answers: Answers::new(stream), _room: room }),
                Err(cause) => {
                    failure = Error::unavailable(format!("the metastore cannot be reached: {cause}"))
                        .with_hint("check uri, and whether the server runs")
                        .at(server.place())
                        .caused_by(cause);
                }
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl Catalog for Hive {
    async fn ping(&self) -> Result<()> {
        self.session().await?.schemas().await.map(|_| ())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        self.session().await?.schemas().await
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        let mut session = self.session().await?;
        // Of a schema that is not there it says that it has no tables, and it knows the others by more than one name.
        if !session.schemas().await?.iter().any(|name| name == schema) {
            return Err(Error::not_found(format!("schema \"{schema}\" does not exist")));
        }
        let names = session.names(&Call::new("get_all_tables").text(1, schema).end()).await?;
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        for names in names.chunks(AT_ONCE) {
            let tables = session.tables(schema, names).await?.into_iter();
            let listed = tables.filter(|table| table.is_iceberg() && Name::parse(&table.name).about().is_none());
            entries.extend(listed.map(|table| {
                bytes = bytes.saturating_add(table.name.len() + table.comment.as_ref().map_or(0, String::len));
                TableEntry { comment: table.comment, ..TableEntry::table(table.name) }
            }));
            if bytes > LARGEST_LIST {
                return Err(wrong("it tells of tables by more than 64 MiB").at(session.server.place()));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let mut session = self.session().await?;
        let found = session.table(schema, table).await?;
        // It heeds no case, and `@hive#shop` is `shop` to it; access rules are about names as they are listed.
        let Some(found) = found.filter(|found| found.schema == schema && found.name == table) else { return Ok(None) };
        let state = found.metadata().map_err(|error| error.at(session.server.place()))?;
        let path = self.lake.inside(&state)?;
        Ok(Some(Found { lake: Arc::clone(&self.lake), current: Current { path, state } }))
    }

    async fn commit(&self, schema: &str, table: &str, found: &Found, change: &Change) -> Result<super::Outcome> {
        commit::commit(self, schema, table, found, change).await
    }
}

/// Where a metastore is.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn parse(address: &str) -> Option<Self> {
        let url = Url::parse(address).ok().filter(|url| url.scheme() == "thrift")?;
        let is_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        if is_more || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: url.port().unwrap_or(PORT) })
    }

    fn place(&self) -> Place {
        Place::File { path: self.to_string(), line: None }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "thrift://[{}]:{}", self.host, self.port),
            false => write!(f, "thrift://{}:{}", self.host, self.port),
        }
    }
}

/// A connection, closed when it is dropped.
struct Session<'a> {
    server: &'a Server,
    answers: Answers<TcpStream>,
    _room: SemaphorePermit<'a>,
}

impl Session<'_> {
    /// The names of the schemas, sorted.
    async fn schemas(&mut self) -> Result<Vec<String>> {
        let mut names = self.names(&Call::new("get_all_databases").end()).await?;
        // Hive has one of this name for its own purposes.
        names.retain(|name| name != information_schema::NAME);
        names.sort();
        Ok(names)
    }

    async fn names(&mut self, call: &Call) -> Result<Vec<String>> {
        let answers = &mut self.answers;
        in_time(self.server, ANSWERED_WITHIN, async move {
            check(value(answers.call(call).await?)?, LIST)?;
            let names = answers.texts().await?;
            answers.end().await?;
            Ok(names)
        })
        .await
    }

    /// Those of these tables that are there.
    async fn tables(&mut self, schema: &str, names: &[String]) -> Result<Vec<Table>> {
        let call = Call::new("get_table_objects_by_name_req").begin(1).text(1, schema).texts(2, names);
        let call = call.begin(3).numbers(1, &[INSERT_ONLY_TABLES]).end().end().end();
        let answers = &mut self.answers;
        in_time(self.server, ANSWERED_WITHIN, async move {
            check(value(answers.call(&call).await?)?, STRUCT)?;
            let tables = tables(answers, names.len()).await?;
            answers.end().await?;
            Ok(tables)
        })
        .await
    }

    /// What comes of a call that returns nothing.
    async fn call(&mut self, call: &Call) -> Result<Outcome> {
        in_time(self.server, CHANGED_WITHIN, self.answers.call(call)).await
    }

    /// A table, of whatever kind it is; none where it is not there.
    async fn table(&mut self, schema: &str, name: &str) -> Result<Option<Table>> {
        let Some(bytes) = self.raw_table(schema, name).await? else { return Ok(None) };
        let table = table(&mut Answers::new(&bytes[..])).await;
        table.map(Some).map_err(|error| error.at(self.server.place()))
    }

    /// The struct that a table is, as the metastore gives it.
    async fn raw_table(&mut self, schema: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let call = Call::new("get_table_req").begin(1).text(1, schema).text(2, name);
        let call = call.begin(3).numbers(1, &[INSERT_ONLY_TABLES]).end().end().end();
        let answers = &mut self.answers;
        in_time(self.server, ANSWERED_WITHIN, async move {
            let outcome = answers.call(&call).await?;
            if matches!(outcome, Outcome::Thrown { number: NO_SUCH_OBJECT, .. }) {
                return Ok(None);
            }
            check(value(outcome)?, STRUCT)?;
            let mut found = None;
            while let Some((kind, id)) = answers.field().await? {
                match id {
                    1 => {
                        check(kind, STRUCT)?;
                        found = Some(answers.raw(STRUCT).await?);
                    }
                    _ => answers.skip(kind).await?,
                }
            }
            answers.end().await?;
            if found.is_none() { Err(wrong("there is no table in it")) } else { Ok(found) }
        })
        .await
    }
}

/// What a server answers, if it does so in time; errors have the server as their place.
async fn in_time<T>(server: &Server, time: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = timeout(time, answer).await.unwrap_or_else(|_| {
        let message = format!("the metastore has not answered within {} s", time.as_secs());
        Err(Error::unavailable(message).with_hint("see whether the server is well"))
    });
    answered.map_err(|error| error.at(server.place()))
}

/// The type of what a call returns. Errors: `Unavailable` with what the metastore says instead.
fn value(outcome: Outcome) -> Result<u8> {
    match outcome {
        Outcome::Value(kind) => Ok(kind),
        Outcome::Thrown { message, .. } => Err(refusal(&message)),
        Outcome::Done => Err(wrong("it returns nothing")),
    }
}

fn refusal(message: &str) -> Error {
    Error::unavailable(format!("the metastore refuses: {message}"))
}

/// What is of interest of a table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    schema: String,
    name: String,
    /// What it is, where it is not one of Hive itself: the parameter `table_type`.
    kind: Option<String>,
    metadata_location: Option<String>,
    comment: Option<String>,
}

impl Table {
    fn is_iceberg(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.eq_ignore_ascii_case("iceberg"))
    }

    /// Where its file of metadata is. Errors: `Unsupported` for a table of another kind, `Data` where it does not say.
    fn metadata(self) -> Result<String> {
        if self.is_iceberg() {
            return self.metadata_location.ok_or_else(|| {
                Error::data(format!("the table \"{}\" has no parameter metadata_location", self.name))
                    .with_hint("register it again with its newest file of metadata")
            });
        }
        let kind = self.kind.map_or_else(|| "has no table_type".to_owned(), |kind| format!("has the table_type \"{kind}\""));
        Err(Error::unsupported(format!("\"{}\" is no Iceberg table: it {kind}", self.name))
            .with_hint("only Iceberg tables of the metastore are read"))
    }
}

/// A list of tables in a struct, of which no more than some were asked for.
async fn tables<S: AsyncRead + Unpin>(answers: &mut Answers<S>, most: usize) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    while let Some(count) = answers.structs().await? {
        for _ in 0..count {
            if tables.len() == most {
                return Err(wrong("there are more tables in it than were asked for"));
            }
            tables.push(table(answers).await?);
        }
    }
    Ok(tables)
}

/// The fields of a table. Its columns and whatever else Iceberg's metadata tells better are left out.
async fn table<S: AsyncRead + Unpin>(answers: &mut Answers<S>) -> Result<Table> {
    let mut table = Table::default();
    while let Some((kind, id)) = answers.field().await? {
        match (kind, id) {
            (TEXT, 1) => table.name = answers.text().await?,
            (TEXT, 2) => table.schema = answers.text().await?,
            (MAP, 9) => {
                let (kinds, pairs) = answers.map().await?;
                for _ in 0..pairs {
                    check(kinds[0], TEXT)?;
                    check(kinds[1], TEXT)?;
                    match answers.text().await?.as_str() {
                        "table_type" => table.kind = Some(answers.text().await?),
                        "metadata_location" => table.metadata_location = Some(answers.text().await?),
                        "comment" => table.comment = Some(answers.text().await?),
                        _ => answers.skip(TEXT).await?,
                    }
                }
            }
            _ => answers.skip(kind).await?,
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is a text.
    pub(super) fn text(id: u8, text: &str) -> Vec<u8> {
        [vec![11, 0, id], put(text)].concat()
    }

    pub(super) fn put(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
    }

    /// The fields of a table with these parameters, and the end of them.
    fn written(name: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = [text(1, name), text(2, "shop"), b"\x08\x00\x04\x00\x00\x00\x07".to_vec()].concat();
        bytes.extend(b"\x0c\x00\x07\x00\x0d\x00\x09\x0b\x0b");
        bytes.extend((parameters.len() as u32).to_be_bytes());
        for (key, value) in parameters {
            bytes.extend([put(key), put(value)].concat());
        }
        bytes.push(0);
        bytes
    }

    fn refused(table: Table) -> String {
        table.metadata().expect_err("a refusal").to_string()
    }

    #[test]
    fn addresses_are_of_metastores() {
        let address = |address: &str| Server::parse(address).map(|server| server.to_string());
        assert_eq!(address("thrift://db.example").as_deref(), Some("thrift://db.example:9083"));
        assert_eq!(address("thrift://[::1]:1/").as_deref(), Some("thrift://[::1]:1"));
        for wrong in ["", "db.example:9083", "http://h:1", "thrift://", "thrift://h:1/d", "thrift://me@h", "thrift://h?a=b"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_table_is_what_its_parameters_say() {
        let one = written("orders", &[("EXTERNAL", "TRUE"), ("table_type", "iceberg"), ("metadata_location", "s3://b/m.json")]);
        let other = written("plain", &[("comment", "of Hive")]);
        let answer = [&b"\x0f\x00\x01\x0c\x00\x00\x00\x02"[..], &one[..], &other[..], &[0][..]].concat();
        let mut found = tables(&mut Answers::new(&answer[..]), 2).await.unwrap();
        let (plain, orders) = (found.pop().unwrap(), found.pop().unwrap());
        assert_eq!((orders.schema.as_str(), orders.name.as_str(), orders.is_iceberg()), ("shop", "orders", true));
        assert_eq!(orders.metadata().unwrap(), "s3://b/m.json");
        assert_eq!((plain.comment.as_deref(), plain.is_iceberg()), (Some("of Hive"), false));
        insta::assert_snapshot!(refused(plain), @r#""plain" is no Iceberg table: it has no table_type; only Iceberg tables of the metastore are read"#);
        for length in 0..answer.len() {
            assert!(tables(&mut Answers::new(&answer[..length]), 2).await.is_err(), "{length}");
        }
        assert!(tables(&mut Answers::new(&answer[..]), 1).await.is_err());
    }

    #[test]
    fn a_table_without_metadata_is_not_read() {
        let table = |kind: &str| Table { name: "t".to_owned(), kind: Some(kind.to_owned()), ..Table::default() };
        insta::assert_snapshot!(refused(table("ICEBERG")), @r#"the table "t" has no parameter metadata_location; register it again with its newest file of metadata"#);
        insta::assert_snapshot!(refused(table("DELTA")), @r#""t" is no Iceberg table: it has the table_type "DELTA"; only Iceberg tables of the metastore are read"#);
    }
}
