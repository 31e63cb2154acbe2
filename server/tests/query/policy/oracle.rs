//! Random policies, and what they mean by an oracle that knows nothing of the code that it judges.

use std::collections::BTreeSet;

use nexus_flight_catalog::policy::{Action, RuleText};

use super::{COLUMNS, Dice, PEOPLE};

/// x, y and z.
type Row = (i64, Option<&'static str>, Option<i64>);

/// Those of each table, as they were written.
const ROWS: [Row; 5] = [
    (1, Some("one"), Some(10)),
    (2, Some("two"), Some(20)),
    (3, None, Some(0)),
    (4, Some("four"), None),
    (5, Some("5"), Some(50)),
];

/// All that rules can be about. `c` and `other` are nowhere.
const PATTERNS: [&str; 11] = [
    "*.*.*",
    "a.*.*",
    "b.main.*",
    "*.main.t",
    "a.main.t",
    "b.main.u",
    "?.main.u",
    "*.other.*",
    "c.*.*",
    "system.*.*",
    "*.*.queries",
];

pub(super) fn random_rule(dice: &mut Dice) -> RuleText {
    let some = |dice: &mut Dice, of: &[&str]| of.iter().filter(|_| dice.is(50)).map(|one| (*one).to_owned()).collect();
    let mut allow = BTreeSet::new();
    for action in [Action::Read, Action::Write, Action::Native, Action::Admin] {
        if dice.is(50) {
            allow.insert(action);
        }
    }
    let reads = allow.contains(&Action::Read);
    let columns: Option<BTreeSet<String>> = dice.is(30).then(|| some(dice, &COLUMNS));
    let masks = [("x", "-x"), ("y", "'?'"), ("z", "0")].into_iter().filter(|(column, _)| {
        let is_covered = columns.as_ref().is_none_or(|columns| columns.contains(*column));
        reads && is_covered && dice.is(15)
    });
    let masks = masks.map(|(column, mask)| (column.to_owned(), mask.to_owned())).collect();
    RuleText {
        users: dice.is(50).then(|| some(dice, &PEOPLE)),
        groups: dice.is(40).then(|| some(dice, &["staff", "guests"])),
        tables: (0..=dice.below(2)).map(|_| dice.one(&PATTERNS).to_owned()).collect(),
        columns,
        filter: (reads && dice.is(20)).then(|| dice.one(&["x > 2", "z IS NOT NULL"]).to_owned()),
        masks,
        allow,
        place: None,
    }
}

/// Judges by the rules of a policy.
pub(super) struct Oracle<'a>(pub(super) &'a [RuleText]);

impl Oracle<'_> {
    fn is_about(rule: &RuleText, who: &str) -> bool {
        let of_group = |group: &String| match group.as_str() {
            "staff" => ["ann", "bob"].contains(&who),
            "guests" => ["bob", "cid"].contains(&who),
            _ => false,
        };
        match (&rule.users, &rule.groups) {
            (None, None) => true,
            (users, groups) => users.iter().flatten().any(|user| user == who) || groups.iter().flatten().any(of_group),
        }
    }

    fn applies(rule: &RuleText, who: &str, table: &str) -> bool {
        let table_fits = rule.tables.iter().any(|pattern| match pattern.as_str() {
            "*.*.*" => true,
            "a.*.*" => table.starts_with("a."),
            "b.main.*" => table.starts_with("b."),
            "*.main.t" => table.ends_with(".t"),
            "?.main.u" => table.ends_with(".u"),
            "system.*.*" => table.starts_with("system."),
            "*.*.queries" => table.ends_with(".queries"),
            exact => exact == table,
        });
        Self::is_about(rule, who) && table_fits
    }

    fn reads(&self, who: &str, table: &str, column: &str) -> Option<&RuleText> {
        let mut fitting = self.0.iter().filter(|rule| Self::applies(rule, who, table));
        let first = fitting.find(|rule| rule.columns.as_ref().is_none_or(|columns| columns.contains(column)))?;
        first.allow.contains(&Action::Read).then_some(first)
    }

    /// The columns that are seen, each with the rule by which.
    fn deciding(&self, who: &str, table: &str) -> Vec<(&'static str, &RuleText)> {
        COLUMNS.into_iter().filter_map(|column| Some((column, self.reads(who, table, column)?))).collect()
    }

    /// The columns that are seen.
    pub(super) fn seen(&self, who: &str, table: &str) -> Vec<&'static str> {
        self.deciding(who, table).into_iter().map(|(column, _)| column).collect()
    }

    /// Whether a column is seen as it is, not by a mask.
    pub(super) fn sees_plain(&self, who: &str, table: &str, column: &str) -> bool {
        self.reads(who, table, column).is_some_and(|rule| !rule.masks.contains_key(column))
    }

    /// The rows that are seen, as texts in their order.
    pub(super) fn rows(&self, who: &str, table: &str) -> Vec<Vec<String>> {
        let deciding = self.deciding(who, table);
        let passes = |row: &&Row| {
            deciding.iter().filter_map(|(_, rule)| rule.filter.as_deref()).all(|filter| match filter {
                "x > 2" => row.0 > 2,
                _ => row.2.is_some(),
            })
        };
        let seen =
            |row: &Row| deciding.iter().map(|(column, rule)| cell(column, row, rule.masks.contains_key(*column))).collect();
        let mut rows: Vec<Vec<String>> = ROWS.iter().filter(passes).map(seen).collect();
        rows.sort();
        rows
    }

    /// Whether something of a table is hidden.
    pub(super) fn hides(&self, who: &str, table: &str) -> bool {
        let deciding = self.deciding(who, table);
        deciding.len() < COLUMNS.len()
            || deciding.iter().any(|(column, rule)| rule.filter.is_some() || rule.masks.contains_key(*column))
    }

    /// Whether something may be done to a table as a whole.
    pub(super) fn allows(&self, who: &str, table: &str, action: Action) -> bool {
        for rule in self.0.iter().filter(|rule| Self::applies(rule, who, table)) {
            if !rule.allow.contains(&action) {
                return false;
            }
            if rule.columns.is_none() {
                return true;
            }
        }
        false
    }

    /// Whether a table that has none of the columns may be read as a whole, by rules that say nothing of them.
    pub(super) fn opens(&self, who: &str, table: &str) -> bool {
        let mut fitting = self.0.iter().filter(|rule| Self::applies(rule, who, table));
        self.allows(who, table, Action::Read) && fitting.all(|rule| rule.filter.is_none() && rule.masks.is_empty())
    }

    /// Whether a list of tables has it: its columns are not known there, and some may be read.
    pub(super) fn lists(&self, who: &str, table: &str) -> bool {
        for rule in self.0.iter().filter(|rule| Self::applies(rule, who, table)) {
            if rule.allow.contains(&Action::Read) {
                return true;
            }
            if rule.columns.is_none() {
                return false;
            }
        }
        false
    }

    /// What a rule is about of a catalog, or of its schema `main`: all of it, some of it, or nothing.
    fn about(rule: &RuleText, catalog: &str, is_schema: bool) -> Option<bool> {
        let of_pattern = |pattern: &String| match (pattern.as_str(), catalog) {
            ("*.*.*", _) | ("a.*.*", "a") => Some(true),
            ("b.main.*", "b") => Some(is_schema),
            ("*.main.t" | "?.main.u" | "*.*.queries", _) | ("a.main.t", "a") | ("b.main.u", "b") => Some(false),
            ("*.other.*", _) if !is_schema => Some(false),
            _ => None,
        };
        rule.tables.iter().filter_map(of_pattern).max()
    }

    /// Whether a catalog, or its schema `main`, is listed: something in it may be done.
    pub(super) fn knows(&self, who: &str, catalog: &str, is_schema: bool) -> bool {
        for rule in self.0.iter().filter(|rule| Self::is_about(rule, who)) {
            match Self::about(rule, catalog, is_schema) {
                Some(_) if !rule.allow.is_empty() => return true,
                Some(true) if rule.columns.is_none() => return false,
                _ => {}
            }
        }
        false
    }

    /// Whether a catalog takes statements in its own language: all of it is read and asked so, by rules that hide nothing.
    pub(super) fn native(&self, who: &str, catalog: &str) -> bool {
        for rule in self.0.iter().filter(|rule| Self::is_about(rule, who)) {
            let Some(is_all) = Self::about(rule, catalog, false) else { continue };
            let is_open = rule.columns.is_none() && rule.filter.is_none() && rule.masks.is_empty();
            if !is_open || !rule.allow.contains(&Action::Read) || !rule.allow.contains(&Action::Native) {
                return false;
            }
            if is_all {
                return true;
            }
        }
        false
    }
}

fn cell(column: &str, (x, y, z): &Row, is_masked: bool) -> String {
    match (column, is_masked) {
        ("x", false) => x.to_string(),
        ("x", true) => (-x).to_string(),
        ("y", false) => y.unwrap_or_default().to_owned(),
        ("y", true) => "?".to_owned(),
        (_, false) => z.map(|z| z.to_string()).unwrap_or_default(),
        (_, true) => "0".to_owned(),
    }
}
