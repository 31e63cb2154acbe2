//! Aggregates over frames that slide. DataFusion takes what leaves a frame from its sum again: of 1e16 and 1 that leaves 0, and
//! once there was an infinity it leaves NaN for ever. And where nothing but NULLs is left, some have no answer, or the last one.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};

use super::answers::{Answering, is_sized_by_value};
use super::counted::Counted;
use super::frame::{Frame, Spread};

/// Those over frames that slide.
const SLIDING: [&str; 9] = ["sum", "avg", "min", "max", "var", "var_pop", "stddev", "stddev_pop", "bit_xor"];
/// Those over frames from the first row only.
const GROWING: [&str; 9] =
    ["array_agg", "string_agg", "bool_and", "bool_or", "bit_and", "bit_or", "median", "corr", "approx_distinct"];

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let pool = Arc::clone(&state.runtime_env().memory_pool);
    for name in SLIDING.into_iter().chain(GROWING) {
        let inner = Arc::clone(state.udaf(name)?.inner());
        let windowed = Windowed { inner: inner.into(), pool: Arc::clone(&pool) };
        state.register_udaf(Arc::new(AggregateUDF::new_from_impl(windowed)))?;
    }
    Ok(())
}

/// An aggregate that is fit for windows.
#[derive(Debug)]
struct Windowed {
    inner: UdfEq<Arc<dyn AggregateUDFImpl>>,
    pool: Arc<dyn MemoryPool>,
}

impl PartialEq for Windowed {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Windowed {}

impl Hash for Windowed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Windowed {
    fn answering(&self, inner: Box<dyn Accumulator>, answer: &DataType) -> Box<dyn Accumulator> {
        if is_sized_by_value(answer) { Box::new(Answering::new(inner, &self.pool)) } else { inner }
    }
}

#[warn(clippy::missing_trait_methods)]
impl AggregateUDFImpl for Windowed {
    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if !args.is_distinct && args.expr_fields.iter().all(|field| field.data_type() == &DataType::Float64) {
            match self.name() {
                "sum" => return Ok(Box::new(Frame::<f64>::new(|sum, _| Some(sum)))),
                "avg" => return Ok(Box::new(Frame::<f64>::new(|sum, count| Some(sum / count as f64)))),
                "var" => return Ok(Box::new(Frame::new(Spread::of_sample))),
                "var_pop" => return Ok(Box::new(Frame::new(Spread::of_all))),
                "stddev" => return Ok(Box::new(Frame::new(|spread, count| Spread::of_sample(spread, count).map(f64::sqrt)))),
                "stddev_pop" => return Ok(Box::new(Frame::new(|spread, count| Spread::of_all(spread, count).map(f64::sqrt)))),
                _ => {}
            }
        }
        let answer = args.return_type().clone();
        let inner = self.inner.create_sliding_accumulator(args)?;
        let inner: Box<dyn Accumulator> = match GROWING.contains(&self.name()) {
            true => inner,
            false => Box::new(Counted::new(inner, ScalarValue::try_from(&answer)?)),
        };
        Ok(self.answering(inner, &answer))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.human_display(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.display_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let answer = args.return_type().clone();
        Ok(self.answering(self.inner.accumulator(args)?, &answer))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn with_beneficial_ordering(self: Arc<Self>, beneficial: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let inner = Arc::clone(&self.inner).with_beneficial_ordering(beneficial)?;
        Ok(inner.map(|inner| Arc::new(Windowed { inner: inner.into(), pool: Arc::clone(&self.pool) }) as _))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        // From the last row to the first, what is a frame from the first row would slide.
        if GROWING.contains(&self.name()) { ReversedUDAF::NotSupported } else { self.inner.reverse_expr() }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }
}
