//! Expressions as SQL, where the database is sure to decide as the gateway does.
//!
//! This is an allow-list, and so it writes the text itself: DataFusion's unparser writes every expression, also one that
//! means something else elsewhere.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
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

/// A value: a literal, a column, or sums, differences, products, joined texts and whole numbers of other sizes made of them. None where it
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
            // Not all databases have `IS TRUE`.
            Expr::IsTrue(inner) => format!("({} IS NOT DISTINCT FROM TRUE)", self.condition(inner, depth)?),
            Expr::IsNotTrue(inner) => format!("({} IS DISTINCT FROM TRUE)", self.condition(inner, depth)?),
            Expr::IsFalse(inner) => format!("({} IS NOT DISTINCT FROM FALSE)", self.condition(inner, depth)?),
            Expr::IsNotFalse(inner) => format!("({} IS DISTINCT FROM FALSE)", self.condition(inner, depth)?),
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
                // Texts are texts, however they lie in memory.
                if inner.data_type == *data_type || inner.data_type.is_string() && data_type.is_string() {
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
                let counts = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
                let fits = counts && number(&left) && number(&right) && kin(&left.data_type, &right.data_type);
                let sql = format!("({} {op} {})", left.sql, right.sql);
                fits.then_some(Operand { sql, compares: left.compares.min(right.compares), data_type: left.data_type })
            }
            // Of a chain of `||` the gateway makes one call.
            Expr::ScalarFunction(ScalarFunction { func, args }) if self.computes && func.name() == "||" => {
                let texts = args.iter().map(|arg| self.operand(arg, depth).filter(|text| text.data_type.is_string()));
                let texts = texts.collect::<Option<Vec<_>>>()?;
                let compares = texts.iter().map(|text| text.compares).min()?;
                let sql = texts.into_iter().map(|text| text.sql).collect::<Vec<_>>().join(" || ");
                Some(Operand { sql: format!("({sql})"), data_type: DataType::Utf8, compares })
            }
            _ => None,
        }
    }
}

/// Whether the database counts with both as the gateway does.
fn kin(left: &DataType, right: &DataType) -> bool {
    left == right || matches!((left, right), (DataType::Decimal128(..), DataType::Decimal128(..)))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col, lit};

    use super::super::Dialect;
    use super::*;

    #[derive(Debug)]
    struct Plain;

    impl Dialect for Plain {
        fn literal(&self, value: &ScalarValue) -> Option<String> {
            Some(if value.data_type().is_string() { format!("'{value}'") } else { value.to_string() })
        }

        fn integer(&self, data_type: &DataType) -> Option<&'static str> {
            data_type.is_signed_integer().then_some("BIGINT")
        }
    }

    struct Table;

    impl Columns for Table {
        fn dialect(&self) -> &dyn Dialect {
            &Plain
        }

        fn column(&self, name: &str) -> Option<(DataType, Compares)> {
            match name {
                "n" => Some((DataType::Int32, Compares::Order)),
                "f" => Some((DataType::Float64, Compares::Order)),
                "t" | "u" => Some((DataType::Utf8, Compares::Equality)),
                "j" => Some((DataType::Utf8, Compares::Nothing)),
                "b" => Some((DataType::Boolean, Compares::Order)),
                _ => None,
            }
        }

        fn compared(&self, name: &str, value: &ScalarValue) -> Option<String> {
            (self.column(name)?.0 == value.data_type() && !value.is_null()).then(|| Plain.literal(value))?
        }
    }

    #[test]
    fn what_is_decided_alike_is_written() {
        for (expr, sql) in [
            (col("n").eq(lit(5i32)), r#"("n" = 5)"#),
            (lit(5i32).lt_eq(col("n")), r#"(5 <= "n")"#),
            (col("t").not_eq(col("u")), r#"("t" <> "u")"#),
            (col("n").between(lit(1i32), lit(2i32)), r#"((("n" >= 1) AND ("n" <= 2)))"#),
            (col("t").in_list(vec![lit("a"), lit("b")], true), r#"("t" NOT IN ('a', 'b'))"#),
            (col("j").is_null().or(!col("b")), r#"(("j" IS NULL) OR (NOT "b"))"#),
            (col("b").is_true(), r#"("b" IS NOT DISTINCT FROM TRUE)"#),
            (col("b").is_not_true().and(col("f").gt(lit(1.5))), r#"(("b" IS DISTINCT FROM TRUE) AND ("f" > 1.5))"#),
            (col("b").is_false(), r#"("b" IS NOT DISTINCT FROM FALSE)"#),
            (col("b").is_not_false(), r#"("b" IS DISTINCT FROM FALSE)"#),
        ] {
            assert_eq!(condition(&expr, &Table, false).as_deref(), Some(sql));
        }
        let computed = cast(col("n"), DataType::Int64) + lit(1i64);
        assert_eq!(value(&computed, &Table).as_deref(), Some(r#"(CAST("n" AS BIGINT) + 1)"#));
    }

    #[test]
    fn what_is_not_is_refused() {
        let deep = (0..100).fold(col("b"), |expr, _| !expr);
        for expr in [
            col("n").eq(lit(5i64)),
            col("n").eq(lit(ScalarValue::Int32(None))),
            col("t").lt(lit("a")),
            col("j").eq(lit("a")),
            col("f").eq(col("f")),
            col("missing").is_null(),
            col("t").like(lit("a%")),
            (col("n") + lit(1i32)).gt(lit(3i32)),
            col("t").in_list(vec![lit(ScalarValue::Utf8(None))], false),
            col("t"),
            deep,
        ] {
            assert_eq!(condition(&expr, &Table, false), None, "{expr}");
        }
        for expr in [cast(col("f"), DataType::Int32), col("n") / lit(2i32), col("n") + col("f")] {
            assert_eq!(value(&expr, &Table), None, "{expr}");
        }
    }
}
