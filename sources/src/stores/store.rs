//! The stores that hold files: a local folder or a bucket.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nexus_flight_catalog::{Error, Kind, Place, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::credentials::of_keys;
use super::direct::Direct;
use super::local::LocalFolder;
use super::location::{Access, Location};
use super::tasks::ended_early;

/// How long it may take until there is a connection to a bucket, and an answer: as the crate has it of itself.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// The letters of the longest code that is told.
const LONGEST_CODE: usize = 64;

/// An opened store whose paths are relative to the configured location.
pub(crate) struct Store {
    pub(super) inner: Arc<dyn ObjectStore>,
    /// What stands before a path when it is shown.
    pub(super) shown: String,
    /// The folder, with all links resolved, if it is a local one.
    pub(crate) folder: Option<PathBuf>,
    /// What to do where the store refuses the keys.
    keys: String,
    /// Whether it refuses a file where there is one, once that is known.
    pub(super) heeds: OnceCell<bool>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is beneath holds the credentials and would print them.
        write!(f, "Store({})", self.shown)
    }
}

impl Store {
    /// Opens a location. Errors: `NotFound` for a local folder that is not there.
    pub(crate) fn open(catalog: &str, location: &Location) -> Result<Self> {
        Self::opened(catalog, location, None)
    }

    /// The same, where somebody gives the keys of a bucket anew as often as they are needed. Keys that are configured are not used.
    pub(crate) fn with_credentials(catalog: &str, location: &Location, keys: AwsCredentialProvider) -> Result<Self> {
        Self::opened(catalog, location, Some(keys))
    }

    fn opened(catalog: &str, location: &Location, given: Option<AwsCredentialProvider>) -> Result<Self> {
        let keys = match given {
            Some(_) => format!("the keys are given by the catalog server of \"{catalog}\"; check what it lets the gateway read"),
            None => format!("check access_key_id, secret_access_key and session_token of the catalog \"{catalog}\""),
        };
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
                Ok(Self { inner: Arc::new(LocalFolder(local)), shown, folder: Some(folder), keys, heeds: OnceCell::new() })
            }
            Location::Bucket { bucket, prefix, access } => {
                let s3 = builder(bucket, access, given).build().map_err(|cause| {
                    Error::invalid(format!("the bucket \"{bucket}\" cannot be set up: {cause}")).at(place("location"))
                })?;
                let shown = if prefix.as_ref().is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
                let inner: Arc<dyn ObjectStore> = match prefix.as_ref() {
                    "" => Arc::new(s3),
                    _ => Arc::new(PrefixStore::new(s3, prefix.clone())),
                };
                Ok(Self { inner, shown, folder: None, keys, heeds: OnceCell::new() })
            }
        }
    }

    /// Over what answers as a bucket does.
    #[cfg(test)]
    pub(super) fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, shown: "s3://b".to_owned(), folder: None, keys: String::new(), heeds: OnceCell::new() }
    }

    /// The store itself, for listing.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// A path as the user would look for it.
    pub(crate) fn show(&self, path: &Path) -> String {
        if path.as_ref().is_empty() { self.shown.clone() } else { format!("{}/{path}", self.shown) }
    }

    /// The place of a file in an error.
    pub(crate) fn place(&self, path: &Path) -> Place {
        Place::File { path: self.show(path), line: None }
    }

    /// When the entries of a local folder last changed; nothing of a bucket, which is listed as it is at one moment.
    pub(crate) fn changed(&self, folder: &Path) -> Option<SystemTime> {
        let folder = self.folder.as_ref()?.join(folder.as_ref());
        std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()
    }

    /// Whether nothing is there any more, not even a link.
    pub(crate) fn is_gone(&self, path: &Path) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.join(path.as_ref()).symlink_metadata().is_err())
    }

    /// Whether what a local folder has at a path is listed by another name there: some file systems heed no case, or write a letter in
    /// their own way. Access rules are about names as they are listed. What is in a bucket has one name.
    /// Errors: `Unavailable` where what is around it cannot be listed.
    pub(crate) async fn is_misnamed(&self, path: &Path) -> Result<bool> {
        let Some(root) = &self.folder else { return Ok(false) };
        let wanted = root.join(path.as_ref());
        let looked = tokio::task::spawn_blocking(move || {
            let is_there = || wanted.symlink_metadata().is_ok();
            let (Some(above), Some(name)) = (wanted.parent(), wanted.file_name()) else { return Ok(false) };
            if !is_there() {
                return Ok(false);
            }
            for entry in std::fs::read_dir(above)? {
                if entry?.file_name() == name {
                    return Ok(false);
                }
            }
            // What has gone meanwhile has no name.
            Ok::<_, std::io::Error>(is_there())
        });
        looked.await.map_err(ended_early)?.map_err(|cause| {
            Error::unavailable(format!("the folder cannot be listed: {cause}")).at(self.place(path)).caused_by(cause)
        })
    }

    /// Errors: `Denied` where a folder, there or to be made, is behind a link that leads out of the location.
    pub(crate) async fn stays_within(&self, folder: &Path) -> Result<()> {
        let Some(root) = self.folder.clone() else { return Ok(()) };
        let mut wanted = root.join(folder.as_ref());
        let stays = tokio::task::spawn_blocking(move || {
            loop {
                // What is not there yet is made in the nearest folder that is.
                while wanted.symlink_metadata().is_err() && wanted.pop() {}
                match wanted.canonicalize() {
                    Ok(real) => break real.starts_with(&root),
                    // It was removed since it was seen.
                    Err(_) if wanted.symlink_metadata().is_err() && wanted.pop() => {}
                    Err(_) => break false,
                }
            }
        });
        if stays.await.map_err(ended_early)? {
            return Ok(());
        }
        Err(Error::denied("this is a link that leads out of the location, or to nothing")
            .with_hint("remove the link")
            .at(self.place(folder)))
    }

    /// An error of listing in our words: what is not there then is the bucket or the folder.
    pub(crate) fn list_error(&self, cause: &object_store::Error, path: &Path) -> Error {
        match cause {
            object_store::Error::NotFound { .. } if self.folder.is_none() => no_bucket().at(self.place(path)),
            object_store::Error::NotFound { .. } => Error::not_found("the folder does not exist").at(self.place(path)),
            other => self.error(other, path),
        }
    }

    /// An error of reading in our words, about a path that was listed. It never holds a credential.
    pub(crate) fn error(&self, cause: &object_store::Error, path: &Path) -> Error {
        self.failure(cause, path, "read")
    }

    /// An error of writing in our words.
    pub(crate) fn write_error(&self, cause: &object_store::Error, path: &Path) -> Error {
        self.failure(cause, path, "written")
    }

    fn failure(&self, cause: &object_store::Error, path: &Path, done: &str) -> Error {
        if let Some(error) = of_keys(cause) {
            return error.copied().at(self.place(path));
        }
        let text = cause.to_string();
        let unknown_key = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "NotSignedUp"];
        let rejected = unknown_key.iter().any(|code| text.contains(code));
        let error = match cause {
            object_store::Error::Unauthenticated { .. } => {
                Error::unauthenticated("the store refuses the credentials").with_hint(&self.keys)
            }
            _ if rejected => Error::unauthenticated("the store refuses the credentials").with_hint(&self.keys),
            _ if text.contains("NoSuchBucket") => no_bucket(),
            object_store::Error::PermissionDenied { .. } if self.folder.is_none() => {
                Error::denied("the store does not allow this to the credentials").with_hint(&self.keys)
            }
            object_store::Error::PermissionDenied { .. } => Error::denied(format!("by this process it may not be {done}")),
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => changed(),
            object_store::Error::InvalidPath { source } => {
                Error::data(format!("the name of a file here is no path: {source}")).with_hint("rename the file")
            }
            object_store::Error::Generic { source, .. } if is_unsound(source.as_ref()) => {
                Error::data(source.to_string()).with_hint("write the file again, or remove it")
            }
            object_store::Error::Generic { source, .. } if is_too_long(source.as_ref()) => too_long(),
            // Only what was listed is asked for: the object has become shorter.
            _ if ["InvalidRange", "range was invalid"].iter().any(|said| text.contains(said)) => changed(),
            _ => Error::unavailable(format!("the store cannot be {done}: {}", told(&text))),
        };
        error.at(self.place(path))
    }
}

/// Whether a file named bytes that it does not have, or is none.
fn is_unsound(cause: &(dyn std::error::Error + 'static)) -> bool {
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
pub(crate) fn too_long() -> Error {
    Error::invalid("the file system takes no name as long as this").with_hint("take a shorter one")
}

/// What is told of the words of a cause: the first line, without what a server says in its own words, which may repeat the keys that it
/// was asked with. Of those the code is told.
pub(crate) fn told(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let code = code(text).map(|code| format!(" ({code})")).unwrap_or_default();
    if let Some((before, answer)) = line.split_once("Server returned non-2xx status code: ") {
        let status = answer.split(':').next().unwrap_or_default();
        return format!("{before}the server answers {status}{code}");
    }
    for quotes in ["Server returned error response: ", "Got invalid "] {
        if let Some((before, _)) = line.split_once(quotes) {
            return format!("{before}the server gives an answer that is none{code}");
        }
    }
    line.to_owned()
}

/// The code of an error in an answer of S3: a word.
fn code(text: &str) -> Option<&str> {
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    let is_word = (1..=LONGEST_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then_some(code)
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

/// What gives the keys of a bucket as they hold at each time, and its region where one is known; for what else they are good for.
/// Errors: where they cannot be set up.
pub(crate) fn credentials(bucket: &str, access: &Access) -> Result<(AwsCredentialProvider, Option<String>), object_store::Error> {
    let builder = builder(bucket, access, None);
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    Ok((Arc::clone(builder.build()?.credentials()), region))
}

fn builder(bucket: &str, access: &Access, given: Option<AwsCredentialProvider>) -> AmazonS3Builder {
    let allow_http = access.allow_http;
    let direct = Direct { allow_http, connected_within: CONNECTED_WITHIN, answered_within: ANSWERED_WITHIN };
    // Without keys here, they come from where the tools of AWS look: the environment, the container, the machine. What the
    // environment says of connections counts then too.
    let mut builder = match (given, &access.access_key_id) {
        (Some(given), _) => AmazonS3Builder::new().with_credentials(given).with_http_connector(direct),
        (None, Some(_)) => AmazonS3Builder::new().with_http_connector(direct),
        (None, None) => AmazonS3Builder::from_env(),
    };
    let retry = RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    builder = builder.with_bucket_name(bucket).with_retry(retry).with_allow_http(allow_http);
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

#[cfg(test)]
mod words {
    use super::told;

    #[test]
    fn what_a_server_says_is_not_repeated() {
        let asked = "Generic S3 error: Error performing GET http://h/b/k in 1s - ";
        let refusal = "Server returned non-2xx status code: 500 Internal Server Error: <Error><Code>SlowDown</Code>hunter2";
        insta::assert_snapshot!(told(&format!("{asked}{refusal}</Error>")), @"Generic S3 error: Error performing GET http://h/b/k in 1s - the server answers 500 Internal Server Error (SlowDown)");
        let other = "Server returned non-2xx status code: 400 Bad Request: hunter2\n<Code>hunter2</Code>";
        insta::assert_snapshot!(told(&format!("{asked}{other}")), @"Generic S3 error: Error performing GET http://h/b/k in 1s - the server answers 400 Bad Request");
        insta::assert_snapshot!(told("Generic S3 error: Got invalid list response: invalid type \"hunter2\""), @"Generic S3 error: the server gives an answer that is none");
        assert_eq!(told("it broke off\nhunter2"), "it broke off");
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A folder that has more than it lists, as one that heeds no case: threads are in it by their numbers, and processes alone are
    /// listed. Gives the number of this process, and that of a thread, which is there as long as the sender.
    pub(crate) fn heedless() -> (Location, String, String, mpsc::Sender<()>) {
        let (told, tells) = mpsc::channel();
        let (stays, ends) = mpsc::channel();
        std::thread::spawn(move || {
            told.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            ends.recv().unwrap_err();
        });
        let thread = tells.recv().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        (Location::Folder("/proc".into()), std::process::id().to_string(), thread, stays)
    }

    #[tokio::test]
    async fn what_is_not_listed_by_its_name_is_misnamed() {
        let (location, process, thread, _stays) = heedless();
        let store = Store::open("lake", &location).unwrap();
        let is_misnamed = async |name: &str| store.is_misnamed(&Path::from(name)).await.unwrap();
        assert!(is_misnamed(&thread).await);
        assert!(!is_misnamed(&process).await);
        assert!(!is_misnamed("nothing").await);
    }
}
