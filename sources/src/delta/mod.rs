//! Delta Lake tables in a local folder or a bucket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Options, Proof, Resolved, Result, Source, Spec, TableEntry, Target, Version,
};
use object_store::path::Path;
use tokio::sync::OnceCell;

mod catalog;
mod commit;
mod config;
mod deletes;
mod drops;
mod ends;
mod engine;
mod features;
mod files;
mod form;
mod log;
mod made;
mod metadata_tables;
mod stats;
mod types;
mod unity;
mod values;
mod within;
mod write;
mod writing;

use catalog::{Catalog, Found};
use config::{Config, Tables};
use log::{LOG, Logs, Pinned};
use unity::Unity;

use crate::lake::{Folder, Lake, LakeTable, Name, moment};
use crate::stores::{Location, Store};

/// What this connector declares.
pub static SPEC: Spec = Spec {
    kind: "delta",
    summary: "Delta Lake tables in a local folder or an S3 bucket, found by their layout or by Unity Catalog",
    options: config::OPTIONS,
    capabilities: Capabilities { filters: true, limit: true, versions: true, append: true, ingest: true, ..Capabilities::NONE },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let Config { location, tables } = Config::parse(options)?;
    Ok(Arc::new(DeltaSource { catalog: options.catalog.clone(), location, known_by: tables, opened: OnceCell::new() }))
}

/// The tables of one location.
struct DeltaSource {
    catalog: String,
    location: Location,
    /// Who knows its tables.
    known_by: Tables,
    /// Opened when it is first needed, and again as long as that fails.
    opened: OnceCell<Opened>,
}

#[derive(Debug)]
struct Opened {
    tables: Box<dyn Catalog>,
    logs: Arc<Logs>,
}

impl fmt::Debug for DeltaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaSource({}, {:?})", self.catalog, self.opened.get())
    }
}

/// What a name stands for besides the table as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    Version(u64),
    /// In milliseconds since 1970.
    Time(i64),
    History,
    Files,
}

impl DeltaSource {
    async fn opened(&self) -> Result<&Opened> {
        let open = || async {
            let store = Arc::new(Store::open(&self.catalog, &self.location)?);
            let lake = Arc::new(Lake::new(store, &self.location));
            let logs = Arc::new(Logs::new(Arc::clone(&lake)));
            let tables: Box<dyn Catalog> = match &self.known_by {
                Tables::Folder { schema } => Box::new(Folder { lake, mark: LOG, schema: schema.clone() }),
                Tables::Unity(unity) => Box::new(Unity::new(&self.catalog, &self.location, lake, unity.clone())?),
            };
            Ok::<_, Error>(Opened { tables, logs })
        };
        self.opened.get_or_try_init(open).await
    }

    /// The folder of a table with what reads its log, and what of the table a name means.
    async fn find(&self, schema: &str, name: &str) -> Result<(Logs, Path, Option<Meant>)> {
        let Opened { tables, logs } = self.opened().await?;
        let parsed = Name::parse(name);
        let table = parsed.about().unwrap_or(name);
        let found = tables.find(schema, table).await?;
        let Found { lake, folder } = found.ok_or_else(|| Error::not_found(format!("table \"{table}\" does not exist")))?;
        let meant = meant(parsed).map_err(|error| error.at(lake.store.place(&folder)))?;
        Ok((logs.through(lake, format!("{schema}\0{table}")), folder, meant))
    }

    /// A table at a version as a provider. Errors: `Data`, `Unsupported`.
    async fn resolved(&self, logs: &Logs, name: &str, pinned: &Pinned) -> Result<Resolved> {
        let version = pinned.version();
        let snapshot = logs.read(pinned).await?;
        let table = format!("{}\0{name}", pinned.table);
        let provider = LakeTable::new(Arc::clone(&logs.lake), &self.catalog, &table, &version, snapshot)?;
        Ok(Resolved { provider: Arc::new(provider), version: Version::Pinned(version), keys: Keys::default() })
    }
}

/// What a name means besides the table as it is now. Errors: `NotFound` for what means nothing.
fn meant(name: Name<'_>) -> Result<Option<Meant>> {
    let other = |message: String, hint: &str| Err(Error::not_found(message).with_hint(hint));
    match name {
        Name::Now(_) => Ok(None),
        Name::About(_, "history") => Ok(Some(Meant::History)),
        Name::About(_, "files") => Ok(Some(Meant::Files)),
        Name::About(table, what) => {
            other(format!("nothing about the table \"{table}\" is called \"{what}\""), "there are \"$files\" and \"$history\"")
        }
        Name::At(_, when) => match when.parse().map(Meant::Version).ok().or_else(|| moment(when).map(Meant::Time)) {
            Some(meant) => Ok(Some(meant)),
            None => other(
                format!("\"{when}\" is no version of the table, and no time"),
                "write the number of a version, as in \"t@7\", a date, or a time as in \"t@2024-01-01T00:00:00Z\"",
            ),
        },
    }
}

#[async_trait]
impl Source for DeltaSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.location, Location::Bucket { .. }) || matches!(self.known_by, Tables::Unity(_))
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        Name::parse(name).about()
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        cx.run(async { self.opened().await?.tables.ping().await }).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        cx.run(async { self.opened().await?.tables.schemas().await }).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        let names = async { self.opened().await?.tables.tables(schema).await };
        Ok(cx.run(names).await?.into_iter().map(TableEntry::table).collect())
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        cx.run(async {
            let (logs, folder, meant) = self.find(schema, table).await?;
            let pinned = match meant {
                None | Some(Meant::Files) => logs.latest(&folder).await?,
                Some(Meant::Version(version)) => logs.at_version(&folder, version).await?,
                Some(Meant::Time(millis)) => logs.at_time(&folder, millis).await?,
                Some(Meant::History) => {
                    // Commits are cleaned up, which no version of the table tells.
                    let provider = metadata_tables::history(&logs.lake, &folder).await?;
                    return Ok(Resolved { provider, version: Version::Unknown, keys: Keys::default() });
                }
            };
            if meant != Some(Meant::Files) {
                return self.resolved(&logs, table, &pinned).await;
            }
            let provider = metadata_tables::files(logs.read(&pinned).await?.as_ref())?;
            Ok(Resolved { provider, version: Version::Pinned(pinned.version()), keys: Keys::default() })
        })
        .await
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        cx.run(self.put(cx, target, rows)).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        cx.run(self.drop_delta(cx, schema, table)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_mean_a_version_or_a_time() {
        let meant = |name| meant(Name::parse(name));
        assert_eq!(meant("t@7").unwrap(), Some(Meant::Version(7)));
        assert_eq!(meant("t@1970-01-02").unwrap(), Some(Meant::Time(86_400_000)));
        assert_eq!(meant("t$files").unwrap(), Some(Meant::Files));
        insta::assert_snapshot!(meant("t$file").unwrap_err(), @r#"nothing about the table "t" is called "file"; there are "$files" and "$history""#);
        insta::assert_snapshot!(meant("t@yesterday").unwrap_err(), @r#""yesterday" is no version of the table, and no time; write the number of a version, as in "t@7", a date, or a time as in "t@2024-01-01T00:00:00Z""#);
    }
}
