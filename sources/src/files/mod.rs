//! Files in a local folder or a bucket: each data file, folder or declared pattern is a table.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::error::list as listed;
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Opt, OptType, Options, Proof, Resolved, Result, Source, Spec, TableEntry, TableKind,
    Version,
};
use tokio::sync::OnceCell;

mod arrow_file;
mod claim;
mod config;
mod decoding;
mod format;
mod heads;
mod listing;
mod located;
mod pattern;
mod quotes;
mod scan;
mod shape;
mod strict;
mod text_file;
mod walk;
mod whole_numbers;
mod write;

use config::{Config, Declared};
use format::Format;
use listing::{Listing, Target};
use scan::FilesTable;
use shape::Shape;

use crate::stores::{BUCKET, Footers, Location, PinnedStore, Store, located, session_url, text};

/// What this connector declares.
pub static SPEC: Spec = Spec {
    kind: "files",
    summary: "Parquet, CSV, newline JSON and Arrow files in a local folder or an S3 bucket",
    options: OPTIONS,
    capabilities: Capabilities {
        filters: true,
        limit: true,
        versions: true,
        keys: true,
        append: true,
        ingest: true,
        ..Capabilities::NONE
    },
    proof: Proof::SameWire,
    docs: include_str!("docs.md"),
    open,
};

const fn names(name: &'static str, help: &'static str) -> Opt {
    Opt { value: OptType::Strings, ..text(name, help) }
}

const OPTIONS: &[Opt; 9] = &located(
    [
        text("schema", "the name of the schema that holds the tables; main if not given"),
        Opt {
            value: OptType::Tables(TABLE),
            ..text("tables", "what to declare of tables, by their names; the others are found")
        },
    ],
    BUCKET,
);

const TABLE: &[Opt] = &[
    text("path", "a file, a folder, or a pattern with *, ? and **, under the location; what has the table's name if not given"),
    Opt { value: OptType::OneOf(Format::NAMES), ..text("format", "the format of the files, where their names do not end in it") },
    Opt { value: OptType::Records(COLUMN), ..text("columns", "all columns in order, instead of guessing them") },
    Opt { value: OptType::Records(COLUMN), ..text("partitions", "the columns that name=value folders hold, in order") },
    Opt {
        value: OptType::Boolean,
        ..text("header", "whether the first line of a CSV file names the columns; true if not given")
    },
    text("delimiter", "the character between the values of CSV; a comma if not given"),
    names("primary_key", "the columns that tell rows apart; nothing checks that they do"),
    Opt { value: OptType::Records(FOREIGN_KEY), ..text("foreign_keys", "the keys of other tables that columns hold") },
    text("comment", "what the table is, for people"),
];

const COLUMN: &[Opt] = &[
    Opt { required: true, ..text("name", "the name of the column") },
    Opt { required: true, ..text("type", "its type, written as in CAST, such as DECIMAL(15,2)") },
];

const FOREIGN_KEY: &[Opt] = &[
    Opt { required: true, ..names("columns", "the columns here") },
    Opt { required: true, ..text("table", "the other table, in the same schema") },
    Opt { required: true, ..names("referenced", "the columns there, in the same order") },
];

/// How many tables' shapes are kept.
const SHAPES: u64 = 256;

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let config = Config::parse(options)?;
    let shapes: LazyLock<Shapes> = LazyLock::new(|| Shapes::new(SHAPES));
    let (config, shapes) = (Arc::new(config), Arc::new(shapes));
    Ok(Arc::new(FilesSource { config, store: Arc::default(), footers: Footers::new(), shapes }))
}

/// What is known of tables by their names and versions. It takes memory with nothing in it too, and most catalogs are never asked.
type Shapes = moka::future::Cache<(String, String), Arc<Shape>>;

/// The files of one location. Clones share them.
#[derive(Clone)]
struct FilesSource {
    config: Arc<Config>,
    /// Opened when it is first needed, and again as long as that fails.
    store: Arc<OnceCell<Arc<Store>>>,
    footers: Footers,
    /// So that a statement on unchanged files opens none of them before its scan.
    shapes: Arc<LazyLock<Shapes>>,
}

impl fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesSource({}, {:?})", self.config.catalog, self.store.get())
    }
}

impl FilesSource {
    async fn store(&self) -> Result<&Arc<Store>> {
        self.store.get_or_try_init(|| async { Store::open(&self.config.catalog, &self.config.location).map(Arc::new) }).await
    }

    fn known_schema(&self, schema: &str) -> Result<()> {
        if schema == self.config.schema {
            return Ok(());
        }
        Err(Error::not_found(format!("schema \"{schema}\" does not exist")))
    }

    /// Where the files of a table are. Errors: `NotFound`; `Invalid` where two things have the table's name.
    async fn target(&self, store: &Store, table: &str, declared: Option<&Declared>) -> Result<Target> {
        if let Some(path) = declared.and_then(|declared| declared.path.as_deref()) {
            return Target::parse(path);
        }
        let mut found = listing::discover(store).await?;
        match found.remove(table).unwrap_or_default().as_slice() {
            // A file whose ending says nothing, or one that is still to come.
            [] if declared.is_some() => Target::parse(table),
            [] => Err(Error::not_found(format!("table \"{table}\" does not exist"))),
            [target] => Ok(target.clone()),
            several => {
                let paths: Vec<String> = several.iter().map(|target| target.show(store)).collect();
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                Err(Error::invalid(format!("the name \"{table}\" could mean {}", listed(&paths)))
                    .with_hint("rename all but one, or declare tables with a path for each"))
            }
        }
    }

    fn pinned(&self, store: &Arc<Store>, listing: &Listing) -> Arc<PinnedStore> {
        Arc::new(PinnedStore::new(Arc::clone(store), listing.files.iter().map(|file| file.meta.clone())))
    }

    async fn shape(&self, table: &str, listing: &Listing, pinned: &Arc<PinnedStore>, text: heads::Options) -> Result<Arc<Shape>> {
        let store = self.store().await?;
        if let Some(columns) = self.config.tables.get(table).and_then(|declared| declared.columns.as_ref()) {
            return Ok(Arc::new(Shape::declared(columns)));
        }
        let key = (table.to_owned(), listing.version.clone());
        if let Some(shape) = self.shapes.get(&key).await {
            return Ok(shape);
        }
        let shape = Arc::new(Shape::infer(store, pinned, &self.footers, listing, &text).await?);
        self.shapes.insert(key, Arc::clone(&shape)).await;
        Ok(shape)
    }
}

#[async_trait]
impl Source for FilesSource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.config.location, Location::Bucket { .. })
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        listing::discover(self.store().await?.as_ref()).await.map(|_| ())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(vec![self.config.schema.clone()])
    }

    async fn tables(&self, _cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.known_schema(schema)?;
        let mut names = listing::discover(self.store().await?.as_ref()).await?;
        for name in self.config.tables.keys() {
            names.entry(name.clone()).or_default();
        }
        let comment = |name: &str| self.config.tables.get(name).and_then(|declared| declared.comment.clone());
        let entry = |name: String| TableEntry { comment: comment(&name), name, kind: TableKind::Table };
        Ok(names.into_keys().map(entry).collect())
    }

    async fn table(&self, _cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.known_schema(schema)?;
        let store = self.store().await?;
        let declared = self.config.tables.get(table);
        let target = self.target(store, table, declared).await?;
        let listing = Arc::new(listing::list(store, table, &target, declared).await?);
        let pinned = self.pinned(store, &listing);
        let text = heads::Options {
            header: declared.is_none_or(|declared| declared.header),
            delimiter: declared.map_or(b',', |declared| declared.delimiter),
        };
        let shape = self.shape(table, &listing, &pinned, text).await?;
        let version = Version::Pinned(listing.version.clone());
        let name = format!("{}\0{table}\0{}", self.config.catalog, listing.version);
        let url = session_url(&name)?;
        let provider = FilesTable::new(Arc::clone(store), pinned, self.footers.clone(), listing, shape, text, url);
        let keys = declared.map_or_else(Keys::default, |declared| declared.keys.clone());
        Ok(Resolved { provider: Arc::new(provider), version, keys })
    }

    async fn ingest(&self, cx: &Context, target: &nexus_flight_catalog::Target, rows: SendableRecordBatchStream) -> Result<u64> {
        cx.run(self.put(cx, target, rows)).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        cx.run(self.drop_files(cx, schema, table)).await
    }
}
