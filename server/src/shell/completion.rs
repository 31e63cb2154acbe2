//! What the Tab key offers: words of SQL, and the names that the server has told of.

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Schema;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// How many names are kept.
const MOST: usize = 50_000;

const KEYWORDS: [&str; 72] = [
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COMMIT",
    "CREATE",
    "CROSS",
    "CURRENT",
    "DATE",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FILTER",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "RANGE",
    "RIGHT",
    "ROLLBACK",
    "ROWS",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "UNBOUNDED",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The names that can be completed.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Takes the names in a listing of tables.
    pub(super) fn list(&mut self, listed: &RecordBatch) {
        let columns = ["catalog_name", "db_schema_name", "table_name"].map(|name| listed.column_by_name(name));
        let names = columns.into_iter().flatten().filter_map(|column| column.as_string_opt::<i32>());
        names.for_each(|names| names.iter().flatten().for_each(|name| self.add(name)));
    }

    /// Takes the names of columns.
    pub(super) fn columns(&mut self, schema: &Schema) {
        schema.fields().iter().for_each(|field| self.add(field.name()));
    }

    fn add(&mut self, name: &str) {
        if self.0.len() < MOST && !name.is_empty() && !name.contains(char::is_control) {
            self.0.insert(name.to_owned());
        }
    }

    /// What a word can become.
    fn of(&self, word: &str) -> Vec<String> {
        let begins = |name: &str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let is_small = word.starts_with(char::is_lowercase);
        let keyword = |keyword: &&str| if is_small { keyword.to_lowercase() } else { (*keyword).to_owned() };
        let names = self.0.iter().filter(|name| begins(name)).map(|name| written(name));
        names.chain(KEYWORDS.iter().filter(|keyword| begins(keyword)).map(keyword)).collect()
    }
}

/// The name as a statement writes it.
fn written(name: &str) -> String {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|first| first.is_lowercase() || first == '_');
    if begins && letters.all(|letter| letter.is_lowercase() || letter.is_ascii_digit() || letter == '_') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or_default();
        let word = before.rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
        // Of nothing all would be offered.
        let offered = if word.is_empty() && !before.ends_with('.') { Vec::new() } else { self.of(word) };
        Ok((at - word.len(), offered))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}

impl Validator for Names {}

impl Helper for Names {}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use rustyline::history::DefaultHistory;

    use super::*;

    #[test]
    fn words_are_completed() {
        let mut names = Names::default();
        names.columns(&Schema::new(
            ["lineitem", "l_tax", "Größe", "a\"b", "l\n"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec(),
        ));
        let history = DefaultHistory::new();
        let offered = |line: &str| names.complete(line, line.len(), &Context::new(&history)).unwrap();
        assert_eq!(offered("select * from li"), (14, vec!["lineitem".to_owned(), "like".to_owned(), "limit".to_owned()]));
        assert_eq!(offered("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(offered("select t.l_"), (9, vec!["l_tax".to_owned()]));
        assert_eq!(offered("select gr"), (7, vec!["\"Größe\"".to_owned(), "group".to_owned()]));
        assert_eq!(offered("select a").1.first().map(String::as_str), Some("\"a\"\"b\""));
        assert_eq!(offered("select "), (7, Vec::new()));
        assert_eq!(offered("from tpch.").1.len(), 4 + KEYWORDS.len());
    }
}
