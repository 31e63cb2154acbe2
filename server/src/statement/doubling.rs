//! What doubles the work of planning with each level that it nests: common table expressions that are named several times,
//! since each naming is a copy; sub-queries in expressions, and CASE in CASE, since DataFusion walks each level twice from
//! the level above; calls of functions by another than their own names, each of which it names by all that is within, twice. Bounds on tokens and depth do not bound these.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::functions::all_default_functions;
use datafusion::functions_nested::all_default_nested_functions;
use datafusion::sql::sqlparser::ast::{self, Expr, ObjectName, Query, Statement, VisitorMut};
use nexus_flight_catalog::{Error, Result};

use super::walk::walk;

/// How many sub-queries, and how many CASE, may stand within one another: at ten levels planning takes milliseconds, at
/// twenty it takes seconds, at thirty an hour.
pub const LEVELS: usize = 10;

/// How many groupings one `GROUP BY` may have: each is a copy of all its expressions, and a CUBE of twenty has a million.
const GROUPINGS: u64 = 1_024;

/// How many tables a statement may read once its common table expressions are written out.
pub const TABLES: u64 = 1_000;

/// Writes `ELSE CASE … END END` as further branches of one CASE, then refuses what still nests too deep. The depth of the
/// statement must be bounded already. Errors: `Exhausted`.
pub(super) fn flatten_and_check(statement: &mut Statement) -> Result<()> {
    let mut checked = || {
        walk(statement, &mut Flatten)?;
        walk(statement, &mut Levels::default())
    };
    match checked() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error.with_retryable(false)),
    }
}

struct Flatten;

impl VisitorMut for Flatten {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Case { operand: None, conditions, else_result, .. } = expr else { return ControlFlow::Continue(()) };
        // What is within was visited before and is flat.
        let mut last = else_result.take();
        while let Some(Expr::Nested(within)) = last.as_deref_mut() {
            last = Some(std::mem::replace(within, Box::new(Expr::Value(ast::Value::Null.into()))));
        }
        *else_result = match last.map(|last| *last) {
            Some(Expr::Case { operand: None, conditions: further, else_result, .. }) => {
                conditions.extend(further);
                else_result
            }
            other => other.map(Box::new),
        };
        ControlFlow::Continue(())
    }
}

/// Where a walk through a statement stands.
#[derive(Default)]
struct Levels {
    cases: usize,
    subqueries: usize,
    aliases: usize,
    queries: Vec<Level>,
}

/// A query that the walk is in.
struct Level {
    /// The tables it reads so far, those of its parts included.
    tables: u64,
    /// The names of its common table expressions in the order they are visited in, which is before all else.
    pending: std::vec::IntoIter<String>,
    /// What each of those reads.
    known: HashMap<String, u64>,
}

impl Levels {
    fn add(&mut self, tables: u64) -> ControlFlow<Error> {
        let Some(level) = self.queries.last_mut() else { return ControlFlow::Continue(()) };
        level.tables = level.tables.saturating_add(tables);
        if level.tables <= TABLES {
            return ControlFlow::Continue(());
        }
        let message = format!("the statement reads more than {TABLES} tables once each name of a WITH is replaced by its query");
        ControlFlow::Break(Error::exhausted(message).with_hint("name each query of the WITH less often"))
    }
}

/// Whether a query names no columns, which DataFusion takes for granted where it stands for values.
fn is_without_columns(body: &ast::SetExpr) -> bool {
    match body {
        ast::SetExpr::Select(select) => select.projection.is_empty(),
        ast::SetExpr::Query(query) => is_without_columns(&query.body),
        ast::SetExpr::SetOperation { left, .. } => is_without_columns(left),
        _ => false,
    }
}

/// How many groupings a `GROUP BY` asks for.
fn groupings(select: &ast::Select) -> u64 {
    let power = |size: usize| 1_u64.checked_shl(u32::try_from(size).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
    let (exprs, modifiers) = match &select.group_by {
        ast::GroupByExpr::All(modifiers) => (&[][..], modifiers),
        ast::GroupByExpr::Expressions(exprs, modifiers) => (exprs.as_slice(), modifiers),
    };
    let of = |expr: &Expr| match expr {
        Expr::Cube(sets) => power(sets.len()),
        Expr::Rollup(sets) => sets.len() as u64 + 1,
        Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    };
    let cube = modifiers.iter().any(|modifier| matches!(modifier, ast::GroupByWithModifier::Cube));
    let written = exprs.iter().map(of).fold(1, u64::saturating_mul);
    if cube { written.saturating_mul(power(exprs.len())) } else { written }
}

impl VisitorMut for Levels {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut bodies = vec![query.body.as_ref()];
        while let Some(body) = bodies.pop() {
            match body {
                ast::SetExpr::Select(select) if groupings(select) > GROUPINGS => {
                    let message = format!("the GROUP BY has {} groupings, the limit is {GROUPINGS}", groupings(select));
                    return ControlFlow::Break(
                        Error::exhausted(message).with_hint("write those that are wanted as GROUPING SETS"),
                    );
                }
                ast::SetExpr::SetOperation { left, right, .. } => bodies.extend([left.as_ref(), right.as_ref()]),
                _ => {}
            }
        }
        let names = query.with.iter().flat_map(|with| &with.cte_tables).map(|table| name(&table.alias.name));
        let pending = names.collect::<Vec<_>>().into_iter();
        self.queries.push(Level { tables: 0, pending, known: HashMap::new() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        let Some(done) = self.queries.pop() else { return ControlFlow::Continue(()) };
        match self.queries.last_mut() {
            Some(above) => match above.pending.next() {
                Some(name) => {
                    above.known.insert(name, done.tables.max(1));
                    ControlFlow::Continue(())
                }
                None => self.add(done.tables),
            },
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Error> {
        let name = match relation.0.as_slice() {
            [ast::ObjectNamePart::Identifier(only)] => name(only),
            _ => return self.add(1),
        };
        let known = self.queries.iter().rev().find_map(|level| level.known.get(&name));
        self.add(known.copied().unwrap_or(1))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } = expr
            && is_without_columns(&query.body)
        {
            return ControlFlow::Break(Error::invalid("a sub-query that stands for a value gives no column"));
        }
        let (depth, what) = match expr {
            Expr::Case { .. } => (&mut self.cases, "CASE expressions"),
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                (&mut self.subqueries, "sub-queries in expressions")
            }
            // DataFusion names such a call by all that is within it, twice each time.
            Expr::Function(function) if is_by_another_name(function) => {
                (&mut self.aliases, "calls of functions by another than their own names")
            }
            _ => return ControlFlow::Continue(()),
        };
        *depth += 1;
        if *depth <= LEVELS {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(too_deep(what).with_hint("compute the innermost in a WITH of its own and join it"))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Case { .. } => self.cases -= 1,
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => self.subqueries -= 1,
            Expr::Function(function) if is_by_another_name(function) => self.aliases -= 1,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The refusal of too many levels of something.
pub fn too_deep(what: &str) -> Error {
    Error::exhausted(format!("the statement nests more than {LEVELS} {what}")).with_retryable(false)
}

/// Whether a function has this name beside its own. Each of its calls is named by all that is within it, twice.
pub fn is_another_name(function: &str) -> bool {
    ALIASES.contains(function)
}

/// The names of functions beside their own.
static ALIASES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let all = all_default_functions().into_iter().chain(all_default_nested_functions());
    all.flat_map(|function| function.aliases().to_vec()).collect()
});

fn is_by_another_name(function: &ast::Function) -> bool {
    matches!(function.name.0.as_slice(), [ast::ObjectNamePart::Identifier(only)] if is_another_name(&name(only)))
}

/// As the planner compares names: without quotes, letter case does not count.
fn name(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use crate::statement::{Caps, parse};

    fn outcome(text: &str) -> String {
        let caps = Caps { bytes: 1 << 20, tokens: 100_000, nesting: 1_000 };
        parse(text, &caps).map_or_else(|error| error.to_string(), |parsed| parsed.statement.to_string())
    }

    #[test]
    fn an_else_that_is_a_case_becomes_further_branches() {
        insta::assert_snapshot!(outcome("SELECT CASE WHEN a THEN 1 ELSE (CASE WHEN b THEN 2 ELSE CASE WHEN c THEN 3 END END) END"), @"SELECT CASE WHEN a THEN 1 WHEN b THEN 2 WHEN c THEN 3 END");
        insta::assert_snapshot!(outcome("SELECT CASE WHEN a THEN 1 ELSE (2) END, CASE WHEN a THEN 1 END"), @"SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE WHEN a THEN 1 END");
        // With an operand the branches are about another value.
        insta::assert_snapshot!(outcome("SELECT CASE a WHEN 1 THEN 1 ELSE CASE b WHEN 2 THEN 2 END END"), @"SELECT CASE a WHEN 1 THEN 1 ELSE CASE b WHEN 2 THEN 2 END END");
        let chain = format!("SELECT {}0{}", "CASE WHEN a THEN 1 ELSE ".repeat(200), " END".repeat(200));
        assert_eq!(outcome(&chain).matches("WHEN").count(), 200);
        assert_eq!(outcome(&chain).matches("CASE").count(), 1);
    }

    #[test]
    fn levels_are_counted_where_they_nest_and_not_side_by_side() {
        let nested = |count: usize, open: &str, middle: &str, close: &str| {
            outcome(&format!("SELECT {}{middle}{}", open.repeat(count), close.repeat(count)))
        };
        for (open, middle, close) in [
            ("CASE WHEN a THEN ", "b", " END"),
            ("CASE a WHEN 1 THEN 1 ELSE ", "b", " END"),
            ("(SELECT ", "1", ")"),
            ("EXISTS (SELECT 1 WHERE ", "true", ")"),
            ("a IN (SELECT b FROM c WHERE ", "true", ")"),
            ("pow(2, ", "a", ")"),
            ("\"row\"(", "a", ")"),
        ] {
            assert!(nested(10, open, middle, close).starts_with("SELECT"), "{open}");
            assert!(nested(11, open, middle, close).starts_with("the statement nests more than 10"), "{open}");
        }
        let beside = vec!["CASE WHEN a THEN (SELECT 1) END"; 50].join(", ");
        assert!(outcome(&format!("SELECT {beside}")).starts_with("SELECT"));
    }

    #[test]
    fn a_sub_query_for_a_value_has_a_column() {
        for query in
            ["SELECT 1 IN (SELECT FROM a)", "SELECT (SELECT FROM a)", "SELECT 1 IN ((SELECT FROM a UNION SELECT FROM a))"]
        {
            insta::allow_duplicates! {
                insta::assert_snapshot!(outcome(query), @"a sub-query that stands for a value gives no column");
            }
        }
        assert!(outcome("SELECT EXISTS (SELECT FROM a)").starts_with("SELECT"));
    }

    #[test]
    fn each_naming_of_a_common_table_expression_counts() {
        let doubled = |count: usize| {
            let steps: Vec<_> =
                (1..=count).map(|step| format!("a{step} AS (SELECT x.b FROM a{0} x, A{0} y)", step - 1)).collect();
            outcome(&format!("WITH a0 AS (SELECT 1 AS b), {} SELECT * FROM a{count}", steps.join(", ")))
        };
        assert!(doubled(9).starts_with("WITH"));
        insta::assert_snapshot!(doubled(10), @"the statement reads more than 1000 tables once each name of a WITH is replaced by its query; name each query of the WITH less often");
        insta::assert_snapshot!(doubled(300), @"the statement reads more than 1000 tables once each name of a WITH is replaced by its query; name each query of the WITH less often");
        // A name means the innermost query of that name.
        let inner = "WITH a AS (SELECT 1 FROM t, t, t) SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) x, a";
        assert!(outcome(inner).starts_with("WITH"));
        assert!(outcome("WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a").starts_with("WITH"));
    }
}
