//! The columns of a text or Arrow file, from a bounded part of its beginning.

use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::Error;
use object_store::ObjectStoreExt;

use super::arrow_file;
use super::format::Format;
use super::listing::{File, Listing};
use super::quotes::Quotes;
use super::whole_numbers;
use crate::stores::PinnedStore;

/// How much of a file is looked at, after it is unpacked.
const HEAD: usize = 4 * 1024 * 1024;
/// How many rows types are guessed from.
const ROWS: usize = 20_000;
/// How many columns are guessed, those within others among them.
const COLUMNS: usize = 10_000;

/// How text is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) header: bool,
    pub(super) delimiter: u8,
}

/// What one file says of itself.
pub(super) struct Seen {
    pub(super) schema: Schema,
    pub(super) statistics: Option<Statistics>,
}

/// Reads the beginning of a file for its columns.
pub(super) async fn read(store: &Arc<PinnedStore>, listing: &Listing, file: &File, options: &Options) -> Result<Seen> {
    let (head, whole) = head(store, file, listing.compression).await?;
    let is_text = matches!(listing.format, Format::Csv | Format::Json);
    if is_text && !whole && !head.contains(&b'\n') {
        let message = format!("the first line is longer than {} MiB, so the columns cannot be guessed from it", HEAD >> 20);
        return Err(Error::data(message).with_hint("declare the table's columns").into());
    }
    let (bytes, rows_seen) = (head.len(), head.iter().filter(|byte| **byte == b'\n').count());
    let schema = match listing.format {
        Format::Csv => csv_columns(rows(&head, whole, options)?, options)?,
        Format::Json => json_columns(lines(&head, whole))?,
        Format::Arrow | Format::Parquet => arrow_file::columns(head).await?,
    };
    let columns = schema.flattened_fields().len();
    if is_text && columns > COLUMNS {
        let message = format!("the first rows have {columns} columns and keys, the limit is {COLUMNS}");
        return Err(Error::data(message).with_hint("declare the table's columns").into());
    }
    let statistics = is_text.then(|| guessed(&schema, bytes / rows_seen.max(1), bytes.max(file.meta.size as usize)));
    Ok(Seen { schema, statistics })
}

/// How many rows there are if all are as wide as the first ones. What is packed has more of both.
fn guessed(schema: &Schema, width: usize, bytes: usize) -> Statistics {
    Statistics {
        num_rows: Precision::Inexact(bytes / width.max(1)),
        total_byte_size: Precision::Inexact(bytes),
        ..Statistics::new_unknown(schema)
    }
}

fn csv_columns(text: &[u8], options: &Options) -> Result<Schema> {
    let format = arrow::csv::reader::Format::default().with_header(options.header).with_delimiter(options.delimiter);
    let error = match format.infer_schema(Cursor::new(text), Some(ROWS)) {
        Ok((schema, _)) => return Ok(schema),
        Err(error) => error,
    };
    // The guess says no line, or the one after; reading says the line.
    let (first, _) = format.infer_schema(Cursor::new(text), Some(0))?;
    let columns: Vec<Field> = first.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true)).collect();
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(columns))).with_format(format).build(Cursor::new(text))?;
    Err(reader.into_iter().find_map(std::result::Result::err).unwrap_or(error).into())
}

fn json_columns(text: &[u8]) -> Result<Schema> {
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(Error::data("the file is one array of JSON, and not an object in each line")
            .with_hint("write an object in each line, as jq -c '.[]' does")
            .into());
    }
    let error = match arrow::json::reader::infer_json_schema(Cursor::new(text), Some(ROWS)) {
        Ok((schema, _)) => return Ok(whole_numbers::kept(schema, text)),
        Err(error) => error,
    };
    // The guess counts lines within a value only.
    let wrong = text.split(|byte| *byte == b'\n').zip(1..).find_map(|(line, number)| {
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        let cause = serde_json::from_slice::<serde::de::IgnoredAny>(line).err().filter(|_| !is_blank)?;
        let cause = cause.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default();
        Some(ArrowError::JsonError(format!("not valid JSON for line {number}, {cause}")))
    });
    Err(wrong.unwrap_or(error).into())
}

/// The beginning of a file, unpacked, and whether that is all of it.
async fn head(store: &Arc<PinnedStore>, file: &File, compression: FileCompressionType) -> Result<(Vec<u8>, bool)> {
    let bytes = store.get(&file.meta.location).await?.into_stream();
    let mut unpacked = compression.convert_stream(bytes.map_err(DataFusionError::from).boxed())?;
    let mut head = Vec::new();
    while let Some(piece) = unpacked.try_next().await? {
        head.extend_from_slice(&piece);
        if head.len() >= HEAD {
            return Ok((head, false));
        }
    }
    Ok((head, true))
}

/// The whole rows of a beginning: a line may end within a value. Errors: `Data`, where the file itself ends within one.
fn rows<'a>(head: &'a [u8], whole: bool, options: &Options) -> Result<&'a [u8]> {
    let mut quotes = Quotes::new(options.delimiter);
    let end = quotes.piece(head);
    if whole {
        quotes.end()?;
        return Ok(head);
    }
    Ok(head.get(..end).filter(|rows| !rows.is_empty()).unwrap_or(head))
}

/// The whole lines of a beginning.
fn lines(head: &[u8], whole: bool) -> &[u8] {
    let end = if whole { None } else { head.iter().rposition(|byte| *byte == b'\n') };
    end.and_then(|end| head.get(..=end)).unwrap_or(head)
}
