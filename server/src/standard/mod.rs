//! Where DataFusion's plans and functions answer otherwise than the standard (ISO/IEC 9075-2), and PostgreSQL: put right.
//! What can be told from the text alone is put right there, in [`crate::statement`]; windows have a place of their own.

mod casts;
mod distinct;
mod escapes;
mod items;
mod moments;
mod nan;
mod numbers;
mod overlay;
mod recursion;
mod single_row;
mod subqueries;
mod types;

pub use casts::Casts;
pub use distinct::Distinct;
pub use escapes::Escapes;
pub use nan::PlainNan;
pub use numbers::Numbers;
pub use recursion::WholeRecursion;
pub use single_row::SingleRow;
pub use subqueries::Subqueries;
pub use types::MoreTypes;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::logical_expr::ScalarUDF;

use self::overlay::Overlay;

/// Has a state call these functions in place of DataFusion's.
pub fn register(state: &mut SessionState) -> Result<()> {
    state.register_udf(Arc::new(ScalarUDF::from(Overlay::default())))?;
    items::register(state)?;
    moments::register(state)
}
