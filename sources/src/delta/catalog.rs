//! Which tables there are and where each is. What its log says is no matter of catalogs.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use nexus_flight_catalog::Result;
use object_store::path::Path;

use crate::lake::{Folder, Lake};

/// Knows the tables of a location.
#[async_trait]
pub(super) trait Catalog: Debug + Send + Sync {
    /// Whether it answers now. Errors: `Unavailable`, `Unauthenticated`.
    async fn ping(&self) -> Result<()>;

    /// The names of the schemas, sorted.
    async fn schemas(&self) -> Result<Vec<String>>;

    /// The names of the tables of a schema, sorted. Errors: `NotFound` for a schema that is not there.
    async fn tables(&self, schema: &str) -> Result<Vec<String>>;

    /// Where a table is; none where it is not there.
    /// Errors: `Unsupported` for one that is not read, `Denied` for one that is not in the location.
    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>>;

    /// The layout by which tables are found that are written. Errors: `Unsupported` where they are read alone.
    fn written(&self) -> Result<&Folder>;
}

/// A table that a catalog has found.
#[derive(Debug)]
pub(super) struct Found {
    /// Reads its files, and no others.
    pub(super) lake: Arc<Lake>,
    pub(super) folder: Path,
}

#[async_trait]
impl Catalog for Folder {
    async fn ping(&self) -> Result<()> {
        Folder::ping(self).await
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        Folder::schemas(self).await
    }

    async fn tables(&self, schema: &str) -> Result<Vec<String>> {
        Folder::tables(self, schema).await
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let folder = Folder::find(self, schema, table).await?;
        Ok(folder.map(|folder| Found { lake: Arc::clone(&self.lake), folder }))
    }

    fn written(&self) -> Result<&Folder> {
        Ok(self)
    }
}
