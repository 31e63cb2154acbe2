//! Who may do what: ordered rules over tables and columns. The first that fits decides, and what no rule fits is denied.
//!
//! A policy stands around a source ([`Governed`]), so that no way into the source goes past it.

mod expressions;
mod governed;
mod guard;
mod veil;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::catalog::TableProvider;
use regex::Regex;
use serde::Deserialize;
use uuid::Uuid;

use crate::error::{Error, Place, Result, shortened};
use crate::name::TableName;
use crate::policy::veil::Veil;
use crate::source::Principal;

pub use expressions::Expressions;
pub use governed::{Governed, is_part, sees_a_part};
pub use guard::{Guarded, Mark};

/// How much of a text a message quotes, in bytes.
const QUOTED: usize = 200;

/// A policy as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    /// The members of each group.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The rules, in the order in which they are tried.
    pub rules: Vec<RuleText>,
}

/// A rule as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleText {
    /// The users that it is about; with `groups` absent too, everybody.
    pub users: Option<BTreeSet<String>>,
    /// The groups that it is about.
    pub groups: Option<BTreeSet<String>>,
    /// The tables, as `catalog.schema.table`, where `*` stands for any text and `?` for any character.
    pub tables: Vec<String>,
    /// The columns; all where there is none.
    pub columns: Option<BTreeSet<String>>,
    /// What is allowed; nothing denies.
    pub allow: BTreeSet<Action>,
    /// The rows that can be seen: a condition in SQL on the columns of the table, where `$user` is who asks.
    pub filter: Option<String>,
    /// What is seen in place of a column's values: an expression in SQL, by column.
    pub masks: BTreeMap<String, String>,
    /// Where it is written, for who keeps the policy.
    #[serde(skip)]
    pub place: Option<Place>,
}

/// What can be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// To see a table and its rows.
    Read,
    /// To make, fill, change and drop a table.
    Write,
    /// To send statements to a source that are its own and pass no rules; for all tables of it or none.
    Native,
    /// To see in the catalog `system` what others do, and the settings.
    Admin,
}

/// A policy that is in force.
#[derive(Debug)]
pub struct Policy {
    groups: BTreeMap<String, BTreeSet<String>>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// Counted from 1.
    number: usize,
    text: RuleText,
    tables: Vec<Pattern>,
}

/// What a principal sees of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing: it is as if it were not there.
    Nothing,
    /// All of it.
    Everything,
    /// Some of its columns, and the rows that meet all conditions.
    Part {
        /// The columns by position, with what is seen in their place.
        columns: Vec<(usize, Option<String>)>,
        /// The conditions.
        filters: Vec<String>,
    },
}

impl Policy {
    /// A policy of rules. Errors: `Invalid` with the number of the rule, from 1, and what is wrong with it.
    pub fn new(text: PolicyText) -> Result<Self> {
        let rules = text.rules.into_iter().zip(1..).map(|(rule, number)| {
            let wrong = |what: String| rule.wrong(number, &what);
            if let Some(group) = rule.groups.iter().flatten().find(|group| !text.groups.contains_key(*group)) {
                return Err(wrong(format!("there is no group \"{group}\"")).with_hint("list its members under [groups]"));
            }
            if rule.tables.is_empty() {
                return Err(wrong("it names no tables".to_owned()).with_hint("write tables = [\"*.*.*\"] for all of them"));
            }
            if !rule.allow.contains(&Action::Read) && (rule.filter.is_some() || !rule.masks.is_empty()) {
                return Err(wrong("a filter or a mask is of no use where reading is not allowed".to_owned())
                    .with_hint("add allow = [\"read\"]"));
            }
            let covers = |column: &String| rule.columns.as_ref().is_none_or(|columns| columns.contains(column));
            if let Some(column) = rule.masks.keys().find(|column| !covers(column)) {
                return Err(wrong(format!("it masks \"{column}\", which is not one of its columns")));
            }
            let tables = rule.tables.iter().map(|pattern| Pattern::new(pattern).map_err(wrong)).collect::<Result<_>>()?;
            Ok(Rule { number, text: rule, tables })
        });
        let rules = rules.collect::<Result<_>>()?;
        Ok(Self { groups: text.groups, rules })
    }

    /// Whether a principal sees all of a table, whatever its columns are.
    pub fn opens(&self, principal: &Principal, name: &TableName) -> bool {
        let first = self.about(principal).find(|rule| rule.fits(name));
        first.is_some_and(|rule| rule.hides_nothing() && rule.allows(Action::Read))
    }

    /// What a principal sees of a table with these columns.
    pub fn sight<'a>(&self, principal: &Principal, name: &TableName, columns: impl Iterator<Item = &'a str>) -> Sight {
        let rules: Vec<&Rule> = self.about(principal).filter(|rule| rule.fits(name)).collect();
        let (mut seen, mut filters, mut is_whole) = (Vec::new(), Vec::new(), true);
        for (at, column) in columns.enumerate() {
            let Some(rule) = rules.iter().find(|rule| rule.covers(column)).filter(|rule| rule.allows(Action::Read)) else {
                is_whole = false;
                continue;
            };
            let mask = rule.text.masks.get(column).cloned();
            is_whole &= mask.is_none() && rule.text.filter.is_none();
            seen.push((at, mask));
            filters.extend(rule.text.filter.iter().filter(|filter| !filters.contains(*filter)).cloned().collect::<Vec<_>>());
        }
        match (is_whole, seen.is_empty()) {
            // A table without columns is seen as a whole or not.
            (true, true) if !self.lists(principal, name) => Sight::Nothing,
            (true, _) => Sight::Everything,
            (false, true) => Sight::Nothing,
            (false, false) => Sight::Part { columns: seen, filters },
        }
    }

    /// Whether a principal finds a table in a list, whose columns are not known there: some of it may be read.
    pub fn lists(&self, principal: &Principal, name: &TableName) -> bool {
        let [catalog, schema, table] = [&name.catalog, &name.schema, &name.table].map(String::as_str);
        self.finds(principal, [Some(catalog), Some(schema), Some(table)], |rule| rule.allows(Action::Read))
    }

    /// Whether a principal finds a schema in a list: something in it may be read or written.
    pub fn lists_schema(&self, principal: &Principal, catalog: &str, schema: &str) -> bool {
        self.finds(principal, [Some(catalog), Some(schema), None], |rule| !rule.text.allow.is_empty())
    }

    /// Whether a principal finds a catalog in a list: something in it may be read or written.
    pub fn lists_catalog(&self, principal: &Principal, catalog: &str) -> bool {
        self.finds(principal, [Some(catalog), None, None], |rule| !rule.text.allow.is_empty())
    }

    /// Whether some of what has such a name is allowed, by the first of the rules that do not leave it open.
    fn finds(&self, principal: &Principal, name: [Option<&str>; 3], allowed: impl Fn(&Rule) -> bool) -> bool {
        for rule in self.about(principal) {
            match rule.tables.iter().filter_map(|pattern| pattern.covers(name)).max() {
                None => {}
                Some(_) if allowed(rule) => return true,
                Some(Cover::All) if rule.text.columns.is_none() => return false,
                // What it denies of some columns or tables leaves the others to the next one.
                Some(_) => {}
            }
        }
        false
    }

    /// Whether a principal may do something to a table as a whole. A rule about some of its columns has to allow it as well.
    pub fn allows(&self, principal: &Principal, name: &TableName, action: Action) -> bool {
        for rule in self.about(principal).filter(|rule| rule.fits(name)) {
            match (rule.allows(action), &rule.text.columns) {
                (false, _) => return false,
                (true, None) => return true,
                (true, Some(_)) => {}
            }
        }
        false
    }

    /// Whether a principal may send a catalog statements of its own, which pass no rules and could read what they hide.
    pub fn allows_native(&self, principal: &Principal, catalog: &str) -> bool {
        self.shows_whole(principal, catalog, Some(Action::Native))
    }

    /// Whether a principal sees all of a catalog.
    pub fn opens_catalog(&self, principal: &Principal, catalog: &str) -> bool {
        self.shows_whole(principal, catalog, None)
    }

    /// Whether a principal finds a table, and these columns of it.
    pub fn shows(&self, principal: &Principal, name: &TableName, columns: &[String]) -> bool {
        let of_column = |column: &String| self.about(principal).find(|rule| rule.fits(name) && rule.covers(column));
        self.lists(principal, name)
            && columns.iter().all(|column| of_column(column).is_some_and(|rule| rule.allows(Action::Read)))
    }

    /// A column that a rule names for a principal and that a table does not have: in other letters, or at all where the rule is about that
    /// table alone. What was meant to be hidden would be seen.
    pub fn misfit(&self, principal: &Principal, name: &TableName, columns: &[&str]) -> Option<String> {
        self.about(principal).filter(|rule| rule.fits(name)).find_map(|rule| rule.misfit(name, columns)).cloned()
    }

    /// The tables that rules are about by their full names, each once.
    pub fn exact(&self) -> BTreeSet<TableName> {
        let patterns = self.rules.iter().flat_map(|rule| rule.tables.iter().zip(&rule.text.tables));
        let exact = patterns.filter(|(pattern, _)| pattern.is_exact()).filter_map(|(_, text)| {
            let mut parts = text.split('.');
            Some(TableName::new(parts.next()?, parts.next()?, parts.next()?))
        });
        exact.collect()
    }

    /// Every rule that is about something in a catalog has to hide nothing, and to allow this too, up to the first about all of it.
    fn shows_whole(&self, principal: &Principal, catalog: &str, also: Option<Action>) -> bool {
        for rule in self.about(principal) {
            let Some(cover) = rule.tables.iter().filter_map(|pattern| pattern.covers([Some(catalog), None, None])).max() else {
                continue;
            };
            if !(rule.hides_nothing() && rule.allows(Action::Read) && also.is_none_or(|action| rule.allows(action))) {
                return false;
            }
            if cover == Cover::All {
                return true;
            }
        }
        false
    }

    fn about<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = &'a Rule> {
        let is_member = move |group: &String| self.groups.get(group).is_some_and(|members| members.contains(&*principal.0));
        self.rules.iter().filter(move |rule| match (&rule.text.users, &rule.text.groups) {
            (None, None) => true,
            (users, groups) => {
                users.as_ref().is_some_and(|users| users.contains(&*principal.0)) || groups.iter().flatten().any(is_member)
            }
        })
    }
}

impl RuleText {
    fn wrong(&self, number: usize, what: &str) -> Error {
        let error = Error::invalid(format!("rule {number}: {what}"));
        match &self.place {
            Some(place) => error.at(place.clone()),
            None => error,
        }
    }
}

impl Rule {
    fn wrong(&self, what: &str) -> Error {
        self.text.wrong(self.number, what)
    }

    /// Whether it is about a table by its full name.
    fn names(&self, name: &TableName) -> bool {
        self.tables.iter().any(|pattern| pattern.is_exact() && pattern.covers_table(name))
    }

    /// A column that it names and that a table does not have: in other letters, or at all where it is about that table alone.
    fn misfit(&self, name: &TableName, columns: &[&str]) -> Option<&String> {
        let is_exact = self.names(name);
        let is_missed = |named: &&String| {
            let is_nearly = columns.iter().any(|column| column.to_lowercase() == named.to_lowercase());
            !columns.contains(&named.as_str()) && (is_exact || is_nearly)
        };
        self.text.columns.iter().flatten().chain(self.text.masks.keys()).find(is_missed)
    }

    fn fits(&self, name: &TableName) -> bool {
        self.tables.iter().any(|pattern| pattern.covers_table(name))
    }

    fn covers(&self, column: &str) -> bool {
        self.text.columns.as_ref().is_none_or(|columns| columns.contains(column))
    }

    fn hides_nothing(&self) -> bool {
        self.text.columns.is_none() && self.text.filter.is_none() && self.text.masks.is_empty()
    }

    fn allows(&self, action: Action) -> bool {
        self.text.allow.contains(&action)
    }
}

/// `catalog.schema.table`, each with `*` and `?`.
#[derive(Debug)]
struct Pattern([Part; 3]);

#[derive(Debug)]
struct Part {
    is_any: bool,
    is_exact: bool,
    regex: Regex,
}

/// How much of a catalog or schema a pattern is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    Some,
    All,
}

impl Pattern {
    /// Errors: why it is none.
    fn new(pattern: &str) -> std::result::Result<Self, String> {
        let parts = pattern.split('.').map(|part| {
            let text = regex::escape(part).replace(r"\*", ".*").replace(r"\?", ".");
            let regex = Regex::new(&format!("^(?s:{text})$")).map_err(|_| format!("\"{pattern}\" is too long for a pattern"))?;
            Ok(Part { is_any: part == "*", is_exact: !part.contains(['*', '?']), regex })
        });
        let parts: Vec<Part> = parts.collect::<std::result::Result<_, String>>()?;
        let wrong = |_| format!("\"{pattern}\" is not of the form catalog.schema.table");
        parts.try_into().map(Self).map_err(wrong)
    }

    fn is_exact(&self) -> bool {
        self.0.iter().all(|part| part.is_exact)
    }

    fn covers_table(&self, name: &TableName) -> bool {
        self.covers([&name.catalog, &name.schema, &name.table].map(|part| Some(part.as_str()))).is_some()
    }

    /// How much it is about of a table, schema or catalog, whose name has less parts; none where it is about another.
    fn covers(&self, name: [Option<&str>; 3]) -> Option<Cover> {
        let mut cover = Cover::All;
        for (part, name) in self.0.iter().zip(name) {
            match name {
                Some(name) if !part.regex.is_match(name) => return None,
                Some(_) => {}
                None if part.is_any => {}
                None => cover = Cover::Some,
            }
        }
        Some(cover)
    }
}

/// The policy in force, which may be replaced at any time, and the functions that its expressions can call.
#[derive(Debug)]
pub struct Policies {
    current: RwLock<Arc<Policy>>,
    expressions: Expressions,
    /// Whether no values are to be in the log.
    redacts: bool,
}

impl Policies {
    /// A policy with what makes its expressions; errors that it hides are logged, and with `redacts` only of what kind they are. Errors:
    /// `Invalid` with the rule for an expression that does not parse, or that no table could make good.
    pub fn new(policy: Policy, expressions: Expressions, redacts: bool) -> Result<Self> {
        let policies = Self { current: RwLock::new(Arc::new(policy)), expressions, redacts };
        policies.check(&policies.current())?;
        Ok(policies)
    }

    /// The policy of this moment.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place. Errors: as [`Policies::new`]; then the one before stays.
    pub fn replace(&self, policy: Policy) -> Result<()> {
        self.check(&policy)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        Ok(())
    }

    fn check(&self, policy: &Policy) -> Result<()> {
        for rule in &policy.rules {
            for text in rule.text.filter.iter().chain(rule.text.masks.values()) {
                self.expressions.check(text).map_err(|error| {
                    let wrong = rule.wrong(&format!("\"{}\" {}", shortened(text.clone(), QUOTED), error.message()));
                    match error.hint() {
                        Some(hint) => wrong.with_hint(hint),
                        None => wrong,
                    }
                })?;
            }
        }
        Ok(())
    }

    /// What of the rules that are about a table by its full name does not fit its columns: `Invalid`, each with the place of the rule.
    pub fn unfit(&self, name: &TableName, table: &Arc<dyn TableProvider>) -> Vec<Error> {
        let policy = self.current();
        let about = policy.rules.iter().filter(|rule| rule.names(name));
        about.flat_map(|rule| self.unfit_of(rule, &Principal::anonymous(), name, table)).collect()
    }

    /// The same of all rules that are about a principal and a table.
    fn unfit_for(&self, principal: &Principal, name: &TableName, table: &Arc<dyn TableProvider>) -> Vec<Error> {
        let policy = self.current();
        let about = policy.about(principal).filter(|rule| rule.fits(name));
        about.flat_map(|rule| self.unfit_of(rule, principal, name, table)).collect()
    }

    /// What of a rule does not fit a table, where this principal asks.
    fn unfit_of(&self, rule: &Rule, principal: &Principal, name: &TableName, table: &Arc<dyn TableProvider>) -> Vec<Error> {
        let schema = table.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let missing = rule.misfit(name, &columns).map(|column| {
            rule.wrong(&format!("the table \"{name}\" has no column \"{column}\""))
                .with_hint("write the columns as they are there, in the same letters")
        });
        let masks = rule.text.masks.iter().filter_map(|(column, mask)| {
            let at = columns.iter().position(|known| *known == column.as_str())?;
            Some((vec![(at, Some(mask.clone()))], Vec::<String>::new(), mask))
        });
        let filter = rule.text.filter.iter().map(|filter| (Vec::new(), vec![filter.clone()], filter));
        let unfit = masks.chain(filter).filter_map(|(seen, filters, text)| {
            let veil = Veil { query: Uuid::nil(), redacts: self.redacts };
            let guarded = Guarded::new(Arc::clone(table), &seen, &filters, principal, &self.expressions, veil);
            let error = Error::from(guarded.err()?);
            let text = shortened(text.clone(), QUOTED);
            let wrong = rule.wrong(&format!("\"{text}\" does not fit the table \"{name}\": {}", error.message()));
            Some(match error.hint() {
                Some(hint) => wrong.with_hint(hint),
                None => wrong,
            })
        });
        missing.into_iter().chain(unfit).collect()
    }
}
