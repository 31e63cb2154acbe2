//! Answers that DataFusion alone would give otherwise than the standard, each beside what is right.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Int8Type;
use nexus_flight_catalog::{Kind, Result};

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

async fn values(fixture: &Fixture, statement: &str) -> String {
    values_of(fixture, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
}

/// The values of a statement's rows, `a|b` a row.
pub(crate) async fn values_of(fixture: &Fixture, statement: &str) -> Result<String> {
    let (_, table) = fixture.run(statement).await?;
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|");
    Ok(rows.map(cells).collect::<Vec<_>>().join(" "))
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
        ("SELECT id FROM few WHERE id = 1 AND NOT x IN (SELECT 0.0)", "1"),
        ("SELECT id FROM few WHERE x IN (SELECT CAST(0.0 AS DECIMAL(4, 2)))", ""),
        ("SELECT id FROM few WHERE d IN (SELECT 9e0)", "3"),
        ("SELECT 0.5 AS v UNION ALL SELECT sin(1) ORDER BY v", "0.5 0.8414709848078965"),
        ("SELECT 0.5 AS v UNION ALL SELECT 1e300 ORDER BY v", "0.5 1e300"),
        ("SELECT * FROM (VALUES (0.5), (1e-20), (NULL), (2)) v(a) ORDER BY a NULLS LAST", "1e-20 0.5 2.0 "),
        ("SELECT [sin(1), 0.5]", "[0.8414709848078965, 0.5]"),
        ("SELECT log(2.5) > 0.39, log(2, 0.5), power(0.5, 2), power(1.01, 365) > 37", "true|-1.0|0.25|true"),
        ("SELECT power(CAST(10000000000 AS DECIMAL(38, 0)), 2)", "100000000000000000000"),
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
async fn a_condition_that_is_unknown_lets_no_row_in() {
    hold(&[
        ("SELECT g, count(*) FILTER (WHERE v < 5) FROM (VALUES (1, CAST(NULL AS INT)), (1, 1)) x(g, v) GROUP BY g", "1|1"),
        ("SELECT count(*) FILTER (WHERE v < 5), sum(v) FILTER (WHERE v > 1) FROM (VALUES (NULL), (1), (2)) x(v)", "2|2"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_those_of_the_standard() {
    hold(&[
        (
            "SELECT ntile(7) OVER (ORDER BY x) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) v(x) ORDER BY x",
            "1 1 2 2 3 3 4 5 6 7",
        ),
        ("SELECT ntile(5) OVER (ORDER BY id) FROM few ORDER BY id", "1 2 3 4"),
        ("SELECT ntile(2) OVER (PARTITION BY id > 1 ORDER BY id) FROM few ORDER BY id", "1 1 1 2"),
        (
            "SELECT min(s) OVER (ORDER BY id ROWS 1 PRECEDING) IS NULL, avg(s) OVER (ORDER BY id ROWS 1 PRECEDING) IS NULL \
             FROM (VALUES (1, 7), (2, NULL), (3, NULL)) v(id, s) ORDER BY id",
            "false|false false|false true|true",
        ),
        (
            "SELECT sum(id) OVER (w ROWS 1 PRECEDING), sum(id) OVER p FROM few \
             WINDOW w AS (PARTITION BY id > 2 ORDER BY id), p AS (w ROWS UNBOUNDED PRECEDING) ORDER BY id",
            "1|1 3|3 3|3 7|7",
        ),
        (
            "SELECT min(id) OVER (ORDER BY id ROWS 1 PRECEDING), max(id) OVER w FROM few WINDOW w AS (ORDER BY id) ORDER BY 2",
            "1|1 1|2 2|3 3|4",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_slides_keeps_nothing_of_what_left_it() {
    let over = |call: &str, frame: &str, rows: &str| {
        format!("SELECT {call} OVER (ORDER BY i ROWS BETWEEN {frame}) FROM (VALUES {rows}) v(i, x) ORDER BY i")
    };
    let (two, large) = ("1 PRECEDING AND CURRENT ROW", "(1, 1e16), (2, 1e0), (3, 1e0), (4, 2e0)");
    let odd = "(1, CAST('inf' AS DOUBLE)), (2, CAST('NaN' AS DOUBLE)), (3, 2e0), (4, 4e0), (5, NULL), (6, NULL), (7, 1e0)";
    let exact = "(1, 1.5), (2, NULL), (3, NULL), (4, 2.5), (5, 3.5)";
    hold(&[
        (&over("sum(x)", two, large), "1e16 1e16 2.0 3.0"),
        (&over("sum(CAST(x AS REAL))", two, "(1, 1e8), (2, 1e0), (3, 1e0)"), "100000000.0 100000001.0 2.0"),
        (&over("mean(x)", two, large), "1e16 5000000000000000.0 1.0 1.5"),
        (&over("var_pop(x)", two, large), "0.0 2.5e31 0.0 0.25"),
        (
            &over("stddev(x)", "2 PRECEDING AND 1 PRECEDING", "(1, 1e16), (2, 1e0), (3, 3e0), (4, 9e0)"),
            "  7071067811865475.0 1.4142135623730951",
        ),
        (&over("sum(x)", two, odd), "inf NaN NaN 6.0 4.0  1.0"),
        (&over("avg(x)", two, odd), "inf NaN NaN 3.0 4.0  1.0"),
        (&over("var_samp(x)", two, odd), " NaN NaN 2.0   "),
        (&over("sum(x)", "CURRENT ROW AND UNBOUNDED FOLLOWING", large), "1.0000000000000002e16 4.0 3.0 2.0"),
        (&over("sum(x)", "3 FOLLOWING AND 4 FOLLOWING", large), "2.0   "),
        (&over("sum(x) FILTER (WHERE i <> 2)", two, large), "1e16 1e16 1.0 3.0"),
        (&over("avg(x)", "CURRENT ROW AND CURRENT ROW", exact), "1.50000   2.50000 3.50000"),
        (&over("avg(x)", two, exact), "1.50000 1.50000  2.50000 3.00000"),
        (&over("min(x)", two, exact), "1.5 1.5  2.5 2.5"),
        (&over("max(x)", two, exact), "1.5 1.5  2.5 3.5"),
        (&over("sum(DISTINCT i)", two, exact), "1 3 5 7 9"),
        (&over("sum(DISTINCT CAST(x AS BIGINT))", two, exact), "1 1  2 5"),
        (
            "SELECT avg(x), min(x), sum(x) FROM (VALUES (1, 1e16), (2, NULL), (3, 2e0)) v(i, x)",
            "5000000000000001.0|2.0|1.0000000000000002e16",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_whole_wherever_batches_end() {
    let counted = |size: i64| {
        format!(
            "SELECT bool_and(c = least({size}, 50000 - g * {size}) AND f = g * {size} AND e = f + c - 1), count(*) FROM (\
             SELECT id / {size} AS g, count(*) OVER w AS c, first_value(id) OVER w AS f, \
             last_value(id) OVER (w ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS e \
             FROM generate_series(0, 49999) v(id) WINDOW w AS (PARTITION BY id / {size}))"
        )
    };
    hold(&[
        (&counted(1), "true|50000"),
        (&counted(3000), "true|50000"),
        (&counted(8192), "true|50000"),
        (&counted(60000), "true|50000"),
        ("SELECT sum(x) OVER () FROM (SELECT id AS x FROM few WHERE id > 9)", ""),
        (
            "SELECT x, sum(id) OVER (PARTITION BY x), string_agg(id::text, ',') FILTER (WHERE id > 1) OVER (PARTITION BY x) \
             FROM (VALUES (1, 'b'), (2, 'a'), (3, 'b'), (4, NULL), (5, NULL)) v(id, x) ORDER BY id",
            "b|4|3 a|2|2 b|4|3 |9|4,5 |9|4,5",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_frames() {
    let over = |frame: &str| format!("SELECT sum(d) OVER (ORDER BY d RANGE BETWEEN {frame}) FROM few WHERE id < 4 ORDER BY d");
    hold(&[
        (&over("0.1 PRECEDING AND CURRENT ROW"), "9.00 10.25 20.60"),
        (&over("0.095 PRECEDING AND CURRENT ROW"), "9.00 10.25 10.35"),
        (&over("1000 PRECEDING AND 1 FOLLOWING"), "9.00 29.60 29.60"),
        ("SELECT array_agg(id) OVER (RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM few WHERE id < 3", "[1, 2] [1, 2]"),
        ("SELECT count(*) OVER (RANGE CURRENT ROW) FROM few WHERE id < 3", "2 2"),
        (
            "SELECT count(*) OVER (ORDER BY x RANGE BETWEEN 100 PRECEDING AND 100 FOLLOWING) \
             FROM (SELECT arrow_cast(v, 'Int16') AS x FROM (VALUES (30000), (32700), (32760)) t(v)) ORDER BY x",
            "1 2 2",
        ),
        (
            "SELECT sum(id) OVER (ORDER BY id ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING) \
             FROM few WHERE id < 3",
            "3 3",
        ),
        ("SELECT bit_xor(s) OVER (ORDER BY id ROWS CURRENT ROW) FROM (VALUES (1, 7), (2, NULL)) v(id, s) ORDER BY id", "7 "),
        (
            "SELECT array_agg(id) OVER (ORDER BY id), row_number() OVER (ORDER BY id DESC) FROM few WHERE id < 3 ORDER BY id",
            "[1]|2 [1, 2]|1",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlay_counts_characters() {
    hold(&[
        ("SELECT overlay('数据库' PLACING 'x' FROM 2), overlay('数据库' PLACING '一二' FROM 1 FOR 1)", "数x库|一二据库"),
        ("SELECT overlay('abcdef' PLACING 'XY' FROM 3 FOR 1), overlay('abc' PLACING 'Z' FROM 9)", "abXYdef|abcZ"),
        ("SELECT overlay('abc' PLACING '' FROM 2), overlay('abc' PLACING NULL FROM 2) IS NULL", "abc|true"),
        ("SELECT overlay('n' || id PLACING 'x' FROM 1) FROM few WHERE id < 3 ORDER BY id", "x1 x2"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_those_of_their_query() {
    hold(&[
        ("SELECT count(*) FROM few WHERE id = ANY (SELECT id FROM few WHERE id = 3)", "1"),
        ("SELECT count(*) FROM few WHERE id <> ALL ((SELECT id FROM few WHERE id = 3))", "3"),
        ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n * 2 FROM r WHERE n < 10) SELECT n FROM r ORDER BY n", "1 2 4 8 16"),
        ("WITH RECURSIVE r(n, m) AS (SELECT id AS x, 0 FROM few WHERE id = 1 UNION ALL SELECT n + 1, n FROM r WHERE n < 3) SELECT * FROM r ORDER BY n", "1|0 2|1 3|2"),
        ("SELECT a.id || '-' || b.name, 'x' || NULL IS NULL FROM few a JOIN other b ON b.id = a.id", "4-n4|true"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_optimizer_makes_otherwise_than_was_promised() {
    hold(&[
        ("SELECT sum(id) FILTER (WHERE x > 0.2), count(*) FILTER (WHERE x > 0.2) FROM few", "9|3"),
        ("SELECT id, (SELECT v FROM (SELECT 1 AS v) one WHERE v = id) FROM few WHERE id < 3 ORDER BY id", "1|1 2|"),
        ("SELECT id FROM few WHERE (SELECT v FROM (SELECT 1 AS v) one WHERE v = id) IS NULL ORDER BY id", "2 3 4"),
        ("SELECT (SELECT count(*) FROM few f WHERE f.id = few.id HAVING count(*) > 1) FROM few WHERE id = 1", ""),
        ("SELECT id, (SELECT count(*) FROM few f WHERE f.id = few.id + 2) AS c FROM few ORDER BY id", "1|1 2|1 3|0 4|0"),
        ("SELECT count(*) FROM few WHERE (SELECT count(*) FROM other WHERE other.id = few.id) IS NULL", "0"),
        ("SELECT v * 0 FROM (SELECT CAST(1.50 AS DECIMAL(5, 2)) AS v) one", "0.00"),
        ("SELECT range(date '2024-01-01', date '2024-01-03', NULL) IS NULL", "true"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_wrong_is_refused() {
    let fixture = fixture();
    for (statement, kind) in [
        ("SELECT id FROM few EXCEPT ALL SELECT 1", Kind::Unsupported),
        ("SELECT * FROM (SELECT 1 UNION ALL (SELECT 1 INTERSECT ALL SELECT 1))", Kind::Unsupported),
        ("SELECT id FROM few RIGHT JOIN other USING (id)", Kind::Unsupported),
        ("SELECT * FROM (few NATURAL FULL JOIN other)", Kind::Unsupported),
        ("SELECT count(*) FROM few WHERE id > ALL (SELECT id FROM other)", Kind::Unsupported),
        ("SELECT count(*) FROM few TABLESAMPLE (10)", Kind::Unsupported),
        ("SHOW FUNCTIONS", Kind::Unsupported),
        ("SELECT arrow_cast(NULL, 'FixedSizeList(1000000000, Int64)')", Kind::Exhausted),
        ("SELECT arrow_cast(NULL, 'FixedSizeBinary(-5)')", Kind::Invalid),
        ("SELECT CAST(NULL AS BIGINT[1000000000])", Kind::Exhausted),
        ("SELECT approx_percentile_cont(x, 0.5, 1000000000) FROM few", Kind::Exhausted),
        (
            "SELECT count(*) FROM few GROUP BY CUBE (id, x, y, d, t, id + 1, id + 2, id + 3, id + 4, id + 5, id + 6)",
            Kind::Exhausted,
        ),
        ("SELECT (SELECT 1 UNION ALL SELECT 2)", Kind::Invalid),
        ("SELECT overlay('a' PLACING 'b' FROM -5)", Kind::Invalid),
        ("SELECT array_resize([id], -1) FROM few", Kind::Invalid),
        ("SELECT range(date '2024-01-01', date '2024-01-03', INTERVAL '0' DAY)", Kind::Invalid),
        ("SELECT sum(id) OVER (ORDER BY id RANGE BETWEEN 1 FOLLOWING AND 2 FOLLOWING) FROM few", Kind::Unsupported),
        ("SELECT sum(id) OVER (ORDER BY id RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING) FROM few", Kind::Unsupported),
        ("SELECT string_agg('x', ',') OVER (ORDER BY id ROWS 1 PRECEDING) FROM few", Kind::Unsupported),
        ("SELECT sum(id) OVER (v ORDER BY id) FROM few WINDOW w AS (PARTITION BY x)", Kind::Invalid),
        ("SELECT sum(id) OVER (w PARTITION BY id) FROM few WINDOW w AS (PARTITION BY x)", Kind::Invalid),
        ("SELECT sum(id) FROM few WHERE id > (SELECT 1 UNION ALL SELECT 2)", Kind::Invalid),
    ] {
        assert_eq!(fixture.error(statement).await.kind(), kind, "{statement}");
    }
    assert_eq!(values(&fixture, "SELECT (SELECT 1 UNION ALL SELECT 2 LIMIT 1) > 0").await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_query_of_which_some_columns_are_asked_for() {
    const R: &str = "WITH RECURSIVE r AS (SELECT 1 AS n, 10 AS s UNION ALL SELECT n + 1, s + 5 FROM r WHERE n < 5) SELECT";
    hold(&[
        (&format!("{R} s FROM r"), "10 15 20 25 30"),
        (&format!("{R} count(*) FROM r"), "5"),
        (&format!("{R} max(r.s) - min(q.n) FROM r JOIN r AS q ON r.n = q.n"), "29"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_escaped_by_any_character() {
    hold(&[
        ("SELECT 'a%b' LIKE 'a/%b' ESCAPE '/', 'axb' LIKE 'a/%b' ESCAPE '/'", "true|false"),
        (r"SELECT 'a\b' LIKE 'a\b' ESCAPE '/', 'a/b' LIKE 'a//_' ESCAPE '/'", "true|true"),
        ("SELECT 'A_B' ILIKE 'a!_b' ESCAPE '!', 'a_b' NOT LIKE 'a!_b' ESCAPE '!'", "true|false"),
        ("SELECT 'x' LIKE CAST(NULL AS TEXT) ESCAPE '/'", ""),
    ])
    .await;
    let error = fixture().error("SELECT 'a' LIKE 'a/b' ESCAPE '/'").await;
    assert_eq!(error.kind(), Kind::Invalid);
    insta::assert_snapshot!(error, @"in the pattern 'a/b' the character '/' escapes neither %, _ nor itself; write it twice where it means itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_have_more_names() {
    hold(&[
        ("SELECT arrow_typeof(CAST('a' AS CLOB)) AS a, arrow_typeof(CAST('a' AS BLOB)) AS b", "Utf8|Binary"),
        ("SELECT arrow_typeof(CAST('2024-01-02 03:04:05' AS DATETIME))", "Timestamp(µs)"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_moment_has_the_precision_of_what_it_is_compared_with() {
    let moments =
        "(VALUES (1, CAST('0001-03-04 05:06:07' AS DATETIME)), (2, CAST('9999-12-31 23:59:59.5' AS DATETIME))) AS m (id, at)";
    hold(&[
        (&format!("SELECT id FROM {moments} WHERE at = '0001-03-04 05:06:07'"), "1"),
        (&format!("SELECT id FROM {moments} WHERE at > '2500-01-01' AND at IN ('9999-12-31 23:59:59.5', '2024-01-01')"), "2"),
        (&format!("SELECT id FROM {moments} WHERE '0001-01-01' < at AND at BETWEEN '0001-01-01' AND '0002-01-01'"), "1"),
        ("SELECT at = '2024-01-01 00:00:00.0000015' FROM (SELECT CAST('2024-01-01 00:00:00.000001' AS DATETIME) AS at)", "false"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cast_that_loses_digits_is_done_before_it_is_compared() {
    let moments = "(VALUES (1, TIMESTAMP '2024-01-01 00:00:01.5'), (2, TIMESTAMP '2024-01-01 00:00:02')) AS m (id, at)";
    hold(&[
        ("SELECT id FROM few WHERE CAST(d AS INT) = 10 ORDER BY id", "1 2"),
        ("SELECT id FROM few WHERE CAST(d AS DECIMAL(12, 1)) = 10.3", "1"),
        ("SELECT id FROM few WHERE CAST(d AS DECIMAL(12, 0)) IN (10, 11) ORDER BY id", "1 2"),
        ("SELECT id FROM few WHERE TRY_CAST(d AS BIGINT) BETWEEN 10 AND 10 ORDER BY id", "1 2"),
        ("SELECT id FROM few WHERE CAST(d AS INT) < 10", "3"),
        ("SELECT id FROM few WHERE CASE CAST(d AS INT) WHEN 10 THEN true END ORDER BY id", "1 2"),
        (&format!("SELECT id FROM {moments} WHERE CAST(at AS TIMESTAMP(0)) = '2024-01-01 00:00:01'"), "1"),
        (&format!("SELECT id FROM {moments} WHERE arrow_cast(at, 'Timestamp(s)') = TIMESTAMP '2024-01-01 00:00:01'"), "1"),
        (&format!("SELECT id FROM {moments} WHERE CAST(at AS TIMESTAMP(0)) < CAST('2024-01-01 00:00:02' AS TIMESTAMP(0))"), "1"),
    ])
    .await;
}
