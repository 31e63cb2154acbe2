//! The catalog that Iceberg's JDBC catalog keeps in a PostgreSQL database: a row for each table names its file of metadata.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nexus_flight_catalog::{Error, Kind, Place, Result, TableEntry, information_schema};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::{Catalog, Current, Found, Outcome, successor};
use crate::iceberg::append::{Change, put};
use crate::lake::{Lake, Name};
use crate::postgres::{Access, Config, Connections};

/// How long the database may be silent: a question is about some rows of an index.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Those that hold something, and those that only have properties.
const SCHEMAS: &str = "SELECT table_namespace::text FROM iceberg_tables WHERE catalog_name = $1 \
    UNION SELECT namespace::text FROM iceberg_namespace_properties WHERE catalog_name = $1";

/// The tables of a schema. Only from its second version on the catalog has a column that says what is a view. Columns may have been made
/// so that they heed no case; access rules are about names as they are listed.
const TABLES: &str = "SELECT t.table_name::text FROM iceberg_tables t \
    WHERE t.catalog_name = $1 AND t.table_namespace = $2 AND t.table_namespace::text COLLATE \"C\" = $2 \
    AND coalesce(to_jsonb(t) ->> 'iceberg_type', 'TABLE') = 'TABLE'";

/// Where the metadata of a table is, and what it is.
const TABLE: &str = "SELECT t.metadata_location::text, coalesce(to_jsonb(t) ->> 'iceberg_type', 'TABLE') FROM iceberg_tables t \
    WHERE t.catalog_name = $1 AND t.table_namespace = $2 AND t.table_namespace::text COLLATE \"C\" = $2 \
    AND t.table_name = $3 AND t.table_name::text COLLATE \"C\" = $3";

/// Puts one file of metadata in place of another, if that is still the one.
const COMMIT: &str = "UPDATE iceberg_tables SET metadata_location = $5, previous_metadata_location = $4 \
    WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3 AND metadata_location = $4 RETURNING table_name::text";

/// The tables of one catalog in a database, which may hold several.
pub(in crate::iceberg) struct Sql {
    lake: Arc<Lake>,
    access: Access,
    /// Its name in the database.
    name: String,
    /// The option that says which database it is.
    place: Place,
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sql({})", self.name)
    }
}

impl Sql {
    /// The catalog that has this name in the database; no connection is made. The files of tables are read by `lake`.
    pub(in crate::iceberg) fn open(catalog: &str, database: Config, name: &str, lake: Arc<Lake>) -> Result<Self> {
        let access = Access::Pool(Connections::new(Arc::new(database.with_read_timeout(ANSWERED_WITHIN)))?);
        Ok(Self { lake, access, name: name.to_owned(), place: Place::Key(format!("catalogs.{catalog}.uri")) })
    }

    /// The rows of one of these queries; its parameters are the name of the catalog, and these names.
    async fn ask(&self, sql: &str, names: &[&str]) -> Result<Vec<Row>> {
        let names: Vec<&str> = std::iter::once(self.name.as_str()).chain(names.iter().copied()).collect();
        // No name has a zero, and no text of PostgreSQL can have one.
        if names.iter().any(|name| name.contains('\0')) {
            return Ok(Vec::new());
        }
        let values: Vec<(&(dyn ToSql + Sync), Type)> =
            names.iter().map(|name| (name as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let held = self.access.hold().await.map_err(busy)?;
        let answered = held.answer(held.client()?.query_typed(sql, &values)).await;
        held.settle(answered).map_err(|error| match error.kind() {
            Kind::NotFound => Error::invalid(format!("there is no catalog of Iceberg in this database: {}", error.message()))
                .with_hint("name the database with its tables, and a user whose search_path leads to them")
                .at(self.place.clone()),
            _ => busy(error),
        })
    }
}

/// The options that the connector for PostgreSQL would advise to change are not here.
fn busy(error: Error) -> Error {
    match error.kind() {
        Kind::Exhausted => error.with_hint("try again later"),
        Kind::Unavailable => error.with_hint("check uri, and whether the server runs"),
        _ => error,
    }
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|error| Error::data("the tables of the catalog are not in the form that is known").caused_by(error))
}

fn texts(rows: &[Row]) -> Result<Vec<String>> {
    let mut texts = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>>>()?;
    texts.sort();
    Ok(texts)
}

#[async_trait]
impl Catalog for Sql {
    async fn ping(&self) -> Result<()> {
        self.schemas().await.map(|_| ())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let mut schemas = texts(&self.ask(SCHEMAS, &[]).await?)?;
        schemas.retain(|name| name != information_schema::NAME);
        Ok(schemas)
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        let tables = texts(&self.ask(TABLES, &[schema]).await?)?;
        if tables.is_empty() && !self.schemas().await?.iter().any(|name| name == schema) {
            return Err(Error::not_found(format!("schema \"{schema}\" does not exist")));
        }
        Ok(tables.into_iter().filter(|name| Name::parse(name).about().is_none()).map(TableEntry::table).collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        let rows = self.ask(TABLE, &[schema, table]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if get::<&str>(row, 1)? != "TABLE" {
            return Err(Error::unsupported(format!("\"{table}\" is a view of Iceberg, which is not read"))
                .with_hint("read the tables that it is made of"));
        }
        let Some(state) = get::<Option<String>>(row, 0)? else {
            return Err(Error::data(format!("the row of the table \"{table}\" has no metadata_location"))
                .with_hint("register the table again with its newest file of metadata"));
        };
        let path = self.lake.inside(&state)?;
        Ok(Some(Found { lake: Arc::clone(&self.lake), current: Current { path, state } }))
    }

    async fn commit(&self, schema: &str, table: &str, found: &Found, change: &Change) -> Result<Outcome> {
        let before = found.current.state.as_str();
        let after = successor(change.folder(), before);
        let mut made = put(&found.lake, &after, Bytes::from(change.metadata(before)?)).await?;
        match self.ask(COMMIT, &[schema, table, before, &after]).await {
            Ok(rows) if rows.is_empty() => Ok(Outcome::Conflict),
            Ok(_) => {
                made.keep();
                Ok(Outcome::Done)
            }
            // The connection may have broken off before the answer came.
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Internal | Kind::Data) => {
                made.keep();
                Ok(Outcome::Unknown(error))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values are bound, and what is asked goes with either version of the catalog.
    #[test]
    fn what_is_asked() {
        insta::assert_snapshot!(SCHEMAS, @"SELECT table_namespace::text FROM iceberg_tables WHERE catalog_name = $1 UNION SELECT namespace::text FROM iceberg_namespace_properties WHERE catalog_name = $1");
        insta::assert_snapshot!(TABLES, @r#"SELECT t.table_name::text FROM iceberg_tables t WHERE t.catalog_name = $1 AND t.table_namespace = $2 AND t.table_namespace::text COLLATE "C" = $2 AND coalesce(to_jsonb(t) ->> 'iceberg_type', 'TABLE') = 'TABLE'"#);
        insta::assert_snapshot!(TABLE, @r#"SELECT t.metadata_location::text, coalesce(to_jsonb(t) ->> 'iceberg_type', 'TABLE') FROM iceberg_tables t WHERE t.catalog_name = $1 AND t.table_namespace = $2 AND t.table_namespace::text COLLATE "C" = $2 AND t.table_name = $3 AND t.table_name::text COLLATE "C" = $3"#);
        insta::assert_snapshot!(COMMIT, @"UPDATE iceberg_tables SET metadata_location = $5, previous_metadata_location = $4 WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3 AND metadata_location = $4 RETURNING table_name::text");
    }

    #[test]
    fn errors_advise_what_can_be_done() {
        let advised = |error: Error| busy(error.with_hint("raise its option pool")).hint().unwrap_or_default().to_owned();
        insta::assert_snapshot!(advised(Error::exhausted("all are in use")), @"try again later");
        insta::assert_snapshot!(advised(Error::unavailable("it is silent")), @"check uri, and whether the server runs");
        insta::assert_snapshot!(advised(Error::denied("no")), @"raise its option pool");
    }
}
