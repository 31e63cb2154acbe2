//! Conditions that DataFusion alone answers otherwise than the standard: unknown values, sub-queries, joins and groupings.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray};
use nexus_flight_catalog::Kind;

use crate::answers::values_of;
use crate::fixture::Fixture;

/// `b`: id 1 to 6 and NULL; k 10, 10, NULL, 20, 20, NULL, 30. `q`: y 1, 2, NULL. `f`: y 1, 2. `none`: no row. `w`: s, texts with
/// wildcards; t, times of day.
fn fixture() -> Fixture {
    let fixture = Fixture::new("");
    let put = |name: &str, columns: Vec<(&str, ArrayRef)>| {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        fixture.source.put(name, RecordBatch::try_from_iter_with_nullable(columns).unwrap());
    };
    let whole = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
    put(
        "b",
        vec![
            ("id", whole(vec![Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), None])),
            ("k", whole(vec![Some(10), Some(10), None, Some(20), Some(20), None, Some(30)])),
        ],
    );
    put("q", vec![("y", whole(vec![Some(1), Some(2), None]))]);
    put("f", vec![("y", whole(vec![Some(1), Some(2)]))]);
    put("none", vec![("y", whole(vec![]))]);
    let hour = 3_600_000_000;
    put(
        "w",
        vec![
            ("s", Arc::new(StringArray::from(vec!["a_b", "axb", "a%b", r"a\b"])) as ArrayRef),
            ("t", Arc::new(Time64MicrosecondArray::from(vec![Some(2 * hour), Some(hour), None, Some(hour)])) as ArrayRef),
        ],
    );
    fixture
}

async fn hold(cases: &[(&str, &str)]) {
    let fixture = fixture();
    let mut wrong = Vec::new();
    for (statement, wanted) in cases {
        match values_of(&fixture, statement).await {
            Ok(values) if values == *wanted => {}
            Ok(values) => wrong.push(format!("{statement}\n  gives  {values}\n  not    {wanted}")),
            Err(error) => wrong.push(format!("{statement}\n  fails  {error}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_a_query_with_null_is_not_known() {
    hold(&[
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM q) ORDER BY 1", ""),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM q) AND id > 0", ""),
        ("SELECT id FROM b WHERE NOT (id IN (SELECT y FROM q)) AND id > 0", ""),
        ("SELECT id FROM b WHERE 7 NOT IN (SELECT y FROM q)", ""),
        ("SELECT count(*) FROM b WHERE 7 NOT IN (SELECT y FROM f)", "7"),
        ("SELECT count(*) FROM b WHERE NULL NOT IN (SELECT y FROM none)", "7"),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM f) ORDER BY 1", "3 4 5 6"),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM f) AND id < 5 ORDER BY 1", "3 4"),
        ("SELECT count(*) FROM b WHERE id NOT IN (SELECT y FROM none)", "7"),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM q) OR id = 6", "6"),
        ("SELECT id FROM b WHERE id IN (SELECT y FROM q) OR id = 6 ORDER BY 1", "1 2 6"),
        ("SELECT id FROM b WHERE (id IN (SELECT y FROM q)) IS NULL ORDER BY 1 NULLS LAST", "3 4 5 6 "),
        ("SELECT id FROM b WHERE (id IN (SELECT y FROM f)) IS NULL", ""),
        ("SELECT id FROM b WHERE (id IN (SELECT y FROM q)) IS FALSE", ""),
        ("SELECT id FROM b WHERE (id IN (SELECT y FROM f)) IS FALSE ORDER BY 1", "3 4 5 6"),
        ("SELECT count(*) FROM b WHERE coalesce(id IN (SELECT y FROM q), true)", "7"),
        ("SELECT id FROM b WHERE CASE WHEN id IN (SELECT y FROM f) THEN false ELSE true END ORDER BY 1 NULLS LAST", "3 4 5 6 "),
        ("SELECT id FROM b WHERE id <> ALL (SELECT y FROM q) AND id > 0", ""),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_a_query_of_each_row() {
    hold(&[
        // Of the rows of the same k without the row itself.
        (
            "SELECT id FROM b WHERE id NOT IN (SELECT c.id FROM b c WHERE c.k = b.k AND c.id <> b.id) ORDER BY 1 NULLS LAST",
            "1 2 3 4 5 6 ",
        ),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM q WHERE y = b.id) ORDER BY 1 NULLS LAST", "3 4 5 6 "),
        ("SELECT id FROM b WHERE id NOT IN (SELECT y FROM q WHERE q.y < b.id) ORDER BY 1 NULLS LAST", "1 2 3 4 5 6 "),
        ("SELECT id FROM b WHERE k NOT IN (SELECT c.k FROM b c WHERE c.id = b.id) ORDER BY 1 NULLS LAST", ""),
        ("SELECT id FROM b WHERE k NOT IN (SELECT c.k FROM b c WHERE c.id = b.id + 1) ORDER BY 1 NULLS LAST", "6 "),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_queries_stand_anywhere() {
    hold(&[
        ("SELECT id, id IN (SELECT y FROM q) FROM b ORDER BY id NULLS LAST", "1|true 2|true 3| 4| 5| 6| |"),
        ("SELECT id, id NOT IN (SELECT y FROM f) FROM b ORDER BY id NULLS LAST", "1|false 2|false 3|true 4|true 5|true 6|true |"),
        ("SELECT EXISTS (SELECT 1 FROM none) AS a, EXISTS (SELECT 1 FROM q) AS b, NOT EXISTS (SELECT 1 FROM q) AS c", "false|true|false"),
        ("SELECT id FROM b WHERE EXISTS (SELECT 1 FROM q) AND NOT EXISTS (SELECT 1 FROM none) AND id = 1", "1"),
        ("SELECT y, EXISTS (SELECT 1 FROM b WHERE b.id = q.y) FROM q ORDER BY y NULLS LAST", "1|true 2|true |false"),
        ("SELECT sum(CASE WHEN id IN (SELECT y FROM q) THEN 1 ELSE 0 END) FROM b", "2"),
        ("SELECT id IN (SELECT y FROM f) AS own, count(*) FROM b GROUP BY 1 ORDER BY 1 NULLS LAST", "false|4 true|2 |1"),
        ("SELECT id FROM b WHERE id > 3 ORDER BY id IN (SELECT 5), id", "4 6 5"),
        ("SELECT id, count(*) OVER (PARTITION BY id IN (SELECT y FROM f)) FROM b WHERE id < 4 ORDER BY id", "1|2 2|2 3|1"),
        ("SELECT id FROM b WHERE id * 1.0 IN (SELECT c.id FROM b c WHERE c.id = b.id) ORDER BY id", "1 2 3 4 5 6"),
        ("SELECT id FROM b WHERE (id = 1 OR EXISTS (SELECT 1 FROM q WHERE q.y = b.id)) ORDER BY id", "1 2"),
        ("SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM b WHERE id = 4 OR EXISTS (SELECT 1 FROM q WHERE y = b.id)) ORDER BY n", "1 2 4"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_sub_queries_stand_anywhere() {
    const COUNT: &str = "(SELECT count(*) FROM b WHERE b.k = f.y * 10)";
    hold(&[
        (&format!("SELECT y, {COUNT} + {COUNT}, {COUNT} AS n FROM f ORDER BY y"), "1|4|2 2|4|2"),
        (&format!("SELECT y FROM f WHERE {COUNT} = 0 OR {COUNT} = 2 ORDER BY y"), "1 2"),
        ("SELECT y, (SELECT count(*) FROM b WHERE b.id = f.y) + (SELECT count(*) FROM q WHERE q.y = f.y) FROM f ORDER BY y", "1|2 2|2"),
        ("SELECT y, (SELECT count(*) FROM b WHERE b.id = f.y) AS b, (SELECT count(*) FROM q WHERE q.y = f.y + 1) AS q FROM f ORDER BY y", "1|1|1 2|1|0"),
        ("SELECT y FROM f WHERE (SELECT count(*) FROM q WHERE q.y = f.y + 1) = 0 OR (SELECT max(k) FROM b WHERE b.id = f.y) > 10", "2"),
        ("SELECT CASE WHEN (SELECT count(*) FROM q WHERE q.y = f.y + 1) = 0 THEN 'none' ELSE 'some' END FROM f ORDER BY y", "some none"),
        ("SELECT sum((SELECT max(k) FROM b WHERE b.id = f.y)) FROM f", "20"),
        ("SELECT y FROM f ORDER BY (SELECT max(id) FROM b WHERE b.id = f.y) DESC", "2 1"),
        ("SELECT y, sum(y) OVER (ORDER BY (SELECT max(id) FROM b WHERE b.id = f.y)) FROM f ORDER BY y", "1|1 2|3"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_over_all_rows_is_a_row() {
    hold(&[
        ("SELECT y FROM f WHERE EXISTS (SELECT count(*) FROM b WHERE b.id = f.y + 100) ORDER BY y", "1 2"),
        ("SELECT y FROM f WHERE NOT EXISTS (SELECT max(id) FROM b WHERE b.id = f.y + 100)", ""),
        ("SELECT y FROM f WHERE 0 IN (SELECT count(*) FROM b WHERE b.id = f.y + 5) ORDER BY y", "2"),
        ("SELECT y FROM f WHERE EXISTS (SELECT 1 FROM b WHERE b.id = f.y + 5 HAVING count(*) = 0)", "2"),
    ])
    .await;
    let error = fixture().run("SELECT y FROM f WHERE EXISTS (SELECT 1 FROM b WHERE b.k = f.y OFFSET 1)").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_equal_to_null_only_where_that_is_asked_for() {
    hold(&[
        ("SELECT id FROM b WHERE id IS DISTINCT FROM 1 AND k = 10", "2"),
        ("SELECT id FROM b WHERE k IS NOT DISTINCT FROM 10 OR id = 6 ORDER BY 1", "1 2 6"),
        ("SELECT count(*) FROM b x JOIN b y ON x.k IS NOT DISTINCT FROM y.k", "13"),
        ("SELECT count(*) FROM b x JOIN b y ON x.k IS NOT DISTINCT FROM y.k AND x.id = y.id", "6"),
        ("SELECT count(*) FROM b x JOIN b y ON x.k IS NOT DISTINCT FROM y.k WHERE x.id = y.id", "6"),
        ("SELECT count(*) FROM b x, b y WHERE x.k IS NOT DISTINCT FROM y.k AND x.id = y.id", "6"),
        ("SELECT count(*) FROM b x LEFT JOIN b y ON x.id IS NOT DISTINCT FROM y.id AND x.k = y.k WHERE y.k IS NULL", "2"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_stay_with_the_columns_that_they_name() {
    hold(&[
        (
            "SELECT m.id FROM (SELECT id, k FROM b WHERE id < 3) w RIGHT JOIN (SELECT id, k FROM b WHERE id < 6) m ON w.id = m.id \
             WHERE w.k IS DISTINCT FROM m.k ORDER BY 1",
            "4 5",
        ),
        (
            "SELECT m.id FROM (SELECT id, k FROM b WHERE id < 3) w RIGHT JOIN (SELECT id, k FROM b WHERE id < 6) m ON w.id = m.id \
             WHERE w.k IS NULL AND m.k IS NOT NULL ORDER BY 1",
            "4 5",
        ),
        (
            "SELECT x.id FROM b x WHERE EXISTS (SELECT 1 FROM (SELECT id + 3 AS z, id FROM b) y WHERE y.z = x.id AND y.id + 3 >= x.id) \
             ORDER BY x.id DESC LIMIT 2",
            "6 5",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_groups_and_totals() {
    hold(&[
        ("SELECT DISTINCT k FROM b ORDER BY k NULLS FIRST LIMIT 2", " 10"),
        ("SELECT k, max(id) AS m FROM b GROUP BY k ORDER BY m DESC NULLS LAST LIMIT 2", "|6 20|5"),
        ("SELECT k, max(id) AS m FROM b GROUP BY k ORDER BY m NULLS FIRST LIMIT 1", "30|"),
        ("SELECT k, count(*) FROM b GROUP BY ROLLUP (k) ORDER BY 1, 2 NULLS LAST", "10|2 20|2 30|1 |2 |7"),
        ("SELECT y, count(*), sum(y) FROM none GROUP BY ROLLUP (y)", "|0|"),
        ("SELECT y, grouping(y), count(*) FROM none GROUP BY CUBE (y)", "|1|0"),
        ("SELECT y, count(*) FROM none GROUP BY GROUPING SETS ((y))", ""),
        ("SELECT count(*) FROM none GROUP BY GROUPING SETS (())", "0"),
        ("SELECT count(*) FROM q GROUP BY GROUPING SETS (())", "3"),
        ("SELECT count(*) FROM (SELECT y, count(*) AS n FROM none GROUP BY ROLLUP (y)) t JOIN f ON f.y = t.n + 1", "1"),
        (
            "SELECT CASE WHEN id > 3 THEN DATE '2020-01-01' END, count(*) FROM b \
             GROUP BY ROLLUP (CASE WHEN id > 3 THEN DATE '2020-01-01' END) HAVING count(*) > 3 ORDER BY 2",
            "|4 |7",
        ),
        ("SELECT id + 1e0, count(*) FROM b WHERE id < 2 GROUP BY CUBE (id + 1e0) ORDER BY 1", "2.0|1 |1"),
        ("SELECT id, k FROM b WHERE id = 1 UNION ALL SELECT y, y FROM f ORDER BY 1, 2", "1|1 1|10 2|2"),
        ("WITH RECURSIVE r AS (SELECT 1 AS n, 2 AS m UNION ALL SELECT m, n + 1 AS m FROM r WHERE n < 3) SELECT n, m FROM r ORDER BY n, m", "1|2 2|2 2|3 3|3"),
        ("SELECT id > 3, count(*) FROM b GROUP BY ROLLUP (id > 3) HAVING count(*) > 3 ORDER BY 2", "|7"),
    ])
    .await;
    let error = fixture().run("SELECT count(*) FROM q GROUP BY GROUPING SETS ((), ())").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn casts_that_do_not_fit_are_errors_or_null() {
    hold(&[
        ("SELECT id FROM b WHERE try_cast(id * 100 AS TINYINT) < 50", ""),
        ("SELECT id FROM b WHERE try_cast(id * 100 AS TINYINT) IS NULL AND id < 3", "2"),
        ("SELECT try_cast('' AS DECIMAL(10, 2)), try_cast('-' AS DECIMAL(10, 2)), CAST(' 1.5 ' AS DECIMAL(10, 2))", "||1.50"),
        ("SELECT ceil(0.5), floor(-0.05), ceil(9.5), floor(-0.5)", "1.0|-1.00|10.0|-1.0"),
        ("SELECT count(*) FROM w WHERE t = TIME '01:00:00'", "2"),
        ("SELECT lead(t) OVER (ORDER BY t NULLS LAST) FROM w", "01:00:00 02:00:00  "),
        ("SELECT count(*) FROM w WHERE t BETWEEN TIME '00:30:00' AND TIME '01:00:00'", "2"),
    ])
    .await;
    let fixture = fixture();
    for statement in [
        "SELECT CAST(5000000000 AS INT) > 0",
        "SELECT id FROM b WHERE CAST(id * 5000000000 AS INT) > 0",
        "SELECT CAST('' AS DECIMAL(10, 2))",
        "SELECT count(*) FROM w WHERE CAST(s || '' AS DECIMAL(10, 2)) > 0",
    ] {
        assert!(fixture.run(statement).await.is_err(), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_among_items_has_their_type() {
    hold(&[
        ("SELECT array_has(make_array(1e0 * id, 2.5e0), 2.5) FROM b WHERE id = 1", "true"),
        ("SELECT array_has(make_array(0.1e0 * id), 0.1) FROM b WHERE id = 1", "true"),
        ("SELECT id FROM b WHERE array_has(make_array(1.25, 2.5), id * 2.50) ORDER BY 1", "1"),
        ("SELECT array_to_string(array_append(make_array(0.5e0), 2.5), ' ')", "0.5 2.5"),
        ("SELECT array_has(make_array(38655710476146987e-17), 0.38655710476146987)", "true"),
        ("SELECT array_position(make_array(1.5, 2.5), 2.50), array_position(make_array(1e0, 1e0), 1.0, 2)", "2|2"),
        ("SELECT array_to_string(array_resize(make_array(1.5e0), 3, 9.5), ' ')", "1.5 9.5 9.5"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_of_a_column_of_texts_have_their_zone() {
    let of = |call: &str| {
        format!(
            "SELECT arrow_typeof({call}), {call} = TIMESTAMP '2024-01-02T03:04:05Z' FROM (SELECT '2024-01-02 03:04:05' AS s FROM b WHERE id = 1)"
        )
    };
    hold(&[
        (&of("to_timestamp(s)"), "Timestamp(ns, \"+00:00\")|true"),
        (&of("to_timestamp(s, '%d.%m.%Y', '%Y-%m-%d %H:%M:%S')"), "Timestamp(ns, \"+00:00\")|true"),
        (&of("to_timestamp_millis(s)"), "Timestamp(ms, \"+00:00\")|true"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_with_wildcards_that_stand_for_themselves() {
    hold(&[
        (r"SELECT s FROM w WHERE s LIKE 'a\_%'", "a_b"),
        ("SELECT s FROM w WHERE s LIKE 'a|_%' ESCAPE '|'", "a_b"),
        ("SELECT s FROM w WHERE starts_with(s, 'a_')", "a_b"),
        ("SELECT s FROM w WHERE starts_with(s, 'a%')", "a%b"),
        (r"SELECT s FROM w WHERE starts_with(s, 'a\')", r"a\b"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_nan_is_one_and_greater_than_all_numbers() {
    let infinite = "(SELECT CAST('inf' AS DOUBLE) * id AS x FROM b WHERE id < 3)";
    hold(&[
        (&format!("SELECT x - x < 1, x - x > 1, x * 0.0 = CAST('nan' AS DOUBLE) FROM {infinite} LIMIT 1"), "false|true|true"),
        (&format!("SELECT count(*) FROM (SELECT DISTINCT v FROM (SELECT x - x AS v FROM {infinite} UNION ALL SELECT CAST('nan' AS DOUBLE)))"), "1"),
        (&format!("SELECT max(x % 2) > 1, min(sqrt(-x)) > 1 FROM {infinite}"), "true|true"),
    ])
    .await;
}
