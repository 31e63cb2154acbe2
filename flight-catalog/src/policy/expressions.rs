//! The texts of a policy as expressions: what can be said against one before there is a table for it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{self, ExprWithAlias, FunctionArguments, ObjectNamePart, Query, Value, Visit, Visitor};

use crate::error::{Error, Result, suggestion};

/// What stands for who asks in an expression of a policy.
pub(super) const USER: &str = "$user";

/// What to write in place of what is not of one row.
const OF_ONE_ROW: &str = "a rule is about one row alone: write it with its columns, values and $user";

/// Calls that the planner makes others of.
const PLANNED_AWAY: [&str; 2] = ["make_map", "map"];

/// Reads the text of an expression, as far as it nests. Errors: what is wrong with it.
type Parse = Box<dyn Fn(&str) -> Result<ExprWithAlias> + Send + Sync>;

/// Makes expressions of texts.
pub struct Expressions {
    pub(super) state: Arc<SessionState>,
    parse: Parse,
}

impl Expressions {
    /// With the functions of a state, and a bounded way to read texts.
    pub fn new(state: SessionState, parse: impl Fn(&str) -> Result<ExprWithAlias> + Send + Sync + 'static) -> Self {
        Self { state: Arc::new(state), parse: Box::new(parse) }
    }

    /// The expression over columns that a text means.
    pub(super) fn logical(&self, text: &str, names: &DFSchema) -> Result<Expr> {
        Ok(self.state.create_logical_expr_from_sql_expr((self.parse)(text)?, names)?)
    }

    /// Whether a text can be an expression over the columns of some table. Errors: `Invalid`, with what is wrong as it goes on behind the
    /// text.
    pub(super) fn check(&self, text: &str) -> Result<()> {
        let parsed = (self.parse)(text).map_err(|error| Error::invalid(format!("is no expression: {}", error.message())))?;
        match parsed.visit(&mut OfOneRow(&self.state)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expressions").finish_non_exhaustive()
    }
}

/// Looks for what is not made of one row alone, or of nothing that is there.
struct OfOneRow<'a>(&'a SessionState);

impl OfOneRow<'_> {
    /// The planner looks for a function in the same order.
    fn check(&self, function: &ast::Function) -> ControlFlow<Error> {
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => ident.value.to_ascii_lowercase(),
            [ObjectNamePart::Identifier(ident)] => ident.value.clone(),
            _ => function.name.to_string(),
        };
        let functions = self.0.scalar_functions();
        if functions.contains_key(&name) || PLANNED_AWAY.contains(&name.as_str()) {
            return ControlFlow::Continue(());
        }
        let is_over_rows = self.0.aggregate_functions().contains_key(&name) || self.0.window_functions().contains_key(&name);
        if function.over.is_some() || is_over_rows || name == "unnest" {
            return ControlFlow::Break(Error::invalid(format!("calls \"{name}\" over several rows")).with_hint(OF_ONE_ROW));
        }
        if matches!(function.args, FunctionArguments::None) {
            // It may be a column of that name.
            return ControlFlow::Continue(());
        }
        let mut known: Vec<&str> = functions.keys().map(String::as_str).collect();
        known.sort_unstable();
        let hint = suggestion(&name, &known, || OF_ONE_ROW.to_owned());
        ControlFlow::Break(Error::invalid(format!("calls \"{name}\", and there is no such function")).with_hint(hint))
    }
}

impl Visitor for OfOneRow<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::invalid("has a sub-select").with_hint(OF_ONE_ROW))
    }

    fn pre_visit_value(&mut self, value: &Value) -> ControlFlow<Error> {
        match value {
            Value::Placeholder(name) if name.as_str() != USER => ControlFlow::Break(
                Error::invalid(format!("has the parameter \"{name}\", which nothing gives a value"))
                    .with_hint("who asks is written as $user, and there is no other"),
            ),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        match expr {
            ast::Expr::Function(function) => self.check(function),
            _ => ControlFlow::Continue(()),
        }
    }
}
