//! The window functions that answer with values of other rows.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowFunctionSimplification, WindowUDFFieldArgs,
};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use super::answers::{Answers, is_sized_by_value};

const FUNCTIONS: [&str; 5] = ["first_value", "last_value", "nth_value", "lag", "lead"];

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let pool = Arc::clone(&state.runtime_env().memory_pool);
    for name in FUNCTIONS {
        let inner = Arc::clone(state.udwf(name)?.inner());
        state.register_udwf(Arc::new(WindowUDF::new_from_impl(Answering { inner: inner.into(), pool: Arc::clone(&pool) })))?;
    }
    Ok(())
}

/// A window function whose answers are counted.
#[derive(Debug)]
struct Answering {
    inner: UdfEq<Arc<dyn WindowUDFImpl>>,
    pool: Arc<dyn MemoryPool>,
}

impl PartialEq for Answering {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Answering {}

impl Hash for Answering {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

#[warn(clippy::missing_trait_methods)]
impl WindowUDFImpl for Answering {
    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let literals = args.input_exprs().iter().filter_map(|expr| expr.as_any().downcast_ref::<Literal>());
        let filler = literals.map(|literal| literal.value().size()).max().unwrap_or(0);
        let is_sized = args.input_fields().first().is_some_and(|field| is_sized_by_value(field.data_type()));
        let inner = self.inner.partition_evaluator(args)?;
        Ok(if is_sized { Box::new(AnsweringEvaluator { inner, filler, answers: Answers::new(&self.pool) }) } else { inner })
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        self.inner.simplify()
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.sort_options()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            // The other way round it is another function of DataFusion's: `lead` for `lag`.
            ReversedUDWF::Reversed(function) => {
                let inner = Arc::clone(function.inner());
                ReversedUDWF::Reversed(Arc::new(WindowUDF::new_from_impl(Answering {
                    inner: inner.into(),
                    pool: Arc::clone(&self.pool),
                })))
            }
            other => other,
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.limit_effect(args)
    }
}

#[derive(Debug)]
struct AnsweringEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    /// The bytes of what stands where there is no such row.
    filler: usize,
    answers: Answers,
}

#[warn(clippy::missing_trait_methods)]
impl PartitionEvaluator for AnsweringEvaluator {
    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let value = self.inner.evaluate(values, range)?;
        self.answers.take(value.size())?;
        Ok(value)
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.answers.take(self.filler.saturating_mul(rows))?;
        self.inner.evaluate_all(values, rows)
    }

    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        self.inner.evaluate_all_with_rank(rows, ranks)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}
