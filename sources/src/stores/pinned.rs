//! A view of a store that reads only the files that a statement was told of.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use nexus_flight_catalog::Result;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, coalesce_ranges,
};
use ring::digest::{SHA256, digest};

use super::store::Store;

/// Requests for ranges this near to each other are made as one.
const COALESCE: u64 = 1024 * 1024;
/// A file of nothing takes no room on a disk, and may be of any length. Of a part that is longer than this it is asked whether there
/// is memory, since the process would end where there is none; one that is as long as that is in no file of rows.
const LONG: usize = 256 * 1024 * 1024;
const LONGEST: usize = 4 * 1024 * 1024 * 1024;
/// How much of a local file is read at once where all of it is wanted.
const CHUNK: u64 = 1024 * 1024;

/// A read-only view of some files: each is read as it is known, or not at all.
pub(crate) struct PinnedStore {
    store: Arc<Store>,
    files: HashMap<Path, Pinned>,
}

/// What is known of a file.
#[derive(Clone)]
struct Pinned {
    meta: ObjectMeta,
    /// Whether more than its size is known: its time, and its etag where the store has one.
    has_state: bool,
    /// Else what the first answer of the store tells, which all others have to tell too.
    seen: OnceLock<Seen>,
}

/// What a store tells of a file with its bytes: another file of the same size has another.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    modified: DateTime<Utc>,
    e_tag: Option<String>,
}

impl Seen {
    fn of(meta: &ObjectMeta) -> Self {
        Self { modified: meta.last_modified, e_tag: meta.e_tag.clone() }
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.e_tag, &other.e_tag) {
            (Some(own), Some(other)) => own == other,
            _ => self.modified == other.modified,
        }
    }
}

impl Pinned {
    fn new(meta: ObjectMeta, has_state: bool) -> Self {
        Self { meta, has_state, seen: OnceLock::new() }
    }

    /// Errors: `Precondition` where something else was seen of the file before.
    fn see(&self, now: Seen) -> object_store::Result<()> {
        match self.seen.get_or_init(|| now.clone()).is(&now) {
            true => Ok(()),
            false => Err(refused(&self.meta.location, "it was replaced")),
        }
    }
}

impl PinnedStore {
    /// Of the files of a listing, as they were listed.
    pub(crate) fn new(store: Arc<Store>, files: impl IntoIterator<Item = ObjectMeta>) -> Self {
        let pinned = |meta: ObjectMeta| (meta.location.clone(), Pinned::new(meta, true));
        Self { store, files: files.into_iter().map(pinned).collect() }
    }

    /// Of files that are written once, and known by their sizes.
    pub(crate) fn immutable(store: Arc<Store>, files: impl IntoIterator<Item = (Path, u64)>) -> Self {
        let pinned = |(path, size): (Path, u64)| (path.clone(), Pinned::new(immutable(path, size), false));
        Self { store, files: files.into_iter().map(pinned).collect() }
    }

    /// What was seen of a file that is known by its size; none where nothing was read of it.
    pub(super) fn seen(&self, path: &Path) -> Option<Seen> {
        self.files.get(path)?.seen.get().cloned()
    }

    /// The file has to be the one of which this was seen. Errors: `Precondition` where another was read already.
    pub(super) fn expect(&self, path: &Path, seen: Seen) -> object_store::Result<()> {
        self.listed(path)?.see(seen)
    }

    fn listed(&self, path: &Path) -> object_store::Result<&Pinned> {
        self.files.get(path).ok_or_else(|| refused(path, "it was not listed"))
    }

    /// Opens a file if it is still the one that is known.
    async fn open(&self, pinned: &Pinned, mut options: GetOptions) -> object_store::Result<GetResult> {
        let Pinned { meta: file, has_state, .. } = pinned;
        options.if_match = file.e_tag.clone();
        let opened = self.store.inner.get_opts(&file.location, options).await?;
        // Not every store keeps the condition, or lists etags at all; in a header the time has whole seconds.
        let same = match (&opened.meta.e_tag, &file.e_tag) {
            (Some(now), Some(listed)) => now == listed,
            _ => !has_state || opened.meta.last_modified.timestamp() == file.last_modified.timestamp(),
        };
        if opened.meta.size != file.size {
            return Err(refused(&file.location, "its size differs"));
        }
        if !same {
            return Err(refused(&file.location, "its time or etag differs"));
        }
        if !has_state {
            pinned.see(Seen::of(&opened.meta))?;
        }
        Ok(opened)
    }
}

/// Under which the session of a statement knows the files that a text stands for; no other text has the same.
pub(crate) fn session_url(text: &str) -> Result<ObjectStoreUrl> {
    Ok(ObjectStoreUrl::parse(format!("nexus-files://{}", hex(text, 16)))?)
}

/// Letters that stand for a text: two for each of so many bytes of its digest.
pub(crate) fn hex(text: &str, bytes: usize) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// The listing of a file of which no more is known.
pub(crate) fn immutable(location: Path, size: u64) -> ObjectMeta {
    ObjectMeta { location, last_modified: DateTime::UNIX_EPOCH, size, e_tag: None, version: None }
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
        stream::iter(self.files.values().map(|file| Ok(file.meta.clone())).collect::<Vec<_>>()).boxed()
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
fn chunks(local: std::fs::File, range: Range<u64>, file: Pinned) -> BoxStream<'static, object_store::Result<Bytes>> {
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
fn read_at(local: &std::fs::File, range: Range<u64>, file: &Pinned) -> object_store::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    if range.start > range.end || range.end > file.meta.size {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file points beyond its end")));
    }
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    if length > LONG && (length > LONGEST || Vec::<u8>::new().try_reserve_exact(length).is_err()) {
        let why = "a part of the file is too long to be read at once";
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
    }
    let mut bytes = vec![0; length];
    match local.read_exact_at(&mut bytes, range.start) {
        Ok(()) => Ok(bytes.into()),
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => Err(refused(&file.meta.location, "it is shorter now")),
        Err(cause) => Err(failed(cause)),
    }
}

fn unchanged(local: &std::fs::File, file: &Pinned) -> object_store::Result<()> {
    let now = local.metadata().map_err(failed)?;
    let listed = SystemTime::from(file.meta.last_modified);
    if now.len() != file.meta.size || file.has_state && now.modified().map_err(failed)? != listed {
        return Err(refused(&file.meta.location, "it was written to"));
    }
    Ok(())
}

fn failed(cause: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "local folder", source: Box::new(cause) }
}
