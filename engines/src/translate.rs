//! A planned statement in the SQL of Trino: the plan as it is after names were resolved, the policy was applied and types were
//! settled, and before anything was optimised.
//!
//! What is written is a list of what may be: nodes, expressions, functions and types of which it is known that they mean the same
//! there. All else is refused by its name, and nothing is handed on as it is.
//!
//! DataFusion's unparser does not write it: of a literal it leaves the type out, so that `1` of 64 bits is one of 32 at Trino and
//! `1.0` is no approximate number; and it finds columns again by names that two of them may have. Here a column is a position, and
//! each text has the type that the plan says: but for the digits that a decimal has room for, and numbers without sign, which are a
//! `bigint` there.
//!
//! A statement gives the rows there that it gives here, or fails. It may fail where it does not here: a whole number that outgrows
//! its type is an error at Trino, and here it wraps around.

use std::fmt::Display;

use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::LogicalPlan;
use nexus_flight_catalog::policy::Guarded;
use nexus_flight_catalog::sql::Dialect;
use nexus_flight_catalog::{Error, Result, TableName};

use crate::scan::Provider;
use crate::trino::{Trino, TrinoTable};

mod aggregates;
mod arithmetic;
mod casts;
mod expr;
mod functions;
mod plan;
mod relation;
mod windows;

use relation::{Column, Relation};

/// The letters that a text may have: `query.max-length` of Trino is a million.
const MOST: usize = 500_000;
/// The letters that are written in all, those of a part counted again wherever it is put into another: what memory and time a
/// statement takes here.
const WRITTEN: usize = 8_000_000;
/// How deep nodes and expressions may be within one another.
const DEPTH: usize = 200;

/// What to do about what is refused.
const HINT: &str = "the gateway answers it itself; leave this out to have the statement run there";

/// What the tables of a plan are called at the engine. Errors: `Unsupported` for one that is not there.
pub type Names<'a> = dyn Fn(&TableReference) -> Result<TableName> + 'a;

/// The text of a query for Trino, given its analysed plan and what its tables are called there. Of a table of which a part is seen
/// it says what that part is: whoever reads the text knows the filter, and Trino may decide conditions of the statement on rows
/// that the filter hides. Errors: `Unsupported`, with the first construct that is not known to mean the same; those of `names`.
pub fn translate(plan: &LogicalPlan, names: &Names<'_>) -> Result<String> {
    let mut writer = Writer { names, aliases: 0, depth: 0, left: WRITTEN, sees_part: false, may_fail: None };
    let relation = writer.relation(plan, None)?;
    if let (true, Some(what)) = (writer.sees_part, writer.may_fail) {
        // An error of a row that is hidden tells that it is there, and Trino is free to compute this for all rows.
        return Err(refused(format_args!("{what}, which may fail, over a table of which a part is seen")));
    }
    if let Some(field) = plan.schema().fields().iter().find(|field| is_alias(field.name())) {
        return Err(refused(format_args!("a column that is called \"{}\"", field.name())));
    }
    let columns: Vec<String> = plan.schema().fields().iter().map(|field| Trino.identifier(field.name())).collect();
    bounded(relation.select(&columns, true))
}

/// What a table is called at the engine that it is of, whether all of it is seen or a part; none for one that is of no engine.
pub fn name_there(table: &dyn TableProvider) -> Option<TableName> {
    let table = match table.as_any().downcast_ref::<Guarded>() {
        Some(guarded) => guarded.table(),
        None => table,
    };
    of_trino(table).map(TrinoTable::name_there)
}

/// The table of Trino that a provider reads.
fn of_trino(provider: &dyn TableProvider) -> Option<&TrinoTable> {
    provider.as_any().downcast_ref::<Provider<TrinoTable>>().map(|provider| provider.table.as_ref())
}

/// The refusal of a construct.
fn refused(what: impl Display) -> Error {
    Error::unsupported(format!("cannot translate {what} for trino")).with_hint(HINT)
}

/// A text that is short enough. Parts of it are written twice where Trino has no word for something.
fn bounded(sql: String) -> Result<String> {
    match sql.len() <= MOST {
        true => Ok(sql),
        false => Err(refused(format_args!("a statement of more than {MOST} letters"))),
    }
}

/// Whether a column has a name such as tables and sub-selects are given. In Trino `t1.id` is a field of a column `t1` where there
/// is one (`Scope.resolveField`).
fn is_alias(name: &str) -> bool {
    let number = name.strip_prefix(['t', 's', 'T', 'S']);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Writes one statement.
struct Writer<'a> {
    names: &'a Names<'a>,
    /// How many names were given to tables and sub-selects: no two have the same one, whatever is within what.
    aliases: usize,
    depth: usize,
    /// The letters that are left of those that may be written.
    left: usize,
    /// Whether it reads a table of which a part is seen.
    sees_part: bool,
    /// The first of what may fail for a row.
    may_fail: Option<&'static str>,
}

/// What the columns of a node are called in the text.
#[derive(Clone, Copy)]
struct Scope<'a> {
    schema: &'a DFSchema,
    /// In the order of the schema.
    columns: &'a [Column],
    /// Those of the query around a sub-query.
    outer: Option<&'a Scope<'a>>,
}

impl Writer<'_> {
    fn alias(&mut self, kind: char) -> String {
        self.aliases += 1;
        format!("{kind}{}", self.aliases)
    }

    /// The same rows as those of a sub-select, whose columns can be named wherever columns can.
    fn wrapped(&mut self, relation: &Relation) -> Result<Relation> {
        let alias = self.alias('s');
        let names: Vec<String> = (1..=relation.columns.len()).map(|number| format!("c{number}")).collect();
        let sql = self.spent(relation.select(&names, false))?;
        let columns = relation.columns.iter().zip(names).map(|(column, name)| Column {
            sql: format!("{alias}.{name}"),
            is_reference: true,
            is_known: column.is_known,
        });
        Ok(Relation::of(format!("({sql}) AS {alias}"), columns.collect()))
    }

    /// A part that is written. Errors: `Unsupported` where it is too long, or too much is written in all.
    fn spent(&mut self, sql: String) -> Result<String> {
        let sql = bounded(sql)?;
        // A short one takes time too.
        let left = self.left.checked_sub(sql.len().max(1));
        self.left = left.ok_or_else(|| refused("what has to be written so many times over"))?;
        Ok(sql)
    }

    /// What is one deeper.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH {
            return Err(refused(format_args!("what is nested more than {DEPTH} deep")));
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    /// Takes down what may fail.
    fn fails(&mut self, what: &'static str) {
        self.may_fail.get_or_insert(what);
    }
}

#[cfg(test)]
mod tests;
