//! What a connector is: the one trait, and the data that a connector declares about itself.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use crate::error::{Error, Place, Result, list, nearest};
use crate::options::{Opt, Options};
use crate::write::{Change, Target, Transaction};

/// A registered source: what a catalog name maps to.
///
/// Only listing and reading are required. The other calls come with a capability; their default is the refusal that the
/// conformance suite expects of a source that does not declare it.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// What this connector declares about itself.
    fn spec(&self) -> &'static Spec;

    /// Whether a principal may know that it is there.
    fn is_visible(&self, _principal: &Principal) -> bool {
        true
    }

    /// Whether its answers can stay out: they can unless its rows are in this process or on this machine's disk. Statements over such
    /// a source never have all slots.
    fn is_elsewhere(&self) -> bool {
        true
    }

    /// Whether the source answers now. Errors: [`Kind::Unavailable`](crate::Kind), [`Kind::Unauthenticated`](crate::Kind).
    async fn ping(&self, cx: &Context) -> Result<()>;

    /// The names of its schemas, sorted.
    async fn schemas(&self, cx: &Context) -> Result<Vec<String>>;

    /// The tables of a schema, sorted by name, without opening any. Errors: `NotFound` for a schema that is not there.
    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>>;

    /// One table, pinned to the version it names. Errors: `NotFound` for a schema or table that is not there; where the table is there, and
    /// only what is asked about it is not, with a place: then clients are told the error as it is, and else which names there are.
    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved>;

    /// The table that a name is about which is no table's own: the same at another time, or what is known of its files. It follows from
    /// the name alone, and no table of the source has such a name. Rules are about tables, so only who sees all of the table sees it.
    fn about<'a>(&self, _name: &'a str) -> Option<&'a str> {
        None
    }

    /// Whether who asks may write to a table, there or not. Errors: `Denied`.
    fn check_write(&self, _cx: &Context, _schema: &str, _table: &str) -> Result<()> {
        Ok(())
    }

    /// The schema of a statement in the source's own SQL, which only reads: one that would change something is refused here, and none of
    /// it runs. What a function in it does elsewhere, as one that hands a text to another database, only the rights of the source's user
    /// there bound. A [`Place`] in a statement is one in `sql`. Requires [`Capabilities::native`].
    async fn native_describe(&self, _cx: &Context, _sql: &str) -> Result<SchemaRef> {
        Err(self.spec().refusal("native statements"))
    }

    /// The rows of such a statement, of the schema that it was described with. Requires [`Capabilities::native`].
    async fn native_query(&self, _cx: &Context, _sql: &str) -> Result<SendableRecordBatchStream> {
        Err(self.spec().refusal("native statements"))
    }

    /// Puts rows into a table and returns how many. All of them, or none where the stream or the source fails. Where the table
    /// is there and stays, the rows have columns of the table by its names and types, and not all of them perhaps: the source
    /// fills in the rest. Requires [`Capabilities::append`], and [`Capabilities::ingest`] for all but rows for a table that is there;
    /// without it the others are refused by [`Spec::ingest_refusal`] of making and replacing tables, before any row is read.
    async fn ingest(&self, _cx: &Context, _target: &Target, _rows: SendableRecordBatchStream) -> Result<u64> {
        Err(self.spec().ingest_refusal("ingest"))
    }

    /// Drops a table. Errors: `NotFound` where it is not there. Requires [`Capabilities::ingest`].
    async fn drop_table(&self, _cx: &Context, _schema: &str, _table: &str) -> Result<()> {
        Err(self.spec().ingest_refusal("dropping tables"))
    }

    /// Updates or deletes rows and returns how many. Requires [`Capabilities::changes`]; for a source without it the rows of
    /// the whole table are made anew and ingested.
    async fn change(&self, _cx: &Context, _change: &Change) -> Result<u64> {
        Err(self.spec().refusal("changes"))
    }

    /// Begins a transaction. Requires [`Capabilities::transactions`].
    async fn begin(&self, _cx: &Context) -> Result<Arc<dyn Transaction>> {
        Err(self.spec().refusal("transactions"))
    }
}

/// The target of spans that tell how a statement spends its time.
pub const TRACE: &str = "nexus::trace";

/// Who asks, for what statement, until when. A connector sees this and nothing else of the server.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who asks.
    pub principal: Principal,
    /// The statement that this work is for.
    pub query: Uuid,
    /// When the work is no longer wanted.
    pub deadline: Option<Instant>,
    /// Fires when the caller gives up.
    pub cancel: CancellationToken,
    /// The `traceparent` that the client sent.
    pub parent: Option<Arc<str>>,
    /// The span of the statement, of which that of any work for it is a child.
    pub span: Span,
    /// What the work takes memory from.
    pub memory: Arc<dyn MemoryPool>,
    /// What is held for as long as anything goes on that may still change a table, also when nobody waits for it any more. A connector
    /// whose work outlives the future that it gave has that work hold this; else the context does.
    pub held: Option<Arc<dyn Any + Send + Sync>>,
}

impl Context {
    /// A context for a principal, with a new query id, and without a deadline or a limit of memory.
    pub fn new(principal: Principal) -> Self {
        let (deadline, parent, memory) = (None, None, Arc::new(UnboundedMemoryPool::default()));
        let (cancel, span) = (CancellationToken::new(), Span::none());
        Self { principal, query: Uuid::now_v7(), deadline, cancel, parent, span, memory, held: None }
    }

    /// The same for work that changes a table, with what is dropped when nothing of it goes on any more.
    pub fn holding(&self, held: impl Any + Send + Sync) -> Self {
        Self { held: Some(Arc::new(held)), ..self.clone() }
    }

    /// The same for work that takes its memory from another pool: that of the plan which it is a part of.
    pub fn within(&self, memory: &Arc<dyn MemoryPool>) -> Self {
        Self { memory: Arc::clone(memory), ..self.clone() }
    }

    /// Ends with `Cancelled` or `Timeout` as soon as the work is no longer wanted, else with what the work gives.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = async {
            match self.deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::cancelled()),
            () = deadline => Err(Error::new(crate::Kind::Timeout, "the time allowed for this statement ran out")),
            result = work => result,
        }
    }
}

/// The name under which a client is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal(pub Arc<str>);

impl Principal {
    /// Everybody, where `auth` is `none`.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table that a statement names: how to read it, which version that reads, and its keys.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Reads the rows. It is pinned to `version`, so a table and its version cannot race.
    pub provider: Arc<dyn TableProvider>,
    /// What a later resolution is compared with.
    pub version: Version,
    /// Primary and foreign keys, as far as the source knows them.
    pub keys: Keys,
}

/// The state of a table that a [`Resolved`] is pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A snapshot, commit, listing digest or counter: equal tokens mean equal rows.
    Pinned(String),
    /// The source cannot tell one state from another.
    Unknown,
}

/// The keys of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The columns of the primary key, in key order; empty where there is none.
    pub primary: Vec<String>,
    /// The foreign keys.
    pub foreign: Vec<ForeignKey>,
}

/// A foreign key, within one catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The columns here.
    pub columns: Vec<String>,
    /// The schema of the table referred to.
    pub schema: String,
    /// The table referred to.
    pub table: String,
    /// The columns there, in the same order.
    pub referenced: Vec<String>,
}

/// A table in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name, as it is written in SQL between quotes.
    pub name: String,
    /// Table or view.
    pub kind: TableKind,
    /// A comment for people.
    pub comment: Option<String>,
}

impl TableEntry {
    /// An ordinary table without a comment.
    pub fn table(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: TableKind::Table, comment: None }
    }
}

/// The kind of a table, in the words of JDBC's `getTableTypes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// Rows that somebody stored.
    Table,
    /// Rows that a statement makes.
    View,
    /// Rows that the server makes about itself.
    System,
}

impl TableKind {
    /// All kinds, in the order of their names.
    pub const ALL: [TableKind; 3] = [TableKind::System, TableKind::Table, TableKind::View];

    /// The name that clients see.
    pub const fn name(self) -> &'static str {
        match self {
            TableKind::Table => "TABLE",
            TableKind::View => "VIEW",
            TableKind::System => "SYSTEM TABLE",
        }
    }
}

/// What a connector declares about itself: the source of its documentation, its configuration check and its tests.
#[derive(Debug)]
pub struct Spec {
    /// What `kind = "…"` in the configuration says.
    pub kind: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// The options it takes.
    pub options: &'static [Opt],
    /// What it can do. The conformance suite checks both directions.
    pub capabilities: Capabilities,
    /// How it is known to work.
    pub proof: Proof,
    /// Its page, in Markdown.
    pub docs: &'static str,
    /// Makes the source from its options without touching anything outside the process.
    pub open: fn(&Options) -> Result<Arc<dyn Source>>,
}

impl Spec {
    /// The documented refusal of what is not declared.
    pub fn refusal(&self, what: &str) -> Error {
        Error::unsupported(format!("a catalog of kind \"{}\" does not offer {what}", self.kind))
            .with_hint("the table of capabilities in the connector reference says what each kind offers")
    }

    /// The refusal of what wants [`Capabilities::ingest`], such as `UPDATE`, with what is taken instead.
    pub fn ingest_refusal(&self, what: &str) -> Error {
        let refusal = self.refusal(what);
        match self.capabilities.append {
            true => refusal.with_hint("it takes rows for tables that are there, by INSERT and by ingest in the mode append"),
            false => refusal,
        }
    }
}

/// Makes a source of one of these kinds from its options, without touching anything outside the process.
/// Errors: `Invalid`, with the key at fault; for a kind that is none of these with the nearest one.
pub fn open(specs: &[&Spec], kind: &str, options: &Options) -> Result<Arc<dyn Source>> {
    if let Some(spec) = specs.iter().find(|spec| spec.kind == kind) {
        return (spec.open)(options);
    }
    let known: Vec<&str> = specs.iter().map(|spec| spec.kind).collect();
    let hint = match nearest(kind, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? The kinds are {}", list(&known)),
        None => format!("the kinds are {}", list(&known)),
    };
    let place = Place::Key(format!("catalogs.{}.kind", options.catalog));
    Err(Error::invalid(format!("there is no kind of source \"{kind}\"")).with_hint(hint).at(place))
}

/// What a source can do beyond being listed and read with projection. Data, so that documents and tests can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It applies at least simple comparisons itself.
    pub filters: bool,
    /// It stops early when a statement wants few rows.
    pub limit: bool,
    /// It pins versions that change when the rows do.
    pub versions: bool,
    /// It knows primary or foreign keys.
    pub keys: bool,
    /// It takes statements in its own SQL.
    pub native: bool,
    /// It takes rows for a table that is there.
    pub append: bool,
    /// It makes tables, replaces and drops them too. Whatever does that appends.
    pub ingest: bool,
    /// It updates and deletes rows itself.
    pub changes: bool,
    /// It has transactions with savepoints.
    pub transactions: bool,
}

impl Capabilities {
    /// A source that can be listed and read, and no more.
    pub const NONE: Self = Self {
        filters: false,
        limit: false,
        versions: false,
        keys: false,
        native: false,
        append: false,
        ingest: false,
        changes: false,
        transactions: false,
    };

    /// Each capability with its name and whether it is declared, in the order of the documentation.
    pub const fn entries(&self) -> [(&'static str, bool); 9] {
        [
            ("filters", self.filters),
            ("limit", self.limit),
            ("versions", self.versions),
            ("keys", self.keys),
            ("native", self.native),
            ("append", self.append),
            ("ingest", self.ingest),
            ("changes", self.changes),
            ("transactions", self.transactions),
        ]
    }
}

/// How a connector is known to work. The generated documentation prints it, and nothing may claim more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Tested here against the real system.
    Real,
    /// Tested against another real server that speaks the same protocol.
    SameWire,
    /// Tested against an emulator.
    Emulated,
    /// Not tested.
    Untested,
}

impl Proof {
    /// The words of the documentation.
    pub const fn describe(self) -> &'static str {
        match self {
            Proof::Real => "tested against the real system",
            Proof::SameWire => "tested against another server of the same protocol",
            Proof::Emulated => "tested against an emulator",
            Proof::Untested => "not tested",
        }
    }
}
