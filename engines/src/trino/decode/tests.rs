//! What JSON becomes, and what is refused.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalYearMonthType, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use nexus_flight_catalog::Kind;
use proptest::prelude::*;

use super::*;
use crate::trino::client::Named;
use crate::trino::client::tests::room;
use crate::trino::types::schema;

fn decoder(types: &[&str]) -> Decoder {
    let named = |(at, type_name): (usize, &&str)| Named { name: format!("c{at}"), type_name: (*type_name).to_owned() };
    let columns: Vec<Named> = types.iter().enumerate().map(named).collect();
    let (types, schema) = schema(&columns).unwrap();
    Decoder::new(types, schema)
}

/// The one batch of rows.
fn batch_of(types: &[&str], json: &str) -> RecordBatch {
    let mut batches = decoder(types).decode(json.as_bytes(), 1_000_000, &room()).unwrap();
    assert_eq!(batches.len(), 1, "{json}");
    batches.remove(0)
}

/// Values of one column, as Arrow shows them, with bars between them.
fn shown(type_name: &str, json: &str) -> String {
    let batch = batch_of(&[type_name], json);
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(batch.column(0).as_ref(), &options).unwrap();
    (0..batch.num_rows()).map(|row| formatter.value(row).to_string()).collect::<Vec<_>>().join(" | ")
}

fn fault(types: &[&str], json: &str) -> Error {
    decoder(types).decode(json.as_bytes(), 2, &room()).unwrap_err()
}

#[test]
fn scalars_are_read() {
    for (type_name, json, wanted) in [
        ("boolean", "[[true],[false],[null]]", "true | false | NULL"),
        ("tinyint", "[[-128],[127],[null]]", "-128 | 127 | NULL"),
        ("smallint", "[[-32768],[32767]]", "-32768 | 32767"),
        ("integer", "[[-2147483648],[2147483647]]", "-2147483648 | 2147483647"),
        ("bigint", "[[-9223372036854775808],[9223372036854775807],[0]]", "-9223372036854775808 | 9223372036854775807 | 0"),
        ("decimal(5,2)", r#"[["1.20"],["-999.99"],[null]]"#, "1.20 | -999.99 | NULL"),
        ("varchar(9)", r#"[["a"],[""],[null],["\u00e9\n\"\\"],["é"]]"#, "a |  | NULL | é\n\"\\ | é"),
        ("char(3)", r#"[["a  "]]"#, "a  "),
        ("varbinary", r#"[["AP8="],[""],[null]]"#, "00ff |  | NULL"),
        ("HyperLogLog", r#"[["AP8="]]"#, "00ff"),
        ("date", r#"[["2020-01-31"],["-0001-12-31"],[null]]"#, "2020-01-31 | -0001-12-31 | NULL"),
        ("time(3)", r#"[["01:02:03.004"]]"#, "01:02:03.004"),
        ("time(9)", r#"[["01:02:03.000000004"]]"#, "01:02:03.000000004"),
        ("time(12)", r#"[["01:02:03.000000000004"]]"#, "01:02:03.000000000004"),
        ("timestamp(0)", r#"[["2020-01-31 12:34:56"]]"#, "2020-01-31T12:34:56"),
        ("timestamp(6)", r#"[["2020-01-31 12:34:56.789012"],[null]]"#, "2020-01-31T12:34:56.789012 | NULL"),
        ("timestamp(12)", r#"[["2020-01-31 12:34:56.789012345678"]]"#, "2020-01-31 12:34:56.789012345678"),
        ("timestamp(3) with time zone", r#"[["2020-01-31 07:00:00.000 America/New_York"]]"#, "2020-01-31T12:00:00Z"),
        ("uuid", r#"[["12151fd2-7586-11e9-8f9e-2a86e4085a59"]]"#, "12151fd2-7586-11e9-8f9e-2a86e4085a59"),
        ("json", r#"[["{\"a\": [1]}"],["null"],[null],["\"\""]]"#, "{\"a\": [1]} | null | NULL | \"\""),
        ("time(3) with time zone", r#"[["01:02:03.004 +02:00"]]"#, "01:02:03.004 +02:00"),
        ("Geometry", r#"[["POINT (1 2)"],[12.50],[[1, 2]],[{"a":null}]]"#, "POINT (1 2) | 12.50 | [1, 2] | {\"a\":null}"),
    ] {
        assert_eq!(shown(type_name, json), wanted, "{type_name}");
    }
}

#[test]
fn floats_are_the_nearest_ones() {
    let batch = batch_of(
        &["real", "double"],
        r#"[[1.1,1.1],["NaN","NaN"],["Infinity","-Infinity"],[3.4028235E38,1.7976931348623157E308],[-0.0,5E-324],[null,null],
            [16777217,9007199254740993.0]]"#,
    );
    let (real, double) = (batch.column(0).as_primitive::<Float32Type>(), batch.column(1).as_primitive::<Float64Type>());
    assert_eq!((real.value(0), double.value(0)), (1.1, 1.1));
    assert!(real.value(1).is_nan() && double.value(1).is_nan());
    assert_eq!((real.value(2), double.value(2)), (f32::INFINITY, f64::NEG_INFINITY));
    assert_eq!((real.value(3), double.value(3)), (f32::MAX, f64::MAX));
    assert_eq!((real.value(4).to_bits(), double.value(4).to_bits()), (1 << 31, 1));
    assert!(real.is_null(5) && double.is_null(5));
    assert_eq!((real.value(6), double.value(6)), (16_777_216.0, 9_007_199_254_740_992.0));
}

#[test]
fn intervals_and_far_times_are_read() {
    let batch = batch_of(
        &["interval year to month", "interval day to second", "timestamp(9)", "timestamp(6) with time zone", "unknown"],
        r#"[["-1-11","2 03:04:05.321","1677-09-21 00:12:43.145224192","9999-12-31 23:59:59.999999 UTC",null],
            [null,null,null,null,null]]"#,
    );
    assert_eq!(batch.column(0).as_primitive::<IntervalYearMonthType>().value(0), -23);
    let wanted = IntervalMonthDayNano::new(0, 2, 11_045_321_000_000);
    assert_eq!(batch.column(1).as_primitive::<IntervalMonthDayNanoType>().value(0), wanted);
    assert_eq!(batch.column(2).as_primitive::<TimestampNanosecondType>().value(0), i64::MIN);
    assert_eq!(batch.column(3).as_primitive::<TimestampMicrosecondType>().value(0), 253_402_300_799_999_999);
    assert_eq!(batch.column(4).data_type(), &DataType::Null);
    for column in batch.columns() {
        assert!(column.logical_nulls().unwrap().is_null(1));
    }
}

#[test]
fn nested_values_are_read() {
    for (type_name, json, wanted) in [
        ("array(bigint)", "[[[1,null,3]],[[]],[null],[[4]]]", "[1, NULL, 3] | [] | NULL | [4]"),
        ("array(array(varchar))", r#"[[[["a"],null,[]]],[null]]"#, "[[a], NULL, []] | NULL"),
        (
            "row(a bigint, b array(varchar))",
            r#"[[[1,["x"]]],[null],[[null,null]],[[2,[]]]]"#,
            "{a: 1, b: [x]} | NULL | {a: NULL, b: NULL} | {a: 2, b: []}",
        ),
        (
            "row(bigint, row(x date))",
            r#"[[[1,["2020-01-31"]]],[[2,null]],[null]]"#,
            "{field0: 1, field1: {x: 2020-01-31}} | {field0: 2, field1: NULL} | NULL",
        ),
        ("map(varchar, double)", r#"[[{"a":1.5,"b":null}],[{}],[null],[{"":2.5}]]"#, "{a: 1.5, b: NULL} | {} | NULL | {: 2.5}"),
        ("map(boolean,bigint)", r#"[[{"true":1,"false":2}]]"#, "{true: 1, false: 2}"),
        ("map(bigint,bigint)", r#"[[{"-7":1}]]"#, "{-7: 1}"),
        ("map(double,bigint)", r#"[[{"1.5E2":1}],[{"Infinity":1}]]"#, "{150.0: 1} | {inf: 1}"),
        ("map(decimal(3,1),bigint)", r#"[[{"1.5":1}]]"#, "{1.5: 1}"),
        (
            "map(date,row(x bigint))",
            r#"[[{"2020-01-31":[1]}],[{"2020-02-01":null}]]"#,
            "{2020-01-31: {x: 1}} | {2020-02-01: NULL}",
        ),
        ("map(uuid,boolean)", r#"[[{"a\"b":true}]]"#, "{a\"b: true}"),
        ("map(unknown,unknown)", "[[{}],[null]]", "{} | NULL"),
        ("map(array(bigint),bigint)", r#"[[{"[1, 2]":3}]]"#, "{[1, 2]: 3}"),
    ] {
        assert_eq!(shown(type_name, json), wanted, "{type_name}");
    }
}

#[test]
fn rows_that_are_null_have_children_as_long() {
    let batch = batch_of(
        &["row(a bigint, b row(c array(bigint), d map(varchar,bigint), e unknown), f decimal(3,1))"],
        r#"[[null],[[1,null,"1.5"]],[null],[[2,[[5],{"k":6},null],null]]]"#,
    );
    let row = batch.column(0).as_struct();
    let inner = row.column(1).as_struct();
    assert_eq!((row.null_count(), inner.null_count()), (2, 3));
    for child in row.columns().iter().chain(inner.columns()) {
        assert_eq!(child.len(), 4);
    }
    assert_eq!(row.column(0).as_primitive::<Int64Type>().value(3), 2);
    assert_eq!(inner.column(0).as_list::<i32>().value(3).as_primitive::<Int64Type>().value(0), 5);
    assert_eq!(inner.column(1).as_map().value(3).column(1).as_primitive::<Int64Type>().value(0), 6);
}

#[test]
fn batches_have_the_rows_they_may() {
    let decoder = decoder(&["bigint", "varchar"]);
    let json = br#" [ [1, "a"], [2, "b"] , [3, null],[4,"d"],[5,"e"] ] "#;
    let rows = |most| decoder.decode(json, most, &room()).unwrap().iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
    assert_eq!(rows(2), [2, 2, 1]);
    assert_eq!(rows(5), [5]);
    assert_eq!(rows(1), [1; 5]);
    let batches = decoder.decode(json, 2, &room()).unwrap();
    assert_eq!(batches[1].column(0).as_primitive::<Int64Type>().values()[..], [3, 4]);
    assert!(batches[1].column(1).is_null(0));
    assert!(decoder.decode(b"[]", 2, &room()).unwrap().is_empty());
    let none = Decoder::new(Vec::new(), Arc::new(arrow::datatypes::Schema::empty()));
    assert_eq!(none.decode(b"[[],[],[]]", 2, &room()).unwrap().iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn what_is_not_of_its_type_is_refused() {
    for (type_name, value, what) in [
        ("bigint", "\"1\"", "a text, which is not of its type"),
        ("bigint", "1.0", "a value out of the range of its type"),
        ("bigint", "9223372036854775808", "a value out of the range of its type"),
        ("bigint", "true", "a truth value, which is not of its type"),
        ("bigint", "[1]", "an array, which is not of its type"),
        ("bigint", "{}", "an object, which is not of its type"),
        ("tinyint", "128", "a value out of the range of its type"),
        ("smallint", "-32769", "a value out of the range of its type"),
        ("integer", "2147483648", "a value out of the range of its type"),
        ("boolean", "0", "a number, which is not of its type"),
        ("varchar", "1", "a number, which is not of its type"),
        ("varchar", "1.5", "a number, which is not of its type"),
        ("real", "1e39", "a value out of the range of its type"),
        ("double", "1e309", "a value out of the range of its type"),
        ("double", "\"1.5\"", "a text, which is not of its type"),
        ("double", "{\"a\":1}", "an object, which is not of its type"),
        ("decimal(3,1)", "1.5", "a number, which is not of its type"),
        ("decimal(3,1)", "\"100.0\"", "a value out of the range of its type"),
        ("varbinary", "\"AP8\"", "a text that is not base64"),
        ("date", "\"2021-02-29\"", "a value out of the range of its type"),
        ("timestamp(3)", "\"yesterday\"", "a value in a form that is not known"),
        ("unknown", "1", "a number, which is not of its type"),
        ("row(a bigint, b bigint)", "[1]", "a row with fewer fields than its type has"),
        ("row(a bigint, b bigint)", "[1,2,3]", "a row with more fields than its type has"),
        ("array(row(a array(tinyint)))", "[null,[[1,128]]]", "a value out of the range of its type"),
        ("map(bigint,bigint)", "{\"x\":1}", "a text, which is not of its type"),
        ("map(bigint,bigint)", "[1]", "an array, which is not of its type"),
        ("map(date,bigint)", "{\"today\":1}", "a value in a form that is not known"),
    ] {
        let json = format!("[[1,null],[2,null],[3,null],[4,{value}],[5,null]]");
        let error = fault(&["bigint", type_name], &json);
        assert_eq!(error.kind(), Kind::Data, "{type_name} {value}");
        assert_eq!(error.message(), format!("trino: the column \"c1\" holds {what}, in row 4 of a page"), "{type_name} {value}");
    }
    let error = fault(&["timestamp(9)"], r#"[["0001-01-01 00:00:00.000000000"]]"#);
    assert_eq!(error.hint(), Some("cast the column to timestamp(6)"));
}

#[test]
fn rows_of_another_shape_are_refused() {
    for (json, message) in [
        ("[[1]]", "trino: the column \"c1\" holds no value, in row 1 of a page"),
        ("[[1,2],[]]", "trino: the column \"c0\" holds no value, in row 2 of a page"),
        ("[[1,2],[1,2],[1,2,\"secret\"]]", "trino: row 3 of a page has more values than there are columns"),
        ("[\"secret\"]", "trino: row 1 of a page is not an array of values"),
        ("[[1,2],null]", "trino: row 2 of a page is not an array of values"),
        ("{\"secret\":1}", "trino: row 1 of a page is not an array of values"),
    ] {
        let error = fault(&["bigint", "bigint"], json);
        assert_eq!((error.kind(), error.message()), (Kind::Data, message), "{json}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    for json in ["", "[", "[[1,2]", "[[1,2]] x", "[[1,]]", "[[1 2]]", "[[01,2]]", "[[1,\"\\ud800\"]]", "[[1,nul]]"] {
        let error = fault(&["bigint", "bigint"], json);
        assert_eq!(error.kind(), Kind::Data, "{json}");
        assert!(error.message().starts_with("trino: a page of rows is not JSON"), "{json}: {error}");
    }
    let error = decoder(&["varchar"]).decode(b"[[\"\xff\"]]", 2, &room()).unwrap_err();
    assert_eq!((error.message(), error.hint()), ("trino: a page of rows is not UTF-8", Some(NOT_UTF8)));
}

#[test]
fn wide_rows_take_no_room_beforehand_and_a_bounded_one_for_nulls() {
    let wide = |type_name| format!("row({})", vec![type_name; 9_000].join(","));
    let batches = decoder(&[wide("bigint").as_str()]).decode(b"[[null],[null]]", 1, &room()).unwrap();
    assert_eq!(batches.len(), 2);
    let size = batches[0].get_array_memory_size();
    assert!(size < 9_000 * 400, "{size}");

    let json = format!("[{}]", vec!["[null]"; SPARE / 9_000 + 1].join(","));
    let error = decoder(&[wide("unknown").as_str()]).decode(json.as_bytes(), 1_000_000, &room()).unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, false));
}

#[test]
fn what_is_made_is_paid_for_while_it_is_made() {
    let room_of = |bytes: usize| {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        MemoryConsumer::new("rows").register(&pool)
    };
    // Seven letters become sixteen bytes.
    let json = format!("[{}]", vec!["[null]"; 100_000].join(","));
    let decoder = decoder(&["decimal(38,0)"]);
    let room = room_of(16 << 20);
    let batches = decoder.decode(json.as_bytes(), 1_000, &room).unwrap();
    let made: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    assert!(made >= 1_600_000 && room.size() == made, "{made} {}", room.size());
    let error = decoder.decode(json.as_bytes(), 1_000, &room_of(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    // Also where one batch has all of them.
    let error = decoder.decode(json.as_bytes(), 1_000_000, &room_of(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
}

#[test]
fn keys_of_maps_are_read_as_their_type() {
    let batch = batch_of(&["map(tinyint,real)"], r#"[[{"1":0.1,"-2":"NaN"}]]"#);
    let entries = batch.column(0).as_map().value(0);
    assert_eq!(entries.column(0).as_primitive::<Int8Type>().values()[..], [1, -2]);
    assert_eq!(entries.column(1).as_primitive::<Float32Type>().value(0), 0.1);
}

fn row() -> impl Strategy<Value = (Option<i64>, Option<String>, f64, Vec<Option<i8>>)> {
    (any::<Option<i64>>(), any::<Option<String>>(), prop::num::f64::NORMAL, prop::collection::vec(any::<Option<i8>>(), 0..4))
}

proptest! {
    /// What serde_json writes of the values comes back as they were, whatever batches they come in.
    #[test]
    fn values_come_back(
        rows in prop::collection::vec(row(), 0..40),
        most in 1_usize..50,
    ) {
        let json = serde_json::to_vec(&rows).unwrap();
        let decoder = decoder(&["bigint", "varchar", "double", "array(tinyint)"]);
        let mut at = 0;
        for batch in decoder.decode(&json, most, &room()).unwrap() {
            prop_assert!(batch.num_rows() <= most);
            let whole = batch.column(0).as_primitive::<Int64Type>();
            let text = batch.column(1).as_string::<i32>();
            let double = batch.column(2).as_primitive::<Float64Type>();
            let list = batch.column(3).as_list::<i32>();
            for row in 0..batch.num_rows() {
                let wanted = &rows[at];
                prop_assert_eq!(whole.is_valid(row).then(|| whole.value(row)), wanted.0);
                prop_assert_eq!(text.is_valid(row).then(|| text.value(row)), wanted.1.as_deref());
                prop_assert_eq!(double.value(row).to_bits(), wanted.2.to_bits());
                let values: Vec<Option<i8>> = list.value(row).as_primitive::<Int8Type>().iter().collect();
                prop_assert_eq!(&values, &wanted.3);
                at += 1;
            }
        }
        prop_assert_eq!(at, rows.len());
    }
}
