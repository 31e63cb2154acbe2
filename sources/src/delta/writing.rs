//! The files of rows of a table: where they are, how they begin, and what the log says of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::row::{Row, RowConverter, SortField};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::commit::now;
use super::ends::stats;
use super::form::Form;
use super::values;
use crate::lake::{Nans, New, Writes};
use crate::stores::{Store, Upload, Uploaded, hex};

/// The longest name of a folder that file systems take beside what they add to it, in bytes.
const LONGEST: usize = 200;
/// Where files of rows lie whose partition column is NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// What stands before and after an id in the name of a file of rows, as Spark has it.
const BEFORE: &str = "part-00000-";
const AFTER: &str = "-c000.zstd.parquet";
/// What the log does not have as it is in a path.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The texts of the partition columns, in their order.
type Key = Vec<Option<String>>;

/// How rows become files of a table.
pub(super) struct Writing {
    store: Arc<Store>,
    table: Path,
    form: Arc<Form>,
}

impl Writing {
    /// For the table in a folder.
    pub(super) fn new(store: &Arc<Store>, table: &Path, form: Arc<Form>) -> Self {
        Self { store: Arc::clone(store), table: table.clone(), form }
    }
}

impl Writes for Writing {
    type Partition = Key;
    /// The action that adds it.
    type Told = Value;

    /// Of rows that have all columns of the table.
    fn parts(&self, rows: &RecordBatch) -> Result<Vec<(Key, RecordBatch)>> {
        let held = rows.project(&self.form.held)?;
        if self.form.partitions.is_empty() {
            return Ok(vec![(Key::new(), held)]);
        }
        let columns: Vec<&ArrayRef> = self.form.partitions.iter().map(|(_, place)| rows.column(*place)).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let owned: Vec<ArrayRef> = columns.iter().map(|column| ArrayRef::clone(column)).collect();
        let converted = RowConverter::new(fields)?.convert_columns(&owned)?;
        let mut places: HashMap<Row<'_>, Vec<u32>> = HashMap::new();
        for (place, value) in (0..).zip(converted.iter()) {
            places.entry(value).or_default().push(place);
        }
        // By the texts: NULL and an empty one are the same.
        let mut parts: HashMap<Key, Vec<u32>> = HashMap::new();
        for of_value in places.into_values() {
            let first = of_value.first().map_or(0, |first| *first as usize);
            let text = |column: &&ArrayRef| values::written(&ScalarValue::try_from_array(*column, first)?);
            let key = columns.iter().map(text).collect::<Result<Key>>()?;
            parts.entry(key).or_default().extend(of_value);
        }
        let mut parts: Vec<(Key, Vec<u32>)> = parts.into_iter().collect();
        parts.iter_mut().for_each(|(_, places)| places.sort_unstable());
        parts.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
        let taken = |(key, places): (Key, Vec<u32>)| -> Result<(Key, RecordBatch)> {
            Ok((key, take_record_batch(&held, &UInt32Array::from(places))?))
        };
        parts.into_iter().map(taken).collect()
    }

    fn begin(&self, key: &Key) -> Result<(Upload, String)> {
        let columns = self.form.partitions.iter().zip(key);
        let mut names: Vec<String> = columns.map(|((name, _), value)| folder(name, value.as_deref())).collect();
        names.push(format!("{BEFORE}{}{AFTER}", Uuid::new_v4()));
        let within = Path::parse(names.join("/"));
        let within = within.map_err(|cause| Error::internal("a file of rows has no path").caused_by(cause))?;
        let path: Path = self.table.parts().chain(within.parts()).collect();
        let upload = Upload::begin(&self.store, path, Arc::clone(&self.form.stored))?;
        Ok((upload, utf8_percent_encode(within.as_ref(), ENCODED).to_string()))
    }

    fn told(&self, key: &Key, path: &str, file: &Uploaded, nans: &Nans) -> Result<Value> {
        let names = self.form.partitions.iter().map(|(name, _)| name.clone());
        let values: Map<String, Value> = names.zip(key.iter().map(|text| json!(text))).collect();
        Ok(json!({ "add": {
            "path": path,
            "partitionValues": values,
            "size": file.size,
            "modificationTime": now(),
            "dataChange": true,
            "stats": stats(&file.footer, &self.form.stored, self.form.indexed, nans),
        } }))
    }
}

/// Whether files are there still: whoever has dropped a table of the same name meanwhile has removed them too.
/// Errors: those of the store.
pub(super) async fn are_there(files: &[New<Value>]) -> Result<bool> {
    for file in files {
        if !file.made.is_there().await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a name is one of those that files of rows are given here.
pub(super) fn is_of_rows(name: &str) -> bool {
    let id = name.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER));
    id.is_some_and(|id| Uuid::parse_str(id).is_ok())
}

/// The folder of a value, as Hive and Spark name it. Nobody reads the value from there.
fn folder(name: &str, value: Option<&str>) -> String {
    let name = escaped(name);
    let whole = value.map_or_else(|| format!("{name}={NULL}"), |value| format!("{name}={}", escaped(value)));
    if whole.len() <= LONGEST { whole } else { hex(&whole, 16) }
}

/// A text without what paths or Hive have a use for.
fn escaped(text: &str) -> String {
    let is_special = |character: char| character.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(character);
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_special(character) {
            escaped.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::SchemaRef;
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
    use delta_kernel::schema::StructType;
    use delta_kernel::table_features::ColumnMappingMode;

    use super::*;
    use crate::lake::{Files, SIZE};
    use crate::stores::Location;

    /// The files of a table, and its columns.
    fn files(folder: &std::path::Path) -> (Files<Writing>, SchemaRef) {
        let field = |name: &str, of: &str| json!({ "name": name, "type": of, "nullable": true, "metadata": {} });
        let table = json!({ "type": "struct", "fields": [field("n", "long"), field("p", "string")] });
        let table: StructType = serde_json::from_value(table).unwrap();
        let form = Form::new(&table, ColumnMappingMode::None, &["p".to_owned()], &HashMap::new()).unwrap();
        let columns = Arc::clone(&form.columns);
        let store = Arc::new(Store::open("lake", &Location::Folder(folder.to_owned())).unwrap());
        let writing = Writing::new(&store, &Path::from("t"), Arc::new(form));
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        (Files::new(&store, writing, SIZE, &pool), columns)
    }

    fn rows(columns: &SchemaRef, values: Vec<Option<&str>>) -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        RecordBatch::try_new(Arc::clone(columns), vec![n, Arc::new(StringArray::from(values))]).unwrap()
    }

    #[tokio::test]
    async fn each_value_has_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, columns) = files(folder.path());
        let rows = rows(&columns, vec![Some("a b"), None, Some("文/%"), Some(""), Some("a b")]);
        files.write(&rows).await.unwrap();
        files.write(&rows.slice(0, 1)).await.unwrap();
        let made = files.finish().await.unwrap();
        let mut shown: Vec<String> = Vec::new();
        for new in &made {
            let add = &new.told["add"];
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let place = add["path"].as_str().unwrap().split("/part-").next().unwrap().to_owned();
            shown.push(format!("{place} {} {}", add["partitionValues"]["p"], stats["numRecords"]));
        }
        shown.sort();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        p=%E6%96%87%252F%2525 "文/%" 1
        p=__HIVE_DEFAULT_PARTITION__ null 2
        p=a%20b "a b" 3
        "#);
        assert!(folder.path().join("t/p=文%2F%25").is_dir());
    }

    #[tokio::test]
    async fn files_that_another_has_removed_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, columns) = files(folder.path());
        files.write(&rows(&columns, vec![Some("a"), Some("b")])).await.unwrap();
        let made = files.finish().await.unwrap();
        assert!(are_there(&made).await.unwrap());
        let names = made.iter().map(|new| new.told["add"]["path"].as_str().unwrap().rsplit('/').next().unwrap());
        assert_eq!(names.filter(|name| is_of_rows(name)).count(), 2);
        std::fs::remove_dir_all(folder.path().join("t/p=b")).unwrap();
        assert!(!are_there(&made).await.unwrap());
    }

    #[test]
    fn long_values_have_short_folders() {
        assert_eq!(folder("p", Some("a:b=c")), "p=a%3Ab%3Dc");
        assert_eq!(folder("p", Some(&"x".repeat(300))).len(), 32);
    }
}
