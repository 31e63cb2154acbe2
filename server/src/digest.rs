//! The digests of a plan: that of the question is equal for statements that ask the same, whatever they call their tables; that
//! of the state says of which versions of them.
//!
//! The encoding is our own: each node and expression as a tag, its own values and its inputs, every text and list with its
//! end told. The rewrites by which equal questions meet are these, and those of the file `same`: letter case, white space and comments
//! (gone when parsed), `*` for all columns and `count(*)` (written out when planned), table aliases and qualifiers (a column is
//! its position in its input, or in that of a query around it), aliases inside of the plan (only the answer's own columns have
//! names). A node, expression or value that is not listed here has no digest, and what has no digest is not cached. So has
//! whatever does not give the same answer each time.

mod same;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Distinct, Expr, Join, LogicalPlan, Signature, Subquery, TableScan, Volatility, WindowFunctionDefinition,
};
use nexus_flight_catalog::native::Native;
use nexus_flight_catalog::policy::{Guarded, Mark};
use nexus_flight_catalog::{TableName, Version};
use ring::digest::SHA256;

use crate::plan::Planned;
use crate::temporary;

/// Changes when the encoding does.
const ENCODING: &str = "plan/7";

/// What an encoding mostly has room in, in bytes.
const USUAL: usize = 4_096;

/// A digest, by SHA-256.
pub type Digest = [u8; 32];

/// What an answer hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// What is asked, by whom where it matters.
    pub question: Digest,
    /// The versions of its tables, in the order of the plan.
    pub state: Digest,
}

impl Digests {
    /// Of both together.
    pub fn whole(&self) -> Digest {
        hashed(&[self.question, self.state].concat())
    }
}

/// Why a statement has no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDigest {
    /// A part of the plan that the encoding does not know.
    Unlisted,
    /// A function that may answer differently each time.
    Volatile,
    /// A table whose state cannot be told from another.
    UnknownVersion,
}

/// The digests of an analysed, unoptimised plan over its tables' versions. `unversioned` says whether a table of unknown version
/// may be taken as unchanged for a time.
pub fn digest(planned: &Planned, unversioned: impl Fn(&TableName) -> bool) -> Result<Digests, NoDigest> {
    let (out, state) = (Sink(Vec::with_capacity(USUAL)), Sink(Vec::new()));
    let mut encoder = Encoder { planned, out, state, unversioned: &unversioned, outer: Vec::new() };
    encoder.tag(ENCODING);
    encoder.answer(&planned.schema)?;
    let options = &planned.query.session.options;
    for option in [&options.time_zone, &options.cache_tag] {
        encoder.option(option.as_ref(), |encoder, value| {
            encoder.text(value);
            Ok(())
        })?;
    }
    encoder.plan(&planned.plan)?;
    Ok(Digests { question: hashed(&encoder.out.0), state: hashed(&encoder.state.0) })
}

fn hashed(encoded: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&SHA256, encoded).as_ref());
    digest
}

type Done = Result<(), NoDigest>;

/// What was encoded.
struct Sink(Vec<u8>);

impl Hasher for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

struct Encoder<'a> {
    planned: &'a Planned,
    out: Sink,
    state: Sink,
    unversioned: &'a dyn Fn(&TableName) -> bool,
    /// What the queries around this one can name, the nearest last.
    outer: Vec<Columns>,
}

impl Encoder<'_> {
    /// What follows.
    fn tag(&mut self, tag: &str) {
        self.text(tag);
    }

    fn text(&mut self, text: &str) {
        self.hash(text);
    }

    fn number(&mut self, number: usize) {
        self.hash(&number);
    }

    fn flag(&mut self, flag: bool) {
        self.hash(&flag);
    }

    /// A value of a type whose `Hash` gives all there is of it.
    fn hash(&mut self, value: &(impl Hash + ?Sized)) {
        value.hash(&mut self.out);
    }

    /// A value of a small type whose `Debug` says all there is of it.
    fn shown(&mut self, value: &impl std::fmt::Debug) {
        self.text(&format!("{value:?}"));
    }

    fn data_type(&mut self, data_type: &DataType) {
        match data_type {
            // The hash of a field does not tell where its metadata end.
            of if of.is_nested() || matches!(of, DataType::RunEndEncoded(..)) => self.shown(of),
            of => self.hash(of),
        }
    }

    /// All that is told of the columns of the answer: it comes with their rows.
    fn answer(&mut self, schema: &Schema) -> Done {
        self.hash(&schema.metadata.iter().collect::<BTreeMap<_, _>>());
        self.list(schema.fields().iter(), |encoder, field| {
            encoder.field(field);
            encoder.flag(field.is_nullable());
            encoder.hash(&field.metadata().iter().collect::<BTreeMap<_, _>>());
            Ok(())
        })
    }

    fn field(&mut self, field: &Field) {
        self.text(field.name());
        self.data_type(field.data_type());
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Self, T) -> Done) -> Done {
        self.number(items.len());
        for item in items {
            each(self, item)?;
        }
        Ok(())
    }

    fn option<T>(&mut self, item: Option<T>, each: impl FnOnce(&mut Self, T) -> Done) -> Done {
        self.flag(item.is_some());
        item.map_or(Ok(()), |item| each(self, item))
    }

    fn plan(&mut self, plan: &LogicalPlan) -> Done {
        match plan {
            // Only renames what is inside.
            LogicalPlan::SubqueryAlias(alias) => return self.plan(&alias.input),
            LogicalPlan::TableScan(scan) => return self.scan(scan),
            _ => {}
        }
        let inputs = plan.inputs();
        let columns = Columns(inputs.iter().map(|input| Arc::clone(input.schema())).collect());
        if let Some(input) = same::without(plan, &columns) {
            return self.plan(input);
        }
        match plan {
            LogicalPlan::Projection(node) => {
                self.tag("projection");
                self.exprs(&node.expr, &columns)?;
            }
            LogicalPlan::Filter(node) => {
                self.tag("filter");
                self.expr(&node.predicate, &columns)?;
            }
            LogicalPlan::Window(node) => {
                self.tag("window");
                self.exprs(&node.window_expr, &columns)?;
            }
            LogicalPlan::Aggregate(node) => {
                self.tag("aggregate");
                self.exprs(&node.group_expr, &columns)?;
                self.exprs(&node.aggr_expr, &columns)?;
            }
            LogicalPlan::Sort(node) => {
                self.tag("sort");
                self.sorts(&node.expr, &columns)?;
                self.hash(&node.fetch);
            }
            LogicalPlan::Join(node) => self.join(node, &columns)?,
            LogicalPlan::Union(_) => self.tag("union"),
            LogicalPlan::EmptyRelation(node) => {
                self.tag("empty");
                self.flag(node.produce_one_row);
                self.number(node.schema.fields().len());
            }
            LogicalPlan::Limit(node) => {
                self.tag("limit");
                let skip = node.skip.as_deref().filter(|skip| !same::is_zero(skip));
                self.option(skip, |encoder, skip| encoder.expr(skip, &columns))?;
                self.option(node.fetch.as_deref(), |encoder, fetch| encoder.expr(fetch, &columns))?;
            }
            LogicalPlan::Values(node) => {
                self.tag("values");
                self.list(node.values.iter(), |encoder, row| encoder.exprs(row, &columns))?;
            }
            LogicalPlan::Distinct(Distinct::All(_)) => self.tag("distinct"),
            _ => return Err(NoDigest::Unlisted),
        }
        self.list(inputs.into_iter(), |encoder, input| encoder.plan(input))
    }

    fn scan(&mut self, scan: &TableScan) -> Done {
        let session = &self.planned.query.session;
        let written = TableName::resolve(&scan.table_name, &session.catalog, &session.schema);
        let (name, table) = self.planned.tables.get(&written).ok_or(NoDigest::Unlisted)?;
        // Nobody can see what such a statement calls, and the name of its rows does not tell it from another.
        if table.provider.as_any().is::<Native>() {
            return Err(NoDigest::Volatile);
        }
        self.tag("scan");
        for part in [&name.catalog, &name.schema, &name.table] {
            self.text(part);
        }
        // Each session has its own of a name.
        if name.catalog == temporary::CATALOG {
            self.text(&session.id.to_string());
        }
        match &table.version {
            Version::Unknown if !(self.unversioned)(name) => return Err(NoDigest::UnknownVersion),
            version => version.hash(&mut self.state),
        }
        match table.provider.as_any().downcast_ref::<Guarded>().map(Guarded::mark) {
            None => self.flag(false),
            Some(Mark::Same(what)) => {
                self.flag(true);
                self.text(what);
                // That an answer is there would tell that somebody else has asked.
                self.text(&self.planned.query.cx.principal.0);
            }
            Some(Mark::Volatile) => return Err(NoDigest::Volatile),
        }
        // A source may infer another schema from the same files.
        self.list(scan.projected_schema.fields().iter(), |encoder, field| {
            encoder.field(field);
            Ok(())
        })?;
        self.exprs(&scan.filters, &Columns(vec![Arc::clone(&scan.projected_schema)]))?;
        self.hash(&scan.fetch);
        Ok(())
    }

    fn join(&mut self, join: &Join, columns: &Columns) -> Done {
        self.tag("join");
        self.hash(&join.join_type);
        self.hash(&join.null_equality);
        self.list(join.on.iter(), |encoder, (left, right)| {
            encoder.expr(left, columns)?;
            encoder.expr(right, columns)
        })?;
        self.option(join.filter.as_ref(), |encoder, filter| encoder.expr(filter, columns))
    }

    fn exprs(&mut self, exprs: &[Expr], columns: &Columns) -> Done {
        self.list(exprs.iter(), |encoder, expr| encoder.expr(expr, columns))
    }

    fn sorts(&mut self, sorts: &[Sort], columns: &Columns) -> Done {
        self.list(sorts.iter(), |encoder, sort| {
            encoder.expr(&sort.expr, columns)?;
            encoder.flag(sort.asc);
            encoder.flag(sort.nulls_first);
            Ok(())
        })
    }

    fn expr(&mut self, expr: &Expr, columns: &Columns) -> Done {
        match expr {
            Expr::Alias(alias) => self.expr(&alias.expr, columns),
            Expr::Column(column) => {
                self.tag("column");
                self.number(columns.find(column).ok_or(NoDigest::Unlisted)?.0);
                Ok(())
            }
            Expr::OuterReferenceColumn(field, column) => {
                self.tag("outer");
                // Not by name: the alias in it may be that of another table in an equal question.
                let mut around = self.outer.iter().rev().enumerate();
                let found = around.find_map(|(out, columns)| Some((out, columns.find(column)?.0)));
                let (out, position) = found.ok_or(NoDigest::Unlisted)?;
                self.number(out);
                self.number(position);
                self.data_type(field.data_type());
                Ok(())
            }
            Expr::Literal(value, _) => self.literal(value),
            Expr::BinaryExpr(binary) => self.binary(expr, binary, columns),
            Expr::Like(like) | Expr::SimilarTo(like) => {
                self.tag(if matches!(expr, Expr::Like(_)) { "like" } else { "similar" });
                self.flag(like.negated);
                self.flag(like.case_insensitive);
                self.hash(&like.escape_char);
                self.expr(&like.expr, columns)?;
                self.expr(&like.pattern, columns)
            }
            Expr::Not(inner) => self.unary("not", inner, columns),
            Expr::IsNotNull(inner) => self.unary("is not null", inner, columns),
            Expr::IsNull(inner) => self.unary("is null", inner, columns),
            Expr::IsTrue(inner) => self.unary("is true", inner, columns),
            Expr::IsFalse(inner) => self.unary("is false", inner, columns),
            Expr::IsUnknown(inner) => self.unary("is unknown", inner, columns),
            Expr::IsNotTrue(inner) => self.unary("is not true", inner, columns),
            Expr::IsNotFalse(inner) => self.unary("is not false", inner, columns),
            Expr::IsNotUnknown(inner) => self.unary("is not unknown", inner, columns),
            Expr::Negative(inner) => self.unary("negative", inner, columns),
            Expr::Between(between) => self.between(expr, between, columns),
            Expr::Case(case) => {
                self.tag("case");
                self.option(case.expr.as_deref(), |encoder, expr| encoder.expr(expr, columns))?;
                self.list(case.when_then_expr.iter(), |encoder, (when, then)| {
                    encoder.expr(when, columns)?;
                    encoder.expr(then, columns)
                })?;
                self.option(case.else_expr.as_deref(), |encoder, expr| encoder.expr(expr, columns))
            }
            Expr::Cast(cast) => self.cast("cast", &cast.expr, &cast.data_type, columns),
            Expr::TryCast(cast) => self.cast("try cast", &cast.expr, &cast.data_type, columns),
            Expr::ScalarFunction(call) => {
                self.function("scalar", call.func.name(), call.func.signature())?;
                self.exprs(&call.args, columns)
            }
            Expr::AggregateFunction(call) => {
                self.function("aggregate", call.func.name(), call.func.signature())?;
                self.exprs(&call.params.args, columns)?;
                self.flag(call.params.distinct);
                self.option(call.params.filter.as_deref(), |encoder, filter| encoder.expr(filter, columns))?;
                self.sorts(&call.params.order_by, columns)?;
                self.hash(&call.params.null_treatment);
                Ok(())
            }
            Expr::WindowFunction(call) => self.window(call, columns),
            Expr::InList(list) => self.in_list(list, columns),
            Expr::Exists(exists) => {
                self.tag("exists");
                self.flag(exists.negated);
                self.subquery(&exists.subquery, columns)
            }
            Expr::InSubquery(inner) => {
                self.tag("in subquery");
                self.flag(inner.negated);
                self.expr(&inner.expr, columns)?;
                self.subquery(&inner.subquery, columns)
            }
            Expr::ScalarSubquery(subquery) => {
                self.tag("subquery");
                self.subquery(subquery, columns)
            }
            _ => Err(NoDigest::Unlisted),
        }
    }

    fn unary(&mut self, tag: &str, inner: &Expr, columns: &Columns) -> Done {
        self.tag(tag);
        self.expr(inner, columns)
    }

    fn function(&mut self, tag: &str, name: &str, signature: &Signature) -> Done {
        if signature.volatility != Volatility::Immutable {
            return Err(NoDigest::Volatile);
        }
        self.tag(tag);
        self.text(name);
        Ok(())
    }

    fn window(&mut self, call: &WindowFunction, columns: &Columns) -> Done {
        match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                self.function("window aggregate", function.name(), function.signature())?;
            }
            WindowFunctionDefinition::WindowUDF(function) => self.function("window", function.name(), function.signature())?,
        }
        let params = &call.params;
        self.exprs(&params.args, columns)?;
        self.exprs(&params.partition_by, columns)?;
        self.sorts(&params.order_by, columns)?;
        self.shown(&params.window_frame);
        self.option(params.filter.as_deref(), |encoder, filter| encoder.expr(filter, columns))?;
        self.hash(&params.null_treatment);
        self.flag(params.distinct);
        Ok(())
    }

    fn subquery(&mut self, subquery: &Subquery, columns: &Columns) -> Done {
        self.outer.push(columns.clone());
        self.exprs(&subquery.outer_ref_columns, columns)?;
        self.plan(&subquery.subquery)?;
        self.outer.pop();
        Ok(())
    }

    fn literal(&mut self, value: &ScalarValue) -> Done {
        let data_type = value.data_type();
        // A nested value hashes to 64 bits only, which is too few to tell answers apart.
        if data_type.is_nested() {
            return Err(NoDigest::Unlisted);
        }
        self.tag("literal");
        self.hash(&data_type);
        self.hash(value);
        Ok(())
    }
}

/// The columns that an expression can name: those of all its inputs, side by side.
#[derive(Clone)]
struct Columns(Vec<DFSchemaRef>);

impl Columns {
    /// The position of a column, and what it is: as `DFSchema` finds it, which compares the names of tables first, of each column
    /// before the one.
    fn find(&self, column: &Column) -> Option<(usize, &Field)> {
        let mut before = 0;
        for schema in &self.0 {
            let is_of_table = |at: usize| match (&column.relation, schema.qualified_field(at).0) {
                (None, _) => true,
                (Some(wanted), Some(table)) => wanted.resolved_eq(table),
                (Some(_), None) => false,
            };
            let mut fields = schema.fields().iter().enumerate();
            if let Some((at, field)) = fields.find(|(at, field)| *field.name() == column.name && is_of_table(*at)) {
                return Some((before + at, field.as_ref()));
            }
            before += schema.fields().len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::DFSchema;

    use super::*;

    #[test]
    fn a_column_is_found_where_datafusion_finds_it() {
        let of = |table: &str, names: [&str; 2]| {
            let fields: Vec<Field> = names.into_iter().map(|name| Field::new(name, DataType::Int64, true)).collect();
            Arc::new(DFSchema::try_from_qualified_schema(table, &Schema::new(fields)).unwrap())
        };
        let columns = Columns(vec![of("main.a", ["x", "y"]), of("b", ["y", "z"])]);
        let mut found = Vec::new();
        for name in ["x", "y", "z", "a.y", "b.y", "main.a.y", "test.main.a.y", "other.a.y", "main.b.y", "c.y", "a.z", "X"] {
            let column = Column::from_qualified_name(name);
            let first = columns.0[0].maybe_index_of_column(&column);
            let wanted = first.or_else(|| columns.0[1].maybe_index_of_column(&column).map(|at| at + 2));
            assert_eq!(columns.find(&column).map(|(at, _)| at), wanted, "{name}");
            found.extend(wanted);
        }
        assert!([0, 1, 2, 3].iter().all(|at| found.contains(at)), "{found:?}");
    }
}
