//! Restricted tables against copies of what they show, over rows in memory and in files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use nexus_flight_catalog::policy::{Action, RuleText};
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::{Error, Keys, Options};
use nexus_sources::memory::MemorySource;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::{Dice, Governed, set};

/// x, y and z, and w and v, which are never seen.
type Row = (Option<i64>, Option<&'static str>, Option<i64>, Option<&'static str>, Option<&'static str>);

/// The rows that are seen of each table.
const SEEN: [Row; 3] = [
    (Some(1), Some("one"), Some(10), Some("cid"), Some("7")),
    (Some(4), Some("four"), None, Some("cid"), Some("7")),
    (Some(5), Some("5"), Some(50), Some("cid"), Some("7")),
];

/// Those that no policy shows, of two tables which differ in nothing else. Masks fail on them.
const HIDDEN: [[Row; 3]; 2] = [
    [
        (Some(2), Some("two"), Some(20), Some("ann"), Some("secret")),
        (Some(2), None, Some(0), None, None),
        (Some(2), Some("7"), Some(1), Some("bob"), Some("")),
    ],
    [
        (Some(2), Some("7"), Some(i64::MAX), Some("dan"), Some("x")),
        (None, Some(""), Some(0), Some(""), Some("-")),
        (Some(2), Some("three"), Some(-1), Some("eve"), Some("1e3")),
    ],
];

/// What a policy shows of a table.
struct View {
    filter: &'static str,
    masks: &'static [(&'static str, &'static str)],
    /// The rows as they are seen.
    seen: [Row; 3],
}

const VIEWS: [View; 6] = [
    // One that a source of files leaves row groups out by,
    View { filter: "x <> 2", masks: &[], seen: SEEN },
    // one that none does,
    View { filter: "left(w, 1) = 'c'", masks: &[], seen: SEEN },
    // of a column that is not seen,
    View { filter: "v = '7'", masks: &[], seen: SEEN },
    // and of who asks.
    View { filter: "w = $user", masks: &[], seen: SEEN },
    // Masks that fail on what is hidden.
    View {
        filter: "x <> 2 AND z IS DISTINCT FROM 0",
        masks: &[("x", "CAST(v AS BIGINT) + x"), ("y", "CAST(length(y) AS VARCHAR)"), ("z", "100 / (x - 2)")],
        seen: [
            (Some(8), Some("3"), Some(-100), None, None),
            (Some(11), Some("4"), Some(50), None, None),
            (Some(12), Some("1"), Some(33), None, None),
        ],
    },
    View {
        filter: "w = $user AND x <> 2",
        masks: &[("x", "-x"), ("y", "upper(left(y, 1)) || '*'"), ("z", "CASE WHEN z IS NULL THEN 0 ELSE z END / 10")],
        seen: [
            (Some(-1), Some("O*"), Some(1), None, None),
            (Some(-4), Some("F*"), Some(0), None, None),
            (Some(-5), Some("5*"), Some(5), None, None),
        ],
    },
];

impl View {
    fn rules(&self) -> Vec<RuleText> {
        let of = |rule: RuleText| {
            let tables = vec!["m.main.??".to_owned(), "p.main.??".to_owned()];
            RuleText { users: Some(set(["cid"])), tables, ..rule }
        };
        let hidden = RuleText { columns: Some(set(["w", "v"])), ..RuleText::default() };
        let shown = RuleText {
            allow: [Action::Read].into(),
            filter: Some(self.filter.to_owned()),
            masks: self.masks.iter().map(|(column, mask)| ((*column).to_owned(), (*mask).to_owned())).collect(),
            ..RuleText::default()
        };
        vec![of(hidden), of(shown)]
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers = |of: fn(&Row) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    let texts = |of: fn(&Row) -> Option<&'static str>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let columns = [
        ("x", numbers(|row| row.0)),
        ("y", texts(|row| row.1)),
        ("z", numbers(|row| row.2)),
        ("w", texts(|row| row.3)),
        ("v", texts(|row| row.4)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// A Parquet file with a row group for each row, so that each can be left out.
fn write(path: &Path, rows: &RecordBatch) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// A divisor is in brackets, which are of no question that is asked.
fn operand(dice: &mut Dice, depth: u64) -> String {
    match dice.below(if depth == 0 { 5 } else { 9 }) {
        0 => "x".to_owned(),
        1 => "z".to_owned(),
        2 => dice.below(12).to_string(),
        3 => "NULL".to_owned(),
        4 => "CAST(length(y) AS BIGINT)".to_owned(),
        5 => format!("({} + {})", operand(dice, depth - 1), operand(dice, depth - 1)),
        // What fails for a row that is hidden tells of it.
        6 => format!("({} / [{}])", operand(dice, depth - 1), operand(dice, depth - 1)),
        7 => "CAST(y AS BIGINT)".to_owned(),
        _ => format!("(100 / [({} - {})])", operand(dice, depth - 1), dice.below(60)),
    }
}

fn condition(dice: &mut Dice, depth: u64) -> String {
    match dice.below(if depth == 0 { 5 } else { 8 }) {
        0 => format!("{} = {}", operand(dice, 2), operand(dice, 1)),
        1 => format!("{} < {}", operand(dice, 2), operand(dice, 1)),
        2 => "y LIKE 'T%'".to_owned(),
        3 => format!("x IN ({}, {})", dice.below(6), dice.below(6)),
        4 => format!("{} IS NULL", operand(dice, 1)),
        5 => format!("({} AND {})", condition(dice, depth - 1), condition(dice, depth - 1)),
        6 => format!("({} OR {})", condition(dice, depth - 1), condition(dice, depth - 1)),
        _ => format!("NOT ({})", condition(dice, depth - 1)),
    }
}

fn question(dice: &mut Dice) -> String {
    let filter = condition(dice, 2);
    match dice.below(6) {
        0 => format!("SELECT x, y, z FROM t WHERE {filter} ORDER BY x"),
        1 => format!("SELECT count(*) AS c, sum(z) AS s, min(y) AS m FROM t WHERE {filter}"),
        2 => format!("SELECT y, {} AS v FROM t WHERE {filter} ORDER BY 1, 2", operand(dice, 2)),
        3 => format!("SELECT a.x, b.y FROM t a JOIN t b ON a.x = b.x WHERE a.x IN (SELECT x FROM t WHERE {filter}) ORDER BY 1"),
        4 => format!("SELECT x FROM t WHERE {filter} ORDER BY x DESC LIMIT {}", 1 + dice.below(3)),
        _ => format!("SELECT y, count(*) AS c FROM t GROUP BY y HAVING max({}) > 1 ORDER BY 1", operand(dice, 2)),
    }
}

/// As it is asked.
fn asked(question: &str) -> String {
    question.replace(['[', ']'], "")
}

/// With null for what fails.
fn lenient(question: &str) -> String {
    question.replace("CAST(y", "TRY_CAST(y").replace('[', "nullif(").replace(']', ", 0)")
}

/// 1,200 questions over two restricted tables, which differ in what is hidden and in nothing else: the outcome is the same, errors
/// among them, and it is that of a copy of what is seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_table_is_as_a_copy_of_what_it_shows() {
    let governed = Governed::new().await;
    let (memory, folder) = (Arc::new(MemorySource::of_size(Size(16 << 20))), tempfile::tempdir().unwrap());
    let values = json!({ "location": folder.path() }).as_object().unwrap().clone();
    let files = nexus_sources::open("files", &Options { catalog: "p".to_owned(), base: PathBuf::new(), values }).unwrap();
    governed.fixture.gateway.catalogs.register("m", Arc::clone(&memory) as _);
    governed.fixture.gateway.catalogs.register("p", files);
    let put = |name: &str, rows: RecordBatch| memory.insert("main", name, vec![rows], Keys::default()).unwrap();
    let mut dice = Dice(7);
    let (mut rows, mut errors, mut unasked) = (0, 0, 0);
    for (at, view) in VIEWS.iter().enumerate() {
        for (name, hidden) in ["t", "u"].into_iter().zip(HIDDEN) {
            let all: Vec<Row> = SEEN.into_iter().zip(hidden).flat_map(|(seen, hidden)| [seen, hidden]).collect();
            write(&folder.path().join(format!("{name}{at}.parquet")), &batch(&all));
            put(&format!("{name}{at}"), batch(&all));
        }
        put(&format!("c{at}"), batch(&view.seen).project(&[0, 1, 2]).unwrap());
        governed.rules(view.rules());
        for _ in 0..100 {
            let question = question(&mut dice);
            let of = |question: &str, table: &str| {
                let table = format!("{table}{at}");
                question.replace(" t ", &format!(" {table} ")).replace(" t)", &format!(" {table})"))
            };
            let wanted = governed.run("root", &of(&asked(&question), "m.main.c")).await;
            for catalog in ["m", "p"] {
                let said = format!("{} in {catalog}: {question}", view.filter);
                let one = governed.run("cid", &of(&asked(&question), &format!("{catalog}.main.t"))).await;
                let other = governed.run("cid", &of(&asked(&question), &format!("{catalog}.main.u"))).await;
                let told = |outcome: &Result<String, Error>| match outcome {
                    Ok(rows) => rows.clone(),
                    Err(error) => error.to_string().replace(&format!("u{at}"), &format!("t{at}")),
                };
                assert_eq!(told(&one), told(&other), "{said}");
                match (one, &wanted) {
                    (Ok(got), Ok(wanted)) => {
                        assert_eq!(got, *wanted, "{said}");
                        rows += 1;
                    }
                    (Err(got), Ok(wanted)) => panic!("{said}\n{got}, and over the copy\n{wanted}"),
                    (Err(got), Err(wanted)) => {
                        assert_eq!(got.kind(), wanted.kind(), "{said}\n{got}, and over the copy\n{wanted}");
                        errors += 1;
                    }
                    // Which condition is tried first, and so whether the other one fails, is not promised. Where that one is not
                    // asked it does not matter what it is, so that the rows are those which it is null for.
                    (Ok(got), Err(_)) => {
                        let wanted = governed.run("root", &of(&lenient(&question), "m.main.c")).await.unwrap();
                        assert_eq!(got, wanted, "{said}");
                        unasked += 1;
                    }
                }
            }
        }
    }
    eprintln!("{rows} answers and {errors} errors are those of the copy; where it fails, {unasked} are right without what fails");
    assert!(rows >= 1_000 && errors >= 100, "{rows} answers and {errors} errors");
}
