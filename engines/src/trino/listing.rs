//! What is in the catalog, from its `information_schema`, and other small answers about the cluster.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use futures::TryStreamExt;
use nexus_flight_catalog::sql::{Dialect, select};
use nexus_flight_catalog::{Context, Error, Kind, Result, TableEntry, TableKind};
use serde::de::DeserializeOwned;

use super::client::{Client, Named, Rows, Statement};
use super::columns::Gathered;
use super::dialect::{Trino, quoted};
use super::types::{self, Type};
use crate::told::ours;

/// The most rows of one of these answers.
const MOST: usize = 1_000_000;
/// The most bytes of one, with what is made of it.
const ROOM: usize = 64 << 20;
/// How many times as much as their text rows take.
const PARSED: usize = 3;

/// A column as it is read and compared.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// The type as Trino writes it.
    pub(super) type_name: String,
    pub(super) ty: Type,
}

/// A table as it is described at one moment.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// The columns, in the order of the schema.
    pub(super) columns: Vec<Column>,
}

impl Shape {
    /// Errors: `Data` for what is no type, with its column.
    pub(super) fn new(columns: Vec<Named>) -> Result<Self> {
        let (types, schema) = types::schema(&columns)?;
        let columns = columns.into_iter().zip(types).map(|(Named { type_name, .. }, ty)| Column { type_name, ty });
        Ok(Self { schema, columns: columns.collect() })
    }

    pub(super) fn find(&self, name: &str) -> Option<&Column> {
        self.schema.column_with_name(name).and_then(|(at, _)| self.columns.get(at))
    }
}

/// The names of all schemas.
pub(super) async fn schemas(cx: &Context, client: &Client, catalog: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT schema_name FROM {}", within(catalog, "schemata"));
    let names: Vec<(String,)> = answer(cx, client, &sql).await?;
    Ok(names.into_iter().map(|(name,)| name).collect())
}

/// The tables of a schema, sorted. Errors: `NotFound`.
pub(super) async fn tables(cx: &Context, client: &Client, catalog: &str, schema: &str) -> Result<Vec<TableEntry>> {
    let missing = || Error::not_found(format!("schema \"{schema}\" does not exist"));
    let name = quoted(schema).ok_or_else(missing)?;
    let sql = format!("SELECT table_name, table_type FROM {} WHERE table_schema = {name}", within(catalog, "tables"));
    let rows: Vec<(String, String)> = answer(cx, client, &sql).await?;
    // No rows are of a schema without tables, or of none.
    if rows.is_empty() && !schemas(cx, client, catalog).await?.iter().any(|known| known == schema) {
        return Err(missing());
    }
    let entry = |(name, kind): (String, String)| TableEntry {
        name,
        kind: if kind == "VIEW" { TableKind::View } else { TableKind::Table },
        comment: None,
    };
    let mut entries: Vec<TableEntry> = rows.into_iter().map(entry).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// A table's columns. Errors: `NotFound`; `Data` for a column whose type has a name that is none.
pub(super) async fn shape(
    cx: &Context,
    client: &Client,
    gathered: &Gathered,
    catalog: &str,
    [schema, table]: [&str; 2],
) -> Result<Shape> {
    let gone = || missing(schema, table);
    let (Some(of_schema), Some(of_table)) = (quoted(schema), quoted(table)) else { return Err(gone()) };
    // Connectors read more out of a name than a table: `orders$files`, `orders: query`, a whole query. Who may not see a table
    // would see it under such a name.
    if !is_plain(table) && !tables(cx, client, catalog, schema).await?.iter().any(|entry| entry.name == table) {
        return Err(gone());
    }
    let columns = gathered.columns(cx, client, catalog, [&of_schema, &of_table]).await?;
    if columns.is_empty() {
        return Err(gone());
    }
    // The names within a row are not quoted there: a comma in one is not told from one between two.
    match columns.iter().any(|column| column.type_name.contains("row(")) {
        true => Shape::new(exact(cx, client, [schema, table], columns).await?),
        false => Shape::new(columns),
    }
}

/// Columns of a table with their types as an answer has them. Errors: those of a query over the table.
async fn exact(cx: &Context, client: &Client, [schema, table]: [&str; 2], columns: Vec<Named>) -> Result<Vec<Named>> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let sql = select(&Trino, &names, [schema, table], &[], Some(0));
    // The table is there, or was a moment ago. Trino's words may be of one that a view is made of.
    let refused = |error: Error| match error.kind() {
        Kind::NotFound => missing(schema, table).caused_by(error),
        _ => ours(error),
    };
    let statement = client.run(&bounded(cx), &sql).await.map_err(refused)?;
    let told = finished(statement).await.map_err(refused)?;
    if told.len() != columns.len() {
        return Err(Error::precondition("a table was changed while its columns were read")
            .with_hint("send the statement again")
            .with_retryable(true));
    }
    let named = |(Named { name, .. }, Named { type_name, .. })| Named { name, type_name };
    Ok(columns.into_iter().zip(told).map(named).collect())
}

fn missing(schema: &str, table: &str) -> Error {
    Error::not_found(format!("table \"{schema}.{table}\" does not exist"))
}

/// Whether a name can be of nothing but a table: no connector reads more out of such letters.
fn is_plain(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_letter)
}

/// The same context for what is asked while a statement is planned, when there is no memory of its own to take from yet.
pub(super) fn bounded(cx: &Context) -> Context {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(ROOM));
    cx.within(&pool)
}

/// The columns of a statement without rows, at its end: one that is left before that counts there as cancelled. Errors: those of
/// the statement.
pub(super) async fn finished(mut statement: Statement) -> Result<Vec<Named>> {
    while statement.rows.try_next().await?.is_some() {}
    Ok(statement.columns)
}

/// A table of the `information_schema` of a catalog.
pub(super) fn within(catalog: &str, table: &str) -> String {
    format!("{}.information_schema.{table}", Trino.identifier(catalog))
}

/// All rows of a small answer, each as a tuple. Errors: those of the statement; `Data` where the rows are of another form;
/// `Exhausted` where they are too many, or too long.
pub(super) async fn answer<T: DeserializeOwned>(cx: &Context, client: &Client, sql: &str) -> Result<Vec<T>> {
    let much = |message: String| {
        Error::exhausted(message).with_hint("have a catalog of fewer schemas or tables there, or read by native statements")
    };
    let mut statement = client.run(&bounded(cx), sql).await.map_err(ours)?;
    // What they are made of counts for them until all are there.
    let (mut all, mut rooms) = (Vec::new(), Vec::new());
    while let Some(Rows { json, room }) = statement.rows.try_next().await.map_err(ours)? {
        room.try_grow(json.len().saturating_mul(PARSED)).map_err(|cause| {
            much(format!("trino: what it tells of itself takes more than {} MiB", ROOM >> 20)).caused_by(cause)
        })?;
        let rows: Vec<T> = serde_json::from_slice(&json)
            .map_err(|cause| Error::data("trino: what it tells of itself is not in the form that is known").caused_by(cause))?;
        all.extend(rows);
        rooms.push(room);
        if all.len() > MOST {
            return Err(much(format!("trino: what it tells of itself has more than {MOST} rows")));
        }
    }
    Ok(all)
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::datatypes::DataType;
    use nexus_flight_catalog::Principal;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::client::tests::config;
    use super::*;

    /// The address of a server that answers each request, given with its body, by a page with what is said; `@` in that stands for
    /// the address.
    pub(in super::super) async fn served(said: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (here, said) = (address.clone(), Arc::new(said));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (here, said) = (here.clone(), Arc::clone(&said));
                tokio::spawn(async move {
                    let mut request = String::new();
                    while !is_whole(&request) {
                        let mut piece = [0; 4096];
                        match stream.read(&mut piece).await {
                            Ok(0) | Err(_) => return,
                            Ok(count) => request.push_str(std::str::from_utf8(&piece[..count]).unwrap()),
                        }
                    }
                    let said = said(&request).replace('@', &here);
                    let page = format!(r#"{{"id":"q_1",{said},"stats":{{"state":"FINISHED"}}}}"#);
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
                    let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
                });
            }
        });
        address
    }

    fn is_whole(request: &str) -> bool {
        let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    const COLUMNS: &[&str] = &["table_name", "column_name", "data_type"];

    /// What is said of an answer of texts.
    pub(in super::super) fn texts(names: &[&str], rows: &str) -> String {
        let columns: Vec<String> = names.iter().map(|name| format!(r#"{{"name":"{name}","type":"varchar"}}"#)).collect();
        format!(r#""columns":[{}],"data":{rows}"#, columns.join(","))
    }

    pub(in super::super) async fn client(said: impl Fn(&str) -> String + Send + Sync + 'static) -> (Context, Client) {
        let config = config(&served(said).await);
        (Context::new(Principal::anonymous()), Client::new(Arc::new(config)).unwrap())
    }

    #[tokio::test]
    async fn what_a_connector_reads_more_out_of_is_no_table() {
        // It has columns for whatever is asked for, and lists two tables.
        let (cx, client) = client(|request| match request.contains("information_schema.tables") {
            true => texts(&["table_name", "table_type"], r#"[["orders","BASE TABLE"],["a b","BASE TABLE"]]"#),
            false => texts(COLUMNS, r#"[["orders","id","bigint"],["a b","id","bigint"]]"#),
        })
        .await;
        for there in ["orders", "a b"] {
            let found = shape(&cx, &client, &Gathered::default(), "lake", ["s", there]).await.unwrap();
            assert_eq!(found.columns.len(), 1, "{there}");
        }
        for hidden in ["orders$files", "orders: x", "select * from orders", "Orders", "a\"b", ""] {
            let error = shape(&cx, &client, &Gathered::default(), "lake", ["s", hidden]).await.unwrap_err();
            let message = format!("table \"s.{hidden}\" does not exist");
            assert_eq!((error.kind(), error.message()), (Kind::NotFound, message.as_str()));
        }
    }

    #[tokio::test]
    async fn the_names_within_a_row_are_those_of_an_answer() {
        let (cx, client) = client(|request| match request.contains("information_schema.columns") {
            true => texts(COLUMNS, r#"[["t","id","bigint"],["t","r","array(row(a,b bigint))"]]"#),
            false => {
                assert!(request.ends_with(r#"SELECT "id", "r" FROM "s"."t" LIMIT 0"#), "{request}");
                r#""columns":[{"name":"id","type":"bigint"},{"name":"r","type":"array(row(\"a,b\" bigint))"}]"#.to_owned()
            }
        })
        .await;
        let shape = shape(&cx, &client, &Gathered::default(), "lake", ["s", "t"]).await.unwrap();
        let DataType::List(item) = shape.schema.field(1).data_type() else { panic!("{:?}", shape.schema) };
        let DataType::Struct(fields) = item.data_type() else { panic!("{item:?}") };
        assert_eq!(fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["a,b"]);
    }

    #[tokio::test]
    async fn what_is_behind_a_view_is_not_told() {
        let (cx, client) = client(|request| match request.contains("information_schema.columns") {
            true => texts(COLUMNS, r#"[["t","r","row(a bigint)"]]"#),
            false => {
                r#""error":{"message":"Table 'secret' does not exist","errorName":"TABLE_NOT_FOUND","errorType":"USER_ERROR"}"#
                    .to_owned()
            }
        })
        .await;
        let error = shape(&cx, &client, &Gathered::default(), "lake", ["s", "t"]).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (Kind::NotFound, "table \"s.t\" does not exist".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_is_bounded_before_it_is_parsed() {
        let (cx, client) = client(|_| texts(&["schema_name"], &format!(r#"[["{}"]]"#, "x".repeat(20 << 20)))).await;
        let error = schemas(&cx, &client, "lake").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
        assert_eq!(error.message(), "trino: what it tells of itself takes more than 64 MiB");
    }

    #[test]
    fn names_of_catalogs_are_quoted() {
        assert_eq!(within("a\"b", "tables"), "\"a\"\"b\".information_schema.tables");
    }
}
