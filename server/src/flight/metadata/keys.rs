//! The four key commands: primary keys, and foreign keys seen from either side or between two tables.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, UpdateDeleteRules,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use nexus_flight_catalog::{Catalogs, Context, Kind, Resolved, Result, TableName};

use super::{OPENED_AT_ONCE, given_up, or_none, wanted_catalogs};

static PRIMARY: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        // FlightSql.proto tells of the name first; Arrow's own servers in C++, Java and Go, and so their clients, do not.
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

static FOREIGN: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// The schema of [`primary_keys`].
pub fn primary_keys_schema() -> SchemaRef {
    Arc::clone(&PRIMARY)
}

/// The schema of [`exported_keys`], [`imported_keys`] and [`cross_reference`].
pub fn foreign_keys_schema() -> SchemaRef {
    Arc::clone(&FOREIGN)
}

/// The columns of the primary key of a table, in key order.
pub async fn primary_keys(catalogs: &Arc<Catalogs>, cx: &Context, command: &CommandGetPrimaryKeys) -> Result<RecordBatch> {
    let wanted = Wanted::new(&command.catalog, &command.db_schema, Some(&command.table));
    let tables = opened(catalogs, cx, wanted).await?;
    let columns: Vec<(&TableName, &str, i32)> = tables
        .iter()
        .flat_map(|(name, table)| table.keys.primary.iter().zip(1..).map(move |(column, place)| (name, column.as_str(), place)))
        .collect();
    let text = |of: fn(&(&TableName, &str, i32)) -> String| texts(columns.iter().map(of));
    let batch = vec![
        text(|(table, ..)| table.catalog.clone()),
        text(|(table, ..)| table.schema.clone()),
        text(|(table, ..)| table.table.clone()),
        text(|(_, column, _)| (*column).to_owned()),
        Arc::new(Int32Array::from_iter_values(columns.iter().map(|(.., place)| *place))),
        text(|(table, ..)| format!("{}_pkey", table.table)),
    ];
    Ok(RecordBatch::try_new(primary_keys_schema(), batch)?)
}

/// The foreign keys of other tables that refer to a table. A source knows keys by the table that has them, so all tables of
/// the catalog are asked for theirs.
pub async fn exported_keys(catalogs: &Arc<Catalogs>, cx: &Context, command: &CommandGetExportedKeys) -> Result<RecordBatch> {
    let referred = Wanted::new(&command.catalog, &command.db_schema, Some(&command.table));
    let mut references = references(catalogs, cx, Wanted::new(&command.catalog, &None, None), referred).await?;
    references.sort_by(|a, b| (&a.from, &a.name, a.place).cmp(&(&b.from, &b.name, b.place)));
    batch(&references)
}

/// The foreign keys of a table.
pub async fn imported_keys(catalogs: &Arc<Catalogs>, cx: &Context, command: &CommandGetImportedKeys) -> Result<RecordBatch> {
    let referring = Wanted::new(&command.catalog, &command.db_schema, Some(&command.table));
    referring_to(catalogs, cx, referring, Wanted::default()).await
}

/// The foreign keys of one table that refer to another.
pub async fn cross_reference(catalogs: &Arc<Catalogs>, cx: &Context, command: &CommandGetCrossReference) -> Result<RecordBatch> {
    let referring = Wanted::new(&command.fk_catalog, &command.fk_db_schema, Some(&command.fk_table));
    let referred = Wanted::new(&command.pk_catalog, &command.pk_db_schema, Some(&command.pk_table));
    referring_to(catalogs, cx, referring, referred).await
}

async fn referring_to(
    catalogs: &Arc<Catalogs>,
    cx: &Context,
    referring: Wanted<'_>,
    referred: Wanted<'_>,
) -> Result<RecordBatch> {
    let mut references = references(catalogs, cx, referring, referred).await?;
    references.sort_by(|a, b| (&a.to, &a.from, &a.name, a.place).cmp(&(&b.to, &b.from, &b.name, b.place)));
    batch(&references)
}

/// The tables that a command asks for: each part is an exact name, or any where it is left out.
#[derive(Clone, Copy, Default)]
struct Wanted<'a> {
    catalog: Option<&'a str>,
    schema: Option<&'a str>,
    table: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(catalog: &'a Option<String>, schema: &'a Option<String>, table: Option<&'a String>) -> Self {
        Self { catalog: catalog.as_deref(), schema: schema.as_deref(), table: table.map(String::as_str) }
    }

    fn admits(&self, name: &TableName) -> bool {
        self.catalog.is_none_or(|catalog| catalog == name.catalog)
            && self.schema.is_none_or(|schema| schema == name.schema)
            && self.table.is_none_or(|table| table == name.table)
    }
}

/// One column of a foreign key.
struct Reference {
    from: TableName,
    from_column: String,
    to: TableName,
    to_column: String,
    name: String,
    place: i32,
}

async fn references(
    catalogs: &Arc<Catalogs>,
    cx: &Context,
    referring: Wanted<'_>,
    referred: Wanted<'_>,
) -> Result<Vec<Reference>> {
    let mut references = Vec::new();
    for (from, table) in opened(catalogs, cx, referring).await? {
        for key in &table.keys.foreign {
            let to = TableName::new(&from.catalog, &key.schema, &key.table);
            if !referred.admits(&to) {
                continue;
            }
            let name = format!("{}_{}_fkey", from.table, key.columns.join("_"));
            for ((from_column, to_column), place) in key.columns.iter().zip(&key.referenced).zip(1..) {
                let (from_column, to_column) = (from_column.clone(), to_column.clone());
                references.push(Reference {
                    from: from.clone(),
                    from_column,
                    to: to.clone(),
                    to_column,
                    name: name.clone(),
                    place,
                });
            }
        }
    }
    Ok(references)
}

/// The wanted tables of sources that know keys, by name. What cannot be opened has no keys to show.
async fn opened(catalogs: &Arc<Catalogs>, cx: &Context, wanted: Wanted<'_>) -> Result<Vec<(TableName, Resolved)>> {
    let mut names = Vec::new();
    for catalog in wanted_catalogs(catalogs, cx, wanted.catalog) {
        if !catalogs.source(&cx.principal, &catalog)?.spec().capabilities.keys {
            continue;
        }
        let named = wanted.catalog.is_some();
        let mut schemas = or_none(catalogs.schemas(cx, &catalog).await, named)?;
        schemas.retain(|schema| wanted.schema.is_none_or(|wanted| wanted == schema));
        for schema in schemas {
            let entries = or_none(catalogs.tables(cx, &catalog, &schema).await, named)?;
            names.extend(entries.into_iter().map(|entry| TableName::new(&catalog, &schema, entry.name)));
        }
    }
    names.retain(|name| wanted.admits(name));
    names.sort();
    stream::iter(names)
        .map(|name| async move {
            match catalogs.table(cx, &name).await {
                Ok(table) => Ok(Some((name, table))),
                Err(error) if given_up(&error) || error.kind() == Kind::Unauthenticated => Err(error),
                Err(_) => Ok(None),
            }
        })
        .buffered(OPENED_AT_ONCE)
        .try_filter_map(|table| async move { Ok(table) })
        .try_collect()
        .await
}

fn batch(references: &[Reference]) -> Result<RecordBatch> {
    let text = |of: fn(&Reference) -> String| texts(references.iter().map(of));
    // No source says what happens to referring rows, and none of them changes through here.
    let rule = UpdateDeleteRules::NoAction as u8;
    let rules: ArrayRef = Arc::new(UInt8Array::from_value(rule, references.len()));
    let columns = vec![
        text(|reference| reference.to.catalog.clone()),
        text(|reference| reference.to.schema.clone()),
        text(|reference| reference.to.table.clone()),
        text(|reference| reference.to_column.clone()),
        text(|reference| reference.from.catalog.clone()),
        text(|reference| reference.from.schema.clone()),
        text(|reference| reference.from.table.clone()),
        text(|reference| reference.from_column.clone()),
        Arc::new(Int32Array::from_iter_values(references.iter().map(|reference| reference.place))),
        text(|reference| reference.name.clone()),
        // The columns referred to may be a unique key rather than the primary one.
        Arc::new(StringArray::new_null(references.len())),
        Arc::clone(&rules),
        rules,
    ];
    Ok(RecordBatch::try_new(foreign_keys_schema(), columns)?)
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}
