//! What tables there are, and which file of metadata tells the state of each now. What such a file says is no matter of catalogs.

mod folder;
mod glue;
mod hive;
mod rest;
mod sql;
mod thrift;
mod token;
mod vended;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use nexus_flight_catalog::{Result, TableEntry};
use object_store::path::Path;

use crate::lake::Lake;

pub(super) use folder::Folder;
pub(super) use glue::Glue;
pub(super) use hive::Hive;
pub(super) use rest::Rest;
pub(super) use sql::Sql;

/// Knows the tables of a warehouse.
#[async_trait]
pub(super) trait Catalog: Debug + Send + Sync {
    /// Whether it answers now. Errors: `Unavailable`, `Unauthenticated`.
    async fn ping(&self) -> Result<()>;

    /// The names of the schemas, sorted.
    async fn schemas(&self) -> Result<Vec<String>>;

    /// The tables of a schema, sorted by name. Errors: `NotFound` for a schema that is not there.
    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>>;

    /// A table as it is now; none where it is not there.
    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>>;
}

/// A table that a catalog has found.
#[derive(Debug)]
pub(super) struct Found {
    /// Reads its files, and no others.
    pub(super) lake: Arc<Lake>,
    pub(super) current: Current,
}

/// The file of metadata that tells the state of a table now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Current {
    pub(super) path: Path,
    /// What tells one state of that file from another. None is written twice, but a table that is made anew may begin with the same name.
    pub(super) state: String,
}
