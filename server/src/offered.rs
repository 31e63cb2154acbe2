//! Which statements are offered, and what is said of the others.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use nexus_flight_catalog::{Error, Result};

/// Refuses all that is not known to be offered by what it is, before its names are looked up.
pub fn refuse_unknown(statement: &Statement) -> Result<()> {
    match statement {
        Statement::CreateExternalTable(_) => Err(not_offered("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(not_offered("COPY")),
        Statement::Reset(_) => Err(not_offered("RESET")),
        Statement::Explain(explain) => refuse_unknown(&explain.statement),
        Statement::Statement(statement) => match statement.as_ref() {
            ast::Statement::Query(query) => match query.body.as_ref() {
                // After a WITH.
                body @ (ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) | ast::SetExpr::Merge(_)) => {
                    Err(not_offered(first_word(&body.to_string())))
                }
                _ => Ok(()),
            },
            ast::Statement::Insert(_)
            | ast::Statement::Update(_)
            | ast::Statement::Delete(_)
            | ast::Statement::CreateTable(_) => Ok(()),
            ast::Statement::Drop { object_type: ast::ObjectType::Table, .. } => Ok(()),
            ast::Statement::Explain { .. } | ast::Statement::ExplainTable { .. } | ast::Statement::ShowColumns { .. } => Ok(()),
            ast::Statement::ShowFunctions { .. } => Err(Error::unsupported("SHOW FUNCTIONS is not offered")
                .with_hint("the functions are those of DataFusion 53: https://datafusion.apache.org/user-guide/sql/")),
            ast::Statement::ShowTables { show_options, .. } if show_options.show_in.is_none() => Ok(()),
            ast::Statement::ShowTables { .. } => Err(not_shown("SHOW TABLES IN", "information_schema.tables")),
            ast::Statement::ShowSchemas { .. } => Err(not_shown("SHOW SCHEMAS", "information_schema.schemata")),
            ast::Statement::ShowDatabases { .. } => Err(not_shown("SHOW DATABASES", "system.main.sources")),
            ast::Statement::ShowCreate { .. } => Err(not_shown("SHOW CREATE", "information_schema.columns")),
            ast::Statement::ShowVariable { variable } => {
                let words: Vec<&str> = variable.iter().map(|word| word.value.as_str()).collect();
                let words = words.join(" ").to_uppercase();
                let instead = if words == "CATALOGS" { "system.main.sources" } else { "system.main.settings" };
                Err(not_shown(&format!("SHOW {words}"), instead))
            }
            other => Err(not_offered(first_word(&other.to_string()))),
        },
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn not_shown(what: &str, instead: &str) -> Error {
    Error::unsupported(format!("{what} is not offered"))
        .with_hint(format!("read {instead}; SHOW TABLES and SHOW COLUMNS are offered"))
}

/// The refusal of a statement.
pub fn not_offered(what: &str) -> Error {
    Error::unsupported(format!("{what} is not offered"))
        .with_hint("SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, CREATE TABLE and DROP TABLE are")
}

fn within(what: &str) -> Error {
    Error::unsupported(format!("{} within another statement is not offered", what.to_uppercase())).with_hint("send it by itself")
}

/// A plan that is not itself a write must hold none at any depth: `EXPLAIN ANALYZE` runs what it explains.
pub fn refuse_writes(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        refused = match node {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(_)) => Some(within("CREATE TABLE")),
            LogicalPlan::Ddl(DdlStatement::DropTable(_)) => Some(within("DROP TABLE")),
            LogicalPlan::Ddl(ddl) => Some(within(ddl.name())),
            LogicalPlan::Dml(dml) => Some(within(dml.op.name())),
            LogicalPlan::Copy(_) => Some(not_offered("COPY")),
            LogicalPlan::Statement(statement) => Some(not_offered(statement.name())),
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
