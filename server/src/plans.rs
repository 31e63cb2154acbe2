//! Plans that are kept, so that a statement which comes again, as each does in GetFlightInfo and then in DoGet, is planned once.
//!
//! A plan hangs on the columns of its tables and not on their rows. So what is kept has no table in it, and is laid over those
//! that are there when it is taken again: nothing is held on to, and any table may have changed but for its columns.
//!
//! Of a statement with parameters the plan is kept as it is before the analysis, which takes their values. Planned each time are
//! statements that write, `EXPLAIN` and `SHOW`, those over views, plans of Substrait, and all of sessions with temporary tables.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Constraints;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableSource};
use moka::future::Cache;
use nexus_flight_catalog::{TableName, Tables, Wanted};

use crate::lookups::Known;
use crate::query::Query;
use crate::session::Session;

/// The bytes of all plans that are kept, as far as they can be told.
const CAPACITY: u64 = 16 << 20;
/// The longest text of a statement whose plan is kept.
const LONGEST: usize = 16 << 10;
/// How long a plan is kept that nobody asks for.
const IDLE: Duration = Duration::from_secs(600);
/// About what a byte of text becomes in a plan's expressions, and a node and a column of a node by themselves.
const PER_BYTE: usize = 64;
const PER_NODE: usize = 1_024;
const PER_COLUMN: usize = 64;

/// The plans of statements that came lately.
#[derive(Debug)]
pub struct Plans {
    kept: Cache<Key, Arc<Kept>>,
}

/// All that a plan is made of, beside the columns of its tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    principal: Arc<str>,
    statement: Arc<str>,
    catalog: String,
    schema: String,
    /// Some functions keep the zone that they were made for.
    time_zone: Option<String>,
}

/// A plan without its tables.
#[derive(Debug)]
pub struct Kept {
    /// The tables that the statement names.
    pub wanted: Vec<Wanted>,
    /// Its parameters, with the types that it implies.
    pub parameters: Vec<(String, DataType)>,
    /// Whether it is analysed, which takes the values of the parameters.
    pub is_analysed: bool,
    plan: LogicalPlan,
    /// What was looked up of its tables lately.
    known: Mutex<Option<Known>>,
}

impl Default for Plans {
    fn default() -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept>| u32::try_from(kept.weight(key)).unwrap_or(u32::MAX);
        Self { kept: Cache::builder().max_capacity(CAPACITY).weigher(weigh).time_to_idle(IDLE).build() }
    }
}

impl Plans {
    /// What the plan of a query is kept under; none where it is not.
    pub fn key(&self, query: &Query) -> Option<Key> {
        let Session { catalog, schema, options, .. } = &query.session;
        (query.statement.len() <= LONGEST).then(|| Key {
            principal: Arc::clone(&query.cx.principal.0),
            statement: Arc::clone(&query.statement),
            catalog: catalog.clone(),
            schema: schema.clone(),
            time_zone: options.time_zone.clone(),
        })
    }

    /// The plan that is kept.
    pub async fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.kept.get(key).await
    }

    /// Whether there is one.
    pub fn has(&self, key: &Key) -> bool {
        self.kept.contains_key(key)
    }

    /// Keeps a plan, in place of an earlier one.
    pub async fn keep(&self, key: Key, kept: Kept) {
        self.kept.insert(key, Arc::new(kept)).await;
    }
}

impl Kept {
    /// A plan over tables, without them; none where it reads anything else.
    pub fn new(
        plan: &LogicalPlan,
        is_analysed: bool,
        parameters: &[(String, DataType)],
        wanted: Vec<Wanted>,
        tables: &Tables,
        session: &Session,
    ) -> Result<Option<Self>> {
        // What a view is made of is in the plan, and may be another by the next time.
        if tables.iter().any(|(_, table)| table.provider.get_logical_plan().is_some()) {
            return Ok(None);
        }
        let plan = each_source(plan.clone(), |scan| {
            let provider = source_as_provider(&scan.source).ok()?;
            Arc::ptr_eq(table(scan, tables, session)?, &provider).then(|| without_rows(provider.as_ref()))
        })?;
        Ok(plan.map(|plan| Self { wanted, parameters: parameters.to_vec(), is_analysed, plan, known: Mutex::default() }))
    }

    /// The columns of the answer, where these hang on nothing else; none where they do.
    pub fn schema(&self) -> Option<SchemaRef> {
        (self.is_analysed && self.wanted.is_empty()).then(|| Arc::clone(self.plan.schema().inner()))
    }

    /// Whether it gives one row of values that stand in it.
    pub fn is_constant(&self) -> bool {
        self.is_analysed && is_constant(&self.plan)
    }

    /// The plan over tables as they are now; none where one has other columns.
    pub fn over(&self, tables: &Tables, session: &Session) -> Result<Option<LogicalPlan>> {
        over(self.plan.clone(), tables, session)
    }

    /// Keeps what was looked up of its tables, unless a look-up that began later was done before.
    pub fn look(&self, looked_up: Option<Known>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(looked_up) = looked_up
            && known.as_ref().is_none_or(|known| looked_up.is_after(known))
        {
            *known = Some(looked_up);
        }
    }

    /// What was looked up last.
    pub fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn weight(&self, key: &Key) -> usize {
        let mut weight = key.statement.len() * PER_BYTE;
        // A visitor that never fails.
        let _ = self.plan.apply_with_subqueries(|node| {
            weight += PER_NODE + node.schema().fields().len() * PER_COLUMN;
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        });
        weight
    }
}

/// Whether a plan gives one row of values that stand in it: nothing is read or worked out.
pub fn is_constant(plan: &LogicalPlan) -> bool {
    let is_literal = |expr: &Expr| match expr {
        Expr::Alias(alias) => matches!(*alias.expr, Expr::Literal(..)),
        expr => matches!(expr, Expr::Literal(..)),
    };
    match plan {
        LogicalPlan::Projection(values) => {
            matches!(*values.input, LogicalPlan::EmptyRelation(_)) && values.expr.iter().all(is_literal)
        }
        _ => false,
    }
}

/// A plan over other tables than those that it is over; none where one has other columns.
pub fn over(plan: LogicalPlan, tables: &Tables, session: &Session) -> Result<Option<LogicalPlan>> {
    let none = Constraints::default();
    each_source(plan, |scan| {
        let provider = table(scan, tables, session)?;
        let is_same = provider.schema() == scan.source.schema()
            && provider.constraints().unwrap_or(&none) == scan.source.constraints().unwrap_or(&none)
            && provider.get_logical_plan().is_none();
        is_same.then(|| provider_as_source(Arc::clone(provider)))
    })
}

fn table<'a>(scan: &TableScan, tables: &'a Tables, session: &Session) -> Option<&'a Arc<dyn TableProvider>> {
    let written = TableName::resolve(&scan.table_name, &session.catalog, &session.schema);
    tables.get(&written).map(|(_, table)| &table.provider)
}

/// What planning may ask of a table.
fn without_rows(provider: &dyn TableProvider) -> Arc<dyn TableSource> {
    let constraints = provider.constraints().cloned().unwrap_or_default();
    Arc::new(LogicalTableSource::new(provider.schema()).with_constraints(constraints))
}

/// The same plan with another source for each of its scans; none where there is none for one.
fn each_source(plan: LogicalPlan, source: impl Fn(&TableScan) -> Option<Arc<dyn TableSource>>) -> Result<Option<LogicalPlan>> {
    let mut is_whole = true;
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            match source(&scan) {
                Some(source) => scan.source = source,
                None => is_whole = false,
            }
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        // The columns that it tells of are in it, and they may be others by the next time.
        LogicalPlan::DescribeTable(_) => {
            is_whole = false;
            Ok(Transformed::no(node))
        }
        // Only the sources of scans are others: no schema changes above them.
        node => Ok(Transformed::no(node)),
    })?;
    Ok(is_whole.then_some(plan.data))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};
    use datafusion::prelude::col;

    use super::*;

    #[test]
    fn a_constant_gives_what_it_says() {
        let of = |expr: Expr| LogicalPlanBuilder::empty(true).project([lit(1), expr]).unwrap().build().unwrap();
        assert!(is_constant(&of(lit("tea").alias("what"))));
        assert!(!is_constant(&of(lit(1) + lit(2))));
        let beneath = LogicalPlanBuilder::from(of(lit(2).alias("a"))).project([col("a")]).unwrap().build().unwrap();
        assert!(!is_constant(&beneath));
    }
}
