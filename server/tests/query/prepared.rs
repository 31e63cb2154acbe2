//! Prepared statements by Arrow's client for Rust, at the routes of the port: it binds rows in a call of their own, and executes in
//! another.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, IntervalDayTimeArray, IntervalYearMonthArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, IntervalDayTime, IntervalUnit};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use axum::Router;
use futures::TryStreamExt;
use nexus_server::config::Config;
use nexus_server::gateway::Gateway;
use nexus_server::serve;
use nexus_server::workers::Workers;
use tonic::Code;

type Client = FlightSqlServiceClient<Router>;

/// A gateway whose default catalog takes rows, and a client of it.
fn gateway() -> (Arc<Gateway>, Client) {
    let text = "defaults.catalog = \"kept\"\n[catalogs.kept]\nkind = \"memory\"\nwritable = true\n";
    let config = Config::parse(text, Path::new("nexus.toml"), &|_| None).unwrap();
    let gateway = Gateway::new(&config, Workers::here(), None).unwrap();
    let service = Arc::new(serve::service(&config, &gateway));
    let mut client = FlightSqlServiceClient::new(serve::routes(Arc::clone(&service), service));
    client.set_header("x-nexus-type-profile", "native");
    (gateway, client)
}

async fn read(client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
    let mut rows = Vec::new();
    for endpoint in info.endpoint {
        let answer = client.do_get(endpoint.ticket.unwrap()).await.unwrap();
        rows.extend(answer.try_collect::<Vec<_>>().await.unwrap());
    }
    rows
}

fn rows(columns: [ArrayRef; 2]) -> RecordBatch {
    RecordBatch::try_from_iter(["1", "2"].into_iter().zip(columns)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_bound_and_then_written_and_read() {
    let (_gateway, mut client) = gateway();
    assert_eq!(client.execute_update("CREATE TABLE t (id BIGINT, name VARCHAR)".to_owned(), None).await.unwrap(), 0);
    let mut insert = client.prepare("INSERT INTO t VALUES (?, ?)".to_owned(), None).await.unwrap();
    let wanted: Vec<DataType> =
        insert.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(wanted, [DataType::Int64, DataType::Utf8]);
    // What writes has no columns.
    assert!(insert.dataset_schema().unwrap().fields().is_empty());
    let ids: Int64Array = (0..1_000_i64).map(|id| (id % 3 > 0).then_some(id)).collect();
    let names: StringArray = (0..1_000).map(|id| (id % 5 > 0).then(|| format!("n{id}"))).collect();
    insert.set_parameters(rows([Arc::new(ids), Arc::new(names)])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 1_000);
    let mut select = client.prepare("SELECT id, name FROM t WHERE id = ? AND id < ?".to_owned(), None).await.unwrap();
    assert_eq!(select.dataset_schema().unwrap().fields().len(), 2);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(5), Some(7)]));
    let bounds: ArrayRef = Arc::new(Int64Array::from(vec![Some(8), Some(8), Some(8), None]));
    select.set_parameters(rows([ids, bounds])).unwrap();
    let info = select.execute().await.unwrap();
    insta::assert_snapshot!(pretty_format_batches(&read(&mut client, info).await).unwrap().to_string(), @"
    +----+------+
    | id | name |
    +----+------+
    | 7  | n7   |
    | 5  |      |
    +----+------+
    ");
    // What is bound in a call of its own is carried by the client.
    let (ids, names) = (Int64Array::from_iter_values(0..100_000), StringArray::new_null(100_000));
    insert.set_parameters(rows([Arc::new(ids), Arc::new(names)])).unwrap();
    let Err(FlightError::Tonic(refused)) = insert.execute_update().await else { panic!("so many rows were bound") };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().starts_with("the parameters have more than 262144 bytes"), "{refused}");
    let info = client.execute("SELECT count(*) AS a, count(id) AS b, count(name) AS c FROM t".to_owned(), None).await.unwrap();
    let counts = pretty_format_batches(&read(&mut client, info).await).unwrap().to_string();
    assert!(counts.contains("| 1000 | 666 | 800 |"), "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_of_every_kind_are_bound() {
    let (_gateway, mut client) = gateway();
    let mut select = client.prepare("SELECT ? AS months, ? AS days".to_owned(), None).await.unwrap();
    let months: ArrayRef = Arc::new(IntervalYearMonthArray::from(vec![Some(14), None]));
    let days: ArrayRef = Arc::new(IntervalDayTimeArray::from(vec![Some(IntervalDayTime::new(3, 1_500)), None]));
    select.set_parameters(rows([Arc::clone(&months), Arc::clone(&days)])).unwrap();
    let info = select.execute().await.unwrap();
    let answer = read(&mut client, info).await;
    let schema = answer.first().unwrap().schema();
    let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Interval(IntervalUnit::YearMonth), &DataType::Interval(IntervalUnit::DayTime)]);
    let all = arrow::compute::concat_batches(&schema, &answer).unwrap();
    assert_eq!(all.columns(), [months, days]);
}
