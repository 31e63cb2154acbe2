//! Iceberg tables in a local folder or a bucket, found by their layout or by a catalog, at their newest state or an earlier one.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::error::list;
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Options, Proof, Resolved, Result, Source, Spec, TableEntry, Target, Version,
};
use tokio::sync::OnceCell;

mod append;
mod avro;
mod buckets;
mod catalog;
mod config;
mod deletes;
mod manifests;
mod metadata_tables;
mod metrics;
mod partition;
mod snapshot;
mod table;
mod types;

use catalog::{Catalog, Current, Folder, Found, Glue, Hive, Rest, Sql};
use config::{Config, Tables};
use metadata_tables::MetadataTable;
use table::{State, Table, when_whole};

use crate::lake::{Lake, LakeTable, Name, Snapshot, allow_any_script};
use crate::stores::{Location, Store};

/// What this connector declares.
pub static SPEC: Spec = Spec {
    kind: "iceberg",
    summary: "Iceberg tables in a local folder or an S3 bucket, found by their layout or by a catalog, with their earlier states",
    options: config::OPTIONS,
    capabilities: Capabilities { filters: true, limit: true, versions: true, append: true, ..Capabilities::NONE },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

/// The memory that files of metadata may take, as they are parsed.
const KEPT_TABLES: u64 = 16 * 1024 * 1024;
/// The memory that the lists of files of snapshots may take.
const KEPT_SNAPSHOTS: u64 = 64 * 1024 * 1024;
/// What one file takes in such a list, of rows or of deletes, and one column of one file of rows.
const FILE: usize = 400;
const COLUMN: usize = 50;

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    allow_any_script();
    let Config { location, tables } = Config::parse(options)?;
    Ok(Arc::new(IcebergSource {
        catalog: options.catalog.clone(),
        location,
        known_by: tables,
        opened: OnceCell::new(),
        tables: LazyLock::new(|| {
            let weigh = |_: &Current, table: &Arc<Table>| u32::try_from(table.bytes).unwrap_or(u32::MAX);
            moka::future::Cache::builder().max_capacity(KEPT_TABLES).weigher(weigh).build()
        }),
        snapshots: LazyLock::new(|| {
            let weigh = |_: &String, (snapshot, deletes): &(Arc<Snapshot>, usize)| {
                let each = snapshot.bounds.len().saturating_mul(COLUMN).saturating_add(FILE);
                let files = snapshot.files.len().saturating_mul(each).saturating_add(each);
                u32::try_from(files.saturating_add(deletes.saturating_mul(FILE))).unwrap_or(u32::MAX)
            };
            moka::future::Cache::builder().max_capacity(KEPT_SNAPSHOTS).weigher(weigh).build()
        }),
    }))
}

/// The tables of one location.
struct IcebergSource {
    catalog: String,
    location: Location,
    /// Who knows its tables.
    known_by: Tables,
    /// Opened when it is first needed, and again as long as that fails.
    opened: OnceCell<Arc<dyn Catalog>>,
    /// What is kept takes memory with nothing in it too, and most catalogs are never asked.
    tables: LazyLock<moka::future::Cache<Current, Arc<Table>>>,
    /// By what the table is called, where it is, and its version; with the number of files of deletes.
    snapshots: LazyLock<moka::future::Cache<String, (Arc<Snapshot>, usize)>>,
}

/// What a name of a table means.
enum Wanted<'a> {
    Now,
    At(&'a str),
    About(MetadataTable),
}

impl fmt::Debug for IcebergSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IcebergSource({}, {:?})", self.catalog, self.opened.get())
    }
}

impl IcebergSource {
    async fn opened(&self) -> Result<&Arc<dyn Catalog>> {
        let open = async || {
            let lake =
                || Store::open(&self.catalog, &self.location).map(|store| Arc::new(Lake::new(Arc::new(store), &self.location)));
            let opened: Arc<dyn Catalog> = match &self.known_by {
                Tables::Folder { schema, file } => {
                    Arc::new(Folder::open(&self.catalog, &self.location, schema, file.as_deref())?)
                }
                Tables::Rest(rest) => Arc::new(Rest::open(&self.catalog, &self.location, rest.clone())?),
                Tables::Hive { uri } => Arc::new(Hive::open(&self.catalog, uri, lake()?)?),
                Tables::Sql(database) => Arc::new(Sql::open(&self.catalog, database.as_ref().clone(), &self.catalog, lake()?)?),
                Tables::Glue { uri } => Arc::new(Glue::open(&self.catalog, uri.as_deref(), &self.location, lake()?)?),
            };
            Ok::<_, Error>(opened)
        };
        self.opened.get_or_try_init(open).await
    }

    /// The table that a name means, and what of it.
    async fn find<'a>(&self, schema: &str, name: &'a str) -> Result<(Found, Wanted<'a>)> {
        let catalog = self.opened().await?;
        let parsed = Name::parse(name);
        let table = parsed.about().unwrap_or(name);
        let Some(found) = catalog.find(schema, table).await? else {
            // Which of the two is not there, the error says.
            catalog.tables(schema).await?;
            return Err(Error::not_found(format!("table \"{table}\" does not exist")));
        };
        match parsed {
            Name::Now(_) => Ok((found, Wanted::Now)),
            Name::At(_, point) => Ok((found, Wanted::At(point))),
            Name::About(_, about) => match MetadataTable::named(about) {
                Some(about) => Ok((found, Wanted::About(about))),
                None => {
                    let known = MetadataTable::ALL.map(|(name, _)| name);
                    Err(Error::not_found(format!("nothing about the table \"{table}\" is called \"{about}\""))
                        .with_hint(format!("what there is after the $ is {}", list(&known)))
                        .at(found.lake.store.place(&found.current.path)))
                }
            },
        }
    }

    /// What the file of metadata says. Statements that want it at once read it once; where the one that reads is cancelled, another does.
    async fn load(&self, lake: &Lake, current: &Current) -> Result<Arc<Table>> {
        let read = async { Table::read(lake, &current.path).await.map(Arc::new) };
        self.tables.try_get_with_by_ref(current, read).await.map_err(|error: Arc<Error>| error.copied())
    }

    /// The table that a name means, as its file of metadata tells it, and what of it.
    async fn look<'a>(&self, schema: &str, name: &'a str) -> Result<(Found, Arc<Table>, Wanted<'a>)> {
        let (found, wanted) = self.find(schema, name).await?;
        let table = self.load(&found.lake, &found.current).await?;
        Ok((found, table, wanted))
    }

    /// The files of a state, which are read once as well. Errors: those of reading its metadata.
    async fn snapshot(
        &self,
        lake: &Arc<Lake>,
        current: &Current,
        table: &Arc<Table>,
        state: &State,
        called: &str,
        version: &str,
    ) -> Result<Arc<Snapshot>> {
        let path: &str = current.path.as_ref();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        // Its deletes are read with the keys that a catalog gives for this name.
        let key = format!("{called}\0{folder}\0{version}");
        let read = async {
            let read = snapshot::read(lake, table, state).await;
            read.map(|(snapshot, deletes)| (Arc::new(snapshot), deletes))
        };
        let (snapshot, _) = self.snapshots.try_get_with(key, read).await.map_err(|error: Arc<Error>| error.copied())?;
        Ok(snapshot)
    }

    async fn resolve(&self, schema: &str, name: &str) -> Result<Resolved> {
        let (Found { lake, current }, table, wanted) = when_whole(|| self.look(schema, name)).await?;
        let place = |error: Error| error.at(lake.store.place(&current.path));
        let state = match wanted {
            Wanted::Now => table.now(),
            Wanted::At(point) => table.at(point).map_err(place)?,
            Wanted::About(about) => {
                // What is said about a table changes with its properties and references too.
                let version = format!("{}:{}:{}", table.metadata.uuid(), current.path, current.state);
                let provider = Arc::new(about.read(&lake, &table, &current.path).await.map_err(place)?);
                return Ok(Resolved { provider, version: Version::Pinned(version), keys: Keys::default() });
            }
        };
        let version = table.version(&state);
        let called = format!("{schema}\0{}", Name::parse(name).about().unwrap_or(name));
        let snapshot = self.snapshot(&lake, &current, &table, &state, &called, &version).await.map_err(place)?;
        let provider = LakeTable::new(Arc::clone(&lake), &self.catalog, &format!("{schema}\0{name}"), &version, snapshot)?;
        Ok(Resolved { provider: Arc::new(provider), version: Version::Pinned(version), keys: Keys::default() })
    }
}

#[async_trait]
impl Source for IcebergSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.location, Location::Bucket { .. }) || !matches!(self.known_by, Tables::Folder { .. })
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        Name::parse(name).about()
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        cx.run(async { self.opened().await?.ping().await }).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        cx.run(async { self.opened().await?.schemas().await }).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        cx.run(async { self.opened().await?.tables(schema).await }).await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        cx.run(self.resolve(schema, table)).await
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        cx.run(self.append(cx, target, rows)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(folder: &std::path::Path) -> Arc<dyn Source> {
        let values = serde_json::json!({ "location": folder.to_str().unwrap() }).as_object().unwrap().clone();
        open(&Options { catalog: "lake".into(), values, ..Options::default() }).unwrap()
    }

    #[tokio::test]
    async fn names_say_which_table_and_what_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut empty = table::tests::metadata();
        for key in ["current-snapshot-id", "snapshots", "snapshot-log", "refs"] {
            empty.as_object_mut().unwrap().remove(key);
        }
        for name in ["orders", "a@b", "returns"] {
            let metadata = folder.path().join("sales").join(name).join("metadata");
            std::fs::create_dir_all(&metadata).unwrap();
            std::fs::write(metadata.join("v1.metadata.json"), empty.to_string()).unwrap();
        }
        let (source, cx) = (source(folder.path()), Context::new(nexus_flight_catalog::Principal::anonymous()));
        let tables = source.tables(&cx, "sales").await.unwrap();
        assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["orders", "returns"]);
        for name in ["orders", "returns"] {
            let resolved = source.table(&cx, "sales", name).await.unwrap();
            assert_eq!(resolved.version, Version::Pinned("fb072c92-a02b-11e9-ae9c-1bb7bc9eca94:-:1".to_owned()));
            let columns: Vec<String> = resolved.provider.schema().fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(columns, ["key", "day"]);
        }
        assert!(source.table(&cx, "sales", "orders$files").await.is_ok());
        let refusal = async |name: &str| source.table(&cx, "sales", name).await.unwrap_err();
        let unknown = refusal("orders$fils").await;
        insta::assert_snapshot!(unknown.message(), @r#"nothing about the table "orders" is called "fils""#);
        insta::assert_snapshot!(unknown.hint().unwrap_or_default(), @r#"what there is after the $ is "files", "history", "manifests", "partitions", "refs", "snapshots""#);
        // Without it the error would be taken for that of a table which is not there.
        assert!(unknown.place().is_some());
        insta::assert_snapshot!(refusal("orders@7").await.hint().unwrap_or_default(), @"the table has no snapshots");
        insta::assert_snapshot!(refusal("nothing").await, @r#"table "nothing" does not exist"#);
        insta::assert_snapshot!(source.table(&cx, "nowhere", "orders").await.unwrap_err(), @r#"schema "nowhere" does not exist"#);
    }
}
