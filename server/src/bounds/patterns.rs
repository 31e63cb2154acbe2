//! Regular expressions that come from rows. Each is compiled once a batch and kept until its end, and may take megabytes; so a batch
//! is cut into runs of few. What a match gives of each of its groups may be as long as the text.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, ColumnarValue, Expr, ExprSchemable, Like, Operator, ScalarUDF, not};

use super::concatenation::is_text;

/// What one takes, with what it needs while it searches: at the most, but for the few that repeat large classes many times.
const COMPILED: usize = 2 << 20;

/// Cuts rows into runs with as many different patterns as fit into `most` bytes, and one at least.
pub(super) fn runs(patterns: &ArrayRef, most: usize) -> Result<Vec<Range<usize>>> {
    let texts = cast(patterns, &DataType::LargeUtf8)?;
    let texts = texts.as_string::<i64>();
    let (mut runs, mut start, mut seen) = (Vec::new(), 0, HashSet::new());
    for (row, text) in texts.iter().enumerate() {
        if seen.contains(&text) {
            continue;
        }
        if (seen.len() + 1) * COMPILED > most && row > start {
            runs.push(start..row);
            start = row;
            seen.clear();
        }
        seen.insert(text);
    }
    runs.push(start..texts.len());
    Ok(runs)
}

/// How many groups a pattern has at the most, that of the whole match included; of several the one with the most.
pub(super) fn groups(patterns: &ColumnarValue) -> Result<i128> {
    let texts = cast(&patterns.to_array(1)?, &DataType::LargeUtf8)?;
    let opened = |text: &str| text.bytes().filter(|byte| *byte == b'(').count();
    Ok(1 + texts.as_string::<i64>().iter().flatten().map(opened).max().unwrap_or_default() as i128)
}

/// `text ~ pattern`, `text SIMILAR TO pattern` and their like as a call of `regexp_like`, since an operator cannot be bounded as
/// functions are; none for other expressions, and where the pattern is known.
pub(super) fn call(like: &Arc<ScalarUDF>, expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let (text, pattern, is_not, ignores_case) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (is_not, ignores_case) = match op {
                Operator::RegexMatch => (false, false),
                Operator::RegexIMatch => (false, true),
                Operator::RegexNotMatch => (true, false),
                Operator::RegexNotIMatch => (true, true),
                _ => return None,
            };
            (left, right, is_not, ignores_case)
        }
        Expr::SimilarTo(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            (expr, pattern, *negated, false)
        }
        _ => return None,
    };
    if matches!(**pattern, Expr::Literal(..)) || !is_text(text, pattern, schema) {
        return None;
    }
    let flags = match text.get_type(schema) {
        Ok(DataType::LargeUtf8) => ScalarValue::LargeUtf8(Some("i".to_owned())),
        _ => ScalarValue::Utf8(Some("i".to_owned())),
    };
    let flags = ignores_case.then(|| Expr::Literal(flags, None));
    let args = [(**text).clone(), (**pattern).clone()].into_iter().chain(flags);
    let call = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(like), args.collect()));
    Some(if is_not { not(call) } else { call })
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn a_run_has_few_patterns_and_as_many_rows_as_share_them() {
        let patterns: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a", "a", "c", "c", "a", "b"]));
        let ends =
            |patterns: &ArrayRef, most| -> Vec<usize> { runs(patterns, most).unwrap().into_iter().map(|run| run.end).collect() };
        assert_eq!(ends(&patterns, 2 * COMPILED), [4, 7, 8]);
        assert_eq!(ends(&patterns, 3 * COMPILED), [8]);
        assert_eq!(ends(&patterns, 0), [1, 2, 4, 6, 7, 8]);
        assert_eq!(ends(&patterns.slice(0, 0), 0), [0]);
    }
}
