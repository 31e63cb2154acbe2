//! The columns of a table and what is known of its rows, from the heads or footers of its files.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, Result};
use parquet::arrow::parquet_to_arrow_schema;

use super::format::Format;
use super::heads::{self, Seen};
use super::listing::{File, Listing};

use crate::stores::{Footers, Locate, PinnedStore, Store};

/// How many files are opened at once to learn their columns.
const OPENED_AT_ONCE: usize = 16;

/// What the files of a table have in common.
#[derive(Debug)]
pub(super) struct Shape {
    /// The columns in the files, without those that folders hold.
    pub(super) columns: SchemaRef,
    /// What is known of each file's rows, in the order of the listing; empty where nothing is.
    pub(super) statistics: Vec<Arc<Statistics>>,
    /// Whether the columns come from the files and not from a declaration.
    pub(super) guessed: bool,
}

impl Shape {
    /// The shape that a declaration gives, without opening a file.
    pub(super) fn declared(columns: &Fields) -> Self {
        Self { columns: Arc::new(Schema::new(columns.clone())), statistics: Vec::new(), guessed: false }
    }

    /// Opens every file for its columns. Errors: `Data`, naming the file, or the two files that do not fit together.
    pub(super) async fn infer(
        store: &Store,
        pinned: &Arc<PinnedStore>,
        footers: &Footers,
        listing: &Listing,
        head: &heads::Options,
    ) -> Result<Self> {
        let open = |file| async move {
            let seen = match listing.format {
                Format::Parquet => parquet(pinned, footers, file).await,
                Format::Csv | Format::Json | Format::Arrow => heads::read(pinned, listing, file, head).await,
            };
            seen.map_err(|error| store.locate(error, &file.meta.location))
        };
        let opened: Vec<_> = listing.files.iter().map(open).collect();
        let seen: Vec<Seen> = stream::iter(opened).buffered(OPENED_AT_ONCE).try_collect().await?;
        for (file, seen) in listing.files.iter().zip(&seen) {
            distinct(&seen.schema).map_err(|error| error.at(store.place(&file.meta.location)))?;
        }
        if listing.format == Format::Csv {
            same_headers(store, &listing.files, &seen)?;
        }
        let lenient = matches!(listing.format, Format::Csv | Format::Json);
        let mut merged = Merged::default();
        for (index, (file, seen)) in listing.files.iter().zip(&seen).enumerate() {
            for field in seen.schema.fields() {
                // A column that folders hold is taken from there, as other engines do.
                if listing.partitions.iter().any(|partition| partition.name() == field.name()) {
                    continue;
                }
                merged.add(field, index, lenient).map_err(|(first, held)| {
                    let other = listing.files.get(first).map(|file| store.show(&file.meta.location)).unwrap_or_default();
                    let (name, found) = (field.name(), field.data_type());
                    Error::data(format!("the column \"{name}\" is {found} here and {held} in {other}"))
                        .with_hint("write both files with one type, or declare the table's columns")
                        .at(store.place(&file.meta.location))
                })?;
            }
        }
        let fields = merged.columns.into_iter().map(|Column { field, files, .. }| {
            // A column that a file lacks is NULL there.
            let nullable = field.is_nullable() || files < seen.len();
            // Nothing is known of a column without a value so far; as text, whatever comes later is kept.
            let data_type = match field.data_type() {
                DataType::Null if lenient => DataType::Utf8,
                known => known.clone(),
            };
            Arc::new(Field::new(field.name(), data_type, nullable))
        });
        let columns = Arc::new(Schema::new(fields.collect::<Fields>()));
        let statistics = seen.into_iter().map(|seen| Some(Arc::new(fit(seen.statistics?, &seen.schema, &columns)))).collect();
        Ok(Self { columns, statistics: Option::unwrap_or_default(statistics), guessed: true })
    }
}

/// Refuses two columns of one name: whoever names one of them would get whichever comes first.
fn distinct(schema: &Schema) -> Result<()> {
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(field) => Err(Error::data(format!("two columns of this file are named \"{}\"", field.name()))
            .with_hint("give each its own name, or declare the columns of a CSV file without a header")),
    }
}

/// CSV is read by position, so every file needs the same columns in the same order.
fn same_headers(store: &Store, files: &[File], seen: &[Seen]) -> Result<()> {
    let names = |seen: &Seen| seen.schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let Some((first, wanted)) = files.first().zip(seen.first().map(names)) else { return Ok(()) };
    match files.iter().zip(seen).find(|(_, seen)| names(seen) != wanted) {
        None => Ok(()),
        Some((file, seen)) => {
            let (found, other) = (names(seen).join(", "), store.show(&first.meta.location));
            Err(Error::data(format!("the columns are {found} here and {} in {other}", wanted.join(", ")))
                .with_hint("give all CSV files of a table the same columns in the same order, or declare a table for each")
                .at(store.place(&file.meta.location)))
        }
    }
}

async fn parquet(store: &Arc<PinnedStore>, footers: &Footers, file: &File) -> Result<Seen, datafusion::error::DataFusionError> {
    let footer = footers.read(store, &file.meta, None).await?;
    let descriptor = footer.file_metadata();
    let written = parquet_to_arrow_schema(descriptor.schema_descr(), descriptor.key_value_metadata())?;
    let mut statistics = DFParquetMetadata::statistics_from_parquet_metadata(&footer, &Arc::new(written.clone()))?;
    statistics.column_statistics.iter_mut().for_each(without_endless_bounds);
    let fields: Fields = written.fields().iter().map(|field| Arc::new(plain(field))).collect();
    Ok(Seen { schema: Schema::new(fields), statistics: Some(statistics) })
}

/// Leaves out bounds that are as far apart as their type allows: the optimizer counts the values between them in 64 bits, and
/// fails where there are more.
fn without_endless_bounds(column: &mut ColumnStatistics) {
    let whole = |bound: &Precision<ScalarValue>| match bound.get_value()?.cast_to(&DataType::Decimal128(38, 0)) {
        Ok(ScalarValue::Decimal128(value, ..)) => value,
        _ => None,
    };
    let is_number = |bound: &Precision<ScalarValue>| bound.get_value().is_some_and(|value| value.data_type().is_integer());
    if !is_number(&column.min_value) || !is_number(&column.max_value) {
        return;
    }
    let span = whole(&column.max_value).zip(whole(&column.min_value)).map(|(max, min)| max - min);
    if span.is_none_or(|span| span >= i128::from(i64::MAX)) {
        column.min_value = Precision::Absent;
        column.max_value = Precision::Absent;
    }
}

/// The field without views, which not every client can read, and without the writer's notes.
fn plain(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

/// The columns of several files.
#[derive(Default)]
struct Merged {
    columns: Vec<Column>,
    /// Where each of them is.
    named: HashMap<String, usize>,
}

struct Column {
    field: FieldRef,
    /// The first file that has it.
    first: usize,
    /// How many have it.
    files: usize,
}

impl Merged {
    /// Adds the field of a file. Errors: the first file with a type that does not fit, and that type.
    fn add(&mut self, field: &FieldRef, file: usize, lenient: bool) -> Result<(), (usize, DataType)> {
        let Some(held) = self.named.get(field.name()).and_then(|index| self.columns.get_mut(*index)) else {
            self.named.insert(field.name().clone(), self.columns.len());
            self.columns.push(Column { field: Arc::clone(field), first: file, files: 1 });
            return Ok(());
        };
        let (one, other) = (held.field.data_type(), field.data_type());
        let common = common(one, other, lenient).ok_or_else(|| (held.first, one.clone()))?;
        held.field = Arc::new(Field::new(field.name(), common, held.field.is_nullable() || field.is_nullable()));
        held.files += 1;
        Ok(())
    }
}

/// The type that holds every value of both, if there is one. What was only guessed from text may become text again.
fn common(a: &DataType, b: &DataType, lenient: bool) -> Option<DataType> {
    use DataType::{Date32, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, Timestamp, Utf8};
    if a == b {
        return Some(a.clone());
    }
    let wider = |small: &[DataType], large: DataType| {
        let within = |data_type: &DataType| *data_type == large || small.contains(data_type);
        (within(a) && within(b)).then_some(large.clone())
    };
    match (a, b) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Date32, Timestamp(..)) | (Timestamp(..), Date32) if lenient => {
            Some(if matches!(a, Date32) { b.clone() } else { a.clone() })
        }
        _ => wider(&[Int8], Int16)
            .or_else(|| wider(&[Int8, Int16], Int32))
            .or_else(|| wider(&[Int8, Int16, Int32], Int64))
            .or_else(|| wider(&[Float32, Int8, Int16, Int32], Float64))
            .or_else(|| wider(&[Utf8], LargeUtf8))
            .or_else(|| if lenient { wider(&[Int64], Float64) } else { None })
            .or_else(|| (lenient && !a.is_nested() && !b.is_nested()).then_some(Utf8)),
    }
}

/// Statistics of a file as statistics of the table's columns. What was measured in another type is not known in this one.
fn fit(statistics: Statistics, schema: &Schema, columns: &Schema) -> Statistics {
    let column = |field: &FieldRef| {
        let known = schema.index_of(field.name()).ok().and_then(|index| {
            let same = schema.fields().get(index)?.data_type() == field.data_type();
            statistics.column_statistics.get(index).filter(|_| same).cloned()
        });
        let mut known = known.unwrap_or_else(ColumnStatistics::new_unknown);
        if field.data_type().is_floating() {
            // Parquet leaves NaN out of these, and SQL does not.
            known.min_value = known.min_value.to_inexact();
            known.max_value = known.max_value.to_inexact();
        }
        known
    };
    let column_statistics = columns.fields().iter().map(column).collect();
    Statistics { column_statistics, ..statistics }
}
