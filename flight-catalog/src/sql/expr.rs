//! Expressions as SQL, where the database is sure to decide as the gateway does.
//!
//! This is an allow-list, and so it writes the text itself: DataFusion's unparser writes every expression, also one that
//! means something else elsewhere.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};

use super::{Columns, Compares};

/// How deep an expression may be.
const DEPTH: usize = 64;

/// A condition on rows, in parentheses where it needs some. Operands are columns and literals; with `computes` also what
/// [`value`] computes, which may fail where the gateway would go on with a number that has overflown. None where it cannot
/// be written, or would hold for other rows.
pub fn condition(expr: &Expr, columns: &dyn Columns, computes: bool) -> Option<String> {
    Writer { columns, computes }.condition(expr, DEPTH)
}

/// A value: a literal, a column, or sums, differences, products and whole numbers of other sizes made of them. None where it
/// cannot be written, or would be another one.
pub fn value(expr: &Expr, columns: &dyn Columns) -> Option<String> {
    Writer { columns, computes: true }.operand(expr, DEPTH).map(|operand| operand.sql)
}

struct Writer<'a> {
    columns: &'a dyn Columns,
    computes: bool,
}

struct Operand {
    sql: String,
    data_type: DataType,
    compares: Compares,
}

impl Writer<'_> {
    fn condition(&self, expr: &Expr, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        Some(match expr {
            Expr::Alias(alias) => self.condition(&alias.expr, depth)?,
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                format!("({} {op} {})", self.condition(left, depth)?, self.condition(right, depth)?)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right, depth)?,
            Expr::Not(inner) => format!("(NOT {})", self.condition(inner, depth)?),
            Expr::IsNull(inner) => format!("({} IS NULL)", self.operand(inner, depth)?.sql),
            Expr::IsNotNull(inner) => format!("({} IS NOT NULL)", self.operand(inner, depth)?.sql),
            Expr::IsTrue(inner) => format!("({} IS TRUE)", self.condition(inner, depth)?),
            Expr::IsNotTrue(inner) => format!("({} IS NOT TRUE)", self.condition(inner, depth)?),
            Expr::IsFalse(inner) => format!("({} IS FALSE)", self.condition(inner, depth)?),
            Expr::IsNotFalse(inner) => format!("({} IS NOT FALSE)", self.condition(inner, depth)?),
            Expr::Between(Between { expr, negated, low, high }) => {
                let low = self.comparison(expr, Operator::GtEq, low, depth)?;
                let high = self.comparison(expr, Operator::LtEq, high, depth)?;
                format!("({}({low} AND {high}))", if *negated { "NOT " } else { "" })
            }
            Expr::InList(InList { expr, list, negated }) => {
                let (Expr::Column(column), true) = (expr.as_ref(), !list.is_empty()) else { return None };
                let (_, compares) = self.columns.column(&column.name)?;
                let item = |item: &Expr| match item {
                    Expr::Literal(value, _) if !value.is_null() => self.columns.compared(&column.name, value),
                    _ => None,
                };
                let items = list.iter().map(item).collect::<Option<Vec<_>>>()?;
                if compares < Compares::Equality {
                    return None;
                }
                let name = self.columns.dialect().identifier(&column.name);
                format!("({name} {}IN ({}))", if *negated { "NOT " } else { "" }, items.join(", "))
            }
            Expr::Column(_) | Expr::Literal(..) => {
                let operand = self.operand(expr, depth)?;
                (operand.data_type == DataType::Boolean).then_some(operand.sql)?
            }
            _ => return None,
        })
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr, depth: usize) -> Option<String> {
        let (needed, sign) = match op {
            Operator::Eq => (Compares::Equality, "="),
            Operator::NotEq => (Compares::Equality, "<>"),
            Operator::Lt => (Compares::Order, "<"),
            Operator::LtEq => (Compares::Order, "<="),
            Operator::Gt => (Compares::Order, ">"),
            Operator::GtEq => (Compares::Order, ">="),
            _ => return None,
        };
        let (left, right) = match (left, right) {
            (Expr::Column(column), Expr::Literal(value, _)) => {
                (self.operand(left, depth)?, self.literal(&column.name, value, depth)?)
            }
            (Expr::Literal(value, _), Expr::Column(column)) => {
                (self.literal(&column.name, value, depth)?, self.operand(right, depth)?)
            }
            _ => {
                let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
                // Of two zeros with different signs the gateway makes two numbers, and most databases one.
                let alike = left.data_type == right.data_type && !left.data_type.is_floating();
                alike.then_some((left, right))?
            }
        };
        (left.compares >= needed && right.compares >= needed).then(|| format!("({} {sign} {})", left.sql, right.sql))
    }

    /// A literal beside a column.
    fn literal(&self, column: &str, value: &ScalarValue, depth: usize) -> Option<Operand> {
        let beside = self.operand(&Expr::Column(Column::from_name(column)), depth)?;
        Some(Operand { sql: self.columns.compared(column, value)?, ..beside })
    }

    fn operand(&self, expr: &Expr, depth: usize) -> Option<Operand> {
        let depth = depth.checked_sub(1)?;
        let dialect = self.columns.dialect();
        match expr {
            Expr::Alias(alias) => self.operand(&alias.expr, depth),
            Expr::Column(column) => {
                let (data_type, compares) = self.columns.column(&column.name)?;
                Some(Operand { sql: dialect.identifier(&column.name), data_type, compares })
            }
            Expr::Literal(value, _) => {
                let data_type = value.data_type();
                let compares = if data_type.is_string() { Compares::Equality } else { Compares::Order };
                Some(Operand { sql: dialect.literal(value)?, data_type, compares })
            }
            Expr::Cast(Cast { expr, data_type }) if self.computes => {
                let inner = self.operand(expr, depth)?;
                if inner.data_type == *data_type {
                    return Some(inner);
                }
                // Both fail for a number that does not fit. Other casts round, pad or cut, each in its own way.
                dialect.integer(&inner.data_type)?;
                let sql = format!("CAST({} AS {})", inner.sql, dialect.integer(data_type)?);
                Some(Operand { sql, data_type: data_type.clone(), ..inner })
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if self.computes => {
                let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
                let number = |operand: &Operand| operand.data_type.is_numeric() && operand.compares == Compares::Order;
                let fits = match op {
                    Operator::Plus | Operator::Minus | Operator::Multiply => {
                        number(&left) && number(&right) && kin(&left.data_type, &right.data_type)
                    }
                    Operator::StringConcat => left.data_type.is_string() && right.data_type.is_string(),
                    _ => false,
                };
                let sql = format!("({} {op} {})", left.sql, right.sql);
                fits.then_some(Operand { sql, compares: left.compares.min(right.compares), data_type: left.data_type })
            }
            _ => None,
        }
    }
}

/// Whether the database counts with both as the gateway does.
fn kin(left: &DataType, right: &DataType) -> bool {
    left == right || matches!((left, right), (DataType::Decimal128(..), DataType::Decimal128(..)))
}
