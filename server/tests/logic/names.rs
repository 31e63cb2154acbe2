//! The tables and functions that are not there, or not with the rows that a file put there, since the statement for it is skipped.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::pattern;

/// Names, in lower case and without their schema.
#[derive(Debug, Default)]
pub(crate) struct Absent(HashMap<String, Absence>);

#[derive(Debug)]
struct Absence {
    reason: String,
    /// There is a table of that name, with other rows.
    exists: bool,
}

/// The last part of a name is the table.
const NAME: &str = r#"(?:if\s+(?:not\s+)?exists\s+)?(?:(?:\w+|"[^"]+")\.)*(\w+|"[^"]+")"#;
static CREATE: LazyLock<Regex> = LazyLock::new(|| {
    let kinds = r"(?:(?:or\s+replace|unbounded|external|temporary|temp)\s+)*(?:table|view|function)";
    pattern(&format!(r"^\s*create\s+{kinds}\s+{NAME}"))
});
static CHANGE: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^\s*(?:insert\s+into|update|delete\s+from)\s+{NAME}")));
static DROP: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^\s*drop\s+table\s+{NAME}")));
static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r#""[^"]*"|'[^']*'|\w+"#));

impl Absent {
    /// The statement was not run, or failed as it was known to.
    pub(crate) fn skipped(&mut self, sql: &str, reason: &str) {
        let reason = reason.to_owned();
        if let Some(name) = named(&CREATE, sql) {
            self.0.insert(name, Absence { reason, exists: false });
        } else if let Some(name) = named(&CHANGE, sql) {
            self.0.entry(name).or_insert(Absence { reason, exists: true });
        }
    }

    /// The statement ran.
    pub(crate) fn ran(&mut self, sql: &str) {
        if let Some(name) = named(&CREATE, sql).or_else(|| named(&DROP, sql)) {
            self.0.remove(&name);
        }
    }

    /// Why the statement cannot run: it names something that is not there.
    pub(crate) fn named_in(&self, sql: &str) -> Option<&str> {
        if self.0.is_empty() || named(&DROP, sql).and_then(|name| self.0.get(&name)).is_some_and(|absence| absence.exists) {
            return None;
        }
        // Not the name that it makes anew.
        let own = CREATE.find(sql).map_or(0, |found| found.end());
        let mut words = WORD.find_iter(&sql[own..]).map(|word| word.as_str().trim_matches('"').to_lowercase());
        words.find_map(|word| self.0.get(&word)).map(|absence| absence.reason.as_str())
    }
}

fn named(statement: &Regex, sql: &str) -> Option<String> {
    let written = statement.captures(sql)?.get(1)?.as_str();
    Some(written.trim_matches('"').to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_an_absent_table_is_known() {
        let mut absent = Absent::default();
        absent.skipped("CREATE UNBOUNDED EXTERNAL TABLE IF NOT EXISTS a.\"Big\" (x INT)", "no files");
        assert_eq!(absent.named_in("select * from \"Big\" where x = 1"), Some("no files"));
        assert_eq!(absent.named_in("drop table big"), Some("no files"));
        assert_eq!(absent.named_in("select * from t where x = 'big'"), None);
        assert_eq!(absent.named_in("create table big (x int)"), None);
        absent.ran("create table big as select 1");
        assert_eq!(absent.named_in("select * from big"), None);
    }

    #[test]
    fn a_table_with_other_rows_can_be_dropped() {
        let mut absent = Absent::default();
        absent.skipped("insert into t select * from big", "no files");
        assert_eq!(absent.named_in("select * from t"), Some("no files"));
        assert_eq!(absent.named_in("drop table if exists t"), None);
        absent.ran("drop table if exists t");
        assert_eq!(absent.named_in("select * from t"), None);
    }
}
