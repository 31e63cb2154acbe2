//! The way of every query, written once: which layer stands on which, and why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Catalogs, Context, Error, Result};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::audit::Trail;
use crate::config::Config;
use crate::layers::Run;
use crate::layers::admission::{Admission, Coming, Gate};
use crate::layers::audit::{Audit, History};
use crate::layers::cache::{Cache, Kept, Refreshes};
use crate::parts::Part;
use crate::plan::{Planned, Planner};
use crate::procedures;
use crate::query::{Answer, Description, Execute, Query, nullable};
use crate::route::{self, Route};
use crate::running::Running;
use crate::workers::Workers;
use crate::writes::Writes;

/// The stack with the parts of it that `system` shows.
pub struct Stack {
    /// What the protocols hold.
    pub execute: Arc<dyn Execute>,
    /// The statements that run and those that ran.
    pub history: Arc<History>,
    /// The answers that are kept.
    pub kept: Arc<Kept>,
    /// Whether there is room for one more.
    pub gate: Arc<Gate>,
}

/// Puts the layers on one another. Statements are recorded in the trail, where there is one.
pub fn build(
    config: &Config,
    catalogs: Arc<Catalogs>,
    planner: Arc<Planner>,
    workers: Workers,
    writes: Arc<Writes>,
    trail: Option<Arc<Trail>>,
) -> Stack {
    let history = Arc::new(History::default());
    let kept = Arc::new(Kept::new(config, writes));
    // Runs what comes down to it.
    let run = Route::new(&config.limits);
    let most = run.most();
    // Beneath the cache: an answer that is kept needs no slot, and one that is made for another statement too needs one.
    let gate = Gate::new(&config.limits, config.share());
    let run = Admission::new(run, Arc::clone(&gate), catalogs);
    // Beneath the planner: the key is made of the plan, after every check that the plan brings.
    let longest = config.limits.time.0;
    let refreshes = Arc::new(Refreshes::new(workers.clone(), longest));
    let run = Cache::new(run, Arc::clone(&kept), Arc::clone(&refreshes), workers.clone(), config.limits.stall.0);
    // A statement becomes a plan here and nowhere else.
    let execute = Plan { planner, gate: Arc::clone(&gate), run: Arc::new(run), workers, most, longest };
    // Outermost: refusals and hits are statements too. On the threads of the protocols, where streams are read, and are ended where
    // nobody wants or reads them any more.
    let execute: Arc<dyn Execute> = Arc::new(Audit::new(execute, Arc::clone(&history), trail, config.limits.stall.0));
    // What is made anew goes the whole way too: with today's rights, a slot and a record of its own.
    refreshes.go_by(&execute);
    Stack { execute, history, kept, gate }
}

struct Plan<R> {
    planner: Arc<Planner>,
    gate: Arc<Gate>,
    run: Arc<Cache<R>>,
    workers: Workers,
    /// The bytes that the literals of a statement may take in a batch.
    most: usize,
    /// How long any statement may take.
    longest: Duration,
}

impl<R> Clone for Plan<R> {
    fn clone(&self) -> Self {
        let (planner, gate, run) = (Arc::clone(&self.planner), Arc::clone(&self.gate), Arc::clone(&self.run));
        Self { planner, gate, run, workers: self.workers.clone(), most: self.most, longest: self.longest }
    }
}

impl<R: Run + 'static> Plan<R> {
    /// What has to be planned anew is held against the room that there is: here, where nobody keeps a refusal waiting.
    fn announce(&self, query: &Query) -> Result<Option<Coming>> {
        // What an operator calls for is wanted most where there is no room.
        let is_new = !procedures::begins_a_call(&query.statement) && !self.planner.has(query);
        is_new.then(|| self.gate.announce(&query.cx.principal)).transpose()
    }

    /// The same query to those who do its work: others may read its answer when its own client does not wait any more. That ends the
    /// work from outside where it is nobody else's; what is of a transaction never is.
    fn apart(&self, query: Query) -> Query {
        if query.transaction.is_some() || query.ingest.is_some() {
            return query;
        }
        let (cancel, deadline) = (CancellationToken::new(), Some(Instant::now() + self.longest));
        Query { cx: Context { cancel, deadline, ..query.cx.clone() }, ..query }
    }

    async fn of_one_row(&self, query: Query) -> Result<Answer> {
        let span = planning(&query);
        let at_once = async {
            match self.answered_at_once(&query).instrument(span.clone()).await {
                Some(answer) => Ok(Some(answer)),
                None => self.made_at_once(&query, span.clone()).await,
            }
        };
        if let Some(answer) = query.cx.run(at_once).await? {
            return Ok(answer);
        }
        let coming = self.announce(&query)?;
        let (planner, run, cx) = (Arc::clone(&self.planner), Arc::clone(&self.run), query.cx.clone());
        let query = self.apart(query);
        let work = async move {
            let planned = match planner.known(&query, false).instrument(span.clone()).await {
                // What is made here is moved several times before it begins, and this is large.
                None => planner.plan(query).boxed().instrument(span).await?,
                Some(known) => match run.known(&known).await {
                    Some(answer) => {
                        known.state.give_back();
                        return Ok(answer);
                    }
                    None => planner.renew(known).boxed().instrument(span).await?,
                },
            };
            let planned = planned.ok_or_else(|| Error::internal("one row of parameters was not planned"))?;
            run.run(Planned { coming, ..planned }).await
        };
        // In a place of its own before it is handed on, else each hand-over would move all of it.
        cx.run(self.workers.answer(&cx.principal, work.boxed())).await
    }

    /// The answer that is kept to a statement of which all but that is known. It is given on the thread that asks: to hand it to another
    /// one, and back, takes longer than all else.
    async fn answered_at_once(&self, query: &Query) -> Option<Answer> {
        let known = self.planner.known(query, true).await?;
        let answer = self.run.known(&known).await;
        known.state.give_back();
        answer
    }

    /// The answer to a statement that gives values which stand in it. It is made on the thread that asks too, and takes its turn as any other.
    async fn made_at_once(&self, query: &Query, span: Span) -> Result<Option<Answer>> {
        let Some(planned) = self.planner.constant(query).instrument(span).await else { return Ok(None) };
        let made = async {
            let answer = self.run.run(planned).await?;
            let batches: Vec<Result<RecordBatch>> = answer.batches.collect().await;
            Ok::<_, Error>(Some(Answer { batches: stream::iter(batches).boxed(), ..answer }))
        };
        // Its slot is free again by then.
        Running::with((), made).await
    }

    /// The shape of such an answer, or of one that hangs on no table.
    async fn described_at_once(&self, query: &Query) -> Option<Description> {
        match self.planner.describe_at_once(query).await {
            Some(description) => Some(description),
            None => described(&self.planner, &self.run, query, true).await,
        }
    }

    /// The answer to all rows of parameters at once; none where the statement has to run for each of them.
    async fn of_all_rows(&self, query: &Query) -> Result<Option<Answer>> {
        let coming = self.announce(query)?;
        let (planner, run, cx) = (Arc::clone(&self.planner), Arc::clone(&self.run), query.cx.clone());
        let asked = self.apart(query.clone());
        let span = planning(&asked);
        let planned = async move { planner.plan(asked).await }.instrument(span);
        let Some(planned) = cx.run(self.workers.run(&cx.principal, planned.boxed())).await? else {
            return Ok(None);
        };
        let planned = Planned { coming, ..planned };
        cx.run(self.workers.answer(&cx.principal, async move { run.run(planned).await })).await.map(Some)
    }
}

impl<R: Run + 'static> Plan<R> {
    /// The parts of an answer of which so many are wanted; none where it comes as a whole.
    async fn parts(&self, query: &Query, wanted: usize) -> Result<Vec<Part>> {
        let whole = Part { index: 0, of: 1, wanted, digest: [0; 32] };
        let (planner, asked, cx) = (Arc::clone(&self.planner), Query { part: Some(whole), ..query.clone() }, query.cx.clone());
        let most = self.most;
        let span = planning(&asked);
        let parts = async move {
            match planner.plan(asked).await? {
                Some(planned) => route::parts(planned, most).await,
                None => Ok(Vec::new()),
            }
        };
        let parts = parts.instrument(span);
        cx.run(self.workers.run(&cx.principal, parts)).await
    }
}

#[async_trait]
impl<R: Run + 'static> Execute for Plan<R> {
    async fn describe(&self, query: &Query) -> Result<Description> {
        let _coming = self.announce(query)?;
        let span = planning(query);
        let at_once = async { Ok::<_, Error>(self.described_at_once(query).await) }.instrument(span.clone());
        let description = match query.cx.run(at_once).await? {
            Some(description) => description,
            None => {
                let (planner, run, asked) = (Arc::clone(&self.planner), Arc::clone(&self.run), query.clone());
                let work = async move {
                    match described(&planner, &run, &asked, false).await {
                        Some(description) => Ok(description),
                        None => planner.describe(&asked).boxed().await,
                    }
                };
                query.cx.run(self.workers.run(&query.cx.principal, work.instrument(span).boxed())).await?
            }
        };
        // A later row may be NULL where the first is not.
        let schema = if query.rows() > 1 { nullable(&description.schema) } else { description.schema };
        let parts = match query.session.options.endpoints.filter(|_| !description.is_update && query.may_be_parted()) {
            Some(wanted) => self.parts(query, wanted).await?,
            None => Vec::new(),
        };
        Ok(Description { schema, parts, ..description })
    }

    async fn execute(&self, query: Query) -> Result<Answer> {
        let rows = query.rows();
        if rows <= 1 {
            return self.of_one_row(query).await;
        }
        if let Some(answer) = self.of_all_rows(&query).await? {
            return Ok(answer);
        }
        // One after the other, each when the rows before it were read: the answers to many rows take no more than that to one.
        let first = self.of_one_row(query.of_row(0)).await?;
        let schema = nullable(&first.schema);
        let (plan, shape) = (self.clone(), Arc::clone(&schema));
        let later = stream::iter(1..rows).then(move |row| {
            let (plan, shape, query) = (plan.clone(), Arc::clone(&shape), query.of_row(row));
            async move {
                let answer = plan.of_one_row(query).await?;
                if nullable(&answer.schema) != shape {
                    let message = format!("row {} of the parameters gives columns of other types than row 1", row + 1);
                    return Err(Error::invalid(message).with_hint("cast the parameters, or execute them one by one"));
                }
                Ok(answer.batches)
            }
        });
        let shape = Arc::clone(&schema);
        let batches = first.batches.chain(later.try_flatten()).map(move |batch| Ok(batch?.with_schema(Arc::clone(&shape))?));
        Ok(Answer::new(schema, batches.boxed()))
    }
}

/// The shape of the answer that is kept to a statement of which all but that is known: where the rows will come from the cache, nobody is
/// asked what their columns are either.
async fn described<R: Run + 'static>(planner: &Planner, run: &Cache<R>, query: &Query, is_analysed: bool) -> Option<Description> {
    let known = planner.known(query, is_analysed).await?;
    if run.has(&known).await {
        return planner.describe_known(known).await;
    }
    known.state.give_back();
    None
}

/// The span of a statement that is planned.
fn planning(query: &Query) -> Span {
    tracing::info_span!(target: TRACE, parent: &query.cx.span, "plan")
}
