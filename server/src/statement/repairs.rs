//! Where DataFusion would answer otherwise than the standard: written in a way that it understands, or refused where there
//! is none.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Query, SetExpr, SetOperator, SetQuantifier, Statement, Value, ValueWithSpan,
    VisitMut, VisitorMut,
};
use nexus_flight_catalog::{Error, Result};

/// Errors: `Unsupported`.
pub(super) fn repair(statement: &mut Statement) -> Result<()> {
    match VisitMut::visit(statement, &mut Repairs) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Repairs;

impl VisitorMut for Repairs {
    type Break = Error;

    /// `1e3` is approximate (ISO/IEC 9075-2, approximate numeric literal); DataFusion would make it a decimal as it makes 1.5.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), span }) = expr
            && digits.contains(['e', 'E'])
        {
            let text = Value::SingleQuotedString(std::mem::take(digits));
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::Value(ValueWithSpan { value: text, span: *span })),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }

    /// DataFusion looks only whether a row is on the other side, and not how often.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut bodies = vec![query.body.as_ref()];
        while let Some(body) = bodies.pop() {
            let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { continue };
            let counts = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            if counts && !matches!(op, SetOperator::Union) {
                return ControlFlow::Break(
                    Error::unsupported(format!("{op} ALL is not offered"))
                        .with_hint(format!("use {op} without ALL, or number the rows with row_number() first")),
                );
            }
            bodies.extend([left.as_ref(), right.as_ref()]);
        }
        ControlFlow::Continue(())
    }
}
