//! `information_schema`, in every catalog: what is there, as tables.
//!
//! Only the listings that the statement's filters leave are asked for, and only `columns` and the key tables open a table.
//! The names and columns are those of ISO/IEC 9075-11 as PostgreSQL spells them, less what has no meaning here.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::catalog::Catalogs;
use crate::error::{Error, Kind, Result};
use crate::name::TableName;
use crate::source::{Context, Resolved, TableEntry, TableKind, Version};
use crate::virtual_table::{Filters, VirtualTable};

/// The schema's name.
pub const NAME: &str = "information_schema";

/// How many tables are opened at once for `columns` and the key tables.
const OPENED_AT_ONCE: usize = 16;

/// The views of the schema, sorted by name.
pub fn tables() -> Vec<TableEntry> {
    View::ALL.iter().map(|view| TableEntry { name: view.name().to_owned(), kind: TableKind::View, comment: None }).collect()
}

/// Whether there is a view of that name.
pub fn has(name: &str) -> bool {
    View::ALL.iter().any(|view| view.name() == name)
}

/// One of the views for a catalog, or none of that name.
pub fn table(catalogs: &Arc<Catalogs>, cx: &Context, catalog: &str, name: &str) -> Option<Resolved> {
    let view = *View::ALL.iter().find(|view| view.name() == name)?;
    let reader = Reader { catalogs: Arc::clone(catalogs), cx: cx.clone(), catalog: catalog.to_owned() };
    let provider = VirtualTable::new(view.schema(), move |filters| view.read(reader.clone(), filters));
    Some(Resolved { provider: Arc::new(provider), version: Version::Unknown, keys: Default::default() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Columns,
    KeyColumnUsage,
    Schemata,
    TableConstraints,
    Tables,
}

impl View {
    const ALL: [View; 5] = [View::Columns, View::KeyColumnUsage, View::Schemata, View::TableConstraints, View::Tables];

    fn name(self) -> &'static str {
        match self {
            View::Columns => "columns",
            View::KeyColumnUsage => "key_column_usage",
            View::Schemata => "schemata",
            View::TableConstraints => "table_constraints",
            View::Tables => "tables",
        }
    }

    fn schema(self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let optional = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str, nullable| Field::new(name, DataType::Int32, nullable);
        let constraint = || vec![text("constraint_catalog"), text("constraint_schema"), text("constraint_name")];
        let table = || vec![text("table_catalog"), text("table_schema"), text("table_name")];
        let fields = match self {
            View::Schemata => vec![text("catalog_name"), text("schema_name")],
            View::Tables => [table(), vec![text("table_type"), optional("table_comment")]].concat(),
            View::Columns => {
                let columns = vec![
                    text("column_name"),
                    number("ordinal_position", false),
                    text("is_nullable"),
                    text("data_type"),
                    number("numeric_precision", true),
                    number("numeric_scale", true),
                    optional("column_comment"),
                ];
                [table(), columns].concat()
            }
            View::TableConstraints => [constraint(), table(), vec![text("constraint_type")]].concat(),
            View::KeyColumnUsage => {
                [constraint(), table(), vec![text("column_name"), number("ordinal_position", false)]].concat()
            }
        };
        Arc::new(Schema::new(fields))
    }

    fn read(self, reader: Reader, filters: Filters) -> BoxStream<'static, Result<RecordBatch>> {
        let schema = self.schema();
        match self {
            View::Schemata => stream::once(async move { reader.schemata(schema, &filters).await }).boxed(),
            View::Tables => reader
                .listings(filters)
                .and_then(move |listing| {
                    let schema = Arc::clone(&schema);
                    async move { listing.batch(schema) }
                })
                .boxed(),
            View::Columns => reader.each_table(filters, schema, columns),
            View::TableConstraints => reader.each_table(filters, schema, table_constraints),
            View::KeyColumnUsage => reader.each_table(filters, schema, key_column_usage),
        }
    }
}

/// Reads the listings of one catalog for one statement.
#[derive(Clone)]
struct Reader {
    catalogs: Arc<Catalogs>,
    cx: Context,
    catalog: String,
}

/// The tables of one schema that passed the filters.
struct Listing {
    catalog: String,
    schema: String,
    entries: Vec<TableEntry>,
}

impl Listing {
    fn batch(&self, schema: SchemaRef) -> Result<RecordBatch> {
        let rows = self.entries.len();
        let names = self.entries.iter().map(|entry| Some(entry.name.as_str()));
        let kinds = self.entries.iter().map(|entry| Some(kind_name(entry.kind)));
        let comments = self.entries.iter().map(|entry| entry.comment.as_deref());
        let columns = vec![same(&self.catalog, rows), same(&self.schema, rows), texts(names), texts(kinds), texts(comments)];
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// The standard's word for a table's kind.
fn kind_name(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Table => "BASE TABLE",
        other => other.name(),
    }
}

impl Reader {
    async fn schemata(&self, schema: SchemaRef, filters: &Filters) -> Result<RecordBatch> {
        let names = self.catalogs.schemas(&self.cx, &self.catalog).await?;
        let columns = vec![same(&self.catalog, names.len()), texts(names.iter().map(|name| Some(name.as_str())))];
        let all = RecordBatch::try_new(schema, columns)?;
        let admitted = filters.admit(&all).into();
        Ok(arrow::compute::filter_record_batch(&all, &admitted)?)
    }

    /// The schemas that the filters admit, each with the tables that they admit.
    fn listings(&self, filters: Filters) -> BoxStream<'static, Result<Listing>> {
        let reader = self.clone();
        let schemas = async move {
            let names = reader.catalogs.schemas(&reader.cx, &reader.catalog).await?;
            let catalog = same(&reader.catalog, names.len());
            let candidates = RecordBatch::try_from_iter([
                ("table_catalog", catalog),
                ("table_schema", texts(names.iter().map(|name| Some(name.as_str())))),
            ])?;
            let admitted = filters.admit(&candidates);
            let wanted: Vec<String> = names.into_iter().zip(admitted).filter(|(_, yes)| *yes).map(|(name, _)| name).collect();
            Ok::<_, Error>(stream::iter(wanted.into_iter().map(move |schema| Ok((reader.clone(), filters.clone(), schema)))))
        };
        stream::once(schemas)
            .try_flatten()
            .try_filter_map(|(reader, filters, schema)| async move {
                let entries = match reader.catalogs.tables(&reader.cx, &reader.catalog, &schema).await {
                    Ok(entries) => entries,
                    // It was dropped since it was listed.
                    Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
                let mut listing = Listing { catalog: reader.catalog, schema, entries };
                let admitted = filters.admit(&listing.batch(View::Tables.schema())?);
                let mut verdicts = admitted.into_iter();
                listing.entries.retain(|_| verdicts.next().unwrap_or(true));
                Ok((!listing.entries.is_empty()).then_some(listing))
            })
            .boxed()
    }

    /// A batch for each table that the filters admit, made from the table itself.
    fn each_table(
        &self,
        filters: Filters,
        schema: SchemaRef,
        rows: fn(&TableName, &Resolved, SchemaRef) -> Result<RecordBatch>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let reader = self.clone();
        self.listings(filters)
            .map_ok(|listing| {
                let Listing { catalog, schema, entries } = listing;
                let name = move |entry: TableEntry| Ok(TableName::new(&catalog, &schema, entry.name));
                stream::iter(entries.into_iter().map(name))
            })
            .try_flatten()
            .map_ok(move |name| {
                let (reader, schema) = (reader.clone(), Arc::clone(&schema));
                async move {
                    match reader.catalogs.table(&reader.cx, &name).await {
                        Ok(table) => rows(&name, &table, schema).map(Some),
                        Err(error) if hides_one(error.kind()) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            })
            .try_buffered(OPENED_AT_ONCE)
            .try_filter_map(|batch| async move { Ok(batch) })
            .boxed()
    }
}

/// Whether an error is about one table only. A table that is gone, broken, of no one name or refused, such as by a link out of its
/// folder, has no columns to show and hides no others; reading it says why.
fn hides_one(kind: Kind) -> bool {
    matches!(kind, Kind::Invalid | Kind::NotFound | Kind::Data | Kind::Unsupported | Kind::Denied)
}

fn columns(name: &TableName, table: &Resolved, schema: SchemaRef) -> Result<RecordBatch> {
    let fields = table.provider.schema();
    let fields = fields.fields();
    let rows = fields.len();
    let types: Vec<String> = fields.iter().map(|field| field.data_type().to_string()).collect();
    let batch = [
        qualified(name, rows),
        vec![
            texts(fields.iter().map(|field| Some(field.name().as_str()))),
            Arc::new(Int32Array::from_iter_values(1..=rows as i32)),
            texts(fields.iter().map(|field| Some(if field.is_nullable() { "YES" } else { "NO" }))),
            texts(types.iter().map(|name| Some(name.as_str()))),
            Arc::new(fields.iter().map(|field| precision(field.data_type())).collect::<Int32Array>()),
            Arc::new(fields.iter().map(|field| scale(field.data_type())).collect::<Int32Array>()),
            texts(fields.iter().map(|field| field.metadata().get("comment").map(String::as_str))),
        ],
    ];
    Ok(RecordBatch::try_new(schema, batch.concat())?)
}

/// Digits in base 10, as the standard gives them for exact numbers; bits of the significand are left out.
fn precision(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::Decimal32(precision, _)
        | DataType::Decimal64(precision, _)
        | DataType::Decimal128(precision, _)
        | DataType::Decimal256(precision, _) => Some(i32::from(*precision)),
        DataType::Int8 | DataType::UInt8 => Some(3),
        DataType::Int16 | DataType::UInt16 => Some(5),
        DataType::Int32 | DataType::UInt32 => Some(10),
        DataType::Int64 => Some(19),
        DataType::UInt64 => Some(20),
        _ => None,
    }
}

fn scale(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(i32::from(*scale)),
        integer if integer.is_integer() => Some(0),
        _ => None,
    }
}

/// The key constraints of a table by name, kind and columns. Sources give keys no names, so they are made up here.
fn constraints(name: &TableName, table: &Resolved) -> Vec<(String, &'static str, Vec<String>)> {
    let primary = &table.keys.primary;
    let primary = (!primary.is_empty()).then(|| (format!("{}_pkey", name.table), "PRIMARY KEY", primary.clone()));
    let foreign = table
        .keys
        .foreign
        .iter()
        .map(|key| (format!("{}_{}_fkey", name.table, key.columns.join("_")), "FOREIGN KEY", key.columns.clone()));
    primary.into_iter().chain(foreign).collect()
}

fn table_constraints(name: &TableName, table: &Resolved, schema: SchemaRef) -> Result<RecordBatch> {
    let constraints = constraints(name, table);
    let rows = constraints.len();
    let constraint = vec![
        same(&name.catalog, rows),
        same(&name.schema, rows),
        texts(constraints.iter().map(|(constraint, ..)| Some(constraint.as_str()))),
    ];
    let kinds = vec![texts(constraints.iter().map(|(_, kind, _)| Some(*kind)))];
    Ok(RecordBatch::try_new(schema, [constraint, qualified(name, rows), kinds].concat())?)
}

fn key_column_usage(name: &TableName, table: &Resolved, schema: SchemaRef) -> Result<RecordBatch> {
    let constraints = constraints(name, table);
    let uses: Vec<(&str, &str, i32)> = constraints
        .iter()
        .flat_map(|(constraint, _, columns)| {
            columns.iter().zip(1..).map(|(column, position)| (constraint.as_str(), column.as_str(), position))
        })
        .collect();
    let rows = uses.len();
    let constraint =
        vec![same(&name.catalog, rows), same(&name.schema, rows), texts(uses.iter().map(|(constraint, ..)| Some(*constraint)))];
    let columns: Vec<ArrayRef> = vec![
        texts(uses.iter().map(|(_, column, _)| Some(*column))),
        Arc::new(Int32Array::from_iter_values(uses.iter().map(|(.., position)| *position))),
    ];
    Ok(RecordBatch::try_new(schema, [constraint, qualified(name, rows), columns].concat())?)
}

fn qualified(name: &TableName, rows: usize) -> Vec<ArrayRef> {
    vec![same(&name.catalog, rows), same(&name.schema, rows), same(&name.table, rows)]
}

fn same(value: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}
