//! How a file names the columns of a table: by field ids, or by names that never change, while the table's own names do.
//!
//! The names of the table are written into the footer of a file before any reader sees it, so that all that is found by name
//! (columns, statistics, pages, bloom filters) is of the right column.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use nexus_flight_catalog::{Error, Result};
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use super::floats::Floats;
use crate::stores::Rewrite;

/// The columns of a table as files know them, in the order of the table's schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    /// A column that is not known in files without field ids: what was its name there is by now that of another.
    lost: Option<String>,
    floats: Floats,
    /// Stands for all of that where footers are kept.
    key: u64,
}

/// A column, or a field within one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Column {
    /// What the table calls it now.
    pub(crate) name: String,
    /// The field id that it has in every file; none where files know it by its name.
    pub(crate) id: Option<i32>,
    /// The names under which files without ids hold it: the physical name of Delta, the name mapping of Iceberg. The first that a
    /// file has counts.
    pub(crate) aliases: Vec<String>,
    /// The fields of a struct; the one field of a list; the key and the value of a map; empty for all else.
    pub(crate) fields: Vec<Column>,
}

impl Columns {
    /// In the order of the table's schema.
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self::of(columns, None, Floats::Same)
    }

    /// The same, of which one may be lost: its name in files without field ids is by now that of another. Such files are refused.
    pub(crate) fn with_lost(self, lost: Option<String>) -> Self {
        Self::of(self.columns, lost, self.floats)
    }

    /// The same of a table that reads floats as doubles in this way.
    #[cfg(feature = "hudi")]
    pub(crate) fn with_floats(self, floats: Floats) -> Self {
        Self { floats, ..self }
    }

    /// How floats of files are read as doubles.
    pub(super) fn floats(&self) -> Floats {
        self.floats
    }

    fn of(columns: Vec<Column>, lost: Option<String>, floats: Floats) -> Self {
        let mut hasher = DefaultHasher::new();
        (&columns, &lost).hash(&mut hasher);
        Self { columns, lost, floats, key: hasher.finish() }
    }

    /// The same without the columns at these places.
    pub(crate) fn without(&self, places: &[usize]) -> Self {
        let kept = self.columns.iter().enumerate().filter(|(place, _)| !places.contains(place));
        Self::of(kept.map(|(_, column)| column.clone()).collect(), self.lost.clone(), self.floats)
    }

    /// The footer of a file with the names of the table at every level; none where it has them already. What is no column of the
    /// table gets a name that none can have, so that a column which was dropped does not come back under the name of another.
    ///
    /// Field ids and Arrow's own schema are left out. Of that schema nothing is lost but how its writer held the values in
    /// memory, such as dictionaries or large text, or the name of a time zone that Parquet has as UTC: the table's types rule.
    /// What Parquet has no type for, such as seconds since 1970, is then the plain number that it is written as, which is read as no
    /// time.
    ///
    /// Errors: `Data` where it is not certain which field is which column, or where one has another shape in the file; `Unsupported`
    /// where a column is lost.
    pub(crate) fn rename(&self, footer: &ParquetMetaData) -> Result<Option<ParquetMetaData>> {
        let file = footer.file_metadata();
        let fields = fields_of(file.schema());
        let mut ids = Vec::new();
        look_through(fields, &mut ids)?;
        if any(&self.columns, |column| column.id.is_some()) {
            if let Some(name) = self.lost.as_ref().filter(|_| ids.is_empty()) {
                let message = format!("the file has no field ids, and the name \"{name}\" is by now that of a later column");
                return Err(Error::unsupported(message).with_hint("read a newer state of the table, or write the file again"));
            }
            if ids.is_empty() && !fields.is_empty() && !any(&self.columns, |column| !column.aliases.is_empty()) {
                return Err(Error::data("the file has no field ids, and the table no name mapping")
                    .with_hint("give the table a name mapping (schema.name-mapping.default), or write the file again"));
            }
            let mut seen = HashSet::new();
            if let Some(id) = ids.iter().find(|id| !seen.insert(**id)) {
                return Err(Error::data(format!("two fields of the file have the id {id}")).with_hint(AGAIN));
            }
        }
        let root = copy(file.schema(), file.schema().name(), named(fields, &self.columns, !ids.is_empty())?)?;
        let notes = file.key_value_metadata();
        let of_arrow = notes.is_some_and(|notes| notes.iter().any(is_schema));
        if *root == *file.schema() && !of_arrow {
            return Ok(None);
        }
        let renamed = FileMetaData::new(
            file.version(),
            file.num_rows(),
            file.created_by().map(str::to_owned),
            notes.map(|notes| notes.iter().filter(|note| !is_schema(note)).cloned().collect()),
            Arc::new(SchemaDescriptor::new(root)),
            file.column_orders().cloned(),
        );
        // The row groups and their chunks keep the old names, which nobody looks at: `StatisticsConverter` and `parquet_column`
        // find a name in the schema of the file, and from there on chunks, pages and bloom filters are found by their places,
        // which do not change. Of a chunk's own type only the physical one is looked at.
        let renamed = ParquetMetaDataBuilder::new(renamed)
            .set_row_groups(footer.row_groups().to_vec())
            .set_column_index(footer.column_index().cloned())
            .set_offset_index(footer.offset_index().cloned());
        Ok(Some(renamed.build()))
    }
}

impl Rewrite for Columns {
    fn key(&self) -> u64 {
        self.key
    }

    fn rewrite(&self, footer: &ParquetMetaData) -> Result<Option<ParquetMetaData>> {
        self.rename(footer)
    }
}

/// What is advised where a file cannot belong to its table.
pub(super) const AGAIN: &str = "the file was not written for this table; write it again, or remove it from the table";

fn is_schema(note: &KeyValue) -> bool {
    note.key == ARROW_SCHEMA_META_KEY
}

fn any(columns: &[Column], is: fn(&Column) -> bool) -> bool {
    columns.iter().any(|column| is(column) || any(&column.fields, is))
}

fn fields_of(field: &Type) -> &[TypePtr] {
    match field {
        Type::GroupType { fields, .. } => fields,
        Type::PrimitiveType { .. } => &[],
    }
}

/// Collects the field ids of a file. Errors: `Data` for a group of nothing: Arrow has no field for it, and all that follow would
/// be taken for their neighbours.
fn look_through(fields: &[TypePtr], ids: &mut Vec<i32>) -> Result<()> {
    for field in fields {
        let info = field.get_basic_info();
        if info.has_id() {
            ids.push(info.id());
        }
        if field.is_group() && fields_of(field).is_empty() {
            return Err(unsound(&format!("the group \"{}\"", info.name()), "has no fields"));
        }
        look_through(fields_of(field), ids)?;
    }
    Ok(())
}

/// The fields of one struct, or of the file, with the names of their columns, which are found by ids where the file has any.
fn named(fields: &[TypePtr], columns: &[Column], has_ids: bool) -> Result<Vec<TypePtr>> {
    let mut ids = HashMap::new();
    // None where two fields have the name.
    let mut names: HashMap<&str, Option<usize>> = HashMap::new();
    for (place, field) in fields.iter().enumerate() {
        let info = field.get_basic_info();
        if info.has_id() {
            ids.insert(info.id(), place);
        }
        names.entry(info.name()).and_modify(|same| *same = None).or_insert(Some(place));
    }
    let mut held: Vec<Option<&Column>> = vec![None; fields.len()];
    for column in columns {
        let place = match column.id {
            Some(id) if has_ids => ids.get(&id).copied(),
            _ => match named_so(column, &names).or_else(|| nearly_named_so(column, columns, &names)) {
                Some(None) => {
                    let message = format!("two fields of the file have the name of the column \"{}\"", column.name);
                    return Err(Error::data(message).with_hint(AGAIN));
                }
                Some(place) => place,
                None => None,
            },
        };
        let Some(place) = place else { continue };
        if let Some(other) = held.get_mut(place).and_then(|held| held.replace(column)) {
            let message = format!("one field of the file is both columns \"{}\" and \"{}\"", other.name, column.name);
            return Err(Error::data(message).with_hint("correct the ids or names in the table's metadata"));
        }
    }
    let fields = fields.iter().zip(held).enumerate().map(|(place, (field, column))| match column {
        Some(column) => renamed(field, column, has_ids),
        None => plain(field, &format!("\0{place}")),
    });
    fields.collect()
}

/// The field with the first of a column's names that the file has; of two none.
fn named_so(column: &Column, names: &HashMap<&str, Option<usize>>) -> Option<Option<usize>> {
    column.aliases.iter().find_map(|alias| names.get(alias.as_str()).copied())
}

/// The same in other letters, as Spark finds what it wrote to Delta under another spelling. What Iceberg has a name for is called so.
fn nearly_named_so(column: &Column, columns: &[Column], names: &HashMap<&str, Option<usize>>) -> Option<Option<usize>> {
    if column.id.is_some() {
        return None;
    }
    let is_alike = |name: &str| column.aliases.iter().any(|alias| alias.to_lowercase() == name.to_lowercase());
    let is_free = |name: &str| !columns.iter().any(|column| column.aliases.iter().any(|alias| alias == name));
    let mut alike = names.iter().filter(|(name, _)| is_alike(name) && is_free(name)).map(|(_, place)| *place);
    let first = alike.next()?;
    Some(first.filter(|_| alike.next().is_none()))
}

/// A field that holds a column.
fn renamed(field: &Type, column: &Column, has_ids: bool) -> Result<TypePtr> {
    if repetition(field) != Some(Repetition::REPEATED) {
        return value(field, &column.name, column, has_ids);
    }
    // The oldest lists: a field that is there many times is itself the element.
    let [element] = column.fields.as_slice() else { return Err(mismatch(column, "list")) };
    value(field, &column.name, element, has_ids)
}

/// A field that holds the values of a column, however often.
fn value(field: &Type, name: &str, column: &Column, has_ids: bool) -> Result<TypePtr> {
    if field.is_primitive() {
        return match column.fields.is_empty() {
            true => copy(field, name, Vec::new()),
            false => Err(mismatch(column, "plain value")),
        };
    }
    // What `parquet::arrow` decides by, too.
    match field.get_basic_info().converted_type() {
        ConvertedType::LIST => list(field, name, column, has_ids),
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => map(field, name, column, has_ids),
        _ => structure(field, name, column, has_ids),
    }
}

fn structure(field: &Type, name: &str, column: &Column, has_ids: bool) -> Result<TypePtr> {
    match column.fields.is_empty() {
        true => Err(mismatch(column, "struct")),
        false => copy(field, name, named(fields_of(field), &column.fields, has_ids)?),
    }
}

/// The names around an element become those of the Parquet format: some old ones count together with the name of the list, which
/// changes, and times of 96 bits are looked for under the new ones only.
fn list(field: &Type, name: &str, column: &Column, has_ids: bool) -> Result<TypePtr> {
    let [element] = column.fields.as_slice() else { return Err(mismatch(column, "list")) };
    let [repeated] = fields_of(field) else { return Err(unsound("a list", "has not one field")) };
    let repeated = match fields_of(repeated) {
        [] => value(repeated, &element.name, element, has_ids)?,
        // A struct of one field tells that it is the element by its name.
        [_] if is_element(repeated, field.name()) => structure(repeated, "array", element, has_ids)?,
        [item] => copy(repeated, "list", vec![renamed(item, element, has_ids)?])?,
        _ => structure(repeated, &element.name, element, has_ids)?,
    };
    copy(field, name, vec![repeated])
}

/// Whether what a list repeats, a group of one field, is the element and not around it: the rules for old writers of the Parquet
/// format, as `parquet::arrow` has them.
fn is_element(repeated: &Type, list: &str) -> bool {
    let info = repeated.get_basic_info();
    let is_list = match info.logical_type_ref() {
        Some(logical) => *logical == LogicalType::List,
        None => info.converted_type() == ConvertedType::LIST,
    };
    let holds_list = fields_of(repeated).iter().any(|item| repetition(item) == Some(Repetition::REPEATED));
    let says_so = info.name() == "array" || info.name().strip_suffix("_tuple") == Some(list);
    says_so && !is_list && !holds_list
}

fn map(field: &Type, name: &str, column: &Column, has_ids: bool) -> Result<TypePtr> {
    let [entries] = fields_of(field) else { return Err(unsound("a map", "has not one field")) };
    match (fields_of(entries), column.fields.as_slice()) {
        ([key, value], [as_key, as_value]) => {
            let entry = vec![renamed(key, as_key, has_ids)?, renamed(value, as_value, has_ids)?];
            copy(field, name, vec![copy(entries, "key_value", entry)?])
        }
        ([_, _], _) => Err(mismatch(column, "map")),
        _ => Err(unsound("a map", "has not a key and a value")),
    }
}

/// A field that is no column, under this name.
fn plain(field: &Type, name: &str) -> Result<TypePtr> {
    let fields = fields_of(field).iter().map(|field| plain(field, field.name()));
    copy(field, name, fields.collect::<Result<_>>()?)
}

/// The same field without its id, under this name, and with these fields if it is a group.
fn copy(field: &Type, name: &str, fields: Vec<TypePtr>) -> Result<TypePtr> {
    let info = field.get_basic_info();
    let (converted, logical) = (info.converted_type(), info.logical_type_ref().cloned());
    let copied = match field {
        Type::PrimitiveType { physical_type, type_length, scale, precision, .. } => {
            let leaf = Type::primitive_type_builder(name, *physical_type)
                .with_repetition(info.repetition())
                .with_converted_type(converted)
                .with_logical_type(logical)
                .with_length(*type_length)
                .with_precision(*precision)
                .with_scale(*scale);
            leaf.build()
        }
        Type::GroupType { .. } => {
            let group = Type::group_type_builder(name).with_converted_type(converted).with_logical_type(logical);
            let group = group.with_fields(fields);
            // Only the file as a whole has none.
            match repetition(field) {
                Some(repetition) => group.with_repetition(repetition).build(),
                None => group.build(),
            }
        }
    };
    copied.map(Arc::new).map_err(|cause| Error::data(format!("the schema of the file is not sound: {cause}")).with_hint(AGAIN))
}

fn repetition(field: &Type) -> Option<Repetition> {
    let info = field.get_basic_info();
    info.has_repetition().then(|| info.repetition())
}

fn mismatch(column: &Column, kind: &str) -> Error {
    let name = &column.name;
    Error::data(format!("the column \"{name}\" is a {kind} in the file, and something else in the table")).with_hint(AGAIN)
}

fn unsound(what: &str, why: &str) -> Error {
    Error::data(format!("{what} in the file {why}")).with_hint(AGAIN)
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::json::{LineDelimitedWriter, ReaderBuilder};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
    use parquet::data_type::Int32Type;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A column that has an id.
    fn by_id(name: &str, id: i32, fields: Vec<Column>) -> Column {
        Column { name: name.into(), id: Some(id), aliases: Vec::new(), fields }
    }

    /// A column that has a name.
    fn by_name(name: &str, alias: &str, fields: Vec<Column>) -> Column {
        Column { name: name.into(), id: None, aliases: vec![alias.into()], fields }
    }

    fn field(name: &str, id: i32, data_type: DataType) -> Field {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, data_type, true).with_metadata(id)
    }

    /// A file of one row.
    fn file(fields: Vec<Field>, row: &str) -> Bytes {
        let schema = Arc::new(Schema::new(fields));
        let batch: RecordBatch = ReaderBuilder::new(schema).build(row.as_bytes()).unwrap().next().unwrap().unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        Bytes::from(bytes)
    }

    /// A file of the lists [1, 2] and [3], whose column is defined at a level.
    fn lists(column: &str, level: i16) -> Bytes {
        let schema = Arc::new(parse_message_type(&format!("message file {{ {column} }}")).unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[1, 2, 3], Some(&[level; 3]), Some(&[0, 1, 0])).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        Bytes::from(bytes)
    }

    fn footer(file: &Bytes) -> ParquetMetaData {
        ParquetMetaDataReader::new().parse_and_finish(file).unwrap()
    }

    /// The rows of a file under the names of a table.
    fn rows(file: &Bytes, columns: Vec<Column>) -> Result<String> {
        renamed_rows(file, &Columns::new(columns))
    }

    fn renamed_rows(file: &Bytes, columns: &Columns) -> Result<String> {
        let footer = footer(file);
        let footer = columns.rename(&footer)?.unwrap_or(footer);
        let metadata = ArrowReaderMetadata::try_new(Arc::new(footer), ArrowReaderOptions::new()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata).build().unwrap();
        let mut writer = LineDelimitedWriter::new(Vec::new());
        for batch in reader {
            writer.write(&batch.unwrap()).unwrap();
        }
        writer.finish().unwrap();
        Ok(String::from_utf8(writer.into_inner()).unwrap().trim_end().replace('\n', " "))
    }

    #[test]
    fn names_follow_ids() {
        let file = file(vec![field("a", 1, DataType::Int32), field("b", 2, DataType::Int32)], r#"{"a": 1, "b": 2}"#);
        let swapped = rows(&file, vec![by_id("a", 2, Vec::new()), by_id("b", 1, Vec::new())]);
        insta::assert_snapshot!(swapped.unwrap(), @r#"{"b":1,"a":2}"#);
        // Dropped, and another added of the same name: where a file has ids, its names do not count.
        let added = Column { aliases: vec!["a".into()], ..by_id("a", 3, Vec::new()) };
        insta::assert_snapshot!(rows(&file, vec![added, by_id("b", 2, Vec::new())]).unwrap(), @r#"{"\u00000":1,"b":2}"#);
    }

    #[test]
    fn fields_within_lists_and_maps_are_renamed() {
        let numbers = vec![field("x", 5, DataType::Int32), field("y", 6, DataType::Int32)];
        let list = DataType::List(Arc::new(field("element", 4, DataType::Struct(numbers.into()))));
        let key = field("key", 2, DataType::Utf8).with_nullable(false);
        let entries = DataType::Struct(vec![key, field("value", 3, list)].into());
        let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
        let file = file(vec![field("m", 1, map)], r#"{"m": {"k": [{"x": 1, "y": 2}, null]}}"#);
        let columns = |fields: Vec<Column>| {
            let list = by_id("value", 3, vec![by_id("element", 4, fields)]);
            vec![by_id("n", 1, vec![by_id("key", 2, Vec::new()), list])]
        };
        let swapped = columns(vec![by_id("x", 6, Vec::new()), by_id("y", 5, Vec::new())]);
        insta::assert_snapshot!(rows(&file, swapped).unwrap(), @r#"{"n":{"k":[{"y":1,"x":2},null]}}"#);
        // Dropped, and another added of the same name.
        let changed = columns(vec![by_id("x", 7, Vec::new()), by_id("y", 6, Vec::new())]);
        insta::assert_snapshot!(rows(&file, changed).unwrap(), @r#"{"n":{"k":[{"\u00000":1,"y":2},null]}}"#);
    }

    #[test]
    fn a_file_without_ids_is_read_by_aliases() {
        let file = file(vec![Field::new("col-1", DataType::Int32, true)], r#"{"col-1": 7}"#);
        let mapped = Column { aliases: vec!["gone".into(), "col-1".into()], ..by_id("n", 1, Vec::new()) };
        insta::assert_snapshot!(rows(&file, vec![mapped]).unwrap(), @r#"{"n":7}"#);
        let error = rows(&file, vec![by_id("n", 1, Vec::new())]).unwrap_err();
        insta::assert_snapshot!(error, @"the file has no field ids, and the table no name mapping; give the table a name mapping (schema.name-mapping.default), or write the file again");
    }

    #[test]
    fn a_column_whose_name_is_by_now_that_of_another_is_refused_without_ids() {
        let columns = || {
            let other = Column { aliases: vec!["b".into()], ..by_id("b", 2, Vec::new()) };
            Columns::new(vec![by_id("a", 1, Vec::new()), other]).with_lost(Some("a".into()))
        };
        let with_ids = file(vec![field("a", 1, DataType::Int32)], r#"{"a": 7}"#);
        insta::assert_snapshot!(renamed_rows(&with_ids, &columns()).unwrap(), @r#"{"a":7}"#);
        let without = file(vec![Field::new("a", DataType::Int32, true)], r#"{"a": 7}"#);
        for columns in [columns(), columns().without(&[1])] {
            let error = renamed_rows(&without, &columns).unwrap_err();
            insta::allow_duplicates! {
                insta::assert_snapshot!(error, @r#"the file has no field ids, and the name "a" is by now that of a later column; read a newer state of the table, or write the file again"#);
            }
        }
    }

    #[test]
    fn lists_of_old_writers_stay_lists() {
        let plain = || vec![by_name("new", "old", vec![by_name("element", "element", Vec::new())])];
        let structs = || vec![by_name("new", "old", vec![by_name("element", "element", vec![by_name("y", "x", Vec::new())])])];
        let numbers = r#"{"new":[1,2]} {"new":[3]}"#;
        for (column, level) in [
            ("repeated int32 old;", 1),
            ("optional group old (LIST) { repeated int32 array; }", 2),
            ("optional group old (LIST) { repeated group bag { required int32 item; } }", 2),
            // Under the new name it would be a struct.
            ("optional group old (LIST) { repeated group new_tuple { required int32 item; } }", 2),
        ] {
            assert_eq!(rows(&lists(column, level), plain()).unwrap(), numbers, "{column}");
        }
        for repeated in ["old_tuple", "array"] {
            let file = lists(&format!("optional group old (LIST) {{ repeated group {repeated} {{ required int32 x; }} }}"), 2);
            insta::allow_duplicates! {
                insta::assert_snapshot!(rows(&file, structs()).unwrap(), @r#"{"new":[{"y":1},{"y":2}]} {"new":[{"y":3}]}"#);
            }
        }
    }

    #[test]
    fn a_footer_with_the_right_names_stays() {
        let same = by_name("a", "a", vec![by_name("element", "element", Vec::new())]);
        let plain = lists("optional group a (LIST) { repeated group list { required int32 element; } }", 2);
        assert_eq!(Columns::new(vec![same]).rename(&footer(&plain)).unwrap(), None);
        let of_arrow = file(vec![Field::new("a", DataType::Int32, true)], r#"{"a": 1}"#);
        let renamed = Columns::new(vec![by_name("a", "a", Vec::new())]).rename(&footer(&of_arrow)).unwrap().unwrap();
        assert_eq!(renamed.file_metadata().key_value_metadata(), Some(&Vec::new()));
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let twice = file(vec![field("a", 1, DataType::Int32), field("b", 1, DataType::Int32)], r#"{"a": 1, "b": 2}"#);
        let refused = |file: &Bytes, columns| rows(file, columns).unwrap_err().message().to_owned();
        insta::assert_snapshot!(refused(&twice, vec![by_id("a", 1, Vec::new())]), @"two fields of the file have the id 1");
        let one = file(vec![field("a", 1, DataType::Int32)], r#"{"a": 1}"#);
        let both = vec![by_id("x", 1, Vec::new()), by_name("y", "a", Vec::new())];
        insta::assert_snapshot!(refused(&one, both), @r#"one field of the file is both columns "x" and "y""#);
        let nested = vec![by_id("a", 1, vec![by_id("b", 2, Vec::new())])];
        insta::assert_snapshot!(refused(&one, nested), @r#"the column "a" is a plain value in the file, and something else in the table"#);
    }
}
