//! What can be called: `CALL system.invalidate('catalog.schema.table')`, `CALL system.invalidate_tag('tag')`, `CALL system.drain('catalog')`
//! and `CALL system.undrain('catalog')`.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};
use nexus_flight_catalog::{Error, Result, TableName};
use serde::Deserialize;

use crate::engines::Watched;
use crate::system::CATALOG;

/// What a statement calls for.
#[derive(Debug, Clone)]
pub enum Call {
    /// That answers are given up.
    Invalidate(Invalidate),
    /// That an engine takes no new statements, or takes them again.
    Drain {
        /// The engine.
        engine: Arc<Watched>,
        /// Whether it is to take none.
        is_drained: bool,
    },
}

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
    procedure: &'static Procedure,
    function: &'a Function,
}

/// A procedure, and what its one argument is.
#[derive(Debug, PartialEq, Eq)]
struct Procedure {
    name: &'static str,
    takes: &'static str,
}

/// The bytes of a call that needs no room.
const LONGEST: usize = 1_000;

const INVALIDATE: &str = "invalidate";
const INVALIDATE_TAG: &str = "invalidate_tag";
const DRAIN: &str = "drain";
const UNDRAIN: &str = "undrain";

static PROCEDURES: [Procedure; 4] = [
    Procedure { name: INVALIDATE, takes: "catalog.schema.table" },
    Procedure { name: INVALIDATE_TAG, takes: "tag" },
    Procedure { name: DRAIN, takes: "catalog" },
    Procedure { name: UNDRAIN, takes: "catalog" },
];

/// Whether a text is a call or none at all, and short: it is planned without reading anything.
pub fn begins_a_call(text: &str) -> bool {
    let begins = text.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("call "));
    begins && text.len() <= LONGEST
}

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
    let procedure = PROCEDURES.iter().find(|procedure| is_here && procedure.name == name.as_str())?;
    Some(Called { procedure, function })
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

impl Called<'_> {
    /// Whether an engine is to take no new statements, or take them again; none where the call is about the cache.
    pub fn drains(&self) -> Option<bool> {
        match self.procedure.name {
            DRAIN => Some(true),
            UNDRAIN => Some(false),
            _ => None,
        }
    }

    /// The argument. Errors: `Invalid` where it is no text.
    pub fn argument(&self) -> Result<&str> {
        self.text().ok_or_else(|| self.wrong(&format!("{} takes one text", self.procedure.name)))
    }

    fn wrong(&self, message: &str) -> Error {
        let Procedure { name, takes } = self.procedure;
        Error::invalid(message).with_hint(format!("write CALL system.{name}('{takes}')"))
    }

    /// What it gives up, where `places` says what the name of a table may mean. Errors: `Invalid` where its argument is no text.
    pub fn invalidates(&self, places: impl Fn(&TableReference) -> Result<Vec<TableName>>) -> Result<Invalidate> {
        let text = self.argument()?;
        if self.procedure.name == INVALIDATE_TAG {
            return Ok(Invalidate::Tag(text.to_owned()));
        }
        let reference = TableReference::parse_str(text);
        // What cannot be parted is taken as one name.
        let is_whole = matches!(&reference, TableReference::Bare { table } if **table == *text);
        if text.is_empty() || (is_whole && text.contains(['.', '"'])) {
            return Err(self.wrong(&format!("\"{text}\" is no name of a table")));
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
    fn a_call_says_which_engine_takes_statements() {
        let drains = |text: &str| {
            let parsed = parse(text, &Caps::new(&Limits::default())).unwrap();
            let called = called(&parsed.statement, "main").unwrap();
            (called.drains(), called.argument().map(str::to_owned).map_err(|error| error.to_string()))
        };
        assert_eq!(drains("CALL system.drain('Lake')"), (Some(true), Ok("Lake".to_owned())));
        assert_eq!(drains("CALL system.main.undrain('lake')"), (Some(false), Ok("lake".to_owned())));
        assert_eq!(drains("CALL system.invalidate_tag('lake')"), (None, Ok("lake".to_owned())));
        let said = "drain takes one text; write CALL system.drain('catalog')".to_owned();
        assert_eq!(drains("CALL system.drain(1)"), (Some(true), Err(said)));
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
