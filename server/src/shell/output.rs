//! The forms in which `nexus sql` writes rows: each as it comes, none of them collected.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use nexus_flight_catalog::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::printable::printable;
use crate::times::refuse_unnamed;

/// No column of a table is padded further than this; longer values are written whole and push the rest of their line.
const WIDEST: usize = 60;

/// Bytes of a Parquet row group, which is all that is held back.
const ROW_GROUP: usize = 64 << 20;

/// A form of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns side by side, for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Whether it is text, which a terminal can show and of which several can follow each other.
    pub(super) fn is_text(self) -> bool {
        !matches!(self, Format::Arrow | Format::Parquet)
    }
}

/// Writes the rows of one statement. Without `finish` what was written is incomplete.
pub(super) enum Output<W: Write + Send> {
    Table(Table<W>),
    Csv(Box<csv::Writer<W>>),
    Json(LineDelimitedWriter<W>),
    Arrow(Box<StreamWriter<W>>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Output<W> {
    /// Begins, with what comes before the first row.
    pub(super) fn new(format: Format, schema: &SchemaRef, to: W) -> Result<Self> {
        Ok(match format {
            Format::Table => Output::Table(Table { to, widths: None }),
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(to);
                // The header comes with the first batch, and there may be none.
                writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
                Output::Csv(Box::new(writer))
            }
            Format::Json => {
                let writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(to);
                Output::Json(writer)
            }
            Format::Arrow => Output::Arrow(Box::new(StreamWriter::try_new(to, schema)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_bytes(Some(ROW_GROUP))
                    .build();
                let writer = ArrowWriter::try_new(to, Arc::clone(schema), Some(properties)).map_err(ArrowError::from)?;
                Output::Parquet(Box::new(writer))
            }
        })
    }

    /// Writes the rows of a batch.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Output::Table(table) => table.write(batch),
            Output::Csv(writer) => Ok(writer.write(&flat(batch)?)?),
            Output::Json(writer) => {
                refuse_unnamed(batch)?;
                Ok(writer.write(batch)?)
            }
            Output::Arrow(writer) => Ok(writer.write(batch)?),
            Output::Parquet(writer) => Ok(writer.write(batch).map_err(ArrowError::from)?),
        }
    }

    /// Ends, with what comes after the last row. `schema` is for a table without any row.
    pub(super) fn finish(self, schema: &SchemaRef) -> Result<()> {
        let flushed = match self {
            Output::Table(mut table) => {
                if table.widths.is_none() {
                    table.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                }
                table.to.flush()
            }
            Output::Csv(writer) => writer.into_inner().flush(),
            Output::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()
            }
            Output::Arrow(writer) => writer.into_inner()?.flush(),
            Output::Parquet(writer) => writer.into_inner().map_err(ArrowError::from)?.flush(),
        };
        flushed.map_err(failed)
    }
}

/// A write that failed.
pub(super) fn failed(cause: std::io::Error) -> Error {
    Error::unavailable(format!("the rows cannot be written: {cause}")).with_retryable(false).caused_by(cause)
}

/// Whether an error only says that whoever read our rows has had enough of them, as `head` does.
pub(super) fn reader_is_gone(error: &Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    // Some of the writers keep no more of the cause than its text.
    error.message().to_lowercase().contains("broken pipe")
}

/// Columns side by side. How wide they are is settled by the first rows, so that nothing waits for the last.
pub(super) struct Table<W> {
    to: W,
    widths: Option<Vec<usize>>,
}

impl<W: Write> Table<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let columns: Vec<Vec<String>> = batch.columns().iter().map(texts).collect::<Result<_>>()?;
        let right: Vec<bool> = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        let mut text = String::new();
        let widths = match &self.widths {
            Some(widths) => widths,
            None => {
                let names: Vec<String> = schema.fields().iter().map(|field| printable(field.name()).into_owned()).collect();
                let widest = |(name, cells): (&String, &Vec<String>)| {
                    let lines = cells.iter().flat_map(|cell| cell.split('\n')).chain([name.as_str()]);
                    let longest = lines.map(|line| line.chars().count()).max().unwrap_or(0);
                    longest.min(WIDEST)
                };
                let widths: Vec<usize> = names.iter().zip(&columns).map(widest).collect();
                let headers = names.iter().zip(&widths).zip(&right);
                line(&mut text, headers.map(|((name, width), right)| (name.as_str(), *width, *right)));
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                line(&mut text, rules.iter().zip(&widths).map(|(rule, width)| (rule.as_str(), *width, false)));
                self.widths.insert(widths)
            }
        };
        for row in 0..batch.num_rows() {
            // A text of several lines, such as a plan, stands on as many.
            let cells: Vec<Vec<&str>> = columns.iter().map(|cells| cells[row].split('\n').collect()).collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(1);
            for at in 0..height {
                let parts = cells.iter().zip(widths.iter()).zip(&right);
                line(
                    &mut text,
                    parts.map(|((lines, width), right)| (lines.get(at).copied().unwrap_or_default(), *width, *right)),
                );
            }
        }
        self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush()).map_err(failed)
    }
}

/// One line of a table: text, width and whether it stands at the right of its column.
fn line<'a>(text: &mut String, cells: impl Iterator<Item = (&'a str, usize, bool)>) {
    let start = text.len();
    for (at, (cell, width, right)) in cells.enumerate() {
        if at > 0 {
            text.push_str("  ");
        }
        let padding = width.saturating_sub(cell.chars().count());
        if right {
            text.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(cell);
        if !right {
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    text.truncate(start + text.get(start..).unwrap_or_default().trim_end_matches(' ').len());
    text.push('\n');
}

fn texts(column: &ArrayRef) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let shown = |text: &str| text.trim_end_matches('\n').split('\n').map(printable).collect::<Vec<_>>().join("\n");
    (0..column.len()).map(|row| Ok(shown(&formatter.value(row).try_to_string()?))).collect()
}

/// The batch with nested columns as text, since CSV has no form of its own for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    if !batch.schema().fields().iter().any(|field| needs_text(field.data_type())) {
        return Ok(batch.clone());
    }
    let options = FormatOptions::default();
    let text = |column: &ArrayRef| -> Result<ArrayRef> {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let text = (0..column.len())
            .map(|row| if column.is_null(row) { Ok(None) } else { formatter.value(row).try_to_string().map(Some) })
            .collect::<Result<StringArray, ArrowError>>()?;
        Ok(Arc::new(text))
    };
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let (kind, column) = match field.data_type() {
            kind if needs_text(kind) => (DataType::Utf8, text(column)?),
            kind => (kind.clone(), Arc::clone(column)),
        };
        fields.push(Field::new(field.name(), kind, true));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn needs_text(kind: &DataType) -> bool {
    kind.is_nested() || matches!(kind, DataType::RunEndEncoded(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, ListArray};
    use arrow::datatypes::Int32Type;
    use arrow::ipc::reader::StreamReader;
    use insta::assert_snapshot;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn rows() -> RecordBatch {
        let price = Decimal128Array::from(vec![Some(1250), Some(-5), None]).with_precision_and_scale(15, 2).unwrap();
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![1, 20, 300])) as ArrayRef, false),
            ("name", Arc::new(StringArray::from(vec![Some("a,\"b\""), None, Some("é\n\u{1b}[31m")])) as ArrayRef, true),
            ("price", Arc::new(price) as ArrayRef, true),
            ("list", Arc::new(lists) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn bytes(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let schema = rows().schema();
        let mut bytes = Vec::new();
        let mut output = Output::new(format, &schema, &mut bytes).unwrap();
        for batch in batches {
            output.write(batch).unwrap();
        }
        output.finish(&schema).unwrap();
        bytes
    }

    fn text(format: Format, batches: &[RecordBatch]) -> String {
        String::from_utf8(bytes(format, batches)).unwrap()
    }

    #[test]
    fn a_table_has_one_header_and_no_control_characters() {
        assert_snapshot!(text(Format::Table, &[rows().slice(0, 2), rows()]), @r#"
    id  name   price  list
    --  -----  -----  ---------
     1  a,"b"  12.50  [1, NULL]
    20  NULL   -0.05  NULL
     1  a,"b"  12.50  [1, NULL]
    20  NULL   -0.05  NULL
    300  é       NULL  []
        \u{1b}[31m
    "#);
    }

    #[test]
    fn a_table_without_rows_still_names_its_columns() {
        assert_snapshot!(text(Format::Table, &[]), @r"
    id  name  price  list
    --  ----  -----  ----
    ");
    }

    #[test]
    fn csv_quotes_and_writes_lists_as_text() {
        assert_snapshot!(text(Format::Csv, &[rows(), rows().slice(0, 1)]).replace('\u{1b}', "ESC"), @r#"
    id,name,price,list
    1,"a,""b""",12.50,"[1, ]"
    20,,-0.05,
    300,"é
    ESC[31m",,[]
    1,"a,""b""",12.50,"[1, ]"
    "#);
        assert_eq!(text(Format::Csv, &[]), "id,name,price,list\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_snapshot!(text(Format::Json, &[rows()]), @r#"
    {"id":1,"name":"a,\"b\"","price":12.50,"list":[1,null]}
    {"id":20,"name":null,"price":-0.05,"list":null}
    {"id":300,"name":"é\n\u001b[31m","price":null,"list":[]}
    "#);
        assert_eq!(text(Format::Json, &[]), "");
    }

    #[test]
    fn arrow_and_parquet_come_back_as_they_were() {
        let ipc = bytes(Format::Arrow, &[rows(), rows()]);
        let back: Vec<_> = StreamReader::try_new(ipc.as_slice(), None).unwrap().map(|batch| batch.unwrap()).collect();
        assert_eq!(back, [rows(), rows()]);
        let parquet = bytes(Format::Parquet, &[rows(), rows()]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(parquet)).unwrap().build().unwrap();
        let back: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
        let both = arrow::compute::concat_batches(&rows().schema(), &[rows(), rows()]).unwrap();
        assert_eq!(arrow::compute::concat_batches(&rows().schema(), &back).unwrap(), both);
        for format in [Format::Arrow, Format::Parquet] {
            assert!(!bytes(format, &[]).is_empty(), "a result without rows is a whole one too");
        }
    }

    /// A reader that has gone after the first bytes, as `head` has.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_told_from_other_trouble() {
        let schema = rows().schema();
        for format in [Format::Table, Format::Csv, Format::Json, Format::Arrow, Format::Parquet] {
            let mut said = None;
            let written = Output::new(format, &schema, Gone).and_then(|mut output| {
                output.write(&rows())?;
                output.finish(&schema)
            });
            said.get_or_insert(written.unwrap_err());
            assert!(reader_is_gone(&said.unwrap()), "{format:?}");
        }
        assert!(!reader_is_gone(&failed(ErrorKind::StorageFull.into())));
    }
}
