//! Windows that stand on others, `OVER (w ORDER BY x)`, written out: DataFusion reads what follows the name and not the name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowExpr, Query, Select, SelectItem, VisitorMut, WindowSpec, WindowType,
};
use nexus_flight_catalog::Error;

use super::walk::walk;

/// Writes them out in the columns of a select. Errors: `Invalid` where there is no such window, or both say the same thing.
pub(super) fn write_out(select: &mut Select) -> ControlFlow<Error> {
    let mut windows = Windows { named: Vec::new(), depth: 0 };
    for definition in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &mut definition.1 {
            windows.write_out(spec)?;
            windows.named.push((folded(&definition.0), spec.clone()));
        } else if let NamedWindowExpr::NamedWindow(name) = &definition.1 {
            let spec = windows.find(name)?.clone();
            windows.named.push((folded(&definition.0), spec));
        }
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            walk(expr, &mut windows)?;
        }
    }
    walk(&mut select.qualify, &mut windows)
}

struct Windows {
    named: Vec<(String, WindowSpec)>,
    /// How many queries it is within: those have windows of their own.
    depth: usize,
}

/// As names are compared: without quotes in small letters.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

impl Windows {
    fn find(&self, name: &Ident) -> ControlFlow<Error, &WindowSpec> {
        let wanted = folded(name);
        match self.named.iter().find(|(name, _)| *name == wanted) {
            Some((_, spec)) => ControlFlow::Continue(spec),
            None => ControlFlow::Break(
                Error::invalid(format!("there is no window \"{wanted}\"")).with_hint("name it: WINDOW w AS (PARTITION BY …)"),
            ),
        }
    }

    /// By ISO/IEC 9075-2, window clause: what it stands on gives the partitions, and the order where it has one.
    fn write_out(&self, spec: &mut WindowSpec) -> ControlFlow<Error> {
        let Some(name) = spec.window_name.take() else { return ControlFlow::Continue(()) };
        let base = self.find(&name)?;
        let twice = if !spec.partition_by.is_empty() {
            Some("PARTITION BY")
        } else if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            Some("ORDER BY")
        } else if base.window_frame.is_some() {
            Some("frame")
        } else {
            None
        };
        if let Some(twice) = twice {
            let message = format!("a window that stands on \"{}\" cannot have its {twice} otherwise", name.value);
            return ControlFlow::Break(Error::invalid(message).with_hint("write the window out"));
        }
        spec.partition_by.clone_from(&base.partition_by);
        if spec.order_by.is_empty() {
            spec.order_by.clone_from(&base.order_by);
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Windows {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) if self.depth == 0 => match &mut function.over {
                Some(WindowType::WindowSpec(spec)) => self.write_out(spec),
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}
