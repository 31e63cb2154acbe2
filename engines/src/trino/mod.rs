//! A Trino cluster: the tables of one of its catalogs, read by queries in its SQL, and whole queries in that.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use nexus_flight_catalog::error::{list, shortened, suggestion};
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Kind, Opt, OptType, Options, Place, Proof, Resolved, Result, Source, Spec, TableEntry,
    Version,
};

use crate::scan::Provider;
use crate::told::ours;
use crate::{Engine, Load, Opened};

mod client;
mod columns;
mod config;
mod decode;
mod dialect;
mod error;
mod listing;
mod page;
mod scan;
mod segments;
mod types;

use client::Client;
use columns::Gathered;
use config::Config;
use decode::Decoder;
pub(crate) use dialect::{Trino, quoted};
pub(crate) use scan::TrinoTable;

/// What this engine declares.
pub static SPEC: Spec = Spec {
    kind: "trino",
    summary: "the tables and views of a catalog of a Trino cluster",
    options: OPTIONS,
    capabilities: Capabilities { filters: true, limit: true, native: true, ..Capabilities::NONE },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

/// The most rows of a batch of a native statement, as of a batch of DataFusion where nothing else is set.
const BATCH: usize = 8_192;

/// The letters of a column's name that are kept in a message.
const LONGEST: usize = 200;

const fn text(name: &'static str, help: &'static str) -> Opt {
    Opt { name, value: OptType::String, required: false, secret: false, help }
}

const fn number(name: &'static str, help: &'static str) -> Opt {
    Opt { value: OptType::Integer, ..text(name, help) }
}

const fn texts(name: &'static str, help: &'static str) -> Opt {
    Opt { value: OptType::Strings, ..text(name, help) }
}

const fn choice(name: &'static str, help: &'static str) -> Opt {
    Opt { value: OptType::Boolean, ..text(name, help) }
}

const OPTIONS: &[Opt] = &[
    Opt { required: true, ..text("url", "where the coordinator is: https://trino.example.com:8443, without a user or a path") },
    Opt { required: true, ..text("user", "the user that all statements run as") },
    Opt { secret: true, ..text("password", "the password of the user") },
    Opt { secret: true, ..text("token", "a JSON Web Token or another bearer token, in place of a password") },
    text("ca", "a PEM file with the authorities to trust, relative to the configuration file; those of the machine if not given"),
    text("certificate", "a PEM file with the certificate of the gateway, where the cluster asks for one; it needs key"),
    text("key", "a PEM file with the private key of certificate"),
    Opt { required: true, ..text("catalog", "the name of the catalog in the cluster") },
    texts("schemas", "the schemas to show; all if not given"),
    texts("session", "session properties for all statements: \"name=value\", or \"catalog.name=value\" for one of a catalog"),
    texts("client_tags", "tags by which the cluster chooses resource groups"),
    choice(
        "spooling",
        "whether rows are asked for in compressed segments, which a cluster without them ignores; true if not given",
    ),
    choice("allow_http", "whether the login, and rows, may go over plain http to another machine; false if not given"),
    number("connect_timeout", "how many seconds it may take until there is a connection; 10 if not given"),
    number("read_timeout", "how many seconds the cluster may be silent while it is asked something; 60 if not given"),
];

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(TrinoSource::new(options)?))
}

/// The cluster as an engine and as the source of the tables of a catalog, from its options, without touching more than the PEM files that
/// they name. Errors: `Invalid`, with the key at fault.
pub(crate) fn opened(options: &Options) -> Result<Opened> {
    let both = Arc::new(TrinoSource::new(options)?);
    Ok(Opened { source: Arc::clone(&both) as _, engine: both })
}

/// One catalog of a cluster.
#[derive(Debug)]
struct TrinoSource {
    config: Arc<Config>,
    client: Client,
    gathered: Gathered,
    /// The key that names the catalog.
    place: Place,
}

impl TrinoSource {
    fn new(options: &Options) -> Result<Self> {
        let config = Arc::new(Config::parse(options)?);
        let (client, gathered) = (Client::new(Arc::clone(&config))?, Gathered::default());
        Ok(Self { client, gathered, config, place: options.key("catalog") })
    }

    fn is_shown(&self, schema: &str) -> bool {
        // The name is the gateway's own, and the schema would tell of all tables.
        schema != "information_schema" && self.config.schemas.as_ref().is_none_or(|shown| shown.iter().any(|name| name == schema))
    }

    /// Errors: `NotFound` for a schema that is not shown.
    fn shown(&self, schema: &str) -> Result<()> {
        match self.is_shown(schema) {
            true => Ok(()),
            false => Err(Error::not_found(format!("schema \"{schema}\" does not exist"))),
        }
    }

    /// An error of a listing. Every catalog has the tables that are asked, so what is not there is the catalog.
    fn listed(&self, error: Error) -> Error {
        match error.kind() {
            Kind::NotFound => error.at(self.place.clone()),
            _ => error,
        }
    }
}

#[async_trait]
impl Source for TrinoSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    /// Also whether the cluster lets us in, and has the catalog.
    async fn ping(&self, cx: &Context) -> Result<()> {
        self.health(cx).await?;
        let known = self.catalogs(cx).await?;
        if known.contains(&self.config.catalog) {
            return Ok(());
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = suggestion(&self.config.catalog, &known, || format!("it has {}", list(&known)));
        let message = format!("the cluster has no catalog \"{}\" for the user \"{}\"", self.config.catalog, self.config.user);
        Err(Error::not_found(message).with_hint(hint).at(self.place.clone()))
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        let mut names = listing::schemas(cx, &self.client, &self.config.catalog).await.map_err(|error| self.listed(error))?;
        names.retain(|name| self.is_shown(name));
        names.sort();
        Ok(names)
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.shown(schema)?;
        listing::tables(cx, &self.client, &self.config.catalog, schema).await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.shown(schema)?;
        let shape = listing::shape(cx, &self.client, &self.gathered, &self.config.catalog, [schema, table]).await?;
        let table = TrinoTable { client: self.client.clone(), schema: schema.to_owned(), name: table.to_owned(), shape };
        let provider = Provider { cx: cx.clone(), table: Arc::new(table) };
        // Trino has no number that changes with the rows of any table.
        Ok(Resolved { provider: Arc::new(provider), version: Version::Unknown, keys: Keys::default() })
    }

    async fn native_describe(&self, cx: &Context, sql: &str) -> Result<SchemaRef> {
        self.describe(cx, sql).await
    }

    async fn native_query(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream> {
        self.execute(cx, sql).await
    }
}

#[async_trait]
impl Engine for TrinoSource {
    async fn describe(&self, cx: &Context, sql: &str) -> Result<SchemaRef> {
        // Trino plans no rows for a limit of 0. On lines of its own the query keeps its columns, and a comment ends with it.
        let described = format!("SELECT * FROM (\n{}\n) LIMIT 0", query(sql)?);
        let statement = self.client.run(&listing::bounded(cx), &described).await.map_err(a_line_up)?;
        let columns = listing::finished(statement).await.map_err(a_line_up)?;
        let mut names = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !names.insert(column.name.as_str())) {
            let name = shortened(twice.name.clone(), LONGEST);
            return Err(Error::invalid(format!("two columns of the statement have the name \"{name}\""))
                .with_hint("give one another name with AS"));
        }
        Ok(types::schema(&columns)?.1)
    }

    async fn execute(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream> {
        let statement = self.client.run(cx, query(sql)?).await?;
        let (types, schema) = types::schema(&statement.columns)?;
        let decoder = Decoder::new(types, Arc::clone(&schema));
        let batches = scan::decoded(cx.clone(), statement, decoder, BATCH).map_err(DataFusionError::from);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    async fn cancel(&self, cx: &Context, id: &str) -> Result<()> {
        let Some(id) = dialect::quoted(id) else { return Err(Error::not_found("there is no statement of this id")) };
        let sql = format!("CALL system.runtime.kill_query(query_id => {id}, message => 'cancelled through the gateway')");
        let statement = self.client.run(cx, &sql).await.map_err(ours)?;
        // To leave it before its end would cancel it.
        listing::finished(statement).await.map_err(ours)?;
        Ok(())
    }

    async fn health(&self, cx: &Context) -> Result<()> {
        cx.run(self.client.info()).await
    }

    async fn load(&self, cx: &Context) -> Result<Load> {
        // The states are those of Trino's `QueryState`.
        const SQL: &str = "SELECT count_if(state IN ('QUEUED', 'WAITING_FOR_RESOURCES')), count_if(state NOT IN \
            ('QUEUED', 'WAITING_FOR_RESOURCES', 'FINISHED', 'FAILED')) FROM system.runtime.queries";
        let counts: Vec<(u64, u64)> = listing::answer(cx, &self.client, SQL).await?;
        let (queued, running) = counts.into_iter().next().unwrap_or_default();
        // The question is one of them.
        Ok(Load { queued, running: running.saturating_sub(1) })
    }

    async fn catalogs(&self, cx: &Context) -> Result<Vec<String>> {
        let names: Vec<(String,)> =
            listing::answer(cx, &self.client, "SELECT catalog_name FROM system.metadata.catalogs").await?;
        let mut names: Vec<String> = names.into_iter().map(|(name,)| name).collect();
        names.sort();
        Ok(names)
    }

    fn version(&self) -> Option<String> {
        self.client.version()
    }
}

/// A native statement without the semicolon that ends it. In Trino's grammar (`SqlBase.g4`) there is one in a text, and what begins
/// with one of these words or a parenthesis is a query, which changes nothing there. Errors: `Unsupported` for others.
fn query(sql: &str) -> Result<&str> {
    let begins = beginning(sql);
    let end = begins.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(begins.len());
    let word = begins.get(..end).unwrap_or_default();
    let is_query = ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|first| word.eq_ignore_ascii_case(first));
    if !is_query && !begins.starts_with('(') {
        return Err(Error::unsupported("a native statement of trino is a query, and this is none").with_hint(
            "begin it with SELECT, WITH, VALUES or TABLE; what SHOW and DESCRIBE tell is in information_schema and system.metadata",
        ));
    }
    let trimmed = sql.trim_end();
    Ok(trimmed.strip_suffix(';').unwrap_or(trimmed))
}

/// A statement without the blanks and comments before its first word. They are those of Trino's grammar: no comment is in another.
fn beginning(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once(['\r', '\n']).map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            return rest;
        };
    }
}

/// An error in a statement that stands one line lower in what was sent.
fn a_line_up(error: Error) -> Error {
    let Some(Place::Statement { line, column }) = error.place() else { return error };
    let place = Place::Statement { line: line.saturating_sub(1).max(1), column: *column };
    let message = error.message().to_owned();
    error.retold(message).at(place)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::listing::tests::served;
    use super::*;

    async fn source(said: impl Fn(&str) -> String + Send + Sync + 'static) -> (Context, TrinoSource) {
        let values = serde_json::json!({ "url": served(said).await, "user": "me", "catalog": "lake" });
        let values = values.as_object().unwrap().clone();
        let source = TrinoSource::new(&Options { catalog: "shop".into(), values, ..Options::default() }).unwrap();
        (Context::new(nexus_flight_catalog::Principal::anonymous()), source)
    }

    #[tokio::test]
    async fn a_description_is_read_to_its_end() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let (cx, source) = source(move |request| {
            let method = request.split(' ').next().unwrap().to_owned();
            let next = if method == "POST" { r#""nextUri":"@/v1/statement/q_1/1","# } else { "" };
            seen.lock().unwrap().push(method);
            format!(r#"{next}"columns":[{{"name":"id","type":"bigint"}}]"#)
        })
        .await;
        let schema = source.describe(&cx, "SELECT 1 AS id").await.unwrap();
        assert_eq!(schema.field(0).name(), "id");
        // What is left is ended in the background.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(*asked.lock().unwrap(), ["POST", "GET"]);
    }

    #[tokio::test]
    async fn columns_have_names_of_their_own() {
        let (cx, source) =
            source(|_| r#""columns":[{"name":"id","type":"bigint"},{"name":"id","type":"varchar"}]"#.to_owned()).await;
        let error = source.describe(&cx, "SELECT 1 AS id, 'a' AS id").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(error.to_string(), "two columns of the statement have the name \"id\"; give one another name with AS");
    }

    #[test]
    fn queries_are_told_from_all_else() {
        for sql in [
            "SELECT 1",
            "select(1)",
            " \n-- INSERT\r/* DROP */ /**/with x AS (SELECT 1) SELECT * FROM x",
            "VALUES 1",
            "table t",
            "((SELECT 1))",
        ] {
            assert_eq!(query(sql).unwrap(), sql);
        }
        assert_eq!(query("SELECT 1 ; \n").unwrap(), "SELECT 1 ");
        assert_eq!(query("SELECT 1; -- done").unwrap(), "SELECT 1; -- done", "Trino refuses it");
        for sql in [
            "",
            "-- SELECT 1",
            "/* SELECT 1",
            "/* /* */ */ SELECT 1",
            "INSERT INTO t SELECT 1",
            "selected",
            "\u{a0}SELECT 1",
            "-SELECT 1",
            "EXPLAIN ANALYZE INSERT INTO t SELECT 1",
            "EXECUTE IMMEDIATE 'DROP TABLE t'",
            "CALL system.runtime.kill_query('x')",
            "SHOW TABLES",
        ] {
            assert_eq!(query(sql).unwrap_err().kind(), Kind::Unsupported, "{sql}");
        }
    }

    #[test]
    fn a_place_is_that_of_the_statement_of_the_user() {
        let error = |line| Error::invalid("no").with_hint("look").at(Place::Statement { line, column: 8 });
        assert_eq!(a_line_up(error(3)).to_string(), "line 2, column 8: no; look");
        assert_eq!(a_line_up(Error::invalid("no")).to_string(), "no");
    }

    #[tokio::test]
    async fn what_is_not_shown_is_not_asked_for() {
        let values = serde_json::json!({ "url": "http://127.0.0.1:9", "user": "me", "catalog": "lake", "schemas": ["a"] });
        let values = values.as_object().unwrap().clone();
        let source = TrinoSource::new(&Options { catalog: "shop".into(), values, ..Options::default() }).unwrap();
        assert!(source.is_shown("a") && source.is_elsewhere());
        let cx = Context::new(nexus_flight_catalog::Principal::anonymous());
        for hidden in ["b", "A", "information_schema"] {
            let error = source.tables(&cx, hidden).await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::NotFound, &*format!("schema \"{hidden}\" does not exist")));
        }
    }
}
