//! Moments by formats. Of a column of texts DataFusion's `to_timestamp(text, format)` gives moments without the zone that its type
//! promises, which fails where they become rows; the moments themselves are right.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, make_array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::optimizer::AnalyzerRule;

use crate::rewrite;

/// Has them give what they promise.
#[derive(Debug)]
pub struct Moments;

impl AnalyzerRule for Moments {
    fn name(&self) -> &str {
        "moments"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, |expr, _| expr.transform_up(|expr| Ok(zoned(expr))), Ok)
    }
}

fn zoned(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if args.len() > 1 && func.name().starts_with("to_timestamp") => {
            Transformed::yes(ScalarUDF::from(Zoned { inner: func }).call(args))
        }
        other => Transformed::no(other),
    }
}

/// The same moments, with the zone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Zoned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let promised = args.return_field.data_type().clone();
        // Past the check of debug builds, which would fail here.
        let given = self.inner.inner().invoke_with_args(args)?;
        let lacks_zone = |given: &DataType| match (given, &promised) {
            (DataType::Timestamp(given, None), DataType::Timestamp(promised, Some(_))) => given == promised,
            _ => false,
        };
        match given {
            ColumnarValue::Array(moments) if lacks_zone(moments.data_type()) => {
                let moments = moments.to_data().into_builder().data_type(promised).build()?;
                Ok(ColumnarValue::Array(make_array(moments)))
            }
            other => Ok(other),
        }
    }
}
