//! Files of a local folder that outlast a loss of power: a file has its name only once its bytes are on the disk, and whoever has put
//! it there is answered once its name is. The store beneath syncs nothing.

use std::ffi::OsString;
use std::fs::{File, create_dir_all, hard_link, remove_file, rename};
use std::io::{ErrorKind, Result as IoResult, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

/// What the store is called in errors.
pub(super) const NAME: &str = "local folder";

/// A file that has no name yet, or rather one that nothing lists. Dropped, it is removed, unless it was given its name.
#[derive(Debug)]
struct Staged {
    file: Arc<File>,
    /// Where it is for now.
    at: PathBuf,
    /// Where it is to be.
    path: PathBuf,
    /// The nearest folder around it that was there before.
    known: PathBuf,
    has_name: bool,
}

impl Staged {
    fn begin(path: PathBuf) -> IoResult<Self> {
        let above = path.parent().map(FilePath::to_owned).unwrap_or_default();
        let known = above.ancestors().find(|folder| folder.is_dir()).unwrap_or(&above).to_owned();
        let mut number = 1;
        loop {
            // By the names of the store beneath, which leaves them out of its listings.
            let mut at = OsString::from(&path);
            at.push(format!("#{number}"));
            match File::create_new(&at) {
                Ok(file) => return Ok(Self { file: Arc::new(file), at: at.into(), path, known, has_name: false }),
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => number += 1,
                // Whoever removes the last file of a folder removes the folder.
                Err(cause) if cause.kind() == ErrorKind::NotFound => create_dir_all(&above)?,
                Err(cause) => return Err(cause),
            }
        }
    }

    /// Gives it its name, instead of another file or only where there is none. Errors: `AlreadyExists` where there is one.
    fn end(mut self, replaces: bool) -> IoResult<()> {
        self.file.sync_all()?;
        if replaces {
            rename(&self.at, &self.path)?;
        } else {
            hard_link(&self.at, &self.path)?;
            // What is left of it is in nobody's way.
            let _ = remove_file(&self.at);
        }
        self.has_name = true;
        for folder in self.path.ancestors().skip(1) {
            sync_folder(folder)?;
            if folder == self.known {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.has_name {
            let _ = remove_file(&self.at);
        }
    }
}

/// What is in a folder stays there from now on, as far as its file system can say so.
fn sync_folder(folder: &FilePath) -> IoResult<()> {
    match File::open(folder)?.sync_all() {
        Err(cause) if matches!(cause.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Puts a file in its place, instead of another or only where there is none.
/// Errors: `AlreadyExists` where there is one; else the file may be there, and not last.
pub(super) async fn put(path: PathBuf, payload: PutPayload, replaces: bool) -> Result<PutResult> {
    blocking(path.clone(), move || {
        let staged = Staged::begin(path)?;
        let mut file: &File = &staged.file;
        payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
        staged.end(replaces)
    })
    .await?;
    Ok(done())
}

/// A file that comes part by part.
#[derive(Debug)]
pub(super) struct Parts {
    path: PathBuf,
    /// None once it has ended.
    staged: Option<Staged>,
    size: u64,
}

impl Parts {
    pub(super) async fn begin(path: PathBuf) -> Result<Self> {
        let staged = path.clone();
        let staged = blocking(path.clone(), move || Staged::begin(staged)).await?;
        Ok(Self { path, staged: Some(staged), size: 0 })
    }

    fn staged(&mut self) -> Result<Staged> {
        let ended = || Error::Generic { store: NAME, source: "the file has ended".into() };
        self.staged.take().ok_or_else(ended)
    }
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let (path, mut place) = (self.path.clone(), self.size);
        let file = self.staged.as_ref().map(|staged| Arc::clone(&staged.file));
        self.size += payload.content_length() as u64;
        let written = move || -> IoResult<()> {
            let Some(file) = file else { return Err(ErrorKind::BrokenPipe.into()) };
            for bytes in &payload {
                file.write_all_at(bytes, place)?;
                place += bytes.len() as u64;
            }
            Ok(())
        };
        blocking(path, written).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged()?;
        blocking(self.path.clone(), move || staged.end(true)).await?;
        Ok(done())
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged()?;
        blocking(self.path.clone(), move || {
            drop(staged);
            Ok(())
        })
        .await
    }
}

const fn done() -> PutResult {
    PutResult { e_tag: None, version: None }
}

async fn blocking<T: Send + 'static>(path: PathBuf, work: impl FnOnce() -> IoResult<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(|cause| match cause.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.display().to_string(), source: Box::new(cause) },
        _ => Error::Generic { store: NAME, source: Box::new(cause) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &FilePath) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_there_as_a_whole_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let within = folder.path().join("a/b");
        put(within.join("f"), "one".into(), false).await.unwrap();
        assert!(matches!(put(within.join("f"), "two".into(), false).await, Err(Error::AlreadyExists { .. })));
        assert_eq!(std::fs::read_to_string(within.join("f")).unwrap(), "one");
        put(within.join("f"), "three".into(), true).await.unwrap();
        assert_eq!(std::fs::read_to_string(within.join("f")).unwrap(), "three");
        assert_eq!(names(&within), ["f"]);
        assert!(matches!(put(within.join("f/g"), "".into(), false).await, Err(Error::Generic { .. })));

        let mut parts = Parts::begin(within.join("p")).await.unwrap();
        let (first, second) = (parts.put_part("of ".into()), parts.put_part("rows".into()));
        second.await.unwrap();
        first.await.unwrap();
        assert!(!within.join("p").exists());
        parts.complete().await.unwrap();
        assert_eq!(std::fs::read_to_string(within.join("p")).unwrap(), "of rows");
        assert!(parts.put_part("more".into()).await.is_err() && parts.complete().await.is_err());
        let mut left = Parts::begin(within.join("q")).await.unwrap();
        left.abort().await.unwrap();
        drop(Parts::begin(within.join("q")).await.unwrap());
        assert_eq!(names(&within), ["f", "p"]);
    }

    #[test]
    fn folders_that_are_made_for_a_file_last_too() {
        let folder = tempfile::tempdir().unwrap();
        let staged = |name: &str| Staged::begin(folder.path().join(name)).unwrap();
        let (first, second) = (staged("a/b/f"), staged("a/c/f"));
        assert_eq!((first.known.as_path(), second.known.as_path()), (folder.path(), folder.path().join("a").as_path()));
    }
}
