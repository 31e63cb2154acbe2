//! The table that a statement reads: exactly the files that were listed when it was resolved.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::config::{CsvOptions, TableParquetOptions};
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    ArrowSource, CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::format::Format;
use super::heads;
use super::listing::{File, Listing};
use super::located::Located;
use super::shape::Shape;
use super::strict::fields_read_as;
use super::text_file::Text;
use crate::stores::{Footers, PinnedStore, Reader, Readers, Store, unqualified};

/// A table over the files of one listing.
pub(super) struct FilesTable {
    pub(super) store: Arc<Store>,
    pub(super) pinned: Arc<PinnedStore>,
    pub(super) footers: Footers,
    pub(super) listing: Arc<Listing>,
    pub(super) shape: Arc<Shape>,
    pub(super) text: heads::Options,
    /// Under which the statement's session knows the files; no other listing has the same.
    pub(super) url: ObjectStoreUrl,
    schema: TableSchema,
}

impl FilesTable {
    pub(super) fn new(
        store: Arc<Store>,
        pinned: Arc<PinnedStore>,
        footers: Footers,
        listing: Arc<Listing>,
        shape: Arc<Shape>,
        text: heads::Options,
        url: ObjectStoreUrl,
    ) -> Self {
        let partitions: Vec<FieldRef> = listing.partitions.iter().cloned().map(Arc::new).collect();
        let schema = TableSchema::new(Arc::clone(&shape.columns), partitions);
        Self { store, pinned, footers, listing, shape, text, url, schema }
    }

    /// DataFusion's reader of the format.
    fn reader(&self) -> Arc<dyn FileSource> {
        let format = self.listing.format;
        let read = Schema::new(fields_read_as(format, self.shape.columns.fields()));
        let schema = TableSchema::new(Arc::new(read), self.schema.table_partition_cols().clone());
        match format {
            Format::Parquet => {
                let mut options = TableParquetOptions::default();
                options.global.schema_force_view_types = false;
                let readers = Readers { store: Arc::clone(&self.pinned), footers: self.footers.clone(), rewrite: None };
                let source = ParquetSource::new(schema).with_table_parquet_options(options);
                Arc::new(source.with_parquet_file_reader_factory(Arc::new(readers)))
            }
            Format::Csv => {
                // A value may hold a newline, so a file is read from its start, and lines count right.
                let options = CsvOptions {
                    has_header: Some(self.text.header),
                    delimiter: self.text.delimiter,
                    newlines_in_values: Some(true),
                    ..CsvOptions::default()
                };
                Arc::new(CsvSource::new(schema).with_csv_options(options))
            }
            Format::Json => Arc::new(JsonSource::new(schema)),
            Format::Arrow => Arc::new(ArrowSource::new_file_source(schema)),
        }
    }

    /// The files that can hold wanted rows, judged by the values of their folders.
    fn wanted(&self, filters: &[Expr]) -> DataFusionResult<Vec<(usize, &File)>> {
        let files = self.listing.files.iter().enumerate();
        let judged = filters.iter().filter(|filter| self.judges_folders(filter)).cloned();
        let Some(filter) = conjunction(judged) else { return Ok(files.collect()) };
        if self.listing.files.is_empty() {
            return Ok(Vec::new());
        }
        let fields = Arc::new(Schema::new(self.listing.partitions.clone()));
        let column = |index: usize| {
            let values = self.listing.files.iter().filter_map(|file| file.values.get(index).cloned());
            ScalarValue::iter_to_array(values)
        };
        let columns = (0..fields.fields().len()).map(column).collect::<DataFusionResult<_>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&fields), columns)?;
        let bare = unqualified(filter)?;
        let physical = create_physical_expr(&bare, &DFSchema::try_from(fields)?, &ExecutionProps::new())?;
        let verdict = physical.evaluate(&rows)?.into_array(rows.num_rows())?;
        let verdict = as_boolean_array(&verdict)?;
        Ok(files.zip(verdict).filter(|(_, passes)| *passes == Some(true)).map(|(file, _)| file).collect())
    }

    /// Whether a filter names partition columns only, so that it holds for all rows of a file or for none.
    fn judges_folders(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let folder = |name: &str| self.listing.partitions.iter().any(|field| field.name() == name);
        !columns.is_empty() && columns.iter().all(|column| folder(&column.name)) && !filter.is_volatile()
    }

    /// The files as DataFusion scans them, in groups that are read side by side, with what is known of all of them.
    fn groups(&self, files: Vec<(usize, &File)>, at_once: usize) -> DataFusionResult<(Vec<FileGroup>, Statistics)> {
        let known = !self.shape.statistics.is_empty();
        let mut all = Vec::with_capacity(files.len());
        for (index, file) in files {
            let mut part = PartitionedFile::new_from_meta(file.meta.clone()).with_partition_values(file.values.clone());
            if let Some(statistics) = self.shape.statistics.get(index) {
                part = part.with_statistics(Arc::clone(statistics));
            }
            all.push(part);
        }
        let schema = self.schema.table_schema();
        let total = match known {
            true => Statistics::try_merge_iter(all.iter().filter_map(|file| file.statistics.as_deref()), schema)?,
            false => Statistics::new_unknown(schema),
        };
        Ok((FileGroup::new(all).split_files(at_once.max(1)), total))
    }
}

impl fmt::Debug for FilesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listing { format, files, version, .. } = self.listing.as_ref();
        write!(f, "FilesTable({} {} files of {:?}, version {version})", files.len(), format.name(), self.store)
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match self.listing.format {
            _ if self.judges_folders(filter) => TableProviderFilterPushDown::Exact,
            // Row groups and pages are left out by their statistics; the plan filters the rest.
            Format::Parquet => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let files = self.wanted(filters)?;
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        state.runtime_env().register_object_store(self.url.as_ref(), Arc::clone(&self.pinned) as _);
        let (groups, statistics) = self.groups(files, state.config().target_partitions())?;
        let format = self.listing.format;
        let opens = Located {
            store: Arc::clone(&self.store),
            format,
            text: Text { format, options: self.text, guessed: self.shape.guessed },
            batch_size: state.config().batch_size(),
            schema: self.schema.clone(),
        };
        let source = Arc::new(Reader { inner: self.reader(), opens });
        let config = FileScanConfigBuilder::new(self.url.clone(), source)
            .with_file_groups(groups)
            .with_file_compression_type(self.listing.compression)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn statistics(&self) -> Option<Statistics> {
        let all = self.listing.files.iter().enumerate().collect();
        self.groups(all, 1).ok().map(|(_, statistics)| statistics)
    }
}
