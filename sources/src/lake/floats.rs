//! What a float of a file is where its column has become one of doubles.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float32Type;

/// How a table reads floats of files as doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Floats {
    /// As the same number: 0.1, which no float is, becomes 0.10000000149011612.
    Same,
    /// As the double of the same text: 0.1 becomes 0.1. So does Hudi, in Spark's files (`recursivelyCastExpressions` of
    /// `HoodieParquetFileFormatHelper` casts by a string) and where it merges logs.
    #[cfg_attr(not(feature = "hudi"), allow(dead_code))]
    ByText,
}

/// Floats as the doubles that are written like them.
pub(super) fn by_text(floats: &ArrayRef) -> ArrayRef {
    // The shortest text that means the float and no other.
    let double = |float: f32| float.to_string().parse().unwrap_or_else(|_| f64::from(float));
    let doubles: Float64Array = floats.as_primitive::<Float32Type>().unary(double);
    Arc::new(doubles)
}

#[cfg(test)]
mod tests {
    use arrow::array::Float32Array;
    use arrow::datatypes::Float64Type;

    use super::*;

    #[test]
    fn a_double_is_written_like_its_float() {
        let floats = [Some(0.1), None, Some(-1.5e-30), Some(f32::MAX), Some(-0.0), Some(f32::INFINITY)];
        let floats: ArrayRef = Arc::new(Float32Array::from(floats.to_vec()));
        let doubles = [Some(0.1), None, Some(-1.5e-30), Some(3.4028235e38), Some(-0.0), Some(f64::INFINITY)];
        assert_eq!(by_text(&floats).as_primitive::<Float64Type>(), &Float64Array::from(doubles.to_vec()));
        let odd: ArrayRef = Arc::new(Float32Array::from(vec![f32::NAN]));
        assert!(by_text(&odd).as_primitive::<Float64Type>().value(0).is_nan());
    }
}
