//! A catalog of a real Trino server, which `make test` starts: that of tables in memory.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use nexus_engines::trino::SPEC;
use nexus_flight_catalog::conformance::{Fixture, SeedTable, check, seed};
use nexus_flight_catalog::{Options, Source};
use serde_json::{Value, json};

const CATALOG: &str = "memory";
const SCHEMA: &str = "main";

/// The address of the server.
fn url() -> String {
    std::env::var("NEXUS_TEST_TRINO_URL").expect("NEXUS_TEST_TRINO_URL is not set")
}

fn source() -> Arc<dyn Source> {
    let values = json!({ "url": url(), "user": "gateway", "catalog": CATALOG });
    let values = values.as_object().unwrap().clone();
    (SPEC.open)(&Options { catalog: "shop".into(), values, ..Options::default() }).unwrap()
}

/// Runs a statement by the protocol itself, which is none of what is tested here.
async fn run(http: &reqwest::Client, sql: String) {
    let mut request = http.post(format!("{}/v1/statement", url())).body(sql);
    loop {
        let request_of_user = request.header("x-trino-user", "seed").header("x-trino-time-zone", "UTC");
        let answer = request_of_user.send().await.unwrap().error_for_status().unwrap();
        let page: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(page.get("error").is_none(), "{page}");
        let Some(next) = page.get("nextUri") else { return };
        request = http.get(next.as_str().unwrap());
    }
}

fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "bigint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "varchar".into(),
        DataType::Binary => "varbinary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp(6)".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(item) => format!("array({})", sql_type(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("\"{}\" {}", field.name(), sql_type(field.data_type()))).collect();
            format!("row({})", fields.join(", "))
        }
        other => panic!("no SQL type for {other}"),
    }
}

/// A value as Trino reads it.
fn literal(column: &dyn Array, row: usize) -> String {
    let data_type = column.data_type();
    let text = || {
        let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"));
        ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string()
    };
    let all = |parts: Vec<String>| parts.join(", ");
    let value = match data_type {
        _ if column.is_null(row) => "NULL".to_owned(),
        DataType::Binary => format!("X'{}'", text()),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            format!("ARRAY[{}]", all((0..items.len()).map(|at| literal(&items, at)).collect()))
        }
        DataType::Struct(_) => {
            format!("ROW({})", all(column.as_struct().columns().iter().map(|part| literal(part, row)).collect()))
        }
        _ => format!("'{}'", text().replace('\'', "''")),
    };
    format!("CAST({value} AS {})", sql_type(data_type))
}

async fn load(http: &reqwest::Client, SeedTable { name, batch, .. }: &SeedTable) {
    let schema = batch.schema();
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("\"{}\" {}", field.name(), sql_type(field.data_type()))).collect();
    let table = format!("{CATALOG}.{SCHEMA}.{name}");
    run(http, format!("CREATE TABLE {table} ({})", columns.join(", "))).await;
    let rows: Vec<String> = (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| literal(column, row)).collect::<Vec<_>>().join(", "))
        .map(|values| format!("({values})"))
        .collect();
    if !rows.is_empty() {
        run(http, format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await;
    }
}

#[tokio::test]
#[ignore = "needs a Trino server: make test starts one and runs this"]
async fn conformance() {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    run(&http, format!("CREATE SCHEMA {CATALOG}.{SCHEMA}")).await;
    for table in &seed() {
        load(&http, table).await;
    }
    if let Err(violations) = check(&Fixture::new(source(), SCHEMA)).await {
        panic!("{} violations:\n{}", violations.len(), violations.join("\n"));
    }
}
