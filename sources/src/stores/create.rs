//! Files that are put only where none is. Of all who put one of the same name one gets it: what tables are commits by.
//!
//! Answers can be lost, and a request that seemed to fail can arrive when its sender has long looked and gone on. So a file is tried
//! again under its own name alone until it is known whose the name is, and from then on no request that is still on its way can
//! change it: all of them would have to find the name free. Whoever goes on to another name, or removes what the file names, does so
//! after `Taken` or `Failed`, and never after `Unknown`. That holds as long as nobody removes the file that has the name; who does
//! (a table that is dropped) can be followed by a request from before, however unlikely, and then has a file too many.

use std::time::Duration;

use bytes::Bytes;
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::{Path, PathPart};
use object_store::{Error as StoreError, ObjectStoreExt, PutMode};
use uuid::Uuid;

use super::Store;

/// How long is waited, each time, where a store says that a name is taken, and has nothing there: others may be at it.
const WAITS: [Duration; 7] = [
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
    Duration::from_millis(1280),
];

/// What became of a file that was to be put where none is.
#[derive(Debug)]
pub(crate) enum Created {
    /// It is there.
    Made,
    /// Another one is there, and this one will not be.
    Taken,
    /// It is not there, and will not be.
    Failed(Error),
    /// It may be there or come to be.
    Unknown(Error),
}

impl Store {
    /// Puts a file where none is. Its bytes tell it from all others: they hold something that no other file has.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Created {
        if let Err(error) = self.stays_within(path).await {
            return Created::Failed(error);
        }
        match self.heeds_names(path).await {
            Ok(true) => {}
            Ok(false) => return Created::Failed(heedless().at(self.place(path))),
            Err(error) => return Created::Failed(error),
        }
        let mut waits = WAITS.into_iter();
        // Whether a request before the last one may be on its way.
        let mut is_open = false;
        loop {
            let put = self.objects().put_opts(path, bytes.clone().into(), PutMode::Create.into());
            let Err(cause) = put.await else { return Created::Made };
            let is_refused = is_refusal(&cause);
            is_open |= was_sent_again(&cause);
            // A request whose answer is lost is sent again, and finds what it has put there itself.
            let found = self.holds(path, &bytes).await;
            if is_refused
                && matches!(found, Ok(None))
                && let Some(wait) = waits.next()
            {
                tokio::time::sleep(wait).await;
                is_open = true;
                continue;
            }
            let failed = Failed { error: self.write_error(&cause, path), is_refused, is_open, is_local: self.folder.is_some() };
            return failed.became(found);
        }
    }

    /// Whether a file is this one; none where there is none.
    async fn holds(&self, path: &Path, bytes: &Bytes) -> Result<Option<bool>> {
        let read = async {
            let there = self.objects().get(path).await?;
            // Another one may be large, and is not read.
            let is_as_large = there.meta.size == bytes.len() as u64;
            Ok::<bool, StoreError>(is_as_large && there.bytes().await? == *bytes)
        };
        match read.await {
            Ok(is_this) => Ok(Some(is_this)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.error(&cause, path)),
        }
    }

    /// Whether the store refuses a file where there is one, which is tried once, beside what is to be put there.
    async fn heeds_names(&self, path: &Path) -> Result<bool> {
        if self.folder.is_some() {
            return Ok(true);
        }
        self.heeds.get_or_try_init(|| self.probe(path)).await.copied()
    }

    async fn probe(&self, beside: &Path) -> Result<bool> {
        let above = beside.parts().count().saturating_sub(1);
        // Nobody takes it for a file of a table: it begins as what tools keep for themselves.
        let name = format!("_nexus-probe-{}", Uuid::new_v4().simple());
        let path: Path = beside.parts().take(above).chain([PathPart::from(name)]).collect();
        let probed = self.is_refused_twice(&path).await;
        match self.objects().delete(&path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(cause) => {
                let error = self.write_error(&cause, &path);
                tracing::warn!(%error, "a file by which a store was tried could not be removed");
            }
        }
        probed
    }

    async fn is_refused_twice(&self, path: &Path) -> Result<bool> {
        for _ in 0..2 {
            match self.objects().put_opts(path, "probe".into(), PutMode::Create.into()).await {
                Ok(_) => {}
                // The name is new: by the first answer that is one, what was there is of this process.
                Err(cause) if is_refusal(&cause) => return Ok(true),
                Err(cause) => return Err(self.write_error(&cause, path)),
            }
        }
        Ok(false)
    }
}

/// A file that was not put, as far as the answer tells.
struct Failed {
    error: Error,
    /// Whether the store says that the name is taken.
    is_refused: bool,
    /// Whether an earlier request may be on its way.
    is_open: bool,
    is_local: bool,
}

impl Failed {
    /// What became of it, by what was found in its place: whether it is this one, if one is there.
    fn became(self, found: Result<Option<bool>>) -> Created {
        let Self { error, is_refused, is_open, is_local } = self;
        match found {
            // In a folder no answer is lost: the file is there, and may not last.
            Ok(Some(true)) if is_local && !is_refused => Created::Unknown(error),
            Ok(Some(true)) => Created::Made,
            Ok(Some(false)) => Created::Taken,
            Ok(None) if is_local => Created::Failed(error),
            // A store that refuses who asks has done nothing; but the keys may have ended since it was asked before.
            Ok(None) if !is_open && is_denial(&error) => Created::Failed(error),
            Ok(None) => Created::Unknown(error),
            Err(unseen) => Created::Unknown(if is_refused { unseen } else { error }),
        }
    }
}

fn is_denial(error: &Error) -> bool {
    matches!(error.kind(), Kind::Denied | Kind::Unauthenticated | Kind::NotFound)
}

/// Whether a store says that a name is taken.
fn is_refusal(cause: &StoreError) -> bool {
    matches!(cause, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
}

/// Whether an error is of a request that was sent more than once, which its text alone tells (`RetryError` of `object_store`).
fn was_sent_again(cause: &StoreError) -> bool {
    cause.to_string().contains(" retries, max_retries: ")
}

fn heedless() -> Error {
    Error::unsupported("this store puts a file in the place of another where it is asked not to, so commits could be lost")
        .with_hint("tables are only read here; to write, take a store that heeds \"If-None-Match\", as newer versions do")
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use futures::{StreamExt, TryStreamExt};
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, PutResult, Result as StoreResult,
    };

    use super::*;

    /// How a bucket answers when something is put only where nothing is.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Heeds,
        /// It puts it there in any case.
        Heedless,
        /// It says that the name is taken, and has nothing there.
        Refuses,
        /// It puts it there, and says that it has failed.
        Loses,
        /// It does not say what it does.
        Silent,
        /// It refuses whoever asks, after this many earlier requests.
        Denies(usize),
    }

    #[derive(Debug)]
    struct Bucket {
        inner: InMemory,
        /// The last one goes on.
        answers: Mutex<Vec<Answer>>,
        asked: AtomicUsize,
    }

    impl fmt::Display for Bucket {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(self, f)
        }
    }

    fn generic(why: String) -> StoreError {
        StoreError::Generic { store: "a bucket", source: why.into() }
    }

    #[async_trait]
    impl ObjectStore for Bucket {
        async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = {
                let mut answers = self.answers.lock().unwrap();
                if answers.len() > 1 { answers.remove(0) } else { answers[0] }
            };
            match answer {
                Answer::Heeds => self.inner.put_opts(path, payload, options).await,
                Answer::Heedless => self.inner.put_opts(path, payload, PutMode::Overwrite.into()).await,
                Answer::Refuses => Err(StoreError::AlreadyExists { path: path.to_string(), source: "409".into() }),
                Answer::Loses => {
                    self.inner.put_opts(path, payload, options).await?;
                    Err(generic("no answer".into()))
                }
                Answer::Silent => Err(generic("no answer".into())),
                Answer::Denies(before) => {
                    let again = if before > 0 { format!(", after {before} retries, max_retries: 4 ") } else { String::new() };
                    Err(StoreError::PermissionDenied { path: path.to_string(), source: again.into() })
                }
            }
        }

        async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(path, options).await
        }

        async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
            self.inner.get_opts(path, options).await
        }

        fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    /// A store over a bucket that answers so, one after the other, and so on with the last.
    fn store(answers: &[Answer]) -> (Arc<Bucket>, Store) {
        let (inner, asked) = (InMemory::new(), AtomicUsize::new(0));
        let bucket = Arc::new(Bucket { inner, answers: Mutex::new(answers.to_vec()), asked });
        let inner: Arc<dyn ObjectStore> = Arc::clone(&bucket) as _;
        (bucket, Store::over(inner))
    }

    /// The same, where it is known that the bucket heeds names.
    fn known(answers: &[Answer]) -> Store {
        let (_, store) = store(answers);
        store.heeds.set(true).unwrap();
        store
    }

    fn path() -> Path {
        Path::from("t/_delta_log/1.json")
    }

    #[tokio::test]
    async fn a_bucket_that_heeds_no_names_is_not_written_to() {
        let (bucket, careless) = store(&[Answer::Heedless]);
        for _ in 0..2 {
            let Created::Failed(error) = careless.create(&path(), "one".into()).await else { panic!("written") };
            insta::allow_duplicates! {
                insta::assert_snapshot!(error, @r#"s3://b/t/_delta_log/1.json: this store puts a file in the place of another where it is asked not to, so commits could be lost; tables are only read here; to write, take a store that heeds "If-None-Match", as newer versions do"#);
            }
        }
        // It is tried once, and nothing is left of that.
        assert_eq!(bucket.asked.load(Ordering::Relaxed), 2);
        assert_eq!(bucket.list(None).count().await, 0);
        let (bucket, careful) = store(&[Answer::Heeds]);
        assert!(matches!(careful.create(&path(), "one".into()).await, Created::Made));
        assert!(matches!(careful.create(&path(), "two".into()).await, Created::Taken));
        assert_eq!(bucket.asked.load(Ordering::Relaxed), 4);
        let left: Vec<ObjectMeta> = bucket.list(None).try_collect().await.unwrap();
        assert_eq!(left.iter().map(|meta| meta.location.clone()).collect::<Vec<_>>(), [path()]);
        let (_, silent) = store(&[Answer::Silent, Answer::Heeds]);
        assert!(matches!(silent.create(&path(), "one".into()).await, Created::Failed(_)));
        assert!(matches!(silent.create(&path(), "one".into()).await, Created::Made));
    }

    #[tokio::test]
    async fn a_name_is_tried_again_until_it_is_known_whose_it_is() {
        let lost = known(&[Answer::Loses, Answer::Heeds]);
        assert!(matches!(lost.create(&path(), "one".into()).await, Created::Made));
        assert!(matches!(lost.create(&path(), "two".into()).await, Created::Taken));
        assert!(matches!(known(&[Answer::Silent]).create(&path(), "one".into()).await, Created::Unknown(_)));
        // A refusal that nothing explains may be of a request of our own, which is still on its way.
        let refused = known(&[Answer::Refuses, Answer::Heeds]);
        assert!(matches!(refused.create(&path(), "one".into()).await, Created::Made));
        let denied = known(&[Answer::Refuses, Answer::Denies(0)]);
        assert!(matches!(denied.create(&path(), "one".into()).await, Created::Unknown(_)));
    }

    #[tokio::test]
    async fn a_denial_is_believed_of_the_only_request() {
        let denied = async |before| known(&[Answer::Denies(before)]).create(&path(), "one".into()).await;
        assert!(matches!(denied(0).await, Created::Failed(_)));
        assert!(matches!(denied(1).await, Created::Unknown(_)));
        let became = |found, is_refused, is_local| {
            Failed { error: Error::unavailable("the disk failed"), is_refused, is_open: false, is_local }.became(found)
        };
        assert!(matches!(became(Ok(Some(true)), false, true), Created::Unknown(_)));
        assert!(matches!(became(Ok(Some(true)), true, true), Created::Made));
        assert!(matches!(became(Ok(None), false, true), Created::Failed(_)));
        assert!(matches!(became(Ok(None), true, false), Created::Unknown(_)));
    }
}
