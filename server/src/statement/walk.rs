//! The walk over a syntax tree. It has a function for each kind of node, so it is compiled once, for all who look at one.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, TableFactor, VisitMut, VisitorMut};
use nexus_flight_catalog::Error;

/// Shows a visitor every node of a tree, until it has seen enough.
pub(super) fn walk(tree: &mut impl VisitMut, visitor: &mut dyn VisitorMut<Break = Error>) -> ControlFlow<Error> {
    tree.visit(&mut Walk(visitor))
}

struct Walk<'a>(&'a mut dyn VisitorMut<Break = Error>);

impl VisitorMut for Walk<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.0.pre_visit_query(query)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.0.post_visit_query(query)
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Error> {
        self.0.pre_visit_relation(relation)
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Error> {
        self.0.pre_visit_table_factor(table)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.0.pre_visit_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.0.post_visit_expr(expr)
    }
}
