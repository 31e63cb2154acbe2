//! Which deletes of a snapshot apply to which of its files, by the rules of the specification ("Scan Planning").

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{DataContentType, DataFileFormat, Literal, PrimitiveLiteral, Schema, Struct};
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::manifests::place;
use super::snapshot::Entry;
use super::table::{Table, refused};
use super::types::{column, lost_column};
use crate::lake::{All, Columns, DeleteFile, Deletes, Equality, EqualityFile, Lake, Positions, Tail, Vector};

/// A spec and the values by it, in the types that they have been promoted to.
type Partition = (i32, Vec<Option<Literal>>);
/// The key columns of an equality delete, as tables and as files know them.
type Keys = (SchemaRef, Columns);

/// Deletes from the oldest on. A file of rows has those from some place on, so that all files share one list.
struct ByAge<T> {
    sequences: Vec<i64>,
    all: Arc<[T]>,
}

impl<T> ByAge<T> {
    fn new(mut aged: Vec<(i64, T)>) -> Self {
        aged.sort_by_key(|(sequence, _)| *sequence);
        let (sequences, all): (Vec<i64>, Vec<T>) = aged.into_iter().unzip();
        Self { sequences, all: all.into() }
    }

    /// Those that are not too old; none where no such is there.
    fn since(&self, too_old: impl Fn(i64) -> bool) -> Option<Tail<T>> {
        let from = self.sequences.partition_point(|sequence| too_old(*sequence));
        (from < self.sequences.len()).then(|| Tail::new(Arc::clone(&self.all), from))
    }
}

/// Equality deletes, with the newest by each field.
struct ByValue<T> {
    deletes: T,
    newest: BTreeMap<i32, i64>,
}

/// What says which rows of a file are deleted, and how many those are where that is known.
type Known = (Option<Arc<dyn Deletes>>, Option<u64>);

/// The deletes of a snapshot by what they apply to.
pub(super) struct Deleted<'a> {
    lake: &'a Arc<Lake>,
    table: &'a Table,
    /// Deletion vectors, by the file of which each is.
    vectors: HashMap<String, &'a Entry<'a>>,
    /// Position deletes of one file.
    of_file: HashMap<String, ByAge<DeleteFile>>,
    /// Position deletes of the files of a partition.
    of_partition: HashMap<Partition, ByAge<DeleteFile>>,
    /// Equality deletes of a partition, and of all files.
    equal: HashMap<Option<Partition>, ByValue<ByAge<EqualityFile>>>,
}

/// The same while it is put together.
#[derive(Default)]
struct Found<'a> {
    vectors: HashMap<String, &'a Entry<'a>>,
    of_file: HashMap<String, Vec<(i64, DeleteFile)>>,
    of_partition: HashMap<Partition, Vec<(i64, DeleteFile)>>,
    equal: HashMap<Option<Partition>, ByValue<Vec<(i64, EqualityFile)>>>,
    keys: HashMap<Vec<i32>, Keys>,
}

impl<'a> Deleted<'a> {
    /// Errors: `Data` for deletes that the specification does not allow; `Unsupported` for files of other formats, by name.
    pub(super) fn new(lake: &'a Arc<Lake>, table: &'a Table, schema: &Schema, deletes: &'a [Entry<'a>]) -> Result<Self> {
        let mut found = Found::default();
        for entry in deletes {
            let path = place(lake, entry.entry)?;
            found.add(table, schema, entry, &path).map_err(|error| error.at(lake.store.place(&path)))?;
        }
        let equal = found
            .equal
            .into_iter()
            .map(|(partition, ByValue { deletes, newest })| (partition, ByValue { deletes: ByAge::new(deletes), newest }));
        Ok(Self {
            lake,
            table,
            vectors: found.vectors,
            of_file: by_age(found.of_file),
            of_partition: by_age(found.of_partition),
            equal: equal.collect(),
        })
    }

    /// What says which rows of a file are deleted, if anything does, and how many those are where that is known.
    pub(super) fn of(&self, entry: &Entry<'_>) -> Result<Known> {
        let (path, own, sequence) = (entry.entry.file_path(), partition(entry), entry.sequence());
        let mut parts: Vec<Arc<dyn Deletes>> = Vec::new();
        let mut count = Some(0);
        match self.vectors.get(path).filter(|delete| delete.sequence() >= sequence) {
            // A deletion vector has taken up the position deletes of before.
            Some(delete) => {
                count = Some(delete.entry.record_count());
                parts.push(Arc::new(vector_of(self.lake, delete)?));
            }
            None => {
                let all = [self.of_file.get(path), self.of_partition.get(&own)];
                for files in all.into_iter().flatten().filter_map(|all| all.since(|delete| delete < sequence)) {
                    count = None;
                    parts.push(Arc::new(Positions::new(Arc::clone(self.lake), files)));
                }
            }
        }
        for all in [self.equal.get(&Some(own)), self.equal.get(&None)].into_iter().flatten() {
            if let Some(files) = all.deletes.since(|delete| delete <= sequence) {
                self.known_keys(entry, &all.newest)?;
                count = None;
                parts.push(Arc::new(Equality::new(Arc::clone(self.lake), files)));
            }
        }
        let deletes = match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(Arc::new(All::new(parts)) as Arc<dyn Deletes>),
        };
        Ok((deletes, count))
    }

    /// Errors: `Unsupported` where a key may have another value than NULL in a file that does not hold it.
    fn known_keys(&self, entry: &Entry<'_>, newest: &BTreeMap<i32, i64>) -> Result<()> {
        let newer = newest.iter().filter(|(_, sequence)| **sequence > entry.sequence());
        for (id, _) in newer {
            let may_be_given = entry.is_partitioned_by(self.table, *id) || self.table.defaults.contains(id);
            if may_be_given && !entry.holds(*id) {
                let path = place(self.lake, entry.entry)?;
                let what = format!("equality deletes by the field {id}, which this file may not hold,");
                return Err(refused(what).at(self.lake.store.place(&path)));
            }
        }
        Ok(())
    }
}

impl<'a> Found<'a> {
    fn add(&mut self, table: &Table, schema: &Schema, entry: &'a Entry<'a>, path: &Path) -> Result<()> {
        let (file, sequence) = (entry.entry.data_file(), entry.sequence());
        let delete = || DeleteFile { path: path.clone(), size: file.file_size_in_bytes() };
        match (file.content_type(), file.file_format()) {
            (DataContentType::Data, _) => return Err(Error::data("a file of rows stands among the deletes")),
            (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                let of = file.referenced_data_file().ok_or_else(|| Error::data("this deletion vector is of no file"))?;
                if let Some(other) = self.vectors.insert(of.clone(), entry) {
                    let message = format!("{of} has two deletion vectors, and the other is in {}", other.entry.file_path());
                    return Err(Error::data(message));
                }
            }
            (_, format) if format != DataFileFormat::Parquet => return Err(refused(format!("deletes in {format} files"))),
            (DataContentType::PositionDeletes, _) => match file.referenced_data_file() {
                Some(of) => self.of_file.entry(of).or_default().push((sequence, delete())),
                None => self.of_partition.entry(partition(entry)).or_default().push((sequence, delete())),
            },
            (DataContentType::EqualityDeletes, _) => {
                let ids = file.equality_ids().filter(|ids| !ids.is_empty());
                let ids = ids.ok_or_else(|| Error::data("this equality delete names no columns"))?;
                let (columns, known) = match self.keys.entry(ids.clone()) {
                    Slot::Occupied(known) => known.get().clone(),
                    Slot::Vacant(slot) => slot.insert(keys(table, schema, &ids)?).clone(),
                };
                let spec = table.metadata.partition_spec_by_id(entry.files.spec);
                let everywhere = spec.is_some_and(|spec| spec.is_unpartitioned());
                let of = self.equal.entry((!everywhere).then(|| partition(entry)));
                let of = of.or_insert_with(|| ByValue { deletes: Vec::new(), newest: BTreeMap::new() });
                of.deletes.push((sequence, EqualityFile { file: delete(), schema: columns, columns: known }));
                for id in ids {
                    let newest = of.newest.entry(id).or_insert(sequence);
                    *newest = sequence.max(*newest);
                }
            }
        }
        Ok(())
    }
}

fn by_age<K: Eq + Hash, T>(found: HashMap<K, Vec<(i64, T)>>) -> HashMap<K, ByAge<T>> {
    found.into_iter().map(|(key, deletes)| (key, ByAge::new(deletes))).collect()
}

fn vector_of(lake: &Arc<Lake>, delete: &Entry<'_>) -> Result<Vector> {
    let (path, file) = (place(lake, delete.entry)?, delete.entry.data_file());
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let (offset, length) = (number(file.content_offset()), number(file.content_size_in_bytes()));
    let size = file.file_size_in_bytes();
    let inside = offset.zip(length).filter(|(offset, length)| offset.checked_add(*length).is_some_and(|end| end <= size));
    let Some((offset, length)) = inside else {
        return Err(Error::data("a deletion vector is said to be where the file does not reach").at(lake.store.place(&path)));
    };
    Ok(Vector::new(Arc::clone(lake), path, size, offset, length, file.record_count()))
}

/// The key columns by their ids: in the types of now, or of when they were last there.
fn keys(table: &Table, schema: &Schema, ids: &[i32]) -> Result<Keys> {
    let mapping = table.mapping.as_ref();
    let (mut fields, mut columns, mut lost): (Vec<Field>, Vec<_>, _) = (Vec::new(), Vec::new(), None);
    for id in ids {
        let now = schema.as_struct().field_by_id(*id).cloned();
        let Some(field) = now.or_else(|| table.past_column(*id)) else {
            return Err(refused(format!("equality deletes by the field {id}, which is within another,")));
        };
        if !field.field_type.is_primitive() {
            return Err(refused(format!("equality deletes by \"{}\", which holds others,", field.name)));
        }
        if fields.iter().any(|known| *known.name() == field.name) {
            return Err(refused(format!("equality deletes by two columns that were each called \"{}\"", field.name)));
        }
        lost = lost.or_else(|| lost_column(&field, mapping));
        let (field, column) = column(&field, mapping)?;
        fields.push(field);
        columns.push(column);
    }
    Ok((Arc::new(ArrowSchema::new(fields)), Columns::new(columns).with_lost(lost)))
}

fn partition(entry: &Entry<'_>) -> Partition {
    (entry.files.spec, promoted(entry.entry.data_file().partition()))
}

/// The values of a partition alike, whether or not their columns had been promoted when they were written.
fn promoted(partition: &Struct) -> Vec<Option<Literal>> {
    let promoted = |literal: &Literal| match literal {
        Literal::Primitive(PrimitiveLiteral::Int(value)) => Literal::long(*value),
        Literal::Primitive(PrimitiveLiteral::Float(value)) => Literal::double(**value),
        other => other.clone(),
    };
    partition.iter().map(|value| value.map(promoted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_rows_share_the_deletes_that_are_newer() {
        let deletes = ByAge::new(vec![(7, "d"), (3, "a"), (5, "b"), (5, "c")]);
        let since = |sequence| deletes.since(|delete| delete < sequence).map(|tail| tail.to_vec());
        assert_eq!(since(0), Some(vec!["a", "b", "c", "d"]));
        assert_eq!(since(5), Some(vec!["b", "c", "d"]));
        assert_eq!(since(7), Some(vec!["d"]));
        assert_eq!(since(8), None);
        assert_eq!(deletes.since(|delete| delete <= 5).map(|tail| tail.to_vec()), Some(vec!["d"]));
        let tails: Vec<_> = (0..8).filter_map(|sequence| deletes.since(|delete| delete < sequence)).collect();
        assert_eq!((tails.len(), Arc::strong_count(&deletes.all)), (8, 9));
    }
}
