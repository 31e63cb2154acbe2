//! Which records are not held to their answers, and why: read from `skipped.txt`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use regex::Regex;

/// A reason that begins so is one of a record that is not even run.
const UNSTABLE: &str = "unstable";

/// The list. What of it was never met is told at the end.
#[derive(Debug)]
pub(crate) struct Skipped {
    rules: Vec<Rule>,
    records: HashMap<String, String>,
    met: RefCell<HashSet<String>>,
}

/// Holds for many records.
#[derive(Debug)]
struct Rule {
    written: String,
    files: String,
    statement: Option<Regex>,
    reason: String,
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It must pass.
    Held,
    /// It is not run.
    Left(String),
    /// It is run and must not pass: else it is no longer to be listed.
    Known(String),
}

impl Skipped {
    /// Reads a list. A line is `what<TAB>reason`, where what is `file:line` for one record, a file or a `folder/` for all in
    /// it, `/pattern/` for all statements that match, or `file:/pattern/` for those of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut list = Self { rules: vec![], records: HashMap::new(), met: RefCell::default() };
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("skipped.txt:{number}: {why}");
            let (what, reason) = line.split_once('\t').ok_or_else(|| wrong("there is no tab before a reason"))?;
            let (written, reason) = (what.to_owned(), reason.to_owned());
            let (files, pattern) = match (what.strip_prefix('/'), what.split_once(":/")) {
                (Some(pattern), _) => ("", Some(pattern)),
                (None, Some((file, pattern))) => (file, Some(pattern)),
                (None, None) => (what, None),
            };
            if pattern.is_none() && what.contains(':') {
                if list.records.insert(written, reason).is_some() {
                    return Err(wrong("the record is listed twice"));
                }
                continue;
            }
            let statement = match pattern.map(|pattern| pattern.strip_suffix('/')) {
                Some(Some(pattern)) => Some(Regex::new(&format!("(?is){pattern}")).map_err(|error| wrong(&error.to_string()))?),
                Some(None) => return Err(wrong("a pattern ends with a slash")),
                None => None,
            };
            list.rules.push(Rule { written, files: files.to_owned(), statement, reason });
        }
        Ok(list)
    }

    /// What becomes of a record, which stands at `file:line`, by the rules for many.
    pub(crate) fn rule(&self, file: &str, sql: &str) -> Option<&str> {
        let rule = self.rules.iter().find(|rule| {
            let in_folder = rule.files.is_empty() || rule.files.ends_with('/') && file.starts_with(&rule.files);
            (in_folder || file == rule.files) && rule.statement.as_ref().is_none_or(|pattern| pattern.is_match(sql))
        })?;
        self.met.borrow_mut().insert(rule.written.clone());
        Some(&rule.reason)
    }

    /// What becomes of a record by itself.
    pub(crate) fn record(&self, place: &str) -> Fate {
        let Some(reason) = self.records.get(place) else { return Fate::Held };
        self.met.borrow_mut().insert(place.to_owned());
        if reason.starts_with(UNSTABLE) { Fate::Left(reason.clone()) } else { Fate::Known(reason.clone()) }
    }

    /// The entries that stand for no record.
    pub(crate) fn unmet(&self) -> Vec<&str> {
        let met = self.met.borrow();
        let listed = self.rules.iter().map(|rule| rule.written.as_str()).chain(self.records.keys().map(String::as_str));
        let mut unmet: Vec<&str> = listed.filter(|what| !met.contains(*what)).collect();
        unmet.sort_unstable();
        unmet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_by_its_file_its_statement_or_its_line() {
        let text = "# what\treason\nspark/\ta\n/^copy\\b/\tb\none.slt:/views/\tc\none.slt:7\td\ntwo.slt:8\tunstable: e\n";
        let list = Skipped::parse(text).unwrap();
        assert_eq!(list.rule("spark/map/x.slt", "select 1"), Some("a"));
        assert_eq!(list.rule("one.slt", "COPY t TO 'f'"), Some("b"));
        assert_eq!(list.rule("one.slt", "select *\nfrom information_schema.views"), Some("c"));
        assert_eq!(list.rule("two.slt", "select * from information_schema.views"), None);
        assert_eq!(list.record("one.slt:7"), Fate::Known("d".to_owned()));
        assert_eq!(list.record("one.slt:8"), Fate::Held);
        assert_eq!(list.unmet(), ["two.slt:8"]);
        assert_eq!(list.record("two.slt:8"), Fate::Left("unstable: e".to_owned()));
    }

    #[test]
    fn what_is_written_wrong_is_told() {
        for (text, why) in [("one.slt", "no tab"), ("a:1\tb\na:1\tb", "twice"), ("/a\tb", "slash"), ("/(/\tb", "unclosed")] {
            assert!(Skipped::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
