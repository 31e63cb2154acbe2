//! What can be called: `CALL system.invalidate('catalog.schema.table')` and `CALL system.invalidate_tag('tag')`.

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};
use nexus_flight_catalog::{Error, Result, TableName};
use serde::Deserialize;

use crate::system::CATALOG;

/// What is given up of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidate {
    /// What is over one of these tables: a name may mean several.
    Tables(Vec<TableName>),
    /// What has a tag.
    Tag(String),
}

/// A call as a request writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Named {
    /// Of a table, by its name.
    Table(String),
    /// Of a tag.
    Tag(String),
}

/// A call of a procedure that there is.
pub struct Called<'a> {
    is_of_tag: bool,
    function: &'a Function,
}

const INVALIDATE: &str = "invalidate";
const INVALIDATE_TAG: &str = "invalidate_tag";

/// The procedure that a statement calls; none where it is no call, or of none that there is in `schema` of the catalog `system`.
pub fn called<'a>(statement: &'a Statement, schema: &str) -> Option<Called<'a>> {
    let Statement::Statement(statement) = statement else { return None };
    let ast::Statement::Call(function) = statement.as_ref() else { return None };
    let parts = function.name.0.iter().map(|part| part.as_ident().map(folded)).collect::<Option<Vec<String>>>()?;
    let (name, place) = parts.split_last()?;
    let is_here = match place {
        [catalog] => catalog == CATALOG,
        [catalog, within] => catalog == CATALOG && within == schema,
        _ => false,
    };
    let is_of_tag = name == INVALIDATE_TAG;
    (is_here && (is_of_tag || name == INVALIDATE)).then_some(Called { is_of_tag, function })
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

impl Called<'_> {
    /// What it gives up, where `places` says what the name of a table may mean. Errors: `Invalid` where its argument is no text.
    pub fn invalidates(&self, places: impl Fn(&TableReference) -> Result<Vec<TableName>>) -> Result<Invalidate> {
        let (name, what) = if self.is_of_tag { (INVALIDATE_TAG, "tag") } else { (INVALIDATE, "catalog.schema.table") };
        let wrong = |message: String| Error::invalid(message).with_hint(format!("write CALL system.{name}('{what}')"));
        let text = self.text().ok_or_else(|| wrong(format!("{name} takes one text")))?;
        if self.is_of_tag {
            return Ok(Invalidate::Tag(text.to_owned()));
        }
        let reference = TableReference::parse_str(text);
        // What cannot be parted is taken as one name.
        let is_whole = matches!(&reference, TableReference::Bare { table } if **table == *text);
        if text.is_empty() || (is_whole && text.contains(['.', '"'])) {
            return Err(wrong(format!("\"{text}\" is no name of a table")));
        }
        Ok(Invalidate::Tables(places(&reference)?))
    }

    /// The one argument, where it is a text and nothing else is said.
    fn text(&self) -> Option<&str> {
        let Function { args: FunctionArguments::List(list), filter: None, over: None, null_treatment: None, .. } = self.function
        else {
            return None;
        };
        let FunctionArgumentList { duplicate_treatment: None, args, clauses } = list else { return None };
        match args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] if clauses.is_empty() => match &value.value {
                Value::SingleQuotedString(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Named {
    /// The statement that it stands for. Errors: `Invalid` where the name has a quote, which a text of SQL would change.
    pub fn statement(&self) -> Result<String> {
        let (name, text) = match self {
            Named::Table(table) => (INVALIDATE, table),
            Named::Tag(tag) => (INVALIDATE_TAG, tag),
        };
        if text.contains('\'') {
            let error = Error::invalid("a name with a quote is not taken here");
            return Err(error.with_hint(format!("send CALL system.{name}('…')")));
        }
        let value = Expr::Value(Value::SingleQuotedString(text.clone()).into());
        let list = FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value))],
            clauses: Vec::new(),
        };
        let function = Function {
            name: ObjectName::from(vec![Ident::new(CATALOG), Ident::new(name)]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(list),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: Vec::new(),
        };
        Ok(ast::Statement::Call(function).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::statement::{Caps, parse};

    fn invalidates(text: &str) -> Option<Result<Invalidate>> {
        let parsed = parse(text, &Caps::new(&Limits::default())).unwrap();
        let places = |reference: &TableReference| Ok(vec![TableName::resolve(reference, "c", "s")]);
        called(&parsed.statement, "main").map(|called| called.invalidates(places))
    }

    #[test]
    fn a_call_says_what_is_given_up() {
        let table = |catalog: &str, schema: &str, table: &str| Invalidate::Tables(vec![TableName::new(catalog, schema, table)]);
        for (text, wanted) in [
            ("CALL system.invalidate('a.b.T')", table("a", "b", "t")),
            ("call SYSTEM.main.Invalidate('b.\"T.t\"')", table("c", "b", "T.t")),
            ("CALL system.invalidate('t')", table("c", "s", "t")),
            ("CALL system.invalidate_tag('It''s')", Invalidate::Tag("It's".to_owned())),
        ] {
            assert_eq!(invalidates(text).unwrap().unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn another_call_is_none_of_these() {
        let others = ["CALL invalidate('t')", "CALL system.other.invalidate('t')", "CALL system.\"Invalidate\"('t')", "SELECT 1"];
        for text in others {
            assert!(invalidates(text).is_none(), "{text}");
        }
        for text in ["CALL system.invalidate('a.b.c.d')", "CALL system.invalidate(1)", "CALL system.invalidate('')"] {
            invalidates(text).unwrap().unwrap_err();
        }
        let error = invalidates("CALL system.invalidate_tag").unwrap().unwrap_err();
        insta::assert_snapshot!(error, @"invalidate_tag takes one text; write CALL system.invalidate_tag('tag')");
    }

    #[test]
    fn a_request_is_the_same_as_its_statement() {
        let statement = Named::Table("a.b.\"T\"".to_owned()).statement().unwrap();
        assert_eq!(statement, "CALL system.invalidate('a.b.\"T\"')");
        let statement = Named::Tag("nightly".to_owned()).statement().unwrap();
        assert_eq!(invalidates(&statement).unwrap().unwrap(), Invalidate::Tag("nightly".to_owned()));
        Named::Tag("it's".to_owned()).statement().unwrap_err();
    }
}
