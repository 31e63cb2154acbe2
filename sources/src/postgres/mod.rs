//! A PostgreSQL database: its tables and views, read and written as its own SQL does it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{
    Capabilities, Change, Context, Error, Kind, Opt, OptType, Options, Proof, Resolved, Result, Source, Spec, TableEntry, Target,
    Transaction, Version,
};

mod access;
mod config;
mod decode;
mod dialect;
mod encode;
mod error;
mod listing;
mod numeric;
mod pool;
mod rows;
mod scan;
mod transaction;
mod types;
mod version;
mod write;

pub(crate) use access::Access;
pub(crate) use config::Config;
use listing::Shape;
pub(crate) use pool::Connections;
use pool::Lease;
use scan::PostgresTable;
use transaction::PostgresTransaction;

/// What this connector declares.
pub static SPEC: Spec = Spec {
    kind: "postgres",
    summary: "the tables and views of a PostgreSQL database",
    options: OPTIONS,
    // One state of a table is not told from another by itself: PostgreSQL has no number that changes with its rows alone.
    capabilities: Capabilities {
        filters: true,
        limit: true,
        keys: true,
        append: true,
        ingest: true,
        changes: true,
        transactions: true,
        ..Capabilities::NONE
    },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

const fn text(name: &'static str, help: &'static str) -> Opt {
    Opt { name, value: OptType::String, required: false, secret: false, help }
}

const fn number(name: &'static str, help: &'static str) -> Opt {
    Opt { value: OptType::Integer, ..text(name, help) }
}

const TABLE: &[Opt] = &[Opt {
    required: true,
    ..text(
        "version_sql",
        "a SELECT of one value that is another one after each commit which changes the rows, and never an earlier one again",
    )
}];

const OPTIONS: &[Opt] = &[
    Opt { required: true, ..text("url", "where the database is: postgres://user@host:5432/database, without the password") },
    Opt { secret: true, ..text("password", "the password of the user") },
    Opt { value: OptType::Strings, ..text("schemas", "the schemas to show; all but those of the system if not given") },
    number("pool", "how many connections may be open at once; 10 if not given"),
    Opt {
        value: OptType::OneOf(&["off", "verify"]),
        ..text(
            "tls",
            "\"verify\" for encryption and a certificate of the host, \"off\" for none; \"off\" on this machine if not given, else \"verify\"",
        )
    },
    text("ca", "a PEM file with the authorities to trust, relative to the configuration file; those of the machine if not given"),
    number("connect_timeout", "how many seconds it may take until there is a connection; 10 if not given"),
    number("read_timeout", "how many seconds the server may be silent while a statement runs; 300 if not given"),
    Opt {
        value: OptType::Tables(TABLE),
        ..text("tables", "what tells the versions of tables, by their names: \"schema.table\"; the others have none")
    },
];

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let config = Arc::new(Config::parse(options)?);
    let access = Access::Pool(Connections::new(Arc::clone(&config))?);
    Ok(Arc::new(PostgresSource { config, access }))
}

/// One database, as all see it or as one transaction does.
#[derive(Debug, Clone)]
struct PostgresSource {
    config: Arc<Config>,
    access: Access,
}

impl PostgresSource {
    fn is_shown(&self, schema: &str) -> bool {
        // What is temporary is of one connection, and the next statement has another; the last name is the gateway's own.
        if schema.starts_with("pg_temp") || schema.starts_with("pg_toast") || schema == "information_schema" {
            return false;
        }
        match &self.config.schemas {
            Some(shown) => shown.iter().any(|name| name == schema),
            // Of all tables those of the system tell what a policy hides, and who writes to them changes settings of the
            // connection. No schema of users begins so.
            None => !schema.starts_with("pg_"),
        }
    }

    /// Errors: `NotFound` for a schema that is not shown.
    fn shown(&self, schema: &str) -> Result<()> {
        match self.is_shown(schema) {
            true => Ok(()),
            false => Err(Error::not_found(format!("schema \"{schema}\" does not exist"))),
        }
    }

    /// Whether it answers, and tells the versions of the tables that it is to tell.
    async fn answers(&self, lease: &Lease) -> Result<()> {
        lease.run("SELECT 1").await?;
        for ((schema, table), versioned) in &self.config.versioned {
            self.found(lease, schema, table).await.map_err(|error| match error.kind() {
                Kind::NotFound => error.at(versioned.place.clone()),
                _ => error,
            })?;
        }
        Ok(())
    }

    /// What a table is, and its version before any row of it is read: they may be newer, and are of a later version then.
    async fn found(&self, lease: &Lease, schema: &str, table: &str) -> Result<(Shape, Version)> {
        let shape = listing::shape(lease, schema, table).await?;
        let version = match (&self.access, self.config.versioned.get(&(schema.to_owned(), table.to_owned()))) {
            (Access::Pool(_), Some(versioned)) => versioned.read(lease).await?,
            // What is read in a transaction is nobody else's, and an error would end it.
            _ => Version::Unknown,
        };
        Ok((shape, version))
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        cx.run(async {
            let held = self.access.hold().await?;
            let answered = self.answers(&held).await;
            held.settle(answered)
        })
        .await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        cx.run(async {
            let held = self.access.hold().await?;
            let names = listing::schemas(&held).await;
            let mut names = held.settle(names)?;
            names.retain(|name| self.is_shown(name));
            Ok(names)
        })
        .await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.shown(schema)?;
        cx.run(async {
            let held = self.access.hold().await?;
            let entries = listing::tables(&held, schema).await;
            held.settle(entries)
        })
        .await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.shown(schema)?;
        let found = cx.run(async {
            let held = self.access.hold().await?;
            let found = self.found(&held, schema, table).await;
            held.settle(found)
        });
        let (shape, version) = found.await?;
        let shape = Arc::new(shape);
        let keys = shape.keys.clone();
        let (schema, name) = (schema.to_owned(), table.to_owned());
        let provider = PostgresTable { cx: cx.clone(), access: self.access.clone(), schema, name, shape };
        Ok(Resolved { provider: Arc::new(provider), version, keys })
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        self.shown(&target.schema)?;
        cx.run(write::ingest(cx, &self.access, target, rows)).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.shown(schema)?;
        cx.run(write::drop_table(cx, &self.access, schema, table)).await
    }

    async fn change(&self, cx: &Context, change: &Change) -> Result<u64> {
        self.shown(&change.schema)?;
        cx.run(write::change(cx, &self.access, change)).await
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(cx.run(PostgresTransaction::begin(self)).await?))
    }
}
