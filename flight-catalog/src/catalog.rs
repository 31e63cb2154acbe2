//! Catalog name → source, and the tables that one statement names.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::Result as DataFusionResult;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Kind, Result, list, nearest};
use crate::information_schema;
use crate::source::{Context, Resolved, Source, TableEntry};

/// How many tables of one statement are resolved at once.
const RESOLVED_AT_ONCE: usize = 16;

/// A table's full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The catalog.
    pub catalog: String,
    /// The schema in it.
    pub schema: String,
    /// The table in that.
    pub table: String,
}

impl TableName {
    /// A name of three parts.
    pub fn new(catalog: impl Into<String>, schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { catalog: catalog.into(), schema: schema.into(), table: table.into() }
    }

    /// The full name of a reference in a statement, given the current catalog and schema.
    pub fn resolve(reference: &TableReference, catalog: &str, schema: &str) -> Self {
        let full = reference.clone().resolve(catalog, schema);
        Self::new(&*full.catalog, &*full.schema, &*full.table)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.catalog, self.schema, self.table)
    }
}

/// All registered sources. Shared by every statement; a source registered now is seen by the next statement.
#[derive(Debug, Default)]
pub struct Catalogs {
    sources: RwLock<BTreeMap<String, Arc<dyn Source>>>,
}

impl Catalogs {
    /// Registers a source under a name, in place of an earlier one.
    pub fn register(&self, name: impl Into<String>, source: Arc<dyn Source>) {
        // The map is whole after every single insert, so a panic elsewhere cannot have left it broken.
        self.sources.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.into(), source);
    }

    /// The names of all catalogs, sorted.
    pub fn names(&self) -> Vec<String> {
        self.all().into_iter().map(|(name, _)| name).collect()
    }

    /// All catalogs with their names, sorted.
    pub fn all(&self) -> Vec<(String, Arc<dyn Source>)> {
        let sources = self.sources.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        sources.iter().map(|(name, source)| (name.clone(), Arc::clone(source))).collect()
    }

    /// The source behind a catalog. Errors: `NotFound` with the nearest name.
    pub fn source(&self, name: &str) -> Result<Arc<dyn Source>> {
        let sources = self.sources.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(source) = sources.get(name) {
            return Ok(Arc::clone(source));
        }
        let known: Vec<&str> = sources.keys().map(String::as_str).collect();
        Err(missing("catalog", name, &known))
    }

    /// The schemas of a catalog, `information_schema` among them, sorted.
    pub async fn schemas(&self, cx: &Context, catalog: &str) -> Result<Vec<String>> {
        let mut schemas = cx.run(self.source(catalog)?.schemas(cx)).await?;
        schemas.push(information_schema::NAME.to_owned());
        schemas.sort();
        schemas.dedup();
        Ok(schemas)
    }

    /// The tables of a schema, sorted by name.
    pub async fn tables(&self, cx: &Context, catalog: &str, schema: &str) -> Result<Vec<TableEntry>> {
        let source = self.source(catalog)?;
        if schema == information_schema::NAME {
            return Ok(information_schema::tables());
        }
        cx.run(source.tables(cx, schema)).await
    }

    /// One table. Errors: `NotFound` with the nearest catalog, schema or table name.
    pub async fn table(self: &Arc<Self>, cx: &Context, name: &TableName) -> Result<Resolved> {
        let source = self.source(&name.catalog)?;
        if name.schema == information_schema::NAME {
            return match information_schema::table(self, cx, &name.catalog, &name.table) {
                Some(table) => Ok(table),
                None => {
                    let entries = information_schema::tables();
                    let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                    Err(missing("table", &name.table, &known))
                }
            };
        }
        match cx.run(source.table(cx, &name.schema, &name.table)).await {
            Err(error) if error.kind() == Kind::NotFound && error.place().is_none() => {
                Err(explain_missing(cx, source.as_ref(), name).await.unwrap_or(error))
            }
            other => other,
        }
    }

    /// All the tables that a statement names, side by side. Each name as it was written may have a second reading, which
    /// counts where the first is not there.
    pub async fn resolve(
        self: &Arc<Self>,
        cx: &Context,
        names: impl IntoIterator<Item = (TableName, Option<TableName>)>,
    ) -> Result<Tables> {
        let names: Vec<_> = names.into_iter().collect();
        let resolved = stream::iter(names)
            .map(|(written, fallback)| async move {
                let table = self.resolve_one(cx, &written, fallback).await?;
                Ok::<_, Error>((written, table))
            })
            .buffered(RESOLVED_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Tables { tables: Arc::new(resolved) })
    }

    async fn resolve_one(
        self: &Arc<Self>,
        cx: &Context,
        written: &TableName,
        fallback: Option<TableName>,
    ) -> Result<(TableName, Resolved)> {
        let fallback = fallback.filter(|name| self.source(&name.catalog).is_ok());
        match self.table(cx, written).await {
            Err(error) if error.kind() == Kind::NotFound => match fallback {
                Some(name) => Ok((name.clone(), self.table(cx, &name).await?)),
                None => Err(error),
            },
            table => Ok((written.clone(), table?)),
        }
    }
}

/// A source says only that a name is not there; which part of it, and what was meant, is found out here for all of them.
async fn explain_missing(cx: &Context, source: &dyn Source, name: &TableName) -> Option<Error> {
    let schemas = cx.run(source.schemas(cx)).await.ok()?;
    if !schemas.contains(&name.schema) {
        let known: Vec<&str> = schemas.iter().map(String::as_str).collect();
        return Some(missing("schema", &format!("{}.{}", name.catalog, name.schema), &known));
    }
    let entries = cx.run(source.tables(cx, &name.schema)).await.ok()?;
    let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    Some(missing("table", &name.to_string(), &known))
}

fn missing(what: &str, name: &str, known: &[&str]) -> Error {
    let error = Error::not_found(format!("{what} \"{name}\" does not exist"));
    let last = name.rsplit('.').next().unwrap_or(name);
    match nearest(last, known.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None if known.is_empty() => error.with_hint(format!("there is no {what} here")),
        None => error.with_hint(format!("there are {}", list(known))),
    }
}

/// The tables that one statement names, resolved: the catalog list that its planning sees, and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// By the name as it was written, made full: the true name and the table.
    tables: Arc<BTreeMap<TableName, (TableName, Resolved)>>,
}

impl Tables {
    /// Each table with its true name.
    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &Resolved)> {
        self.tables.values().map(|(name, table)| (name, table))
    }

    /// The table behind a full name as it was written.
    pub fn get(&self, written: &TableName) -> Option<(&TableName, &Resolved)> {
        self.tables.get(written).map(|(name, table)| (name, table))
    }

    /// The same tables as DataFusion looks them up.
    pub fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        let mut catalogs: HashMap<String, Resolution> = HashMap::new();
        for (written, (_, resolved)) in self.tables.iter() {
            let schemas = &mut catalogs.entry(written.catalog.clone()).or_default().schemas;
            let tables = &mut schemas.entry(written.schema.clone()).or_default().tables;
            tables.insert(written.table.clone(), Arc::clone(&resolved.provider));
        }
        let catalogs = catalogs.into_iter().map(|(name, catalog)| (name, Arc::new(catalog))).collect();
        Arc::new(ResolvedCatalogs { catalogs })
    }
}

#[derive(Debug)]
struct ResolvedCatalogs {
    catalogs: HashMap<String, Arc<Resolution>>,
}

impl CatalogProviderList for ResolvedCatalogs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        // A statement cannot add catalogs: the list is what was resolved for it.
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.catalogs.keys().cloned().collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.catalogs.get(name).map(|catalog| Arc::clone(catalog) as _)
    }
}

#[derive(Debug, Default)]
struct Resolution {
    schemas: HashMap<String, ResolvedSchema>,
}

impl CatalogProvider for Resolution {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).map(|schema| Arc::new(schema.clone()) as _)
    }
}

#[derive(Debug, Default, Clone)]
struct ResolvedSchema {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for ResolvedSchema {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.get(name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}
