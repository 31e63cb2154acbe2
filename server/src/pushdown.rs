//! Filters that sink in a physical plan. DataFusion finds their columns again by name; below a join two columns may have one
//! name, and the first would be taken for the second. Such names stop the filter here.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Statistics};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream};

/// A rule of DataFusion that lets filters sink, held up where a name means two things.
#[derive(Debug)]
pub struct NamesOnce(pub Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for NamesOnce {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let barred = plan.transform_up(|node| Ok(barred(node))).data()?;
        self.0.optimize(barred, config)?.transform_up(|node| Ok(unbarred(node))).data()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn barred(node: Arc<dyn ExecutionPlan>) -> Transformed<Arc<dyn ExecutionPlan>> {
    let (node, is_changed) = match node.as_any().downcast_ref::<HashJoinExec>().and_then(|join| by_key(join, &node)) {
        Some(join) => (join, true),
        None => (node, false),
    };
    let (schema, mut seen) = (node.schema(), HashSet::new());
    let twice = schema.fields().iter().filter(|field| !seen.insert(field.name())).map(|field| field.name().clone());
    match twice.collect::<HashSet<_>>() {
        names if names.is_empty() => Transformed::new_transformed(node, is_changed),
        names => Transformed::yes(Bar::before(&node, names)),
    }
}

/// A filter on the key of the side that a semi-join keeps sinks into the other side too, by the name of the first. It must be
/// that of the key there, and no NULL may be left out of what a NULL decides.
fn by_key(join: &HashJoinExec, node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let is_right = match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti => true,
        JoinType::RightSemi | JoinType::RightAnti => false,
        _ => return None,
    };
    let other = if is_right { join.right() } else { join.left() };
    let name = |key: &Arc<dyn PhysicalExpr>| key.as_any().downcast_ref::<Column>().map(|column| column.name().to_owned());
    let pairs =
        join.on().iter().map(|(left, right)| if is_right { (name(left), name(right)) } else { (name(right), name(left)) });
    let wrong = pairs.filter(|(kept, other)| join.null_aware || kept != other).filter_map(|(kept, _)| kept);
    let names: HashSet<String> = wrong.filter(|name| other.schema().index_of(name).is_ok()).collect();
    if names.is_empty() {
        return None;
    }
    let other = Bar::before(other, names);
    let children = if is_right { vec![Arc::clone(join.left()), other] } else { vec![other, Arc::clone(join.right())] };
    Arc::clone(node).with_new_children(children).ok()
}

fn unbarred(node: Arc<dyn ExecutionPlan>) -> Transformed<Arc<dyn ExecutionPlan>> {
    match node.as_any().downcast_ref::<Bar>() {
        Some(bar) => Transformed::yes(Arc::clone(&bar.input)),
        None => Transformed::no(node),
    }
}

/// Lets no filter pass that names one of these columns. It is there while filters sink, and never runs.
#[derive(Debug)]
struct Bar {
    input: Arc<dyn ExecutionPlan>,
    names: HashSet<String>,
}

impl Bar {
    fn before(input: &Arc<dyn ExecutionPlan>, names: HashSet<String>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input: Arc::clone(input), names })
    }
}

impl DisplayAs for Bar {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bar")
    }
}

impl ExecutionPlan for Bar {
    fn name(&self) -> &str {
        "Bar"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.first().unwrap_or(&self.input);
        Ok(Self::before(input, self.names.clone()))
    }

    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let schema = self.input.schema();
        let plain = schema.fields().iter().enumerate().filter(|(_, field)| !self.names.contains(field.name()));
        let plain = plain.map(|(index, _)| index).collect();
        let below = ChildFilterDescription::from_child_with_allowed_indices(&filters, plain, &self.input)?;
        Ok(FilterDescription::new().with_child(below))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        self.input.partition_statistics(partition)
    }
}
