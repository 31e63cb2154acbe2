//! The files of one catalog of lake tables: what is read of them besides the rows of statements.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::error::DataFusionError;
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::kept::Kept;
use super::name::is_name;
use super::room::{Room, Taken};
use crate::stores::{Footers, Locate, Location, PinnedStore, Store, cause, immutable, look_at_footer, told};

/// How many pieces of work that hold a thread each are done at once for one catalog.
const THREADS: usize = 16;

/// The store of a catalog, with what was read of its files already. All its tables share one.
pub(crate) struct Lake {
    pub(crate) store: Arc<Store>,
    pub(super) footers: Footers,
    pub(super) kept: Arc<Kept>,
    /// Of the catalog, for work that holds one of the process while it waits for the store.
    pub(crate) threads: Arc<Semaphore>,
    /// Of the catalog, for what tells of its tables.
    pub(crate) room: Room,
    /// How the metadata of tables begins the address of what is in the store, without a slash at the end.
    roots: Vec<String>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lake({:?})", self.store)
    }
}

impl Lake {
    /// Over a store that was opened at this location.
    pub(crate) fn new(store: Arc<Store>, location: &Location) -> Self {
        let mut roots = Vec::new();
        match location {
            Location::Folder(folder) => {
                let real = store.folder.as_deref();
                for folder in [Some(folder.as_path()), real].into_iter().flatten() {
                    let folder = folder.display().to_string();
                    let folder = folder.trim_end_matches('/');
                    roots.extend(["file://", "file:", ""].map(|scheme| format!("{scheme}{folder}")));
                }
            }
            Location::Bucket { bucket, prefix, .. } => {
                let slash = if prefix.as_ref().is_empty() { "" } else { "/" };
                // Of one store, in the words of the tools that write to it.
                roots.extend(["s3", "s3a", "s3n"].map(|scheme| format!("{scheme}://{bucket}{slash}{prefix}")));
            }
        }
        let (kept, threads) = (Arc::new(Kept::new()), Arc::new(Semaphore::new(THREADS)));
        Self { store, footers: Footers::new(), kept, threads, room: Room::new(), roots }
    }

    /// The same files behind another store of the same location. What is read of them is kept for those alone who read with its keys,
    /// of whom there is one name.
    pub(crate) fn through(&self, store: Arc<Store>, name: &str) -> Self {
        let of: Arc<str> = Arc::from(name);
        Self {
            store,
            footers: self.footers.under(&of),
            kept: Arc::new(self.kept.under(&of)),
            threads: Arc::clone(&self.threads),
            room: self.room.clone(),
            roots: self.roots.clone(),
        }
    }

    /// The path in the store of what the metadata of a table names by an address. Errors: `Denied` for what is not in the store.
    pub(crate) fn inside(&self, address: &str) -> Result<Path> {
        let rest = self.roots.iter().find_map(|root| address.strip_prefix(root.as_str())?.strip_prefix('/'));
        // Several slashes are one in a folder, and other names in a bucket.
        let path = rest.and_then(|rest| match self.store.folder {
            Some(_) => Path::parse(rest.split('/').filter(|part| !part.is_empty()).collect::<Vec<&str>>().join("/")).ok(),
            None => Path::parse(rest.trim_end_matches('/')).ok(),
        });
        path.ok_or_else(|| {
            // What follows a question mark may sign for who reads it.
            let address = address.split('?').next().unwrap_or_default();
            Error::denied(format!("the table names {address}, which is not within {}", self.store.show(&Path::default())))
                .with_hint("a table cannot be moved away from its files; set the location to a folder that holds both")
        })
    }

    /// The folder of a table or a schema in another by its name, there or not; none for a name that nothing has, or by which the other
    /// does not list what it has. Errors: those of listing it.
    pub(crate) async fn child(&self, folder: &Path, name: &str) -> Result<Option<Path>> {
        let Some(name) = Path::parse(name).ok().filter(|_| is_name(name)) else { return Ok(None) };
        let child: Path = folder.parts().chain(name.parts()).collect();
        Ok(if self.store.is_misnamed(&child).await? { None } else { Some(child) })
    }

    /// What is in a file of metadata of so many bytes at most, which are taken of the room for as long as that is held.
    /// Errors: `Data` where it is not there, or larger; `Exhausted`.
    pub(crate) async fn read_in(&self, path: &Path, most: u64, room: &mut Taken) -> Result<Bytes> {
        self.store.stays_within(path).await?;
        let opened = self.store.objects().get(path).await.map_err(|cause| self.failure(&cause, path))?;
        self.check_size(path, opened.meta.size, most)?;
        room.grow(opened.meta.size).map_err(|error| error.at(self.store.place(path)))?;
        opened.bytes().await.map_err(|cause| self.failure(&cause, path))
    }

    /// The same, whose bytes are taken of the room while they are read alone. Errors: as of [`Self::read_in`].
    #[cfg(feature = "hudi")]
    pub(crate) async fn read(&self, path: &Path, most: u64) -> Result<Bytes> {
        self.read_in(path, most, &mut self.room.taken()).await
    }

    /// Errors: `Data` where more bytes of a file of metadata would be read at once than there may be.
    pub(crate) fn check_size(&self, path: &Path, bytes: u64, most: u64) -> Result<()> {
        if bytes <= most {
            return Ok(());
        }
        let error = Error::data(format!("this has {bytes} bytes to be read at once, and metadata has {most} at most"));
        Err(error.with_hint("restore the file, or let old snapshots of the table expire").at(self.store.place(path)))
    }

    /// Looks at the footer of a Parquet file of this size, as it is now, that somebody else decodes. Errors: `Data` where it says what cannot be, by
    /// which a decoder may take all memory, or where the file is another.
    pub(crate) async fn check_footer(&self, path: &Path, size: u64) -> Result<()> {
        self.store.stays_within(path).await?;
        let pinned = Arc::new(PinnedStore::immutable(Arc::clone(&self.store), [(path.clone(), size)]));
        let looked = look_at_footer(&pinned, &immutable(path.clone(), size)).await;
        looked.map_err(|error| self.located(error.into(), path))
    }

    /// An error of reading the rows of a file that metadata names, with the file as its place.
    pub(crate) fn located(&self, error: DataFusionError, path: &Path) -> Error {
        match cause::<object_store::Error>(&error) {
            Some(cause) => self.failure(cause, path),
            None => self.store.locate(error, path),
        }
    }

    /// An error of reading a file that metadata names, in our words: `Data` where it is not there, or not the one that is meant.
    pub(crate) fn failure(&self, cause: &object_store::Error, path: &Path) -> Error {
        let message = match cause {
            object_store::Error::NotFound { .. } => "the table's metadata names this file, and it is not there".to_owned(),
            object_store::Error::Precondition { source, .. } => {
                format!("this is not the file that the table's metadata names: {}", told(&source.to_string()))
            }
            other => return self.store.error(other, path),
        };
        Error::data(message).with_hint(GONE).at(self.store.place(path))
    }
}

/// What is advised where a file is missing.
pub(super) const GONE: &str = "it was removed by hand, or its snapshot has expired; run the statement again, or restore the file";

#[cfg(test)]
mod tests {
    use super::super::positions::tests::lake;
    use super::*;
    use crate::stores::Access;

    #[test]
    fn nothing_is_named_that_is_elsewhere() {
        let access = Access {
            endpoint: None,
            region: Some("r".to_owned()),
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
        };
        let location = Location::Bucket { bucket: "b".to_owned(), prefix: Path::from("lake/one"), access };
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        for address in ["s3://b/lake/one/t/a.avro", "s3a://b/lake/one/t/a.avro", "s3n://b/lake/one/t/a.avro/"] {
            assert_eq!(lake.inside(address).unwrap(), Path::from("t/a.avro"), "{address}");
        }
        for address in [
            "s3://other/lake/one/t/a.avro",
            "s3://b/lake/one2/t/a.avro",
            "s3://b/lake/one/../two/a.avro",
            "s3://b@other/lake/one/a.avro",
            "S3://b/lake/one/a.avro",
            "s3://b/lake//one/a.avro",
            "https://b/lake/one/a.avro?X-Amz-Signature=hidden",
            "file:///lake/one/a.avro",
            "/lake/one/a.avro",
            "t/a.avro",
            "",
        ] {
            let error = lake.inside(address).unwrap_err();
            assert_eq!(error.kind(), nexus_flight_catalog::Kind::Denied, "{address}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn several_slashes_are_one_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, root) = (lake(&folder), folder.path().display().to_string());
        for address in [format!("{root}/t/a.avro"), format!("file:{root}//t///a.avro"), format!("file://{root}/t//a.avro/")] {
            assert_eq!(lake.inside(&address).unwrap(), Path::from("t/a.avro"), "{address}");
        }
        for address in [format!("{root}//../t"), format!("{root}t/a.avro")] {
            assert!(lake.inside(&address).is_err(), "{address}");
        }
    }
}
