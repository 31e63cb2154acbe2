//! An aggregate of DataFusion's that sees no NULL, and is not asked where there is nothing else: an average of decimals would
//! divide by zero, and a minimum be the last one that there was.

use arrow::array::{Array, ArrayRef};
use arrow::compute::{filter, is_not_null};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

#[derive(Debug)]
pub(super) struct Counted {
    inner: Box<dyn Accumulator>,
    /// The values in the frame.
    count: usize,
    /// The answer where there are none.
    none: ScalarValue,
}

impl Counted {
    pub(super) fn new(inner: Box<dyn Accumulator>, none: ScalarValue) -> Self {
        Self { inner, count: 0, none }
    }
}

fn present(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let present = |values: &ArrayRef| {
        if values.is_nullable() { Ok(filter(values, &is_not_null(values)?)?) } else { Ok(ArrayRef::clone(values)) }
    };
    values.iter().map(present).collect()
}

fn length(values: &[ArrayRef]) -> usize {
    values.first().map_or(0, |values| values.len())
}

impl Accumulator for Counted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = present(values)?;
        self.count += length(&values);
        self.inner.update_batch(&values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = present(values)?;
        self.count = self.count.saturating_sub(length(&values));
        self.inner.retract_batch(&values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 { Ok(self.none.clone()) } else { self.inner.evaluate() }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size() + self.none.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}
