//! Rows on their way into the files of a table, which count once a commit names them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::row::{Row, RowConverter, SortField};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::commit::now;
use super::ends::stats;
use super::form::Form;
use super::values;
use crate::stores::{Store, Upload, Uploaded, hex};

/// About how large files become, in bytes.
const FILE: usize = 512 * 1024 * 1024;
/// How many files are written at once at most.
const OPEN: usize = 64;
/// The memory that the files which are written at once may take.
const MEMORY: usize = 512 * 1024 * 1024;
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

/// Takes rows, and makes files of them. Dropped before they are kept, nothing of them stays.
pub(super) struct Writing {
    store: Arc<Store>,
    table: Path,
    form: Arc<Form>,
    open: HashMap<Key, Upload>,
    done: Vec<(Key, Uploaded)>,
    /// Where a file is, or was to be.
    paths: Vec<Path>,
}

impl Writing {
    /// For the table in a folder.
    pub(super) fn new(store: &Arc<Store>, table: &Path, form: Arc<Form>) -> Self {
        let (store, table) = (Arc::clone(store), table.clone());
        Self { store, table, form, open: HashMap::new(), done: Vec::new(), paths: Vec::new() }
    }

    /// Adds rows that have all columns of the table.
    pub(super) async fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        for (key, rows) in self.parts(rows)? {
            let mut upload = match self.open.remove(&key) {
                Some(upload) => upload,
                None => self.begin(&key).await?,
            };
            upload.write(&rows).await?;
            match upload.size() < FILE {
                true => drop(self.open.insert(key, upload)),
                false => self.done.push((key, upload.close().await?)),
            }
            while self.open.values().map(Upload::held).sum::<usize>() > MEMORY {
                self.close_largest().await?;
            }
        }
        Ok(())
    }

    /// Ends the files, and gives what the log says of each.
    pub(super) async fn finish(&mut self) -> Result<Vec<Value>> {
        while !self.open.is_empty() {
            self.close_largest().await?;
        }
        let now = now();
        self.done.iter().map(|(key, file)| self.action(key, file, now)).collect()
    }

    /// Whether the files are there still: whoever has dropped a table of the same name meanwhile has removed them too.
    /// Errors: those of the store.
    // An upload cannot be looked at from two sides, so nothing that waits may share it.
    pub(super) async fn is_there(&mut self) -> Result<bool> {
        for (_, file) in &self.done {
            match self.store.objects().head(&file.path).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(cause) => return Err(self.store.error(&cause, &file.path)),
            }
        }
        Ok(true)
    }

    /// The files count from here on, or may.
    pub(super) fn keep(&mut self) {
        self.paths.clear();
    }

    async fn begin(&mut self, key: &[Option<String>]) -> Result<Upload> {
        if self.open.len() >= OPEN {
            self.close_largest().await?;
        }
        let path = self.path(key)?;
        self.store.stays_within(&path).await?;
        self.paths.push(path.clone());
        Upload::begin(&self.store, path, Arc::clone(&self.form.stored))
    }

    async fn close_largest(&mut self) -> Result<()> {
        let largest = self.open.iter().max_by_key(|(_, upload)| upload.held()).map(|(key, _)| key.clone());
        if let Some((key, upload)) = largest.and_then(|key| self.open.remove_entry(&key)) {
            self.done.push((key, upload.close().await?));
        }
        Ok(())
    }

    /// The rows of each partition, with the columns that files hold.
    fn parts(&self, rows: &RecordBatch) -> Result<Vec<(Key, RecordBatch)>> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
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

    /// Where a new file is.
    fn path(&self, key: &[Option<String>]) -> Result<Path> {
        let columns = self.form.partitions.iter().zip(key);
        let mut names: Vec<String> = columns.map(|((name, _), value)| folder(name, value.as_deref())).collect();
        names.push(format!("{BEFORE}{}{AFTER}", Uuid::new_v4()));
        let within = Path::parse(names.join("/"));
        let within = within.map_err(|cause| Error::internal("a file of rows has no path").caused_by(cause))?;
        Ok(self.table.parts().chain(within.parts()).collect())
    }

    fn action(&self, key: &[Option<String>], file: &Uploaded, now: i64) -> Result<Value> {
        let within = file.path.prefix_match(&self.table).map(|parts| parts.collect::<Path>());
        let within = within.ok_or_else(|| Error::internal("a file of rows is not in its table"))?;
        let names = self.form.partitions.iter().map(|(name, _)| name.clone());
        let values: Map<String, Value> = names.zip(key.iter().map(|text| json!(text))).collect();
        Ok(json!({ "add": {
            "path": utf8_percent_encode(within.as_ref(), ENCODED).to_string(),
            "partitionValues": values,
            "size": file.size,
            "modificationTime": now,
            "dataChange": true,
            "stats": stats(&file.footer, &self.form.stored, self.form.indexed),
        } }))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // What is still open ends by itself.
        if let (false, Ok(runtime)) = (self.paths.is_empty(), tokio::runtime::Handle::try_current()) {
            let (store, paths) = (Arc::clone(&self.store), std::mem::take(&mut self.paths));
            runtime.spawn(async move {
                for path in paths {
                    match store.objects().delete(&path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(cause) => {
                            let error = store.write_error(&cause, &path);
                            tracing::warn!(%error, "a file of a statement that failed could not be removed");
                        }
                    }
                }
            });
        }
    }
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
    use std::time::Duration;

    use arrow::array::{Int64Array, StringArray};
    use delta_kernel::schema::StructType;
    use delta_kernel::table_features::ColumnMappingMode;

    use super::*;
    use crate::stores::Location;

    fn writing(folder: &std::path::Path) -> Writing {
        let field = |name: &str, of: &str| json!({ "name": name, "type": of, "nullable": true, "metadata": {} });
        let table = json!({ "type": "struct", "fields": [field("n", "long"), field("p", "string")] });
        let table: StructType = serde_json::from_value(table).unwrap();
        let form = Form::new(&table, ColumnMappingMode::None, &["p".to_owned()], &HashMap::new()).unwrap();
        let store = Arc::new(Store::open("lake", &Location::Folder(folder.to_owned())).unwrap());
        Writing::new(&store, &Path::from("t"), Arc::new(form))
    }

    fn rows(writing: &Writing, values: Vec<Option<&str>>) -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        RecordBatch::try_new(Arc::clone(&writing.form.columns), vec![n, Arc::new(StringArray::from(values))]).unwrap()
    }

    #[tokio::test]
    async fn each_value_has_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut writing = writing(folder.path());
        let rows = rows(&writing, vec![Some("a b"), None, Some("文/%"), Some(""), Some("a b")]);
        writing.add(&rows).await.unwrap();
        writing.add(&rows.slice(0, 1)).await.unwrap();
        let mut files: Vec<String> = Vec::new();
        for action in writing.finish().await.unwrap() {
            let add = &action["add"];
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let place = add["path"].as_str().unwrap().split("/part-").next().unwrap().to_owned();
            files.push(format!("{place} {} {}", add["partitionValues"]["p"], stats["numRecords"]));
        }
        files.sort();
        insta::assert_snapshot!(files.join("\n"), @r#"
        p=%E6%96%87%252F%2525 "文/%" 1
        p=__HIVE_DEFAULT_PARTITION__ null 2
        p=a%20b "a b" 3
        "#);
        assert!(folder.path().join("t/p=文%2F%25").is_dir());
        writing.keep();
    }

    #[tokio::test]
    async fn files_that_another_has_removed_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writing = writing(folder.path());
        let rows = rows(&writing, vec![Some("a"), Some("b")]);
        writing.add(&rows).await.unwrap();
        writing.finish().await.unwrap();
        assert!(writing.is_there().await.unwrap());
        assert!(writing.paths.iter().all(|path| path.filename().is_some_and(is_of_rows)));
        std::fs::remove_dir_all(folder.path().join("t/p=b")).unwrap();
        assert!(!writing.is_there().await.unwrap());
    }

    #[tokio::test]
    async fn what_is_not_kept_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writing = writing(folder.path());
        let rows = rows(&writing, vec![Some("a")]);
        writing.add(&rows).await.unwrap();
        writing.finish().await.unwrap();
        let table = folder.path().join("t");
        assert!(table.is_dir());
        drop(writing);
        let gone = async {
            while table.is_dir() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    }

    #[test]
    fn long_values_have_short_folders() {
        assert_eq!(folder("p", Some("a:b=c")), "p=a%3Ab%3Dc");
        assert_eq!(folder("p", Some(&"x".repeat(300))).len(), 32);
    }
}
