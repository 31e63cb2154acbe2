//! Rows of file slices with log files: merged by the crate of the format, in each partition of the plan one after another.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::physical_plan::FileOpenFuture;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hudi_core::error::CoreError;
use hudi_core::storage::error::StorageError;
use hudi_core::table::{ReadOptions, Table};
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use url::Url;

use super::copies::Copies;
use super::logs::{self, Instants};
use super::properties::{Properties, refused};
use super::slices::Logged;
use super::timeline::{Committed, Timeline};
use crate::lake::{Bounds, Known, Lake, conform};
use crate::stores::{cause, ended_early, guarded};

/// The most bytes of the files of a slice.
const LARGEST: u64 = 1024 * 1024 * 1024;
/// What the records of a log file take in memory for each byte of it.
const UNPACKED: u64 = 8;
/// What a merge may take besides, which is not charged.
const LEAST: u64 = 128 * 1024 * 1024;
/// Who takes the memory.
const CONSUMER: &str = "merge of log files";
/// What tells the crate how much that may be. Of more it says with this word that it is not built to write it to the disk.
const BUDGET: &str = "hoodie.memory.merge.max.size";
/// The longest that is repeated of what the crate says, in bytes.
const SAID: usize = 300;

/// The slices of a table at an instant that have log files.
pub(super) struct Merging {
    lake: Arc<Lake>,
    /// The folder of the table.
    folder: Path,
    /// Knows the instants that were completed when the statement began.
    table: Table,
    /// The address of the table, as the crate was told.
    address: String,
    /// Where that is, of a table in a bucket.
    copies: Option<Copies>,
    /// Which commits are completed.
    committed: Committed,
    /// Whether log files have the names of the commits that wrote them.
    is_named: bool,
    /// Between which instants there may be commits that the crate would not know of.
    gaps: Vec<(String, String)>,
    by: String,
    schema: SchemaRef,
    slices: Vec<Logged>,
    /// What is known of each column in each slice.
    bounds: Vec<Bounds>,
}

impl fmt::Debug for Merging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Merging({} slices of {})", self.slices.len(), self.lake.store.show(&self.folder))
    }
}

impl Merging {
    /// Opens a table with the crate; none where it meets another timeline than this one.
    /// Errors: `Unsupported` for what the crate refuses, `Data` for what it cannot read.
    pub(super) async fn open(
        lake: &Arc<Lake>,
        folder: &Path,
        timeline: &Timeline,
        by: &str,
        schema: &SchemaRef,
        slices: Vec<Logged>,
        bounds: Vec<Bounds>,
    ) -> Result<Option<Self>> {
        let (address, copies) = match &lake.store.folder {
            Some(root) => {
                let address = Url::from_directory_path(root.join(folder.as_ref()));
                let wrong = |()| Error::internal("the address of a table cannot be made").at(lake.store.place(folder));
                (address.map_err(wrong)?, None)
            }
            None => {
                let copies = Copies::of_table(lake, folder, timeline).await?;
                (copies.address()?, Some(copies))
            }
        };
        let opening = AssertUnwindSafe(Table::new(address.as_str())).catch_unwind();
        let table = match opening.await {
            Ok(opened) => opened.map_err(|error| explained(lake, folder, error))?,
            Err(_) => {
                let message = "the table is not sound: its parts contradict each other";
                return Err(Error::data(message).at(lake.store.place(folder)));
            }
        };
        let known: BTreeSet<&str> = table.timeline.completed_commits.iter().map(|instant| instant.timestamp.as_str()).collect();
        let meant: BTreeSet<&str> = timeline.commits().map(|instant| instant.requested.as_str()).collect();
        if known != meant {
            return Ok(None);
        }
        // Where log files have the names of commits that are completed, what is in them is not asked about.
        let gaps = if timeline.has_completion { Vec::new() } else { timeline.gaps() };
        let gaps = gaps.into_iter().map(|(after, until)| (after.to_owned(), until.to_owned())).collect();
        let (committed, is_named) = (timeline.files(), timeline.has_completion);
        let (lake, folder, by, schema) = (Arc::clone(lake), folder.clone(), by.to_owned(), Arc::clone(schema));
        let address = address.into();
        Ok(Some(Self { lake, folder, table, address, copies, committed, is_named, gaps, by, schema, slices, bounds }))
    }

    /// Whether the crate has met the properties that were looked at before. Errors: `Unsupported` where it has found others
    /// elsewhere: it reads a file of settings from the machine too.
    pub(super) fn is_of(&self, properties: &Properties) -> Result<bool> {
        for (key, value) in self.table.hudi_options() {
            match properties.value(&key) {
                Some(said) if said == value => {}
                Some(_) => return Ok(false),
                None if key == "hoodie.base.path" && value == self.address => {}
                None => {
                    let error = refused(format!("log files of tables that get {key} from elsewhere than their properties"));
                    return Err(error.with_hint("remove /etc/hudi/conf/hudi-defaults.conf, or run the statement again"));
                }
            }
        }
        Ok(true)
    }

    /// Looks through the files of a slice, and copies them to where the crate reads them. Errors: `Data` where a file is not as it
    /// was when it was listed, or a log file says more than it has, or lacks rows; `Unsupported` for what the crate would leave out.
    async fn check(&self, logged: &Logged, copies: Option<&Copies>) -> Result<()> {
        if let Some((name, listed)) = &logged.base {
            let path = self.path(name)?;
            // The crate would wait for a pipe that stands in its place.
            let held = self.lake.store.objects().head(&path).await.map_err(|cause| self.lake.failure(&cause, &path))?;
            if held.size != *listed {
                return Err(self.changed(&path));
            }
            self.lake.check_footer(&path, *listed).await?;
            if let Some(copies) = copies {
                copies.write(&within(name)?, self.lake.read(&path, LARGEST).await?).await?;
            }
        }
        let mut found = Instants::default();
        for (log, (name, listed)) in logged.slice.log_files.iter().zip(&logged.logs) {
            let path = self.path(name)?;
            let bytes = self.lake.read(&path, LARGEST).await?;
            // What is added to it is of later commits. Of one that is cut the crate would read what is left.
            if (bytes.len() as u64) < *listed {
                return Err(self.changed(&path));
            }
            let (log, held) = (log.clone(), bytes.clone());
            let look = move || logs::instants(&log, &held, &mut found).map(|()| found);
            let looked = tokio::task::spawn_blocking(look).await.map_err(ended_early)?;
            found = looked.map_err(|error| error.at(self.lake.store.place(&path)))?;
            if let Some(copies) = copies {
                copies.write(&within(name)?, bytes).await?;
            }
        }
        let has = |instant: &str| instant <= self.by.as_str() && self.committed.has(instant);
        if let Some(file) = found.lost(self.is_named, has) {
            let path = self.path(&format!("{}/{file}", logged.slice.partition_path))?;
            let message = format!("the log file {file} is cut short where a completed commit has written rows");
            let error = Error::data(message).with_hint("restore the file, or the table to a savepoint before that commit");
            return Err(error.at(self.lake.store.place(&path)));
        }
        let in_gap = |instant: &&String| self.gaps.iter().any(|(after, until)| after < *instant && *instant < until);
        if let Some(instant) = found.written.keys().filter(|instant| !found.rolled_back.contains(*instant)).find(in_gap) {
            let message = format!("records in log files of the commit {instant}, which is archived before older ones,");
            return Err(refused(message).with_hint("compact the table, or remove the savepoint of the oldest commit"));
        }
        Ok(())
    }

    /// A file of a slice is not the one that was listed.
    fn changed(&self, path: &Path) -> Error {
        let error = Error::data("this file is not as it was when the table was listed: its size differs");
        error.with_hint("it was changed by hand; restore the file").at(self.lake.store.place(path))
    }

    /// A scan of some columns, by their places, of the slices that can hold rows which meet conditions; so many of them are merged
    /// at once. None where no slice can. Errors: those of the conditions.
    pub(super) fn scan(
        self: &Arc<Self>,
        columns: &[usize],
        filters: &[Expr],
        at_once: usize,
    ) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
        let rows = UInt64Array::new_null(self.slices.len());
        let known = Known { schema: &self.schema, bounds: &self.bounds, rows, lacking: None };
        let slices = known.wanted(filters)?;
        if slices.is_empty() {
            return Ok(None);
        }
        let schema = Arc::new(self.schema.project(columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(slices.len().min(at_once.max(1))),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Some(Arc::new(HudiMerge { of: Arc::clone(self), slices, schema, properties: Arc::new(properties), metrics })))
    }

    /// The rows of a slice, in these columns, within memory that is charged until the last of them.
    fn merged(self: Arc<Self>, slice: usize, schema: SchemaRef, count: Count, pool: &Arc<dyn MemoryPool>) -> FileOpenFuture {
        let held = MemoryConsumer::new(CONSUMER).register(pool);
        let of = Arc::clone(&self);
        let opening = async move {
            let logged = of.slice(slice)?;
            let (base, logs) = logged.sizes();
            if base.saturating_add(logs) > LARGEST {
                let message = format!("a file slice has more than {LARGEST} bytes in files that are to be merged");
                let error = Error::exhausted(message).with_hint("compact the table").with_retryable(false);
                return Err(DataFusionError::from(error));
            }
            for (path, _) in logged.base.iter().chain(&logged.logs) {
                of.lake.store.stays_within(&of.path(path)?).await?;
            }
            let most = logs.saturating_mul(UNPACKED);
            held.try_grow(usize::try_from(most.saturating_add(base)).unwrap_or(usize::MAX))?;
            let copies = if of.copies.is_some() { Some(Copies::new().await?) } else { None };
            of.check(&logged, copies.as_ref()).await?;
            let options = of.options(most, copies.as_ref())?;
            let said = |error: CoreError| DataFusionError::from(explained(&of.lake, &of.folder, error));
            let reader = of.table.create_file_group_reader_with_options(Some(&options), std::iter::empty::<(&str, &str)>());
            let merged = reader.await.map_err(said)?.read_file_slice_stream(&logged.slice, &options).await.map_err(said)?;
            let rows = merged.map(move |batch| {
                // Until the last row.
                let _held = (&held, &copies);
                let batch = batch.map_err(|error| explained(&of.lake, &of.folder, error))?;
                let batch = conformed(&batch, &schema)?;
                count.add(batch.num_rows());
                Ok::<_, DataFusionError>(batch)
            });
            Ok::<_, DataFusionError>(rows.boxed())
        };
        guarded(opening, move |error| self.located(slice, error).into())
    }

    fn slice(&self, slice: usize) -> Result<Logged> {
        self.slices.get(slice).cloned().ok_or_else(|| Error::internal("a slice is read that is not there"))
    }

    /// Errors of one slice, with its place.
    fn located(&self, slice: usize, error: DataFusionError) -> Error {
        let path = self.slices.get(slice).and_then(|logged| logged.base.iter().chain(&logged.logs).next());
        let path = path.and_then(|(path, _)| self.path(path).ok());
        let path = path.unwrap_or_else(|| self.folder.clone());
        match cause::<object_store::Error>(&error) {
            Some(cause) => self.lake.store.error(cause, &path),
            None => Error::from(error).at(self.lake.store.place(&path)),
        }
    }

    /// Where a file is that has a path in the table.
    fn path(&self, path: &str) -> Result<Path> {
        Ok(self.folder.parts().chain(within(path)?.parts()).collect())
    }

    /// How the crate is to read: as of the instant, by the reader that does not forget deletes, within so much memory, and by copies
    /// where there are any.
    fn options(&self, most: u64, copies: Option<&Copies>) -> Result<ReadOptions> {
        let options = ReadOptions::new().with_as_of_timestamp(&self.by).with_hudi_options([
            ("hoodie.read.file.group.reader.version", "2".to_owned()),
            ("hoodie.read.use.read_optimized.mode", "false".to_owned()),
            ("hoodie.merge.use.record.positions", "false".to_owned()),
            (BUDGET, most.saturating_add(LEAST).to_string()),
        ]);
        Ok(match copies {
            Some(copies) => options.with_hudi_option("hoodie.base.path", copies.address()?),
            None => options,
        })
    }
}

/// A path in a table.
fn within(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|cause| Error::data(format!("this is no path: {cause}")))
}

/// An error of the crate in our words, with the table as its place.
fn explained(lake: &Lake, folder: &Path, error: CoreError) -> Error {
    if let CoreError::Storage(StorageError::ObjectStoreError(cause)) = &error {
        return lake.store.error(cause, folder);
    }
    let text = error.to_string();
    let said = shortened(text.lines().next().unwrap_or_default().to_owned(), SAID);
    let error = match error {
        _ if is_over_budget(&error) => {
            Error::exhausted(format!("the {CONSUMER} takes more memory than is set aside for it by the size of the files"))
                .with_hint("compact the table")
                .with_retryable(false)
        }
        CoreError::Unsupported(_) | CoreError::Config(_) => {
            Error::unsupported(format!("the table is of a kind that is not merged: {said}"))
                .with_hint("compact the table, or set read = \"read_optimized\" for what is compacted")
        }
        _ => Error::data(format!("this cannot be merged: {said}")).with_hint("compact the table"),
    };
    error.at(lake.store.place(folder))
}

fn is_over_budget(error: &CoreError) -> bool {
    match error {
        CoreError::MemoryLimitExceeded(_) => true,
        CoreError::Unsupported(text) => text.contains(BUDGET),
        _ => false,
    }
}

/// The scan of slices with log files.
#[derive(Debug)]
struct HudiMerge {
    of: Arc<Merging>,
    /// Those that are read, by their places.
    slices: Vec<usize>,
    /// The columns that are wanted.
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DisplayAs for HudiMerge {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "HudiMerge: slices={}, projection=[{}]", self.slices.len(), columns.join(", "))
    }
}

impl ExecutionPlan for HudiMerge {
    fn name(&self) -> &'static str {
        "HudiMerge"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (of, schema, pool) = (Arc::clone(&self.of), Arc::clone(&self.schema), Arc::clone(task.memory_pool()));
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        // One is open in each partition: what it has taken is given back before the next begins.
        let at_once = self.properties.output_partitioning().partition_count();
        let slices: Vec<usize> = self.slices.iter().copied().skip(partition).step_by(at_once.max(1)).collect();
        let merged = move |slice| Arc::clone(&of).merged(slice, Arc::clone(&schema), count.clone(), &pool);
        let rows = stream::iter(slices).then(merged).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

/// The columns that are wanted, of what the crate has merged.
/// Errors: `Data` where one is not there, or is not what it is in the table.
fn conformed(batch: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(held) => conform(field.name(), held, field.data_type()),
        None => Err(Error::data(format!("the column \"{}\" is missing after the merge", field.name()))),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, Int32Array, Int64Array};
    use arrow::datatypes::{DataType, Field};
    use nexus_flight_catalog::Kind;

    use super::*;

    #[test]
    fn merged_rows_have_the_columns_of_the_table() {
        let number: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let batch = RecordBatch::try_from_iter([("other", Arc::clone(&number)), ("n", number)]).unwrap();
        let wanted = |name: &str| Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
        let conformed_to = conformed(&batch, &wanted("n")).unwrap();
        assert_eq!(conformed_to.column(0).as_ref(), &Int64Array::from(vec![Some(1), None]) as &dyn Array);
        assert_eq!(conformed(&batch, &Arc::new(Schema::empty())).unwrap().num_rows(), 2);
        assert_eq!(conformed(&batch, &wanted("missing")).unwrap_err().kind(), Kind::Data);
    }

    #[test]
    fn what_takes_too_much_memory_is_told_as_that() {
        let folder = tempfile::tempdir().unwrap();
        let here = crate::stores::Location::Folder(folder.path().to_owned());
        let lake = Lake::new(Arc::new(crate::stores::Store::open("lake", &here).unwrap()), &here);
        let of = |error: CoreError| explained(&lake, &Path::from("t"), error);
        let spills = format!("this merge needs to spill: its in-memory tier reached the 7 byte budget from {BUDGET}");
        for error in [CoreError::Unsupported(spills), CoreError::MemoryLimitExceeded("much".to_owned())] {
            let error = of(error);
            assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, false));
            insta::allow_duplicates! {
                insta::assert_snapshot!(error.message(), @"the merge of log files takes more memory than is set aside for it by the size of the files");
            }
        }
        assert_eq!(of(CoreError::Unsupported("of another kind".to_owned())).kind(), Kind::Unsupported);
    }
}
