//! The kernel that knows Delta's log, over the folder of one table and on the runtime that calls it.

use std::error::Error as StdError;
use std::num::NonZero;
use std::sync::Arc;

use arrow::array::{Array, StringArray, StructArray};
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt};
use delta_kernel::history_manager::error::LogHistoryError;
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    DeltaResult, DeltaResultIterator, DeltaResultIteratorStatic, Engine, EngineData, EvaluationHandler,
    FileDataReadResultIterator, FileMeta, FileSize, FilteredEngineData, JsonHandler, ParquetFooter, ParquetHandler, PredicateRef,
    StorageHandler,
};
use delta_kernel_default_engine::executor::TaskExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Kind, Place, Result};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::Semaphore;
use url::Url;

use super::log::log_of;
use super::within::{ROWS, Within, failed, weight};
use crate::lake::Lake;
use crate::stores::{Upload, ended_early};

/// What the kernel takes for the address of every table: its store begins at the table's folder, so whatever that is called is never
/// written as part of an address. Of what this scheme names the kernel knows that listings come in no order.
pub(super) const ROOT: &str = "file:///";

/// How many files of a log are read ahead.
const AHEAD: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(15);
/// How many pieces of work the kernel does at once for all catalogs: each holds a thread, and what it waits for needs another one of the
/// same pool, which has twice as many. Each catalog has a few of them at most.
static AT_ONCE: Semaphore = Semaphore::const_new(256);

/// The longest that is repeated of what the kernel says, in bytes.
const SAID: usize = 500;

/// The kernel, set to one table.
pub(super) struct Kernel {
    engine: Confined,
    lake: Arc<Lake>,
    /// What is read, for errors.
    place: Path,
}

/// Does work with the kernel, which blocks, where that holds up nobody. The kernel's store begins at `root`; errors have `place` as
/// their place. Whoever no longer waits leaves the work to end by itself.
/// Errors: those of the work; `Data` where the kernel panics.
pub(super) async fn blocking<T: Send + 'static>(
    lake: &Arc<Lake>,
    root: &Path,
    place: Path,
    work: impl FnOnce(&Kernel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = PrefixStore::new(Within::new(Arc::clone(lake)), root.clone());
    let runtime = Handle::current();
    let executor = Arc::new(Caller(runtime.clone()));
    let builder = DefaultEngineBuilder::new(Arc::new(store)).with_task_executor(executor);
    let inner = builder.with_buffer_size(AHEAD).with_batch_size(ROWS).build();
    let (parquet, json) = (inner.parquet_handler(), inner.json_handler());
    let files = OwnFiles { parquet, json, lake: Arc::clone(lake), root: root.clone(), runtime };
    let engine = Confined { files: Arc::new(files), inner };
    let shown = lake.store.place(&place);
    let kernel = Kernel { engine, lake: Arc::clone(lake), place };
    let full = |cause| Error::internal("there is no room for the kernel").caused_by(cause);
    // First among those of the same catalog: where its store hangs, no other catalog waits for it.
    let own = Arc::clone(&lake.threads).acquire_owned().await.map_err(full)?;
    let room = AT_ONCE.acquire().await.map_err(full)?;
    let worked = tokio::task::spawn_blocking(move || {
        // Until the work ends, which nobody may wait for any more.
        let _room = (own, room);
        work(&kernel)
    });
    match worked.await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => {
            Err(Error::data("this is not sound: its parts contradict each other").with_hint(RESTORE).at(shown))
        }
        Err(ended) => Err(ended_early(ended)),
    }
}

/// What is advised where a log is damaged.
pub(super) const RESTORE: &str = "restore it, or write the table again";

impl Kernel {
    pub(super) fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    pub(super) fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// What the kernel answers, with its errors in our words.
    pub(super) fn heard<T>(&self, answer: DeltaResult<T>) -> Result<T> {
        answer.map_err(|error| self.explain(error))
    }

    /// An error about what is read: it does not hold what it should.
    pub(super) fn damaged(&self, why: impl Into<String>) -> Error {
        Error::data(why).with_hint(RESTORE).at(self.lake.store.place(&self.place))
    }

    /// An error about a state that is not there, of what is read.
    pub(super) fn absent(&self, what: impl Into<String>) -> Error {
        Error::not_found(what).at(self.lake.store.place(&self.place))
    }

    fn explain(&self, error: delta_kernel::Error) -> Error {
        use delta_kernel::Error as Said;
        let unsupported = |message: String| Error::unsupported(message).at(self.lake.store.place(&self.place));
        match error {
            Said::Backtraced { source, .. } => self.explain(*source),
            Said::ObjectStore(cause) => self.store_error(&cause),
            Said::FileNotFound(path) => self.missing(&path),
            Said::Unsupported(message) => {
                unsupported(format!("the table is of a kind that is not read: {}", self.told(&message)))
            }
            Said::MaxCatalogVersion(_) => {
                unsupported("only the catalog of this table knows its versions (catalogManaged)".to_owned())
            }
            Said::LogHistory(history) => match *history {
                LogHistoryError::Internal { source: Some(source), .. } => self.explain(*source),
                other => self.damaged(format!("this cannot be read: {}", self.told(&other.to_string()))),
            },
            other => match of_store(&other) {
                Some(cause) => self.store_error(cause),
                None => self.unread(&other.to_string()),
            },
        }
    }

    /// What the kernel says of a log that is not sound.
    fn unread(&self, message: &str) -> Error {
        match gap(message) {
            Some((before, after)) => {
                self.damaged(format!("a commit is missing: after that of the version {before} comes that of the version {after}"))
            }
            None => self.damaged(format!("this cannot be read: {}", self.told(message))),
        }
    }

    fn store_error(&self, cause: &object_store::Error) -> Error {
        match cause {
            object_store::Error::NotFound { path, .. } => return self.missing(path),
            object_store::Error::Generic { source, .. } => {
                // A link that leads out of the location tells which file it is.
                if let Some(ours) = source.downcast_ref::<Error>().filter(|error| error.place().is_some()) {
                    return ours.copied();
                }
            }
            _ => {}
        }
        match self.lake.store.error(cause, &self.place) {
            // What is asked for is what a checkpoint says of its parts, or what was listed.
            error if error.kind() == Kind::Precondition => self.damaged("a file of it is shorter than it should be"),
            error => error,
        }
    }

    fn missing(&self, path: &str) -> Error {
        let name = path.rsplit('/').next().unwrap_or(path);
        let hint = "run the statement again if it was cleaned up just now, else restore the file";
        Error::data(format!("the file \"{name}\" is missing")).with_hint(hint).at(self.lake.store.place(&self.place))
    }

    /// The first line of a message, without the address that we made up and what is of use to those alone who know the kernel.
    fn told(&self, message: &str) -> String {
        let line = message.lines().next().unwrap_or_default();
        let line = line.split(LOG_FILE).next().unwrap_or_default();
        shortened(line.replace(ROOT, ""), SAID)
    }
}

/// How the kernel begins to tell all that it knows of a file of a log.
const LOG_FILE: &str = "ParsedLogPath {";

/// The versions on both sides of a gap in a log, where that is what the kernel tells of.
fn gap(message: &str) -> Option<(u64, u64)> {
    let (before, after) = message.split_once("found gap: ")?.1.split_once(" -> ")?;
    let version = |file: &str| file.strip_prefix(LOG_FILE)?.split_once(", version: ")?.1.split(',').next()?.parse::<u64>().ok();
    Some((version(before)?, version(after)?))
}

/// The error of a store that is beneath another.
fn of_store(error: &delta_kernel::Error) -> Option<&object_store::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<object_store::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Runs what the kernel waits for on the runtime that asks it. The kernel itself runs where it may block, so no worker waits.
#[derive(Debug)]
struct Caller(Handle);

impl TaskExecutor for Caller {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        self.0.block_on(task)
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.0.spawn(task));
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, DeltaResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let running = self.0.spawn_blocking(task);
        async move { running.await.map_err(delta_kernel::Error::join_failure) }.boxed()
    }

    fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }
}

/// The kernel's own engine, which reads nothing but what is in its store.
struct Confined {
    inner: DefaultEngine<Caller>,
    files: Arc<OwnFiles>,
}

impl Engine for Confined {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.inner.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.inner.storage_handler()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        Arc::<OwnFiles>::clone(&self.files)
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        Arc::<OwnFiles>::clone(&self.files)
    }
}

/// A checkpoint may name its parts by any address, and the kernel's reader asks other hosts for those that are signed. It also makes room
/// for whatever number it finds in a footer, and tells what is wrong with statistics by recursion. Its writer, for its part, waits for
/// what it writes where nothing may wait.
struct OwnFiles {
    parquet: Arc<dyn ParquetHandler>,
    json: Arc<dyn JsonHandler>,
    lake: Arc<Lake>,
    /// The table's folder.
    root: Path,
    runtime: Handle,
}

impl OwnFiles {
    /// Where a file is that the kernel knows by an address.
    fn path(&self, location: &Url) -> DeltaResult<Path> {
        let within = Path::from_url_path(location.path()).ok().filter(|_| location.as_str().starts_with(ROOT));
        let within = within.ok_or_else(|| delta_kernel::Error::generic(format!("{location} is not within the table")))?;
        Ok(self.root.parts().chain(within.parts()).collect())
    }

    /// Errors: where a file is not within the table, or its footer says what cannot be.
    fn check(&self, files: &[FileMeta]) -> DeltaResult<()> {
        let paths = files.iter().map(|file| Ok((self.path(&file.location)?, file.size)));
        let paths: Vec<(Path, u64)> = paths.collect::<DeltaResult<_>>()?;
        let looks = paths.iter().map(|(path, size)| self.lake.check_footer(path, *size));
        let looked = stream::iter(looks.collect::<Vec<_>>()).buffered(AHEAD.get()).try_collect::<Vec<()>>();
        self.runtime.block_on(looked).map(drop).map_err(|error| delta_kernel::Error::ObjectStore(failed(error)))
    }

    /// What is read of a log. Errors: where the statistics of a file are nested too deeply.
    fn sound(&self, read: FileDataReadResultIterator) -> FileDataReadResultIterator {
        let place = self.lake.store.place(&log_of(&self.root));
        Box::new(read.map(move |batch| sound(batch, &place)))
    }
}

fn sound(batch: DeltaResult<Box<dyn EngineData>>, place: &Place) -> DeltaResult<Box<dyn EngineData>> {
    let batch = batch?.try_into_record_batch()?;
    let added = batch.column_by_name("add").and_then(|added| added.as_any().downcast_ref::<StructArray>());
    let stats = added.and_then(|added| added.column_by_name("stats")?.as_any().downcast_ref::<StringArray>());
    if stats.is_some_and(|stats| stats.iter().flatten().any(|text| weight(text.as_bytes()).is_none())) {
        let error = Error::data("the statistics of a file are nested too deeply").with_hint(RESTORE).at(place.clone());
        return Err(delta_kernel::Error::ObjectStore(failed(error)));
    }
    Ok(Box::new(ArrowEngineData::new(batch)))
}

impl JsonHandler for OwnFiles {
    fn parse_json(&self, texts: Box<dyn EngineData>, schema: SchemaRef) -> DeltaResult<Box<dyn EngineData>> {
        self.json.parse_json(texts, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        Ok(self.sound(self.json.read_json_files(files, physical_schema, predicate)?))
    }

    fn write_json_file(
        &self,
        path: &Url,
        data: DeltaResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> DeltaResult<FileSize> {
        self.json.write_json_file(path, data, overwrite)
    }
}

impl ParquetHandler for OwnFiles {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        self.check(files)?;
        Ok(self.sound(self.parquet.read_parquet_files(files, physical_schema, predicate)?))
    }

    fn write_parquet_file(&self, location: Url, data: DeltaResultIteratorStatic<Box<dyn EngineData>>) -> DeltaResult<()> {
        let said = |error: Error| delta_kernel::Error::generic(error.to_string());
        let path = self.path(&location)?;
        let mut begun: Option<Upload> = None;
        for batch in data {
            let batch = batch.try_into_record_batch()?;
            let mut upload = match begun.take() {
                Some(upload) => upload,
                None => Upload::begin(&self.lake.store, path.clone(), batch.schema()).map_err(said)?,
            };
            self.runtime.block_on(upload.write(&batch)).map_err(said)?;
            begun = Some(upload);
        }
        let upload = begun.ok_or_else(|| delta_kernel::Error::generic(format!("there is nothing to write to {location}")))?;
        self.runtime.block_on(upload.close()).map(|_| ()).map_err(said)
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> DeltaResult<ParquetFooter> {
        self.check(std::slice::from_ref(file))?;
        self.parquet.read_parquet_footer(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path as LocalPath;
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::log::Logs;
    use super::super::within::LARGEST;
    use super::*;
    use crate::stores::{Location, Store};

    /// Puts a commit into the log of the table "t".
    fn commit(folder: &LocalPath, version: u64, actions: &[Value]) {
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        std::fs::create_dir_all(folder.join("t/_delta_log")).unwrap();
        std::fs::write(folder.join(format!("t/_delta_log/{version:020}.json")), lines.join("\n")).unwrap();
    }

    /// Puts a table "t" without files into a folder.
    fn table(folder: &LocalPath) -> Logs {
        let column = json!({ "name": "n", "type": "long", "nullable": true, "metadata": {} });
        let schema = json!({ "type": "struct", "fields": [column] }).to_string();
        let format = json!({ "provider": "parquet", "options": {} });
        let table = json!({ "id": "x", "format": format, "schemaString": schema, "partitionColumns": [], "configuration": {} });
        let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        commit(folder, 0, &[json!({ "protocol": protocol }), json!({ "metaData": table })]);
        let location = Location::Folder(folder.to_owned());
        Logs::new(Arc::new(Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location)))
    }

    /// An action that adds a file with these statistics.
    fn added(stats: &str) -> Value {
        let (path, values) = ("a.parquet", json!({}));
        json!({ "add": { "path": path, "partitionValues": values, "size": 10, "modificationTime": 0, "dataChange": true, "stats": stats } })
    }

    /// The error of reading the table.
    async fn refused(logs: &Logs) -> Error {
        let table = Path::from("t");
        match logs.latest(&table).await {
            Ok(pinned) => logs.read(&pinned).await.err().unwrap(),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn a_file_of_a_log_that_is_too_large_is_refused_by_name() {
        for name in ["_last_checkpoint", "00000000000000000001.json"] {
            let folder = tempfile::tempdir().unwrap();
            let logs = table(folder.path());
            let path = folder.path().join("t/_delta_log").join(name);
            std::fs::write(&path, r#"{"commitInfo":{"operation":""#).unwrap();
            // The rest of it takes no place.
            File::options().write(true).open(&path).unwrap().set_len(12 * 1024 * 1024 * 1024).unwrap();
            let error = refused(&logs).await;
            assert_eq!(error.kind(), Kind::Data, "{error}");
            assert!(error.place().unwrap().to_string().ends_with(&format!("/t/_delta_log/{name}")), "{error}");
            assert_eq!(
                error.message(),
                format!("this has 12884901888 bytes to be read at once, and metadata has {LARGEST} at most")
            );
        }
    }

    #[tokio::test]
    async fn a_sum_of_a_table_that_is_too_large_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let logs = table(folder.path());
        commit(folder.path(), 1, &[added(r#"{"numRecords":3}"#)]);
        let sum = File::create(folder.path().join("t/_delta_log/00000000000000000001.crc")).unwrap();
        sum.set_len(12 * 1024 * 1024 * 1024).unwrap();
        let pinned = logs.latest(&Path::from("t")).await.unwrap();
        assert_eq!(logs.read(&pinned).await.unwrap().files.len(), 1);
    }

    #[tokio::test]
    async fn what_a_log_nests_too_deeply_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let logs = table(folder.path());
        let nested = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        commit(folder.path(), 1, &[added(&nested)]);
        let error = refused(&logs).await;
        assert_eq!(error.message(), "the statistics of a file are nested too deeply", "{error}");
        let path = folder.path().join("t/_delta_log/00000000000000000001.json");
        std::fs::write(path, format!(r#"{{"add":{nested}}}"#)).unwrap();
        let error = refused(&logs).await;
        assert_eq!(error.message(), "this is nested too deeply", "{error}");
        assert!(error.place().unwrap().to_string().ends_with("00000000000000000001.json"), "{error}");
    }

    #[tokio::test]
    async fn a_gap_in_a_log_is_told_by_its_versions() {
        let folder = tempfile::tempdir().unwrap();
        let logs = table(folder.path());
        commit(folder.path(), 4, &[added("{}")]);
        let error = refused(&logs).await;
        insta::assert_snapshot!(error.message(), @"a commit is missing: after that of the version 0 comes that of the version 4");
    }

    #[tokio::test]
    async fn a_catalog_whose_work_hangs_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let lake = || {
            let location = Location::Folder(folder.path().to_owned());
            Arc::new(Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location))
        };
        let (stuck, other) = (lake(), lake());
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let hanging: Vec<_> = (0..100)
            .map(|_| {
                let (stuck, hang) = (Arc::clone(&stuck), Arc::clone(&hang));
                let work = move |_: &Kernel| {
                    let _ = hang.lock().unwrap().recv();
                    Ok(())
                };
                tokio::spawn(async move { blocking(&stuck, &Path::default(), Path::default(), work).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let path = Path::default();
        let done = blocking(&other, &path, Path::default(), |_| Ok(7));
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        drop(release);
        assert_eq!(done.unwrap().unwrap(), 7);
        for work in hanging {
            work.await.unwrap().unwrap();
        }
    }
}
