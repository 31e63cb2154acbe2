//! What the cells of an answer look like in the files: as text, and as one letter for the type of a column.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, Field, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use bigdecimal::BigDecimal;
use sqllogictest::ColumnType;

/// Digits after the point that count: the rest of a float differs from one processor to the next.
const DIGITS: i64 = 12;
/// Precision has no part in how a decimal is written.
const ANY_PRECISION: u8 = u8::MAX;

/// The kinds of columns that the files tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Date,
    Integer,
    Number,
    Text,
    Timestamp,
    Other,
}

const LETTERS: [(char, Kind); 7] = [
    ('B', Kind::Boolean),
    ('D', Kind::Date),
    ('I', Kind::Integer),
    ('R', Kind::Number),
    ('T', Kind::Text),
    ('P', Kind::Timestamp),
    ('?', Kind::Other),
];

impl ColumnType for Kind {
    fn from_char(letter: char) -> Option<Self> {
        Some(LETTERS.iter().find(|(known, _)| *known == letter).map_or(Self::Other, |(_, kind)| *kind))
    }

    fn to_char(&self) -> char {
        LETTERS.iter().find(|(_, kind)| kind == self).map_or('?', |(letter, _)| *letter)
    }
}

impl Kind {
    /// The kind of a column.
    pub(crate) fn of(field: &Field) -> Self {
        use DataType::*;
        match field.data_type() {
            Boolean => Self::Boolean,
            data_type if data_type.is_integer() => Self::Integer,
            Float16 | Float32 | Float64 | Decimal128(..) | Decimal256(..) => Self::Number,
            Utf8 | LargeUtf8 | Utf8View => Self::Text,
            Dictionary(_, values) if matches!(**values, Utf8 | LargeUtf8 | Utf8View) => Self::Text,
            Date32 | Date64 | Time32(_) | Time64(_) => Self::Date,
            Timestamp(..) => Self::Timestamp,
            _ => Self::Other,
        }
    }
}

/// The rows of a batch as text, cell by cell.
pub(crate) fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let cells = batch.columns().iter().map(|column| cell(column, row)).collect::<Result<Vec<_>, _>>()?;
        rows.extend(lines(cells));
    }
    Ok(rows)
}

fn cell(column: &dyn Array, row: usize) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok("NULL".to_owned());
    }
    Ok(match column.data_type() {
        DataType::Null => "NULL".to_owned(),
        DataType::Float16 => float(column.as_primitive::<Float16Type>().value(row).to_string()),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row).to_string()),
        DataType::Decimal128(_, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            float(Decimal128Type::format_decimal(value, ANY_PRECISION, *scale))
        }
        DataType::Decimal256(_, scale) => {
            let value = column.as_primitive::<Decimal256Type>().value(row);
            float(Decimal256Type::format_decimal(value, ANY_PRECISION, *scale))
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row])?
        }
        // As DataFusion prints them by default.
        _ => {
            let options = FormatOptions::default()
                .with_null("NULL")
                .with_date_format(Some("%Y-%m-%d"))
                .with_datetime_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
                .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
                .with_time_format(Some("%H:%M:%S%.f"))
                .with_duration_format(DurationFormat::Pretty);
            ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?
        }
    })
}

/// Digits without an exponent, zeros at the end, or more than count.
fn float(written: String) -> String {
    match written.parse::<BigDecimal>() {
        Ok(number) => number.round(DIGITS).normalized().to_plain_string(),
        // Not a number, or an infinite one.
        Err(_) => written.replace("inf", "Infinity"),
    }
}

fn text(written: &str) -> String {
    if written.is_empty() { "(empty)".to_owned() } else { written.trim_end_matches('\n').replace('\0', "\\0") }
}

/// A last cell of several lines stands in rows of its own below the others, each line numbered and its indent drawn.
fn lines(mut cells: Vec<String>) -> Vec<Vec<String>> {
    let Some(last) = cells.pop_if(|last| last.contains('\n')) else { return vec![cells] };
    let numbered = last.split('\n').zip(1..).map(|(line, number)| {
        let content = line.trim_start();
        let indent = "-".repeat(line.len() - content.len());
        vec![format!("{number:02}){indent}{content}")]
    });
    std::iter::once(cells).chain(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        let forms = [("0.110", "0.11"), ("110", "110"), ("-0.0000000000016", "-0.000000000002"), ("NaN", "NaN")];
        for (written, expected) in forms.into_iter().chain([("-inf", "-Infinity"), ("1e300", &format!("1{}", "0".repeat(300)))]) {
            assert_eq!(float(written.to_owned()), expected);
        }
    }

    #[test]
    fn a_last_cell_of_lines_becomes_rows() {
        let cells = vec!["a".to_owned(), "one\n  two".to_owned()];
        assert_eq!(lines(cells), [vec!["a"], vec!["01)one"], vec!["02)--two"]]);
    }
}
