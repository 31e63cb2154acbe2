//! The stores that hold files: a local folder or a bucket; and a view of one that reads only what was listed.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use nexus_flight_catalog::{Error, Kind, Place, Result};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RetryConfig, coalesce_ranges,
};
use secrecy::ExposeSecret;

use super::config::{Access, Location};

/// Requests for ranges this near to each other are made as one.
const COALESCE: u64 = 1024 * 1024;
/// How much of a local file is read at once where all of it is wanted.
const CHUNK: u64 = 1024 * 1024;

/// An opened store whose paths are relative to the configured location.
pub(super) struct Store {
    inner: Arc<dyn ObjectStore>,
    /// What stands before a path when it is shown.
    shown: String,
    /// The folder, with all links resolved, if it is a local one.
    pub(super) folder: Option<PathBuf>,
    catalog: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is beneath holds the credentials and would print them.
        write!(f, "Store({})", self.shown)
    }
}

impl Store {
    /// Opens a location. Errors: `NotFound` for a local folder that is not there.
    pub(super) fn open(catalog: &str, location: &Location) -> Result<Self> {
        let place = |key: &str| Place::Key(format!("catalogs.{catalog}.{key}"));
        match location {
            Location::Folder(folder) => {
                let missing = |cause: &dyn fmt::Display| {
                    Error::not_found(format!("the folder {} cannot be opened: {cause}", folder.display()))
                        .with_hint("create it, or correct the location; it is relative to the configuration file")
                        .at(place("location"))
                };
                let folder = folder.canonicalize().map_err(|cause| missing(&cause))?;
                let local = LocalFileSystem::new_with_prefix(&folder).map_err(|cause| missing(&cause))?;
                // A table that is dropped leaves no folder, which would be taken for one.
                let local = local.with_automatic_cleanup(true);
                let shown = folder.display().to_string();
                Ok(Self { inner: Arc::new(local), shown, folder: Some(folder), catalog: catalog.to_owned() })
            }
            Location::Bucket { bucket, prefix, access } => {
                let s3 = builder(bucket, access).build().map_err(|cause| {
                    Error::invalid(format!("the bucket \"{bucket}\" cannot be set up: {cause}")).at(place("location"))
                })?;
                let shown = if prefix.as_ref().is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
                let inner: Arc<dyn ObjectStore> = match prefix.as_ref() {
                    "" => Arc::new(s3),
                    _ => Arc::new(PrefixStore::new(s3, prefix.clone())),
                };
                Ok(Self { inner, shown, folder: None, catalog: catalog.to_owned() })
            }
        }
    }

    /// The store itself, for listing.
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// A path as the user would look for it.
    pub(super) fn show(&self, path: &Path) -> String {
        if path.as_ref().is_empty() { self.shown.clone() } else { format!("{}/{path}", self.shown) }
    }

    /// The place of a file in an error.
    pub(super) fn place(&self, path: &Path) -> Place {
        Place::File { path: self.show(path), line: None }
    }

    /// When the entries of a local folder last changed; nothing of a bucket, which is listed as it is at one moment.
    pub(super) fn changed(&self, folder: &Path) -> Option<SystemTime> {
        let folder = self.folder.as_ref()?.join(folder.as_ref());
        std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()
    }

    /// Whether nothing is there any more, not even a link.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.join(path.as_ref()).symlink_metadata().is_err())
    }

    /// Errors: `Denied` where a folder, there or to be made, is behind a link that leads out of the location.
    pub(super) async fn stays_within(&self, folder: &Path) -> Result<()> {
        let Some(root) = self.folder.clone() else { return Ok(()) };
        let mut wanted = root.join(folder.as_ref());
        let stays = tokio::task::spawn_blocking(move || {
            // What is not there yet is made in the nearest folder that is.
            while wanted.symlink_metadata().is_err() && wanted.pop() {}
            wanted.canonicalize().is_ok_and(|real| real.starts_with(&root))
        });
        if stays.await.map_err(|cause| Error::internal("a task of this statement ended early").caused_by(cause))? {
            return Ok(());
        }
        Err(Error::denied("this is a link that leads out of the location, or to nothing")
            .with_hint("remove the link")
            .at(self.place(folder)))
    }

    /// An error of listing in our words: what is not there then is the bucket or the folder.
    pub(super) fn list_error(&self, cause: &object_store::Error, path: &Path) -> Error {
        match cause {
            object_store::Error::NotFound { .. } if self.folder.is_none() => no_bucket().at(self.place(path)),
            object_store::Error::NotFound { .. } => Error::not_found("the folder does not exist").at(self.place(path)),
            other => self.error(other, path),
        }
    }

    /// An error of reading in our words, about a path that was listed. It never holds a credential.
    pub(super) fn error(&self, cause: &object_store::Error, path: &Path) -> Error {
        self.failure(cause, path, "read")
    }

    /// An error of writing in our words.
    pub(super) fn write_error(&self, cause: &object_store::Error, path: &Path) -> Error {
        self.failure(cause, path, "written")
    }

    fn failure(&self, cause: &object_store::Error, path: &Path, done: &str) -> Error {
        let text = cause.to_string();
        let unknown_key = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "NotSignedUp"];
        let rejected = unknown_key.iter().any(|code| text.contains(code));
        let keys = format!("check access_key_id, secret_access_key and session_token of the catalog \"{}\"", self.catalog);
        let error = match cause {
            object_store::Error::Unauthenticated { .. } => {
                Error::unauthenticated("the store refuses the credentials").with_hint(keys)
            }
            _ if rejected => Error::unauthenticated("the store refuses the credentials").with_hint(keys),
            _ if text.contains("NoSuchBucket") => no_bucket(),
            object_store::Error::PermissionDenied { .. } if self.folder.is_none() => {
                Error::denied("the store does not allow this to the credentials").with_hint(keys)
            }
            object_store::Error::PermissionDenied { .. } => Error::denied(format!("by this process it may not be {done}")),
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => changed(),
            object_store::Error::InvalidPath { source } => {
                Error::data(format!("the name of a file here is no path: {source}")).with_hint("rename the file")
            }
            object_store::Error::Generic { source, .. } if beyond(source.as_ref()) => Error::data(source.to_string()),
            object_store::Error::Generic { source, .. } if is_too_long(source.as_ref()) => too_long(),
            // Only what was listed is asked for: the object has become shorter.
            _ if text.contains("InvalidRange") => changed(),
            _ => Error::unavailable(format!("the store cannot be {done}: {}", first_line(&text))),
        };
        error.at(self.place(path))
    }
}

/// Whether a file named bytes that it does not have.
fn beyond(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidData)
}

/// Whether the file system does not take a path.
fn is_too_long(cause: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
    causes.any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidFilename)
    })
}

/// What is said of such a path: it does not become shorter.
pub(super) fn too_long() -> Error {
    Error::invalid("the file system takes no name as long as this").with_hint("take a shorter one")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn no_bucket() -> Error {
    Error::not_found("the bucket does not exist").with_hint("check the location of the catalog, and the endpoint and region")
}

/// A statement reads the files that were there when it began, or it fails.
fn changed() -> Error {
    Error::new(Kind::Precondition, "the file has changed or gone since the statement began")
        .with_hint("run the statement again")
        .with_retryable(true)
}

fn builder(bucket: &str, access: &Access) -> AmazonS3Builder {
    // Without keys here, they come from where the tools of AWS look: the environment, the container, the machine.
    let mut builder = match &access.access_key_id {
        Some(_) => AmazonS3Builder::new(),
        None => AmazonS3Builder::from_env(),
    };
    let retry = RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    builder = builder.with_bucket_name(bucket).with_retry(retry).with_allow_http(access.allow_http);
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &access.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &access.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &access.secret_access_key {
        builder = builder.with_secret_access_key(secret.expose_secret());
    }
    if let Some(token) = &access.session_token {
        builder = builder.with_token(token.expose_secret());
    }
    builder
}

/// A read-only view of the files of one listing: each is read as it was listed, or not at all.
pub(super) struct PinnedStore {
    store: Arc<Store>,
    files: HashMap<Path, ObjectMeta>,
}

impl PinnedStore {
    pub(super) fn new(store: Arc<Store>, files: impl IntoIterator<Item = ObjectMeta>) -> Self {
        Self { store, files: files.into_iter().map(|file| (file.location.clone(), file)).collect() }
    }

    fn listed(&self, path: &Path) -> object_store::Result<&ObjectMeta> {
        self.files.get(path).ok_or_else(|| refused(path, "it was not listed"))
    }

    /// Opens a file if it is still the one that was listed.
    async fn open(&self, file: &ObjectMeta, mut options: GetOptions) -> object_store::Result<GetResult> {
        options.if_match = file.e_tag.clone();
        let opened = self.store.inner.get_opts(&file.location, options).await?;
        // Not every store keeps the condition, or lists etags at all; in a header the time has whole seconds.
        let same = match (&opened.meta.e_tag, &file.e_tag) {
            (Some(now), Some(listed)) => now == listed,
            _ => opened.meta.last_modified.timestamp() == file.last_modified.timestamp(),
        };
        if opened.meta.size != file.size || !same {
            return Err(refused(&file.location, "its size, time or etag differs"));
        }
        Ok(opened)
    }
}

fn refused(path: &Path, why: &str) -> object_store::Error {
    object_store::Error::Precondition { path: path.to_string(), source: why.into() }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let file = self.listed(location)?;
        let mut opened = self.open(file, options).await?;
        opened.payload = match opened.payload {
            // A local file can change while it is open, so its end is checked too.
            GetResultPayload::File(local, _) => GetResultPayload::Stream(chunks(local, opened.range.clone(), file.clone())),
            remote => remote,
        };
        Ok(opened)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let file = self.listed(location)?;
        if self.store.folder.is_none() {
            let fetch = |range: Range<u64>| async move {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                self.open(file, options).await?.bytes().await
            };
            return coalesce_ranges(ranges, fetch, COALESCE).await;
        }
        match self.open(file, GetOptions::default()).await?.payload {
            GetResultPayload::File(local, _) => {
                let (file, ranges) = (file.clone(), ranges.to_vec());
                blocking(move || {
                    let read = ranges.into_iter().map(|range| read_at(&local, range, &file)).collect::<Result<_, _>>()?;
                    unchanged(&local, &file)?;
                    Ok(read)
                })
                .await
            }
            GetResultPayload::Stream(_) => Err(refused(location, "it is no local file")),
        }
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        stream::iter(self.files.values().cloned().map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> object_store::Result<ListResult> {
        Err(read_only("list_with_delimiter"))
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(read_only("put"))
    }

    fn delete_stream(&self, _: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        stream::once(async { Err(read_only("delete")) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        Err(read_only("copy"))
    }
}

impl fmt::Debug for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedStore({} files of {})", self.files.len(), self.store.shown)
    }
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn read_only(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: "a read-only view".to_owned() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> object_store::Result<T> + Send + 'static) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// A range of a local file in pieces; the last comes only if the file is still the one that was listed.
fn chunks(local: std::fs::File, range: Range<u64>, file: ObjectMeta) -> BoxStream<'static, object_store::Result<Bytes>> {
    let state = (Arc::new(local), range, Arc::new(file));
    stream::try_unfold(state, |(local, rest, file)| {
        async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let end = rest.end.min(rest.start + CHUNK);
            let (piece, last) = (rest.start..end, end == rest.end);
            let (source, listed) = (Arc::clone(&local), Arc::clone(&file));
            let bytes = blocking(move || {
                let bytes = read_at(&source, piece, &listed)?;
                if last {
                    unchanged(&source, &listed)?;
                }
                Ok(bytes)
            })
            .await?;
            Ok(Some((bytes, (local, end..rest.end, file))))
        }
        .boxed()
    })
    .into_stream()
    .boxed()
}

/// The bytes of a range that lies within the listed size, so that no foreign number decides how much is allocated.
fn read_at(local: &std::fs::File, range: Range<u64>, file: &ObjectMeta) -> object_store::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    if range.start > range.end || range.end > file.size {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file points beyond its end")));
    }
    let mut bytes = vec![0; (range.end - range.start) as usize];
    match local.read_exact_at(&mut bytes, range.start) {
        Ok(()) => Ok(bytes.into()),
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => Err(refused(&file.location, "it is shorter now")),
        Err(cause) => Err(failed(cause)),
    }
}

fn unchanged(local: &std::fs::File, file: &ObjectMeta) -> object_store::Result<()> {
    let now = local.metadata().map_err(failed)?;
    let listed = SystemTime::from(file.last_modified);
    if now.len() != file.size || now.modified().map_err(failed)? != listed {
        return Err(refused(&file.location, "it was written to"));
    }
    Ok(())
}

fn failed(cause: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "local folder", source: Box::new(cause) }
}
