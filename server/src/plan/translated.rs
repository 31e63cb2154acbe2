//! `SELECT translate('statement', 'catalog or engine')`: the text that a statement would be at an engine, which `EXPLAIN` shows too. The
//! statement is planned as it would be to be answered, so that its names are found and its tables are those that who asks may see; none of
//! it runs.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, Value,
};
use nexus_engines::translate::{name_there, translate};
use nexus_engines::trino;
use nexus_flight_catalog::policy::is_part;
use nexus_flight_catalog::{Catalogs, Error, Place, Principal, Result, TableName, Tables};

use super::{Planner, Unbound};
use crate::query::Query;
use crate::session::Session;
use crate::statement;

/// The name of the function, and of its column where the statement gives it none.
const NAME: &str = "translate";

/// What is to be translated, for what, and the name of the column for the text.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    statement: String,
    target: String,
    column: String,
}

/// What a statement asks to be translated; none where it is no such statement. DataFusion has a function of this name too, of three texts.
/// Errors: `Invalid` where the two arguments are not texts.
pub(super) fn asked(statement: &Statement) -> Option<Result<Asked>> {
    let Statement::Statement(statement) = statement else { return None };
    let ast::Statement::Query(query) = statement.as_ref() else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [item] = select.projection.as_slice() else { return None };
    let (expr, column) = match item {
        SelectItem::UnnamedExpr(expr) => (expr, NAME.to_owned()),
        SelectItem::ExprWithAlias { expr, alias } => (expr, alias.value.clone()),
        _ => return None,
    };
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let [statement, target] = list.args.as_slice() else { return None };
    if !name.to_string().eq_ignore_ascii_case(NAME) {
        return None;
    }
    // With a FROM, a WHERE or anything else it is a call for each row.
    let is_alone = expr.to_string() == format!("{name}({statement}, {target})") && query.to_string() == format!("SELECT {item}");
    if !is_alone {
        return None;
    }
    Some(match (text(statement), text(target)) {
        (Some(statement), Some(target)) => Ok(Asked { statement, target, column }),
        _ => Err(Error::invalid("the two arguments of translate are texts, as they stand in the statement")
            .with_hint("write SELECT translate('SELECT …', 'catalog'), or $$SELECT …$$ where it has quotes of its own")),
    })
}

fn text(argument: &FunctionArg) -> Option<String> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else { return None };
    match &value.value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
        Value::DollarQuotedString(quoted) => Some(quoted.value.clone()),
        _ => None,
    }
}

impl Planner {
    /// The text as the one row of an answer. Errors: those of planning the statement; `NotFound` where there is no such engine; `Unsupported`
    /// with what of the statement cannot be translated; `Denied` to who sees only a part of one of its tables.
    pub(super) async fn plan_translated(&self, query: &Query, asked: Asked) -> Result<Unbound> {
        let Asked { statement, target, column } = asked;
        let parsed = statement::parse(&statement, &self.caps).map_err(placed)?;
        match &parsed.statement {
            Statement::Statement(given) if matches!(given.as_ref(), ast::Statement::Query(_)) => {}
            other => return Err(refused(first_word(&other.to_string()))),
        }
        if self::asked(&parsed.statement).is_some() {
            return Err(refused("a translation"));
        }
        // It is known by its own text: nothing of it is kept.
        let given = Query { statement: statement.into(), parameters: None, part: None, ..query.clone() };
        let planned = Box::pin(self.plan_statement(&given, None)).await.map_err(placed)?;
        let Unbound { plan, parameters, tables, state, catalogs, .. } = planned;
        if !parameters.is_empty() {
            return Err(refused("a parameter").with_hint("write a value in its place"));
        }
        let principal = &query.cx.principal;
        let catalog = of_target(&target, &tables, &catalogs, principal)?;
        let text = text_of(&plan, &tables, catalog.as_deref(), &query.session)?;
        state.give_back();
        let plan = LogicalPlanBuilder::empty(true).project([lit(text).alias(column)])?.build()?;
        let (state, catalogs) = (self.states.take(query), Arc::clone(&self.catalogs));
        let (parameters, is_analysed, is_temporary) = (Vec::new(), true, false);
        let (tables, explain, turn, call) = (Tables::default(), None, None, None);
        Ok(Unbound { plan, parameters, is_analysed, tables, state, catalogs, explain, is_temporary, turn, call })
    }
}

/// What EXPLAIN tells of a statement whose tables are all of one catalog of an engine: its text there, or why there is none. To who sees
/// only a part of one of them it tells nothing of this.
pub(super) fn explained(plan: &LogicalPlan, tables: &Tables, catalogs: &Catalogs, query: &Query) -> Option<String> {
    let catalog = of_one(tables, catalogs, &query.cx.principal)?;
    if tables.iter().any(|(_, table)| is_part(table)) {
        return None;
    }
    Some(match text_of(plan, tables, Some(&catalog), &query.session) {
        Ok(text) => text,
        Err(error) => error.message().to_owned(),
    })
}

/// The catalog that a statement is translated for: the one that is named, or of the engine that is named the one of all tables.
fn of_target(target: &str, tables: &Tables, catalogs: &Catalogs, principal: &Principal) -> Result<Option<String>> {
    match catalogs.source(principal, target) {
        Ok(source) if source.spec().kind == trino::SPEC.kind => Ok(Some(target.to_owned())),
        Ok(source) => Err(source.spec().refusal("translation")),
        Err(_) if target == trino::SPEC.kind => Ok(of_one(tables, catalogs, principal)),
        Err(error) => Err(error.retold(format!("there is no catalog or engine \"{target}\""))),
    }
}

/// The catalog of all tables, where they are of one, and that is one of an engine.
fn of_one(tables: &Tables, catalogs: &Catalogs, principal: &Principal) -> Option<String> {
    let mut names = tables.iter().map(|(name, _)| name.catalog.as_str());
    let first = names.next()?;
    let is_engine = catalogs.source(principal, first).is_ok_and(|source| source.spec().kind == trino::SPEC.kind);
    (is_engine && names.all(|name| name == first)).then(|| first.to_owned())
}

/// The text of an analysed plan whose tables are of a catalog.
fn text_of(plan: &LogicalPlan, tables: &Tables, catalog: Option<&str>, session: &Session) -> Result<String> {
    if let Some((name, _)) = tables.iter().find(|(_, table)| is_part(table)) {
        return Err(Error::denied(format!(
            "you see only a part of the table \"{name}\", and its translation would tell what is hidden"
        ))
        .with_hint("ask who keeps the policy of this gateway"));
    }
    translate(plan, &|reference: &TableReference| {
        let written = TableName::resolve(reference, &session.catalog, &session.schema);
        let Some((name, table)) = tables.get(&written) else {
            return Err(refused(&format!("the table \"{written}\"")));
        };
        let there = name_there(table.provider.as_ref()).filter(|_| catalog == Some(name.catalog.as_str()));
        there.ok_or_else(|| {
            let hint = match catalog {
                Some(catalog) => format!("only tables of \"{catalog}\" are there, and no rows of native"),
                None => format!("all tables have to be of one catalog of kind \"{}\"", trino::SPEC.kind),
            };
            refused(&format!("the table \"{name}\"")).with_hint(hint)
        })
    })
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("cannot translate {what} for {}", trino::SPEC.kind))
        .with_hint("a query can be translated: SELECT, WITH or VALUES")
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// An error of a statement within another one, of which a position in it is none.
fn placed(error: Error) -> Error {
    let Some(place @ Place::Statement { .. }) = error.place() else { return error };
    let message = format!("in the statement to translate, {place}: {}", error.message());
    error.retold(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::statement::{Caps, parse};

    fn found(text: &str) -> Option<Result<Asked>> {
        asked(&parse(text, &Caps::new(&Limits::default())).unwrap().statement)
    }

    #[test]
    fn a_translation_is_known_by_its_form() {
        for (text, column) in
            [("SELECT translate('SELECT 1', 'trino')", "translate"), ("select TRANSLATE($$SELECT 1$$, 'trino') AS sql", "sql")]
        {
            let wanted = Asked { statement: "SELECT 1".to_owned(), target: "trino".to_owned(), column: column.to_owned() };
            assert_eq!(found(text).unwrap().unwrap(), wanted, "{text}");
        }
        for text in [
            "SELECT translate('abc', 'a', 'b')",
            "SELECT translate('SELECT 1', 'trino') FROM t",
            "SELECT translate('SELECT 1', 'trino'), 1",
            "SELECT translate('SELECT 1', 'trino') WHERE false",
            "SELECT DISTINCT translate('SELECT 1', 'trino')",
            "SELECT translate('SELECT 1', 'trino') LIMIT 0",
            "WITH a AS (SELECT 1) SELECT translate('SELECT 1', 'trino')",
            "SELECT lower('SELECT 1', 'trino')",
            "EXPLAIN SELECT translate('SELECT 1', 'trino')",
        ] {
            assert!(found(text).is_none(), "{text}");
        }
        let error = found("SELECT translate(sql, 'trino')").unwrap().unwrap_err();
        assert!(error.message().starts_with("the two arguments of translate are texts"), "{error}");
    }
}
