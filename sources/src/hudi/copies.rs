//! What the crate of the format reads of a table in a bucket: copies in a temporary folder, made through the store of the catalog.
//!
//! The crate opens a store of its own by an address, which nobody can give it. By that of a bucket it would take the variables
//! `AWS_…` and `HOODIE_ENV_…` of the gateway's environment, also an endpoint (`AWS_ENDPOINT_URL`) where another is configured, and
//! try again for minutes. So it is never told of a bucket, and what it reads came by the keys, the retries and the bounds of all else.

use std::path::PathBuf;

use bytes::Bytes;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use tempfile::TempDir;
use url::Url;

use super::HOODIE;
use super::timeline::Timeline;
use crate::lake::Lake;
use crate::stores::ended_early;

/// The most bytes of what tells of a table.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A folder of copies, which goes when this does.
#[derive(Debug)]
pub(super) struct Copies(TempDir);

impl Copies {
    /// One without any. Errors: `Unavailable` where no folder can be made.
    pub(super) async fn new() -> Result<Self> {
        let made = tokio::task::spawn_blocking(|| tempfile::Builder::new().prefix("nexus-hudi-").tempdir());
        made.await.map_err(ended_early)?.map(Self).map_err(not_written)
    }

    /// What tells of a table: its properties, the names of its instants, and what the newest commit says, by which the crate finds
    /// the columns. Errors: those of reading them, and `Unavailable`.
    pub(super) async fn of_table(lake: &Lake, table: &Path, timeline: &Timeline) -> Result<Self> {
        let copies = Self::new().await?;
        let properties = table.clone().join(HOODIE).join("hoodie.properties");
        copies.write(&within(&properties, table)?, lake.read(&properties, LARGEST).await?).await?;
        let newest = timeline.commits().next_back().map(|commit| timeline.file(commit));
        for path in timeline.instants().map(|instant| timeline.file(instant)) {
            let bytes = if newest.as_ref() == Some(&path) { lake.read(&path, LARGEST).await? } else { Bytes::new() };
            copies.write(&within(&path, table)?, bytes).await?;
        }
        Ok(copies)
    }

    /// Where the crate finds them. Errors: `Internal`.
    pub(super) fn address(&self) -> Result<Url> {
        Url::from_directory_path(self.0.path()).map_err(|()| Error::internal("the folder for copies has no address"))
    }

    /// Writes a file with this path in the table. Errors: `Unavailable` where it cannot be.
    pub(super) async fn write(&self, within: &Path, bytes: Bytes) -> Result<()> {
        let path: PathBuf = self.0.path().join(within.as_ref());
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, bytes)
        });
        written.await.map_err(ended_early)?.map_err(not_written)
    }
}

/// The path in a table of what is in its folder.
fn within(path: &Path, table: &Path) -> Result<Path> {
    let parts = path.prefix_match(table).ok_or_else(|| Error::internal("a file of a table is not in its folder"))?;
    Ok(parts.collect())
}

fn not_written(cause: std::io::Error) -> Error {
    Error::unavailable(format!("files that are to be merged cannot be copied from the bucket to the disk: {cause}"))
        .with_hint("let the gateway write to its temporary folder (TMPDIR), and make room there")
        .caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::super::properties::Properties;
    use super::super::properties::tests::properties;
    use super::*;
    use crate::stores::{Location, Store};

    #[tokio::test]
    async fn a_table_is_copied_without_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let told = properties("MERGE_ON_READ", 6);
        let files = [
            ("hoodie.properties", told.as_str()),
            ("20240101000000000.deltacommit", "{\"old\":1}"),
            ("20240102000000000.deltacommit", "{\"new\":1}"),
            ("20240103000000000.deltacommit.requested", ""),
        ];
        std::fs::create_dir_all(folder.path().join("a/t/.hoodie")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("a/t/.hoodie").join(name), text).unwrap();
        }
        let location = Location::Folder(folder.path().to_owned());
        let lake = Lake::new(std::sync::Arc::new(Store::open("lake", &location).unwrap()), &location);
        let table = Path::from("a/t");
        let timeline = Timeline::read(&lake, &table, &Properties::parse(&told).unwrap()).await.unwrap();
        let copies = Copies::of_table(&lake, &table, &timeline).await.unwrap();
        let at = copies.address().unwrap().to_file_path().unwrap();
        let text = |name: &str| std::fs::read_to_string(at.join(".hoodie").join(name)).unwrap();
        assert_eq!(text("hoodie.properties"), told);
        assert_eq!([files[1].0, files[2].0, files[3].0].map(text), ["", "{\"new\":1}", ""]);
        copies.write(&Path::parse("p=1/名.parquet").unwrap(), Bytes::from_static(b"rows")).await.unwrap();
        assert_eq!(std::fs::read(at.join("p=1/名.parquet")).unwrap(), b"rows");
        drop(copies);
        assert!(!at.exists());
    }
}
