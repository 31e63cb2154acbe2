//! Answers that DataFusion alone would give otherwise than the standard, each beside what is right.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Int8Type;
use nexus_flight_catalog::Kind;

use crate::fixture::Fixture;

/// `few`: id 1 to 4; x, a double: 1e-20, 0.3, the double after 0.3, NaN; y, a real: 0.1, 0.5, 1e7, NULL; d, DECIMAL(12,2):
/// 10.25, 10.35, 9.00, NULL; t, a dictionary of whole numbers: 9, 10, 11, 9.
fn fixture() -> Fixture {
    let fixture = Fixture::new("");
    let dictionary: DictionaryArray<Int8Type> =
        DictionaryArray::new(vec![0_i8, 1, 2, 0].into(), Arc::new(Int64Array::from(vec![9, 10, 11])));
    let decimals = Decimal128Array::from(vec![Some(1025), Some(1035), Some(900), None]).with_precision_and_scale(12, 2).unwrap();
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("x", Arc::new(Float64Array::from(vec![1e-20, 0.3, 0.300_000_000_000_000_04, f64::NAN]))),
        ("y", Arc::new(Float32Array::from(vec![Some(0.1), Some(0.5), Some(1e7), None]))),
        ("d", Arc::new(decimals)),
        ("t", Arc::new(dictionary)),
    ];
    fixture
        .source
        .put("few", RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap());
    fixture
}

/// The values of a statement's rows, `a|b` a row.
async fn values(fixture: &Fixture, statement: &str) -> String {
    let table = match fixture.run(statement).await {
        Ok((_, table)) => table,
        Err(error) => panic!("{statement}: {error}"),
    };
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|");
    rows.map(cells).collect::<Vec<_>>().join(" ")
}

async fn hold(cases: &[(&str, &str)]) {
    let fixture = fixture();
    for (statement, wanted) in cases {
        assert_eq!(values(&fixture, statement).await, *wanted, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approximate_number_beside_an_exact_one_stays_what_it_is() {
    hold(&[
        ("SELECT id FROM few WHERE x > 0.0 ORDER BY id", "1 2 3 4"),
        ("SELECT id FROM few WHERE x = 0.0", ""),
        ("SELECT id FROM few WHERE 0.3 = x", "2"),
        ("SELECT id FROM few WHERE x IN (0.3, 7.5)", "2"),
        ("SELECT id FROM few WHERE x BETWEEN 0.0 AND 0.3 ORDER BY id", "1 2"),
        ("SELECT id FROM few WHERE CASE x WHEN 0.3 THEN true ELSE false END", "2"),
        ("SELECT coalesce(x, 0.5) FROM few WHERE id = 1", "1e-20"),
        ("SELECT CASE WHEN id = 1 THEN x ELSE 0.5 END FROM few WHERE id < 3 ORDER BY id", "1e-20 0.5"),
        ("SELECT x FROM few WHERE id = 1 UNION ALL SELECT 0.5 ORDER BY 1", "1e-20 0.5"),
        ("SELECT x * 0.5 FROM few WHERE id = 1", "5e-21"),
        ("SELECT x + d FROM few WHERE id = 3", "9.3"),
        ("SELECT id FROM few WHERE y = 0.1", "1"),
        ("SELECT id FROM few WHERE y > 0.5", "3"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_with_an_exponent_is_approximate() {
    hold(&[
        ("SELECT 1e10 / 3", "3333333333.3333335"),
        ("SELECT CAST(1e300 AS DOUBLE)", "1e300"),
        ("SELECT id * 1e2, id % 1e1, id + 1E-1 FROM few WHERE id = 1", "100.0|1.0|1.1"),
        ("SELECT count(*) / 1e6 FROM few", "4e-6"),
        ("SELECT sum(id) FROM few WHERE id < 2.5e0", "3"),
        ("SELECT 0.06 + 0.01", "0.07"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_number_is_a_number_wherever_it_stands() {
    hold(&[
        ("SELECT sum(CASE WHEN id > '2' THEN 1 ELSE 0 END) FROM few", "2"),
        ("SELECT count(*) FILTER (WHERE id > '2') FROM few", "2"),
        ("SELECT id > '2', count(*) FROM few GROUP BY id > '2' ORDER BY 1", "false|2 true|2"),
        ("SELECT id > '2' FROM few ORDER BY id > '2', id", "false false true true"),
        ("SELECT DISTINCT id > '2' FROM few ORDER BY 1", "false true"),
        ("SELECT max(id > '2') FROM few", "true"),
        ("SELECT lag(id > '2') OVER (PARTITION BY id > '3' ORDER BY id) FROM few ORDER BY id", " false false "),
        ("SELECT id > '2', id > 2 FROM few WHERE id = 3", "true|true"),
        ("SELECT id FROM few WHERE y = '0.1'", "1"),
        ("SELECT id FROM few WHERE y IN ('0.1', '0.5') ORDER BY id", "1 2"),
        ("SELECT id FROM few WHERE t > '9' ORDER BY id", "2 3"),
        ("SELECT CASE d WHEN '9' THEN 'nine' ELSE 'other' END FROM few WHERE id = 3", "nine"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_what_comes() {
    hold(&[
        ("SELECT round(d, 1) FROM few WHERE id < 3 ORDER BY id", "10.3 10.4"),
        ("SELECT round(sum(d), 1), round(avg(d), 1) FROM few", "29.6|9.9"),
        ("SELECT round(2.675, 2), max(round(id * 1.5, 0)) FROM few", "2.68|6"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_with_a_zone_is_a_moment() {
    hold(&[
        ("SELECT TIMESTAMPTZ '1970-01-01 00:00:00+00' = arrow_cast(0, 'Timestamp(Second, Some(\"Europe/Berlin\"))')", "true"),
        ("SELECT TIMESTAMPTZ '1970-01-01 01:00:00+01' = TIMESTAMPTZ '1970-01-01 00:00:00Z'", "true"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_with_its_tables_the_other_way_round_is_another() {
    let fixture = fixture();
    let asked = |a: &str, b: &str| {
        format!(
            "SELECT {a}.id FROM few {a}, few {b} WHERE {a}.id < {b}.id \
             AND NOT EXISTS (SELECT 1 FROM other o WHERE o.id = a.id + 2) ORDER BY 1"
        )
    };
    // `other` holds 4, so that what is left out is where a is 2.
    assert_eq!(values(&fixture, &asked("a", "b")).await, "1 1 1 3");
    assert_eq!(values(&fixture, &asked("b", "a")).await, "1 1 2 2 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_wrong_is_refused() {
    let fixture = fixture();
    for (statement, kind) in [
        ("SELECT id FROM few EXCEPT ALL SELECT 1", Kind::Unsupported),
        ("SELECT * FROM (SELECT 1 UNION ALL (SELECT 1 INTERSECT ALL SELECT 1))", Kind::Unsupported),
        ("SELECT (SELECT 1 UNION ALL SELECT 2)", Kind::Invalid),
        ("SELECT sum(id) FROM few WHERE id > (SELECT 1 UNION ALL SELECT 2)", Kind::Invalid),
    ] {
        assert_eq!(fixture.error(statement).await.kind(), kind, "{statement}");
    }
    assert_eq!(values(&fixture, "SELECT (SELECT 1 UNION ALL SELECT 2 LIMIT 1) > 0").await, "true");
}
