//! `IN (SELECT …)` and `EXISTS` (ISO/IEC 9075-2, in predicate and exists predicate).
//!
//! `x IN (SELECT y …)` is unknown where no row is equal and there is a NULL among them, or x itself is NULL and there are rows.
//! DataFusion takes unknown for false, joins for `NOT IN` by what it takes from the conditions beside it too, and takes both
//! predicates nowhere but in a WHERE. Here they are written as what it answers rightly: counts of rows that are there.
//!
//! Of sub-queries that stand for a value it takes none in an aggregate, a window or an order, and of those that hang on the row
//! around them no two in one expression, which it may make of one. Here they are columns of what is beneath.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, Spans};
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count_all;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, FetchType, Filter, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, Subquery, lit, not,
    when,
};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

use crate::rewrite;
use crate::standard::casts::kept;

/// The most nodes of the plan of a query that is asked several times.
const MOST_NODES: usize = 1_000;

/// Writes them so.
#[derive(Debug)]
pub struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let writer = Writer::default();
        plan.transform_up_with_subqueries(|node| {
            let exprs = node.expressions();
            let (has_predicate, is_crowded) = (exprs.iter().any(has_predicate), is_crowded(&exprs));
            match node {
                LogicalPlan::Filter(filter) if is_crowded => writer.spread(filter).map(Transformed::yes),
                LogicalPlan::Filter(filter) if has_predicate => writer.filtered(filter).map(Transformed::yes),
                // What joins two tables is left as it is: a sub-query there is refused.
                LogicalPlan::Filter(_) | LogicalPlan::Join(_) => Ok(Transformed::no(node)),
                LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_) | LogicalPlan::Window(_) if exprs.iter().any(has_scalar) => {
                    writer.beneath(node).map(Transformed::yes)
                }
                other if has_predicate || is_crowded => writer.beneath(other).map(Transformed::yes),
                other => Ok(Transformed::no(other)),
            }
        })
        .data()
    }
}

fn has_predicate(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_) | Expr::Exists(_)))).unwrap_or(false)
}

fn has_scalar(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_)))).unwrap_or(false)
}

/// Whether there are several sub-queries that hang on the row around them, or one that simplifying may write twice.
fn is_crowded(exprs: &[Expr]) -> bool {
    let hangs = |expr: &Expr| matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty());
    let chooses = |expr: &Expr| match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Operator::And | Operator::Or),
        other => matches!(other, Expr::Case(_)),
    };
    let count = |expr: &Expr| {
        let mut count = 0;
        let counted = expr.apply(|part| {
            count += usize::from(hangs(part));
            Ok(TreeNodeRecursion::Continue)
        });
        counted.map_or(0, |_| count)
    };
    let parts: Vec<&Expr> = exprs.iter().flat_map(split_conjunction).collect();
    let counts: Vec<usize> = parts.iter().map(|part| count(part)).collect();
    let may_be_two = |(part, count): (&&Expr, &usize)| *count > 0 && part.exists(|part| Ok(chooses(part))).unwrap_or(false);
    counts.iter().sum::<usize>() > 1 || parts.iter().zip(&counts).any(may_be_two)
}

/// Whether it is a predicate by itself, which becomes a join that keeps the columns as they are.
fn is_predicate(expr: &Expr) -> bool {
    match expr {
        Expr::Not(inner) => is_predicate(inner),
        other => matches!(other, Expr::InSubquery(_) | Expr::Exists(_)),
    }
}

/// Writes the predicates of one statement.
#[derive(Debug, Default)]
struct Writer {
    /// How many rows were counted so far: each count has a name of its own.
    counts: Cell<usize>,
    /// What is to be computed beneath the node that is written: DataFusion simplifies expressions in ways that write a part of
    /// them twice, and takes no sub-query twice.
    columns: RefCell<Vec<Expr>>,
}

impl Writer {
    /// A condition on rows: what is unknown there is as good as false.
    fn filtered(&self, filter: Filter) -> Result<LogicalPlan> {
        let Filter { predicate, input, .. } = filter;
        let schema = input.schema();
        let parts = split_conjunction_owned(predicate).into_iter().map(|part| match part {
            Expr::Not(inner) => match *inner {
                Expr::InSubquery(member) if !member.negated => self.excluded(member, schema),
                other => self.within(not(other), schema),
            },
            Expr::InSubquery(member) if member.negated => self.excluded(member, schema),
            other => self.within(other, schema),
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        // The joins that mark rows put the mark beside the columns, and what is above would count it as one.
        let is_marked = parts.iter().any(|part| has_predicate(part) && !is_predicate(part));
        let columns = schema.columns().into_iter().map(Expr::Column);
        let predicate = conjunction(parts).unwrap_or_else(|| lit(true));
        let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&input))?);
        if is_marked { LogicalPlanBuilder::from(filtered).project(columns)?.build() } else { Ok(filtered) }
    }

    /// A condition whose values of sub-queries become columns beneath it.
    fn spread(&self, filter: Filter) -> Result<LogicalPlan> {
        let Filter { predicate, input, .. } = filter;
        let outward = input.schema().columns().into_iter().map(Expr::Column);
        let predicate = predicate.transform_up(|expr| match expr {
            Expr::ScalarSubquery(subquery) => {
                Ok(Transformed::yes(self.placed(Expr::ScalarSubquery(self.renamed(subquery)?), Place::Value)))
            }
            other => Ok(Transformed::no(other)),
        });
        let predicate = predicate.data()?;
        let input = self.with_columns(Arc::unwrap_or_clone(input))?;
        let filtered = self.filtered(Filter::try_new(predicate, Arc::new(input))?)?;
        LogicalPlanBuilder::from(filtered).project(outward)?.build()
    }

    /// The rows with what is to be computed beside them: one after another, since DataFusion tells the rows that a sub-query has
    /// none for by a column that has one name for all of them.
    fn with_columns(&self, input: LogicalPlan) -> Result<LogicalPlan> {
        self.columns.take().into_iter().try_fold(input, |input, column| {
            let columns = input.schema().columns().into_iter().map(Expr::Column).chain([column]);
            LogicalPlanBuilder::from(input).project(columns.collect::<Vec<_>>())?.build()
        })
    }

    /// A predicate that DataFusion makes a join of. What it looks among has a name of its own: the columns that the condition
    /// names are to stand beside it.
    fn joined(&self, member: InSubquery) -> Result<Expr> {
        if member.subquery.outer_ref_columns.is_empty() {
            return Ok(Expr::InSubquery(member));
        }
        let subquery = self.renamed(member.subquery)?;
        Ok(Expr::InSubquery(InSubquery { subquery, ..member }))
    }

    /// A sub-query whose value has a name of its own.
    fn renamed(&self, subquery: Subquery) -> Result<Subquery> {
        let number = self.counts.replace(self.counts.get() + 1);
        let column = first_column(&subquery).alias(format!("value {number}"));
        let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery)).project([column])?.build()?;
        Ok(Subquery { subquery: Arc::new(plan), ..subquery })
    }

    /// A part of a condition. Under AND and OR alone, unknown becomes false as well as it would in the end.
    fn within(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (left, right) = (self.within(*left, schema)?, self.within(*right, schema)?);
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::InSubquery(member) if !member.negated && one_row(&member.subquery).is_none() => self.joined(member),
            other => self.settled(other, schema, Place::Condition),
        }
    }

    /// `x NOT IN (…)` as a condition of its own.
    fn excluded(&self, member: InSubquery, schema: &DFSchema) -> Result<Expr> {
        let InSubquery { expr, subquery, .. } = member;
        let is_alone = subquery.outer_ref_columns.is_empty();
        let has_column = !expr.column_refs().is_empty();
        if is_alone && has_column {
            // DataFusion knows this join, but would take what is known of the column for known of the query, whose NULL counts.
            let data_type = expr.get_type(schema)?;
            let expr = Box::new(kept(*expr, data_type, false));
            return Ok(Expr::InSubquery(InSubquery { expr, subquery, negated: true }));
        }
        let (Some(value), None) = (outer(&expr, schema)?, one_row(&subquery)) else {
            return self.settled(Expr::InSubquery(InSubquery { expr, subquery, negated: true }), schema, Place::Condition);
        };
        let equal = value.eq(first_column(&subquery));
        let rows = narrowed(subquery, Expr::IsNotFalse(Box::new(equal)), schema, &expr)?;
        Ok(Expr::Exists(Exists::new(rows, true)))
    }

    /// An expression with all predicates in it written out.
    fn settled(&self, expr: Expr, schema: &DFSchema, place: Place) -> Result<Expr> {
        expr.transform_up(|expr| match expr {
            Expr::InSubquery(member) => {
                let negated = member.negated;
                let known = self.member_of(member, schema, place)?;
                Ok(Transformed::yes(if negated { not(known) } else { known }))
            }
            Expr::Exists(Exists { subquery, negated }) => {
                let known = self.there(subquery, place)?;
                Ok(Transformed::yes(if negated { not(known) } else { known }))
            }
            Expr::ScalarSubquery(subquery) if place == Place::Value => {
                Ok(Transformed::yes(self.placed(Expr::ScalarSubquery(self.renamed(subquery)?), place)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    /// `x IN (…)` with its three values.
    fn member_of(&self, member: InSubquery, schema: &DFSchema, place: Place) -> Result<Expr> {
        let InSubquery { expr, subquery, .. } = member;
        if let Some(row) = one_row(&subquery) {
            let value = Expr::ScalarSubquery(Subquery { subquery: Arc::new(row.plan.clone()), ..subquery.clone() });
            let equal = (*expr).eq(value);
            let known = match &row.condition {
                None => equal,
                Some(condition) => when(scalar(&row, condition, &subquery)?.is_true(), equal).otherwise(lit(false))?,
            };
            return Ok(self.placed(known, place));
        }
        let column = first_column(&subquery);
        let may_have_null = subquery.subquery.schema().fields().first().is_none_or(|field| field.is_nullable());
        let may_be_null = expr.nullable(schema).unwrap_or(true);
        let Some(value) = outer(&expr, schema)? else {
            // It names what is around the query around it, and is refused by DataFusion.
            return Ok(Expr::InSubquery(InSubquery { expr, subquery, negated: false }));
        };
        let found = match place {
            Place::Condition => self.joined(InSubquery { expr: expr.clone(), subquery: subquery.clone(), negated: false })?,
            Place::Value => self.there(narrowed(subquery.clone(), value.eq(column.clone()), schema, &expr)?, place)?,
        };
        if may_have_null || may_be_null {
            check_size(&subquery.subquery)?;
        }
        let mut unknown = Vec::new();
        if may_have_null {
            let nulls = LogicalPlanBuilder::from(Arc::unwrap_or_clone(Arc::clone(&subquery.subquery)));
            let nulls = nulls.filter(column.is_null())?.build()?;
            unknown.push(self.there(Subquery { subquery: Arc::new(nulls), ..subquery.clone() }, place)?);
        }
        if may_be_null {
            unknown.push(expr.is_null().and(self.there(subquery, place)?));
        }
        match unknown.into_iter().reduce(Expr::or) {
            None => Ok(found),
            Some(unknown) => {
                let null = Expr::Literal(ScalarValue::Boolean(None), None);
                when(found, lit(true)).when(unknown, null).otherwise(lit(false))
            }
        }
    }

    /// Whether a sub-query has a row. Errors: `Unsupported` for an OFFSET of one that hangs on the row around it.
    fn there(&self, subquery: Subquery, place: Place) -> Result<Expr> {
        if let Some(row) = one_row(&subquery) {
            return match &row.condition {
                None => Ok(lit(true)),
                Some(condition) => Ok(self.placed(scalar(&row, condition, &subquery)?.is_true(), place)),
            };
        }
        let is_alone = subquery.outer_ref_columns.is_empty();
        if !is_alone && skips(&subquery.subquery)? {
            return Err(Error::unsupported("OFFSET in an EXISTS or IN that names columns of the query around it is not offered")
                .with_hint("leave it out, or number the rows with row_number() and compare the number")
                .into());
        }
        if place == Place::Condition && !is_alone {
            return Ok(Expr::Exists(Exists::new(subquery, false)));
        }
        let rows = match subquery.subquery.as_ref() {
            // How many there are at the most makes no difference, and DataFusion counts no part of what hangs on the row around.
            LogicalPlan::Limit(limit) if !is_alone && !matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0))) => {
                &limit.input
            }
            _ => &subquery.subquery,
        };
        let mut rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(Arc::clone(rows)));
        if is_alone {
            rows = rows.limit(0, Some(1))?;
        }
        let number = self.counts.replace(self.counts.get() + 1);
        let count = count_all().unalias().alias(format!("rows {number}"));
        let counted = rows.aggregate(Vec::<Expr>::new(), [count])?.build()?;
        let known = Expr::ScalarSubquery(Subquery { subquery: Arc::new(counted), ..subquery }).gt(lit(0_i64));
        Ok(self.placed(known, place))
    }

    /// A condition with a sub-query, where it may stand.
    fn placed(&self, known: Expr, place: Place) -> Expr {
        match place {
            Place::Condition => known,
            Place::Value => {
                let mut columns = self.columns.borrow_mut();
                let name = format!("predicate {}", columns.len());
                columns.push(known.alias(&name));
                Expr::Column(Column::new_unqualified(name))
            }
        }
    }

    /// A node that computes values of the columns beneath it: what it asks of sub-queries is among those columns.
    fn beneath(&self, node: LogicalPlan) -> Result<LogicalPlan> {
        let [input] = node.inputs()[..] else { return Ok(node) };
        let (input, before) = (input.clone(), Arc::clone(node.schema()));
        let schema = Arc::clone(input.schema());
        let names = NamePreserver::new(&node);
        let exprs = node.expressions().into_iter().map(|expr| {
            let mut settled = |expr| self.settled(expr, &schema, Place::Value).map(Transformed::yes);
            rewrite::named(expr, &names, &mut settled).data()
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        let input = self.with_columns(input)?;
        let node = node.with_new_exprs(exprs, vec![input])?;
        if node.schema().fields().len() == before.fields().len() {
            return Ok(node);
        }
        let outward = before.columns().into_iter().map(Expr::Column);
        LogicalPlanBuilder::from(node).project(outward)?.build()
    }
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// In a WHERE, where DataFusion has joins that mark the rows.
    Condition,
    /// Anywhere else.
    Value,
}

/// Each part of an unknown IN asks its query anew, and so do those that are within one another. Errors: `Exhausted`.
fn check_size(plan: &LogicalPlan) -> Result<()> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > MOST_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match nodes > MOST_NODES {
        true => Err(Error::exhausted("too many IN (SELECT …) within one another may be unknown")
            .with_hint("write EXISTS instead, or leave NULL out of the inner ones with WHERE … IS NOT NULL")
            .with_retryable(false)
            .into()),
        false => Ok(()),
    }
}

/// Whether a sub-query leaves out rows by their number, so that it is not enough that there are some.
fn skips(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        let LogicalPlan::Limit(limit) = node else { return Ok(false) };
        let takes_first = matches!(limit.get_skip_type()?, SkipType::Literal(0));
        Ok(!takes_first || matches!(limit.get_fetch_type()?, FetchType::UnsupportedExpr))
    })
}

/// A sub-query that is an aggregate over all its rows, and so one row itself, unless a HAVING leaves it out.
struct OneRow {
    /// The row, without the condition.
    plan: LogicalPlan,
    /// Of the HAVING, over `below`.
    condition: Option<Expr>,
    below: Arc<LogicalPlan>,
}

/// What hangs on the row around it only: the others are asked once, whatever they are.
fn one_row(subquery: &Subquery) -> Option<OneRow> {
    if subquery.outer_ref_columns.is_empty() {
        return None;
    }
    let LogicalPlan::Projection(projection) = subquery.subquery.as_ref() else { return None };
    let (condition, below) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), &filter.input),
        _ => (None, &projection.input),
    };
    if !matches!(below.as_ref(), LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty()) {
        return None;
    }
    let plan = LogicalPlanBuilder::from(Arc::clone(below)).project(projection.expr.clone()).ok()?.build().ok()?;
    Some(OneRow { plan, condition, below: Arc::clone(below) })
}

/// A condition over the one row, as a value.
fn scalar(row: &OneRow, condition: &Expr, subquery: &Subquery) -> Result<Expr> {
    let plan = LogicalPlanBuilder::from(Arc::clone(&row.below)).project([condition.clone().alias("having")])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery.clone() }))
}

fn first_column(subquery: &Subquery) -> Expr {
    let columns = subquery.subquery.schema().columns();
    columns.into_iter().next().map_or_else(|| Expr::Literal(ScalarValue::Null, None), Expr::Column)
}

/// An expression as a sub-query names it; none where it already names what is around.
fn outer(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    if expr.contains_outer() || expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))? {
        return Ok(None);
    }
    let named = expr.clone().transform_up(|expr| match expr {
        Expr::Column(column) => {
            let (qualifier, field) = schema.qualified_field_from_column(&column)?;
            let named = Column::new(qualifier.cloned(), field.name());
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), named)))
        }
        other => Ok(Transformed::no(other)),
    });
    named.data().map(Some)
}

/// The rows of a sub-query that a condition leaves, which names the columns of `value` around it.
fn narrowed(subquery: Subquery, condition: Expr, schema: &DFSchema, value: &Expr) -> Result<Subquery> {
    let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery)).filter(condition)?.build()?;
    let mut outer_ref_columns = subquery.outer_ref_columns;
    for column in value.column_refs() {
        let (qualifier, field) = schema.qualified_field_from_column(column)?;
        let named = Expr::OuterReferenceColumn(Arc::clone(field), Column::new(qualifier.cloned(), field.name()));
        if !outer_ref_columns.contains(&named) {
            outer_ref_columns.push(named);
        }
    }
    Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() })
}
