//! Which folders are tables: those with a log, directly in the location or one folder deeper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;

use super::catalog::{Catalog, Found};
use crate::lake::{Lake, is_name};
use crate::stores::Store;

/// What makes a folder a table.
const LOG: &str = "_delta_log";
/// The most that a folder may hold whose folders are looked at, and the most folders of all schemas.
const MOST: usize = 10_000;
/// How many folders are looked at side by side.
const AT_ONCE: usize = 16;

/// The tables of one location.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) lake: Arc<Lake>,
    /// The schema of the tables that are directly in the location.
    pub(super) schema: String,
}

#[async_trait]
impl Catalog for Folder {
    async fn ping(&self) -> Result<()> {
        reached(&self.lake.store).await
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        schemas(&self.lake.store, &self.schema).await
    }

    async fn tables(&self, schema: &str) -> Result<Vec<String>> {
        tables(&self.lake.store, &self.schema, schema).await
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let folder = find(&self.lake.store, &self.schema, schema, table).await?;
        Ok(folder.map(|folder| Found { lake: Arc::clone(&self.lake), folder }))
    }

    fn written(&self) -> Result<&Folder> {
        Ok(self)
    }
}

impl Folder {
    /// Where a table is to be that is not there. Errors: `NotFound` for a schema that is not there, `Invalid` for a name that would not be
    /// found again or is that of a schema, `Unsupported` where the location is a table itself.
    pub(super) async fn place(&self, schema: &str, table: &str) -> Result<Path> {
        new_table(&self.lake.store, &self.schema, schema, table).await
    }
}

/// The log of a table.
pub(super) fn log_of(table: &Path) -> Path {
    table.clone().join(LOG)
}

/// Whether a folder is a table. Errors: those of the store; `Denied` where its log is behind a link that leads out of the location.
async fn is_table(store: &Store, folder: &Path) -> Result<bool> {
    let log = log_of(folder);
    match store.objects().list(Some(&log)).next().await {
        Some(Ok(_)) => store.stays_within(&log).await.map(|()| true),
        Some(Err(object_store::Error::NotFound { .. })) if store.folder.is_some() => Ok(false),
        Some(Err(cause)) => Err(store.list_error(&cause, &log)),
        None => Ok(false),
    }
}

/// The same, where one behind such a link is none.
async fn is_listed(store: &Store, folder: &Path) -> Result<bool> {
    match is_table(store, folder).await {
        Err(error) if error.kind() == Kind::Denied && store.folder.is_some() => Ok(false),
        other => other,
    }
}

/// The tables of a schema that lie directly in the location are of the schema `default`; a folder with tables is a schema too.
async fn schemas(store: &Store, default: &str) -> Result<Vec<String>> {
    let mut schemas = BTreeSet::from([default.to_owned()]);
    let mut seen = 0;
    for (folder, is_table) in looked_at(store, &Path::default(), &mut seen).await? {
        let Some(name) = folder.filename().filter(|_| !is_table) else { continue };
        if looked_at(store, &folder, &mut seen).await?.iter().any(|(_, is_table)| *is_table) {
            schemas.insert(name.to_owned());
        }
    }
    Ok(schemas.into_iter().collect())
}

/// The names of the tables of a schema. Errors: `NotFound` for a schema that is not there.
async fn tables(store: &Store, default: &str, schema: &str) -> Result<Vec<String>> {
    let root = Path::default();
    let missing = || Error::not_found(format!("schema \"{schema}\" does not exist"));
    if is_listed(store, &root).await? {
        return if schema == default { Ok(vec![own_name(store)]) } else { Err(missing()) };
    }
    let (mut found, mut seen) = (BTreeSet::new(), 0);
    let mut folders: Vec<Path> = Vec::new();
    if schema == default {
        folders.push(root.clone());
    }
    if let Some(folder) = child(&root, schema) {
        let is_schema = !is_listed(store, &folder).await?;
        folders.extend(Some(folder).filter(|_| is_schema));
    }
    for folder in folders {
        let tables = looked_at(store, &folder, &mut seen).await?.into_iter().filter(|(_, is_table)| *is_table);
        found.extend(tables.filter_map(|(folder, _)| folder.filename().map(str::to_owned)));
    }
    if found.is_empty() && schema != default { Err(missing()) } else { Ok(found.into_iter().collect()) }
}

/// The folder of a table; none where there is no such table.
/// Errors: `Invalid` where two folders could be meant, `Denied` where it is behind a link that leads out of the location.
async fn find(store: &Store, default: &str, schema: &str, table: &str) -> Result<Option<Path>> {
    let root = Path::default();
    if schema == default && table == own_name(store) && is_table(store, &root).await? {
        return Ok(Some(root));
    }
    let mut found = Vec::new();
    if schema == default
        && let Some(folder) = child(&root, table)
        && is_table(store, &folder).await?
    {
        found.push(folder);
    }
    if let Some(above) = child(&root, schema)
        && let Some(folder) = child(&above, table)
        && is_table(store, &folder).await?
        && !is_listed(store, &above).await?
    {
        found.push(folder);
    }
    match found.as_slice() {
        [] => Ok(None),
        [folder] => Ok(Some(folder.clone())),
        [one, other, ..] => {
            Err(Error::invalid(format!("the name \"{table}\" could mean {} and {}", store.show(one), store.show(other)))
                .with_hint("rename one of them, or give the tables of the location a schema of another name"))
        }
    }
}

async fn new_table(store: &Store, default: &str, schema: &str, table: &str) -> Result<Path> {
    let root = Path::default();
    if is_listed(store, &root).await? {
        return Err(Error::unsupported("the location of the catalog is one table, and takes no other")
            .with_hint("set the location to the folder above it"));
    }
    let above = if schema == default { Some(root) } else { child(&root, schema) };
    tables(store, default, schema).await?;
    let folder = above.and_then(|above| child(&above, table)).filter(|folder| folder.filename() == Some(table));
    let folder = folder.ok_or_else(|| {
        Error::invalid(format!("\"{table}\" cannot be the name of a folder of a table"))
            .with_hint("take a name without / \\ @ $ that does not begin with . or _")
    })?;
    if schema == default && looked_at(store, &folder, &mut 0).await?.iter().any(|(_, is_table)| *is_table) {
        return Err(Error::invalid(format!("\"{table}\" is the name of a schema, whose tables would be hidden"))
            .with_hint("take another name"));
    }
    store.stays_within(&folder).await?;
    Ok(folder)
}

/// Whether the location can be listed. Errors: those of the store.
async fn reached(store: &Store) -> Result<()> {
    match store.objects().list(None).next().await {
        Some(Err(cause)) => Err(store.list_error(&cause, &Path::default())),
        _ => Ok(()),
    }
}

/// The folders in a folder, sorted, and whether each is a table. A location that is a table has none.
async fn looked_at(store: &Store, folder: &Path, seen: &mut usize) -> Result<BTreeMap<Path, bool>> {
    if folder.as_ref().is_empty() && is_listed(store, folder).await? {
        return Ok(BTreeMap::new());
    }
    let listed = match store.objects().list_with_delimiter(Some(folder)).await {
        Ok(listed) => listed,
        // A schema that is not there has no tables.
        Err(object_store::Error::NotFound { .. }) if store.folder.is_some() && !folder.as_ref().is_empty() => {
            return Ok(BTreeMap::new());
        }
        Err(cause) => return Err(store.list_error(&cause, folder)),
    };
    *seen += listed.common_prefixes.len();
    let entries = listed.common_prefixes.len() + listed.objects.len();
    if entries > MOST || *seen > MOST {
        return Err(Error::invalid(format!("there are more than {MOST} files and folders to look at for tables"))
            .with_hint("set the location to a folder that is nearer to the tables")
            .at(store.place(folder)));
    }
    let mut shown = listed.common_prefixes;
    shown.retain(|path| path.filename().is_some_and(is_name));
    let look = |path: Path| async move { is_listed(store, &path).await.map(|is_table| (path, is_table)) };
    stream::iter(shown).map(look).buffered(AT_ONCE).try_collect().await
}

/// What is in a folder under a name; none for names that nothing here has.
fn child(folder: &Path, name: &str) -> Option<Path> {
    if !is_name(name) {
        return None;
    }
    let name = Path::parse(name).ok()?;
    Some(folder.parts().chain(name.parts()).collect())
}

/// The name of a table that the location itself is.
fn own_name(store: &Store) -> String {
    store.show(&Path::default()).trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path as LocalPath;

    use super::*;
    use crate::stores::Location;

    fn store(folder: &LocalPath) -> Store {
        Store::open("lake", &Location::Folder(folder.to_owned())).unwrap()
    }

    fn table(folder: &LocalPath) {
        std::fs::create_dir_all(folder.join(LOG)).unwrap();
        std::fs::write(folder.join(LOG).join("00000000000000000000.json"), "{}").unwrap();
    }

    #[tokio::test]
    async fn folders_with_a_log_are_tables() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a b%20c", "sales/文", "sales/x@1", "b/within", "_hidden"] {
            table(&folder.path().join(name));
        }
        std::fs::create_dir_all(folder.path().join("empty/none")).unwrap();
        let store = store(folder.path());
        assert_eq!(schemas(&store, "main").await.unwrap(), ["main", "sales"]);
        assert_eq!(tables(&store, "main", "main").await.unwrap(), ["a b%20c", "b"]);
        assert_eq!(tables(&store, "main", "sales").await.unwrap(), ["文"]);
        for missing in ["empty", "b", "nowhere", ".."] {
            assert_eq!(tables(&store, "main", missing).await.unwrap_err().kind(), Kind::NotFound, "{missing}");
        }
        let found = find(&store, "main", "main", "a b%20c").await.unwrap();
        assert_eq!(found.unwrap().as_ref(), "a b%20c");
        for (schema, table) in [("b", "within"), ("main", "_hidden"), ("main", "empty"), ("main", "sales/文")] {
            assert_eq!(find(&store, "main", schema, table).await.unwrap(), None, "{schema}.{table}");
        }
    }

    #[tokio::test]
    async fn a_new_table_is_where_it_will_be_found() {
        let folder = tempfile::tempdir().unwrap();
        table(&folder.path().join("sales/文"));
        let store = store(folder.path());
        let new = async |schema: &str, table: &str| new_table(&store, "main", schema, table).await;
        assert_eq!(new("main", "a b%20c").await.unwrap().as_ref(), "a b%20c");
        assert_eq!(new("sales", "t").await.unwrap().as_ref(), "sales/t");
        for (schema, table, kind) in [
            ("nowhere", "t", Kind::NotFound),
            ("main", "sales", Kind::Invalid),
            ("main", "_hidden", Kind::Invalid),
            ("main", "..", Kind::Invalid),
            ("main", "a/b", Kind::Invalid),
        ] {
            assert_eq!(new(schema, table).await.unwrap_err().kind(), kind, "{schema}.{table}");
        }
    }

    #[tokio::test]
    async fn a_location_can_be_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let orders = folder.path().join("orders");
        table(&orders);
        let store = store(&orders);
        assert_eq!(schemas(&store, "main").await.unwrap(), ["main"]);
        assert_eq!(tables(&store, "main", "main").await.unwrap(), ["orders"]);
        assert_eq!(find(&store, "main", "main", "orders").await.unwrap(), Some(Path::default()));
    }

    #[tokio::test]
    async fn a_link_that_leads_out_is_no_table() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        table(&outside.path().join("t"));
        std::os::unix::fs::symlink(outside.path().join("t"), inside.path().join("t")).unwrap();
        let store = store(inside.path());
        assert!(tables(&store, "main", "main").await.unwrap().is_empty());
        assert_eq!(find(&store, "main", "main", "t").await.unwrap_err().kind(), Kind::Denied);
    }

    #[tokio::test]
    async fn one_name_for_two_tables_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        table(&folder.path().join("t"));
        table(&folder.path().join("main/t"));
        let store = store(folder.path());
        assert_eq!(find(&store, "main", "main", "t").await.unwrap_err().kind(), Kind::Invalid);
    }
}
