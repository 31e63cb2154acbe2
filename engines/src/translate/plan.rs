//! The nodes of a plan. Their columns are known by position, so that no two of one name are taken for one another.

use std::collections::BTreeSet;

use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, EmptyRelation, Expr, ExprSchemable, FetchType, Filter, GroupingSet, Join, Limit,
    LogicalPlan, Operator, Projection, SkipType, Sort, SortExpr, TableScan, Union, Values,
};
use nexus_flight_catalog::policy::Guarded;
use nexus_flight_catalog::sql::Dialect;
use nexus_flight_catalog::{Result, TableName};

use super::casts::{alike, is_known, type_name};
use super::expr::{has_subquery, is_floating};
use super::relation::{Column, Relation};
use super::{Scope, Writer, is_alias, of_trino, refused};
use crate::trino::Trino;

impl Writer<'_> {
    /// The rows of a node; `outer` are the columns of the query around, where the node is of a sub-query.
    pub(super) fn relation(&mut self, plan: &LogicalPlan, outer: Option<&Scope<'_>>) -> Result<Relation> {
        self.deeper(|writer| writer.node(plan, outer))
    }

    fn node(&mut self, plan: &LogicalPlan, outer: Option<&Scope<'_>>) -> Result<Relation> {
        match plan {
            LogicalPlan::TableScan(node) => self.scan(node),
            LogicalPlan::Projection(node) => self.projection(node, outer),
            // The names that it gives lead to the same columns.
            LogicalPlan::SubqueryAlias(node) => self.relation(&node.input, outer),
            LogicalPlan::Filter(node) => self.filter(node, outer),
            LogicalPlan::Aggregate(node) => self.aggregation(node, outer),
            LogicalPlan::Window(node) => self.windows(node, outer),
            LogicalPlan::Sort(node) => self.sort(node, outer),
            LogicalPlan::Limit(node) => self.limit(node, outer),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input, outer),
            LogicalPlan::Distinct(Distinct::On(_)) => Err(refused("DISTINCT ON")),
            LogicalPlan::Union(node) => self.union(node, outer),
            LogicalPlan::Join(node) => self.join(node, outer),
            LogicalPlan::Values(node) => self.values(node),
            LogicalPlan::EmptyRelation(node) => empty(node),
            LogicalPlan::Subquery(_) => Err(refused("LATERAL")),
            LogicalPlan::Unnest(_) => Err(refused("UNNEST")),
            // Trino goes ten steps by default and then fails (`max-recursion-depth`).
            LogicalPlan::RecursiveQuery(_) => Err(refused("WITH RECURSIVE")),
            LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) => Err(refused("a statement that writes")),
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => Err(refused("EXPLAIN")),
            LogicalPlan::DescribeTable(_) => Err(refused("DESCRIBE")),
            LogicalPlan::Statement(_) => Err(refused("a statement that is no query")),
            LogicalPlan::Repartition(_) | LogicalPlan::Extension(_) => Err(refused("a plan that is optimised")),
        }
    }

    /// The rows of a node, to which conditions can be added.
    pub(super) fn opened(&mut self, plan: &LogicalPlan, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let relation = self.relation(plan, outer)?;
        // Whoever computes with the rows does not see their order.
        let relation = if relation.is_open() { relation } else { self.wrapped(&relation)? };
        Ok(Relation { order: Vec::new(), ..relation })
    }

    fn scan(&mut self, node: &TableScan) -> Result<Relation> {
        if !node.filters.is_empty() || node.fetch.is_some() {
            return Err(refused("a plan that is optimised"));
        }
        let provider = source_as_provider(&node.source)?;
        let mut relation = match provider.as_any().downcast_ref::<Guarded>() {
            Some(guarded) => {
                self.sees_part = true;
                let seen = self.relation(&guarded.plan(node.table_name.clone())?, None)?;
                // A SELECT of its own, as a view of what is seen would be.
                self.wrapped(&seen)?
            }
            None => {
                let TableName { catalog, schema, table } = (self.names)(&node.table_name)?;
                let alias = self.alias('t');
                let of_trino = of_trino(provider.as_ref());
                let fields = provider.schema();
                if let Some(field) = fields.fields().iter().find(|field| is_alias(field.name())) {
                    return Err(refused(format_args!("a table with a column \"{}\"", field.name())));
                }
                let columns = fields.fields().iter().map(|field| {
                    let (name, of) = (field.name(), field.data_type());
                    let sql = format!("{alias}.{}", Trino.identifier(name));
                    let is_zoned = type_name(of).is_some_and(|of| of.ends_with("with time zone"));
                    // It may be in any zone there, which all that is computed of it would go by.
                    let sql = if is_zoned { format!("({sql} AT TIME ZONE 'UTC')") } else { sql };
                    let is_known = is_known(of) && of_trino.is_none_or(|table| table.is_as_told(name));
                    Column { sql, is_reference: true, is_known }
                });
                let columns = columns.collect();
                let name = [catalog, schema, table].map(|part| Trino.identifier(&part)).join(".");
                Relation::of(format!("{name} AS {alias}"), columns)
            }
        };
        if let Some(wanted) = &node.projection {
            relation.columns = wanted.iter().filter_map(|at| relation.columns.get(*at).cloned()).collect();
        }
        Ok(relation)
    }

    fn projection(&mut self, node: &Projection, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let input = self.relation(&node.input, outer)?;
        // To leave a column out makes other rows equal.
        let is_one = input.is_plain() || !input.is_distinct && is_written_once(node, &input);
        let input = if is_one { input } else { self.wrapped(&input)? };
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        let columns = node.expr.iter().map(|expr| self.column(expr, &scope)).collect::<Result<_>>()?;
        Ok(Relation { columns, ..input })
    }

    /// What a column of a SELECT is.
    pub(super) fn column(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Column> {
        match bare(expr) {
            Expr::Column(column) => {
                let found = scope.column(column)?;
                let sql = self.spent(found.sql)?;
                Ok(Column { sql, ..found })
            }
            computed => Ok(Column::computed(self.value(computed, scope)?)),
        }
    }

    fn filter(&mut self, node: &Filter, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let mut input = self.opened(&node.input, outer)?;
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        let conditions = split_conjunction(&node.predicate).into_iter().map(|part| self.value(part, &scope));
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        input.conditions.extend(conditions);
        Ok(input)
    }

    fn aggregation(&mut self, node: &Aggregate, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let mut input = self.opened(&node.input, outer)?;
        let exprs = grouping_set_to_exprlist(&node.group_expr)?;
        let sets = match node.group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => Some(sets),
            _ => None,
        };
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        let mut keys = exprs.iter().map(|expr| self.key(expr, "GROUP BY", &scope)).collect::<Result<Vec<_>>>()?;
        // In Trino sets are of columns ("Complex grouping operations"), and one that has two names here would be one there.
        let names = keys.iter().map(|key| key.sql.as_str()).collect::<BTreeSet<_>>().len();
        let is_of_columns = names == keys.len() && keys.iter().all(|key| key.is_reference && !key.sql.starts_with('('));
        if sets.is_some() && !is_of_columns {
            let width = input.columns.len();
            input.columns.append(&mut keys);
            input = self.wrapped(&input)?;
            keys = input.columns.split_off(width);
        }
        let all = keys.iter().map(|key| key.sql.as_str()).collect::<Vec<_>>().join(", ");
        let group = match sets {
            None if keys.is_empty() => String::new(),
            None => format!("GROUP BY {all}"),
            Some(GroupingSet::Rollup(_)) => format!("GROUP BY ROLLUP ({all})"),
            Some(GroupingSet::Cube(_)) => format!("GROUP BY CUBE ({all})"),
            Some(GroupingSet::GroupingSets(sets)) => format!("GROUP BY GROUPING SETS ({})", listed(sets, &exprs, &keys)?),
        };
        let mut columns = keys;
        if sets.is_some() {
            if columns.is_empty() {
                return Err(refused("a grouping set of no columns"));
            }
            // The bits are those of `__grouping_id`: the last column has the lowest, and 1 is for what is left out.
            columns.push(Column::computed(format!("CAST(grouping({all}) AS bigint)")));
        }
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        for expr in &node.aggr_expr {
            let sql = self.aggregate_call(bare(expr), &scope)?;
            columns.push(Column::computed(self.spent(sql)?));
        }
        match columns.is_empty() || columns.len() != node.schema.fields().len() {
            true => Err(refused("GROUP BY of nothing")),
            false => Ok(Relation { columns, group: Some(group), ..input }),
        }
    }

    /// What rows are told apart by. Errors: `Unsupported` for what is equal in one place and not in the other.
    pub(super) fn key(&mut self, expr: &Expr, within: &str, scope: &Scope<'_>) -> Result<Column> {
        if matches!(bare(expr), Expr::Literal(..)) {
            return Err(refused(format_args!("{within} of a constant")));
        }
        let column = self.column(expr, scope)?;
        let of = expr.get_type(scope.schema)?;
        // Of two zeros with different signs two groups are made here, and one there.
        match column.is_known && is_known(&of) && !is_floating(&of) {
            true => Ok(column),
            false => Err(refused(format_args!("{within} of a value of the type {of}"))),
        }
    }

    fn sort(&mut self, node: &Sort, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let mut input = self.opened(&node.input, outer)?;
        let scope = Scope { schema: node.input.schema(), columns: &input.columns, outer };
        input.order = node.expr.iter().map(|key| self.sort_key(key, &scope)).collect::<Result<_>>()?;
        input.limit(0, node.fetch);
        Ok(input)
    }

    /// A part of an ORDER BY. NaN is the greatest number in both places; of two zeros with different signs either may come first
    /// there.
    pub(super) fn sort_key(&mut self, key: &SortExpr, scope: &Scope<'_>) -> Result<String> {
        let sql = self.value(&key.expr, scope)?;
        // Where NULL comes is written: by default it is last there, and here first where the order is descending.
        let direction = if key.asc { "ASC" } else { "DESC" };
        Ok(format!("{sql} {direction} NULLS {}", if key.nulls_first { "FIRST" } else { "LAST" }))
    }

    fn limit(&mut self, node: &Limit, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (node.get_skip_type()?, node.get_fetch_type()?) else {
            return Err(refused("LIMIT or OFFSET of what is computed"));
        };
        let mut input = self.relation(&node.input, outer)?;
        input.limit(skip, fetch);
        Ok(input)
    }

    fn distinct(&mut self, input: &LogicalPlan, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let relation = self.relation(input, outer)?;
        check_set(input.schema(), &relation, "DISTINCT")?;
        let relation = if relation.is_limited() || relation.is_distinct { self.wrapped(&relation)? } else { relation };
        Ok(Relation { is_distinct: true, order: Vec::new(), ..relation })
    }

    fn union(&mut self, node: &Union, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let wanted: Vec<_> = node.schema.fields().iter().map(|field| field.data_type()).collect();
        let mut parts = Vec::new();
        for input in &node.inputs {
            let relation = self.relation(input, outer)?;
            let found = input.schema().fields().iter().map(|field| field.data_type());
            // A text beside a `uuid` would be one of two types there.
            let is_alike = found
                .zip(&wanted)
                .zip(&relation.columns)
                .all(|((of, wanted), column)| column.is_known && is_known(of) && alike(of, wanted));
            if !is_alike || relation.columns.len() != wanted.len() {
                return Err(refused("UNION of columns of different types"));
            }
            parts.push(relation);
        }
        self.of_sets(&parts, "UNION ALL")
    }

    /// Rows of several queries, whose columns are known.
    fn of_sets(&mut self, parts: &[Relation], operator: &str) -> Result<Relation> {
        let names: Vec<String> = (1..=parts.first().map_or(0, |part| part.columns.len())).map(|at| format!("c{at}")).collect();
        let texts: Vec<String> = parts.iter().map(|part| format!("({})", part.select(&names, false))).collect();
        let alias = self.alias('s');
        let from = self.spent(format!("({}) AS {alias}", texts.join(&format!(" {operator} "))))?;
        let column = |name: &String| Column { sql: format!("{alias}.{name}"), is_reference: true, is_known: true };
        Ok(Relation::of(from, names.iter().map(column).collect()))
    }

    fn values(&mut self, node: &Values) -> Result<Relation> {
        let nothing = DFSchema::empty();
        let scope = Scope { schema: &nothing, columns: &[], outer: None };
        let fields = node.schema.fields();
        let mut rows = Vec::new();
        for row in &node.values {
            let mut cells = Vec::new();
            for (expr, field) in row.iter().zip(fields) {
                let (of, wanted) = (expr.get_type(&nothing)?, field.data_type());
                cells.push(match (of.is_null(), type_name(wanted)) {
                    (true, Some(wanted)) => format!("CAST(NULL AS {wanted})"),
                    (false, Some(_)) if alike(&of, wanted) => self.value(expr, &scope)?,
                    _ => return Err(refused(format_args!("VALUES of the type {wanted}"))),
                });
            }
            rows.push(format!("({})", cells.join(", ")));
        }
        let alias = self.alias('s');
        let names: Vec<String> = (1..=fields.len()).map(|at| format!("c{at}")).collect();
        let from = self.spent(format!("(VALUES {}) AS {alias} ({})", rows.join(", "), names.join(", ")))?;
        let column = |name: &String| Column { sql: format!("{alias}.{name}"), is_reference: true, is_known: true };
        Ok(Relation::of(from, names.iter().map(column).collect()))
    }

    fn join(&mut self, node: &Join, outer: Option<&Scope<'_>>) -> Result<Relation> {
        let exprs = || node.on.iter().flat_map(|(left, right)| [left, right]).chain(&node.filter);
        if node.null_aware || exprs().any(has_subquery) {
            return Err(refused("a sub-query in the condition of a join"));
        }
        if node.join_type != JoinType::Inner && exprs().any(Expr::contains_outer) {
            return Err(refused("a join whose condition names columns of the query around it"));
        }
        let word = match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => return self.half(node, [&node.left, &node.right], outer),
            JoinType::RightSemi | JoinType::RightAnti => return self.half(node, [&node.right, &node.left], outer),
            JoinType::LeftMark | JoinType::RightMark => return Err(refused("a plan that is optimised")),
            JoinType::Inner => "JOIN",
            JoinType::Left => "LEFT JOIN",
            JoinType::Right => "RIGHT JOIN",
            // Of another one Trino says: FULL JOIN involving an unsupported condition.
            JoinType::Full if !is_by_equality(node) => return Err(refused("FULL JOIN by more than equal columns")),
            JoinType::Full => "FULL JOIN",
        };
        let (left, right) = (self.relation(&node.left, outer)?, self.relation(&node.right, outer)?);
        let left = if left.is_bare() { left } else { self.wrapped(&left)? };
        let right = if right.is_bare() { right } else { self.wrapped(&right)? };
        let conditions = self.conditions(node, [&left.columns, &right.columns], outer)?;
        let columns = [left.columns, right.columns].concat();
        let (left, right) = (left.from.unwrap_or_default(), right.from.map(|from| (from, right.is_join)).unwrap_or_default());
        let right = if right.1 { format!("({})", right.0) } else { right.0 };
        let from = match (conditions.is_empty(), node.join_type) {
            (true, JoinType::Inner) => format!("{left} CROSS JOIN {right}"),
            (true, _) => format!("{left} {word} {right} ON TRUE"),
            (false, _) => format!("{left} {word} {right} ON {}", conditions.join(" AND ")),
        };
        Ok(Relation { is_join: true, ..Relation::of(self.spent(from)?, columns) })
    }

    /// The conditions of a join, over the columns of its sides as the plan has them.
    fn conditions(&mut self, node: &Join, columns: [&[Column]; 2], outer: Option<&Scope<'_>>) -> Result<Vec<String>> {
        let [left, right] = columns;
        let both = [left, right].concat();
        let left = Scope { schema: node.left.schema(), columns: left, outer };
        let right = Scope { schema: node.right.schema(), columns: right, outer };
        let operator = match node.null_equality {
            NullEquality::NullEqualsNothing => Operator::Eq,
            NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
        };
        let mut conditions = Vec::new();
        for (one, other) in &node.on {
            conditions.push(self.compared([(one, &left), (other, &right)], operator)?);
        }
        if let Some(filter) = &node.filter {
            let schema = left.schema.join(right.schema)?;
            let scope = Scope { schema: &schema, columns: &both, outer };
            for part in split_conjunction(filter) {
                conditions.push(self.value(part, &scope)?);
            }
        }
        Ok(conditions)
    }

    /// The rows of one side for which there are rows of the other, or none.
    fn half(&mut self, node: &Join, [kept, other]: [&LogicalPlan; 2], outer: Option<&Scope<'_>>) -> Result<Relation> {
        let is_left = matches!(node.join_type, JoinType::LeftSemi | JoinType::LeftAnti);
        let is_there = matches!(node.join_type, JoinType::LeftSemi | JoinType::RightSemi);
        if is_left && is_of_sets(node) {
            let parts = [self.relation(kept, outer)?, self.relation(other, outer)?];
            let word = if is_there { "INTERSECT" } else { "EXCEPT" };
            for (plan, part) in [kept, other].into_iter().zip(&parts) {
                check_set(plan.schema(), part, word)?;
            }
            let mut pairs = kept.schema().fields().iter().zip(other.schema().fields());
            return match pairs.all(|(one, other)| alike(one.data_type(), other.data_type())) {
                true => self.of_sets(&parts, word),
                false => Err(refused(format_args!("{word} of columns of different types"))),
            };
        }
        let (mut kept, mut other) = (self.opened(kept, outer)?, self.opened(other, outer)?);
        let columns = if is_left { [&kept.columns, &other.columns] } else { [&other.columns, &kept.columns] };
        let conditions = self.conditions(node, columns.map(Vec::as_slice), outer)?;
        other.conditions.extend(conditions);
        other.columns.clear();
        let rows = other.select(&[], false);
        kept.conditions.push(format!("{}EXISTS ({rows})", if is_there { "" } else { "NOT " }));
        Ok(kept)
    }
}

/// Whether no column that is computed beneath is written more than once by what is made of them; and where all rows are one group,
/// none of them is left out: without what is computed of the rows there would be no group.
fn is_written_once(node: &Projection, input: &Relation) -> bool {
    if node.expr.iter().any(has_subquery) {
        return false;
    }
    let columns = &input.columns;
    let mut uses = vec![0; columns.len()];
    for (name, more) in node.expr.iter().flat_map(Expr::column_refs_counts) {
        let at = node.input.schema().maybe_index_of_column(name);
        if let Some(used) = at.and_then(|at| uses.get_mut(at)) {
            *used += more;
        }
    }
    if input.group.as_ref().is_some_and(String::is_empty) && uses.contains(&0) {
        return false;
    }
    let is_passed = node.expr.iter().all(|expr| matches!(bare(expr), Expr::Column(_)));
    is_passed || columns.iter().zip(uses).all(|(column, used)| column.is_reference || used < 2)
}

/// An expression without the names that are given to it.
pub(super) fn bare(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// Grouping sets by the texts of their columns. Errors: `Unsupported` for one set twice, as it is here.
fn listed(sets: &[Vec<Expr>], exprs: &[&Expr], keys: &[Column]) -> Result<String> {
    let mut texts = Vec::new();
    for set in sets {
        let at = |expr: &Expr| exprs.iter().position(|known| *known == expr);
        let names = set.iter().filter_map(|expr| keys.get(at(expr)?)).map(|key| key.sql.as_str());
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        let text = format!("({})", names.join(", "));
        if names.len() != set.len() || texts.contains(&text) {
            return Err(refused("one grouping set twice"));
        }
        texts.push(text);
    }
    Ok(texts.join(", "))
}

/// Whether all conditions of a join are that something of one side is equal to something of the other.
fn is_by_equality(node: &Join) -> bool {
    let is_of = |expr: &Expr, side: &LogicalPlan| {
        let names = expr.column_refs();
        !names.is_empty() && names.into_iter().all(|name| side.schema().maybe_index_of_column(name).is_some())
    };
    let parts: Vec<&Expr> = node.filter.iter().flat_map(split_conjunction).collect();
    let is_pair = |part: &&Expr| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            is_of(left, &node.left) && is_of(right, &node.right) || is_of(left, &node.right) && is_of(right, &node.left)
        }
        _ => false,
    };
    !(parts.is_empty() && node.on.is_empty()) && parts.iter().all(is_pair)
}

/// Whether it is what the planner makes of INTERSECT and EXCEPT: rows that are there once, by all their columns in order.
fn is_of_sets(node: &Join) -> bool {
    let (left, right) = (node.left.schema(), node.right.schema());
    let is_pair = |(at, (one, other)): (usize, &(Expr, Expr))| match (one, other) {
        (Expr::Column(one), Expr::Column(other)) => {
            left.maybe_index_of_column(one) == Some(at) && right.maybe_index_of_column(other) == Some(at)
        }
        _ => false,
    };
    let is_distinct = matches!(node.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)));
    let is_all = node.on.len() == left.fields().len() && node.on.len() == right.fields().len();
    let is_by_columns = node.filter.is_none() && node.null_equality == NullEquality::NullEqualsNull;
    is_distinct && is_all && is_by_columns && node.on.iter().enumerate().all(is_pair)
}

/// Errors: `Unsupported` where rows are equal in one place and not in the other.
fn check_set(schema: &DFSchema, relation: &Relation, within: &str) -> Result<()> {
    if relation.columns.is_empty() {
        return Err(refused(format_args!("{within} of no columns")));
    }
    let mut pairs = schema.fields().iter().zip(&relation.columns);
    let odd = pairs.find(|(field, column)| {
        let of = field.data_type();
        !column.is_known || !is_known(of) || is_floating(of)
    });
    match odd {
        None => Ok(()),
        Some((field, _)) => Err(refused(format_args!("{within} of a value of the type {}", field.data_type()))),
    }
}

/// The one row of a SELECT without FROM, or no row.
fn empty(node: &EmptyRelation) -> Result<Relation> {
    let columns = node.schema.fields().iter().map(|field| match type_name(field.data_type()) {
        Some(of) => Ok(Column::computed(format!("CAST(NULL AS {of})"))),
        None => Err(refused(format_args!("a column of the type {}", field.data_type()))),
    });
    let columns = columns.collect::<Result<_>>()?;
    let conditions = if node.produce_one_row { Vec::new() } else { vec!["FALSE".to_owned()] };
    Ok(Relation { columns, conditions, ..Relation::default() })
}
