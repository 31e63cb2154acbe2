//! A view of a store for the kernel, which reads whatever is in a log: it follows no link out of the location, and gives no more than there
//! is room for.

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use memchr::memchr2;
use nexus_flight_catalog::Error;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::engine::RESTORE;
use crate::lake::{Lake, Taken};

/// The most bytes of a file of a log, and of a part of a checkpoint that is read at once.
pub(super) const LARGEST: u64 = 512 * 1024 * 1024;
/// How many rows of a log are decoded at once.
pub(super) const ROWS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(999);

/// How deep values may be within each other: what is wrong with one is told by recursion.
const DEEPEST: usize = 128;
/// What each byte of JSON takes in memory while it is decoded: of a text with its copies, and of all else but spaces, where one byte may be
/// a value. An object may become a structure of many parts.
const TEXT: u64 = 4;
const VALUE: u64 = 48;
const OBJECT: u64 = 640;

/// A store that is read, and gets small files, only within its location. What is behind a link that leads out of it fails as
/// [`crate::stores::Store::stays_within`] says, and what is too large as [`Lake::check_size`] does.
#[derive(Debug, Clone)]
pub(super) struct Within {
    lake: Arc<Lake>,
    /// What was read of whole files, of which much is kept until all are read.
    read: Arc<Mutex<Taken>>,
}

impl Within {
    /// For one piece of work.
    pub(super) fn new(lake: Arc<Lake>) -> Self {
        let read = Arc::new(Mutex::new(lake.room.taken()));
        Self { lake, read }
    }

    async fn check(&self, path: &Path) -> Result<()> {
        self.lake.store.stays_within(path).await.map_err(failed)
    }

    /// A whole file, of which nothing is read before it is wanted: others are opened meanwhile. No more is read of it than it had then.
    fn whole(&self, path: &Path, opened: GetResult) -> GetResult {
        let (meta, range, attributes) = (opened.meta.clone(), opened.range.clone(), opened.attributes.clone());
        let (view, path) = (self.clone(), path.clone());
        let read = move |(opened, mut room): (Option<GetResult>, Taken)| {
            let (view, path) = (view.clone(), path.clone());
            async move {
                let Some(opened) = opened else { return Ok(None) };
                let bytes = view.read(&path, opened, &mut room).await?;
                // Until more is wanted, which is when all is decoded.
                Ok::<_, object_store::Error>(Some((bytes, (None, room))))
            }
        };
        let bytes = stream::try_unfold((Some(opened), self.lake.room.taken()), read);
        GetResult { payload: GetResultPayload::Stream(bytes.fuse().boxed()), meta, range, attributes }
    }

    async fn read(&self, path: &Path, opened: GetResult, room: &mut Taken) -> Result<Bytes> {
        let placed = |error: Error| failed(error.at(self.lake.store.place(path)));
        let size = length(&opened.range);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).grow(size).map_err(placed)?;
        let bytes = opened.bytes().await?;
        let weight = weight(&bytes).ok_or_else(|| placed(Error::data("this is nested too deeply").with_hint(RESTORE)))?;
        room.grow(weight).map_err(placed)?;
        Ok(bytes)
    }
}

/// An error of ours as one of a store.
pub(super) fn failed(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: "a log", source: Box::new(error) }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// No less than what JSON takes while it is decoded, so many rows at once; none where it is nested too deeply. Commas may be missing.
pub(super) fn weight(json: &[u8]) -> Option<u64> {
    let (mut most, mut weight, mut rows, mut depth) = (0_u64, 0_u64, 0_usize, 0_usize);
    let (mut in_text, mut is_escaped) = (false, false);
    let mut rest = json;
    loop {
        if in_text && !is_escaped {
            let ends = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            weight += TEXT * ends as u64;
            rest = rest.get(ends..).unwrap_or_default();
        }
        let Some((byte, behind)) = rest.split_first() else { return Some(most.max(weight)) };
        rest = behind;
        weight += match byte {
            _ if in_text => TEXT,
            b' ' | b'\n' | b'\r' | b'\t' => 1,
            b'{' => OBJECT,
            _ => VALUE,
        };
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > DEEPEST {
                    return None;
                }
            }
            b'}' | b']' if !in_text => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    rows += 1;
                }
                if rows == ROWS.get() {
                    most = most.max(weight);
                    (weight, rows) = (0, 0);
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn refused(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: "a view of a log".to_owned() }
}

#[async_trait]
impl ObjectStore for Within {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location).await?;
        let (is_head, is_part) = (options.head, options.range.is_some());
        let opened = self.lake.store.objects().get_opts(location, options).await?;
        if is_head {
            return Ok(opened);
        }
        self.lake.check_size(location, length(&opened.range), LARGEST).map_err(failed)?;
        Ok(if is_part { opened } else { self.whole(location, opened) })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location).await?;
        let all = ranges.iter().map(length).fold(0, u64::saturating_add);
        self.lake.check_size(location, all, LARGEST).map_err(failed)?;
        self.lake.store.objects().get_ranges(location, ranges).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lake.store.objects().list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lake.store.objects().list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.lake.store.objects().list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check(location).await?;
        self.lake.store.objects().put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(refused("put in parts"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(refused("delete")) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(refused("copy"))
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::lake::Room;
    use crate::stores::{Location, Store};

    /// A view of a folder whose catalog has so much room.
    fn view(folder: &tempfile::TempDir, room: u64) -> Within {
        let location = Location::Folder(folder.path().to_owned());
        let mut lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        lake.room = Room::of(room);
        Within::new(Arc::new(lake))
    }

    async fn read(view: &Within, path: &Path) -> Result<Bytes> {
        view.get(path).await?.bytes().await
    }

    fn ours(error: object_store::Error) -> Error {
        match error {
            object_store::Error::Generic { source, .. } => source.downcast_ref::<Error>().unwrap().copied(),
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let (view, path) = (view(&folder, 1000), Path::from("a.json"));
        // It takes no place where it has only zeros.
        std::fs::File::create(folder.path().join("a.json")).unwrap().set_len(LARGEST + 1).unwrap();
        let parts = [0..LARGEST, LARGEST..LARGEST + 1];
        for refused in [read(&view, &path).await.map(drop), view.get_ranges(&path, &parts).await.map(drop)] {
            let error = ours(refused.unwrap_err());
            assert_eq!(error.kind(), Kind::Data);
            assert!(error.place().unwrap().to_string().ends_with("/a.json"), "{error}");
            assert_eq!(error.message(), "this has 536870913 bytes to be read at once, and metadata has 536870912 at most");
        }
        assert_eq!(view.head(&path).await.unwrap().size, LARGEST + 1);
        assert_eq!(view.get_range(&path, 5..7).await.unwrap().to_vec(), [0, 0]);
    }

    #[tokio::test]
    async fn what_is_read_is_taken_of_the_room_until_the_work_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (view, path) = (view(&folder, 1900), Path::from("a.json"));
        std::fs::write(folder.path().join("a.json"), [b' '; 600]).unwrap();
        // Each time 600 bytes for good, and 600 more while they are decoded.
        for _ in 0..2 {
            assert_eq!(read(&view, &path).await.unwrap().len(), 600);
        }
        let opened = view.get(&path).await.unwrap();
        assert_eq!(ours(opened.bytes().await.unwrap_err()).kind(), Kind::Exhausted);
        let lake = Arc::clone(&view.lake);
        drop(view);
        lake.room.taken().grow(1900).unwrap();
    }

    #[test]
    fn rows_weigh_as_many_as_are_decoded_at_once() {
        let row = r#"{"a":"b}\"{"}"#;
        let one = weight(row.as_bytes()).unwrap();
        // Two texts begin, and between them and behind is one byte each.
        assert_eq!(one, OBJECT + 4 * VALUE + 8 * TEXT);
        let all = weight(row.repeat(ROWS.get()).as_bytes()).unwrap();
        assert_eq!((all, weight(row.repeat(5 * ROWS.get()).as_bytes()).unwrap()), (one * 1000, all));
        // Without commas too.
        assert!(weight(b"[1 1 1 1 1 1]").unwrap() > 6 * VALUE);
    }

    #[test]
    fn what_is_nested_too_deeply_is_told() {
        let nested = |depth: usize| format!("{}{}", "[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2));
        assert!(weight(nested(DEEPEST).as_bytes()).is_some());
        assert!(weight(nested(DEEPEST + 2).as_bytes()).is_none());
        assert!(weight(format!("[\"{}\"]", "[".repeat(1000)).as_bytes()).is_some());
    }
}
