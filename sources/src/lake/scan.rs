//! The one scan of all lake tables: a snapshot's files by DataFusion's Parquet reader, less those that cannot hold wanted rows.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{FieldRef, Schema, SchemaRef, UInt64Type};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column as ColumnName, ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Accumulator, Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::access::Lake;
use super::columns::Columns;
use super::conform::Conforming;
use super::open::{AsSnapshot, Place};
use super::snapshot::{Bounds, DataFile, Lacking, Snapshot};
use crate::stores::{PinnedStore, Reader, Readers, immutable, session_url, unqualified};

/// Of how many files at most DataFusion is told what is known of each: it looks at them again as its own conditions get narrower.
const DESCRIBED: usize = 1000;

/// A table at one snapshot.
pub(crate) struct LakeTable {
    lake: Arc<Lake>,
    snapshot: Arc<Snapshot>,
    version: String,
    /// The columns in the order in which DataFusion scans them.
    order: Vec<usize>,
    /// Under which the statement's session knows the files; no other snapshot has the same.
    url: ObjectStoreUrl,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LakeTable({} files of {:?}, version {})", self.snapshot.files.len(), self.lake, self.version)
    }
}

impl LakeTable {
    /// The table of this name in a catalog, as it is in this version. Errors: `Internal`.
    pub(crate) fn new(lake: Arc<Lake>, catalog: &str, table: &str, version: &str, snapshot: Arc<Snapshot>) -> Result<Self> {
        let url = session_url(&format!("{catalog}\0{table}\0{version}"))?;
        let order = scan_order(&snapshot);
        Ok(Self { lake, snapshot, version: version.to_owned(), order, url })
    }

    /// What is known of the files.
    fn known(&self) -> Known<'_> {
        let Snapshot { schema, bounds, lacking, files, .. } = &*self.snapshot;
        Known { schema, bounds, rows: files.iter().map(|file| file.rows).collect(), lacking: lacking.as_deref() }
    }

    /// The files as DataFusion scans them, in groups that are read side by side.
    fn groups(&self, files: &[usize], at_once: usize) -> Vec<FileGroup> {
        let described = files.len() <= DESCRIBED;
        let parts = files.iter().filter_map(|place| {
            let file = self.snapshot.files.get(*place)?;
            let mut part = PartitionedFile::new_from_meta(immutable(file.path.clone(), file.size))
                .with_partition_values(file.constants.clone())
                .with_extensions(Arc::new(Place(*place)));
            if described {
                part.statistics = Some(Arc::new(self.statistics_of_one(*place, file)));
            }
            Some(part)
        });
        let mut parts = parts.peekable();
        // In the order of the snapshot, which is that of each plan: DataFusion would sort them by their paths for that.
        let each = files.len().div_ceil(at_once.max(1));
        let group = || parts.peek().is_some().then(|| FileGroup::new(parts.by_ref().take(each).collect()));
        std::iter::from_fn(group).collect()
    }

    /// What is known of all rows of one file, in the order of the scan's columns.
    fn statistics_of_one(&self, place: usize, file: &DataFile) -> Statistics {
        if file.rows == Some(0) {
            return self.statistics_of(&[place]);
        }
        let left = file.rows.and_then(|rows| usize::try_from(rows.checked_sub(file.deleted?)?).ok());
        let all = file.rows.and_then(|rows| usize::try_from(rows).ok()).map_or(Precision::Absent, Precision::Inexact);
        let size = usize::try_from(file.size).map_or(Precision::Absent, Precision::Inexact);
        let columns = self.order.iter().map(|column| {
            let bounds = self.snapshot.bounds.get(*column);
            bounds.map_or_else(ColumnStatistics::new_unknown, |bounds| bounds.of_one(place, file))
        });
        Statistics { num_rows: left.map_or(all, Precision::Exact), total_byte_size: size, column_statistics: columns.collect() }
    }

    /// What is known of all rows of some files, in the order of the scan's columns.
    fn statistics_of(&self, files: &[usize]) -> Statistics {
        // Of a file without rows whatever is known of its values is known of none.
        let chosen = files.iter().filter_map(|place| Some((*place, self.snapshot.files.get(*place)?)));
        let (places, chosen): (Vec<usize>, Vec<&DataFile>) = chosen.filter(|(_, file)| file.rows != Some(0)).unzip();
        let left = |file: &&DataFile| file.rows?.checked_sub(file.deleted?);
        let rows = match (sum(chosen.iter().map(left)), sum(chosen.iter().map(|file| file.rows))) {
            (Some(rows), _) => Precision::Exact(rows),
            (None, Some(rows)) => Precision::Inexact(rows),
            (None, None) => Precision::Absent,
        };
        let untouched = chosen.iter().all(|file| file.deletes.is_none());
        // All of them stand in the arrays as they are wanted.
        let some = (places.len() < self.snapshot.files.len())
            .then(|| UInt64Array::from_iter_values(places.iter().map(|place| *place as u64)));
        let bytes = sum(chosen.iter().map(|file| Some(file.size))).map_or(Precision::Absent, Precision::Inexact);
        let columns = self.order.iter().map(|column| {
            let bounds = self.snapshot.bounds.get(*column);
            bounds.map_or_else(ColumnStatistics::new_unknown, |bounds| bounds.of(some.as_ref(), &chosen, untouched))
        });
        Statistics { num_rows: rows, total_byte_size: bytes, column_statistics: columns.collect() }
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.snapshot.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // Files, row groups and pages are left out by what is known of them; the plan filters the rest.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let files = self.known().wanted(filters)?;
        let all: Vec<usize> = (0..self.snapshot.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.snapshot.schema.project(wanted)?))));
        }
        let pinned = files.iter().filter_map(|file| self.snapshot.files.get(*file)).map(|file| (file.path.clone(), file.size));
        let pinned = Arc::new(PinnedStore::immutable(Arc::clone(&self.lake.store), pinned));
        state.runtime_env().register_object_store(self.url.as_ref(), Arc::clone(&pinned) as _);
        let places = wanted.iter().filter_map(|column| self.order.iter().position(|at| at == column)).collect();
        let pool = Arc::clone(&state.runtime_env().memory_pool);
        let groups = self.groups(&files, state.config().target_partitions());
        let config = config(&self.lake, &self.snapshot, pinned, pool, self.url.clone())
            .with_file_groups(groups)
            .with_statistics(self.statistics_of(&files))
            .with_limit(limit)
            .with_projection_indices(Some(places))?;
        Ok(DataSourceExec::from_data_source(config.build()))
    }

    fn statistics(&self) -> Option<Statistics> {
        let all: Vec<usize> = (0..self.snapshot.files.len()).collect();
        let scanned = self.statistics_of(&all);
        // In the order of the table's columns.
        let columns = (0..self.order.len()).map(|column| {
            let place = self.order.iter().position(|at| *at == column);
            place.and_then(|place| scanned.column_statistics.get(place).cloned()).unwrap_or_else(ColumnStatistics::new_unknown)
        });
        Some(Statistics { column_statistics: columns.collect(), ..scanned })
    }
}

/// The rows of one Parquet file as batches with the columns of `schema`, which the file has under the names of `columns`; a column
/// that it lacks is NULL. In the order of the file. Errors: `Data` with the file as its place.
pub(crate) async fn rows(
    lake: &Arc<Lake>,
    path: &Path,
    size: u64,
    schema: SchemaRef,
    columns: &Columns,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let name = path.to_string();
    let file = DataFile { path: path.clone(), name, size, rows: None, deleted: Some(0), constants: Vec::new(), deletes: None };
    let bounds = schema.fields().iter().map(|field| Bounds::unknown(field.data_type(), 1)).collect();
    let columns = Arc::new(columns.clone());
    let snapshot = Arc::new(Snapshot { schema, columns, constants: Vec::new(), files: vec![file], bounds, lacking: None });
    let url = session_url(&format!("\0{path}"))?;
    let pinned = Arc::new(PinnedStore::immutable(Arc::clone(&lake.store), [(path.clone(), size)]));
    let task = Arc::new(TaskContext::default());
    task.runtime_env().register_object_store(url.as_ref(), Arc::clone(&pinned) as _);
    let part = PartitionedFile::new_from_meta(immutable(path.clone(), size)).with_extensions(Arc::new(Place(0)));
    let config = config(lake, &snapshot, pinned, Arc::new(UnboundedMemoryPool::default()), url).with_file(part).build();
    let rows = DataSourceExec::from_data_source(config).execute(0, task)?;
    Ok(rows.map_err(Error::from).boxed())
}

/// The scan of a snapshot, without any files yet.
fn config(
    lake: &Arc<Lake>,
    snapshot: &Arc<Snapshot>,
    pinned: Arc<PinnedStore>,
    pool: Arc<dyn MemoryPool>,
    url: ObjectStoreUrl,
) -> FileScanConfigBuilder {
    let field = |column: &usize| snapshot.schema.fields().get(*column).cloned();
    let constants: Vec<FieldRef> = snapshot.constants.iter().filter_map(field).collect();
    let held: Vec<FieldRef> = held(snapshot).iter().filter_map(field).collect();
    let schema = TableSchema::new(Arc::new(Schema::new(held)), constants);
    let mut options = TableParquetOptions::default();
    options.global.schema_force_view_types = false;
    // What Spark writes by default, over a range of years that nanoseconds do not have.
    options.global.coerce_int96 = Some("us".to_owned());
    let readers = Readers { store: pinned, footers: lake.footers.clone(), rewrite: Some(Arc::clone(&snapshot.columns) as _) };
    let source = ParquetSource::new(schema)
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(readers.clone()));
    let opens = AsSnapshot { lake: Arc::clone(lake), snapshot: Arc::clone(snapshot), readers, pool };
    let reader = Arc::new(Reader { inner: Arc::new(source), opens });
    FileScanConfigBuilder::new(url, reader).with_expr_adapter(Some(Arc::new(Conforming(snapshot.columns.floats()))))
}

/// The columns that the files hold.
fn held(snapshot: &Snapshot) -> Vec<usize> {
    (0..snapshot.schema.fields().len()).filter(|column| !snapshot.constants.contains(column)).collect()
}

/// The columns in the order in which DataFusion scans them: those that the files hold, then those that do not vary in one.
fn scan_order(snapshot: &Snapshot) -> Vec<usize> {
    held(snapshot).into_iter().chain(snapshot.constants.iter().copied()).collect()
}

/// What is known of the files of a table, as DataFusion asks for it.
pub(crate) struct Known<'a> {
    /// The columns of the table.
    pub(crate) schema: &'a SchemaRef,
    /// What is known of the values of each, file by file.
    pub(crate) bounds: &'a [Bounds],
    /// The rows of each file, where they are known.
    pub(crate) rows: UInt64Array,
    /// What tells of files that they lack values, where there is such.
    pub(crate) lacking: Option<&'a dyn Lacking>,
}

impl Known<'_> {
    /// The files that can hold rows which meet these conditions, by their places.
    pub(crate) fn wanted(&self, filters: &[Expr]) -> DataFusionResult<Vec<usize>> {
        let all = 0..self.rows.len();
        let stable = filters.iter().filter(|filter| !filter.is_volatile()).cloned();
        let Some(filter) = conjunction(stable).filter(|_| !all.is_empty()) else { return Ok(all.collect()) };
        let schema = Arc::clone(self.schema);
        let known = DFSchema::try_from(Arc::clone(&schema))?;
        let physical = create_physical_expr(&unqualified(filter)?, &known, &ExecutionProps::new())?;
        let verdict = PruningPredicate::try_new(physical, schema)?.prune(self)?;
        Ok(all.zip(verdict).filter(|(_, wanted)| *wanted).map(|(file, _)| file).collect())
    }

    fn bounds(&self, column: &ColumnName) -> Option<&Bounds> {
        self.bounds.get(self.schema.index_of(&column.name).ok()?)
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        Some(Arc::clone(&self.bounds(column)?.min))
    }

    fn max_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        Some(Arc::clone(&self.bounds(column)?.max))
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &ColumnName) -> Option<ArrayRef> {
        Some(Arc::new(self.bounds(column)?.nulls.clone()))
    }

    fn row_counts(&self, _column: &ColumnName) -> Option<ArrayRef> {
        Some(Arc::new(self.rows.clone()))
    }

    fn contained(&self, column: &ColumnName, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let place = self.schema.index_of(&column.name).ok()?;
        let lacking = self.lacking?.lacking(place, &values.iter().collect::<Vec<_>>())?;
        // That a file has these values and no others is not known of any.
        Some(lacking.into_iter().map(|lacks| lacks.then_some(false)).collect())
    }
}

impl Bounds {
    /// What is known of the column in one file, in whose place it stands.
    fn of_one(&self, place: usize, file: &DataFile) -> ColumnStatistics {
        let untouched = file.deletes.is_none();
        let nulls = self.nulls.is_valid(place).then(|| self.nulls.value(place));
        let is_exact = untouched && (self.exact.value(place) || (nulls.is_some() && nulls == file.rows));
        let bound = |bounds: &ArrayRef| match ScalarValue::try_from_array(bounds, place) {
            Ok(value) if value.is_null() => Precision::Absent,
            Ok(value) if is_exact => Precision::Exact(value),
            Ok(value) => Precision::Inexact(value),
            Err(_) => Precision::Absent,
        };
        let null_count = nulls.and_then(|nulls| usize::try_from(nulls).ok());
        let null_count = match null_count {
            Some(count) if untouched => Precision::Exact(count),
            Some(count) => Precision::Inexact(count),
            None => Precision::Absent,
        };
        let (min_value, max_value) = (bound(&self.min), bound(&self.max));
        ColumnStatistics { null_count, min_value, max_value, ..ColumnStatistics::new_unknown() }
    }

    /// What is known of the column in these files together, which are in these places, or all there are; `untouched` where none of
    /// their rows is deleted.
    fn of(&self, places: Option<&UInt64Array>, files: &[&DataFile], untouched: bool) -> ColumnStatistics {
        self.known(places, files, untouched).unwrap_or_else(|_| ColumnStatistics::new_unknown())
    }

    fn known(&self, places: Option<&UInt64Array>, files: &[&DataFile], untouched: bool) -> DataFusionResult<ColumnStatistics> {
        let of_files = |values: &dyn Array| match places {
            Some(places) => take(values, places, None),
            None => Ok(values.slice(0, values.len())),
        };
        let nulls = of_files(&self.nulls)?;
        let nulls = nulls.as_primitive::<UInt64Type>();
        let is_null = |at: usize, file: &DataFile| nulls.is_valid(at) && file.rows == Some(nulls.value(at));
        let (min, max, exact) = (of_files(&self.min)?, of_files(&self.max)?, of_files(&self.exact)?);
        let exact = exact.as_boolean();
        let is_exact = untouched && (0..exact.len()).zip(files).all(|(at, file)| exact.value(at) || is_null(at, file));
        // Without a bound a file can hold anything, unless it holds NULL and nothing else.
        let is_bounded =
            |bounds: &ArrayRef| (0..bounds.len()).zip(files).all(|(at, file)| bounds.is_valid(at) || is_null(at, file));
        let bound = |bounds: &ArrayRef, mut best: Box<dyn Accumulator>| -> DataFusionResult<Precision<ScalarValue>> {
            if !is_bounded(bounds) {
                return Ok(Precision::Absent);
            }
            best.update_batch(&[Arc::clone(bounds)])?;
            Ok(match best.evaluate()? {
                value if value.is_null() => Precision::Absent,
                value if is_exact => Precision::Exact(value),
                value => Precision::Inexact(value),
            })
        };
        let null_count = match sum(nulls.iter()) {
            Some(count) if untouched => Precision::Exact(count),
            Some(count) => Precision::Inexact(count),
            None => Precision::Absent,
        };
        let min_value = bound(&min, Box::new(MinAccumulator::try_new(min.data_type())?))?;
        let max_value = bound(&max, Box::new(MaxAccumulator::try_new(max.data_type())?))?;
        Ok(ColumnStatistics { null_count, min_value, max_value, ..ColumnStatistics::new_unknown() })
    }
}

/// The sum of numbers that metadata tells; none where one is missing, or they cannot be true.
fn sum(numbers: impl Iterator<Item = Option<u64>>) -> Option<usize> {
    let sum = numbers.into_iter().try_fold(0_u64, |sum, number| sum.checked_add(number?))?;
    usize::try_from(sum).ok()
}
