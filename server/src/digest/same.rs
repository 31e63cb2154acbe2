//! What is the same in other words, whatever the rows are, NULL and NaN among them:
//!
//! - `x = y` and `y = x`, as with `<>` and `IS [NOT] DISTINCT FROM`; `x < y` and `y > x`, `x <= y` and `y >= x`, where no query
//!   stands in them: both sides are worked out, in whatever order.
//! - `x BETWEEN a AND b` and `x >= a AND x <= b`, which is how it runs, where x is a column or a value.
//! - The operands of `AND`, and of `OR`, in any order and grouping and however often, where none of them can fail: of those that
//!   can, which are worked out at all hangs on those before. Then `x NOT BETWEEN a AND b` is `x < a OR x > b` too. A column of a sub-query
//!   cannot fail either: what it is made of stands before the conditions, and where the optimizer works that out behind another condition
//!   after all, what comes of it in either order is an answer to the statement. So an answer that is kept may spare somebody an error, and
//!   is never another one.
//! - The values of `IN (1, 2)` in any order and, where they are no floats, however often.
//! - A cast to the type that is there already.
//! - A projection of all columns in their order, by whatever names, and its input; `OFFSET 0` and none.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, LogicalPlan, Operator};

use super::{Columns, Done, Encoder, NoDigest};

/// The input of a node that only passes its rows on; `columns` are those of its inputs.
pub(super) fn without<'a>(plan: &'a LogicalPlan, columns: &Columns) -> Option<&'a LogicalPlan> {
    match plan {
        LogicalPlan::Projection(node) => {
            let is_at = |(at, expr): (usize, &Expr)| match bare(expr) {
                Expr::Column(column) => columns.find(column).is_some_and(|(position, _)| position == at),
                _ => false,
            };
            let is_all = node.expr.len() == node.input.schema().fields().len();
            (is_all && node.expr.iter().enumerate().all(is_at)).then_some(node.input.as_ref())
        }
        LogicalPlan::Limit(node) => {
            (node.fetch.is_none() && node.skip.as_deref().is_none_or(is_zero)).then_some(node.input.as_ref())
        }
        _ => None,
    }
}

/// Whether it is the number 0.
pub(super) fn is_zero(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Int64(Some(0)), _))
}

impl Encoder<'_> {
    pub(super) fn binary(&mut self, expr: &Expr, binary: &BinaryExpr, columns: &Columns) -> Done {
        match binary.op {
            Operator::And | Operator::Or if is_total(expr, columns) => self.junction(expr, binary.op, columns),
            Operator::And | Operator::Or => self.chain(expr, binary.op, columns),
            op => match mirrored(op) {
                Some(mirrored) => self.comparison(&binary.left, op, mirrored, &binary.right, columns),
                None => {
                    self.tag("binary");
                    self.hash(&op);
                    self.expr(&binary.left, columns)?;
                    self.expr(&binary.right, columns)
                }
            },
        }
    }

    pub(super) fn between(&mut self, expr: &Expr, between: &Between, columns: &Columns) -> Done {
        if is_total(expr, columns) {
            return self.junction(expr, if between.negated { Operator::Or } else { Operator::And }, columns);
        }
        // What is more than a name would be gone through twice, and what stands in that four times.
        if !matches!(bare(&between.expr), Expr::Column(_) | Expr::Literal(..)) {
            self.tag("between");
            self.flag(between.negated);
            return [&between.expr, &between.low, &between.high].into_iter().try_for_each(|operand| self.expr(operand, columns));
        }
        if between.negated {
            self.tag("not");
        }
        self.tag("binary");
        self.hash(&Operator::And);
        self.comparison(&between.expr, Operator::GtEq, Operator::LtEq, &between.low, columns)?;
        self.comparison(&between.expr, Operator::LtEq, Operator::GtEq, &between.high, columns)
    }

    pub(super) fn in_list(&mut self, list: &InList, columns: &Columns) -> Done {
        self.tag("in");
        self.flag(list.negated);
        self.expr(&list.expr, columns)?;
        if !list.list.iter().all(|item| matches!(bare(item), Expr::Literal(..))) {
            return self.exprs(&list.list, columns);
        }
        let values = list.list.iter().map(|item| self.apart(|encoder| encoder.expr(item, columns)));
        let mut values = values.collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable();
        // How many there are decides how they are looked for, and -0.0 and NaN are not found in all ways alike.
        if !list.list.iter().any(|item| data_type(item, columns).is_none_or(|of| of.is_floating())) {
            values.dedup();
        }
        self.parts(&values);
        Ok(())
    }

    pub(super) fn cast(&mut self, tag: &str, inner: &Expr, to: &DataType, columns: &Columns) -> Done {
        if data_type(inner, columns).as_ref() == Some(to) {
            return self.expr(inner, columns);
        }
        self.tag(tag);
        self.data_type(to);
        self.expr(inner, columns)
    }

    /// A comparison: of its two ways that whose left side comes first.
    fn comparison(&mut self, left: &Expr, op: Operator, mirrored: Operator, right: &Expr, columns: &Columns) -> Done {
        self.tag("comparison");
        let (start, read) = (self.out.0.len(), self.state.0.len());
        self.expr(left, columns)?;
        let middle = self.out.0.len();
        self.expr(right, columns)?;
        // Where it reads tables their versions stand in this order.
        let is_mirrored = self.state.0.len() == read && self.out.0[middle..] < self.out.0[start..middle];
        if is_mirrored {
            self.out.0[start..].rotate_left(middle - start);
        }
        self.hash(if is_mirrored { &mirrored } else { &op });
        Ok(())
    }

    /// Operands that cannot fail, as a set.
    fn junction(&mut self, expr: &Expr, op: Operator, columns: &Columns) -> Done {
        let mut operands = Vec::new();
        self.operands(expr, op, columns, &mut operands)?;
        operands.sort_unstable();
        operands.dedup();
        if let [only] = operands.as_slice() {
            self.out.0.extend_from_slice(only);
            return Ok(());
        }
        self.tag("junction");
        self.hash(&op);
        self.parts(&operands);
        Ok(())
    }

    fn operands(&mut self, expr: &Expr, op: Operator, columns: &Columns, found: &mut Vec<Vec<u8>>) -> Done {
        match expr {
            Expr::Alias(alias) => self.operands(&alias.expr, op, columns, found),
            Expr::BinaryExpr(binary) if binary.op == op => {
                self.operands(&binary.left, op, columns, found)?;
                self.operands(&binary.right, op, columns, found)
            }
            Expr::Between(between) if between.negated == (op == Operator::Or) => {
                let (low, high) = match op {
                    Operator::Or => (Operator::Lt, Operator::Gt),
                    _ => (Operator::GtEq, Operator::LtEq),
                };
                for (op, mirrored, end) in [(low, high, &between.low), (high, low, &between.high)] {
                    found.push(self.apart(|encoder| encoder.comparison(&between.expr, op, mirrored, end, columns))?);
                }
                Ok(())
            }
            other => {
                found.push(self.apart(|encoder| encoder.expr(other, columns))?);
                Ok(())
            }
        }
    }

    /// Operands of which one can fail, as they stand. That is known of all of them by now.
    fn chain(&mut self, expr: &Expr, op: Operator, columns: &Columns) -> Done {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == op => {
                self.tag("binary");
                self.hash(&op);
                self.chain(&binary.left, op, columns)?;
                self.chain(&binary.right, op, columns)
            }
            other => self.expr(other, columns),
        }
    }

    /// What is encoded by itself.
    fn apart(&mut self, encode: impl FnOnce(&mut Self) -> Done) -> Result<Vec<u8>, NoDigest> {
        let start = self.out.0.len();
        encode(self)?;
        Ok(self.out.0.split_off(start))
    }

    fn parts(&mut self, parts: &[Vec<u8>]) {
        self.number(parts.len());
        parts.iter().for_each(|part| self.out.0.extend_from_slice(part));
    }
}

/// The operator of a comparison with its sides the other way round; none where it is no comparison.
fn mirrored(op: Operator) -> Option<Operator> {
    match op {
        Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => Some(op),
        Operator::Lt => Some(Operator::Gt),
        Operator::LtEq => Some(Operator::GtEq),
        Operator::Gt => Some(Operator::Lt),
        Operator::GtEq => Some(Operator::LtEq),
        _ => None,
    }
}

/// Whether an expression is true, false or NULL for all rows: nothing in it can fail.
fn is_total(expr: &Expr, columns: &Columns) -> bool {
    match expr {
        Expr::Alias(alias) => is_total(&alias.expr, columns),
        Expr::Column(_) | Expr::Literal(..) => data_type(expr, columns) == Some(DataType::Boolean),
        Expr::Not(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => is_total(inner, columns),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => value(inner, columns).is_some() || is_total(inner, columns),
        Expr::BinaryExpr(binary) => match binary.op {
            // That on the right first: chains lean to the left.
            Operator::And | Operator::Or => is_total(&binary.right, columns) && is_total(&binary.left, columns),
            op => mirrored(op).is_some() && are_of_one_type([&*binary.left, &*binary.right], columns),
        },
        Expr::Between(between) => are_of_one_type([&*between.expr, &*between.low, &*between.high], columns),
        Expr::InList(list) => {
            let is_value = |item: &Expr| matches!(bare(item), Expr::Literal(..));
            list.list.iter().all(is_value) && are_of_one_type(list.list.iter().chain([&*list.expr]), columns)
        }
        _ => false,
    }
}

/// Whether expressions are columns and literals that can be compared as they are.
fn are_of_one_type<'a>(exprs: impl IntoIterator<Item = &'a Expr>, columns: &Columns) -> bool {
    let mut types = exprs.into_iter().map(|expr| value(expr, columns));
    let first = types.next().flatten();
    first.is_some() && types.all(|of| of == first)
}

/// The type of a column or literal whose values are compared one by one.
fn value(expr: &Expr, columns: &Columns) -> Option<DataType> {
    let is_plain = |of: &DataType| match of {
        DataType::Interval(_) => false,
        DataType::Boolean => true,
        of => of.is_numeric() || of.is_temporal() || of.is_string() || of.is_binary(),
    };
    match bare(expr) {
        leaf @ (Expr::Column(_) | Expr::Literal(..)) => data_type(leaf, columns).filter(is_plain),
        _ => None,
    }
}

/// The type of an expression, where it is told by itself.
fn data_type(expr: &Expr, columns: &Columns) -> Option<DataType> {
    match bare(expr) {
        Expr::Column(column) => columns.find(column).map(|(_, field)| field.data_type().clone()),
        Expr::Literal(value, _) => Some(value.data_type()),
        Expr::Cast(cast) => Some(cast.data_type.clone()),
        Expr::TryCast(cast) => Some(cast.data_type.clone()),
        _ => None,
    }
}

/// Without the names that it is given.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}
