//! The way of every query, written once: which layer stands on which, and why.

use std::sync::Arc;

use async_trait::async_trait;
use nexus_flight_catalog::Result;

use crate::config::Config;
use crate::layers::audit::{Audit, History};
use crate::layers::cache::{Cache, Kept};
use crate::layers::limit::Limit;
use crate::plan::{Planned, Planner};
use crate::query::{Answer, Description, Execute, Query};
use crate::route::Route;

/// A layer beneath the planner: a planned statement → its answer.
#[async_trait]
pub trait Run: Send + Sync {
    /// The answer of a statement that was planned.
    async fn run(&self, planned: Planned) -> Result<Answer>;
}

/// The stack with the parts of it that `system` shows.
pub struct Stack {
    /// What the protocols hold.
    pub execute: Arc<dyn Execute>,
    /// The statements that run and those that ran.
    pub history: Arc<History>,
    /// The answers that are kept.
    pub kept: Arc<Kept>,
}

/// Puts the layers on one another.
pub fn build(config: &Config, planner: Arc<Planner>) -> Stack {
    let history = Arc::new(History::default());
    let kept = Arc::new(Kept::new(config));
    // Runs what comes down to it.
    let run = Route;
    // Beneath the cache: an answer that is kept needs no permit.
    let run = Limit::new(run, &config.limits);
    // Beneath the planner: the key is made of the plan, after every check that the plan brings.
    let run = Cache::new(run, Arc::clone(&kept));
    // A statement becomes a plan here and nowhere else.
    let execute = Plan { planner, run };
    // Outermost: refusals and hits are statements too.
    let execute = Arc::new(Audit::new(execute, Arc::clone(&history)));
    Stack { execute, history, kept }
}

struct Plan<R> {
    planner: Arc<Planner>,
    run: R,
}

#[async_trait]
impl<R: Run> Execute for Plan<R> {
    async fn describe(&self, query: &Query) -> Result<Description> {
        query.cx.run(self.planner.describe(query)).await
    }

    async fn execute(&self, query: Query) -> Result<Answer> {
        let cx = query.cx.clone();
        cx.run(async { self.run.run(self.planner.plan(query).await?).await }).await
    }
}
