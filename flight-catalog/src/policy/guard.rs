//! A table of which a part is seen. Nothing of a statement goes below the guard that could fail or have an effect there: a
//! hidden row cannot be read from an error, a plan or a count.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{InList, Placeholder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType,
    Volatility,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, conjunction_opt};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties, SendableRecordBatchStream,
};

use crate::compact::bare;
use crate::policy::expressions::{Expressions, USER};
use crate::policy::veil::Veil;
use crate::source::Principal;

/// What a statement sees of a table.
#[derive(Debug, Clone)]
pub struct Guarded {
    inner: Arc<dyn TableProvider>,
    schema: SchemaRef,
    /// What is seen in each column, made of those of the table.
    columns: Vec<Seen>,
    /// The rows that are seen.
    filter: Option<Expr>,
    /// What the expressions of the policy run with.
    settled: Arc<SessionState>,
    mark: Mark,
    veil: Veil,
}

#[derive(Debug, Clone)]
enum Seen {
    AsItIs(String),
    Masked(Expr),
}

/// Tells what is seen of a table from what others see of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The same for all with the same text.
    Same(String),
    /// It hangs on the moment.
    Volatile,
}

impl Guarded {
    /// Columns by position, each with an expression of what is seen in its place, of the rows that meet all conditions. Errors: an
    /// expression that does not fit the columns of the table.
    pub(super) fn new(
        inner: Arc<dyn TableProvider>,
        seen: &[(usize, Option<String>)],
        filters: &[String],
        principal: &Principal,
        expressions: &Expressions,
        veil: Veil,
    ) -> Result<Self> {
        let whole = inner.schema();
        let names = DFSchema::try_from(Arc::clone(&whole))?;
        let expression = |text: &String| -> Result<Expr> {
            let expr = expressions.logical(text, &names)?;
            let named = expr.transform(|expr| match expr {
                Expr::Placeholder(Placeholder { id, .. }) if id == USER => {
                    Ok(Transformed::yes(Expr::Literal(ScalarValue::from(&*principal.0), None)))
                }
                other => Ok(Transformed::no(other)),
            });
            Ok(named?.data)
        };
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (at, mask) in seen {
            let field = whole.field(*at);
            match mask {
                None => {
                    fields.push(Arc::new(field.clone()));
                    columns.push(Seen::AsItIs(field.name().clone()));
                }
                Some(mask) => {
                    if matches!(field.data_type(), DataType::Union(..) | DataType::RunEndEncoded(..)) {
                        // Arrow has no null of these, and what makes one leaves the value as it is.
                        return plan_err!("a column of the type {} takes no mask: deny it", field.data_type());
                    }
                    // Of which type it is tells only what its parts are made alike.
                    let alike = ExprSimplifier::new(SimplifyContext::default().with_schema(Arc::new(names.clone())));
                    let masked = alike.coerce(expression(mask)?, &names)?.cast_to(field.data_type(), &names)?;
                    fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
                    columns.push(Seen::Masked(masked));
                }
            }
        }
        let filter = conjunction(filters.iter().map(expression).collect::<Result<Vec<_>>>()?);
        // What is wrong with an expression is said before any statement is planned over it.
        let mut is_volatile = false;
        let mut made = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
            is_volatile |= changes(expr)?;
            let simple = simplified(expr.clone(), &names, &expressions.state, expressions.state.execution_props())?;
            expressions.state.create_physical_expr(simple, &names)
        };
        for seen in &columns {
            if let Seen::Masked(expr) = seen {
                made(expr)?;
            }
        }
        if let Some(condition) = &filter {
            let of = made(condition)?.data_type(&whole)?;
            if of != DataType::Boolean {
                return plan_err!("a filter is true or false of a row, and this one is of the type {of}");
            }
        }
        let mark = match is_volatile {
            true => Mark::Volatile,
            false => Mark::Same(format!("{columns:?} {filter:?}")),
        };
        let settled = Arc::clone(&expressions.state);
        Ok(Self { inner, schema: Arc::new(Schema::new(fields)), columns, filter, settled, mark, veil })
    }

    /// The same of another table of the same columns.
    pub fn over(&self, inner: Arc<dyn TableProvider>) -> Self {
        Self { inner, ..self.clone() }
    }

    /// Tells what is seen of the table from what others see of it.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Whether a column is seen as it is.
    pub fn shows(&self, column: &str) -> bool {
        self.columns.iter().any(|seen| matches!(seen, Seen::AsItIs(name) if name == column))
    }

    /// The table itself, of which this is a part.
    pub fn table(&self) -> &dyn TableProvider {
        self.inner.as_ref()
    }

    /// What is seen as a plan over the table itself under a name, for who has it read elsewhere: below this plan nothing of a statement may be
    /// decided that could fail. Errors: an expression that does not fit the columns of the table.
    pub fn plan(&self, name: TableReference) -> Result<LogicalPlan> {
        let names = DFSchema::try_from(self.inner.schema())?;
        let simple = |expr: Expr| simplified(expr, &names, &self.settled, self.settled.execution_props());
        let mut rows = LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(&self.inner)), None)?;
        if let Some(condition) = &self.filter {
            rows = rows.filter(simple(condition.clone())?)?;
        }
        let fields = self.schema.fields().iter().enumerate();
        let columns = fields.map(|(at, field)| Ok(simple(self.column(at))?.alias(field.name())));
        rows.project(columns.collect::<Result<Vec<_>>>()?)?.build()
    }

    fn column(&self, at: usize) -> Expr {
        match self.columns.get(at) {
            Some(Seen::AsItIs(name)) => Expr::Column(Column::from_name(name)),
            Some(Seen::Masked(expr)) => expr.clone(),
            None => Expr::Literal(ScalarValue::Null, None),
        }
    }

    /// Whether all that the source reads by the condition of the policy is seen. Where it is not, since a row group may have rows of
    /// both kinds, a condition of the statement would say which hidden rows are read, and an error of it that they are there.
    fn reads_the_seen_alone(&self, of_policy: Option<&Expr>) -> Result<bool> {
        let Some(condition) = of_policy else { return Ok(true) };
        Ok(self.inner.supports_filters_pushdown(&[condition])? == [TableProviderFilterPushDown::Exact])
    }

    /// Of these conditions those that the source itself may decide. Of a view it is none: to read a column of one may fail, and a
    /// condition of the statement would say for which rows it does.
    fn known_below(&self, conditions: Vec<Expr>) -> Result<Vec<Expr>> {
        if self.inner.table_type() != TableType::Base {
            return Ok(Vec::new());
        }
        let support = self.inner.supports_filters_pushdown(&conditions.iter().collect::<Vec<_>>())?;
        let known = conditions.into_iter().zip(support);
        let known = known.filter(|(_, support)| *support != TableProviderFilterPushDown::Unsupported);
        Ok(known.map(|(condition, _)| condition).collect())
    }

    /// Whether a condition of a statement may be decided on rows that are not seen: it cannot fail, whatever the values are, and
    /// looks only at columns that are seen as they are.
    fn may_pass(&self, expr: &Expr) -> bool {
        let is_operand = |expr: &Expr| match expr {
            Expr::Column(column) => self.shows(&column.name),
            Expr::Literal(..) => true,
            _ => false,
        };
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                self.may_pass(left) && self.may_pass(right)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let compares =
                    matches!(op, Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
                compares && is_operand(left) && is_operand(right)
            }
            Expr::Not(inner) => self.may_pass(inner),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_operand(inner),
            Expr::Between(Between { expr, low, high, .. }) => is_operand(expr) && is_operand(low) && is_operand(high),
            Expr::InList(InList { expr, list, .. }) => is_operand(expr) && list.iter().all(is_operand),
            _ => false,
        }
    }
}

/// Whether an expression may have another value at another time.
fn changes(expr: &Expr) -> Result<bool> {
    let mut changes = false;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr {
            changes |= function.func.signature().volatility != Volatility::Immutable;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(changes)
}

#[async_trait]
impl TableProvider for Guarded {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let taken = |filter: &&Expr| match self.may_pass(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(taken).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let passed: Vec<Expr> = filters.iter().filter(|filter| self.may_pass(filter)).map(unqualified).collect::<Result<_>>()?;
        let whole = self.inner.schema();
        let names = DFSchema::try_from(Arc::clone(&whole))?;
        let simple = |expr: Expr| simplified(expr, &names, &self.settled, state.execution_props());
        let of_policy: Option<Expr> = self.filter.clone().map(simple).transpose()?;
        // It may be true of every row for this principal, who sees them all then.
        let of_policy = of_policy.filter(|condition| !matches!(condition, Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
        let columns: Vec<Expr> = wanted.iter().map(|at| simple(self.column(*at))).collect::<Result<_>>()?;
        let mut needed = BTreeSet::new();
        for expr in columns.iter().chain(&of_policy).chain(&passed) {
            for column in expr.column_refs() {
                needed.insert(whole.index_of(&column.name)?);
            }
        }
        let needed: Vec<usize> = needed.into_iter().collect();
        let limit = limit.filter(|_| of_policy.is_none() && passed.is_empty());
        let is_seen_alone = self.reads_the_seen_alone(of_policy.as_ref())?;
        let asked = of_policy.iter().chain(passed.iter().filter(|_| is_seen_alone));
        let known = self.known_below(asked.cloned().collect())?;
        let scan = self.inner.scan(state, Some(&needed), &known, limit).await.map_err(|error| self.veil.below(error))?;
        let names = DFSchema::try_from(Arc::new(whole.project(&needed)?))?;
        let of_policy = of_policy.into_iter().map(|condition| self.settled.create_physical_expr(condition, &names));
        let of_statement = passed.into_iter().map(|condition| state.create_physical_expr(condition, &names));
        let (below, above) = match is_seen_alone {
            true => (of_policy.chain(of_statement).collect::<Result<Vec<_>>>()?, Vec::new()),
            false => (of_policy.collect::<Result<Vec<_>>>()?, of_statement.collect::<Result<Vec<_>>>()?),
        };
        let rows = filtered(scan, below)?;
        let rows = match known.is_empty() {
            true => rows,
            false => FilterPushdown::new().optimize(rows, state.config_options())?,
        };
        let rows = filtered(rows, above)?;
        let made = wanted.iter().zip(columns).map(|(at, column)| {
            let expr = self.settled.create_physical_expr(column, &names)?;
            Ok((expr, self.schema.field(*at).name().clone()))
        });
        let rows: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(made.collect::<Result<Vec<_>>>()?, rows)?);
        let schema = Arc::new(self.schema.project(&wanted)?);
        Ok(Arc::new(Guard::new(rows, schema, self.veil)))
    }
}

/// The expression as the optimizer leaves those of statements: by then some functions are others, and never run themselves. It goes by
/// settings of its own, not by those of a session, which its client chooses: the zone of today is one of them. Of the statement it has when it
/// began.
fn simplified(expr: Expr, names: &DFSchema, settled: &SessionState, statement: &ExecutionProps) -> Result<Expr> {
    let context = SimplifyContext::default()
        .with_schema(Arc::new(names.clone()))
        .with_config_options(Arc::clone(settled.config().options()))
        .with_query_execution_start_time(statement.query_execution_start_time);
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(expr, names)?;
    // What fails for a value stays as it is: where it is, it may never be asked.
    simplifier.simplify(coerced.clone()).or(Ok(coerced))
}

/// The rows that meet all of some conditions.
fn filtered(rows: Arc<dyn ExecutionPlan>, conditions: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn ExecutionPlan>> {
    match conjunction_opt(conditions) {
        Some(condition) => Ok(Arc::new(FilterExec::try_new(condition, rows)?)),
        None => Ok(rows),
    }
}

/// A condition whose columns are named without their table.
fn unqualified(expr: &Expr) -> Result<Expr> {
    let bare = expr.clone().transform(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
        other => Ok(Transformed::no(other)),
    });
    Ok(bare?.data)
}

/// What is seen without the bytes of what is not, which would go to whoever reads the buffers.
fn bared(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(bare).collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &rows)?.with_schema(Arc::clone(schema))?)
}

/// The rows that are seen, as a leaf of the plan: no rule of the optimizer, no plan that is shown and no statistics goes below.
#[derive(Debug)]
struct Guard {
    rows: Arc<dyn ExecutionPlan>,
    veil: Veil,
    properties: Arc<PlanProperties>,
}

impl Guard {
    fn new(rows: Arc<dyn ExecutionPlan>, schema: SchemaRef, veil: Veil) -> Self {
        let partitions = Partitioning::UnknownPartitioning(rows.output_partitioning().partition_count());
        let equivalences = EquivalenceProperties::new(schema);
        let properties = PlanProperties::new(equivalences, partitions, rows.pipeline_behavior(), rows.boundedness());
        Self { rows, veil, properties: Arc::new(properties) }
    }
}

impl DisplayAs for Guard {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the policy shows")
    }
}

impl ExecutionPlan for Guard {
    fn name(&self) -> &str {
        "Guard"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let veil = self.veil;
        let rows = self.rows.execute(partition, context).map_err(|error| veil.below(error))?;
        let schema = Arc::clone(self.properties.eq_properties.schema());
        let seen = futures::StreamExt::map(rows, {
            let schema = Arc::clone(&schema);
            move |batch| batch.and_then(|batch| bared(&batch, &schema)).map_err(|error| veil.below(error))
        });
        Ok(Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, seen)))
    }
}
