//! Functions whose answer can be far larger than what they are given. Before one of those runs, its answer is bounded from
//! above; where that is too much the rows are cut into runs, and the answer itself is held to the bound.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};
use nexus_flight_catalog::Error;

use super::concatenation::Concatenation;
use super::counted::{counted, left, made, refused};
use super::measure::{Measured, bytes, runs};
use super::patterns::{self, groups};
use super::series::ending;
use super::shown;
use crate::around::{Around, Wrapped};

/// How the size of an answer follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    Repeat,
    Pad,
    Replace,
    RegexpReplace,
    /// The groups of a match, each as long as the text.
    RegexpGroups,
    /// A number or a truth value about a text.
    RegexpFound,
    Translate,
    Overlay,
    Encode,
    Concat,
    ConcatWith,
    Join,
    Format,
    /// What is made is small; the work is that of each letter with each.
    Pairs,
    Range,
    ArrayRepeat,
    ArrayResize,
    ArrayReplace,
}

const FUNCTIONS: [(&str, Growth); 29] = [
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("replace", Growth::Replace),
    ("regexp_replace", Growth::RegexpReplace),
    ("regexp_match", Growth::RegexpGroups),
    ("regexp_like", Growth::RegexpFound),
    ("regexp_count", Growth::RegexpFound),
    ("regexp_instr", Growth::RegexpFound),
    ("translate", Growth::Translate),
    ("overlay", Growth::Overlay),
    ("encode", Growth::Encode),
    ("concat", Growth::Concat),
    ("concat_ws", Growth::ConcatWith),
    ("array_concat", Growth::Concat),
    ("array_append", Growth::Concat),
    ("array_prepend", Growth::Concat),
    ("make_array", Growth::Concat),
    ("struct", Growth::Concat),
    ("named_struct", Growth::Concat),
    ("array_to_string", Growth::Join),
    ("to_char", Growth::Format),
    ("levenshtein", Growth::Pairs),
    ("range", Growth::Range),
    ("generate_series", Growth::Range),
    ("array_repeat", Growth::ArrayRepeat),
    ("array_resize", Growth::ArrayResize),
    ("array_replace_n", Growth::ArrayReplace),
    ("array_replace_all", Growth::ArrayReplace),
];

/// The state with these functions held to `most` bytes a batch, and `||` as one of them.
pub fn bounded(mut state: SessionState, most: usize) -> Result<SessionState> {
    let pool = Arc::clone(&state.runtime_env().memory_pool);
    let held = |inner: Arc<dyn ScalarUDFImpl>, growth| {
        let pool = Arc::clone(&pool);
        Arc::new(ScalarUDF::from(Wrapped(Bounded { inner: inner.into(), growth, most, pool })))
    };
    for (name, growth) in FUNCTIONS {
        let inner = Arc::clone(state.udf(name)?.inner());
        state.register_udf(held(inner, growth))?;
    }
    state.register_udf(held(Arc::new(Concatenation::default()), Growth::Concat))?;
    Ok(ending(state))
}

impl Growth {
    /// Whether the second argument is a regular expression.
    fn has_pattern(self) -> bool {
        matches!(self, Growth::RegexpReplace | Growth::RegexpGroups | Growth::RegexpFound)
    }

    /// The most bytes that a row can become.
    fn row(self, columns: &[Measured], row: usize) -> i128 {
        let number = |column: usize| columns.get(column).map_or(0, |column| column.number(row));
        let bytes = |column: usize| columns.get(column).map_or(0, |column| column.bytes(row));
        let item = |column: usize| columns.get(column).map_or(0, Measured::item);
        let count = |column: usize| number(column).max(0);
        match self {
            Growth::Repeat => number(0).saturating_mul(count(1)),
            // In characters, of at most four bytes.
            Growth::Pad => count(1).saturating_mul(4),
            Growth::Replace => number(0).saturating_add((number(0) / number(1).max(1) + 1).saturating_mul(number(2))),
            Growth::RegexpReplace => {
                // Only with flags can there be more than one match. Each group that is named takes two bytes to name, and what
                // all matches of it hold is no longer than the text.
                let matches = if columns.len() > 3 { number(0) + 1 } else { 1 };
                let groups = (number(2) / 2).saturating_mul(number(0));
                number(0).saturating_add(matches.saturating_mul(number(2))).saturating_add(groups)
            }
            Growth::RegexpGroups => number(0),
            Growth::RegexpFound => 8,
            // A letter is at most four bytes.
            Growth::Translate => number(0).saturating_mul(if number(2) > 0 { 4 } else { 1 }),
            Growth::Overlay => number(0).saturating_add(number(1)),
            Growth::Encode => number(0).saturating_mul(2),
            Growth::Concat => (0..columns.len()).map(bytes).sum(),
            // The separator stands between the others.
            Growth::ConcatWith => (0..columns.len()).map(bytes).sum::<i128>().saturating_add(number(0) * columns.len() as i128),
            // A number or a time becomes at most some forty characters.
            Growth::Join => {
                number(0).saturating_mul(item(0).saturating_add(40).saturating_add(bytes(1)).saturating_add(bytes(2)))
            }
            // The longest of what a letter pair of a format stands for is a whole date and time.
            Growth::Format => bytes(1).saturating_mul(16),
            Growth::Pairs => bytes(0).saturating_mul(bytes(1)),
            // NULL, whatever the others are.
            Growth::Range if columns.iter().any(|column| column.is_null(row)) => 0,
            Growth::Range => {
                let (start, stop) = if columns.len() == 1 { (0, number(0)) } else { (number(0), number(1)) };
                let step = if columns.len() > 2 { number(2) } else { 1 };
                let span = stop.saturating_sub(start);
                match span.checked_div(step) {
                    Some(_) if span.signum() * step.signum() < 0 => 0,
                    Some(steps) => (steps + 1).saturating_mul(8),
                    // Of no time at all it would go on for ever; a number that is zero is refused by the function itself.
                    None if columns.get(2).is_some_and(Measured::is_interval) => i128::MAX,
                    None => 0,
                }
            }
            Growth::ArrayRepeat => bytes(0).saturating_add(8).saturating_mul(count(1)),
            Growth::ArrayResize => item(0).max(bytes(2)).max(1).saturating_mul(count(1)),
            Growth::ArrayReplace => number(0).saturating_mul(item(0).saturating_add(bytes(2))),
        }
    }

    /// The most bytes that each row can become; of one row where all share their arguments.
    fn rows(self, args: &[ColumnarValue]) -> Result<Vec<i128>> {
        let columns = args.iter().map(|arg| Measured::of(&arg.to_array(1)?)).collect::<Result<Vec<_>>>()?;
        if self == Growth::ArrayResize && columns.get(1).is_some_and(Measured::has_negative) {
            return Err(Error::invalid("array_resize to less than no items").with_hint("a size is not negative").into());
        }
        if self == Growth::Range
            && let Some(step) = args.get(2)
            && let Some(steps) = step.to_array(1)?.as_primitive_opt::<IntervalMonthDayNanoType>()
            && steps.iter().flatten().any(|step| step == IntervalMonthDayNano::ZERO)
        {
            return Err(Error::invalid("a range has a step of no time")
                .with_hint("give a step that is longer or shorter than 0")
                .into());
        }
        let rows = args.iter().find_map(|arg| match arg {
            ColumnarValue::Array(array) => Some(array.len()),
            ColumnarValue::Scalar(_) => None,
        });
        let each = match (self, args.get(1)) {
            (Growth::RegexpGroups, Some(patterns)) => groups(patterns)?,
            _ => 1,
        };
        Ok((0..rows.unwrap_or(1)).map(|row| self.row(&columns, row).saturating_mul(each)).collect())
    }
}

#[derive(Debug)]
struct Bounded {
    inner: UdfEq<Arc<dyn ScalarUDFImpl>>,
    growth: Growth,
    /// The bytes that an answer may have beyond a few times what was given.
    most: usize,
    pool: Arc<dyn MemoryPool>,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && self.growth == other.growth && self.most == other.most
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Bounded {
    /// What the function makes of constants alone.
    fn constant(&self, args: ScalarFunctionArgs, size: i128, most: usize) -> Result<ColumnarValue> {
        if size > most as i128 {
            let error = self.too_large(size, most as i128);
            refused(&error);
            return Err(error.into());
        }
        let value = self.inner.invoke_with_args(args)?;
        if let ColumnarValue::Scalar(value) = &value {
            made(value.size());
        }
        Ok(value)
    }

    /// What the function makes of rows that are few enough, or else run by run.
    fn within(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = self.growth.rows(&args.args)?;
        let total = sizes.iter().fold(0_i128, |total, size| total.saturating_add(*size));
        if let Some(left) = left().filter(|_| args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))) {
            return self.constant(args, total, left);
        }
        if total <= self.most as i128 {
            return match self.inner.invoke_with_args(args)? {
                ColumnarValue::Array(array) => Ok(ColumnarValue::Array(counted(array, &self.pool)?)),
                scalar @ ColumnarValue::Scalar(_) => Ok(scalar),
            };
        }
        let given = args.args.iter().map(|arg| match arg {
            ColumnarValue::Array(array) => bytes(array),
            ColumnarValue::Scalar(value) => value.size(),
        });
        // Large values that stay about as large are no more than was there already; but step by step they could double for ever.
        let most = (self.most + (2 * given.sum::<usize>()).min(3 * self.most)) as i128;
        if let Some(size) = sizes.iter().find(|size| **size > most) {
            return Err(self.too_large(*size, most).into());
        }
        let (mut parts, mut made) = (Vec::new(), 0_i128);
        for run in runs(&sizes, self.most as i128) {
            let part = self.inner.invoke_with_args(sliced(&args, run.start, run.len()))?.into_array(run.len())?;
            made += bytes(&part) as i128;
            if made > most {
                return Err(self.too_large(made, most).into());
            }
            parts.push(counted(part, &self.pool)?);
        }
        self.joined(&parts)
    }

    fn joined(&self, parts: &[ArrayRef]) -> Result<ColumnarValue> {
        if let [only] = parts {
            return Ok(ColumnarValue::Array(Arc::clone(only)));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(counted(concat(&parts)?, &self.pool)?))
    }

    fn too_large(&self, size: i128, most: i128) -> Error {
        let name = self.inner.name();
        let size = if size == i128::MAX { "too much".to_owned() } else { shown(size.unsigned_abs()) };
        Error::exhausted(format!("{name} would make {size} at once, the limit is {}", shown(most.unsigned_abs())))
            .with_hint("ask for shorter values, or raise limits.memory")
            .with_retryable(false)
    }
}

fn sliced(args: &ScalarFunctionArgs, start: usize, rows: usize) -> ScalarFunctionArgs {
    let slice = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, rows)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    };
    ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: rows, ..args.clone() }
}

impl Around for Bounded {
    fn inner(&self) -> &dyn ScalarUDFImpl {
        self.inner.as_ref()
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Array(patterns)) = args.args.get(1).filter(|_| self.growth.has_pattern()) else {
            return self.within(args);
        };
        let parts = patterns::runs(patterns, self.most)?.into_iter().map(|run| {
            let rows = run.len();
            self.within(sliced(&args, run.start, rows))?.into_array(rows)
        });
        self.joined(&parts.collect::<Result<Vec<_>>>()?)
    }

    fn with_updated_config(&self, _config: &ConfigOptions) -> Option<ScalarUDF> {
        // None of these hangs on the configuration.
        None
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // A call with a pattern of each row would become an operator, which is not bounded.
        if self.growth.has_pattern() && !matches!(args.get(1), Some(Expr::Literal(..))) {
            return Ok(ExprSimplifyResult::Original(args));
        }
        self.inner.simplify(args, info)
    }
}
