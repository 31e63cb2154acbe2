//! Changes that concern several files, made one.
//!
//! Who makes a table, replaces its rows or drops it first puts a claim into its folder, `_nexus.json`, which only one can at a
//! time. It names the file that stands for the change and the files that go with it. Once the one is there the others are read
//! no more, though they are removed one by one; before, they are all that is read. So there is no moment between, and
//! whoever stops half way leaves what the next one can tell and finish.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::format::Format;
use crate::stores::{Created, Store};

/// The file's name.
const NAME: &str = "_nexus.json";
/// The most bytes of a claim: that many name all files that a table can have.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// How long removing the replaced files may take before it is left to the next one.
const CLEANUP: Duration = Duration::from_secs(30);
/// After this time the one whose change is made is not there any more, and another may finish for it.
const LEFT: Duration = Duration::from_secs(60);
/// After this time a change that is not made will not be.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How long a statement waits for another.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What the file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claim {
    /// The file that stands for the change, in the same folder.
    by: String,
    /// The paths of the files that it takes the place of, below the location.
    replaces: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    at: u64,
}

impl Claim {
    /// The files that it takes the place of: those of its folder, and no others.
    fn files(&self, folder: &Path) -> impl Iterator<Item = Path> {
        let parsed = self.replaces.iter().filter_map(|path| Path::parse(path).ok());
        parsed.filter(move |path| path.prefix_matches(folder) && path != folder)
    }

    fn age(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.at))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn place(folder: &Path) -> Path {
    folder.clone().join(NAME)
}

/// What a drop puts into the folder begins so.
const DROPPED: &str = "_nexus-dropped-";

/// A new name for a file of rows.
pub(super) fn file_name() -> String {
    format!("{}.{}", Uuid::now_v7().simple(), Format::Parquet.name())
}

/// A new name for the file that stands for a drop.
pub(super) fn drop_name() -> String {
    format!("{DROPPED}{}", Uuid::now_v7().simple())
}

/// Whether a file was named by [`file_name`].
pub(super) fn is_ours(path: &Path) -> bool {
    let stem = path.filename().and_then(|name| name.strip_suffix(".parquet"));
    stem.is_some_and(|stem| stem.len() == 32 && Uuid::try_parse(stem).is_ok())
}

/// Whether a file is one of those that tell which others count.
pub(super) fn is_mark(path: &Path) -> bool {
    path.filename().is_some_and(|name| name == NAME || name.starts_with(DROPPED))
}

/// The claim of a folder, if there is one, for a listing that does not find it.
pub(super) async fn of(store: &Store, folder: &Path) -> Result<Option<Path>> {
    let path = place(folder);
    Ok(exists(store, &path).await?.then_some(path))
}

/// What claims say of a listing.
pub(super) enum Replaced {
    /// These files do not count any more.
    Files(HashSet<Path>),
    /// It is of no one moment.
    Changing,
}

/// The files among those listed that a change has taken the place of and that are still to be removed.
pub(super) async fn replaced(store: &Store, marks: &[ObjectMeta], files: &[ObjectMeta]) -> Result<Replaced> {
    let mut gone = HashSet::new();
    for mark in marks.iter().filter(|mark| mark.location.filename() == Some(NAME)) {
        let folder = parent(&mark.location);
        let Some(claim) = read(store, &folder).await? else { return Ok(Replaced::Changing) };
        let by = folder.clone().join(claim.by.as_str());
        if files.iter().chain(marks).any(|file| file.location == by) {
            gone.extend(claim.files(&folder));
        } else if exists(store, &by).await? {
            return Ok(Replaced::Changing);
        }
    }
    Ok(Replaced::Files(gone))
}

fn parent(path: &Path) -> Path {
    path.as_ref().rsplit_once('/').map_or_else(Path::default, |(folder, _)| Path::parse(folder).unwrap_or_default())
}

async fn exists(store: &Store, path: &Path) -> Result<bool> {
    match store.objects().head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(cause) => Err(store.error(&cause, path)),
    }
}

/// The claim of a folder, if there is one. Errors: `Data` for a file that is none.
async fn read(store: &Store, folder: &Path) -> Result<Option<Claim>> {
    let path = place(folder);
    let found = match store.objects().get(&path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => return Err(store.error(&cause, &path)),
    };
    let no_claim = |why: String| {
        Error::data(format!("this file tells which files of the table count, and cannot be read: {why}"))
            .with_hint("remove it once you know that the other files are the table")
            .at(store.place(&path))
    };
    if found.meta.size > MOST_BYTES {
        return Err(no_claim(format!("it has {} bytes", found.meta.size)));
    }
    let bytes = match found.bytes().await {
        Ok(bytes) => bytes,
        // Removed since it was opened.
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => return Err(store.error(&cause, &path)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|cause| no_claim(cause.to_string()))
}

/// A claim that this statement has.
pub(super) struct Held {
    store: Arc<Store>,
    folder: Path,
    claim: Claim,
    /// Whether the change may have been made, so that the claim has to stay.
    decided: bool,
}

impl Held {
    /// Waits until no other statement changes the table, and claims it. Errors: `Precondition` where one does for too long.
    pub(super) async fn take(store: &Arc<Store>, folder: &Path, by: &str) -> Result<Self> {
        let path = place(folder);
        let claim = Claim { by: by.to_owned(), replaces: Vec::new(), at: now() };
        let began = tokio::time::Instant::now();
        while began.elapsed() < PATIENCE {
            match store.create(&path, encoded(&claim)?.into()).await {
                Created::Made => {
                    let held = Self { store: Arc::clone(store), folder: folder.clone(), claim, decided: false };
                    return Ok(held);
                }
                Created::Taken => {}
                // One that arrives late is of nobody, and is forgotten.
                Created::Failed(error) | Created::Unknown(error) => return Err(error),
            }
            if let Some(other) = read(store, folder).await? {
                let made = exists(store, &folder.clone().join(other.by.as_str())).await?;
                let abandoned = Self { store: Arc::clone(store), folder: folder.clone(), claim: other, decided: true };
                match abandoned.claim.age() {
                    age if made && age > LEFT => abandoned.cleaned().await?,
                    age if !made && age > FORGOTTEN => remove(store, &path).await?,
                    _ => tokio::time::sleep(PAUSE).await,
                }
            }
        }
        Err(Error::precondition("another statement is changing this table")
            .with_hint("send the statement again when it has ended")
            .with_retryable(true)
            .at(store.place(folder)))
    }

    /// Says which files go with the change.
    pub(super) async fn replaces(&mut self, files: impl Iterator<Item = Path>) -> Result<()> {
        self.claim.replaces = files.map(String::from).collect();
        let path = place(&self.folder);
        let put = self.store.objects().put(&path, encoded(&self.claim)?.into()).await;
        put.map(|_| ()).map_err(|cause| self.store.write_error(&cause, &path))
    }

    /// Whether from here on the change may have been made: then the claim stays, whatever becomes of the statement.
    pub(super) fn decide(&mut self, decided: bool) {
        self.decided = decided;
    }

    /// The change is made: removes what it has replaced. What cannot be removed now is read no more, and the next statement
    /// that changes the table removes it.
    pub(super) async fn finish(mut self) {
        self.decided = true;
        let cleaned = tokio::time::timeout(CLEANUP, self.cleaned()).await;
        let failed = match cleaned {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::warn!(folder = self.store.show(&self.folder), failed, "files that were replaced could not be removed yet");
    }

    async fn cleaned(&self) -> Result<()> {
        for path in self.claim.files(&self.folder) {
            // Whoever can write a claim here must not have anything removed elsewhere.
            self.store.stays_within(&path).await?;
            remove(&self.store, &path).await?;
        }
        if self.claim.by.starts_with('_') {
            remove(&self.store, &self.folder.clone().join(self.claim.by.as_str())).await?;
        }
        remove(&self.store, &place(&self.folder)).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.decided, tokio::runtime::Handle::try_current()) {
            let (store, path) = (Arc::clone(&self.store), place(&self.folder));
            runtime.spawn(async move {
                if let Err(error) = remove(&store, &path).await {
                    tracing::warn!(%error, "the claim of a statement that failed could not be removed");
                }
            });
        }
    }
}

fn encoded(claim: &Claim) -> Result<Vec<u8>> {
    serde_json::to_vec(claim).map_err(|cause| Error::internal("a claim could not be written").caused_by(cause))
}

/// Removes a file, if it is there.
async fn remove(store: &Store, path: &Path) -> Result<()> {
    match store.objects().delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(cause) => Err(store.write_error(&cause, path)),
    }
}
