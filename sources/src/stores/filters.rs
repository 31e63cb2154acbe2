//! Conditions of statements, as the files of a table can be judged by them.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

/// A statement's condition may name a column with its table; files know the bare name.
pub(crate) fn unqualified(filter: Expr) -> Result<Expr> {
    let bare = filter.transform(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
        other => Ok(Transformed::no(other)),
    });
    bare.map(|transformed| transformed.data)
}
