//! What stands between the protocols and the execution. No layer knows a product.

pub mod admission;
pub mod audit;
pub mod cache;

use async_trait::async_trait;
use nexus_flight_catalog::Result;

use crate::plan::Planned;
use crate::query::Answer;

/// A layer beneath the planner: a planned statement → its answer.
#[async_trait]
pub trait Run: Send + Sync {
    /// The answer of a statement that was planned.
    async fn run(&self, planned: Planned) -> Result<Answer>;
}
