//! Deletes that name rows by the values of their key columns: Iceberg's files of equality deletes.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use futures::stream::{self, TryStreamExt};
use futures::{FutureExt, StreamExt};
use nexus_flight_catalog::Result;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::kept::{EACH, Set};
use super::positions::{AT_ONCE, DeleteFile, Tail};
use super::{Columns, DataFile, Deletes, Lake, rows};

/// A file whose rows are the keys of deleted rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EqualityFile {
    /// The file.
    pub(crate) file: DeleteFile,
    /// The key columns, in the types that the table has for them now, so that older files compare with newer ones.
    pub(crate) schema: SchemaRef,
    /// How files name them, those of deletes and those of data alike.
    pub(crate) columns: Columns,
}

/// The rows whose keys are in files of equality deletes. One of these serves all data files that the same deletes apply to.
#[derive(Debug)]
pub(crate) struct Equality {
    lake: Arc<Lake>,
    deletes: Tail<EqualityFile>,
}

/// Files of deletes with the same key columns: of a data file those are read once for all of them.
struct Group {
    schema: SchemaRef,
    columns: Columns,
    files: Vec<DeleteFile>,
}

impl Equality {
    /// What these files delete. Two keys are equal if their values are, and NULL equals NULL; of floats NaN equals each NaN, and
    /// 0.0 not -0.0, as where Iceberg's own library compares (`StructLikeSet`, by Java's `Double.compare`). A key column that a
    /// file lacks is NULL in all its rows.
    pub(crate) fn new(lake: Arc<Lake>, deletes: impl Into<Tail<EqualityFile>>) -> Self {
        Self { lake, deletes: deletes.into() }
    }
}

fn groups(deletes: &[EqualityFile]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for EqualityFile { file, schema, columns } in deletes {
        match groups.iter_mut().find(|group| group.schema == *schema && group.columns == *columns) {
            Some(group) => group.files.push(file.clone()),
            None => groups.push(Group { schema: Arc::clone(schema), columns: columns.clone(), files: vec![file.clone()] }),
        }
    }
    groups
}

#[async_trait]
impl Deletes for Equality {
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        let (path, size) = (&file.path, file.size);
        let key = Set::Equality { path: path.clone(), size, deletes: self.deletes.clone() };
        let read = || deleted(Arc::clone(&self.lake), path.clone(), size, self.deletes.clone(), Arc::clone(pool));
        self.lake.kept.sets.get(key, read).await
    }
}

/// The places of the rows of a data file that the deletes of any group name.
async fn deleted(
    lake: Arc<Lake>,
    path: Path,
    size: u64,
    deletes: Tail<EqualityFile>,
    pool: Arc<dyn MemoryPool>,
) -> Result<Arc<RoaringTreemap>> {
    let mut set = RoaringTreemap::new();
    for group in groups(&deletes) {
        set |= deleted_by(&lake, &path, size, &group, &pool).await?;
    }
    Ok(Arc::new(set))
}

async fn deleted_by(
    lake: &Arc<Lake>,
    path: &Path,
    size: u64,
    group: &Group,
    pool: &Arc<dyn MemoryPool>,
) -> Result<RoaringTreemap> {
    let mut set = RoaringTreemap::new();
    let read = |file: &DeleteFile| {
        let (schema, columns) = (Arc::clone(&group.schema), group.columns.clone());
        keys(Arc::clone(lake), EqualityFile { file: file.clone(), schema, columns }, Arc::clone(pool)).boxed()
    };
    let reads: Vec<_> = group.files.iter().map(read).collect();
    let mut all: Vec<Arc<Keys>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    let held = MemoryConsumer::new("deletes").register(pool);
    // Others may hold the same keys, or the cache; but it may drop them meanwhile.
    held.try_grow(all.iter().map(|keys| keys.bytes).sum())?;
    all.sort_by_key(|keys| keys.keys.len());
    let Some(largest) = all.pop().filter(|largest| !largest.keys.is_empty()) else { return Ok(set) };
    // There may be many small files. One set of them is made, and not one with the largest, which is often large alone.
    held.try_grow(all.iter().map(|keys| keys.keys.len() * EACH).sum())?;
    let others: HashSet<&[u8]> = all.iter().flat_map(|keys| keys.keys.iter().map(|key| &**key)).collect();
    let converter = converter(&group.schema)?;
    let mut batches = rows(lake, path, size, Arc::clone(&group.schema), &group.columns).await?;
    let mut first = 0;
    while let Some(batch) = batches.try_next().await? {
        for (place, key) in (first..).zip(&encoded(&converter, &batch)?) {
            if largest.keys.contains(key.data()) || others.contains(key.data()) {
                set.insert(place);
            }
        }
        first += batch.num_rows() as u64;
    }
    Ok(set)
}

/// The keys that a file of equality deletes holds, in a form that is equal where they are.
pub(super) struct Keys {
    keys: HashSet<Box<[u8]>>,
    /// The memory that they take.
    pub(super) bytes: usize,
}

/// The keys of a file, which is read where they are not kept.
async fn keys(lake: Arc<Lake>, delete: EqualityFile, pool: Arc<dyn MemoryPool>) -> Result<Arc<Keys>> {
    let read = || read_keys(Arc::clone(&lake), delete.clone(), Arc::clone(&pool));
    lake.kept.keys.get(delete.clone(), read).await
}

async fn read_keys(lake: Arc<Lake>, delete: EqualityFile, pool: Arc<dyn MemoryPool>) -> Result<Arc<Keys>> {
    let EqualityFile { file, schema, columns } = delete;
    if schema.fields().is_empty() {
        return Err(file.unsound(&lake, "an equality delete names no columns"));
    }
    let converter = converter(&schema)?;
    let held = MemoryConsumer::new("deletes").register(&pool);
    let mut read = Keys { keys: HashSet::new(), bytes: 0 };
    let mut batches = rows(&lake, &file.path, file.size, schema, &columns).await?;
    while let Some(batch) = batches.try_next().await? {
        let before = read.bytes;
        for key in &encoded(&converter, &batch)? {
            if read.keys.insert(key.data().into()) {
                read.bytes += key.data().len() + EACH;
            }
        }
        held.try_grow(read.bytes - before)?;
    }
    Ok(Arc::new(read))
}

/// Of rows with these columns. What two of the same columns make of rows compares.
fn converter(schema: &Schema) -> Result<RowConverter> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?)
}

/// The rows of a batch as bytes that are equal where the rows are.
fn encoded(converter: &RowConverter, batch: &RecordBatch) -> Result<Rows> {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(with_one_nan).collect();
    Ok(converter.convert_columns(&columns)?)
}

/// A column in which all NaN have the same bits.
fn with_one_nan(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Field;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use nexus_flight_catalog::Kind;
    use tempfile::TempDir;

    use super::super::Column;
    use super::super::positions::tests::{data, lake, unbounded, written};
    use super::*;

    fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
        Arc::new(values.into_iter().collect::<Int64Array>())
    }

    fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
        Arc::new(values.into_iter().collect::<StringArray>())
    }

    /// A file that deletes by these key columns.
    fn deletes(folder: &TempDir, name: &str, keys: &[(&str, i32, ArrayRef)]) -> EqualityFile {
        let fields: Vec<Field> = keys.iter().map(|(name, _, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let columns = keys.iter().map(|(name, id, _)| Column {
            name: (*name).to_owned(),
            id: Some(*id),
            aliases: Vec::new(),
            fields: Vec::new(),
        });
        let columns = Columns::new(columns.collect());
        EqualityFile { file: written(folder, name, keys), schema: Arc::new(Schema::new(fields)), columns }
    }

    /// A data file of these columns.
    fn file(folder: &TempDir, name: &str, columns: &[(&str, i32, ArrayRef)]) -> DataFile {
        let rows = columns.first().map_or(0, |(_, _, array)| array.len());
        data(name, written(folder, name, columns).size, rows as u64)
    }

    async fn of(deletes: &Equality, file: &DataFile) -> Vec<u64> {
        let pool = unbounded();
        let set = deletes.of(file, &pool).await.unwrap();
        assert_eq!(pool.reserved(), 0);
        set.iter().collect()
    }

    #[tokio::test]
    async fn rows_are_deleted_whose_key_is_in_any_file() {
        let folder = tempfile::tempdir().unwrap();
        let id = numbers((0..20_000).map(|id| (id != 5).then_some(id)));
        let name = texts((0..20_000).map(|id| (id % 2 == 0).then_some("偶")));
        let wanted = file(&folder, "data.parquet", &[("id", 1, id), ("name", 2, name)]);
        let lake = lake(&folder);
        let first = deletes(&folder, "1.parquet", &[("id", 1, numbers([Some(7), Some(19_000), Some(-1), None, Some(7)]))]);
        let second = deletes(&folder, "2.parquet", &[("id", 1, numbers([Some(8)]))]);
        let third = deletes(&folder, "3.parquet", &[("id", 1, numbers([Some(9)]))]);
        // Equal in both columns, NULL with NULL: of these only 11 and 12.
        let both = [("id", 1, numbers((10..=13).map(Some))), ("name", 2, texts([None, None, Some("偶"), Some("偶")]))];
        let both = deletes(&folder, "4.parquet", &both);
        let none = deletes(&folder, "5.parquet", &[("id", 1, numbers([]))]);
        let all = Equality::new(Arc::clone(&lake), vec![first.clone(), both, second, third, none.clone()]);
        assert_eq!(groups(&all.deletes).len(), 2);
        assert_eq!(of(&all, &wanted).await, [5, 7, 8, 9, 11, 12, 19_000]);
        assert!(of(&Equality::new(Arc::clone(&lake), vec![none]), &wanted).await.is_empty());
        // The keys of a file of deletes are read once for all data files, and a data file once for the same deletes.
        for read in ["1.parquet", "data.parquet"] {
            std::fs::remove_file(folder.path().join(read)).unwrap();
        }
        assert_eq!(of(&all, &wanted).await, [5, 7, 8, 9, 11, 12, 19_000]);
        let other = file(&folder, "other.parquet", &[("id", 1, numbers([Some(8), Some(7), None]))]);
        assert_eq!(of(&Equality::new(lake, vec![first]), &other).await, [1, 2]);
    }

    #[tokio::test]
    async fn a_key_is_the_column_of_its_id_in_its_present_type() {
        let folder = tempfile::tempdir().unwrap();
        let ids: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![3, 2, 1]));
        // Written before the column was renamed and became wider; what has its name now is another.
        let old = file(&folder, "old.parquet", &[("number", 1, ids), ("id", 9, numbers([Some(1), Some(1), Some(2)]))]);
        let without = file(&folder, "without.parquet", &[("id", 9, numbers([Some(1), None]))]);
        let lake = lake(&folder);
        let one = deletes(&folder, "1.parquet", &[("id", 1, numbers([Some(1)]))]);
        let null = deletes(&folder, "2.parquet", &[("id", 1, numbers([None]))]);
        let (one, null) = (Equality::new(Arc::clone(&lake), vec![one]), Equality::new(lake, vec![null]));
        assert_eq!(of(&one, &old).await, [2]);
        assert!(of(&one, &without).await.is_empty());
        assert_eq!(of(&null, &without).await, [0, 1]);
    }

    #[tokio::test]
    async fn floats_are_equal_as_in_java() {
        let folder = tempfile::tempdir().unwrap();
        let floats = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ (1 << 63) ^ 1);
        assert!(other_nan.is_nan());
        let wanted = file(&folder, "data.parquet", &[("x", 1, floats(vec![0.0, -0.0, f64::NAN, other_nan, 1.5]))]);
        let delete = |name, value| Equality::new(lake(&folder), vec![deletes(&folder, name, &[("x", 1, floats(vec![value]))])]);
        assert_eq!(of(&delete("1.parquet", 0.0), &wanted).await, [0]);
        assert_eq!(of(&delete("2.parquet", -0.0), &wanted).await, [1]);
        assert_eq!(of(&delete("3.parquet", f64::NAN), &wanted).await, [2, 3]);
        assert_eq!(of(&delete("4.parquet", other_nan), &wanted).await, [2, 3]);
    }

    #[tokio::test]
    async fn keys_take_memory_while_they_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = file(&folder, "data.parquet", &[("id", 1, numbers([Some(1)]))]);
        let many = deletes(&folder, "1.parquet", &[("id", 1, numbers((0..1000).map(Some)))]);
        let lake = lake(&folder);
        let equality = Equality::new(Arc::clone(&lake), vec![many]);
        let little: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let refused = async || {
            let error = equality.of(&wanted, &little).await.unwrap_err();
            assert_eq!((error.kind(), little.reserved()), (Kind::Exhausted, 0));
        };
        refused().await;
        let other = file(&folder, "other.parquet", &[("id", 1, numbers([Some(2)]))]);
        assert_eq!(of(&equality, &other).await, [0]);
        // The keys are kept by now, and yet charged to whoever uses them.
        refused().await;
    }

    #[tokio::test]
    async fn deletes_that_name_no_columns_or_are_gone_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = file(&folder, "data.parquet", &[("id", 1, numbers([Some(1)]))]);
        let lake = lake(&folder);
        let known = deletes(&folder, "1.parquet", &[("id", 1, numbers([Some(1)]))]);
        let nothing = EqualityFile { schema: Arc::new(Schema::empty()), columns: Columns::new(Vec::new()), ..known.clone() };
        let gone = EqualityFile { file: DeleteFile { path: Path::from("gone.parquet"), size: 100 }, ..known };
        for delete in [nothing, gone] {
            let error = Equality::new(Arc::clone(&lake), vec![delete]).of(&wanted, &unbounded()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{error}");
            assert!(error.place().is_some(), "{error}");
        }
    }
}
