//! Parameters: their types, their number, their values.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, ListViewArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{Field, Int64Type};
use nexus_flight_catalog::{Error, Result};
use nexus_server::query::CacheUse::{Hit, Miss};

use crate::fixture::{Fixture, shown};

/// `SELECT …` → the type of each parameter.
async fn types(fixture: &Fixture, statement: &str) -> String {
    let described = fixture.gateway.execute.describe(&fixture.query(statement)).await.unwrap();
    let types = described.parameters.fields().iter().map(|field| field.data_type().to_string());
    types.collect::<Vec<_>>().join(", ")
}

async fn bound(fixture: &Fixture, statement: &str, values: Vec<ArrayRef>) -> Result<String> {
    let named = values.into_iter().enumerate().map(|(index, value)| (format!("${}", index + 1), value));
    let mut query = fixture.query(statement);
    query.parameters = Some(RecordBatch::try_from_iter(named).unwrap());
    Ok(shown(fixture.gateway.execute.execute(query).await?).await?.1)
}

fn one(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

#[tokio::test(flavor = "multi_thread")]
async fn types_come_from_the_place() {
    let fixture = Fixture::new("");
    for (statement, wanted) in [
        ("SELECT * FROM numbers WHERE id = ?", "Int64"),
        ("SELECT * FROM numbers WHERE id BETWEEN $1 AND $2 AND name = $3", "Int64, Int64, Utf8"),
        ("SELECT * FROM numbers WHERE id IN (?, ?)", "Int64, Int64"),
        ("SELECT * FROM numbers LIMIT ? OFFSET ?", "Int64, Int64"),
        ("SELECT CAST(? AS DATE), ?::double", "Date32, Float64"),
        ("SELECT ?", "Utf8"),
        ("SELECT ? || ? || ?", "Utf8, Utf8, Utf8"),
        ("SELECT 1", ""),
    ] {
        assert_eq!(types(&fixture, statement).await, wanted, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_take_their_places() {
    let fixture = Fixture::new("");
    let rows = bound(&fixture, "SELECT name FROM numbers WHERE id > ? ORDER BY id LIMIT ?", vec![one(1), one(1)]).await.unwrap();
    assert!(rows.contains("n2") && !rows.contains("n3"), "{rows}");
    // A smaller type than the place has is widened.
    let small: ArrayRef = Arc::new(Int32Array::from(vec![3]));
    assert!(bound(&fixture, "SELECT name FROM numbers WHERE id = $1", vec![small]).await.unwrap().contains("n3"));
    // Text is text, whatever it looks like.
    let text: ArrayRef = Arc::new(StringArray::from(vec!["' OR 1 = 1 --"]));
    let rows = bound(&fixture, "SELECT count(*) AS c FROM numbers WHERE name = ?", vec![text]).await.unwrap();
    assert!(rows.contains("| 0 |"), "{rows}");
    let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let rows = bound(&fixture, "SELECT count(*) AS c FROM numbers WHERE id = ?", vec![null]).await.unwrap();
    assert!(rows.contains("| 0 |"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_values_are_another_question() {
    let fixture = Fixture::new("");
    let mut uses = Vec::new();
    for value in [1, 2, 1] {
        let mut query = fixture.query("SELECT name FROM numbers WHERE id = ?");
        query.parameters = Some(RecordBatch::try_from_iter([("$1", one(value))]).unwrap());
        uses.push(shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap().0);
    }
    assert_eq!(uses, [Miss, Miss, Hit]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_runs_once_for_each_row() {
    let fixture = Fixture::new("");
    let ids = || -> ArrayRef { Arc::new(Int64Array::from(vec![Some(3), None, Some(1), Some(3)])) };
    let rows = bound(&fixture, "SELECT name, ? AS n FROM numbers WHERE id = ?", vec![ids(), ids()]).await.unwrap();
    let told: Vec<&str> = rows.lines().filter(|line| line.contains("| n")).skip(1).collect();
    assert_eq!(told, ["| n3   | 3 |", "| n1   | 1 |", "| n3   | 3 |"], "{rows}");
    // A row that fails fails the statement, and the rows before it are not its answer.
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
    let error = bound(&fixture, "SELECT cast(? AS bigint)", vec![texts]).await.unwrap_err();
    assert_eq!(error.kind(), nexus_flight_catalog::Kind::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_said() {
    let fixture = Fixture::new("");
    let message = |error: Error| error.to_string();
    let missing = message(fixture.error("SELECT * FROM numbers WHERE id = ? AND name = ?").await);
    let too_few = message(bound(&fixture, "SELECT ? + ?", vec![one(1)]).await.unwrap_err());
    let too_many = message(bound(&fixture, "SELECT 1", vec![one(1)]).await.unwrap_err());
    let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
    let rows = message(bound(&fixture, "SELECT ? + 1", vec![none]).await.unwrap_err());
    let gap = message(fixture.gateway.execute.describe(&fixture.query("SELECT $1, $3")).await.unwrap_err());
    let text: ArrayRef = Arc::new(StringArray::from(vec!["many"]));
    let kind = message(bound(&fixture, "SELECT * FROM numbers WHERE id = ?", vec![text]).await.unwrap_err());
    let pair: ArrayRef = Arc::new(ListViewArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(2)])]));
    let field = Arc::new(Field::new("v", pair.data_type().clone(), true));
    let view = message(bound(&fixture, "SELECT ?", vec![pair.slice(0, 1)]).await.unwrap_err());
    let within: ArrayRef = Arc::new(StructArray::from(vec![(field, pair)]));
    let views = message(bound(&fixture, "SELECT ?", vec![within]).await.unwrap_err());
    insta::assert_snapshot!([missing, too_few, too_many, rows, gap, kind, view, views].join("\n"), @r#"
    the statement has 2 parameters and none was given; bind a value to each of them
    the statement has 2 parameters and 1 was given; bind a value to each of them
    the statement has 0 parameters and 1 was given; bind a value to each of them
    the parameters have no row; bind a value to each of them
    the statement has 2 parameters and none is $2; number them from $1 without gaps
    "many" is not a number, and numbers.id is one, of type Int64; write a number, or cast the number to text to compare both as text
    a parameter of the type ListView(Int64) is not taken; send its values as a List
    a parameter of the type Struct("v": ListView(Int64)) is not taken; send its values as a List
    "#);
}
