//! Functions over windows.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use nexus_flight_catalog::Result;

use super::aggregates::Rows;
use super::casts::{is_known, type_name};
use super::expr::is_floating;
use super::functions::whole;
use super::plan::bare;
use super::relation::{Column, Relation};
use super::{Scope, Writer, refused};

impl Writer<'_> {
    /// The rows beneath with what is computed of each one's window.
    pub(super) fn windows(&mut self, node: &Window, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let input = self.opened(&node.input, outer)?;
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        let mut columns = input.columns.clone();
        for expr in &node.window_expr {
            let sql = self.windowed(bare(expr), &scope)?;
            columns.push(Column::computed(self.spent(sql)?));
        }
        Ok(Relation { columns, ..input })
    }

    fn windowed(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        let Expr::WindowFunction(function) = expr else { return Err(refused(format_args!("{expr} over a window"))) };
        let WindowFunction { fun, params } = function.as_ref();
        let WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct } = params;
        // Trino has no FILTER there, and no DISTINCT.
        if filter.is_some() || *distinct || *null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(refused("FILTER, DISTINCT or IGNORE NULLS over a window"));
        }
        let mut parts = Vec::new();
        if !partition_by.is_empty() {
            let keys = partition_by.iter().map(|key| self.key(key, "PARTITION BY", scope).map(|key| key.sql));
            parts.push(format!("PARTITION BY {}", keys.collect::<Result<Vec<_>>>()?.join(", ")));
        }
        let mut keys = Vec::new();
        for key in order_by {
            // Which rows are peers counts here, and of two zeros with different signs there they are.
            if is_floating(&key.expr.get_type(scope.schema)?) {
                return Err(refused("an order of numbers of floating point within a window"));
            }
            keys.push(self.sort_key(key, scope)?);
        }
        if !keys.is_empty() {
            parts.push(format!("ORDER BY {}", keys.join(", ")));
        }
        let over = |parts: &[String]| format!(" OVER ({})", parts.join(" "));
        let name = match fun {
            WindowFunctionDefinition::AggregateUDF(func) => func.name(),
            WindowFunctionDefinition::WindowUDF(func) => func.name(),
        };
        match (name, args.as_slice()) {
            // These go by the order alone, and have no frame.
            ("row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist", []) => Ok(format!("{name}(){}", over(&parts))),
            ("ntile", [buckets]) if whole(buckets).is_some_and(|buckets| buckets > 0) => {
                Ok(format!("ntile({}){}", self.value(buckets, scope)?, over(&parts)))
            }
            ("lag" | "lead", [value, rest @ ..]) => {
                // Without an order Trino refuses it.
                if keys.is_empty() {
                    return Err(refused(format_args!("{name} without an order")));
                }
                Ok(format!("{}{}", self.shifted(name, value, rest, scope)?, over(&parts)))
            }
            ("first_value" | "last_value", [value]) => {
                parts.push(frame(window_frame)?);
                Ok(format!("{name}({}){}", self.value(value, scope)?, over(&parts)))
            }
            ("nth_value", [value, at]) if whole(at).is_some_and(|at| at > 0) => {
                parts.push(frame(window_frame)?);
                Ok(format!("nth_value({}, {}){}", self.value(value, scope)?, self.value(at, scope)?, over(&parts)))
            }
            (name, args) if matches!(fun, WindowFunctionDefinition::AggregateUDF(_)) => {
                parts.push(frame(window_frame)?);
                let (gives, of) = (expr.get_type(scope.schema)?, over(&parts));
                self.over_rows(name, &Rows { args, is_distinct: false, of: &of, gives: &gives }, scope)
            }
            _ => Err(refused(format_args!("the function {name} over a window, as it is called here"))),
        }
    }

    /// The value of a row some rows away, or another one where there is none.
    fn shifted(&mut self, name: &str, value: &Expr, rest: &[Expr], scope: &Scope<'_>) -> Result<String> {
        let of = value.get_type(scope.schema)?;
        let (by, otherwise) = match rest {
            [] => (Some(1), None),
            [by] => (whole(by), None),
            [by, otherwise] => (whole(by), Some(otherwise)),
            _ => (None, None),
        };
        let Some(by @ 0..) = by else { return Err(refused(format_args!("{name} by what is no number of rows"))) };
        let mut args = vec![self.value(value, scope)?, by.to_string()];
        if let Some(otherwise) = otherwise {
            let found = otherwise.get_type(scope.schema)?;
            match type_name(&of) {
                Some(of) if found.is_null() => args.push(format!("CAST(NULL AS {of})")),
                Some(of) if is_known(&found) && type_name(&found).as_ref() == Some(&of) => {
                    args.push(self.value(otherwise, scope)?);
                }
                _ => return Err(refused(format_args!("{name} of values of the types {of} and {found}"))),
            }
        }
        Ok(format!("{name}({})", args.join(", ")))
    }
}

/// A frame, which is always written. Errors: `Unsupported` for distances between values.
fn frame(frame: &WindowFrame) -> Result<String> {
    let WindowFrame { units, start_bound, end_bound, .. } = frame;
    let word = match units {
        WindowFrameUnits::Rows => "ROWS",
        WindowFrameUnits::Range => "RANGE",
        WindowFrameUnits::Groups => "GROUPS",
    };
    let bound = |bound: &WindowFrameBound| {
        let (value, side) = match bound {
            WindowFrameBound::CurrentRow => return Ok("CURRENT ROW".to_owned()),
            WindowFrameBound::Preceding(value) => (value, "PRECEDING"),
            WindowFrameBound::Following(value) => (value, "FOLLOWING"),
        };
        if value.is_null() {
            return Ok(format!("UNBOUNDED {side}"));
        }
        match (units, value.cast_to(&DataType::Int64)) {
            (WindowFrameUnits::Rows | WindowFrameUnits::Groups, Ok(ScalarValue::Int64(Some(rows)))) => {
                Ok(format!("{rows} {side}"))
            }
            _ => Err(refused("a RANGE of distances")),
        }
    };
    Ok(format!("{word} BETWEEN {} AND {}", bound(start_bound)?, bound(end_bound)?))
}
