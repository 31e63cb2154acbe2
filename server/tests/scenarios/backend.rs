//! What executes in place of the query path: the fixed statements of the scenarios, with the answers that their client expects.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Error, IfExists, IfMissing, Result};
use nexus_server::query::{Answer, Description, Execute, Query};
use nexus_server::write::{count_batch, count_schema};

/// The plan that the client sends, whether it is to read or to write, and what the route makes of it where it is to write.
pub(crate) const PLAN: &[u8] = b"plan";
pub(crate) const WRITING_PLAN: &[u8] = b"writing plan";
pub(crate) const PREPARED_WRITING_PLAN: &[u8] = b"prepared writing plan";

/// Answers the fixed statements.
pub(crate) struct Backend;

#[async_trait]
impl Execute for Backend {
    async fn describe(&self, query: &Query) -> Result<Description> {
        let (is_update, schema) = match Asked::of(query)? {
            Asked::Rows(batch) => (false, batch.schema()),
            Asked::Count(_) => (true, count_schema()),
        };
        Ok(Description { schema, parameters: id(false), is_update, parts: Vec::new() })
    }

    async fn execute(&self, query: Query) -> Result<Answer> {
        let batch = match Asked::of(&query)? {
            Asked::Rows(batch) => batch,
            Asked::Count(None) => count_batch(ingested(&query).await?)?,
            Asked::Count(Some(count)) => count_batch(count)?,
        };
        Ok(Answer::new(batch.schema(), stream::iter([Ok(batch)]).boxed()))
    }
}

/// What a statement gives: rows, or a number of affected ones; none where they have to be counted.
enum Asked {
    Rows(RecordBatch),
    Count(Option<i64>),
}

impl Asked {
    fn of(query: &Query) -> Result<Self> {
        let in_transaction = query.transaction.is_some();
        let rows = |schema: SchemaRef| Ok(Self::Rows(RecordBatch::new_empty(schema)));
        let count =
            |alone, in_transaction| Ok(Self::Count(Some(if query.transaction.is_some() { in_transaction } else { alone })));
        if query.ingest.is_some() {
            return Ok(Self::Count(None));
        }
        match query.substrait.as_deref() {
            None => {}
            Some(PLAN) => return rows(id(in_transaction)),
            Some(WRITING_PLAN) => return count(10_000, 15_000),
            Some(PREPARED_WRITING_PLAN) => return count(20_000, 25_000),
            Some(other) => return Err(Error::invalid(format!("an unknown plan {other:?}"))),
        }
        match &*query.statement {
            "SELECT STATEMENT" | "SELECT PREPARED STATEMENT" => rows(id(in_transaction)),
            "UPDATE STATEMENT" => count(10_000, 15_000),
            "UPDATE PREPARED STATEMENT" => count(20_000, 25_000),
            other => match other.split_once(' ') {
                Some(("INT32", numbers)) => Ok(Self::Rows(column(Arc::new(Int32Array::from(parsed::<i32>(numbers)))))),
                Some(("UINT32", numbers)) => Ok(Self::Rows(column(Arc::new(UInt32Array::from(parsed::<u32>(numbers)))))),
                _ => Err(Error::invalid(format!("an unknown statement {other}"))),
            },
        }
    }
}

async fn ingested(query: &Query) -> Result<i64> {
    let ingest = query.ingest.as_ref().unwrap();
    let session = &query.session;
    assert_eq!((&*session.catalog, &*session.schema, &*ingest.table), ("test_catalog", "test_schema", "test_table"));
    assert!(matches!((ingest.if_missing, &ingest.if_exists), (IfMissing::Create, IfExists::Replace)));
    assert_eq!(ingest.schema, Arc::new(Schema::new(vec![Field::new("test_field", DataType::Int64, true)])));
    assert!(query.transaction.is_some());
    let rows: Vec<RecordBatch> = ingest.take().unwrap().try_collect().await?;
    Ok(rows.iter().map(|batch| batch.num_rows() as i64).sum())
}

fn parsed<T: std::str::FromStr>(numbers: &str) -> Vec<T> {
    numbers.split(' ').filter_map(|number| number.parse().ok()).collect()
}

fn column(numbers: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("number", numbers.data_type().clone(), false)]);
    RecordBatch::try_new(Arc::new(schema), vec![numbers]).unwrap()
}

/// The columns that the client expects, which are others within a transaction.
fn id(in_transaction: bool) -> SchemaRef {
    let (name, data_type) = if in_transaction { ("pkey", DataType::Int32) } else { ("id", DataType::Int64) };
    let metadata = [
        ("TABLE_NAME", "test"),
        ("IS_AUTO_INCREMENT", "1"),
        ("IS_CASE_SENSITIVE", "0"),
        ("TYPE_NAME", "type_test"),
        ("SCHEMA_NAME", "schema_test"),
        ("IS_SEARCHABLE", "1"),
        ("CATALOG_NAME", "catalog_test"),
        ("PRECISION", "100"),
        ("REMARKS", "test column"),
    ];
    let metadata = metadata.map(|(name, value)| (format!("ARROW:FLIGHT:SQL:{name}"), value.to_owned()));
    let field = Field::new(name, data_type, true).with_metadata(HashMap::from(metadata));
    Arc::new(Schema::new(vec![field]))
}
