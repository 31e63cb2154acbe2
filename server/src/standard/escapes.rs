//! `LIKE … ESCAPE` with any character (ISO/IEC 9075-2, like predicate): DataFusion's patterns know the backslash alone, and it
//! forgets the backslash where it asks statistics which rows may begin so.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Like, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

use crate::rewrite;
use crate::standard::casts::kept;

/// Writes patterns with the backslash for another character that escapes.
#[derive(Debug)]
pub struct Escapes;

impl AnalyzerRule for Escapes {
    fn name(&self) -> &str {
        "escapes"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = |expr: Expr, schema: &DFSchema| {
            expr.transform_up(with_backslash)?.transform_data(|expr| expr.transform_up(|expr| without_statistics(expr, schema)))
        };
        rewrite::expressions(plan, rewritten, Ok)
    }
}

/// Hides the values from their statistics, where a wildcard or a backslash stands for itself at the beginning.
fn without_statistics(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_text = |expr: &Expr, letters: &[char]| match expr {
        Expr::Literal(text, _) => text.try_as_str().flatten().is_some_and(|text| text.contains(letters)),
        // What a pattern is computed of is not seen here.
        other => !matches!(other, Expr::Column(_)),
    };
    let values = match &mut expr {
        Expr::Like(Like { expr: values, pattern, .. }) if is_text(pattern, &['\\']) => values.as_mut(),
        // DataFusion makes a pattern of it.
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "starts_with" => match args.as_mut_slice() {
            [values, text] if is_text(text, &['\\', '%', '_']) => values,
            _ => return Ok(Transformed::no(expr)),
        },
        _ => return Ok(Transformed::no(expr)),
    };
    let data_type = values.get_type(schema)?;
    *values = kept(std::mem::take(values), data_type, false);
    Ok(Transformed::yes(expr))
}

fn with_backslash(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Like(Like { negated, expr, pattern, escape_char: Some(escape), case_insensitive }) if escape != '\\' => {
            let pattern = Box::new(ScalarUDF::from(Pattern::new(escape)).call(vec![*pattern]));
            let like = Like { negated, expr, pattern, escape_char: None, case_insensitive };
            Ok(Transformed::yes(Expr::Like(like)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A pattern in which a character escapes, as one in which the backslash does; NULL stays NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pattern {
    escape: char,
    /// With the character, which decides what comes of a pattern.
    name: String,
    signature: Signature,
}

impl Pattern {
    fn new(escape: char) -> Self {
        let signature = Signature::uniform(1, vec![DataType::Utf8, DataType::LargeUtf8], Volatility::Immutable);
        Self { escape, name: format!("pattern_escaped_by_{escape}"), signature }
    }

    /// Errors: `Invalid` where it escapes anything but `%`, `_` and itself.
    fn written(&self, pattern: &str) -> Result<String> {
        let mut written = String::with_capacity(pattern.len());
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            if letter != self.escape {
                // A backslash is a letter like any other here.
                written.extend((letter == '\\').then_some('\\'));
                written.push(letter);
                continue;
            }
            match letters.next() {
                Some(wildcard @ ('%' | '_')) => written.extend(['\\', wildcard]),
                Some(letter) if letter == self.escape => written.push(letter),
                _ => {
                    let message = format!("in the pattern '{pattern}' the character '{letter}' escapes neither %, _ nor itself");
                    return Err(Error::invalid(message).with_hint("write it twice where it means itself").into());
                }
            }
        }
        Ok(written)
    }

    fn all<O: OffsetSizeTrait>(&self, patterns: &GenericStringArray<O>) -> Result<ArrayRef> {
        let written = patterns.iter().map(|pattern| pattern.map(|pattern| self.written(pattern)).transpose());
        Ok(Arc::new(written.collect::<Result<GenericStringArray<O>>>()?))
    }
}

impl ScalarUDFImpl for Pattern {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(if types.contains(&DataType::LargeUtf8) { DataType::LargeUtf8 } else { DataType::Utf8 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = matches!(args.args.as_slice(), [ColumnarValue::Scalar(_)]);
        let [patterns] =
            ColumnarValue::values_to_arrays(&args.args)?.try_into().map_err(|_| Error::internal("not one pattern"))?;
        let written = match patterns.data_type() {
            DataType::LargeUtf8 => self.all::<i64>(patterns.as_string())?,
            _ => self.all::<i32>(patterns.as_string())?,
        };
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&written, 0)?)),
            false => Ok(ColumnarValue::Array(written)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_stands_for_itself() {
        let pattern = Pattern::new('/');
        for (given, written) in [("a/%b%", r"a\%b%"), ("//_", "/_"), (r"\", r"\\"), ("/_/%//", r"\_\%/"), ("", "")] {
            assert_eq!(pattern.written(given).unwrap(), written);
        }
        for given in ["a/", "/a", "//a/"] {
            assert!(pattern.written(given).is_err(), "{given}");
        }
        // Where the wildcard itself escapes, it is no wildcard any more.
        assert_eq!(Pattern::new('%').written("100%%_%_").unwrap(), r"100\%_\_");
    }
}
