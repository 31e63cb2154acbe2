//! Calls of `native` in FROM. DataFusion asks a table function for its columns while it plans, and a source can only be waited for before that:
//! so each call becomes the name of a table, which is resolved like any other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, FromTable, FunctionArg, FunctionArgExpr, Ident, ObjectName, Statement, TableAlias, TableFactor, TableFunctionArgs,
    Value, VisitorMut,
};
use nexus_flight_catalog::native::SCHEMA;
use nexus_flight_catalog::{Error, Result, TableName};

use super::place;
use super::walk::walk;

/// The name of the function, and of its rows where the statement gives them none.
const NAME: &str = "native";

/// Takes the calls out of a statement: each is the name of a table then, and the statement in a source's own SQL is given with that name.
/// Errors: `Invalid` with the position for arguments that are not two texts, `Unsupported` where the rows of a call are to be changed.
pub(super) fn take(statement: &mut Statement) -> Result<BTreeMap<TableName, Arc<str>>> {
    if let Some(function) = changed(statement).into_iter().find_map(called) {
        return Err(Error::unsupported("the rows of native cannot be changed")
            .with_hint("name the table itself: catalog.schema.table")
            .at(place(function.span.start)));
    }
    let mut calls = Calls::default();
    match walk(statement, &mut calls) {
        ControlFlow::Continue(()) => Ok(calls.named()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The tables whose rows a statement changes.
fn changed(statement: &Statement) -> Vec<&TableFactor> {
    match statement {
        Statement::Update(update) => vec![&update.table.relation],
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            from.iter().map(|from| &from.relation).collect()
        }
        _ => Vec::new(),
    }
}

/// The name of the function where it is called.
fn called(table: &TableFactor) -> Option<&Ident> {
    let TableFactor::Table { name: ObjectName(parts), args: Some(_), .. } = table else { return None };
    let [part] = parts.as_slice() else { return None };
    part.as_ident().filter(|name| match name.quote_style {
        Some(_) => name.value == NAME,
        None => name.value.eq_ignore_ascii_case(NAME),
    })
}

/// The calls by catalog and statement, numbered as they come: the same one twice is one table.
#[derive(Default)]
struct Calls(BTreeMap<(String, String), usize>);

impl Calls {
    fn name(&mut self, catalog: String, sql: String) -> TableName {
        let next = self.0.len() + 1;
        let number = *self.0.entry((catalog.clone(), sql)).or_insert(next);
        TableName::new(catalog, SCHEMA, number.to_string())
    }

    fn named(self) -> BTreeMap<TableName, Arc<str>> {
        let named = |((catalog, sql), number): ((String, String), usize)| {
            (TableName::new(catalog, SCHEMA, number.to_string()), Arc::from(sql))
        };
        self.0.into_iter().map(named).collect()
    }
}

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Error> {
        let Some(span) = called(table).map(|function| function.span) else { return ControlFlow::Continue(()) };
        let TableFactor::Table { name, alias, args, .. } = table else { return ControlFlow::Continue(()) };
        match args.take().map(texts) {
            Some(Ok([catalog, sql])) => {
                let TableName { catalog, schema, table } = self.name(catalog, sql);
                let parts = [catalog, schema, table].map(|part| Ident::with_quote_and_span('"', span, part));
                *name = ObjectName::from(Vec::from(parts));
                alias.get_or_insert_with(|| TableAlias { explicit: true, name: Ident::new(NAME), columns: Vec::new() });
                ControlFlow::Continue(())
            }
            Some(Err(error)) => ControlFlow::Break(error.at(place(span.start))),
            None => ControlFlow::Continue(()),
        }
    }
}

/// The catalog and the statement.
fn texts(given: TableFunctionArgs) -> Result<[String; 2]> {
    match (given.args.as_slice(), given.settings) {
        ([catalog, sql], None) => Ok([text(catalog)?, text(sql)?]),
        _ => Err(wrong("native takes two arguments: a catalog, and a statement in its own SQL")),
    }
}

fn text(argument: &FunctionArg) -> Result<String> {
    let not_text = || wrong("the arguments of native are texts, as they stand in the statement");
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else { return Err(not_text()) };
    match &value.value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Ok(text.clone()),
        Value::DollarQuotedString(quoted) => Ok(quoted.value.clone()),
        Value::Placeholder(_) => Err(Error::invalid("native takes no parameters: its columns hang on its arguments")
            .with_hint("put the condition around it: SELECT … FROM native('catalog', 'SELECT …') WHERE id = $1")),
        _ => Err(not_text()),
    }
}

fn wrong(message: &str) -> Error {
    Error::invalid(message).with_hint("write native('catalog', 'SELECT …'), or $$SELECT …$$ where it has quotes of its own")
}

#[cfg(test)]
mod tests {
    use crate::config::Limits;
    use crate::statement::{Caps, Parsed, parse};

    fn parsed(text: &str) -> Parsed {
        parse(text, &Caps::new(&Limits::default())).unwrap()
    }

    /// What is left of a statement, and what it asks of sources.
    fn taken(text: &str) -> String {
        let Parsed { statement, natives, .. } = parsed(text);
        let natives = natives.iter().map(|(name, sql)| format!("\n{name}: {sql}"));
        format!("{statement}{}", natives.collect::<String>())
    }

    fn refusal(text: &str) -> String {
        parse(text, &Caps::new(&Limits::default())).unwrap_err().to_string()
    }

    #[test]
    fn each_call_is_a_name_and_the_same_one_twice_is_one() {
        insta::assert_snapshot!(taken("SELECT * FROM native('w', 'SELECT ''a''')"), @r#"
        SELECT * FROM "w"."native()"."1" AS native
        w.native().1: SELECT 'a'
        "#);
        insta::assert_snapshot!(taken("WITH a AS (SELECT * FROM NATIVE('w', $$x 'y'$$) n) SELECT * FROM a JOIN \"native\"('V', 'x') b ON true WHERE EXISTS (SELECT 1 FROM native('w', 'x ''y'''))"), @r#"
        WITH a AS (SELECT * FROM "w"."native()"."1" n) SELECT * FROM a JOIN "V"."native()"."2" b ON true WHERE EXISTS (SELECT 1 FROM "w"."native()"."1" AS native)
        V.native().2: x
        w.native().1: x 'y'
        "#);
    }

    #[test]
    fn what_is_no_call_stays_as_it_is() {
        for text in [
            "SELECT * FROM native",
            "SELECT * FROM \"Native\"('w', 'x')",
            "SELECT * FROM generate_series(1, 2)",
            "SELECT native('w', 'x')",
        ] {
            let Parsed { statement, natives, .. } = parsed(text);
            assert_eq!((statement.to_string(), natives.len()), (text.to_owned(), 0));
        }
    }

    #[test]
    fn the_arguments_are_two_texts() {
        let two = "line 1, column 15: native takes two arguments: a catalog, and a statement in its own SQL; write native('catalog', 'SELECT …'), or $$SELECT …$$ where it has quotes of its own";
        for arguments in ["", "'w'", "'w', 'x', 'y'"] {
            assert_eq!(refusal(&format!("SELECT * FROM native({arguments})")), two, "{arguments}");
        }
        for arguments in ["w, 'x'", "'w', 1", "'w', NULL", "'w', 'x' || 'y'", "'w', (SELECT 'x')", "'w', sql => 'x'", "'w', *"] {
            let said = refusal(&format!("SELECT * FROM native({arguments})"));
            assert!(
                said.starts_with("line 1, column 15: the arguments of native are texts, as they stand in the statement;"),
                "{said}"
            );
        }
        insta::assert_snapshot!(refusal("SELECT *\nFROM native('w', ?)"), @"line 2, column 6: native takes no parameters: its columns hang on its arguments; put the condition around it: SELECT … FROM native('catalog', 'SELECT …') WHERE id = $1");
    }

    #[test]
    fn its_rows_are_not_changed() {
        for text in
            ["DELETE FROM native('w', 'x')", "DELETE FROM native('w', 'x') WHERE a = 1", "UPDATE native('w', 'x') SET a = 1"]
        {
            let said = refusal(text);
            assert!(
                said.ends_with("the rows of native cannot be changed; name the table itself: catalog.schema.table"),
                "{said}"
            );
        }
    }
}
