//! Which folders are tables: those with a mark of their format, directly in the location or one folder deeper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;

use super::access::Lake;
use super::name::is_name;

/// The most that a folder may hold whose folders are looked at, and the most folders of all schemas.
const MOST: usize = 10_000;
/// How many folders are looked at side by side.
const AT_ONCE: usize = 16;

/// The tables of one location.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) lake: Arc<Lake>,
    /// What a folder has that is a table: a folder of this name, and something in that.
    pub(crate) mark: &'static str,
    /// The schema of the tables that are directly in the location.
    pub(crate) schema: String,
}

impl Folder {
    /// Whether a folder is a table. Errors: those of the store; `Denied` where its mark is behind a link that leads out of the location.
    async fn is_table(&self, folder: &Path) -> Result<bool> {
        let mark = folder.clone().join(self.mark);
        match self.lake.store.objects().list(Some(&mark)).next().await {
            Some(Ok(_)) => self.lake.store.stays_within(&mark).await.map(|()| true),
            Some(Err(object_store::Error::NotFound { .. })) if self.lake.store.folder.is_some() => Ok(false),
            Some(Err(cause)) => Err(self.lake.store.list_error(&cause, &mark)),
            None => Ok(false),
        }
    }

    /// The same, where one behind such a link is none.
    async fn is_listed(&self, folder: &Path) -> Result<bool> {
        match self.is_table(folder).await {
            Err(error) if error.kind() == Kind::Denied && self.lake.store.folder.is_some() => Ok(false),
            other => other,
        }
    }

    /// The tables of a schema that lie directly in the location are of the schema `default`; a folder with tables is a schema too.
    pub(crate) async fn schemas(&self) -> Result<Vec<String>> {
        let mut schemas = BTreeSet::from([self.schema.clone()]);
        let mut seen = 0;
        for (folder, is_table) in self.looked_at(&Path::default(), &mut seen).await? {
            let Some(name) = folder.filename().filter(|_| !is_table) else { continue };
            if self.looked_at(&folder, &mut seen).await?.iter().any(|(_, is_table)| *is_table) {
                schemas.insert(name.to_owned());
            }
        }
        Ok(schemas.into_iter().collect())
    }

    /// The names of the tables of a schema. Errors: `NotFound` for a schema that is not there.
    pub(crate) async fn tables(&self, schema: &str) -> Result<Vec<String>> {
        let root = Path::default();
        let missing = || Error::not_found(format!("schema \"{schema}\" does not exist"));
        if self.is_listed(&root).await? {
            return if schema == self.schema { Ok(vec![self.own_name()]) } else { Err(missing()) };
        }
        let (mut found, mut seen) = (BTreeSet::new(), 0);
        let mut folders: Vec<Path> = Vec::new();
        if schema == self.schema {
            folders.push(root.clone());
        }
        if let Some(folder) = self.lake.child(&root, schema).await? {
            let is_schema = !self.is_listed(&folder).await?;
            folders.extend(Some(folder).filter(|_| is_schema));
        }
        for folder in folders {
            let tables = self.looked_at(&folder, &mut seen).await?.into_iter().filter(|(_, is_table)| *is_table);
            found.extend(tables.filter_map(|(folder, _)| folder.filename().map(str::to_owned)));
        }
        if found.is_empty() && schema != self.schema { Err(missing()) } else { Ok(found.into_iter().collect()) }
    }

    /// The folder of a table; none where there is no such table.
    /// Errors: `Invalid` where two folders could be meant, `Denied` where it is behind a link that leads out of the location.
    pub(crate) async fn find(&self, schema: &str, table: &str) -> Result<Option<Path>> {
        let root = Path::default();
        if schema == self.schema && table == self.own_name() && self.is_table(&root).await? {
            return Ok(Some(root));
        }
        let mut found = Vec::new();
        if schema == self.schema
            && let Some(folder) = self.lake.child(&root, table).await?
            && self.is_table(&folder).await?
        {
            found.push(folder);
        }
        if let Some(above) = self.lake.child(&root, schema).await?
            && let Some(folder) = self.lake.child(&above, table).await?
            && self.is_table(&folder).await?
            && !self.is_listed(&above).await?
        {
            found.push(folder);
        }
        match found.as_slice() {
            [] => Ok(None),
            [folder] => Ok(Some(folder.clone())),
            [one, other, ..] => Err(Error::invalid(format!(
                "the name \"{table}\" could mean {} and {}",
                self.lake.store.show(one),
                self.lake.store.show(other)
            ))
            .with_hint("rename one of them, or give the tables of the location a schema of another name")),
        }
    }

    /// Where a table is to be that is not there. Errors: `NotFound` for a schema that is not there, `Invalid` for a name that would not be
    /// found again or is that of a schema, `Unsupported` where the location is a table itself.
    pub(crate) async fn place(&self, schema: &str, table: &str) -> Result<Path> {
        let root = Path::default();
        if self.is_listed(&root).await? {
            return Err(Error::unsupported("the location of the catalog is one table, and takes no other")
                .with_hint("set the location to the folder above it"));
        }
        let above = if schema == self.schema { Some(root) } else { self.lake.child(&root, schema).await? };
        self.tables(schema).await?;
        let folder = match above {
            Some(above) => self.lake.child(&above, table).await?,
            None => None,
        };
        let folder = folder.filter(|folder| folder.filename() == Some(table)).ok_or_else(|| {
            Error::invalid(format!("\"{table}\" cannot be the name of a folder of a table"))
                .with_hint("take a name without / \\ @ $ that does not begin with . or _ and is not there in other letters")
        })?;
        if schema == self.schema && self.looked_at(&folder, &mut 0).await?.iter().any(|(_, is_table)| *is_table) {
            return Err(Error::invalid(format!("\"{table}\" is the name of a schema, whose tables would be hidden"))
                .with_hint("take another name"));
        }
        self.lake.store.stays_within(&folder).await?;
        Ok(folder)
    }

    /// Whether the location can be listed. Errors: those of the store.
    pub(crate) async fn ping(&self) -> Result<()> {
        match self.lake.store.objects().list(None).next().await {
            Some(Err(cause)) => Err(self.lake.store.list_error(&cause, &Path::default())),
            _ => Ok(()),
        }
    }

    /// The folders in a folder, sorted, and whether each is a table. A location that is a table has none.
    async fn looked_at(&self, folder: &Path, seen: &mut usize) -> Result<BTreeMap<Path, bool>> {
        if folder.as_ref().is_empty() && self.is_listed(folder).await? {
            return Ok(BTreeMap::new());
        }
        let listed = match self.lake.store.objects().list_with_delimiter(Some(folder)).await {
            Ok(listed) => listed,
            // A schema that is not there has no tables.
            Err(object_store::Error::NotFound { .. }) if self.lake.store.folder.is_some() && !folder.as_ref().is_empty() => {
                return Ok(BTreeMap::new());
            }
            Err(cause) => return Err(self.lake.store.list_error(&cause, folder)),
        };
        *seen += listed.common_prefixes.len();
        let entries = listed.common_prefixes.len() + listed.objects.len();
        if entries > MOST || *seen > MOST {
            return Err(Error::invalid(format!("there are more than {MOST} files and folders to look at for tables"))
                .with_hint("set the location to a folder that is nearer to the tables")
                .at(self.lake.store.place(folder)));
        }
        let mut shown = listed.common_prefixes;
        shown.retain(|path| path.filename().is_some_and(is_name));
        let look = |path: Path| async move { self.is_listed(&path).await.map(|is_table| (path, is_table)) };
        stream::iter(shown).map(look).buffered(AT_ONCE).try_collect().await
    }

    /// The name of a table that the location itself is.
    fn own_name(&self) -> String {
        self.lake.store.show(&Path::default()).trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as LocalPath;

    use super::*;
    #[cfg(target_os = "linux")]
    use crate::stores::heedless;
    use crate::stores::{Location, Store};

    const LOG: &str = "_delta_log";

    fn tables_of(folder: &LocalPath) -> Folder {
        let location = Location::Folder(folder.to_owned());
        let store = Arc::new(Store::open("lake", &location).unwrap());
        Folder { lake: Arc::new(Lake::new(store, &location)), mark: LOG, schema: "main".to_owned() }
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
        let tables = tables_of(folder.path());
        assert_eq!(tables.schemas().await.unwrap(), ["main", "sales"]);
        assert_eq!(tables.tables("main").await.unwrap(), ["a b%20c", "b"]);
        assert_eq!(tables.tables("sales").await.unwrap(), ["文"]);
        for missing in ["empty", "b", "nowhere", ".."] {
            assert_eq!(tables.tables(missing).await.unwrap_err().kind(), Kind::NotFound, "{missing}");
        }
        let found = tables.find("main", "a b%20c").await.unwrap();
        assert_eq!(found.unwrap().as_ref(), "a b%20c");
        for (schema, table) in [("b", "within"), ("main", "_hidden"), ("main", "empty"), ("main", "sales/文")] {
            assert_eq!(tables.find(schema, table).await.unwrap(), None, "{schema}.{table}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_table_has_the_name_alone_that_is_listed() {
        let (location, process, thread, _stays) = heedless();
        let store = Arc::new(Store::open("lake", &location).unwrap());
        let tables = Folder { lake: Arc::new(Lake::new(store, &location)), mark: "fdinfo", schema: "main".to_owned() };
        assert_eq!(tables.find("main", &process).await.unwrap(), Some(Path::from(process.as_str())));
        assert_eq!(tables.find("main", &thread).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_new_table_is_where_it_will_be_found() {
        let folder = tempfile::tempdir().unwrap();
        table(&folder.path().join("sales/文"));
        let tables = tables_of(folder.path());
        let new = async |schema: &str, table: &str| tables.place(schema, table).await;
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
        let tables = tables_of(&orders);
        assert_eq!(tables.schemas().await.unwrap(), ["main"]);
        assert_eq!(tables.tables("main").await.unwrap(), ["orders"]);
        assert_eq!(tables.find("main", "orders").await.unwrap(), Some(Path::default()));
    }

    #[tokio::test]
    async fn a_link_that_leads_out_is_no_table() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        table(&outside.path().join("t"));
        std::os::unix::fs::symlink(outside.path().join("t"), inside.path().join("t")).unwrap();
        let tables = tables_of(inside.path());
        assert!(tables.tables("main").await.unwrap().is_empty());
        assert_eq!(tables.find("main", "t").await.unwrap_err().kind(), Kind::Denied);
    }

    #[tokio::test]
    async fn one_name_for_two_tables_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        table(&folder.path().join("t"));
        table(&folder.path().join("main/t"));
        let tables = tables_of(folder.path());
        assert_eq!(tables.find("main", "t").await.unwrap_err().kind(), Kind::Invalid);
    }
}
