//! The catalog `system`: what the gateway knows of itself, as tables.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use nexus_engines::Load;
use nexus_flight_catalog::virtual_table::VirtualTable;
use nexus_flight_catalog::{
    Capabilities, Catalogs, Context, Error, Keys, Options, Principal, Proof, Resolved, Result, Source, Spec, TableEntry,
    TableKind, TableName, Version,
};

use crate::config::Setting;
use crate::engines::{Engines, Standing, Watched};
use crate::layers::audit::History;
use crate::layers::cache::Kept;
use crate::session::Sessions;

/// The catalog's name.
pub const CATALOG: &str = "system";

/// The table of the engines in the schema that holds the tables: who is admin of it may say which of them take statements.
pub fn engines(schema: &str) -> TableName {
    TableName::new(CATALOG, schema, Table::Engines.name())
}

/// The table of the cache in the schema that holds the tables: who is admin of it may give up what is kept.
pub fn cache(schema: &str) -> TableName {
    TableName::new(CATALOG, schema, Table::Cache.name())
}

static SPEC: Spec = Spec {
    kind: CATALOG,
    summary: "the gateway itself: sources, engines, statements, sessions, cache and settings",
    options: &[],
    capabilities: Capabilities::NONE,
    proof: Proof::Real,
    docs: "",
    open: |_: &Options| Err(Error::invalid("the catalog \"system\" is always there and is not configured")),
};

/// What the tables are read from.
#[derive(Debug)]
pub struct System {
    schema: String,
    catalogs: std::sync::Weak<Catalogs>,
    history: Arc<History>,
    kept: Arc<Kept>,
    sessions: Arc<Sessions>,
    engines: Arc<Engines>,
    settings: Vec<Setting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Cache,
    Engines,
    Queries,
    Sessions,
    Settings,
    Sources,
}

impl Table {
    const ALL: [Table; 6] = [Table::Cache, Table::Engines, Table::Queries, Table::Sessions, Table::Settings, Table::Sources];

    fn name(self) -> &'static str {
        match self {
            Table::Cache => "cache",
            Table::Engines => "engines",
            Table::Queries => "queries",
            Table::Sessions => "sessions",
            Table::Settings => "settings",
            Table::Sources => "sources",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Table::Cache => "the answers that the cache keeps",
            Table::Engines => "how the engines behind catalogs are",
            Table::Queries => "the statements that run and the latest of those that ran",
            Table::Sessions => "the sessions heard of lately",
            Table::Settings => "the settings in force",
            Table::Sources => "the registered sources",
        }
    }

    fn schema(self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let optional = |name: &str| Field::new(name, DataType::Utf8, true);
        let count = |name: &str| Field::new(name, DataType::UInt64, false);
        let seconds = |name: &str| Field::new(name, DataType::Float64, false);
        let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false);
        Arc::new(Schema::new(match self {
            Table::Cache => vec![
                text("principal"),
                text("statement"),
                text("tables"),
                optional("tag"),
                count("rows"),
                count("bytes"),
                seconds("age_seconds"),
                seconds("took_seconds"),
                count("hits"),
            ],
            Table::Engines => vec![
                text("catalog"),
                text("kind"),
                text("state"),
                Field::new("since", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
                count("failures"),
                Field::new("running", DataType::UInt64, true),
                Field::new("queued", DataType::UInt64, true),
                optional("version"),
                optional("last_error"),
            ],
            Table::Queries => vec![
                text("query_id"),
                text("state"),
                text("principal"),
                text("session_id"),
                text("protocol"),
                time("started"),
                seconds("elapsed_seconds"),
                count("rows"),
                count("bytes"),
                optional("cache"),
                optional("error"),
                text("statement"),
            ],
            Table::Sessions => vec![
                text("session_id"),
                text("principal"),
                text("catalog"),
                text("schema"),
                optional("client"),
                time("started"),
                time("last_seen"),
            ],
            Table::Settings => vec![text("key"), text("value"), Field::new("is_default", DataType::Boolean, false)],
            Table::Sources => vec![text("catalog"), text("kind"), text("summary"), text("capabilities"), text("proof")],
        }))
    }
}

impl System {
    /// The catalog over the parts of the running gateway. `schema` is the one that holds the tables.
    pub fn new(
        schema: String,
        catalogs: &Arc<Catalogs>,
        history: Arc<History>,
        (kept, sessions, engines): (Arc<Kept>, Arc<Sessions>, Arc<Engines>),
        settings: Vec<Setting>,
    ) -> Arc<Self> {
        // The registry holds this catalog, so holding the registry here would keep both for ever.
        Arc::new(Self { schema, catalogs: Arc::downgrade(catalogs), history, kept, sessions, engines, settings })
    }

    /// What a principal sees of a table: of what others do nothing, unless it is an admin's to see.
    async fn rows(&self, table: Table, principal: &Principal) -> Result<RecordBatch> {
        let shows = |whose: &str| self.is_admin(table, principal) || whose == &*principal.0;
        let columns = match table {
            Table::Cache => self.cache().await,
            Table::Engines => self.engines(principal),
            Table::Queries => self.queries(shows),
            Table::Sessions => self.sessions(shows),
            Table::Settings => self.settings(),
            Table::Sources => self.sources(principal),
        };
        Ok(RecordBatch::try_new(table.schema(), columns)?)
    }

    fn is_admin(&self, table: Table, principal: &Principal) -> bool {
        let name = TableName::new(CATALOG, &*self.schema, table.name());
        self.catalogs.upgrade().is_some_and(|catalogs| catalogs.is_admin(principal, &name))
    }

    /// Whether a table is there for a principal.
    fn has(&self, table: Table, principal: &Principal) -> bool {
        !matches!(table, Table::Cache | Table::Settings) || self.is_admin(table, principal)
    }

    async fn cache(&self) -> Vec<ArrayRef> {
        let all = self.kept.list().await;
        vec![
            texts(all.iter().map(|listed| &listed.principal)),
            texts(all.iter().map(|listed| &listed.statement)),
            texts(all.iter().map(|listed| &listed.tables)),
            Arc::new(all.iter().map(|listed| listed.tag.as_deref()).collect::<StringArray>()),
            Arc::new(UInt64Array::from_iter_values(all.iter().map(|listed| listed.rows))),
            Arc::new(UInt64Array::from_iter_values(all.iter().map(|listed| listed.bytes))),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|listed| listed.age.as_secs_f64()))),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|listed| listed.took.as_secs_f64()))),
            Arc::new(UInt64Array::from_iter_values(all.iter().map(|listed| listed.given))),
        ]
    }

    fn engines(&self, principal: &Principal) -> Vec<ArrayRef> {
        let catalogs = self.catalogs.upgrade();
        let is_seen = |name: &str| catalogs.as_ref().is_some_and(|catalogs| catalogs.source(principal, name).is_ok());
        let is_admin = self.is_admin(Table::Engines, principal);
        let mut all: Vec<(Arc<Watched>, Standing)> = Vec::new();
        for watched in self.engines.all().into_iter().filter(|watched| is_seen(watched.catalog())) {
            let standing = watched.standing();
            // It may quote what a statement of somebody else was about.
            let error = standing.error.filter(|_| is_admin);
            all.push((watched, Standing { error, ..standing }));
        }
        let load = |of: fn(Load) -> u64| -> ArrayRef {
            Arc::new(all.iter().map(|(_, standing)| standing.load.map(of)).collect::<UInt64Array>())
        };
        let since = all.iter().map(|(_, standing)| standing.since.map(micros)).collect::<TimestampMicrosecondArray>();
        vec![
            texts(all.iter().map(|(watched, _)| watched.catalog())),
            texts(all.iter().map(|(watched, _)| watched.kind())),
            texts(all.iter().map(|(_, standing)| standing.state.name())),
            Arc::new(since.with_timezone("UTC")),
            Arc::new(UInt64Array::from_iter_values(all.iter().map(|(_, standing)| u64::from(standing.failures)))),
            load(|load| load.running),
            load(|load| load.queued),
            Arc::new(all.iter().map(|(_, standing)| standing.version.as_deref()).collect::<StringArray>()),
            Arc::new(all.iter().map(|(_, standing)| standing.error.as_deref()).collect::<StringArray>()),
        ]
    }

    fn queries(&self, shows: impl Fn(&str) -> bool) -> Vec<ArrayRef> {
        let mut records = self.history.records();
        records.retain(|record| shows(&record.principal));
        vec![
            texts(records.iter().map(|record| record.id.to_string())),
            texts(records.iter().map(|record| record.state)),
            texts(records.iter().map(|record| &record.principal)),
            texts(records.iter().map(|record| record.session.to_string())),
            texts(records.iter().map(|record| record.protocol)),
            times(records.iter().map(|record| record.started)),
            Arc::new(Float64Array::from_iter_values(records.iter().map(|record| record.elapsed.as_secs_f64()))),
            Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| record.rows))),
            Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| record.bytes))),
            Arc::new(records.iter().map(|record| record.cache).collect::<StringArray>()),
            Arc::new(records.iter().map(|record| record.error.as_deref()).collect::<StringArray>()),
            texts(records.iter().map(|record| &record.statement)),
        ]
    }

    fn sessions(&self, shows: impl Fn(&str) -> bool) -> Vec<ArrayRef> {
        let mut seen = self.sessions.recent();
        seen.retain(|seen| shows(&seen.principal.0));
        vec![
            texts(seen.iter().map(|seen| seen.session.id.to_string())),
            texts(seen.iter().map(|seen| &seen.principal.0)),
            texts(seen.iter().map(|seen| &seen.session.catalog)),
            texts(seen.iter().map(|seen| &seen.session.schema)),
            Arc::new(seen.iter().map(|seen| seen.client.as_deref()).collect::<StringArray>()),
            times(seen.iter().map(|seen| seen.session.started)),
            times(seen.iter().map(|seen| seen.last)),
        ]
    }

    fn settings(&self) -> Vec<ArrayRef> {
        vec![
            texts(self.settings.iter().map(|setting| &setting.key)),
            texts(self.settings.iter().map(|setting| &setting.value)),
            Arc::new(self.settings.iter().map(|setting| Some(setting.default)).collect::<BooleanArray>()),
        ]
    }

    fn sources(&self, principal: &Principal) -> Vec<ArrayRef> {
        let mut sources = self.catalogs.upgrade().map(|catalogs| catalogs.all()).unwrap_or_default();
        sources.retain(|(_, source)| source.is_visible(principal));
        let capabilities = |source: &Arc<dyn Source>| {
            let entries = source.spec().capabilities.entries();
            entries.into_iter().filter(|(_, declared)| *declared).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        };
        vec![
            texts(sources.iter().map(|(name, _)| name)),
            texts(sources.iter().map(|(_, source)| source.spec().kind)),
            texts(sources.iter().map(|(_, source)| source.spec().summary)),
            texts(sources.iter().map(|(_, source)| capabilities(source))),
            texts(sources.iter().map(|(_, source)| source.spec().proof.describe())),
        ]
    }

    fn check(&self, schema: &str) -> Result<()> {
        if schema == self.schema {
            return Ok(());
        }
        Err(Error::not_found(format!("schema \"{schema}\" does not exist")))
    }
}

fn texts(values: impl Iterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn times(values: impl Iterator<Item = SystemTime>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(micros)).with_timezone("UTC"))
}

/// The tables belong to the running gateway; a statement that reads one holds it for that long.
#[derive(Debug)]
pub struct SystemSource(pub Arc<System>);

#[async_trait]
impl Source for SystemSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(vec![self.0.schema.clone()])
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.0.check(schema)?;
        let entry = |table: &Table| TableEntry {
            name: table.name().to_owned(),
            kind: TableKind::System,
            comment: Some(table.comment().to_owned()),
        };
        Ok(Table::ALL.iter().filter(|table| self.0.has(**table, &cx.principal)).map(entry).collect())
    }

    async fn table(&self, cx: &Context, schema: &str, name: &str) -> Result<Resolved> {
        self.0.check(schema)?;
        let table = *Table::ALL
            .iter()
            .find(|table| table.name() == name && self.0.has(**table, &cx.principal))
            .ok_or_else(|| Error::not_found(format!("table \"{name}\" does not exist")))?;
        let (system, principal) = (Arc::clone(&self.0), cx.principal.clone());
        let provider = VirtualTable::new(table.schema(), move |_filters| {
            let (system, principal) = (Arc::clone(&system), principal.clone());
            stream::once(async move { system.rows(table, &principal).await }).boxed()
        });
        Ok(Resolved { provider: Arc::new(provider), version: Version::Unknown, keys: Keys::default() })
    }
}
