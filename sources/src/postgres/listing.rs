//! What is in the database, from its system catalog: a query for each listing, two for a table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use nexus_flight_catalog::{Error, ForeignKey, Keys, Result, TableEntry, TableKind};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type as Wire};

use super::pool::Lease;
use super::types::{Described, Type};

/// Those that the user may look into.
const SCHEMAS: &str = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE pg_catalog.has_schema_privilege(oid, 'USAGE')";

/// Tables, partitioned ones, views, materialised ones and foreign tables. A schema without any gives one row of NULLs.
const TABLES: &str = "SELECT c.relname::text, c.relkind::text, pg_catalog.obj_description(c.oid, 'pg_class') \
    FROM pg_catalog.pg_namespace n \
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
    WHERE n.nspname = $1";

/// A row for each column, and one of NULLs for a table without any. A domain is the type that it is made of.
const COLUMNS: &str = "SELECT a.attname::text, a.attnotnull, pg_catalog.format_type(a.atttypid, a.atttypmod), \
        pg_catalog.col_description(c.oid, a.attnum), b.oid, CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END, \
        b.typtype = 'e', e.oid, e.typtype = 'e', coalesce(l.collisdeterministic, true), a.attgenerated <> '', \
        c.relkind IN ('r', 'p') \
    FROM pg_catalog.pg_namespace n \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END \
    LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A' AND b.typlen = -1 \
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
    WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum";

const KEYS: &str = "SELECT k.contype::text, fn.nspname::text, f.relname::text, \
        (SELECT array_agg(a.attname::text ORDER BY u.at) FROM unnest(k.conkey) WITH ORDINALITY u(num, at) \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num), \
        (SELECT array_agg(a.attname::text ORDER BY u.at) FROM unnest(k.confkey) WITH ORDINALITY u(num, at) \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num) \
    FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_class f ON f.oid = k.confrelid LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2 AND k.contype IN ('p', 'f') ORDER BY k.conname";

/// The first of some names that the server cuts. How long they may be hangs on its encoding and on how it was built.
const CUT: &str = "SELECT n FROM unnest($1) n WHERE n::name::text <> n LIMIT 1";

/// A column as it is read, compared and written.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: Type,
    /// What the server says it sends: the oid of the type, of a domain that which it is made of.
    pub(super) oid: u32,
    /// The type as SQL.
    pub(super) sql_type: String,
    /// Whether equal texts are the same text.
    pub(super) deterministic: bool,
}

/// A table as it is described at one moment.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<Column>,
    pub(super) keys: Keys,
    /// Whether its rows are stored here as they are read: it is no view, and not another server's.
    pub(super) is_stored: bool,
}

/// The names of the schemas, sorted.
pub(super) async fn schemas(lease: &Lease) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for row in ask(lease, SCHEMAS, &[]).await? {
        names.push(get(&row, 0)?);
    }
    names.sort();
    Ok(names)
}

/// The tables of a schema, sorted. Errors: `NotFound`.
pub(super) async fn tables(lease: &Lease, schema: &str) -> Result<Vec<TableEntry>> {
    let rows = ask(lease, TABLES, &[schema]).await?;
    if rows.is_empty() {
        return Err(Error::not_found(format!("schema \"{schema}\" does not exist")));
    }
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(name) = get::<Option<String>>(&row, 0)? else { continue };
        let kind = match get::<&str>(&row, 1)? {
            "v" | "m" => TableKind::View,
            _ => TableKind::Table,
        };
        entries.push(TableEntry { name, kind, comment: get(&row, 2)? });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// A table's columns and keys. Errors: `NotFound`; `Unsupported` where it has a column of a type that is not read.
pub(super) async fn shape(lease: &Lease, schema: &str, table: &str) -> Result<Shape> {
    let names = [schema, table];
    let (rows, keys) = futures::try_join!(ask(lease, COLUMNS, &names), ask(lease, KEYS, &names))?;
    if rows.is_empty() {
        return Err(Error::not_found(format!("table \"{schema}.{table}\" does not exist")));
    }
    let is_stored = rows.first().map(|row| get::<bool>(row, 11)).transpose()?.unwrap_or(false);
    let (mut fields, mut columns) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let Some(name) = get::<Option<String>>(&row, 0)? else { continue };
        let sql_type: String = get(&row, 2)?;
        let element = get::<Option<u32>>(&row, 7)?.map(|oid| Ok::<_, Error>((oid, get(&row, 8)?))).transpose()?;
        let described = Described { oid: get(&row, 4)?, modifier: get(&row, 5)?, is_enum: get(&row, 6)?, element };
        let Some(ty) = Type::of(&described) else {
            let message = format!("the column \"{name}\" of \"{schema}.{table}\" has the type {sql_type}, which is not read");
            return Err(
                Error::unsupported(message).with_hint("read it through a view that leaves the column out, or casts it to text")
            );
        };
        let mut field = Field::new(&name, ty.arrow(), !get::<bool>(&row, 1)?);
        if let Some(comment) = get::<Option<String>>(&row, 3)? {
            field = field.with_metadata(HashMap::from([("comment".to_owned(), comment)]));
        }
        fields.push(field);
        columns.push(Column { name, ty, oid: described.oid, sql_type, deterministic: get(&row, 9)? });
    }
    Ok(Shape { schema: Arc::new(Schema::new(fields)), columns, keys: keys_of(keys)?, is_stored })
}

fn keys_of(rows: Vec<Row>) -> Result<Keys> {
    let mut keys = Keys::default();
    for row in rows {
        let columns: Vec<String> = get(&row, 3)?;
        match get::<&str>(&row, 0)? {
            "p" => keys.primary = columns,
            _ => {
                keys.foreign.push(ForeignKey { columns, schema: get(&row, 1)?, table: get(&row, 2)?, referenced: get(&row, 4)? })
            }
        }
    }
    Ok(keys)
}

/// The first of some names that nothing can have: it is empty, has a zero, or is too long. A statement with one of the last kind
/// would be about what has the name that it is cut to, which nobody named and no rule was matched with.
pub(super) async fn impossible(lease: &Lease, names: &[String]) -> Result<Option<String>> {
    if let Some(name) = names.iter().find(|name| name.is_empty() || name.contains('\0')) {
        return Ok(Some(name.clone()));
    }
    let names: &(dyn ToSql + Sync) = &names;
    let cut = lease.answer(lease.client()?.query_typed(CUT, &[(names, Wire::TEXT_ARRAY)])).await?;
    cut.first().map(|row| get(row, 0)).transpose()
}

/// The rows of one of these queries, whose parameters are names.
async fn ask(lease: &Lease, sql: &str, names: &[&str]) -> Result<Vec<Row>> {
    // No name has a zero, and no text of PostgreSQL can have one.
    if names.iter().any(|name| name.contains('\0')) {
        return Ok(Vec::new());
    }
    let names: Vec<(&(dyn ToSql + Sync), Wire)> = names.iter().map(|name| (name as &(dyn ToSql + Sync), Wire::TEXT)).collect();
    lease.answer(lease.client()?.query_typed(sql, &names)).await
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|error| Error::data("the system catalog is not in the form that is known").caused_by(error))
}
