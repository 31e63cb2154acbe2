//! What a table is called.

use std::fmt;

use datafusion::common::TableReference;

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
