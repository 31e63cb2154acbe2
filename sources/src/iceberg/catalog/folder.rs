//! Tables found by their layout: a folder with files of metadata in its `metadata/` is a table, and the highest version is its state.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Result, TableEntry, information_schema};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use super::{Catalog, Current, Found, Outcome};
use crate::iceberg::append::Change;
use crate::iceberg::table::Table;
use crate::lake::{Lake, is_name};
use crate::stores::{Created, Location, Store, ended_early};

/// The most entries of a folder in which tables are looked for.
const MOST: usize = 10_000;
/// The most files of the metadata of one table.
const MOST_METADATA: usize = 200_000;
/// How many folders are looked into side by side.
const AT_ONCE: usize = 16;

/// The tables under one location: directly in it, and one folder deeper, where the folder is the schema.
#[derive(Debug)]
pub(in crate::iceberg) struct Folder {
    lake: Arc<Lake>,
    /// The schema of the tables directly in the location.
    schema: String,
    /// What the location is called, which is the name of the table that it may be itself.
    own: String,
    /// The file of metadata that counts, where the location was named by one: then it is that table, and nothing else.
    file: Option<String>,
}

impl Folder {
    /// Opens a location; `file` is the name of the file of metadata that counts, where that is not the newest.
    /// Errors: `NotFound` for a local folder that is not there.
    pub(in crate::iceberg) fn open(catalog: &str, location: &Location, schema: &str, file: Option<&str>) -> Result<Self> {
        let store = Arc::new(Store::open(catalog, location)?);
        let own = match location {
            Location::Folder(_) => store.folder.as_deref().and_then(|folder| folder.file_name()?.to_str()).map(str::to_owned),
            Location::Bucket { bucket, prefix, .. } => Some(prefix.filename().unwrap_or(bucket).to_owned()),
        };
        let lake = Arc::new(Lake::new(store, location));
        Ok(Self { lake, schema: schema.to_owned(), own: own.unwrap_or_default(), file: file.map(str::to_owned) })
    }
}

#[async_trait]
impl Catalog for Folder {
    async fn ping(&self) -> Result<()> {
        self.schemas().await.map(|_| ())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let store = &self.lake.store;
        let top = Path::default();
        let mut schemas = BTreeSet::from([self.schema.clone()]);
        if self.own_state().await?.is_none() {
            let (_, others) = tables_and_others(store, &top).await?;
            schemas.extend(others.into_iter().filter(|name| name != information_schema::NAME));
        }
        Ok(schemas.into_iter().collect())
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        let store = &self.lake.store;
        let top = Path::default();
        let mut tables = BTreeSet::new();
        let is_table = self.own_state().await?.is_some();
        if is_table && schema == self.schema {
            return Ok(vec![TableEntry::table(&self.own)]);
        }
        let (direct, others) = if is_table { (Vec::new(), Vec::new()) } else { tables_and_others(store, &top).await? };
        let is_folder = others.iter().any(|name| name == schema);
        if schema == self.schema {
            tables.extend(direct);
        } else if !is_folder {
            return Err(Error::not_found(format!("schema \"{schema}\" does not exist")));
        }
        if let Some(folder) = under(&top, schema).filter(|_| is_folder) {
            tables.extend(tables_and_others(store, &folder).await?.0);
        }
        Ok(tables.into_iter().map(TableEntry::table).collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let current = self.current(schema, table).await?;
        Ok(current.map(|current| Found { lake: Arc::clone(&self.lake), current }))
    }

    fn check_commit(&self, found: &Found, table: &Table) -> Result<()> {
        if let Some(file) = &self.file {
            return Err(Error::unsupported(format!("this table takes no rows here: it is in the state that \"{file}\" tells"))
                .with_hint("set the location to the folder of the table, or name the catalog that keeps it by catalog = …"));
        }
        claimed(&found.current.path)?;
        address(found, table.metadata.location())?;
        let packs = table.metadata.properties().get("write.metadata.compression-codec");
        if packs.is_some_and(|codec| codec.eq_ignore_ascii_case("gzip")) {
            let message = "the metadata of this table is packed, under names that an unpacked one is not in the way of";
            return Err(
                Error::unsupported(message).with_hint("remove the property write.metadata.compression-codec of the table")
            );
        }
        Ok(())
    }

    async fn commit(&self, _schema: &str, _table: &str, found: &Found, change: &Change) -> Result<Outcome> {
        let number = claimed(&found.current.path)?;
        let bytes = Bytes::from(change.metadata(&address(found, change.location())?)?);
        let folder: &str = found.current.path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
        let in_folder =
            |name: &str| Path::parse(format!("{folder}/{name}")).map_err(|_| Error::internal("a file of metadata has no path"));
        let (path, hint) = (in_folder(&format!("v{number}.metadata.json"))?, in_folder("version-hint.text")?);
        let store = &found.lake.store;
        match store.create(&path, bytes).await {
            Created::Made => {}
            Created::Taken => return Ok(Outcome::Conflict),
            Created::Failed(error) => return Err(error),
            Created::Unknown(error) => return Ok(Outcome::Unknown(error)),
        }
        // Who has no list of the folder begins to look at this number, so it may be an older one.
        if store.objects().head(&hint).await.is_ok()
            && let Err(cause) = store.objects().put(&hint, number.to_string().into()).await
        {
            let error = store.write_error(&cause, &hint);
            tracing::warn!(%error, "the newest version of a table could not be noted");
        }
        Ok(Outcome::Done)
    }
}

/// The number of the file of metadata after this one. Errors: `Unsupported` where it would have to be given by a catalog.
fn claimed(path: &Path) -> Result<u64> {
    let name = path.filename().unwrap_or_default();
    let number = name.strip_prefix('v').and_then(|rest| rest.strip_suffix(".metadata.json"));
    number.and_then(|number| number.parse::<u64>().ok()).and_then(|number| number.checked_add(1)).ok_or_else(|| {
        let message = "this table takes no rows here: which of its files of metadata counts, a catalog says and not the folder";
        Error::unsupported(message)
            .with_hint("name the catalog that keeps the table by catalog = …; without one it would be v1.metadata.json and so on")
    })
}

/// How the table calls the file of metadata that was found. Errors: `Unsupported` for a table that was moved.
fn address(found: &Found, location: &str) -> Result<String> {
    let current = &found.current.path;
    let address = format!("{}/metadata/{}", location.trim_end_matches('/'), current.filename().unwrap_or_default());
    match found.lake.inside(&address) {
        Ok(path) if path == *current => Ok(address),
        _ => Err(Error::unsupported("this table takes no rows here: its metadata is not where the table says that it is itself")
            .with_hint("set the location to where the table was made, or move it back")),
    }
}

impl Folder {
    /// The state of a table now; none where there is no such table.
    /// Errors: `Data` where two writers have each made a newest state; `Denied` for a link that leads out of the location.
    async fn current(&self, schema: &str, table: &str) -> Result<Option<Current>> {
        let (store, top) = (&self.lake.store, Path::default());
        if self.file.is_some() {
            return if schema == self.schema && table == self.own { self.own_state().await } else { Ok(None) };
        }
        if schema == self.schema {
            let direct = match self.lake.child(&top, table).await? {
                Some(folder) => state(store, &folder).await?,
                None => None,
            };
            if direct.is_some() {
                return Ok(direct);
            }
            if table == self.own
                && let Some(own) = self.own_state().await?
            {
                return Ok(Some(own));
            }
        }
        let Some(above) = self.lake.child(&top, schema).await? else { return Ok(None) };
        match self.lake.child(&above, table).await? {
            Some(folder) => state(store, &folder).await,
            None => Ok(None),
        }
    }

    /// The state of the table that the location is itself, if it is one. Errors: `NotFound` where a file that is named is not there.
    async fn own_state(&self) -> Result<Option<Current>> {
        let (store, top) = (&self.lake.store, Path::default());
        let Some(file) = &self.file else { return state(store, &top).await };
        let folder = metadata_of(&top);
        let files = list(store, &folder, MOST_METADATA).await?;
        let Some(found) = files.iter().find(|found| !found.is_folder && found.name == *file) else {
            let error = Error::not_found(format!("there is no file \"{file}\" here, which the location names"));
            return Err(error.with_hint("correct the location").at(store.place(&folder)));
        };
        in_state(store, &folder, found).await.map(Some)
    }
}

/// The path of a name in a folder, where it can be one of a table or a schema.
fn under(folder: &Path, name: &str) -> Option<Path> {
    if !is_name(name) {
        return None;
    }
    if folder.as_ref().is_empty() { Path::parse(name).ok() } else { Path::parse(format!("{folder}/{name}")).ok() }
}

/// The folders in a folder: those that are tables, and the others.
async fn tables_and_others(store: &Store, folder: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let found = list(store, folder, MOST).await?.into_iter().filter(|found| found.is_folder);
    let names: Vec<(String, Path)> =
        found.filter_map(|found| under(folder, &found.name).map(|path| (found.name, path))).collect();
    let looks = names.into_iter().map(|(name, path)| async move {
        let files = list(store, &metadata_of(&path), MOST_METADATA).await?;
        Ok::<_, Error>((files.iter().any(|file| file.version().is_some()), name))
    });
    let looked: Vec<(bool, String)> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    let (tables, others): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(is_table, _)| *is_table);
    let names = |found: Vec<(bool, String)>| found.into_iter().map(|(_, name)| name).collect::<Vec<String>>();
    Ok((names(tables), names(others)))
}

fn metadata_of(table: &Path) -> Path {
    table.clone().join("metadata")
}

/// The state of the table in a folder, if it is one.
async fn state(store: &Store, table: &Path) -> Result<Option<Current>> {
    let folder = metadata_of(table);
    let files = list(store, &folder, MOST_METADATA).await?;
    let newest = newest(&files).map_err(|error| error.at(store.place(&folder)))?;
    match newest {
        Some(newest) => in_state(store, &folder, newest).await.map(Some),
        None => Ok(None),
    }
}

/// The state that a file in a folder of metadata tells.
async fn in_state(store: &Store, folder: &Path, file: &Entry) -> Result<Current> {
    store.stays_within(folder).await?;
    let path = under(folder, &file.name).ok_or_else(|| Error::data("the name of this file is no path"))?;
    Ok(Current { path, state: file.state.clone() })
}

/// An entry of a folder.
#[derive(Debug)]
struct Entry {
    name: String,
    is_folder: bool,
    /// Its size with its etag, or the time of its last change.
    state: String,
}

/// How those who write number their files of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// `v7.metadata.json`, as tables that are only a folder have: who makes the next number first has it.
    Claimed,
    /// `00007-{uuid}.metadata.json`, as catalogs have them written: the catalog knows which one counts.
    Given,
}

impl Entry {
    /// The version of the table that a file tells of, if it is one of metadata.
    fn version(&self) -> Option<(Numbering, u64)> {
        let packed = self.name.strip_suffix(".gz.metadata.json").or_else(|| self.name.strip_suffix(".metadata.json.gz"));
        let stem = packed.or_else(|| self.name.strip_suffix(".metadata.json")).filter(|_| !self.is_folder)?;
        let number =
            |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
        if let Some(digits) = stem.strip_prefix('v') {
            return Some((Numbering::Claimed, number(digits)?));
        }
        let (digits, id) = stem.split_once('-')?;
        Uuid::parse_str(id).ok()?;
        Some((Numbering::Given, number(digits)?))
    }
}

/// The file with the highest version. Errors: `Data` where that is not one file.
fn newest(files: &[Entry]) -> Result<Option<&Entry>> {
    let mut versions = files.iter().filter_map(|file| file.version().map(|version| (version, file)));
    let Some(first) = versions.next() else { return Ok(None) };
    let mut newest = first;
    let mut rival: Option<&Entry> = None;
    for (version, file) in versions {
        let (numbering, number) = newest.0;
        if version.0 != numbering {
            let message =
                format!("\"{}\" and \"{}\" are numbered in two ways, and which is newer is not known", newest.1.name, file.name);
            return Err(Error::data(message)
                .with_hint("the table has had two catalogs; remove the metadata of the one that counts no more"));
        }
        if version.1 > number {
            (newest, rival) = ((version, file), None);
        } else if version.1 == number {
            rival = Some(file);
        }
    }
    match rival {
        None => Ok(Some(newest.1)),
        Some(rival) => {
            let message = format!("two writers have each made a newest state: \"{}\" and \"{}\"", newest.1.name, rival.name);
            Err(Error::data(message).with_hint("only the catalog of the table knows which one counts; remove the other"))
        }
    }
}

/// What is in a folder; nothing where it is not there. Links that lead out of a local folder are left out.
async fn list(store: &Store, folder: &Path, most: usize) -> Result<Vec<Entry>> {
    let found = match store.folder.clone() {
        Some(root) => {
            let inside = root.join(folder.as_ref());
            let listed = tokio::task::spawn_blocking(move || on_disk(&root, &inside, most));
            let listed = listed.await.map_err(ended_early)?;
            listed.map_err(|cause| {
                Error::unavailable(format!("the folder cannot be listed: {cause}")).at(store.place(folder)).caused_by(cause)
            })?
        }
        None => {
            let prefix = (!folder.as_ref().is_empty()).then_some(folder);
            let listed = store.objects().list_with_delimiter(prefix).await;
            let listed = listed.map_err(|cause| store.list_error(&cause, folder))?;
            let folders = listed.common_prefixes.iter().filter_map(|path| path.filename());
            let folders = folders.map(|name| Entry { name: name.to_owned(), is_folder: true, state: String::new() });
            let files = listed.objects.iter().filter_map(|meta| {
                let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_string());
                let name = meta.location.filename()?.to_owned();
                Some(Entry { name, is_folder: false, state: format!("{} {tag}", meta.size) })
            });
            folders.chain(files).collect()
        }
    };
    if found.len() > most {
        return Err(Error::new(Kind::Exhausted, format!("this holds more than {most} files and folders"))
            .with_retryable(false)
            .with_hint("set the location to a folder that holds fewer, or let old snapshots of the table expire")
            .at(store.place(folder)));
    }
    Ok(found)
}

/// At most one entry more than `most`, which says that there are more.
fn on_disk(root: &FilePath, folder: &FilePath, most: usize) -> std::io::Result<Vec<Entry>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if found.len() > most {
            break;
        }
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str() else { continue };
        let path = entry.path();
        if entry.file_type()?.is_symlink() && !path.canonicalize().is_ok_and(|real| real.starts_with(root)) {
            continue;
        }
        // What was removed since is not there.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = format!("{} {}", metadata.len(), modified.as_nanos());
        found.push(Entry { name: name.to_owned(), is_folder: metadata.is_dir(), state });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Option<String>> {
        let found = |name: &&str| Entry { name: (*name).to_owned(), is_folder: false, state: String::new() };
        let files: Vec<Entry> = names.iter().map(found).collect();
        newest(&files).map(|newest| newest.map(|file| file.name.clone()))
    }

    const A: &str = "00009-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json";
    const B: &str = "00010-6c5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.gz.metadata.json";
    const C: &str = "00010-5b5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json";

    #[test]
    fn the_highest_number_counts_and_not_the_last_name() {
        assert_eq!(
            chosen(&["v9.metadata.json", "v10.metadata.json", "version-hint.text"]).unwrap().unwrap(),
            "v10.metadata.json"
        );
        assert_eq!(chosen(&["v9.metadata.json", "v10.metadata.json.gz"]).unwrap().unwrap(), "v10.metadata.json.gz");
        assert_eq!(chosen(&[A, B]).unwrap().unwrap(), B);
        // What is written before it is renamed, and what is not metadata.
        let others = ["7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json", "12345678-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json"];
        assert_eq!(chosen(&others).unwrap(), None);
        assert_eq!(chosen(&["snap-1-1-a.avro", "v.metadata.json", "vx.metadata.json", "v-1.metadata.json"]).unwrap(), None);
    }

    #[test]
    fn two_newest_states_are_refused() {
        insta::assert_snapshot!(chosen(&[A, B, C]).unwrap_err(), @r#"two writers have each made a newest state: "00010-6c5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.gz.metadata.json" and "00010-5b5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json"; only the catalog of the table knows which one counts; remove the other"#);
        insta::assert_snapshot!(chosen(&["v3.metadata.json", A]).unwrap_err(), @r#""v3.metadata.json" and "00009-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json" are numbered in two ways, and which is newer is not known; the table has had two catalogs; remove the metadata of the one that counts no more"#);
    }

    async fn names(catalog: &Folder, schema: &str) -> Vec<String> {
        catalog.tables(schema).await.unwrap().into_iter().map(|table| table.name).collect()
    }

    #[tokio::test]
    async fn folders_are_schemas_and_tables() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["direct/metadata/v1.metadata.json", "sales/orders/metadata/v1.metadata.json", "sales/notes/readme.txt"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(elsewhere.path().join("metadata")).unwrap();
        std::fs::write(elsewhere.path().join("metadata/v1.metadata.json"), "{}").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("out")).unwrap();
        let catalog = Folder::open("lake", &Location::Folder(folder.path().to_owned()), "main", None).unwrap();
        assert_eq!(catalog.schemas().await.unwrap(), ["main", "sales"]);
        assert_eq!(names(&catalog, "main").await, ["direct"]);
        assert_eq!(names(&catalog, "sales").await, ["orders"]);
        assert!(catalog.tables("direct").await.is_err());
        let current = catalog.current("sales", "orders").await.unwrap().unwrap();
        assert_eq!(current.path.as_ref(), "sales/orders/metadata/v1.metadata.json");
        for absent in ["notes", "..", "", "a/b"] {
            assert_eq!(catalog.current("sales", absent).await.unwrap(), None);
        }
        assert_eq!(catalog.current("main", "out").await.unwrap_err().kind(), Kind::Denied);

        let catalog = Folder::open("lake", &Location::Folder(folder.path().join("direct")), "main", None).unwrap();
        assert_eq!(names(&catalog, "main").await, ["direct"]);
        assert!(catalog.current("main", "direct").await.unwrap().is_some());
    }
    #[tokio::test]
    async fn one_file_of_metadata_is_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = folder.path().join("orders/metadata");
        std::fs::create_dir_all(&metadata).unwrap();
        // Two of one number, and of both kinds, which is no matter where one is named.
        for name in [A, B, C, "v11.metadata.json"] {
            std::fs::write(metadata.join(name), "{}").unwrap();
        }
        std::fs::create_dir_all(folder.path().join("orders/inner/metadata")).unwrap();
        std::fs::write(folder.path().join("orders/inner/metadata/v1.metadata.json"), "{}").unwrap();
        let location = Location::Folder(folder.path().join("orders"));
        let catalog = Folder::open("lake", &location, "main", Some(A)).unwrap();
        assert_eq!(catalog.schemas().await.unwrap(), ["main"]);
        assert_eq!(names(&catalog, "main").await, ["orders"]);
        let found = catalog.find("main", "orders").await.unwrap().unwrap();
        assert_eq!(found.current.path.as_ref(), format!("metadata/{A}"));
        for (schema, table) in [("main", "inner"), ("inner", "orders"), ("main", "Orders")] {
            assert_eq!(catalog.current(schema, table).await.unwrap(), None, "{schema}.{table}");
        }
        assert!(catalog.tables("inner").await.is_err());
        let table = crate::iceberg::table::tests::table(&crate::iceberg::table::tests::metadata()).unwrap();
        insta::assert_snapshot!(catalog.check_commit(&found, &table).unwrap_err(), @r#"this table takes no rows here: it is in the state that "00009-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json" tells; set the location to the folder of the table, or name the catalog that keeps it by catalog = …"#);

        let catalog = Folder::open("lake", &location, "main", Some("v7.metadata.json")).unwrap();
        assert_eq!(catalog.ping().await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(catalog.current("main", "orders").await.unwrap_err().kind(), Kind::NotFound);
    }
}
