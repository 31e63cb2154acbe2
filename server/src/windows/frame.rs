//! Doubles of a frame that slides, without ever taking one from a sum again: a queue of two stacks. What comes is pushed to
//! the newer one. When the older one is empty, the newer is turned over into it, each with what those after it come to, so that
//! the oldest is on top with all of them. Each value is moved once: a row costs the same whatever the frame holds.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef};
use datafusion::common::ScalarValue;
use datafusion::common::cast::as_float64_array;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use nexus_flight_catalog::Error;

/// What a run of values comes to; two runs join into one.
pub(super) trait Part: Copy + Debug + Send + Sync + 'static {
    /// What no values come to.
    const NONE: Self;
    fn of(value: f64) -> Self;
    fn join(self, other: Self) -> Self;
}

impl Part for f64 {
    const NONE: Self = 0.0;

    fn of(value: f64) -> Self {
        value
    }

    fn join(self, other: Self) -> Self {
        self + other
    }
}

/// How far values lie from their mean: their number, the mean, and the sum of the squares of the distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    pub(super) fn of_all(self, count: usize) -> Option<f64> {
        // As everywhere else in DataFusion: a single value has no spread, whatever it is.
        if count == 1 { Some(0.0) } else { Some(self.squares / self.count) }
    }

    pub(super) fn of_sample(self, count: usize) -> Option<f64> {
        (count > 1).then(|| self.squares / (self.count - 1.0))
    }
}

impl Part for Spread {
    const NONE: Self = Self { count: 0.0, mean: 0.0, squares: 0.0 };

    fn of(value: f64) -> Self {
        Self { count: 1.0, mean: value, squares: 0.0 }
    }

    /// By Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
    fn join(self, other: Self) -> Self {
        if self.count == 0.0 {
            return other;
        }
        if other.count == 0.0 {
            return self;
        }
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        let mean = self.mean + apart * other.count / count;
        let squares = self.squares + other.squares + apart * apart * self.count * other.count / count;
        Self { count, mean, squares }
    }
}

/// The values of a frame that are not NULL.
#[derive(Debug)]
pub(super) struct Frame<P> {
    /// The oldest on top, each with all that came after it up to the turn.
    older: Vec<P>,
    /// What came since then, the newest on top.
    newer: Vec<f64>,
    /// What those come to.
    since: P,
    /// The answer, from what all come to and how many they are.
    answer: fn(P, usize) -> Option<f64>,
}

impl<P: Part> Frame<P> {
    pub(super) fn new(answer: fn(P, usize) -> Option<f64>) -> Self {
        Self { older: Vec::new(), newer: Vec::new(), since: P::NONE, answer }
    }

    fn turn(&mut self) {
        let mut after = P::NONE;
        self.older.reserve_exact(self.newer.len());
        for value in self.newer.drain(..).rev() {
            after = P::of(value).join(after);
            self.older.push(after);
        }
        self.since = P::NONE;
    }
}

fn doubles(values: &[ArrayRef]) -> Result<impl Iterator<Item = f64>> {
    let [values] = values else { return Err(Error::internal("an aggregate of one argument was given another number").into()) };
    Ok(as_float64_array(values)?.iter().flatten())
}

impl<P: Part> Accumulator for Frame<P> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in doubles(values)? {
            self.newer.push(value);
            self.since = self.since.join(P::of(value));
        }
        Ok(())
    }

    /// What leaves is what came first, so that only its number counts.
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut leave = values.first().map_or(0, |values| values.len() - values.null_count());
        while leave > 0 {
            if self.older.is_empty() {
                self.turn();
                if self.older.is_empty() {
                    return Err(Error::internal("more leaves a frame than is in it").into());
                }
            }
            let left = leave.min(self.older.len());
            self.older.truncate(self.older.len() - left);
            leave -= left;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let count = self.older.len() + self.newer.len();
        let all = self.older.last().copied().unwrap_or(P::NONE).join(self.since);
        Ok(ScalarValue::Float64(if count == 0 { None } else { (self.answer)(all, count) }))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.older.capacity() * size_of::<P>() + self.newer.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(Error::internal("frames are not merged").into())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(Error::internal("frames are not merged").into())
    }
}
