//! Texts of statements that DataFusion plans over two tables.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::prelude::{SessionConfig, SessionContext};
use nexus_flight_catalog::Kind;

use super::*;

fn tables() -> SessionContext {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let context = SessionContext::new_with_config(config);
    let columns = [
        ("id", DataType::Int64),
        ("n", DataType::Int32),
        ("price", DataType::Decimal128(12, 2)),
        ("x", DataType::Float64),
        ("s", DataType::Utf8),
        ("d", DataType::Date32),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("list", DataType::new_list(DataType::Int64, true)),
    ];
    for (name, columns) in [("t", columns.as_slice()), ("u", &columns[..5])] {
        let fields: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
        let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))));
        context.register_table(name, table).unwrap();
    }
    context
}

fn there(reference: &TableReference) -> Result<TableName> {
    match reference.table() {
        "u" | "t" => Ok(TableName::new("lake", "main", reference.table())),
        other => Err(refused(format_args!("the table {other}"))),
    }
}

async fn translated(sql: &str) -> Result<String> {
    let context = tables();
    let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
    let state = context.state();
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).unwrap();
    translate(&plan, &there)
}

#[tokio::test]
async fn what_is_planned_one_on_the_other_is_one_select() {
    insta::assert_snapshot!(
        translated("SELECT id, s FROM t WHERE n > 1 AND s LIKE 'a%' ORDER BY id LIMIT 3").await.unwrap(),
        @r#"SELECT t1."id" AS "id", t1."s" AS "s" FROM "lake"."main"."t" AS t1 WHERE (CAST(t1."n" AS bigint) > BIGINT '1') AND (t1."s" LIKE 'a%') ORDER BY t1."id" ASC NULLS LAST LIMIT 3"#
    );
    insta::assert_snapshot!(
        translated("SELECT s, count(*) AS c FROM t GROUP BY s ORDER BY c DESC").await.unwrap(),
        @r#"SELECT s2.c1 AS "s", s2.c2 AS "c" FROM (SELECT t1."s" AS c1, count(*) AS c2 FROM "lake"."main"."t" AS t1 GROUP BY t1."s") AS s2 ORDER BY s2.c2 DESC NULLS FIRST"#
    );
    insta::assert_snapshot!(
        translated("SELECT a.id, b.s FROM t a JOIN u b ON a.id = b.id, u c WHERE c.id = a.id").await.unwrap(),
        @r#"SELECT t1."id" AS "id", t2."s" AS "s" FROM "lake"."main"."t" AS t1 JOIN "lake"."main"."u" AS t2 ON (t1."id" = t2."id") CROSS JOIN "lake"."main"."u" AS t3 WHERE (t3."id" = t1."id")"#
    );
}

#[tokio::test]
async fn columns_of_one_name_are_not_taken_for_one_another() {
    insta::assert_snapshot!(
        translated("SELECT * FROM (SELECT id FROM u WHERE n = 1) a JOIN (SELECT id FROM u) b ON a.id < b.id").await.unwrap(),
        @r#"SELECT s3.c1 AS "id", t2."id" AS "id" FROM (SELECT t1."id" AS c1 FROM "lake"."main"."u" AS t1 WHERE (CAST(t1."n" AS bigint) = BIGINT '1')) AS s3 JOIN "lake"."main"."u" AS t2 ON (s3.c1 < t2."id")"#
    );
}

#[tokio::test]
async fn subqueries_name_what_is_around_them() {
    insta::assert_snapshot!(
        translated("SELECT id FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.id = u.id) AND id NOT IN (SELECT id FROM t)").await.unwrap(),
        @r#"SELECT t1."id" AS "id" FROM "lake"."main"."u" AS t1 WHERE (EXISTS (SELECT 1 FROM "lake"."main"."t" AS t2 WHERE (t2."id" = t1."id"))) AND (t1."id" NOT IN (SELECT t3."id" FROM "lake"."main"."t" AS t3))"#
    );
    let sql = translated("SELECT id FROM u WHERE price > (SELECT max(price) FROM t WHERE t.id = u.id)").await.unwrap();
    assert!(sql.ends_with(r#" > (SELECT max(t2."price") FROM "lake"."main"."t" AS t2 WHERE (t2."id" = t1."id")))"#), "{sql}");
}

#[tokio::test]
async fn sets_are_sets() {
    insta::assert_snapshot!(
        translated("SELECT id FROM t INTERSECT SELECT id FROM u").await.unwrap(),
        @r#"SELECT s3.c1 AS "id" FROM ((SELECT DISTINCT t1."id" AS c1 FROM "lake"."main"."t" AS t1) INTERSECT (SELECT t2."id" AS c1 FROM "lake"."main"."u" AS t2)) AS s3"#
    );
    insta::assert_snapshot!(
        translated("SELECT id FROM t UNION ALL SELECT n FROM u").await.unwrap(),
        @r#"SELECT s3.c1 AS "id" FROM ((SELECT t1."id" AS c1 FROM "lake"."main"."t" AS t1) UNION ALL (SELECT CAST(t2."n" AS bigint) AS c1 FROM "lake"."main"."u" AS t2)) AS s3"#
    );
}

#[tokio::test]
async fn what_differs_is_written_so_that_it_is_the_same() {
    for (expression, part) in [
        ("d + interval '3' month", r#"(t1."d" + INTERVAL '3' MONTH)"#),
        ("d - interval '90' day", r#"(t1."d" - INTERVAL '90' DAY)"#),
        ("extract(year from d)", r#"CAST(extract(year FROM t1."d") AS integer)"#),
        ("extract(dow from d)", r#"CAST((extract(dow FROM t1."d") % 7) AS integer)"#),
        ("date_trunc('month', at)", r#"date_trunc('month', t1."at")"#),
        ("cast(x AS bigint)", r#"CAST(truncate(t1."x") AS bigint)"#),
        ("x > CAST(1.5 AS double)", r#"((t1."x" > DOUBLE '1.5e0') OR is_nan(t1."x"))"#),
        ("substr(s, 2, 3)", r#"substr(t1."s", BIGINT '2', BIGINT '3')"#),
        ("btrim(s)", r#"trim(BOTH ' ' FROM t1."s")"#),
        ("concat(s, 'a')", r#"(coalesce(t1."s", '') || coalesce('a', ''))"#),
        ("(s IS NOT NULL) IS TRUE", r#"((t1."s" IS NOT NULL) IS NOT DISTINCT FROM TRUE)"#),
        ("s LIKE '50\\%'", r#"(t1."s" LIKE '50\%' ESCAPE '\')"#),
        ("CASE WHEN n = 1 THEN s END", r#" THEN t1."s" END"#),
        ("round(price, 1)", r#"CAST(round(t1."price", 1) AS decimal("#),
        ("list IS NULL", r#"(t1."list" IS NULL)"#),
        ("list", r#"t1."list" AS"#),
    ] {
        let sql = translated(&format!("SELECT {expression} AS e FROM t")).await.unwrap();
        assert!(sql.contains(part), "{expression}: {sql}");
    }
    for (call, part) in [
        ("avg(price)", r#"CAST(((sum(t1."price") - (sum(t1."price") % (CAST(nullif(count(t1."price"), 0) AS decimal(19, 0)) * "#),
        ("avg(n)", r#"avg(CAST(t1."n" AS double))"#),
        ("sum(n)", r#"sum(CAST(t1."n" AS bigint))"#),
        ("count(*)", "count(*)"),
        ("count(DISTINCT s)", r#"count(DISTINCT t1."s")"#),
        ("max(x)", r#"CASE WHEN count_if(is_nan(t1."x")) > 0 THEN nan() ELSE max(t1."x") END"#),
        ("min(s) FILTER (WHERE n IS NULL)", r#"min(t1."s") FILTER (WHERE (t1."n" IS NULL))"#),
        ("rank() OVER (PARTITION BY s ORDER BY n DESC)", r#"rank() OVER (PARTITION BY t1."s" ORDER BY t1."n" DESC NULLS FIRST)"#),
        (
            "sum(id) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
            r#"sum(t1."id") OVER (ORDER BY t1."n" ASC NULLS LAST ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"#,
        ),
    ] {
        let sql = translated(&format!("SELECT {call} AS e FROM t")).await.unwrap();
        assert!(sql.contains(part), "{call}: {sql}");
    }
    let sql = translated("SELECT a.id FROM t a FULL JOIN u b ON a.id = b.id AND b.s = a.s").await.unwrap();
    assert!(sql.contains(" FULL JOIN "), "{sql}");
    let sql = translated("SELECT s, n, grouping(s) AS g, sum(id) FROM t GROUP BY ROLLUP (s, n)").await.unwrap();
    assert!(sql.contains(r#"CAST(grouping(t1."s", t1."n") AS bigint)"#), "{sql}");
    assert!(sql.contains(r#"GROUP BY ROLLUP (t1."s", t1."n")"#), "{sql}");
}

#[tokio::test]
async fn what_is_not_known_to_be_the_same_is_refused_by_its_name() {
    for (statement, construct) in [
        ("SELECT upper(s) FROM t", "the function upper"),
        ("SELECT cast(s AS bigint) FROM t", "a cast from Utf8 to Int64"),
        ("SELECT cast(x AS varchar) FROM t", "a cast from Float64 to Utf8"),
        ("SELECT s FROM t WHERE s ILIKE 'a'", "ILIKE"),
        ("SELECT s FROM t WHERE s ~ 'a'", "the operator ~"),
        ("SELECT a.id FROM t a JOIN t b ON a.x = b.x", "a comparison of two numbers of floating point"),
        ("SELECT x, count(*) FROM t GROUP BY x", "GROUP BY of a value of the type Float64"),
        ("SELECT DISTINCT x FROM t", "DISTINCT of a value of the type Float64"),
        ("SELECT DISTINCT ON (n) n, s FROM t ORDER BY n", "DISTINCT ON"),
        ("SELECT array_agg(s) FROM t", "the function array_agg"),
        ("SELECT median(x) FROM t", "the function median"),
        ("SELECT id FROM t WHERE random() > 0.5", "the function random"),
        ("SELECT unnest(list) FROM t", "UNNEST"),
        ("WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT * FROM r", "WITH RECURSIVE"),
        ("SELECT a.id FROM t a FULL JOIN t b ON a.id < b.id", "FULL JOIN by more than equal columns"),
        ("SELECT sum(id) OVER (ORDER BY n RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t", "a RANGE of distances"),
        ("SELECT substr(s, -1) FROM t", "the function substr"),
    ] {
        let error = translated(statement).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{statement}");
        let named = format!("cannot translate {construct}");
        assert!(error.message().starts_with(&named), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_named() {
    let context = tables();
    let table = context.table_provider("t").await.unwrap();
    context.register_table("elsewhere", table).unwrap();
    let plan = context.sql("SELECT * FROM t, elsewhere").await.unwrap().into_unoptimized_plan();
    let error = translate(&plan, &there).unwrap_err();
    assert!(error.message().starts_with("cannot translate the table elsewhere"), "{error}");
}

#[test]
fn what_is_nested_too_deep_or_grows_too_long_is_refused() {
    let rows = || LogicalPlanBuilder::values(vec![vec![lit(1_i64)]]).unwrap();
    let deep = (0..DEPTH * 2).fold(col("column1"), |expr, _| expr.is_null().is_not_true());
    let plan = rows().project([deep.alias("e")]).unwrap().build().unwrap();
    let error = translate(&plan, &there).unwrap_err();
    assert!(error.message().contains("nested more than"), "{error}");
    // Each quotient has its dividend twice and its divisor three times.
    let exact = ScalarValue::Decimal128(Some(1), 4, 1);
    let long = (0..30).fold(lit(exact.clone()), |expr, _| lit(exact.clone()) / expr);
    let plan = rows().project([long.alias("e")]).unwrap().build().unwrap();
    let error = translate(&plan, &there).unwrap_err();
    assert!(error.message().contains("letters") || error.message().contains("a quotient"), "{error}");
}

#[test]
fn a_value_of_nothing_has_a_type() {
    let plan = LogicalPlanBuilder::empty(true).project([lit(ScalarValue::Int32(None)).alias("a")]).unwrap().build().unwrap();
    assert_eq!(translate(&plan, &there).unwrap(), r#"SELECT CAST(NULL AS integer) AS "a""#);
    let schema = DFSchema::try_from(Schema::new(vec![Field::new("a", DataType::Utf8, true)])).unwrap();
    let plan =
        LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation { produce_one_row: false, schema: Arc::new(schema) });
    assert_eq!(translate(&plan, &there).unwrap(), r#"SELECT CAST(NULL AS varchar) AS "a" WHERE FALSE"#);
}

#[tokio::test]
async fn a_total_of_which_nothing_is_used_is_one_row() {
    insta::assert_snapshot!(
        translated("WITH s AS (SELECT 1 AS k, sum(price) AS total FROM t) SELECT k FROM s").await.unwrap(),
        @r#"SELECT s2.c1 AS "k" FROM (SELECT BIGINT '1' AS c1, sum(t1."price") AS c2 FROM "lake"."main"."t" AS t1) AS s2"#
    );
    let sql = translated("SELECT 'x' AS a FROM (SELECT count(*) AS c FROM t) q").await.unwrap();
    assert!(sql.contains("count("), "{sql}");
    let sql = translated("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM (SELECT count(*) AS c FROM u) q)").await.unwrap();
    assert!(sql.contains("count("), "{sql}");
}

#[tokio::test]
async fn two_names_of_one_column_are_two_in_grouping_sets() {
    let sql = "SELECT a, b, count(*) AS c FROM (SELECT s AS a, s AS b FROM t) q GROUP BY ROLLUP (a, b)";
    let sql = translated(sql).await.unwrap();
    assert!(!sql.contains(r#"ROLLUP (t1."s", t1."s")"#), "{sql}");
}

#[tokio::test]
async fn what_is_written_over_and_over_is_refused_at_once() {
    let nested =
        |depth: usize, around: [&str; 2]| format!("SELECT {}id{} AS a FROM t", around[0].repeat(depth), around[1].repeat(depth));
    assert!(translated(&nested(40, ["nullif(", ", 2)"])).await.is_ok());
    assert!(translated(&nested(20, ["((", " IN (1, 2, 3, 4, 5)) IS TRUE)::bigint"])).await.is_ok());
    // A divisor is written twice.
    let quotient = format!("{}price{}", "1.0 / (".repeat(11), ")".repeat(11));
    assert!(translated(&format!("SELECT {quotient} AS a FROM t")).await.is_ok());
    let columns: Vec<String> = (0..200).map(|number| format!("{quotient} AS a{number}")).collect();
    let error = translated(&format!("SELECT {} FROM t", columns.join(", "))).await.unwrap_err();
    assert_eq!(error.message(), "cannot translate what has to be written so many times over for trino");
}

#[tokio::test]
async fn names_that_parts_of_the_text_have_are_no_columns() {
    let error = translated("SELECT id AS t1 FROM t ORDER BY s").await.unwrap_err();
    assert_eq!(error.message(), "cannot translate a column that is called \"t1\" for trino");
    assert!(translated("SELECT id AS t1a FROM t").await.is_ok());
}
