//! Functions of one row. Their arguments are of the types that DataFusion's analysis has given them.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use nexus_flight_catalog::{Error, Result};

use super::casts::type_name;
use super::expr::{constant, decided, is_floating};
use super::{Scope, Writer, refused};
use crate::trino::quoted;

/// Functions of numbers of floating point that are the same there under the same names. The last digit may be another one.
const OF_NUMBERS: [&str; 20] = [
    "acos", "asin", "atan", "atan2", "cbrt", "cos", "cosh", "degrees", "exp", "ln", "log", "log10", "log2", "pi", "power",
    "radians", "sin", "sqrt", "tan", "tanh",
];

/// Units that moments are cut to, from Monday where it is a week.
const UNITS: [&str; 8] = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"];

impl Writer<'_> {
    /// `of` is the type of what it gives.
    pub(super) fn call(&mut self, function: &ScalarFunction, of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let (name, args) = (function.func.name(), function.args.as_slice());
        match (name, args) {
            // What the gateway makes of casts that lose something, of texts that are put together, and of what may be NaN.
            (name, [inner]) if name.starts_with("cast(") => self.cast(inner, of, false, scope),
            (name, [inner]) if name.starts_with("try_cast(") => self.cast(inner, of, true, scope),
            ("plain_nan", [inner]) => self.value(inner, scope),
            ("||", args) => self.joined(args.iter(), scope),
            ("coalesce" | "nvl" | "nullif" | "nvl2", args) => self.choice(name, args, of, scope),
            ("date_part", [field, moment]) => self.part(field, moment, of, scope),
            ("date_trunc", [unit, moment]) => self.cut(unit, moment, scope),
            ("abs" | "ceil" | "floor" | "round" | "trunc" | "isnan", _) => self.rounded(name, args, of, scope),
            (name, args) if OF_NUMBERS.contains(&name) => {
                let is_exact = |arg: &Expr| Ok::<_, Error>(arg.get_type(scope.schema)? != DataType::Float64);
                if *of != DataType::Float64 || args.iter().map(is_exact).collect::<Result<Vec<_>>>()?.contains(&true) {
                    return Err(refused(format_args!("the function {name} of exact numbers")));
                }
                // Of one argument it is that to the base of ten.
                let name = if name == "log" && args.len() == 1 { "log10" } else { name };
                Ok(format!("{name}({})", self.all(args, scope)?))
            }
            (name, args) => self.of_texts(name, args, of, scope),
        }
    }

    fn all(&mut self, args: &[Expr], scope: &Scope<'_>) -> Result<String> {
        Ok(args.iter().map(|arg| self.value(arg, scope)).collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// A text. Errors: `Unsupported` for what is none.
    fn text(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        let of = expr.get_type(scope.schema)?;
        if of.is_string() { self.value(expr, scope) } else { Err(refused(format_args!("a value of the type {of} as a text"))) }
    }

    /// Texts one after the other; NULL where one is.
    pub(super) fn joined<'e>(&mut self, texts: impl Iterator<Item = &'e Expr>, scope: &Scope<'_>) -> Result<String> {
        let texts = texts.map(|text| self.text(text, scope)).collect::<Result<Vec<_>>>()?;
        Ok(format!("({})", texts.join(" || ")))
    }

    fn choice(&mut self, name: &str, args: &[Expr], of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let wanted = type_name(of);
        let choices = if name == "nvl2" { args.get(1..).unwrap_or_default() } else { args };
        for choice in choices {
            let found = choice.get_type(scope.schema)?;
            if !found.is_null() && (wanted.is_none() || type_name(&found) != wanted) {
                return Err(refused(format_args!("the function {name} of values of the types {found} and {of}")));
            }
        }
        match (name, args) {
            ("coalesce", [only]) => self.value(only, scope),
            ("coalesce" | "nvl", [_, _, ..]) => Ok(format!("coalesce({})", self.all(args, scope)?)),
            ("nullif", [value, other]) => {
                // Where they are equal here, they are there.
                decided([(value, scope), (other, scope)], Operator::Eq)?;
                Ok(format!("nullif({})", self.all(args, scope)?))
            }
            ("nvl2", [condition, there, missing]) => {
                let condition = self.passed(condition, scope)?;
                let (there, missing) = (self.value(there, scope)?, self.value(missing, scope)?);
                Ok(format!("CASE WHEN {condition} IS NOT NULL THEN {there} ELSE {missing} END"))
            }
            _ => Err(refused(format_args!("the function {name}"))),
        }
    }

    /// A part of a moment, which is a `bigint` there. The days of a week are counted from Monday there and from Sunday here, which
    /// is 7 and 0.
    fn part(&mut self, field: &Expr, moment: &Expr, of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let field = letters(field).unwrap_or_default().to_lowercase();
        let found = moment.get_type(scope.schema)?;
        let (has_date, has_time) = match found {
            DataType::Date32 => (true, false),
            DataType::Timestamp(..) => (true, true),
            DataType::Time64(_) => (false, true),
            _ => (false, false),
        };
        let sql = self.value(moment, scope)?;
        let part = match field.as_str() {
            "year" | "quarter" | "month" | "week" | "day" | "doy" if has_date => format!("extract({field} FROM {sql})"),
            "dow" if has_date => format!("(extract(dow FROM {sql}) % 7)"),
            "hour" | "minute" | "second" if has_time => format!("extract({field} FROM {sql})"),
            _ => return Err(refused(format_args!("date_part of {field:?} and a value of the type {found}"))),
        };
        match type_name(of) {
            Some(of) => Ok(format!("CAST({part} AS {of})")),
            None => Err(refused("date_part")),
        }
    }

    fn cut(&mut self, unit: &Expr, moment: &Expr, scope: &Scope<'_>) -> Result<String> {
        let unit = letters(unit).unwrap_or_default().to_lowercase();
        let found = moment.get_type(scope.schema)?;
        match UNITS.contains(&unit.as_str()) && matches!(found, DataType::Timestamp(..)) {
            true => Ok(format!("date_trunc('{unit}', {})", self.value(moment, scope)?)),
            false => Err(refused(format_args!("date_trunc of {unit:?} and a value of the type {found}"))),
        }
    }

    fn rounded(&mut self, name: &str, args: &[Expr], of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let [value, rest @ ..] = args else { return Err(refused(format_args!("the function {name}"))) };
        let found = value.get_type(scope.schema)?;
        let sql = self.value(value, scope)?;
        let wanted = type_name(of).unwrap_or_default();
        match (name, rest, &found) {
            ("abs", [], found) if found.is_signed_integer() => {
                self.fails("the absolute value of a whole number");
                Ok(format!("abs({sql})"))
            }
            ("abs", [], DataType::Decimal128(..) | DataType::Float32 | DataType::Float64) => Ok(format!("abs({sql})")),
            ("isnan", [], found) if is_floating(found) => Ok(format!("is_nan({sql})")),
            ("ceil", [], found) if is_floating(found) => Ok(format!("ceiling({sql})")),
            ("floor", [], found) if is_floating(found) => Ok(format!("floor({sql})")),
            ("trunc", [], found) if is_floating(found) => Ok(format!("truncate({sql})")),
            // They have fewer digits there.
            ("ceil", [], DataType::Decimal128(..)) => Ok(format!("CAST(ceiling({sql}) AS {wanted})")),
            ("floor", [], DataType::Decimal128(..)) => Ok(format!("CAST(floor({sql}) AS {wanted})")),
            // Halves away from zero in both places. Of numbers of floating point there is no saying what a half is.
            ("round", rest, DataType::Decimal128(..)) => match rest.first().map_or(Some(0), whole) {
                Some(digits @ 0..=38) if rest.len() < 2 => Ok(format!("CAST(round({sql}, {digits}) AS {wanted})")),
                _ => Err(refused("round to digits before the point, or to what is no literal")),
            },
            _ => Err(refused(format_args!("the function {name} of a value of the type {found}"))),
        }
    }

    /// Letters are code points in both places. Upper and lower case are not here: of some letters, such as `ß`, Trino makes others.
    fn of_texts(&mut self, name: &str, args: &[Expr], of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let counted = |sql: String| match type_name(of) {
            Some(of) => Ok(format!("CAST({sql} AS {of})")),
            None => Err(refused(format_args!("the function {name}"))),
        };
        match (name, args) {
            ("character_length", [text]) => counted(format!("length({})", self.text(text, scope)?)),
            ("octet_length", [text]) => counted(format!("length(to_utf8({}))", self.text(text, scope)?)),
            ("starts_with", [text, start]) => {
                Ok(format!("starts_with({}, {})", self.text(text, scope)?, self.text(start, scope)?))
            }
            ("reverse", [text]) => Ok(format!("reverse({})", self.text(text, scope)?)),
            // What is looked for is a literal: Trino finds nothing at other places.
            ("strpos" | "contains" | "replace", [text, part, rest @ ..])
                if letters(part).is_some_and(|part| !part.is_empty()) =>
            {
                let (text, part) = (self.text(text, scope)?, self.text(part, scope)?);
                match (name, rest) {
                    ("strpos", []) => counted(format!("strpos({text}, {part})")),
                    ("contains", []) => Ok(format!("(strpos({text}, {part}) > 0)")),
                    ("replace", [other]) => Ok(format!("replace({text}, {part}, {})", self.text(other, scope)?)),
                    _ => Err(refused(format_args!("the function {name}"))),
                }
            }
            // A start before the first letter is counted from the end there, and a length before 0 fails here.
            ("substr", [text, start]) if whole(start).is_some_and(|start| start > 0) => {
                Ok(format!("substr({}, {})", self.text(text, scope)?, self.value(start, scope)?))
            }
            ("substr", [text, start, length])
                if whole(start).is_some_and(|start| start > 0) && whole(length).is_some_and(|length| length >= 0) =>
            {
                let text = self.text(text, scope)?;
                Ok(format!("substr({text}, {}, {})", self.value(start, scope)?, self.value(length, scope)?))
            }
            ("left", [text, length]) if whole(length).is_some_and(|length| length >= 0) => {
                Ok(format!("substr({}, 1, {})", self.text(text, scope)?, self.value(length, scope)?))
            }
            // By default Trino takes off all blanks, and here it is spaces.
            ("btrim" | "ltrim" | "rtrim", [text, rest @ ..]) if rest.len() < 2 => {
                let taken = rest.first().map_or_else(|| Some(" ".to_owned()), letters).filter(|taken| !taken.is_empty());
                let taken = taken.ok_or_else(|| refused(format_args!("{name} of what is no literal")))?;
                let side = match name {
                    "btrim" => "BOTH",
                    "ltrim" => "LEADING",
                    _ => "TRAILING",
                };
                Ok(format!("trim({side} {} FROM {})", written(&taken)?, self.text(text, scope)?))
            }
            // It leaves NULL out, and of NULL there it would give NULL.
            ("concat", [_, ..]) => {
                let texts = args.iter().map(|arg| Ok(format!("coalesce({}, '')", self.text(arg, scope)?)));
                Ok(format!("({})", texts.collect::<Result<Vec<_>>>()?.join(" || ")))
            }
            ("concat_ws", [separator, _, ..]) if letters(separator).is_some() => {
                let texts = args.iter().map(|arg| self.text(arg, scope)).collect::<Result<Vec<_>>>()?;
                Ok(format!("concat_ws({})", texts.join(", ")))
            }
            _ => Err(refused(format_args!("the function {name}, as it is called here"))),
        }
    }
}

fn written(text: &str) -> Result<String> {
    quoted(text).ok_or_else(|| refused("a text with a zero"))
}

/// A literal text.
fn letters(expr: &Expr) -> Option<String> {
    constant(expr)?.try_as_str().flatten().map(str::to_owned)
}

/// A literal whole number.
pub(super) fn whole(expr: &Expr) -> Option<i64> {
    match constant(expr)?.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(value) => value,
        _ => None,
    }
}
