//! Where DataFusion would answer otherwise than the standard: written in a way that it understands, or refused where there
//! is none.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, ColumnOption, CreateTable, DataType, Delete, ExactNumberInfo, Expr, FromTable, Ident,
    JoinConstraint, JoinOperator, Query, Select, SelectInto, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement,
    TableConstraint, TableFactor, TableWithJoins, UnaryOperator, Value, ValueWithSpan, VisitorMut,
};
use nexus_flight_catalog::{Error, Result};

use super::walk::walk;
use super::{named_windows, precedence};

/// Errors: `Unsupported`.
pub(super) fn repair(statement: &mut Statement) -> Result<()> {
    if let Statement::Delete(delete) = statement {
        refuse_alias(delete)?;
    }
    if let Statement::CreateTable(create) = statement {
        refuse_dropped(create)?;
    }
    let into = take_into(statement);
    match walk(statement, &mut Repairs) {
        ControlFlow::Continue(()) => {
            if let (Some(into), Some(select)) = (into, first_select(statement)) {
                select.into = Some(into);
            }
            Ok(())
        }
        ControlFlow::Break(error) => Err(error),
    }
}

/// Takes the INTO that makes a table: that of a statement which is one SELECT. Any other one would be dropped, or its TEMPORARY.
fn take_into(statement: &mut Statement) -> Option<SelectInto> {
    first_select(statement)?.into.take_if(|into| !into.temporary && !into.unlogged)
}

fn first_select(statement: &mut Statement) -> Option<&mut Select> {
    let Statement::Query(query) = statement else { return None };
    match query.body.as_mut() {
        SetExpr::Select(select) if query.pipe_operators.is_empty() => Some(select),
        _ => None,
    }
}

/// Refuses what no table would have: of most of it DataFusion says nothing, and of the rest not what to do.
fn refuse_dropped(create: &CreateTable) -> Result<()> {
    let options = create.columns.iter().flat_map(|column| &column.options).map(|option| &option.option);
    let of_columns = options.filter_map(|option| match option {
        ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_) => None,
        ColumnOption::PrimaryKey(_) | ColumnOption::Unique(_) => None,
        ColumnOption::Check(_) => Some("CHECK".to_owned()),
        ColumnOption::ForeignKey(_) => Some("FOREIGN KEY".to_owned()),
        other => Some(other.to_string()),
    });
    let of_table = create.constraints.iter().filter_map(|constraint| match constraint {
        TableConstraint::PrimaryKey(_) | TableConstraint::Unique(_) => None,
        TableConstraint::Check(_) => Some("CHECK".to_owned()),
        TableConstraint::ForeignKey(_) => Some("FOREIGN KEY".to_owned()),
        TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => Some("INDEX".to_owned()),
    });
    match of_columns.chain(of_table).next() {
        None => Ok(()),
        Some(what) => Err(Error::unsupported(format!("{what} in CREATE TABLE is not offered"))
            .with_hint("leave it out: the table would not have it")),
    }
}

/// Refuses the other name of a table that rows are deleted from: DataFusion forgets it, and misses the columns that are named by it.
fn refuse_alias(delete: &Delete) -> Result<()> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let alias = from.iter().find_map(|table| match &table.relation {
        TableFactor::Table { alias, .. } => alias.as_ref(),
        _ => None,
    });
    match alias {
        None => Ok(()),
        Some(alias) => Err(Error::unsupported(format!("an alias in DELETE is not offered: {}", alias.name))
            .with_hint("leave it out, and name the columns by the table")),
    }
}

/// Of a column: catalog, schema, table, column, and a field of it.
const LONGEST_NAME: usize = 5;

struct Repairs;

impl VisitorMut for Repairs {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::CompoundIdentifier(parts) = expr
            && parts.len() > LONGEST_NAME
        {
            return ControlFlow::Break(
                Error::invalid(format!("the name {expr} has more than {LONGEST_NAME} parts"))
                    .with_hint("write catalog.schema.table.column"),
            );
        }
        // DataFusion takes the text of it, which a number has not.
        if let Expr::TypedString(typed) = expr
            && typed.value.clone().into_string().is_none()
        {
            return ControlFlow::Break(
                Error::invalid(format!("{} is followed by a text, and not by {}", typed.data_type, typed.value))
                    .with_hint(format!("write {} '{}'", typed.data_type, typed.value)),
            );
        }
        precedence::regroup(expr);
        quantified(expr)?;
        name_types(expr);
        keep_sign(expr);
        // A grouped count counts the rows of which the condition is unknown too.
        if let Expr::Function(function) = expr
            && let Some(condition) = function.filter.take()
        {
            function.filter = Some(Box::new(Expr::IsTrue(Box::new(Expr::Nested(condition)))));
        }
        // `1e3` is approximate (ISO/IEC 9075-2, approximate numeric literal); it would be a decimal as 1.5 is.
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

    /// A sample would be all rows.
    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Error> {
        match table {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => ControlFlow::Break(
                Error::unsupported("TABLESAMPLE is not offered")
                    .with_hint("choose rows with WHERE random() < 0.1, or with LIMIT"),
            ),
            TableFactor::Table { with_hints, .. } if !with_hints.is_empty() => {
                ControlFlow::Break(Error::unsupported("WITH (…) after a table is not offered").with_hint("leave it out"))
            }
            TableFactor::NestedJoin { table_with_joins, .. } => joins(table_with_joins),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // Nothing would be locked.
        if let Some(lock) = query.locks.first() {
            return ControlFlow::Break(
                Error::unsupported(format!("{lock} is not offered")).with_hint("leave it out: a transaction sees its own writes"),
            );
        }
        if let Some(with) = &mut query.with
            && with.recursive
        {
            with.cte_tables.iter_mut().for_each(|table| {
                let names: Vec<Ident> = table.alias.columns.iter().map(|column| column.name.clone()).collect();
                name_columns(&mut table.query.body, &names);
            });
        }
        let mut bodies = vec![query.body.as_mut()];
        while let Some(body) = bodies.pop() {
            if let SetExpr::Select(select) = body {
                if select.into.is_some() {
                    return ControlFlow::Break(
                        Error::unsupported("SELECT … INTO within another query, or with TEMPORARY, is not offered")
                            .with_hint("write CREATE TABLE … AS SELECT …, or CREATE TEMPORARY TABLE … AS SELECT …"),
                    );
                }
                select.from.iter().try_for_each(joins)?;
                named_windows::write_out(select)?;
                continue;
            }
            // Only whether a row is on the other side would count, and not how often.
            let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { continue };
            let counts = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            if counts && !matches!(op, SetOperator::Union) {
                return ControlFlow::Break(
                    Error::unsupported(format!("{op} ALL is not offered"))
                        .with_hint(format!("use {op} without ALL, or number the rows with row_number() first")),
                );
            }
            if !matches!(set_quantifier, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName) {
                name_twins(right);
            }
            bodies.extend([left.as_mut(), right.as_mut()]);
        }
        ControlFlow::Continue(())
    }
}

/// Two parameters that are put together are texts: of what they are nothing else tells.
fn name_types(expr: &mut Expr) {
    let is_parameter = |expr: &Expr| matches!(expr, Expr::Value(ValueWithSpan { value: Value::Placeholder(_), .. }));
    let Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } = expr else { return };
    if is_parameter(left) && is_parameter(right) {
        let parameter = std::mem::replace(left, Box::new(Expr::Value(Value::Null.into())));
        **left = Expr::Cast { kind: CastKind::Cast, expr: parameter, data_type: DataType::Text, array: false, format: None };
    }
}

/// Has the sign of `-0.0` stay in the name of its column: as an exact number it is 0.0, and beside that no column of its own.
fn keep_sign(expr: &mut Expr) {
    let Expr::UnaryOp { op: UnaryOperator::Minus, expr: number } = expr else { return };
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = number.as_ref() else { return };
    if digits.contains('.') && digits.bytes().all(|digit| matches!(digit, b'0' | b'.')) {
        let zero = std::mem::replace(number.as_mut(), Expr::Value(Value::Null.into()));
        **number = Expr::Nested(Box::new(zero));
    }
}

/// `= ANY (SELECT …)` is `IN`, and `<> ALL` is `NOT IN`. The others would look up names of the query in the tables around it.
fn quantified(expr: &mut Expr) -> ControlFlow<Error> {
    let (left, operator, right, any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
        _ => return ControlFlow::Continue(()),
    };
    let null = || Expr::Value(Value::Null.into());
    let mut query = std::mem::replace(right.as_mut(), null());
    while let Expr::Nested(within) = query {
        query = *within;
    }
    let Expr::Subquery(subquery) = query else {
        **right = query;
        return ControlFlow::Continue(());
    };
    let negated = match (&operator, any) {
        (BinaryOperator::Eq, true) => false,
        (BinaryOperator::NotEq, false) => true,
        _ => {
            let word = if any { "ANY" } else { "ALL" };
            return ControlFlow::Break(
                Error::unsupported(format!("{operator} {word} (SELECT …) is not offered"))
                    .with_hint("compare with the minimum or maximum of the query instead"),
            );
        }
    };
    let left = Box::new(std::mem::replace(left.as_mut(), null()));
    *expr = Expr::InSubquery { expr: left, subquery, negated };
    ControlFlow::Continue(())
}

/// Of a join on common names, the one column that they become would be that of the left side, and NULL where that has no row.
fn joins(from: &TableWithJoins) -> ControlFlow<Error> {
    for join in &from.joins {
        let (word, constraint) = match &join.join_operator {
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => ("RIGHT", constraint),
            JoinOperator::FullOuter(constraint) => ("FULL", constraint),
            _ => continue,
        };
        if matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural) {
            return ControlFlow::Break(
                Error::unsupported(format!("a {word} JOIN with USING or NATURAL is not offered"))
                    .with_hint("write ON a.id = b.id, and coalesce(a.id, b.id) for the column of both"),
            );
        }
    }
    ControlFlow::Continue(())
}

/// Gives the names of a recursive query to the columns of its first part, where the second part looks for them.
fn name_columns(body: &mut SetExpr, names: &[Ident]) {
    match body {
        SetExpr::SetOperation { left, .. } => name_columns(left, names),
        SetExpr::Select(select) => {
            let Select { projection, .. } = select.as_mut();
            let is_listed =
                projection.iter().all(|item| !matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
            if !is_listed || projection.len() != names.len() {
                return;
            }
            for (item, name) in projection.iter_mut().zip(names) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.clone() };
                }
            }
        }
        _ => {}
    }
}

/// Gives columns of the second side of a union another name where two have the same one: there the first side names them.
fn name_twins(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            name_twins(left);
            name_twins(right);
        }
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            for (index, item) in select.projection.iter_mut().enumerate() {
                let (expr, name) = match item {
                    SelectItem::ExprWithAlias { expr, alias } => (expr, alias.value.clone()),
                    SelectItem::UnnamedExpr(expr) => {
                        let name = match &*expr {
                            Expr::Identifier(name) => name.value.clone(),
                            Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()).unwrap_or_default(),
                            other => other.to_string(),
                        };
                        (expr, name)
                    }
                    _ => continue,
                };
                if !seen.insert(name) {
                    let alias = Ident::with_quote('"', format!("column {}", index + 1));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        _ => {}
    }
}
