//! Answers in several parts, which clients fetch side by side: only where all parts together are the answer, whoever makes
//! each of them, and where.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use nexus_flight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, digest};
use crate::plan::Planned;

/// Operators that treat each row by itself.
const ROW_BY_ROW: [&str; 4] = ["CoalesceBatchesExec", "CooperativeExec", "FilterExec", "ProjectionExec"];

/// One part of an answer. It travels in a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which one, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// How many were asked for: it decides how files are shared out.
    pub wanted: usize,
    /// Of the plan and the versions of its tables, which must be the same for all parts.
    pub digest: Digest,
}

/// What all parts of a statement must have in common; none where it cannot be answered in parts, since a table is of unknown
/// version, or a function may give another value each time.
pub fn common(planned: &Planned) -> Option<Digest> {
    digest(planned, |_| false).ok().map(|digests| digests.whole())
}

/// How many parts a plan falls into: as many as its files are shared out in, where no operator looks at more than one row.
pub fn count(plan: &dyn ExecutionPlan) -> usize {
    let mut node = plan;
    loop {
        if node.fetch().is_some() {
            return 1;
        }
        let children = node.children();
        match *children.as_slice() {
            [] if node.name() == "DataSourceExec" => return plan.properties().output_partitioning().partition_count(),
            [only] if ROW_BY_ROW.contains(&node.name()) => node = only.as_ref(),
            _ => return 1,
        }
    }
}

impl Part {
    /// Errors: `Precondition` where the statement would not be answered as it was when the parts were made.
    pub fn check(&self, digest: Option<Digest>, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
        if digest == Some(self.digest) && count(plan.as_ref()) == self.of && self.index < self.of {
            return Ok(());
        }
        Err(Error::precondition("a table of the statement has changed since its answer was parted")
            .with_hint("send the statement again")
            .with_retryable(true))
    }
}
