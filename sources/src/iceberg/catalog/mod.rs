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
use nexus_flight_catalog::{Error, Result, TableEntry};
use object_store::path::Path;
use uuid::Uuid;

use super::append::Change;
use super::table::Table;
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

    /// Whether a state of a table can be made the next one. Errors: `Unsupported` with the reason.
    fn check_commit(&self, _found: &Found, _table: &Table) -> Result<()> {
        Ok(())
    }

    /// Makes a changed table the one of now, if it is still as it was found. Errors: where nothing was changed.
    async fn commit(&self, schema: &str, table: &str, found: &Found, change: &Change) -> Result<Outcome>;
}

/// What came of a commit.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// Another has changed the table meanwhile.
    Conflict,
    /// It may be done, or may be yet, or not.
    Unknown(Error),
}

/// The address of the file of metadata after another, in this folder, as Iceberg calls them where a catalog knows which one counts.
fn successor(folder: &str, before: &str) -> String {
    let name = before.rsplit_once('/').map_or(before, |(_, name)| name);
    let number = name.split_once('-').and_then(|(number, _)| number.parse::<u32>().ok());
    let number = number.map_or(0, |number| number.saturating_add(1));
    format!("{folder}/{number:05}-{}.metadata.json", Uuid::new_v4())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_metadata_are_numbered() {
        let before = "s3://b/t/old/00009-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json";
        let after = successor("s3://b/t/metadata", before);
        assert!(after.starts_with("s3://b/t/metadata/00010-") && after.ends_with(".metadata.json"), "{after}");
        assert!(successor("m", "v3.metadata.json").starts_with("m/00000-"));
    }
}
