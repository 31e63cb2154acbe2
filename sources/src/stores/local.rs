//! A local folder in which nothing is opened that is no file: to open a pipe is to wait for whoever writes to it, perhaps for ever. What
//! is put there lasts.

use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::lasting::{self, NAME};

/// A folder, as a store.
#[derive(Debug)]
pub(super) struct LocalFolder(pub(super) LocalFileSystem);

impl LocalFolder {
    /// Errors: where something is there that is neither a file nor a folder. Of folders the store itself says that they are none.
    async fn opens(&self, location: &Path) -> Result<()> {
        let path = self.0.path_to_filesystem(location)?;
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await?;
        if found.is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let name = location.filename().unwrap_or_default();
            let why = IoError::new(ErrorKind::InvalidData, format!("\"{name}\" is a pipe or a device, and no file"));
            return Err(Error::Generic { store: NAME, source: Box::new(why) });
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for LocalFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => lasting::put(self.0.path_to_filesystem(location)?, payload, false).await,
            PutMode::Overwrite => lasting::put(self.0.path_to_filesystem(location)?, payload, true).await,
            PutMode::Update(_) => self.0.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(lasting::Parts::begin(self.0.path_to_filesystem(location)?).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.opens(location).await?;
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.opens(location).await?;
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

impl fmt::Display for LocalFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
        std::fs::write(folder.path().join("file"), "rows").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let store = LocalFolder(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let pipe = Path::from("pipe");
        let some = 0..1;
        let refused = [
            store.head(&pipe).await.unwrap_err(),
            store.get_range(&pipe, 0..1).await.unwrap_err(),
            store.get_ranges(&pipe, std::slice::from_ref(&some)).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.to_string(), "Generic local folder error: \"pipe\" is a pipe or a device, and no file");
        }
        assert_eq!(store.get(&Path::from("file")).await.unwrap().bytes().await.unwrap(), "rows");
        for absent in ["folder", "nothing"] {
            assert!(matches!(store.head(&Path::from(absent)).await, Err(Error::NotFound { .. })), "{absent}");
        }
    }
}
