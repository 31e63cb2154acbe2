//! Hudi tables in a local folder or a bucket, as they are or were at an instant.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Opt, OptType, Options, Proof, Resolved, Result, Source, Spec, TableEntry, Version,
};
use serde::Deserialize;
use tokio::sync::OnceCell;

mod avro;
mod changes;
mod commits;
mod copies;
mod logs;
mod merge;
mod partitions;
mod properties;
mod slices;
mod tables;
#[cfg(test)]
mod tests;
mod timeline;
mod types;

use tables::{Tables, When};

use crate::lake::{Folder, Lake, Name, allow_any_script};
use crate::stores::{BUCKET, Location, Store, WrittenLocation, located, schema, text};

/// What this connector declares.
pub static SPEC: Spec = Spec {
    kind: "hudi",
    summary: "Hudi tables in a local folder or an S3 bucket",
    options: OPTIONS,
    capabilities: Capabilities { filters: true, limit: true, versions: true, ..Capabilities::NONE },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

/// Where all that tells of a table is, in its folder.
const HOODIE: &str = ".hoodie";

const OPTIONS: &[Opt; 9] = &located(
    [
        text("schema", "the name of the schema that holds the tables that are directly in the location; main if not given"),
        Opt {
            value: OptType::OneOf(&["snapshot", "read_optimized"]),
            ..text("read", "whether log files are merged (snapshot, the default) or left out (read_optimized)")
        },
    ],
    BUCKET,
);

#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    location: WrittenLocation,
    schema: Option<String>,
    #[serde(default)]
    read: Read,
}

/// Which rows of a table that is merged on read are read.
#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    #[default]
    Snapshot,
    ReadOptimized,
}

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    allow_any_script();
    let written: Written = options.parse(&SPEC)?;
    let schema = schema(written.schema, "tables", options)?;
    let location = written.location.check(options)?;
    let optimised = written.read == Read::ReadOptimized;
    Ok(Arc::new(HudiSource { catalog: options.catalog.clone(), location, schema, optimised, opened: OnceCell::new() }))
}

/// The tables of one location.
struct HudiSource {
    catalog: String,
    location: Location,
    /// The schema of the tables that are directly in the location.
    schema: String,
    optimised: bool,
    /// Opened when it is first needed, and again as long as that fails.
    opened: OnceCell<Opened>,
}

#[derive(Debug)]
struct Opened {
    folder: Folder,
    tables: Tables,
}

impl fmt::Debug for HudiSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HudiSource({}, {:?})", self.catalog, self.opened.get())
    }
}

impl HudiSource {
    async fn opened(&self) -> Result<&Opened> {
        let open = || async {
            let store = Arc::new(Store::open(&self.catalog, &self.location)?);
            let lake = Arc::new(Lake::new(store, &self.location));
            let folder = Folder { lake: Arc::clone(&lake), mark: HOODIE, schema: self.schema.clone() };
            Ok(Opened { folder, tables: Tables::new(lake, self.optimised) })
        };
        self.opened.get_or_try_init(open).await
    }
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant<'a> {
    Rows(When<'a>),
    Timeline,
}

/// Errors: `NotFound` for what means nothing.
fn meant(name: Name<'_>) -> Result<Meant<'_>> {
    match name {
        Name::Now(_) => Ok(Meant::Rows(When::Now)),
        Name::About(_, "timeline") => Ok(Meant::Timeline),
        Name::About(table, what) => {
            let message = format!("nothing about the table \"{table}\" is called \"{what}\"");
            Err(Error::not_found(message).with_hint("there is \"$timeline\""))
        }
        Name::At(_, when) => Ok(Meant::Rows(match when.split_once("..") {
            Some((from, to)) => When::Between(from, to),
            None => When::At(when),
        })),
    }
}

#[async_trait]
impl Source for HudiSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.location, Location::Bucket { .. })
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        Name::parse(name).about()
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        cx.run(async { self.opened().await?.folder.ping().await }).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        cx.run(async { self.opened().await?.folder.schemas().await }).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        let names = async { self.opened().await?.folder.tables(schema).await };
        Ok(cx.run(names).await?.into_iter().map(TableEntry::table).collect())
    }

    async fn table(&self, cx: &Context, schema: &str, name: &str) -> Result<Resolved> {
        cx.run(async {
            let Opened { folder, tables } = self.opened().await?;
            let parsed = Name::parse(name);
            let table = parsed.about().unwrap_or(name);
            let found = folder.find(schema, table).await?;
            let found = found.ok_or_else(|| Error::not_found(format!("table \"{table}\" does not exist")))?;
            let meant = meant(parsed).map_err(|error| error.at(folder.lake.store.place(&found)))?;
            let (provider, version) = match meant {
                // What is begun and not completed is told there too, which no version of the table tells.
                Meant::Timeline => (tables.timeline(&found).await?.provided()?, Version::Unknown),
                Meant::Rows(when) => {
                    let (provider, version) = tables.table(&self.catalog, name, &found, when).await?;
                    (provider, Version::Pinned(version))
                }
            };
            Ok(Resolved { provider, version, keys: Keys::default() })
        })
        .await
    }
}
