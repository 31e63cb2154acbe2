//! The table that a statement reads, by one query of Trino, and the rows of any query.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use nexus_flight_catalog::sql::{Columns, Compares, Dialect, select};
use nexus_flight_catalog::{Context, Error, Result, TableName};

use super::client::{Client, Rows, Statement};
use super::decode::Decoder;
use super::dialect::Trino;
use super::listing::Shape;
use super::types::{self, Type};
use crate::scan::{Read, Table};
use crate::told::ours;

/// How many arrays of rows are decoded at once, ahead of the one that is handed on.
const AHEAD: usize = 2;

/// A table as it was described for one statement.
pub(crate) struct TrinoTable {
    pub(super) client: Client,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) shape: Shape,
}

impl TrinoTable {
    /// What it is called in the cluster.
    pub(crate) fn name_there(&self) -> TableName {
        TableName::new(self.client.catalog(), &*self.schema, &*self.name)
    }

    /// Whether a column is of the type there that it is told with here, and compared as it is here but for NaN and zeros.
    pub(crate) fn is_as_told(&self, column: &str) -> bool {
        let told = self.shape.schema.field_with_name(column).map(|field| field.data_type().clone());
        match self.shape.column(column) {
            Some((read, compares)) => compares > Compares::Nothing && told.is_ok_and(|told| told == read),
            None => false,
        }
    }

    /// What decodes the rows of a query. Errors: `Precondition`.
    fn decoder(&self, statement: &Statement, read: &Read) -> Result<Decoder> {
        let (sent, schema) = types::schema(&statement.columns)?;
        let schema = read.described(schema)?;
        let columns = read.places.iter().filter_map(|at| self.shape.columns.get(*at));
        let types = if read.places.is_empty() { sent } else { columns.map(|column| column.ty.clone()).collect() };
        Ok(Decoder::new(types, schema))
    }
}

impl fmt::Debug for TrinoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrinoTable({}.{})", self.schema, self.name)
    }
}

impl Table for TrinoTable {
    const SCAN: &'static str = "TrinoScan";
    /// Trino takes a million letters of a query (`query.max-length`).
    const CONDITIONS: usize = 300_000;

    fn schema(&self) -> &SchemaRef {
        &self.shape.schema
    }

    fn columns(&self) -> &dyn Columns {
        &self.shape
    }

    fn select(&self, places: &[usize], conditions: &[String], limit: Option<usize>) -> String {
        let fields = self.shape.schema.fields();
        let columns = places.iter().filter_map(|at| fields.get(*at).zip(self.shape.columns.get(*at)));
        let list: Vec<String> = columns.map(|(field, column)| selected(field.name(), &column.ty)).collect();
        // Trino has no query without columns: one that only counts rows reads a constant for each.
        let list = if list.is_empty() { "1".to_owned() } else { list.join(", ") };
        // It has no greater number of rows than that of a bigint.
        let limit = limit.filter(|limit| i64::try_from(*limit).is_ok());
        let sql = select(&Trino, &[], [&self.schema, &self.name], conditions, limit);
        sql.replacen("SELECT", &format!("SELECT {list}"), 1)
    }

    /// Errors: those of the cluster; `Precondition` where the columns are not those that were described.
    fn read(self: Arc<Self>, read: Read) -> BoxStream<'static, Result<RecordBatch>> {
        let batches = async move {
            let statement = self.client.run(&read.cx, &read.sql).await?;
            let decoder = self.decoder(&statement, &read)?;
            Ok::<_, Error>(decoded(read.cx, statement, decoder, read.most))
        };
        stream::once(batches).try_flatten().map_err(ours).boxed()
    }
}

/// A column as it is selected.
fn selected(name: &str, ty: &Type) -> String {
    let name = Trino.identifier(name);
    match ty {
        // Where clocks are put back an hour comes twice, and the time that is written with its zone does not say which of both it is.
        Type::TimestampTz(_) => format!("{name} AT TIME ZONE 'UTC' AS {name}"),
        _ => name,
    }
}

/// What is made of one array of rows, and what that takes of the memory.
type Decoded = (std::vec::IntoIter<RecordBatch>, MemoryReservation);

/// The rows of a statement in batches of at most so many. They are decoded in threads of their own while the next ones come.
/// Dropped early, they end the statement at the cluster. Errors: those of the cluster; `Data` for a value that is not of its type.
pub(super) fn decoded(
    cx: Context,
    statement: Statement,
    decoder: Decoder,
    most: usize,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    tracing::debug!(query = %cx.query, trino = statement.id, "trino has begun a statement");
    let rows = stream::try_unfold(statement, |mut statement| async move {
        Ok::<_, Error>(statement.rows.try_next().await?.map(|rows| (rows, statement)))
    });
    let arrays = Box::pin(rows.map_ok(move |rows| decode(decoder.clone(), rows, most)).try_buffered(AHEAD));
    let handed: Option<Decoded> = None;
    stream::try_unfold((cx, arrays, handed), |(cx, mut arrays, mut handed)| async move {
        loop {
            if let Some(batch) = handed.as_mut().and_then(|(batches, _)| batches.next()) {
                return Ok(Some((batch, (cx, arrays, handed))));
            }
            // What it took is free for the next one.
            drop(handed.take());
            handed = cx.run(arrays.try_next()).await?;
            if handed.is_none() {
                return Ok(None);
            }
        }
    })
}

async fn decode(decoder: Decoder, rows: Rows, most: usize) -> Result<Decoded> {
    let decoding = SpawnedTask::spawn_blocking(move || -> Result<Decoded> {
        let Rows { json, room } = rows;
        let batches = decoder.decode(&json, most, &room)?;
        // Of the array nothing is kept.
        drop(json);
        room.try_resize(batches.iter().map(RecordBatch::get_array_memory_size).sum())?;
        Ok((batches.into_iter(), room))
    });
    decoding.join().await.map_err(|cause| Error::broken_off().caused_by(cause))?
}

#[cfg(test)]
mod tests {
    use datafusion::catalog::TableProvider;
    use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, col, lit};
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;
    use nexus_flight_catalog::Principal;

    use super::super::client::Named;
    use super::super::client::tests::room;
    use super::super::config::tests::configured;
    use super::*;
    use crate::scan::Provider;

    fn table() -> Provider<TrinoTable> {
        let columns =
            [("id", "bigint"), ("Na\"me", "varchar"), ("x", "double"), ("at", "timestamp(6) with time zone"), ("b", "boolean")];
        let columns = columns.map(|(name, type_name)| Named { name: name.to_owned(), type_name: type_name.to_owned() });
        let client = Client::new(Arc::new(configured(serde_json::json!({})).unwrap())).unwrap();
        let shape = Shape::new(columns.into()).unwrap();
        let table = TrinoTable { client, schema: "a".to_owned(), name: "t".to_owned(), shape };
        Provider { cx: Context::new(Principal::anonymous()), table: Arc::new(table) }
    }

    async fn planned(projection: Option<&Vec<usize>>, filters: &[Expr], limit: Option<usize>) -> String {
        let plan = table().scan(&SessionContext::new().state(), projection, filters, limit).await.unwrap();
        displayable(plan.as_ref()).one_line().to_string().trim().to_owned()
    }

    #[tokio::test]
    async fn columns_conditions_and_limits_are_sent() {
        assert_eq!(
            planned(None, &[], None).await,
            r#"TrinoScan: SELECT "id", "Na""me", "x", "at" AT TIME ZONE 'UTC' AS "at", "b" FROM "a"."t""#
        );
        let filters = [col("id").gt(lit(5i64)), col("x").is_not_null()];
        assert_eq!(
            planned(Some(&vec![1]), &filters, Some(3)).await,
            r#"TrinoScan: SELECT "Na""me" FROM "a"."t" WHERE ("id" > BIGINT '5') AND ("x" IS NOT NULL) LIMIT 3"#
        );
    }

    #[tokio::test]
    async fn what_trino_has_no_words_for_is_not_sent() {
        let filters = [col("b").is_true()];
        assert_eq!(
            planned(Some(&vec![4]), &filters, Some(usize::MAX)).await,
            r#"TrinoScan: SELECT "b" FROM "a"."t" WHERE ("b" IS NOT DISTINCT FROM TRUE)"#
        );
    }

    #[tokio::test]
    async fn batches_take_what_they_are_of_the_memory() {
        let columns = types::schema(&[Named { name: "n".to_owned(), type_name: "bigint".to_owned() }]).unwrap();
        let json = format!("[{}]", vec!["[null]"; 10_000].join(","));
        let rows = Rows { json: json.into(), room: room() };
        let (batches, room) = decode(Decoder::new(columns.0, columns.1), rows, 1_000).await.unwrap();
        assert_eq!(room.size(), batches.map(|batch| batch.get_array_memory_size()).sum::<usize>());
        assert!(room.size() >= 80_000);
    }

    #[tokio::test]
    async fn rows_without_columns_are_counted_by_a_constant() {
        assert_eq!(planned(Some(&vec![]), &[], Some(1)).await, r#"TrinoScan: SELECT 1 FROM "a"."t" LIMIT 1"#);
    }

    #[tokio::test]
    async fn what_a_query_has_no_room_for_is_decided_here() {
        let long = col("id").in_list((0..100_000i64).map(lit).collect(), false);
        let short = col("id").eq(lit(1i64));
        let told = table().supports_filters_pushdown(&[&short, &long, &short]).unwrap();
        let [exact, here] = [TableProviderFilterPushDown::Exact, TableProviderFilterPushDown::Unsupported];
        assert_eq!(told, [exact.clone(), here.clone(), exact.clone()]);
        // What is taken each time that the optimizer asks has a place in one query.
        let half = col("id").in_list((0..9_000i64).map(lit).collect(), false);
        assert_eq!(table().supports_filters_pushdown(&[&half, &half, &half]).unwrap(), [exact.clone(), exact, here]);
        let all = vec![half; 6];
        let sent = planned(None, &all, None).await;
        assert!((700_000..1_000_000).contains(&sent.len()), "{}", sent.len());
    }
}
