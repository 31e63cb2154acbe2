//! Window functions: right over frames that slide, and bounded in what they hold. DataFusion's keep their whole input, and
//! neither that nor what they answer counts against the memory limit: a list of a whole table for each of its rows would be
//! asked of the allocator.

mod aggregates;
mod answers;
mod counted;
mod evaluators;
mod frame;
mod frames;
mod ntile;
mod partitions;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::WindowUDF;

pub use frames::Frames;
use ntile::Ntile;
pub use partitions::WindowsByPartition;

/// Puts the functions that are wrapped in the place of DataFusion's. Elsewhere than in windows they are the same.
pub fn register(state: &mut SessionState) -> Result<()> {
    aggregates::register(state)?;
    state.register_udwf(Arc::new(WindowUDF::from(Ntile::default())))?;
    evaluators::register(state)
}
