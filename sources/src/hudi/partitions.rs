//! What the folders of partitions tell of the rows in them: the values of the columns by which the table is parted.

use std::sync::Arc;

use arrow::datatypes::{DataType, Date32Type, Schema};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use nexus_flight_catalog::Result;

use super::properties::Properties;
use crate::lake::Bounds;

/// The key generators that make folders of values as they are; others cut times, or do what they like.
const PLAIN: &[&str] = &["SIMPLE", "SIMPLE_AVRO", "COMPLEX", "COMPLEX_AVRO"];
const PLAIN_CLASSES: &[&str] = &[
    "org.apache.hudi.keygen.SimpleKeyGenerator",
    "org.apache.hudi.keygen.SimpleAvroKeyGenerator",
    "org.apache.hudi.keygen.ComplexKeyGenerator",
    "org.apache.hudi.keygen.ComplexAvroKeyGenerator",
];
/// What stands for NULL and for a text without letters, now and in older versions.
const NOTHING: &[&str] = &["__HIVE_DEFAULT_PARTITION__", "default", ""];

/// How a table calls the folders of its partitions.
#[derive(Debug)]
pub(super) struct Partitions {
    /// The names of the columns, one for each folder within another; none where folders do not tell values.
    columns: Vec<String>,
    /// Whether a folder has the name of its column before the value.
    is_named: bool,
    /// Whether letters that mean something in paths are written as numbers.
    is_escaped: bool,
}

impl Partitions {
    pub(super) fn new(properties: &Properties) -> Self {
        let value = |key: &str| properties.value(key).filter(|value| !value.is_empty());
        let is_set = |key: &str| value(key).is_some_and(|set| set.eq_ignore_ascii_case("true"));
        let is_plain = match (value("hoodie.table.keygenerator.type"), value("hoodie.table.keygenerator.class")) {
            (Some(kind), _) => PLAIN.contains(&kind.to_ascii_uppercase().as_str()),
            (None, class) => class.is_some_and(|class| PLAIN_CLASSES.contains(&class)),
        };
        let columns = value("hoodie.table.partition.fields").filter(|_| is_plain).map(|names| names.split(','));
        Self {
            columns: columns.into_iter().flatten().map(|name| name.trim().to_owned()).collect(),
            is_named: is_set("hoodie.datasource.write.hive_style_partitioning"),
            is_escaped: is_set("hoodie.datasource.write.partitionpath.urlencode"),
        }
    }

    /// What is known of each column in these folders, in their order. Errors: `Internal`.
    pub(super) fn bounds(&self, schema: &Schema, folders: &[&str]) -> Result<Vec<Bounds>> {
        let bounds = schema.fields().iter().map(|field| -> Result<Bounds> {
            let unknown = Bounds::unknown(field.data_type(), folders.len());
            let place = self.columns.iter().position(|column| column == field.name());
            let Some(place) = place.filter(|_| !folders.is_empty()) else { return Ok(unknown) };
            let values = folders.iter().map(|folder| self.value(folder, place, field.data_type()));
            let values = values.map(|value| value.map_or_else(|| ScalarValue::try_new_null(field.data_type()), Ok));
            let values = ScalarValue::iter_to_array(values.collect::<datafusion::error::Result<Vec<_>>>()?)?;
            Ok(Bounds { min: Arc::clone(&values), max: values, ..unknown })
        });
        bounds.collect()
    }

    /// The value of the column at a place in all rows of a folder; none where that does not tell it for sure.
    fn value(&self, folder: &str, place: usize, of: &DataType) -> Option<ScalarValue> {
        // A value with slashes makes several folders of one.
        if folder.split('/').count() != self.columns.len() {
            return None;
        }
        let (part, column) = (folder.split('/').nth(place)?, self.columns.get(place)?);
        let named = part.strip_prefix(column.as_str()).and_then(|rest| rest.strip_prefix('='));
        let text = match (self.is_named, named) {
            (true, named) => named?,
            // Written before the table said so, or a value that looks like it.
            (false, Some(_)) => return None,
            (false, None) => part,
        };
        let text = if self.is_escaped { unescaped(text) } else { text.to_owned() };
        if NOTHING.contains(&text.as_str()) {
            return None;
        }
        // What is not written as Hudi writes it may be anything.
        let (value, again) = match of {
            DataType::Utf8 => return Some(ScalarValue::Utf8(Some(text))),
            DataType::Int32 => text.parse::<i32>().map(|number| (ScalarValue::Int32(Some(number)), number.to_string())).ok()?,
            DataType::Int64 => text.parse::<i64>().map(|number| (ScalarValue::Int64(Some(number)), number.to_string())).ok()?,
            DataType::Date32 => {
                let date = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok()?;
                (ScalarValue::Date32(Some(Date32Type::from_naive_date(date))), date.to_string())
            }
            _ => return None,
        };
        (again == text).then_some(value)
    }
}

/// A value as it was before its letters were written as numbers of two digits after a `%`.
fn unescaped(text: &str) -> String {
    let (mut plain, mut left) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = left.split_once('%') {
        plain.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let letter = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).map(char::from);
        plain.push(letter.unwrap_or('%'));
        left = if letter.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    plain + left
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::super::properties::tests::properties;
    use super::*;

    fn partitions(lines: &str) -> Partitions {
        let text = format!("{}hoodie.table.keygenerator.type=COMPLEX\n{lines}\n", properties("COPY_ON_WRITE", 9));
        Partitions::new(&Properties::parse(&text).unwrap())
    }

    const HIVE: &str = "hoodie.datasource.write.hive_style_partitioning=true";
    const ESCAPED: &str = "hoodie.datasource.write.partitionpath.urlencode=true";

    #[test]
    fn folders_tell_values() {
        let of = |partitions: &Partitions, folder: &str, place: usize, of: DataType| {
            partitions.value(folder, place, &of).map(|value| value.to_string())
        };
        let plain = partitions("hoodie.table.partition.fields=area,n");
        let text = |folder: &str| of(&plain, folder, 0, DataType::Utf8);
        assert_eq!(text("北/7").as_deref(), Some("北"));
        for unsure in ["北", "a/b/7", "area=北/7", "default/7", "__HIVE_DEFAULT_PARTITION__/7"] {
            assert_eq!(text(unsure), None, "{unsure}");
        }
        assert_eq!(of(&plain, "北/7", 1, DataType::Int32).as_deref(), Some("7"));
        assert_eq!(of(&plain, "北/-7", 1, DataType::Int64).as_deref(), Some("-7"));
        let unsure = [("07", DataType::Int32), ("x", DataType::Int64), ("7", DataType::Float64), ("2024-1-2", DataType::Date32)];
        for (unsure, kind) in unsure {
            assert_eq!(of(&plain, &format!("a/{unsure}"), 1, kind), None, "{unsure}");
        }
        assert_eq!(of(&plain, "a/2024-01-02", 1, DataType::Date32).as_deref(), Some("2024-01-02"));
        let hive = partitions(&format!("hoodie.table.partition.fields=area\n{HIVE}\n{ESCAPED}"));
        let text = |folder: &str| of(&hive, folder, 0, DataType::Utf8);
        assert_eq!(text("area=a%2Fb %é%3d").as_deref(), Some("a/b %é="));
        assert_eq!((text("a"), text("areas=a"), text("area=")), (None, None, None));
    }

    #[test]
    fn what_makes_folders_of_something_else_tells_nothing() {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("area", DataType::Utf8, true)]);
        let known = |partitions: &Partitions| {
            let bounds = partitions.bounds(&schema, &["a", "default"]).unwrap();
            bounds.iter().map(|bounds| (0..2).map(|file| bounds.min.is_valid(file)).collect()).collect::<Vec<Vec<bool>>>()
        };
        let area = "hoodie.table.partition.fields=area";
        assert_eq!(known(&partitions(area)), [[false, false], [true, false]]);
        let nothing = [[false, false], [false, false]];
        assert_eq!(known(&partitions(&format!("{area}\nhoodie.table.keygenerator.type=TIMESTAMP"))), nothing);
        assert_eq!(known(&partitions("hoodie.table.partition.fields=area:simple")), nothing);
        assert!(partitions(area).bounds(&schema, &[]).unwrap().iter().all(|bounds| bounds.min.is_empty()));
    }
}
