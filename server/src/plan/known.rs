//! A statement over its tables as they were looked up lately, by which an answer that is kept is found. Where none is, it goes on over the
//! tables as they are now.

use std::sync::Arc;
use std::time::Instant;

use nexus_flight_catalog::{Result, Tables};

use super::{Planned, Planner, Unbound, analyse, described, schema_of};
use crate::engines::Engines;
use crate::lookups::{Known, Lookups};
use crate::parameters::bind;
use crate::plans;
use crate::query::{Description, Query};

impl Planner {
    /// The same, by which these engines can be drained.
    pub fn with_engines(self, engines: Arc<Engines>) -> Self {
        Self { engines: Some(engines), ..self }
    }

    /// The same, which takes what was looked up lately for what is so, where an answer is kept.
    pub fn with_lookups(self, lookups: Lookups) -> Self {
        Self { lookups, ..self }
    }

    /// The plan of a statement that came before, over tables of which all but the rows is known: with `is_analysed` where nothing of it is
    /// still to be worked out, and else where something is, as where a plan needs values. None where that is not known of each of them, or
    /// the client wants what is so now. What is wrong is told by who plans it then.
    pub async fn known(&self, query: &Query, is_analysed: bool) -> Option<Planned> {
        let control = query.session.options.cache.unwrap_or_default();
        let wants_now = control.no_cache || control.no_store || control.max_age == Some(0);
        let is_other = query.ingest.is_some() || query.substrait.is_some() || query.part.is_some() || query.rows() > 1;
        if self.lookups.is_off() || wants_now || is_other || query.transaction.is_some() {
            return None;
        }
        let began = Instant::now();
        let kept = self.plans.get(&self.key(query)?).await?;
        if kept.is_analysed != is_analysed {
            return None;
        }
        let tables = self.lookups.tables(kept.known()?, &kept.wanted)?;
        let unbound = self.laid_over(query, &kept, Arc::clone(&self.catalogs), tables).await.ok()??;
        let Unbound { plan, parameters, tables, state, turn, .. } = unbound;
        let bound = match &query.parameters {
            Some(values) => bind(plan, &parameters, values).ok()?,
            None if parameters.is_empty() => plan,
            None => return None,
        };
        let plan = if is_analysed { bound } else { analyse(bound, &state.session).ok()? };
        drop(turn);
        let (query, schema) = (query.clone(), schema_of(&plan));
        Some(Planned { query, schema, plan, tables, state, write: None, explain: None, call: None, began, coming: None })
    }

    /// The plan of a statement that came before and gives values which stand in it.
    pub async fn constant(&self, query: &Query) -> Option<Planned> {
        let is_other = query.ingest.is_some() || query.substrait.is_some() || query.part.is_some();
        if is_other || query.parameters.is_some() || query.transaction.is_some() {
            return None;
        }
        let began = Instant::now();
        let kept = self.plans.get(&self.key(query)?).await.filter(|kept| kept.is_constant())?;
        let (catalogs, tables) = (Arc::clone(&self.catalogs), Tables::default());
        let Unbound { plan, tables, state, .. } = self.laid_over(query, &kept, catalogs, tables).await.ok()??;
        let (query, schema) = (query.clone(), schema_of(&plan));
        Some(Planned { query, schema, plan, tables, state, write: None, explain: None, call: None, began, coming: None })
    }

    /// The shape of the answer to a statement that came before, where it hangs on no table.
    pub async fn describe_at_once(&self, query: &Query) -> Option<Description> {
        if query.ingest.is_some() || query.substrait.is_some() || query.parameters.is_some() {
            return None;
        }
        let schema = self.plans.get(&self.key(query)?).await?.schema()?;
        metrics::counter!("nexus_plans_reused_total").increment(1);
        Some(described(schema, Vec::new(), false))
    }

    /// The shape of the answer to a statement that is known, and of its parameters; none where its plan is not kept any more.
    pub async fn describe_known(&self, known: Planned) -> Option<Description> {
        let Planned { query, schema, state, .. } = known;
        state.give_back();
        let kept = self.plans.get(&self.key(&query)?).await?;
        Some(described(schema, kept.parameters.clone(), false))
    }

    /// Such a statement over its tables as they are now.
    pub async fn renew(&self, known: Planned) -> Result<Option<Planned>> {
        let began = Instant::now();
        let kept = match self.key(&known.query) {
            Some(key) => self.plans.get(&key).await,
            None => None,
        };
        if let Some(kept) = kept {
            let (_, tables) = self.resolve(&known.query, kept.wanted.clone()).await?;
            kept.look(self.looked_up(&known.query, &tables, began));
            // All that was done to the plan hangs on their columns alone.
            if let Some(plan) = plans::over(known.plan, &tables, &known.query.session)? {
                return Ok(Some(Planned { plan, tables, began, ..known }));
            }
        }
        known.state.give_back();
        self.plan(known.query).await
    }

    /// What is kept of a look-up for the same statement when it comes again; nothing of one that a transaction sees alone.
    pub(super) fn looked_up(&self, query: &Query, tables: &Tables, began: Instant) -> Option<Known> {
        self.lookups.known(tables, began).filter(|_| query.transaction.is_none())
    }
}
