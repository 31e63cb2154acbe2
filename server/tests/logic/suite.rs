//! The files of the suite, and how one of them is run.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use sqllogictest::{
    ExpectedError, Location, MakeConnection, QueryExpect, Record, RecordOutput, Runner, StatementExpect, parse_file,
    strict_column_validator,
};
use tonic::Code;

use crate::connection::{Connection, Refusal};
use crate::names::Absent;
use crate::outcome::Outcome;
use crate::pattern;
use crate::seeds;
use crate::settings::Settings;
use crate::skipped::{Fate, Skipped};
use crate::values::Kind;

/// Stands for any text in an expected answer.
const ANYTHING: &str = "<slt:ignore>";
/// Stands there for the type that text has where none is named.
const TEXT: &str = "<slt:text>";

/// The `.slt` files below a folder, by name.
pub(crate) fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "slt") {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Runs a file against a gateway that has no tables, and leaves it without any.
pub(crate) async fn run(endpoint: &str, folder: &Path, file: &Path, skipped: &Skipped) -> Result<Outcome, String> {
    let top = relative(folder, file);
    let failed = |error: Refusal| format!("{top}: {error}");
    let mut own = Connection::open(endpoint).await.map_err(failed)?;
    seeds::sow(&mut own, &top).await.map_err(failed)?;
    let records = parse_file::<Kind>(file).map_err(|error| error.to_string())?;
    let mut runner = runner(endpoint);
    let (mut outcome, mut absent, mut settings) = (Outcome::default(), Absent::default(), Settings::default());
    for mut record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        let Some((location, sql, works)) = statement(&record) else {
            // Such as `control sortmode rowsort`, which changes how the next ones are read.
            runner.run_async(record).await.map_err(|error| format!("{top}: {error}"))?;
            continue;
        };
        let (sql, place) = (without_comments(sql), place(folder, &top, location));
        let reason = skipped.rule(&top, &sql).map(str::to_owned);
        if reason.is_some() {
            settings.note(&sql);
        }
        let because = reason.or_else(|| settings.reason()).or_else(|| absent.named_in(&sql).map(str::to_owned));
        if let Some(reason) = because {
            if works {
                absent.skipped(&sql, &reason);
            }
            outcome.skipped.count(&reason);
            continue;
        }
        let fate = skipped.record(&place);
        if let Fate::Left(reason) = fate {
            absent.skipped(&sql, &reason);
            outcome.skipped.count(&reason);
            continue;
        }
        mark_text(&mut record);
        match (verdict(&mut runner, record).await, fate) {
            (Verdict::NotMeant, _) => {}
            (Verdict::Passed, Fate::Held) => {
                outcome.passed += 1;
                if works {
                    absent.ran(&sql);
                }
            }
            (Verdict::Passed, _) => outcome.recovered.push(place),
            (Verdict::Failed(_), Fate::Known(reason)) => {
                absent.skipped(&sql, &reason);
                outcome.known.count(&reason);
            }
            (Verdict::Failed(why), _) => {
                absent.skipped(&sql, "failed: the statement that makes what it reads");
                outcome.failed.push((place, why));
            }
        }
    }
    seeds::clear(&mut own).await.map_err(failed)?;
    Ok(outcome)
}

/// Compares as DataFusion's own runner does: types by their letters, rows line by line.
fn runner(endpoint: &str) -> Runner<Connection, impl MakeConnection<Conn = Connection>> {
    let mut runner = Runner::new(move || Connection::open(endpoint));
    runner.add_label("Datafusion");
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(|line| line.trim_end().to_owned());
    runner.with_validator(|normal, rows, expected| {
        let rows: Vec<String> = rows.iter().map(|row| row.join(" ").trim_end().to_owned()).collect();
        let expected: Vec<String> = expected.iter().map(normal).collect();
        ["Utf8View", "Utf8"].iter().any(|text| {
            let expected: Vec<String> = expected.iter().map(|line| line.replace(TEXT, text)).collect();
            is_expected(&rows, &expected) || is_expected(&in_utc(&rows), &in_utc(&expected))
        })
    });
    runner
}

enum Verdict {
    Passed,
    Failed(String),
    /// It is for another database.
    NotMeant,
}

/// Runs a record. Of an error, its kind counts: what is said of it is the gateway's own.
async fn verdict(runner: &mut Runner<Connection, impl MakeConnection<Conn = Connection>>, mut record: Record<Kind>) -> Verdict {
    let mut expected = None;
    if let Record::Statement { expected: StatementExpect::Error(error), .. }
    | Record::Query { expected: QueryExpect::Error(error), .. } = &mut record
    {
        expected = Some(std::mem::replace(error, ExpectedError::Empty).to_string());
    }
    let output = match runner.run_async(record).await {
        Ok(output) => output,
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    let error = match (&expected, &output) {
        (_, RecordOutput::Nothing) => return Verdict::NotMeant,
        (Some(_), RecordOutput::Query { error: Some(error), .. } | RecordOutput::Statement { error: Some(error), .. }) => error,
        _ => return Verdict::Passed,
    };
    let code = error.downcast_ref::<Refusal>().map_or(Code::Unknown, |refusal| refusal.code);
    let is_told = matches!(code, Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::Unimplemented);
    match is_told {
        true => Verdict::Passed,
        false => Verdict::Failed(format!("an error of another kind\n[expected] {}\n[is] {error}", expected.unwrap_or_default())),
    }
}

/// Where a record stands, its statement, and whether that is expected to work.
fn statement(record: &Record<Kind>) -> Option<(&Location, &str, bool)> {
    match record {
        Record::Statement { loc, sql, expected, .. } => Some((loc, sql, !matches!(expected, StatementExpect::Error(_)))),
        Record::Query { loc, sql, expected, .. } => Some((loc, sql, !matches!(expected, QueryExpect::Error(_)))),
        _ => None,
    }
}

/// A statement as the rules for many look at it.
fn without_comments(sql: &str) -> String {
    sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

fn relative(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned()
}

/// `file:line`, or `file>part:line` where the file includes the part.
fn place(folder: &Path, top: &str, location: &Location) -> String {
    let file = relative(folder, Path::new(location.file()));
    let (file, line) = (file.replace("/./", "/"), location.line());
    if file == top { format!("{top}:{line}") } else { format!("{top}>{file}:{line}") }
}

/// The lines with no mark at times in UTC and their types: DataFusion has no zone by default, and the gateway has that one.
fn in_utc(lines: &[String]) -> Vec<String> {
    static MARK: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(T\d\d:\d\d:\d\d(?:\.\d+)?)Z|(Timestamp\(\w+), "\+00:00""#));
    lines.iter().map(|line| MARK.replace_all(line, "$1$2").into_owned()).collect()
}

/// Marks the type of text in an expected answer where the statement names none: DataFusion's is Utf8View then, and the gateway's
/// Utf8. Where it names one, that is held to.
fn mark_text(record: &mut Record<Kind>) {
    if let Record::Query { sql, expected: QueryExpect::Results { results, .. }, .. } = record
        && !sql.to_lowercase().contains("utf8view")
    {
        results.iter_mut().for_each(|line| *line = line.replace("Utf8View", TEXT));
    }
}

/// Whether the lines are the expected ones, in which a mark stands for any text.
fn is_expected(lines: &[String], expected: &[String]) -> bool {
    if !expected.iter().any(|line| line.contains(ANYTHING)) {
        return lines == expected;
    }
    let (lines, expected) = (lines.join("\n"), expected.join("\n"));
    let mut rest = lines.as_str();
    for (number, part) in expected.split(ANYTHING).enumerate() {
        match rest.find(part) {
            Some(at) if number > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_of_either_type_where_none_is_named() {
        let marked = |sql: &str| {
            let file = format!("query T\n{sql}\n----\nUtf8View\n");
            let mut record = sqllogictest::parse::<Kind>(&file).unwrap().remove(0);
            mark_text(&mut record);
            let Record::Query { expected: QueryExpect::Results { results, .. }, .. } = record else { panic!("no query") };
            results
        };
        assert_eq!(marked("select arrow_typeof(a) from t"), [TEXT]);
        assert_eq!(marked("select arrow_typeof(arrow_cast(a, 'Utf8View')) from t"), ["Utf8View"]);
    }

    #[test]
    fn a_mark_stands_for_any_text() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert!(is_expected(&lines(&["a 1", "b"]), &lines(&["a <slt:ignore>", "b"])));
        assert!(!is_expected(&lines(&["x a 1", "b"]), &lines(&["a <slt:ignore>", "b"])));
        assert!(!is_expected(&lines(&["a 1"]), &lines(&["a <slt:ignore>", "b"])));
    }
}
