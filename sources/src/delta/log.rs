//! The versions of tables: which is the latest, which was there at a time, and what each holds.

use std::fmt;
use std::sync::Arc;

use delta_kernel::history_manager::error::LogHistoryError;
use delta_kernel::history_manager::{HistoryCommitType, get_earliest_commit, latest_version_as_of};
use delta_kernel::snapshot::{Snapshot as KernelSnapshot, SnapshotRef};
use nexus_flight_catalog::error::list;
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::commit::now;
use super::deletes::{self, Kept};
use super::engine::{Kernel, RESTORE, ROOT, blocking};
use super::{drops, features, files};
use crate::lake::{Lake, Snapshot};

/// The features of a table that change how it is read, of those that are read here.
const FEATURES: &[&str] = &[
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];
/// Of how many tables the latest version is known.
const TABLES: u64 = 256;
/// How often a log is read that is another at the end than at the beginning.
const TRIES: usize = 3;
/// The memory that lists of files may take.
const KEPT: u64 = 64 * 1024 * 1024;

/// Where the log of a table is, in its folder.
pub(super) const LOG: &str = "_delta_log";

/// The log of a table.
pub(super) fn log_of(table: &Path) -> Path {
    table.clone().join(LOG)
}

/// A table at one version.
pub(super) struct Pinned {
    /// The table's folder.
    pub(super) table: Path,
    pub(super) snapshot: SnapshotRef,
    /// Tells the commit that made this version from any other; none where only a checkpoint is left of it.
    commit: Option<String>,
}

impl Pinned {
    /// What no other state of any table at this place has: of a table that was put back to what it was, or made anew by a copy, the number
    /// of a version comes twice, and its commit does not.
    pub(super) fn version(&self) -> String {
        let id = self.snapshot.table_configuration().metadata().id();
        let commit = self.commit.as_deref().unwrap_or("-");
        format!("{id}:{}:{commit}", self.snapshot.version())
    }
}

/// The logs of a catalog's tables, with what was read of them.
pub(super) struct Logs {
    pub(super) lake: Arc<Lake>,
    /// What the lake reads, where that is one table alone: what was read goes on to read with the lake that it was read with.
    of: String,
    latest: moka::future::Cache<Path, Arc<Pinned>>,
    read: moka::future::Cache<(Path, String), Arc<Snapshot>>,
    vectors: Kept,
    /// By table, who commits to it now.
    turns: moka::future::Cache<Path, Arc<Mutex<()>>>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logs({:?})", self.lake)
    }
}

impl Logs {
    pub(super) fn new(lake: Arc<Lake>) -> Self {
        let weigh = |_: &(Path, String), snapshot: &Arc<Snapshot>| {
            // A file has a path and a name, and each column of it two bounds with their flags.
            let each = 400 + 64 * snapshot.bounds.len();
            u32::try_from(snapshot.files.len().saturating_mul(each)).unwrap_or(u32::MAX)
        };
        let read = moka::future::Cache::builder().max_capacity(KEPT).weigher(weigh).build();
        let (latest, turns) = (moka::future::Cache::new(TABLES), moka::future::Cache::new(TABLES));
        Self { lake, of: String::new(), latest, read, vectors: deletes::kept(), turns }
    }

    /// A turn to commit to a table, until it is dropped. Statements of one gateway would only take versions from each other; against
    /// those of others the store decides alone.
    pub(super) async fn turn(&self, table: &Path) -> OwnedMutexGuard<()> {
        self.turns.get_with_by_ref(table, async { Arc::default() }).await.lock_owned().await
    }

    /// The same, and what was read, where a lake of its own reads the table of this name.
    pub(super) fn through(&self, lake: Arc<Lake>, of: String) -> Self {
        let Self { latest, read, vectors, turns, .. } = self;
        Self { lake, of, latest: latest.clone(), read: read.clone(), vectors: vectors.clone(), turns: turns.clone() }
    }

    /// A table as it is now. Errors: `Data` where its log is damaged; `Unsupported` where it has a feature that is not read; `NotFound`
    /// where it is dropped, and not yet removed.
    pub(super) async fn latest(&self, table: &Path) -> Result<Arc<Pinned>> {
        let found = self.newest(table).await;
        if found.is_err() && matches!(drops::mark(&self.lake.store, table).await, Ok(Some(_))) {
            return Err(Error::not_found("the table is dropped").at(self.lake.store.place(table)));
        }
        found
    }

    async fn newest(&self, table: &Path) -> Result<Arc<Pinned>> {
        let (mut own, mut previous) = (false, None);
        let building = async {
            own = true;
            self.build(table, None).await
        };
        // Whoever meets a table of which nothing is known while its log is read waits for that.
        let found = self.latest.entry_by_ref(table).or_try_insert_with(building).await;
        if own {
            return found.map(moka::Entry::into_value).map_err(|error: Arc<Error>| error.copied());
        }
        // What somebody else has read may be of before this statement, to which commits, and whole tables, may be new.
        if let Ok(known) = found.map(moka::Entry::into_value) {
            let version = known.snapshot.version();
            let next = self.commit(table, version.saturating_add(1));
            let (same, next) = futures::try_join!(self.commit(table, version), next)?;
            // A table made anew has another commit there: then nothing that is known of the log holds.
            if same.is_some() && same == known.commit {
                if next.is_none() {
                    return Ok(known);
                }
                previous = Some(Arc::clone(&known.snapshot));
            }
        }
        let pinned = self.build(table, previous).await?;
        self.latest.insert(table.clone(), Arc::clone(&pinned)).await;
        Ok(pinned)
    }

    /// A table as its log tells it now, to which what was known of it is the beginning.
    async fn build(&self, table: &Path, mut previous: Option<SnapshotRef>) -> Result<Arc<Pinned>> {
        for _ in 0..TRIES {
            let previous = previous.take();
            let build = move |kernel: &Kernel| {
                let builder = match previous {
                    Some(previous) => KernelSnapshot::builder_from(previous),
                    None => KernelSnapshot::builder_for(ROOT),
                };
                kernel.heard(builder.build(kernel.engine()))
            };
            let snapshot = blocking(&self.lake, table, log_of(table), build).await?;
            if let Some(pinned) = self.pinned(table, snapshot).await? {
                return Ok(pinned);
            }
        }
        Err(self.made_anew(table))
    }

    /// A table as it was at a version. Errors: `NotFound`, with the versions that are there, and those of [`Self::latest`].
    pub(super) async fn at_version(&self, table: &Path, version: u64) -> Result<Arc<Pinned>> {
        let latest = self.latest(table).await?;
        let last = latest.snapshot.version();
        if version == last {
            return Ok(latest);
        }
        let build = move |kernel: &Kernel| {
            let built = match version < last {
                true => Some(KernelSnapshot::builder_for(ROOT).at_version(version).build(kernel.engine())),
                false => None,
            };
            if let Some(Ok(snapshot)) = built {
                return Ok(snapshot);
            }
            let first = first(kernel, &latest.snapshot)?;
            match built {
                Some(damaged) if version >= first => kernel.heard(damaged),
                _ => {
                    let message = format!("the table has no version {version}");
                    Err(kernel.absent(message).with_hint(format!("its versions are {first} to {last}")))
                }
            }
        };
        let snapshot = blocking(&self.lake, table, log_of(table), build).await?;
        self.pinned(table, snapshot).await?.ok_or_else(|| self.made_anew(table))
    }

    /// A table as it was at a time, in milliseconds since 1970: the latest version that was there by then. Errors: as of
    /// [`Self::at_version`].
    pub(super) async fn at_time(&self, table: &Path, millis: i64) -> Result<Arc<Pinned>> {
        let latest = self.latest(table).await?;
        let last = latest.snapshot.version();
        let find = move |kernel: &Kernel| match latest_version_as_of(
            &latest.snapshot,
            kernel.engine(),
            millis,
            HistoryCommitType::Recreatable,
        ) {
            Err(delta_kernel::Error::LogHistory(cause)) if matches!(*cause, LogHistoryError::TimestampOutOfRange { .. }) => {
                let first = first(kernel, &latest.snapshot)?;
                Err(kernel
                    .absent("the table has no version that is as old")
                    .with_hint(format!("its versions are {first} to {last}; take one by its number")))
            }
            found => Ok(kernel.heard(found)?.version),
        };
        let version = blocking(&self.lake, table, log_of(table), find).await?;
        self.at_version(table, version).await
    }

    /// The files of a table at its version. Statements that want them at once read them once; where the one that reads is cancelled,
    /// another does. Errors: `Data`, `Unsupported`.
    pub(super) async fn read(&self, pinned: &Pinned) -> Result<Arc<Snapshot>> {
        let key = (pinned.table.clone(), format!("{}\0{}", self.of, pinned.version()));
        let reading = async {
            let (vectors, table, snapshot) = (self.vectors.clone(), pinned.table.clone(), Arc::clone(&pinned.snapshot));
            let read = move |kernel: &Kernel| files::read(kernel, &vectors, &table, &snapshot);
            blocking(&self.lake, &pinned.table, log_of(&pinned.table), read).await.map(Arc::new)
        };
        let read = self.read.try_get_with(key, reading).await.map_err(|error: Arc<Error>| error.copied());
        if read.is_err() {
            // A checkpoint may have taken the place of the log that is remembered; the next statement looks anew.
            self.latest.invalidate(&pinned.table).await;
        }
        read
    }

    /// What a commit after this version says: when it is made, in milliseconds since 1970, where the table wants that, and that the
    /// files which are there go, where they do.
    pub(super) async fn before(&self, pinned: &Pinned, replaces: bool) -> Result<(Option<i64>, Vec<Value>)> {
        let snapshot = Arc::clone(&pinned.snapshot);
        let is_timed = features::is_timed(&snapshot);
        if !is_timed && !replaces {
            return Ok((None, Vec::new()));
        }
        let read = move |kernel: &Kernel| -> Result<(Option<i64>, Vec<Value>)> {
            let time = match is_timed {
                true => Some(kernel.heard(snapshot.get_timestamp(kernel.engine()))?.saturating_add(1).max(now())),
                false => None,
            };
            let removals = if replaces { files::removals(kernel, &snapshot, now())? } else { Vec::new() };
            Ok((time, removals))
        };
        blocking(&self.lake, &pinned.table, log_of(&pinned.table), read).await
    }

    /// Writes a checkpoint of a version. Errors: those of the store; `NotFound`, `Unsupported`, `Data`.
    pub(super) async fn checkpoint(&self, table: &Path, version: u64) -> Result<()> {
        let pinned = self.at_version(table, version).await?;
        self.checkpoint_of(&pinned).await
    }

    async fn checkpoint_of(&self, pinned: &Pinned) -> Result<()> {
        let (table, snapshot) = (&pinned.table, Arc::clone(&pinned.snapshot));
        let version = snapshot.version();
        let write = move |kernel: &Kernel| kernel.heard(snapshot.checkpoint(kernel.engine(), None)).map(|_| ());
        blocking(&self.lake, table, log_of(table), write).await?;
        // Who has dropped the table meanwhile may not have seen it, and the next table of the name would begin with it.
        let is_same = self.commit(table, version).await? == pinned.commit;
        if is_same && drops::mark(&self.lake.store, table).await?.is_none() {
            return Ok(());
        }
        drops::remove_checkpoint(&self.lake.store, table, version).await
    }

    /// The snapshot with its commit; none where that is another by now than the kernel has listed.
    async fn pinned(&self, table: &Path, snapshot: SnapshotRef) -> Result<Option<Arc<Pinned>>> {
        readable(&snapshot).map_err(|error| error.at(self.lake.store.place(&log_of(table))))?;
        // Nobody commits nothing: it was cut, and what it changed is not known.
        let commits = &snapshot.log_segment().listed.ascending_commit_files;
        if let Some(empty) = commits.iter().find(|commit| commit.location.size == 0) {
            let path = log_of(table).join(empty.filename.as_str());
            return Err(Error::data("this commit is empty").with_hint(RESTORE).at(self.lake.store.place(&path)));
        }
        let commit = self.commit(table, snapshot.version()).await?;
        let listed = snapshot.log_segment().listed.latest_commit_file.as_ref();
        let listed = listed.filter(|commit| commit.version == snapshot.version()).map(|commit| &commit.location);
        let is_same = match (&commit, listed) {
            (Some(commit), Some(listed)) => commit.starts_with(&format!("{} {} ", listed.size, self.told(listed.last_modified))),
            (commit, listed) => commit.is_none() && listed.is_none(),
        };
        Ok(is_same.then(|| Arc::new(Pinned { table: table.clone(), snapshot, commit })))
    }

    fn made_anew(&self, table: &Path) -> Error {
        Error::new(Kind::Precondition, "the table was made anew while its log was read")
            .with_hint("run the statement again")
            .with_retryable(true)
            .at(self.lake.store.place(&log_of(table)))
    }

    /// The time of a file's last change, from milliseconds since 1970, as far as a list and a look at the file agree on it: of an
    /// object the look tells whole seconds, as a header of HTTP does, and the list of many servers tells more.
    fn told(&self, changed: i64) -> i64 {
        if self.lake.store.folder.is_some() { changed } else { changed.div_euclid(1000) }
    }

    /// What tells the commit of a version from any other that may come to stand in its place; none where it is not there.
    async fn commit(&self, table: &Path, version: u64) -> Result<Option<String>> {
        let path = log_of(table).join(format!("{version:020}.json"));
        match self.lake.store.objects().head(&path).await {
            Ok(meta) => {
                let changed = self.told(meta.last_modified.timestamp_millis());
                Ok(Some(format!("{} {changed} {}", meta.size, meta.e_tag.unwrap_or_default())))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.lake.store.error(&cause, &path)),
        }
    }
}

/// The oldest version that can still be read.
fn first(kernel: &Kernel, latest: &SnapshotRef) -> Result<u64> {
    let log = kernel.heard(latest.table_root().join("_delta_log/").map_err(Into::into))?;
    kernel.heard(get_earliest_commit(kernel.engine(), &log, None, HistoryCommitType::Recreatable))
}

/// Errors: `Unsupported` for a table whose rows are not what they seem to who does not know one of its features.
fn readable(snapshot: &SnapshotRef) -> Result<()> {
    let features = snapshot.table_configuration().protocol().reader_features().unwrap_or_default();
    let names: Vec<String> = features.iter().map(ToString::to_string).collect();
    let unknown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !FEATURES.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!("the table has features that are not read here: {}", list(&unknown)))
        .with_hint("drop them from the table where it is written"))
}

#[cfg(test)]
mod tests {
    use std::path::Path as LocalPath;

    use datafusion::common::ScalarValue;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    use roaring::RoaringTreemap;
    use serde_json::json;

    use super::*;
    use crate::stores::{Location, Store};

    fn logs(folder: &LocalPath) -> Logs {
        let location = Location::Folder(folder.to_owned());
        Logs::new(Arc::new(Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location)))
    }

    fn commit(folder: &LocalPath, version: u64, actions: &[Value]) {
        let log = folder.join("a%20b 文/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        std::fs::write(log.join(format!("{version:020}.json")), lines.join("\n")).unwrap();
    }

    fn made(id: &str) -> [Value; 2] {
        let field = |name: &str, of: &str| json!({ "name": name, "type": of, "nullable": true, "metadata": {} });
        let schema = json!({ "type": "struct", "fields": [field("n", "long"), field("p", "string")] }).to_string();
        let format = json!({ "provider": "parquet", "options": {} });
        let table = json!({ "id": id, "format": format, "schemaString": schema, "partitionColumns": ["p"], "configuration": {} });
        [json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }), json!({ "metaData": table })]
    }

    fn added(path: &str, value: &str) -> Value {
        let stats = r#"{"numRecords":3,"minValues":{"n":1},"maxValues":{"n":9},"nullCount":{"n":0}}"#;
        let values = json!({ "p": value });
        json!({ "add": { "path": path, "partitionValues": values, "size": 10, "modificationTime": 0, "dataChange": true, "stats": stats } })
    }

    async fn paths(logs: &Logs, pinned: &Pinned) -> Vec<String> {
        logs.read(pinned).await.unwrap().files.iter().map(|file| file.path.to_string()).collect()
    }

    #[tokio::test]
    async fn each_version_has_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata, added("p=1%25202/one%20.parquet", "1%202")]);
        let first = logs.latest(&table).await.unwrap();
        assert!(first.version().starts_with("x:0:"));
        let snapshot = logs.read(&first).await.unwrap();
        let file = &snapshot.files[0];
        assert_eq!(file.path.as_ref(), "a%20b 文/p=1%202/one .parquet");
        assert_eq!((file.size, file.rows, file.deleted), (10, Some(3), Some(0)));
        assert_eq!((snapshot.constants.as_slice(), &file.constants[0]), (&[1][..], &ScalarValue::from("1%202")));
        let least = ScalarValue::try_from_array(&snapshot.bounds[0].min, 0).unwrap();
        assert_eq!((least, snapshot.bounds[1].nulls.value(0)), (ScalarValue::Int64(Some(1)), 0));

        let removed = json!({ "remove": { "path": "p=1%25202/one%20.parquet", "deletionTimestamp": 1, "dataChange": true } });
        commit(folder.path(), 1, &[removed, added("two.parquet", "")]);
        let second = logs.latest(&table).await.unwrap();
        assert!(second.version().starts_with("x:1:"));
        assert_eq!(paths(&logs, &second).await, ["a%20b 文/two.parquet"]);
        assert!(logs.read(&second).await.unwrap().files[0].constants[0].is_null());
        let before = logs.at_version(&table, 0).await.unwrap();
        assert!(before.version().starts_with("x:0:"));
        assert_eq!(paths(&logs, &before).await.len(), 1);
        assert_eq!(paths(&logs, &before).await, paths(&logs, &first).await);
        assert_eq!(logs.at_time(&table, i64::MAX).await.unwrap().version(), second.version());
        for missing in [logs.at_version(&table, 5).await, logs.at_time(&table, 0).await] {
            let error = missing.err().unwrap();
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(error.hint().unwrap().starts_with("its versions are 0 to 1"), "{error}");
            // Without it the error would be taken for that of a table which is not there.
            assert!(error.place().is_some(), "{error}");
        }
    }

    #[tokio::test]
    async fn statements_that_come_together_read_a_table_once() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata, added("one.parquet", "a")]);
        let (first, second) = tokio::join!(logs.latest(&table), logs.latest(&table));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        // One that is cancelled leaves it to the others.
        let cancelled = async {
            tokio::select! {
                biased;
                _ = logs.read(&first) => {}
                () = tokio::task::yield_now() => {}
            }
        };
        let ((), one, other) = tokio::join!(cancelled, logs.read(&first), logs.read(&second));
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
    }

    #[tokio::test]
    async fn a_table_made_anew_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata, added("one.parquet", "a")]);
        commit(folder.path(), 1, &[added("two.parquet", "a")]);
        assert!(logs.latest(&table).await.unwrap().version().starts_with("x:1:"));
        std::fs::remove_dir_all(folder.path().join("a%20b 文")).unwrap();
        let [protocol, metadata] = made("y");
        commit(folder.path(), 0, &[protocol, metadata]);
        let anew = logs.latest(&table).await.unwrap();
        assert!(anew.version().starts_with("y:0:"));
        assert_eq!(paths(&logs, &anew).await.len(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_that_is_dropped_keeps_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata, added("one.parquet", "a")]);
        let names = || {
            let entries = std::fs::read_dir(folder.path().join("a%20b 文/_delta_log")).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let pinned = logs.latest(&table).await.unwrap();
        logs.checkpoint_of(&pinned).await.unwrap();
        assert_eq!(names().iter().filter(|name| name.contains("checkpoint")).count(), 2, "{:?}", names());
        drops::remove_checkpoint(&logs.lake.store, &table, 0).await.unwrap();
        commit(folder.path(), 1, &drops::actions());
        logs.checkpoint_of(&pinned).await.unwrap();
        assert!(names().iter().all(|name| name.ends_with(".json")), "{:?}", names());
    }

    #[tokio::test]
    async fn what_cannot_be_read_right_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [_, metadata] = made("x");
        let features = json!(["deletionVectors", "fancy"]);
        let protocol =
            json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features });
        commit(folder.path(), 0, &[json!({ "protocol": protocol }), metadata]);
        let refused = logs.latest(&table).await.err().unwrap();
        assert!(refused.kind() == Kind::Unsupported && refused.message().contains("fancy"), "{refused}");

        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata]);
        commit(folder.path(), 2, &[added("two.parquet", "a")]);
        assert_eq!(logs.latest(&table).await.err().unwrap().kind(), Kind::Data);
        for cut in [&[Value::from("cut")][..], &[]] {
            commit(folder.path(), 1, cut);
            assert_eq!(logs.latest(&table).await.err().unwrap().kind(), Kind::Data, "{cut:?}");
        }
    }

    #[tokio::test]
    async fn a_file_of_the_log_that_is_a_link_to_elsewhere_is_refused() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata]);
        commit(elsewhere.path(), 1, &[added("two.parquet", "a")]);
        let name = "a%20b 文/_delta_log/00000000000000000001.json";
        std::os::unix::fs::symlink(elsewhere.path().join(name), folder.path().join(name)).unwrap();
        let error = logs.latest(&table).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkpoint_that_says_more_than_it_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, table) = (logs(folder.path()), Path::parse("a%20b 文").unwrap());
        let [protocol, metadata] = made("x");
        commit(folder.path(), 0, &[protocol, metadata]);
        // A list of row groups that would take all memory.
        let forged = b"PAR1\x49\xFC\xFF\xFF\xFF\xFF\x07\x07\x00\x00\x00PAR1";
        std::fs::write(folder.path().join("a%20b 文/_delta_log/00000000000000000000.checkpoint.parquet"), forged).unwrap();
        let error = logs.latest(&table).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.message().contains("a list in it has more items than there are bytes"), "{error}");
    }

    /// The version of the format, a vector of these rows, and what other files of rows have.
    fn vectors(rows: &RoaringTreemap) -> (Vec<u8>, usize) {
        let mut vector = 1_681_511_377_u32.to_le_bytes().to_vec();
        rows.serialize_into(&mut vector).unwrap();
        let length = u32::try_from(vector.len()).unwrap().to_be_bytes();
        let sum = crc32fast::hash(&vector).to_be_bytes();
        ([&[1_u8][..], &length[..], &vector[..], &sum[..], &[0; 100_000][..]].concat(), vector.len())
    }

    #[tokio::test]
    async fn of_a_file_of_vectors_no_more_is_read_than_the_wanted_one() {
        let folder = tempfile::tempdir().unwrap();
        let table = Path::parse("a%20b 文").unwrap();
        let wanted = RoaringTreemap::from([0_u64, 2]);
        let (mut bytes, size) = vectors(&wanted);
        let mut file = added("one.parquet", "a");
        file["add"]["deletionVector"] = json!({
            "storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": size, "cardinality": 2,
        });
        let [_, metadata] = made("x");
        let features = json!(["deletionVectors"]);
        let protocol =
            json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features });
        commit(folder.path(), 0, &[json!({ "protocol": protocol }), metadata, file]);
        let path = folder.path().join("a%20b 文/deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin");
        let little: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let read = async || {
            let logs = logs(folder.path());
            let snapshot = logs.read(&logs.latest(&table).await.unwrap()).await.unwrap();
            snapshot.files[0].deletes.as_ref().unwrap().of(&snapshot.files[0], &little).await
        };
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(*read().await.unwrap(), wanted);
        assert_eq!(little.reserved(), 0);
        // Another format, then another checksum, and a file that ends before the vector does.
        bytes[0] = 2;
        std::fs::write(&path, &bytes).unwrap();
        insta::assert_snapshot!(read().await.unwrap_err().message(), @"the deletion vector is not sound: its file is of another format");
        bytes[0] = 1;
        bytes[5 + size] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        insta::assert_snapshot!(read().await.unwrap_err().message(), @"the deletion vector is not sound: its checksum is another");
        std::fs::write(&path, &bytes[..5 + size]).unwrap();
        let error = read().await.unwrap_err();
        assert!(error.message().starts_with("the deletion vector is not sound: it has "), "{error}");
    }
}
