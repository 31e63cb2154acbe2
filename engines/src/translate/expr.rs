//! Expressions: operators, comparisons, conditions and sub-queries.

use arrow::datatypes::DataType;
use datafusion::common::{Column as Named, ScalarValue};
use datafusion::logical_expr::expr::{Exists, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Like, LogicalPlan, Operator, Projection, Subquery, TryCast,
};
use nexus_flight_catalog::{Error, Result};

use super::casts::{alike, is_known, type_name};
use super::functions::whole;
use super::plan::bare;
use super::relation::{Column, Relation};
use super::{Scope, Writer, refused};
use crate::trino::quoted;

impl Scope<'_> {
    /// The column of a name. Errors: `Internal` for one that the plan does not have.
    pub(super) fn column(&self, name: &Named) -> Result<Column> {
        let at = self.schema.index_of_column(name)?;
        self.columns.get(at).cloned().ok_or_else(|| refused(format_args!("the column {name}")))
    }
}

impl Writer<'_> {
    /// A value of the type that the plan gives it, in a text that may stand anywhere in an expression.
    pub(super) fn value(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        let sql = self.deeper(|writer| writer.written(expr, scope))?;
        self.spent(sql)
    }

    fn written(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        match expr {
            Expr::Alias(alias) => self.value(&alias.expr, scope),
            Expr::Column(_) | Expr::OuterReferenceColumn(..) => {
                let column = named(expr, scope)?;
                match column.is_known {
                    true => Ok(column.sql),
                    false => Err(refused(format_args!("what is made of {expr}, whose type is not that of the gateway there"))),
                }
            }
            Expr::Literal(value, _) => self.literal(value),
            Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
                let parts = chain(expr, *op).into_iter().map(|part| self.value(part, scope)).collect::<Result<Vec<_>>>()?;
                Ok(format!("({})", parts.join(&format!(" {op} "))))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.binary(expr, [left, right], *op, scope),
            Expr::Not(inner) => Ok(format!("(NOT {})", self.value(inner, scope)?)),
            Expr::IsNull(inner) | Expr::IsUnknown(inner) => Ok(format!("({} IS NULL)", self.passed(inner, scope)?)),
            Expr::IsNotNull(inner) | Expr::IsNotUnknown(inner) => Ok(format!("({} IS NOT NULL)", self.passed(inner, scope)?)),
            // Trino has no IS TRUE.
            Expr::IsTrue(inner) => Ok(format!("({} IS NOT DISTINCT FROM TRUE)", self.value(inner, scope)?)),
            Expr::IsNotTrue(inner) => Ok(format!("({} IS DISTINCT FROM TRUE)", self.value(inner, scope)?)),
            Expr::IsFalse(inner) => Ok(format!("({} IS NOT DISTINCT FROM FALSE)", self.value(inner, scope)?)),
            Expr::IsNotFalse(inner) => Ok(format!("({} IS DISTINCT FROM FALSE)", self.value(inner, scope)?)),
            Expr::Negative(inner) => self.negative(inner, scope),
            Expr::Between(between) => self.between(between, scope),
            Expr::InList(list) => self.in_list(list, scope),
            Expr::Case(case) => self.case(expr, case, scope),
            Expr::Cast(Cast { expr, data_type }) => self.cast(expr, data_type, false, scope),
            Expr::TryCast(TryCast { expr, data_type }) => self.cast(expr, data_type, true, scope),
            Expr::Like(like) => self.like(like, scope),
            Expr::ScalarFunction(function) => self.call(function, &expr.get_type(scope.schema)?, scope),
            Expr::ScalarSubquery(subquery) => self.scalar(subquery, scope),
            Expr::Exists(Exists { subquery, negated }) => {
                let mut rows = self.relation(&subquery.subquery, Some(scope))?;
                if rows.group.is_none() && !rows.is_distinct {
                    rows.columns.clear();
                }
                Ok(format!("({}EXISTS ({}))", if *negated { "NOT " } else { "" }, rows.select(&[], false)))
            }
            Expr::InSubquery(member) => self.member(member, scope),
            Expr::SimilarTo(_) => Err(refused("SIMILAR TO")),
            Expr::Placeholder(_) => Err(refused("a parameter without a value")),
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => Err(refused(format_args!("{expr} within an expression"))),
            other => Err(refused(other)),
        }
    }

    /// A value of which nothing is made, so that its type may be one of Trino's own.
    pub(super) fn passed(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        match bare(expr) {
            column @ (Expr::Column(_) | Expr::OuterReferenceColumn(..)) => Ok(named(column, scope)?.sql),
            other => self.value(other, scope),
        }
    }

    fn binary(&mut self, expr: &Expr, sides: [&Expr; 2], op: Operator, scope: &Scope<'_>) -> Result<String> {
        use Operator::{
            BitwiseAnd, BitwiseOr, BitwiseShiftLeft, BitwiseShiftRight, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom,
            Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus, StringConcat,
        };
        let [left, right] = sides;
        match op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
                self.compared([(left, scope), (right, scope)], op)
            }
            Plus | Minus | Multiply | Divide | Modulo => self.arithmetic(sides, op, &expr.get_type(scope.schema)?, scope),
            StringConcat => self.joined(sides.into_iter(), scope),
            BitwiseAnd | BitwiseOr | BitwiseShiftLeft | BitwiseShiftRight => {
                // What is made of the number of a grouping set. Of others the widths differ.
                let is_set = |side: &Expr| Ok::<_, Error>(side.get_type(scope.schema)?.is_unsigned_integer());
                if !(is_set(left)? && is_set(right)?) {
                    return Err(refused(format_args!("the operator {op}")));
                }
                let (one, other) = (self.value(left, scope)?, self.value(right, scope)?);
                match (op, whole(right)) {
                    (BitwiseAnd, _) => Ok(format!("bitwise_and({one}, {other})")),
                    (BitwiseOr, _) => Ok(format!("bitwise_or({one}, {other})")),
                    (BitwiseShiftLeft, Some(by @ 0..32)) => Ok(format!("({one} * BIGINT '{}')", 1_i64 << by)),
                    (BitwiseShiftRight, Some(by @ 0..32)) => Ok(format!("({one} / BIGINT '{}')", 1_i64 << by)),
                    _ => Err(refused(format_args!("the operator {op}"))),
                }
            }
            other => Err(refused(format_args!("the operator {other}"))),
        }
    }

    /// A comparison of two values, each of its own scope.
    pub(super) fn compared(&mut self, sides: [(&Expr, &Scope<'_>); 2], op: Operator) -> Result<String> {
        let beside = decided(sides, op)?;
        let [(left, left_scope), (right, right_scope)] = sides;
        let (left, right) = (self.value(left, left_scope)?, self.value(right, right_scope)?);
        let sign = if op == Operator::NotEq { "<>".to_owned() } else { op.to_string() };
        let plain = format!("({left} {sign} {right})");
        Ok(match beside {
            Beside::Nothing => plain,
            Beside::NanOfLeft => format!("({plain} OR is_nan({left}))"),
            Beside::NanOfRight => format!("({plain} OR is_nan({right}))"),
        })
    }

    fn between(&mut self, between: &Between, scope: &Scope<'_>) -> Result<String> {
        let Between { expr, negated, low, high } = between;
        let (low, high) = (
            self.compared([(expr, scope), (low, scope)], Operator::GtEq)?,
            self.compared([(expr, scope), (high, scope)], Operator::LtEq)?,
        );
        Ok(format!("({}({low} AND {high}))", if *negated { "NOT " } else { "" }))
    }

    fn in_list(&mut self, list: &InList, scope: &Scope<'_>) -> Result<String> {
        let InList { expr, list, negated } = list;
        let sql = self.value(expr, scope)?;
        let mut items = Vec::new();
        for item in list {
            // Whether it is equal there where it is here.
            decided([(expr, scope), (item, scope)], Operator::Eq)?;
            items.push(self.value(item, scope)?);
        }
        match items.is_empty() {
            true => Err(refused("IN of no values")),
            false => Ok(format!("({sql} {}IN ({}))", if *negated { "NOT " } else { "" }, items.join(", "))),
        }
    }

    fn negative(&mut self, inner: &Expr, scope: &Scope<'_>) -> Result<String> {
        let of = inner.get_type(scope.schema)?;
        if of.is_signed_integer() {
            self.fails("a sum of whole numbers");
        } else if !is_floating(&of) && !matches!(of, DataType::Decimal128(..)) {
            return Err(refused(format_args!("the negative of a value of the type {of}")));
        }
        Ok(format!("(- {})", self.value(inner, scope)?))
    }

    fn case(&mut self, expr: &Expr, case: &Case, scope: &Scope<'_>) -> Result<String> {
        let Case { expr: operand, when_then_expr, else_expr } = case;
        let of = expr.get_type(scope.schema)?;
        let result = |writer: &mut Self, expr: &Expr| {
            let found = expr.get_type(scope.schema)?;
            match type_name(&of) {
                Some(of) if found.is_null() => Ok(format!("CAST(NULL AS {of})")),
                Some(of) if type_name(&found).as_ref() == Some(&of) => writer.value(expr, scope),
                _ => Err(refused(format_args!("CASE of values of the types {found} and {of}"))),
            }
        };
        let mut sql = "CASE".to_owned();
        for (when, then) in when_then_expr {
            let when = match operand {
                Some(operand) => self.compared([(operand, scope), (when, scope)], Operator::Eq)?,
                None => self.value(when, scope)?,
            };
            sql += &format!(" WHEN {when} THEN {}", result(self, then)?);
        }
        if let Some(otherwise) = else_expr {
            sql += &format!(" ELSE {}", result(self, otherwise)?);
        }
        Ok(sql + " END")
    }

    /// Without ESCAPE nothing escapes there, and here the backslash does.
    fn like(&mut self, like: &Like, scope: &Scope<'_>) -> Result<String> {
        let Like { negated, expr, pattern, escape_char, case_insensitive } = like;
        if *case_insensitive {
            return Err(refused("ILIKE"));
        }
        let (pattern, escape) = match bare(pattern) {
            // The gateway has put it so that the backslash escapes.
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let escape = func.name().strip_prefix("pattern_escaped_by_").and_then(|rest| rest.chars().next());
                match (args.as_slice(), escape) {
                    ([pattern], Some(escape)) => (constant(pattern), escape),
                    _ => (None, '\\'),
                }
            }
            other => (constant(other), escape_char.unwrap_or('\\')),
        };
        let pattern = pattern.as_ref().and_then(|pattern| pattern.try_as_str().flatten());
        let Some(pattern) = pattern else { return Err(refused("LIKE of a pattern that is no literal")) };
        if !expr.get_type(scope.schema)?.is_string() {
            return Err(refused("LIKE of what is no text"));
        }
        let (mut letters, mut escapes) = (pattern.chars(), "");
        let escaping = format!(" ESCAPE {}", quoted(&escape.to_string()).unwrap_or_default());
        while let Some(letter) = letters.next() {
            if letter == escape {
                escapes = &escaping;
                // Of another letter Trino makes an error.
                let next = letters.next();
                if next.is_none_or(|next| next != '%' && next != '_' && next != escape) {
                    return Err(refused("LIKE of a pattern in which something is escaped that needs not be"));
                }
            }
        }
        let written = quoted(pattern).ok_or_else(|| refused("LIKE of a pattern with a zero"))?;
        let word = if *negated { "NOT LIKE" } else { "LIKE" };
        Ok(format!("({} {word} {written}{escapes})", self.value(expr, scope)?))
    }

    /// A sub-query that stands for a value: of several rows both make an error.
    fn scalar(&mut self, subquery: &Subquery, scope: &Scope<'_>) -> Result<String> {
        let rows = self.of_one_column(unchecked(&subquery.subquery), scope)?;
        Ok(format!("({})", rows.select(&[], false)))
    }

    fn member(&mut self, member: &InSubquery, scope: &Scope<'_>) -> Result<String> {
        let InSubquery { expr, subquery, negated } = member;
        let of = expr.get_type(scope.schema)?;
        let found = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
        if !is_known(&of) || is_floating(&of) || !found.as_ref().is_some_and(|found| alike(&of, found)) {
            return Err(refused(format_args!("IN (SELECT …) of a value of the type {of}")));
        }
        let sql = self.value(expr, scope)?;
        let rows = self.of_one_column(&subquery.subquery, scope)?.select(&[], false);
        Ok(format!("({sql} {}IN ({rows}))", if *negated { "NOT " } else { "" }))
    }

    fn of_one_column(&mut self, plan: &LogicalPlan, scope: &Scope<'_>) -> Result<Relation> {
        let relation = self.relation(plan, Some(scope))?;
        match relation.columns.as_slice() {
            [column] if column.is_known => Ok(relation),
            _ => Err(refused("a sub-query whose column is of a type of Trino's own")),
        }
    }
}

/// What a comparison needs beside its sign.
pub(super) enum Beside {
    Nothing,
    /// NaN of the left side is greater than the right one.
    NanOfLeft,
    /// NaN of the right side is greater than the left one.
    NanOfRight,
}

/// Whether Trino decides a comparison as the gateway does, and by what. Nothing is written for that: it may be asked for what is
/// written elsewhere. Errors: `Unsupported`.
pub(super) fn decided(sides: [(&Expr, &Scope<'_>); 2], op: Operator) -> Result<Beside> {
    let [(left, left_scope), (right, right_scope)] = sides;
    let (one, other) = (left.get_type(left_scope.schema)?, right.get_type(right_scope.schema)?);
    let is_null = [left, right].into_iter().any(|side| constant(side).is_some_and(|value| value.is_null()));
    if !(one.is_null() || other.is_null() || is_known(&one) && alike(&one, &other)) {
        return Err(refused(format_args!("a comparison of {one} and {other}")));
    }
    if is_null || !is_floating(&one) {
        return Ok(Beside::Nothing);
    }
    // NaN is equal to itself here and greater than all numbers, and -0 is less than 0. So it is with numbers that are neither.
    let (nan, number, op) = match (number(left), number(right)) {
        (_, Some(number)) => (Beside::NanOfLeft, number, op),
        (Some(number), None) => (Beside::NanOfRight, number, turned(op)),
        (None, None) => return Err(refused("a comparison of two numbers of floating point")),
    };
    let is_clear = match op {
        // Neither zero is greater than 0, and both are at most that.
        Operator::Gt | Operator::LtEq => number.is_finite() && !(number == 0.0 && number.is_sign_negative()),
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::GtEq => number.is_finite() && number != 0.0,
        _ => false,
    };
    match is_clear {
        true if matches!(op, Operator::Gt | Operator::GtEq) => Ok(nan),
        true => Ok(Beside::Nothing),
        false => Err(refused(format_args!("{op} of a number of floating point and {number}"))),
    }
}

/// The column of an expression that is one.
fn named(expr: &Expr, scope: &Scope<'_>) -> Result<Column> {
    match (expr, scope.outer) {
        (Expr::Column(name), _) => scope.column(name),
        (Expr::OuterReferenceColumn(_, name), Some(outer)) if outer.schema.maybe_index_of_column(name).is_some() => {
            outer.column(name)
        }
        _ => Err(refused("a sub-query that names columns of a query two around it")),
    }
}

/// A sub-query without what fails for more than one row, which Trino does by itself: the gateway puts it where there might be
/// several.
fn unchecked(plan: &LogicalPlan) -> &LogicalPlan {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return plan };
    let ([expr], LogicalPlan::Aggregate(checked)) = (expr.as_slice(), input.as_ref()) else { return plan };
    let is_check = |call: &Expr| matches!(call, Expr::AggregateFunction(call) if call.func.name() == "single_value");
    let is_alone = checked.group_expr.is_empty() && checked.input.schema().fields().len() == 1;
    match (bare(expr), checked.aggr_expr.as_slice()) {
        (Expr::Column(_), [call]) if is_alone && is_check(bare(call)) => &checked.input,
        _ => plan,
    }
}

/// The operands of a chain of one operator, in order.
fn chain(expr: &Expr, operator: Operator) -> Vec<&Expr> {
    let (mut open, mut operands) = (vec![expr], Vec::new());
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op == operator => open.extend([right.as_ref(), left.as_ref()]),
            other => operands.push(other),
        }
    }
    operands
}

/// A literal, or what casts make of one.
pub(super) fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(Cast { expr, data_type }) => constant(expr)?.cast_to(data_type).ok(),
        _ => None,
    }
}

/// A literal of floating point.
fn number(expr: &Expr) -> Option<f64> {
    match constant(expr)? {
        ScalarValue::Float64(value) => value,
        ScalarValue::Float32(value) => value.map(f64::from),
        _ => None,
    }
}

/// The comparison with the sides turned.
fn turned(op: Operator) -> Operator {
    match op {
        Operator::Lt => Operator::Gt,
        Operator::LtEq => Operator::GtEq,
        Operator::Gt => Operator::Lt,
        Operator::GtEq => Operator::LtEq,
        other => other,
    }
}

pub(super) fn is_floating(of: &DataType) -> bool {
    matches!(of, DataType::Float32 | DataType::Float64)
}

/// Whether there is a sub-query in an expression.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let is_one = |expr: &Expr| matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_));
    expr.exists(|expr| Ok(is_one(expr))).unwrap_or(true)
}
