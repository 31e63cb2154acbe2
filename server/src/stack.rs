//! The way of every query, written once: which layer stands on which, and why.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Context, Result};

use crate::config::Config;
use crate::layers::Run;
use crate::layers::audit::{Audit, History};
use crate::layers::cache::{Cache, Kept};
use crate::layers::limit::Limit;
use crate::plan::Planner;
use crate::query::{Answer, Batches, Description, Execute, Query};
use crate::route::Route;
use crate::workers::Workers;

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
pub fn build(config: &Config, planner: Arc<Planner>, workers: Workers) -> Stack {
    let history = Arc::new(History::default());
    let kept = Arc::new(Kept::new(config));
    // Runs what comes down to it.
    let run = Route::new(&config.limits);
    // Beneath the cache: an answer that is kept needs no permit.
    let run = Limit::new(run, &config.limits);
    // Beneath the planner: the key is made of the plan, after every check that the plan brings.
    let run = Cache::new(run, Arc::clone(&kept));
    // A statement becomes a plan here and nowhere else.
    let execute = Plan { planner, run: Arc::new(run), workers };
    // Outermost: refusals and hits are statements too. On the threads of the protocols, where streams are read.
    let execute = Arc::new(Audit::new(execute, Arc::clone(&history)));
    Stack { execute, history, kept }
}

struct Plan<R> {
    planner: Arc<Planner>,
    run: Arc<R>,
    workers: Workers,
}

#[async_trait]
impl<R: Run + 'static> Execute for Plan<R> {
    async fn describe(&self, query: &Query) -> Result<Description> {
        let (planner, described) = (Arc::clone(&self.planner), query.clone());
        query.cx.run(self.workers.run(async move { planner.describe(&described).await })).await
    }

    async fn execute(&self, query: Query) -> Result<Answer> {
        let (planner, run, cx) = (Arc::clone(&self.planner), Arc::clone(&self.run), query.cx.clone());
        let work = async move { run.run(planner.plan(query).await?).await };
        let mut answer = cx.run(self.workers.run(work)).await?;
        answer.batches = until_unwanted(self.workers.stream(answer.batches), cx);
        Ok(answer)
    }
}

/// Ends a stream with an error as soon as nobody wants it any more.
fn until_unwanted(batches: Batches, cx: Context) -> Batches {
    futures::stream::try_unfold((batches, cx), |(mut batches, cx)| async move {
        let next = cx.run(async { batches.try_next().await }).await?;
        Ok(next.map(|batch| (batch, (batches, cx))))
    })
    .boxed()
}
