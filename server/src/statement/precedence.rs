//! What binds how tightly. The parser takes all that follows `IS DISTINCT FROM` for its right side, as in
//! `a IS DISTINCT FROM (b AND c)`; it ends before AND and OR (ISO/IEC 9075-2, distinct predicate and boolean value expression).

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Puts right an expression whose parts are right already. What the user put in parentheses stands in a node of its own.
pub(super) fn regroup(expr: &mut Expr) {
    let loose: &[BinaryOperator] = match expr {
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => &[BinaryOperator::And, BinaryOperator::Or],
        // These have such a part only where it was lifted out of one beneath.
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => &[BinaryOperator::And, BinaryOperator::Or],
        Expr::BinaryOp { op: BinaryOperator::And, .. } => &[BinaryOperator::Or],
        _ => return,
    };
    let is_loose = |expr: &Expr| matches!(expr, Expr::BinaryOp { op, .. } if loose.contains(op));
    let Some(last) = last(expr).filter(|last| is_loose(last)) else { return };
    // `tight(a AND b)` is `tight(a) AND b`.
    let mut lifted = taken(last);
    let mut first = &mut lifted;
    while is_loose(first)
        && let Expr::BinaryOp { left, .. } = first
    {
        first = left;
    }
    let own = taken(first);
    let mut tight = taken(expr);
    if let Some(place) = self::last(&mut tight) {
        *place = own;
    }
    *first = tight;
    *expr = lifted;
}

/// The part that an expression ends with.
fn last(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::IsDistinctFrom(_, last) | Expr::IsNotDistinctFrom(_, last) => Some(last),
        Expr::UnaryOp { expr: last, .. } | Expr::BinaryOp { right: last, .. } => Some(last),
        _ => None,
    }
}

fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

#[cfg(test)]
mod tests {
    use crate::statement::{Caps, parse};

    /// The condition with the grouping that it has.
    fn grouped(condition: &str) -> String {
        use datafusion::sql::sqlparser::ast::{Expr, SetExpr, Statement};
        fn show(expr: &Expr) -> String {
            match expr {
                Expr::BinaryOp { left, op, right } => format!("({} {op} {})", show(left), show(right)),
                Expr::UnaryOp { op, expr } => format!("({op} {})", show(expr)),
                Expr::IsDistinctFrom(left, right) => format!("({} <=/=> {})", show(left), show(right)),
                Expr::IsNotDistinctFrom(left, right) => format!("({} <==> {})", show(left), show(right)),
                Expr::Nested(inner) => show(inner),
                other => other.to_string(),
            }
        }
        let caps = Caps { bytes: 1 << 20, tokens: 100_000, nesting: 1_000 };
        let parsed = parse(&format!("SELECT 1 FROM t WHERE {condition}"), &caps).unwrap();
        let datafusion::sql::parser::Statement::Statement(statement) = parsed.statement else { panic!() };
        let Statement::Query(query) = *statement else { panic!() };
        let SetExpr::Select(select) = *query.body else { panic!() };
        show(&select.selection.unwrap())
    }

    #[test]
    fn what_follows_ends_before_and_and_or() {
        let same = [
            ("a IS DISTINCT FROM b AND c", "((a <=/=> b) AND c)"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "((a <==> b) OR (c AND d))"),
            ("a IS NOT DISTINCT FROM b AND c OR d", "(((a <==> b) AND c) OR d)"),
            ("NOT a IS DISTINCT FROM b AND c", "((NOT (a <=/=> b)) AND c)"),
            ("x AND a IS DISTINCT FROM b OR c", "((x AND (a <=/=> b)) OR c)"),
            ("x AND NOT a IS DISTINCT FROM b AND y OR c", "((x AND ((NOT (a <=/=> b)) AND y)) OR c)"),
            ("x OR a IS DISTINCT FROM b AND c", "(x OR ((a <=/=> b) AND c))"),
            ("a IS DISTINCT FROM b + 1 = c", "(a <=/=> ((b + 1) = c))"),
            ("a IS DISTINCT FROM (b AND c)", "(a <=/=> (b AND c))"),
            ("NOT (a AND b)", "(NOT (a AND b))"),
            ("x AND (a OR b)", "(x AND (a OR b))"),
            ("a IS DISTINCT FROM b AND c IS DISTINCT FROM d AND e", "((a <=/=> b) AND ((c <=/=> d) AND e))"),
        ];
        for (condition, wanted) in same {
            assert_eq!(grouped(condition), wanted, "{condition}");
        }
    }
}
