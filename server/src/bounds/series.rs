//! Table functions that make a series of numbers: one whose end is that of all numbers would begin anew there, and never end.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Expr;
use nexus_flight_catalog::Error;

/// Each with whether its end is one of its numbers.
const FUNCTIONS: [(&str, bool); 2] = [("generate_series", true), ("range", false)];

#[derive(Debug)]
struct Ending {
    inner: Arc<dyn TableFunctionImpl>,
    includes_end: bool,
}

impl TableFunctionImpl for Ending {
    fn call(&self, args: &[Expr]) -> Result<Arc<dyn TableProvider>> {
        let number = |arg: &Expr| match arg {
            Expr::Literal(ScalarValue::Int64(number), _) => *number,
            _ => None,
        };
        let end = if args.len() == 1 { args.first() } else { args.get(1) }.and_then(number);
        let step = args.get(2).map_or(Some(1), number);
        if let (Some(end), Some(step)) = (end, step)
            && end.checked_add(if self.includes_end { step } else { step - step.signum() }).is_none()
        {
            return Err(Error::invalid(format!("a series to {end} in steps of {step} goes beyond the numbers of 64 bits"))
                .with_hint("end it one step earlier")
                .into());
        }
        self.inner.call(args)
    }
}

/// The state with these functions made to end.
pub(super) fn ending(mut state: SessionState) -> SessionState {
    for (name, includes_end) in FUNCTIONS {
        if let Some(inner) = state.table_functions().get(name).map(|table| Arc::clone(table.function())) {
            state.register_udtf(name, Arc::new(Ending { inner, includes_end }));
        }
    }
    state
}
