//! The metadata commands of Flight SQL: what is there, as record batches of the schemas that clients compare exactly.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::compute::kernels::comparison::like;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use nexus_flight_catalog::{Catalogs, Context, Error, Kind, Result, TableEntry, TableKind, TableName};

use crate::flight::columns::column_metadata;
use crate::flight::encode::schema_bytes;
use crate::flight::profile::TypeProfile;
use crate::write::target_source;

mod keys;
mod sql_info;
mod xdbc;

pub use keys::{cross_reference, exported_keys, foreign_keys_schema, imported_keys, primary_keys, primary_keys_schema};
pub use sql_info::{Facts, Functions, SqlInfos};
pub use xdbc::{xdbc_type_info, xdbc_type_info_schema};

/// How many tables are opened at once, for their schemas or their keys.
const OPENED_AT_ONCE: usize = 16;

/// The table schemas of one answer are held together in memory, in a column whose offsets are 32 bits.
const MOST_SCHEMA_BYTES: usize = 512 << 20;

/// The schema of [`catalogs`].
pub fn catalogs_schema() -> SchemaRef {
    GetCatalogsBuilder::new().schema()
}

/// All catalogs, by name.
pub fn catalogs(catalogs: &Catalogs, cx: &Context, _command: &CommandGetCatalogs) -> Result<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    for name in catalogs.names(&cx.principal) {
        builder.append(name);
    }
    builder.build().map_err(own_fault)
}

/// The schema of [`db_schemas`].
pub fn db_schemas_schema() -> SchemaRef {
    CommandGetDbSchemas::default().into_builder().schema()
}

/// The schemas of the catalog that the command names, or of all.
pub async fn db_schemas(catalogs: &Catalogs, cx: &Context, command: &CommandGetDbSchemas) -> Result<RecordBatch> {
    let pattern = command.db_schema_filter_pattern.as_deref();
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    for catalog in wanted_catalogs(catalogs, cx, command.catalog.as_deref()) {
        for schema in wanted_schemas(catalogs, cx, &catalog, command.catalog.is_some(), pattern).await? {
            builder.append(&catalog, schema);
        }
    }
    builder.build().map_err(own_fault)
}

/// The schema of [`table_types`].
pub fn table_types_schema() -> SchemaRef {
    CommandGetTableTypes {}.into_builder().schema()
}

/// The kinds of tables.
pub fn table_types(_command: &CommandGetTableTypes) -> Result<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    for kind in TableKind::ALL {
        builder.append(kind.name());
    }
    builder.build().map_err(own_fault)
}

/// The schema of [`tables`].
pub fn tables_schema(include_schema: bool) -> SchemaRef {
    let none = None::<String>;
    GetTablesBuilder::new(none.clone(), none.clone(), none, Vec::<String>::new(), include_schema).schema()
}

/// The tables that the command's filters leave, ordered by name. None is opened unless their schemas are wanted; one that
/// cannot be opened is listed with an empty schema. Errors: `Exhausted` where the schemas are more than fit one answer.
pub async fn tables(
    catalogs: &Arc<Catalogs>,
    cx: &Context,
    profile: TypeProfile,
    command: &CommandGetTables,
) -> Result<RecordBatch> {
    let mut listed = Vec::new();
    for catalog in wanted_catalogs(catalogs, cx, command.catalog.as_deref()) {
        let named = command.catalog.is_some();
        let schemas = wanted_schemas(catalogs, cx, &catalog, named, command.db_schema_filter_pattern.as_deref()).await?;
        for schema in schemas {
            let entries = or_none(catalogs.tables(cx, &catalog, &schema).await, named)?;
            let of_kind = entries
                .into_iter()
                .filter(|entry| {
                    command.table_types.is_empty() || command.table_types.iter().any(|kind| kind == entry.kind.name())
                })
                .collect();
            for entry in matching(of_kind, |entry: &TableEntry| &entry.name, command.table_name_filter_pattern.as_deref())? {
                listed.push((TableName::new(&catalog, &schema, entry.name), entry.kind));
            }
        }
    }
    listed.sort_by(|a, b| (&a.0, a.1.name()).cmp(&(&b.0, b.1.name())));

    let text =
        |of: fn(&(TableName, TableKind)) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(listed.iter().map(of))) };
    let mut columns = vec![
        text(|(name, _)| &name.catalog),
        text(|(name, _)| &name.schema),
        text(|(name, _)| &name.table),
        text(|(_, kind)| kind.name()),
    ];
    if command.include_schema {
        columns.push(table_schemas(catalogs, cx, profile, listed.iter().map(|(name, _)| name)).await?);
    }
    Ok(RecordBatch::try_new(tables_schema(command.include_schema), columns)?)
}

async fn table_schemas(
    catalogs: &Arc<Catalogs>,
    cx: &Context,
    profile: TypeProfile,
    names: impl Iterator<Item = &TableName>,
) -> Result<ArrayRef> {
    let mut held = 0;
    let schemas: Vec<Bytes> = stream::iter(names.cloned().collect::<Vec<_>>())
        .map(|name| async move {
            let schema = match catalogs.table(cx, &name).await {
                Ok(table) => {
                    let is_writable = target_source(catalogs, cx, &name).is_ok();
                    column_metadata(&table.provider.schema(), Some(&name), is_writable)
                }
                Err(error) if given_up(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(table = %name, %error, "listed without its columns");
                    Schema::empty()
                }
            };
            schema_bytes(&profile.columns(&schema))
        })
        .buffered(OPENED_AT_ONCE)
        .and_then(|bytes| {
            held += bytes.len();
            let fits = held <= MOST_SCHEMA_BYTES;
            let too_much = || Error::exhausted("the schemas of these tables are too much for one answer");
            futures::future::ready(fits.then_some(bytes).ok_or_else(|| too_much().with_hint("narrow the search by a pattern")))
        })
        .try_collect()
        .await?;
    Ok(Arc::new(BinaryArray::from_iter_values(schemas)))
}

/// The catalogs of a filter: all without one; "" asks for what has no catalog, and here everything has one.
fn wanted_catalogs(catalogs: &Catalogs, cx: &Context, filter: Option<&str>) -> Vec<String> {
    let mut names = catalogs.names(&cx.principal);
    names.retain(|name| filter.is_none_or(|filter| filter == name));
    names
}

async fn wanted_schemas(
    catalogs: &Catalogs,
    cx: &Context,
    catalog: &str,
    named: bool,
    pattern: Option<&str>,
) -> Result<Vec<String>> {
    let schemas = or_none(catalogs.schemas(cx, catalog).await, named)?;
    matching(schemas, |schema| schema, pattern)
}

/// A source that does not answer must not hide the others, unless it was asked for by name.
fn or_none<T>(listing: Result<Vec<T>>, named: bool) -> Result<Vec<T>> {
    match listing {
        // It was dropped since it was listed.
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        Err(error) if !named && !given_up(&error) => {
            tracing::warn!(%error, "left out of a listing");
            Ok(Vec::new())
        }
        other => other,
    }
}

fn given_up(error: &Error) -> bool {
    matches!(error.kind(), Kind::Cancelled | Kind::Timeout)
}

/// The longest pattern, in bytes: names have far less, and it becomes a regular expression.
const LONGEST_PATTERN: usize = 1 << 10;

/// What matches a pattern of `%` and `_`, each escaped by `\`.
fn matching<T>(items: Vec<T>, name: fn(&T) -> &str, pattern: Option<&str>) -> Result<Vec<T>> {
    let Some(pattern) = pattern else { return Ok(items) };
    if pattern.len() > LONGEST_PATTERN {
        let message = format!("the pattern has {} bytes, the limit is {LONGEST_PATTERN}", pattern.len());
        return Err(Error::exhausted(message).with_hint("write several % as one").with_retryable(false));
    }
    let names = StringArray::from_iter_values(items.iter().map(name));
    let verdicts = like(&names, &StringArray::new_scalar(pattern))?;
    Ok(items.into_iter().zip(&verdicts).filter(|(_, matches)| *matches == Some(true)).map(|(item, _)| item).collect())
}

fn own_fault(cause: arrow_flight::error::FlightError) -> Error {
    Error::internal("an answer about metadata could not be made").caused_by(cause)
}

#[cfg(test)]
mod tests;
