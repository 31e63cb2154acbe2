//! The tables that one statement names, as DataFusion looks them up.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DataFusionResult;

use crate::name::TableName;
use crate::source::Resolved;

/// The tables that one statement names, resolved: the catalog list that its planning sees, and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    tables: Arc<BTreeMap<TableName, (TableName, Resolved)>>,
}

impl Tables {
    /// By the name as it was written, made full: the true name and the table.
    pub fn new(tables: BTreeMap<TableName, (TableName, Resolved)>) -> Self {
        Self { tables: Arc::new(tables) }
    }

    /// Each table with its true name.
    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &Resolved)> {
        self.tables.values().map(|(name, table)| (name, table))
    }

    /// The same with the full name as it was written before each.
    pub fn written(&self) -> impl Iterator<Item = (&TableName, &TableName, &Resolved)> {
        self.tables.iter().map(|(written, (name, table))| (written, name, table))
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
