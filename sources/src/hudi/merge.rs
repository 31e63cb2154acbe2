//! Rows of file slices with log files: merged by the crate of the format, a slice in each partition of the plan.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hudi_core::error::CoreError;
use hudi_core::storage::error::StorageError;
use hudi_core::table::{ReadOptions, Table};
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;
use secrecy::ExposeSecret;
use url::Url;

use super::logs::{self, Instants};
use super::properties::{Properties, refused};
use super::slices::Logged;
use super::timeline::Timeline;
use crate::lake::{Lake, conform};
use crate::stores::{Location, cause, ended_early, guarded};

/// The most bytes of the files of a slice.
const LARGEST: u64 = 1024 * 1024 * 1024;
/// What the records of a log file take in memory for each byte of it.
const UNPACKED: u64 = 8;
/// What a merge may take besides, which is not charged.
const LEAST: u64 = 128 * 1024 * 1024;
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
    /// Between which instants there may be commits that the crate would not know of.
    gaps: Vec<(String, String)>,
    by: String,
    schema: SchemaRef,
    slices: Vec<Logged>,
}

impl fmt::Debug for Merging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The crate's table holds the keys of the bucket and would print them.
        write!(f, "Merging({} slices of {})", self.slices.len(), self.lake.store.show(&self.folder))
    }
}

impl Merging {
    /// Opens a table with the crate; none where it meets another timeline than this one.
    /// Errors: `Unsupported` for what the crate refuses, `Data` for what it cannot read.
    pub(super) async fn open(
        lake: &Arc<Lake>,
        location: &Location,
        folder: &Path,
        timeline: &Timeline,
        by: &str,
        schema: &SchemaRef,
        slices: Vec<Logged>,
    ) -> Result<Option<Self>> {
        let (address, options) = address(lake, location, folder)?;
        let opening = AssertUnwindSafe(Table::new_with_options(address.as_str(), options)).catch_unwind();
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
        let (lake, folder, by, schema) = (Arc::clone(lake), folder.clone(), by.to_owned(), Arc::clone(schema));
        Ok(Some(Self { lake, folder, table, address: address.into(), gaps, by, schema, slices }))
    }

    /// Whether the crate has met the properties that were looked at before. Errors: `Unsupported` where it has found others
    /// elsewhere: it reads a file of settings from the machine or the bucket too.
    pub(super) fn is_of(&self, properties: &Properties) -> Result<bool> {
        for (key, value) in self.table.hudi_options() {
            match properties.value(&key) {
                Some(said) if said == value => {}
                Some(_) => return Ok(false),
                None if key == "hoodie.base.path" && value == self.address => {}
                None => {
                    let error = refused(format!("log files of tables that get {key} from elsewhere than their properties"));
                    return Err(error.with_hint("remove etc/hudi/conf/hudi-defaults.conf, or run the statement again"));
                }
            }
        }
        Ok(true)
    }

    /// Errors: `Data` where a log file of a slice says more than it has; `Unsupported` for what the crate would leave out.
    async fn check(&self, logged: &Logged) -> Result<()> {
        let mut found = Instants::default();
        for log in &logged.slice.log_files {
            let within = logged.slice.log_file_relative_path(log).map_err(|error| explained(&self.lake, &self.folder, error))?;
            let (name, bytes) = (log.file_name(), self.lake.read(&self.path(&within)?, LARGEST).await?);
            let look = move || logs::instants(&name, &bytes, &mut found).map(|()| found);
            found = tokio::task::spawn_blocking(look).await.map_err(ended_early)??;
        }
        let in_gap = |instant: &&String| self.gaps.iter().any(|(after, until)| after < *instant && *instant < until);
        match found.written.difference(&found.rolled_back).find(in_gap) {
            None => Ok(()),
            Some(instant) => {
                let message = format!("records in log files of the commit {instant}, which is archived before older ones,");
                Err(refused(message).with_hint("compact the table, or remove the savepoint of the oldest commit"))
            }
        }
    }

    /// A scan of some columns, by their places. Errors: `Internal`.
    pub(super) fn scan(self: &Arc<Self>, columns: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::new(self.schema.project(columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(self.slices.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Arc::new(HudiMerge { of: Arc::clone(self), schema, properties: Arc::new(properties), metrics }))
    }

    /// Errors of one slice, with its place.
    fn located(&self, logged: &Logged, error: DataFusionError) -> Error {
        let path = logged.paths().ok().and_then(|paths| paths.into_iter().next()).and_then(|path| self.path(&path).ok());
        let path = path.unwrap_or_else(|| self.folder.clone());
        match cause::<object_store::Error>(&error) {
            Some(cause) => self.lake.store.error(cause, &path),
            None => Error::from(error).at(self.lake.store.place(&path)),
        }
    }

    /// Where a file is that has a path in the table.
    fn path(&self, within: &str) -> Result<Path> {
        let within = Path::parse(within).map_err(|cause| Error::data(format!("this is no path: {cause}")))?;
        Ok(self.folder.parts().chain(within.parts()).collect())
    }

    /// How the crate is to read: as of the instant, by the reader that does not forget deletes, within so much memory.
    fn options(&self, most: u64) -> ReadOptions {
        ReadOptions::new().with_as_of_timestamp(&self.by).with_hudi_options([
            ("hoodie.read.file.group.reader.version", "2".to_owned()),
            ("hoodie.read.use.read_optimized.mode", "false".to_owned()),
            ("hoodie.merge.use.record.positions", "false".to_owned()),
            ("hoodie.memory.merge.max.size", most.saturating_add(LEAST).to_string()),
        ])
    }
}

/// Where the crate finds a table, and what it needs to be let in.
fn address(lake: &Lake, location: &Location, folder: &Path) -> Result<(Url, Vec<(&'static str, String)>)> {
    let wrong = || Error::internal("the address of a table cannot be made").at(lake.store.place(folder));
    match (location, &lake.store.folder) {
        (Location::Folder(_), Some(root)) => {
            let address = Url::from_directory_path(root.join(folder.as_ref())).map_err(|()| wrong())?;
            Ok((address, Vec::new()))
        }
        (Location::Bucket { bucket, prefix, access }, _) => {
            let mut address = Url::parse(&format!("s3://{bucket}/")).map_err(|_| wrong())?;
            let parts: Path = prefix.parts().chain(folder.parts()).collect();
            address.path_segments_mut().map_err(|()| wrong())?.clear().extend(AsRef::<str>::as_ref(&parts).split('/'));
            let secret = |secret: &Option<secrecy::SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
            let given = [
                ("aws_endpoint", access.endpoint.clone()),
                ("aws_region", access.region.clone()),
                ("aws_access_key_id", access.access_key_id.clone()),
                ("aws_secret_access_key", secret(&access.secret_access_key)),
                ("aws_session_token", secret(&access.session_token)),
                ("aws_allow_http", access.allow_http.then(|| "true".to_owned())),
            ];
            Ok((address, given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
        }
        (Location::Folder(_), None) => Err(wrong()),
    }
}

/// An error of the crate in our words, with the table as its place.
fn explained(lake: &Lake, folder: &Path, error: CoreError) -> Error {
    if let CoreError::Storage(StorageError::ObjectStoreError(cause)) = &error {
        return lake.store.error(cause, folder);
    }
    let text = error.to_string();
    let said = shortened(text.lines().next().unwrap_or_default().to_owned(), SAID);
    let error = match error {
        CoreError::MemoryLimitExceeded(_) => Error::new(Kind::Exhausted, format!("a merge takes too much memory: {said}"))
            .with_hint("compact the table")
            .with_retryable(false),
        CoreError::Unsupported(_) | CoreError::Config(_) => {
            Error::unsupported(format!("the table is of a kind that is not merged: {said}"))
                .with_hint("compact the table, or set read = \"read_optimized\" for what is compacted")
        }
        _ => Error::data(format!("this cannot be merged: {said}")).with_hint("compact the table"),
    };
    error.at(lake.store.place(folder))
}

/// The scan of slices with log files.
#[derive(Debug)]
struct HudiMerge {
    of: Arc<Merging>,
    /// The columns that are wanted.
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DisplayAs for HudiMerge {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "HudiMerge: slices={}, projection=[{}]", self.of.slices.len(), columns.join(", "))
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
        let of = Arc::clone(&self.of);
        let logged = of.slices.get(partition).cloned().ok_or_else(|| Error::internal("a slice is read that is not there"))?;
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        let schema = Arc::clone(&self.schema);
        let (located, slice) = (Arc::clone(&of), logged.clone());
        let opening = async move {
            if logged.base.saturating_add(logged.logs) > LARGEST {
                let message = format!("a file slice has more than {LARGEST} bytes in files that are to be merged");
                let error = Error::exhausted(message).with_hint("compact the table").with_retryable(false);
                return Err(DataFusionError::from(error));
            }
            for path in logged.paths()? {
                of.lake.store.stays_within(&of.path(&path)?).await?;
            }
            let most = logged.logs.saturating_mul(UNPACKED);
            let held = MemoryConsumer::new("merge of log files").register(task.memory_pool());
            held.try_grow(usize::try_from(most.saturating_add(logged.base)).unwrap_or(usize::MAX))?;
            of.check(&logged).await?;
            let options = of.options(most);
            let said = |error: CoreError| DataFusionError::from(explained(&of.lake, &of.folder, error));
            let reader = of.table.create_file_group_reader_with_options(Some(&options), std::iter::empty::<(&str, &str)>());
            let merged = reader.await.map_err(said)?.read_file_slice_stream(&logged.slice, &options).await.map_err(said)?;
            let rows = merged.map(move |batch| {
                // Until the last row.
                let _held = &held;
                let batch = batch.map_err(|error| explained(&of.lake, &of.folder, error))?;
                let batch = conformed(&batch, &schema)?;
                count.add(batch.num_rows());
                Ok::<_, DataFusionError>(batch)
            });
            Ok::<_, DataFusionError>(rows.boxed())
        };
        let opened = guarded(opening, move |error| located.located(&slice, error).into());
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(opened).try_flatten())))
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
    fn a_table_in_a_bucket_has_an_address_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let here = Location::Folder(folder.path().to_owned());
        let store = Arc::new(crate::stores::Store::open("lake", &here).unwrap());
        let lake = Lake::new(store, &here);
        let access = crate::stores::Access {
            endpoint: Some("http://h".to_owned()),
            region: None,
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("secret".to_owned().into()),
            session_token: None,
            allow_http: true,
        };
        let bucket = Location::Bucket { bucket: "b".to_owned(), prefix: Path::from("x"), access };
        let (at, options) = address(&lake, &bucket, &Path::from("a b")).unwrap();
        assert_eq!(at.as_str(), "s3://b/x/a%20b");
        let keys: Vec<&str> = options.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["aws_endpoint", "aws_access_key_id", "aws_secret_access_key", "aws_allow_http"]);
        let (at, options) = address(&lake, &here, &Path::from("a b")).unwrap();
        assert!(at.as_str().starts_with("file:///") && at.as_str().ends_with("/a%20b/") && options.is_empty());
    }
}
