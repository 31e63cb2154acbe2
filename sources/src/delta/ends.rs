//! What the log tells of the values in a file that was written: how many rows, and of each of the first columns the NULLs and the ends.

use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Fields, Schema, TimeUnit};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Number, Value, json};

use super::values::{date_text, time_text};
use crate::lake::{Nans, leaves};

/// How many characters of a text are told.
const CHARACTERS: usize = 32;
/// How many bytes of a text are told that cannot be cut.
const LONGEST: usize = 1024;
/// Up to so many digits a decimal number passes unchanged through a `double`, through which readers put it.
const DIGITS: u8 = 15;

/// The statistics of a file with so many NaN as the log has them, of so many of its columns at most. There are no ends of floats where
/// one is NaN, and none of lists and maps.
pub(super) fn stats(footer: &ParquetMetaData, columns: &Schema, indexed: usize, nans: &Nans) -> String {
    let mut leaves = Leaves { footer, nans, next: 0, left: indexed };
    let told = leaves.of(columns.fields());
    let rows = footer.file_metadata().num_rows();
    json!({ "numRecords": rows, "minValues": told.min, "maxValues": told.max, "nullCount": told.nulls }).to_string()
}

/// What is told of some columns, by their names.
#[derive(Default)]
struct Told {
    min: Map<String, Value>,
    max: Map<String, Value>,
    nulls: Map<String, Value>,
}

/// The columns of a file without those that hold others, one after the other.
struct Leaves<'a> {
    footer: &'a ParquetMetaData,
    nans: &'a Nans,
    /// The place of the next one in the file.
    next: usize,
    /// How many are still to be told of.
    left: usize,
}

impl<'a> Leaves<'a> {
    fn of(&mut self, fields: &Fields) -> Told {
        let mut told = Told::default();
        for field in fields {
            if let DataType::Struct(fields) = field.data_type() {
                let within = self.of(fields);
                for (all, some) in [(&mut told.min, within.min), (&mut told.max, within.max), (&mut told.nulls, within.nulls)] {
                    if !some.is_empty() {
                        all.insert(field.name().clone(), Value::Object(some));
                    }
                }
                continue;
            }
            let leaf = self.next;
            self.next += leaves(field.data_type());
            if self.left == 0 {
                continue;
            }
            self.left -= 1;
            if field.data_type().is_nested() {
                continue;
            }
            if let Some(nulls) = self.nulls(leaf) {
                told.nulls.insert(field.name().clone(), json!(nulls));
            }
            if let Some((min, max)) = self.ends(leaf, field.data_type()) {
                told.min.insert(field.name().clone(), min);
                told.max.insert(field.name().clone(), max);
            }
        }
        told
    }

    fn nulls(&self, leaf: usize) -> Option<u64> {
        let of = |group: &'a RowGroupMetaData| group.columns().get(leaf)?.statistics()?.null_count_opt();
        self.footer.row_groups().iter().try_fold(0_u64, |sum, group| sum.checked_add(of(group)?))
    }

    /// The ends of a column as they are told; none where one of them cannot be: who knows the one alone may take the other for NULL.
    fn ends(&self, leaf: usize, data_type: &DataType) -> Option<(Value, Value)> {
        if *data_type == DataType::Utf8 {
            let (min, max) = self.extremes(leaf, texts)?;
            // Of the last letters there is no greater one, and the footer then has a text whole.
            let max = raised(max).or_else(|| (max.len() <= LONGEST).then(|| max.to_owned()));
            return Some((json!(cut(min)), Value::String(max?)));
        }
        if data_type.is_floating() {
            return self.floats(leaf);
        }
        let (min, max) = self.extremes(leaf, numbers)?;
        Some((told(data_type, min, false)?, told(data_type, max, true)?))
    }

    /// Those of floats, as Spark has them. The footer leaves NaN out, which in SQL is the largest of all; of zeros it has the negative one
    /// as the least and the other as the greatest.
    fn floats(&self, leaf: usize) -> Option<(Value, Value)> {
        if self.nans.of(leaf) > 0 {
            return None;
        }
        let (min, max) = self.extremes(leaf, floats)?;
        let told = |value: f64| match value.is_infinite() {
            true if value < 0.0 => json!("-Infinity"),
            true => json!("Infinity"),
            false => json!(value),
        };
        Some((told(min), told(max)))
    }

    /// The least and the greatest value of all groups of rows; none where one of them does not tell.
    fn extremes<T: PartialOrd + Copy>(&self, leaf: usize, of: impl Fn(&'a Statistics) -> Option<(T, T)>) -> Option<(T, T)> {
        let mut all: Option<(T, T)> = None;
        for group in self.footer.row_groups() {
            let statistics = group.columns().get(leaf)?.statistics()?;
            if statistics.null_count_opt().is_some_and(|nulls| u64::try_from(group.num_rows()) == Ok(nulls)) {
                continue;
            }
            let (min, max) = of(statistics)?;
            all = Some(match all {
                None => (min, max),
                Some((least, greatest)) => (if min < least { min } else { least }, if max > greatest { max } else { greatest }),
            });
        }
        all
    }
}

fn numbers(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int32(values) => Some((i64::from(*values.min_opt()?), i64::from(*values.max_opt()?))),
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}

fn floats(statistics: &Statistics) -> Option<(f64, f64)> {
    match statistics {
        Statistics::Float(values) => Some((f64::from(*values.min_opt()?), f64::from(*values.max_opt()?))),
        Statistics::Double(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}

fn texts(statistics: &Statistics) -> Option<(&str, &str)> {
    let Statistics::ByteArray(values) = statistics else { return None };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some((text(values.min_opt()?.data())?, text(values.max_opt()?.data())?))
}

/// An end as it is written. Of times whole milliseconds are, those before the least and after the greatest.
fn told(data_type: &DataType, value: i64, is_max: bool) -> Option<Value> {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(json!(value)),
        DataType::Date32 => Some(json!(date_text(i32::try_from(value).ok()?)?)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = if is_max { value.checked_add(999)? } else { value };
            Some(json!(time_text(micros.div_euclid(1000), zone.is_some())?))
        }
        DataType::Decimal128(precision, scale) if *precision <= DIGITS => {
            let text = Decimal128Type::format_decimal(i128::from(value), *precision, *scale);
            Number::from_f64(text.parse().ok()?).map(Value::Number)
        }
        _ => None,
    }
}

/// The beginning of a text, which is not greater.
fn cut(text: &str) -> &str {
    text.char_indices().nth(CHARACTERS).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}

/// A text of so many characters that no text with the same beginning is greater than; none where there is none.
fn raised(text: &str) -> Option<String> {
    let mut beginning: Vec<char> = text.chars().take(CHARACTERS + 1).collect();
    if beginning.len() <= CHARACTERS {
        return Some(text.to_owned());
    }
    beginning.truncate(CHARACTERS);
    while let Some(last) = beginning.pop() {
        // Between the two ranges of characters there are none.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        // What ends so is taken for a text that was cut otherwise.
        if let Some(next) = next.filter(|next| *next != '\u{FFFD}') {
            beginning.push(next);
            return Some(beginning.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, ListArray, RecordBatch, StringArray,
        StructArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Int32Type};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn told(batches: &[RecordBatch], indexed: usize) -> String {
        let schema = batches[0].schema();
        let mut writer = ArrowWriter::try_new(Vec::<u8>::new(), Arc::clone(&schema), None).unwrap();
        let mut nans = Nans::default();
        for batch in batches {
            nans.add(batch);
            writer.write(batch).unwrap();
            writer.flush().unwrap();
        }
        let footer = writer.finish().unwrap();
        stats(&footer, &schema, indexed, &nans)
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
    }

    #[test]
    fn ends_are_of_all_groups_of_rows() {
        let rows = |day: Option<i32>, micros: i64| {
            let x: ArrayRef = Arc::new(Int32Array::from(vec![day]));
            let field = Arc::new(Field::new("x", DataType::Int32, true));
            let price = Decimal128Array::from(vec![i128::from(micros)]).with_precision_and_scale(12, 2).unwrap();
            let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
            batch(vec![
                ("l", Arc::new(list)),
                ("d", Arc::new(Date32Array::from(vec![day]))),
                ("s", Arc::new(StructArray::from(vec![(field, x)]))),
                ("t", Arc::new(TimestampMicrosecondArray::from(vec![micros]))),
                ("p", Arc::new(price)),
                ("f", Arc::new(Float64Array::from(vec![f64::NAN]))),
            ])
        };
        let both = [rows(Some(1), 1001), rows(None, -1)];
        insta::assert_snapshot!(told(&both, 32), @r#"{"maxValues":{"d":"1970-01-02","p":10.01,"s":{"x":1},"t":"1970-01-01T00:00:00.002"},"minValues":{"d":"1970-01-02","p":-0.01,"s":{"x":1},"t":"1969-12-31T23:59:59.999"},"nullCount":{"d":1,"f":0,"p":0,"s":{"x":1},"t":0},"numRecords":2}"#);
        insta::assert_snapshot!(told(&both, 2), @r#"{"maxValues":{"d":"1970-01-02"},"minValues":{"d":"1970-01-02"},"nullCount":{"d":1},"numRecords":2}"#);
    }

    #[test]
    fn ends_of_floats_are_those_of_all_values_or_none() {
        let ends = |columns: [ArrayRef; 2]| {
            let told: Value = serde_json::from_str(&told(&columns.map(|column| batch(vec![("f", column)])), 32)).unwrap();
            (told["minValues"].get("f").cloned(), told["maxValues"].get("f").cloned())
        };
        let doubles = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
        let singles = |values: Vec<Option<f32>>| -> ArrayRef { Arc::new(Float32Array::from(values)) };
        let both = |min: Value, max: Value| (Some(min), Some(max));
        assert_eq!(ends([doubles(vec![2.5, -0.5]), doubles(vec![7.0])]), both(json!(-0.5), json!(7.0)));
        assert_eq!(ends([singles(vec![Some(0.5)]), singles(vec![None])]), both(json!(0.5), json!(0.5)));
        let infinite = ends([doubles(vec![f64::NEG_INFINITY]), doubles(vec![f64::INFINITY])]);
        assert_eq!(infinite, both(json!("-Infinity"), json!("Infinity")));
        let (min, max) = ends([doubles(vec![0.0]), doubles(vec![-0.0])]);
        assert_eq!((min.unwrap().to_string(), max.unwrap().to_string()), ("-0.0".to_owned(), "0.0".to_owned()));
        assert_eq!(ends([doubles(vec![1.0]), doubles(vec![2.0, f64::NAN])]), (None, None));
        assert_eq!(ends([singles(vec![Some(f32::NAN)]), singles(vec![None])]), (None, None));
    }

    #[test]
    fn long_texts_are_cut_to_bounds() {
        let long = "ü".repeat(40);
        let batch = batch(vec![("t", Arc::new(StringArray::from(vec![long.as_str(), "z"])))]);
        let told: Value = serde_json::from_str(&told(&[batch], 32)).unwrap();
        assert_eq!(told["minValues"]["t"], json!("z"));
        assert_eq!(told["maxValues"]["t"], json!(format!("{}ý", "ü".repeat(31))));
        assert_eq!(raised(&"\u{10FFFF}".repeat(40)), None);
        assert_eq!(raised(&format!("a{}", "\u{10FFFF}".repeat(40))), Some("b".to_owned()));
        assert_eq!(raised("short"), Some("short".to_owned()));
        assert_eq!(cut(&long).chars().count(), 32);
    }
}
