//! `ntile` by the standard (ISO/IEC 9075-2, window function): where the rows do not divide evenly the first buckets have one
//! more. DataFusion's spreads the larger ones over all.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use nexus_flight_catalog::Error;

/// Numbers the buckets of a partition from 1.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Ntile {
    signature: Signature,
}

impl Default for Ntile {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Ntile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "ntile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let literal = args.input_exprs().first().and_then(|expr| expr.as_any().downcast_ref::<Literal>());
        let count = literal.map(|literal| literal.value().cast_to(&DataType::Int64)).transpose()?;
        match count {
            Some(ScalarValue::Int64(Some(count))) if count > 0 => Ok(Box::new(Buckets(count.unsigned_abs()))),
            _ => Err(Error::invalid("ntile wants a whole number above 0").with_hint("write it as in ntile(4)").into()),
        }
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::UInt64, false)))
    }

    fn limit_effect(&self, _args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // Where a bucket ends hangs on how many rows there are.
        LimitEffect::Unknown
    }
}

#[derive(Debug)]
struct Buckets(u64);

impl PartitionEvaluator for Buckets {
    fn evaluate_all(&mut self, _values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let rows = rows as u64;
        let (least, larger) = (rows / self.0, rows % self.0);
        // Those before this row are in buckets of one more.
        let turn = larger * (least + 1);
        let bucket = |row: u64| if row < turn { row / (least + 1) } else { larger + (row - turn) / least.max(1) };
        Ok(Arc::new((0..rows).map(|row| bucket(row) + 1).collect::<UInt64Array>()))
    }
}
