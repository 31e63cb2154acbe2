//! Frames, where DataFusion's own reading of them fails later.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

use crate::rewrite;

/// The most rows that a bound is away.
const MOST: u64 = 1 << 62;

/// Settles frames before the analysis gives every expression its type.
///
/// - Without an order all rows are peers of one another (ISO/IEC 9075-2, window clause), so that a range that ends at the
///   current row is all of the partition, and is written so.
/// - The bounds of a range are sums of a value and a distance: those of decimals have one more digit and are then not compared
///   with the value, and those of whole numbers may not fit into their type. As decimals of all digits they are and do.
/// - Of values that have no distances, times of day among them, a range without distances is one of groups of peers.
/// - A range that begins behind the current row, or ends before it, has wrong rows where there are none, or NULLs: refused.
/// - A number of rows beyond all that there can be is cut to what can be added.
#[derive(Debug)]
pub struct Frames;

impl AnalyzerRule for Frames {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, |expr, schema| expr.transform_up(|expr| settled(expr, schema)), Ok)
    }

    fn name(&self) -> &str {
        "frames"
    }
}

fn settled(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(function) = &mut expr else { return Ok(Transformed::no(expr)) };
    let WindowFunctionParams { order_by, window_frame, .. } = &mut function.params;
    let cut = [&mut window_frame.start_bound, &mut window_frame.end_bound].map(cut);
    if cut.contains(&true) {
        return Ok(Transformed::yes(expr));
    }
    if window_frame.units != WindowFrameUnits::Range {
        return Ok(Transformed::no(expr));
    }
    let bounds = [&window_frame.start_bound, &window_frame.end_bound];
    let [start, end] = bounds;
    // DataFusion writes a constant where there was none.
    if order_by.iter().all(|key| matches!(key.expr, Expr::Literal(..))) {
        if !bounds.into_iter().all(|bound| bound.is_unbounded() || *bound == WindowFrameBound::CurrentRow) {
            return Ok(Transformed::no(expr));
        }
        *window_frame = WindowFrame::new(None);
        order_by.clear();
        return Ok(Transformed::yes(expr));
    }
    let begins_behind = matches!(start, WindowFrameBound::Following(value) if !value.is_null());
    let ends_before = matches!(end, WindowFrameBound::Preceding(value) if !value.is_null());
    if begins_behind || ends_before {
        let message = "a RANGE that begins behind the current row, or ends before it, is not offered";
        return Err(Error::unsupported(message).with_hint("count rows or groups of peers, with ROWS or GROUPS").into());
    }
    let has_distance = bounds.into_iter().any(|bound| distance(bound).is_some());
    if let [key] = order_by.as_slice()
        && !has_distance
        && !has_ranges(&key.expr.get_type(schema)?)
    {
        let rows = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::Preceding(_) => WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            WindowFrameBound::Following(_) => WindowFrameBound::Following(ScalarValue::UInt64(None)),
            WindowFrameBound::CurrentRow => WindowFrameBound::CurrentRow,
        };
        *window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, rows(start), rows(end));
        return Ok(Transformed::yes(expr));
    }
    let scale = bounds.into_iter().filter_map(distance).map(scale).max();
    let ([key], Some(scale)) = (order_by.as_mut_slice(), scale) else { return Ok(Transformed::no(expr)) };
    let widest = match key.expr.get_type(schema)? {
        DataType::Decimal32(_, own) | DataType::Decimal64(_, own) | DataType::Decimal128(_, own) => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, own.max(scale))
        }
        whole if whole.is_integer() => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
        DataType::Decimal256(_, own) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, own.max(scale)),
        _ => return Ok(Transformed::no(expr)),
    };
    key.expr = Expr::Cast(Cast::new(Box::new(key.expr.clone()), widest));
    Ok(Transformed::yes(expr))
}

/// Whether DataFusion knows ranges over values of a type.
fn has_ranges(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => has_ranges(values),
        DataType::Time32(_) | DataType::Time64(_) | DataType::Interval(_) | DataType::Duration(_) => false,
        DataType::Struct(_) | DataType::Map(..) | DataType::FixedSizeBinary(_) => false,
        other => !other.is_binary(),
    }
}

/// Cuts a number of rows. Returns whether it did.
fn cut(bound: &mut WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(rows)))
            if *rows > MOST =>
        {
            *rows = MOST;
            true
        }
        _ => false,
    }
}

/// How far a bound is from the current row, as it is written.
fn distance(bound: &WindowFrameBound) -> Option<String> {
    match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) if !value.is_null() => Some(value.to_string()),
        _ => None,
    }
}

/// The digits behind the point.
fn scale(number: String) -> i8 {
    let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
    i8::try_from(digits).unwrap_or(i8::MAX).min(DECIMAL128_MAX_PRECISION as i8)
}
