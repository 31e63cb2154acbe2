//! The digests of a plan: that of the question is equal for statements that ask the same, whatever they call their tables; that
//! of the state says of which versions of them.
//!
//! The encoding is our own: each node and expression as a tag, its own values and its inputs, every text and list with its
//! length before it. The rewrites by which equal questions meet are these: letter case, white space and comments (gone when
//! parsed), table aliases and qualifiers (a column is its position in its input, or in that of a query around it), aliases inside of the plan (only the names
//! of the answer's own columns are kept). A node, expression or value that is not listed here has no digest, and what has no
//! digest is not cached. So has whatever does not give the same answer each time.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Distinct, Expr, Join, LogicalPlan, Signature, Subquery, TableScan, Volatility, WindowFunctionDefinition,
};
use nexus_flight_catalog::policy::{Guarded, Mark};
use nexus_flight_catalog::{TableName, Version};
use ring::digest::{Context, SHA256};

use crate::plan::Planned;
use crate::temporary;

/// Changes when the encoding does.
const ENCODING: &[u8] = b"plan/6";

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
        let mut whole = Context::new(&SHA256);
        whole.update(&self.question);
        whole.update(&self.state);
        finished(whole)
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
    let new = || Sink(Context::new(&SHA256));
    let mut encoder = Encoder { planned, out: new(), state: new(), unversioned: &unversioned, outer: Vec::new() };
    encoder.out.write(ENCODING);
    encoder.list(planned.schema.fields().iter(), |encoder, field| {
        encoder.text(field.name());
        Ok(())
    })?;
    let options = &planned.query.session.options;
    for option in [&options.time_zone, &options.cache_tag] {
        encoder.option(option.as_ref(), |encoder, value| {
            encoder.text(value);
            Ok(())
        })?;
    }
    encoder.plan(&planned.plan)?;
    Ok(Digests { question: finished(encoder.out.0), state: finished(encoder.state.0) })
}

fn finished(context: Context) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

type Done = Result<(), NoDigest>;

struct Sink(Context);

impl Hasher for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl Sink {
    fn number(&mut self, number: usize) {
        self.write(&(number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.write(text.as_bytes());
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
    fn tag(&mut self, tag: &str) {
        self.text(tag);
    }

    fn text(&mut self, text: &str) {
        self.out.text(text);
    }

    fn number(&mut self, number: usize) {
        self.out.number(number);
    }

    fn flag(&mut self, flag: bool) {
        self.out.write(&[u8::from(flag)]);
    }

    /// A value of a small type whose `Debug` says all there is of it.
    fn shown(&mut self, value: &impl std::fmt::Debug) {
        self.text(&format!("{value:?}"));
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
                self.shown(&node.fetch);
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
                self.option(node.skip.as_deref(), |encoder, skip| encoder.expr(skip, &columns))?;
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
        self.tag("scan");
        for part in [&name.catalog, &name.schema, &name.table] {
            self.text(part);
        }
        // Each session has its own of a name.
        if name.catalog == temporary::CATALOG {
            self.text(&session.id.to_string());
        }
        match &table.version {
            Version::Pinned(version) => {
                self.state.write(&[1]);
                self.state.text(version);
            }
            Version::Unknown if (self.unversioned)(name) => self.state.write(&[0]),
            Version::Unknown => return Err(NoDigest::UnknownVersion),
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
            encoder.text(field.name());
            encoder.shown(field.data_type());
            Ok(())
        })?;
        self.exprs(&scan.filters, &Columns(vec![Arc::clone(&scan.projected_schema)]))?;
        self.shown(&scan.fetch);
        Ok(())
    }

    fn join(&mut self, join: &Join, columns: &Columns) -> Done {
        self.tag("join");
        self.shown(&join.join_type);
        self.shown(&join.null_equality);
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
                self.number(columns.position(column).ok_or(NoDigest::Unlisted)?);
                Ok(())
            }
            Expr::OuterReferenceColumn(field, column) => {
                self.tag("outer");
                // Not by name: the alias in it may be that of another table in an equal question.
                let mut around = self.outer.iter().rev().enumerate();
                let found = around.find_map(|(out, columns)| Some((out, columns.position(column)?)));
                let (out, position) = found.ok_or(NoDigest::Unlisted)?;
                self.number(out);
                self.number(position);
                self.shown(field.data_type());
                Ok(())
            }
            Expr::Literal(value, _) => self.literal(value),
            Expr::BinaryExpr(binary) => {
                self.tag("binary");
                self.shown(&binary.op);
                self.expr(&binary.left, columns)?;
                self.expr(&binary.right, columns)
            }
            Expr::Like(like) | Expr::SimilarTo(like) => {
                self.tag(if matches!(expr, Expr::Like(_)) { "like" } else { "similar" });
                self.flag(like.negated);
                self.flag(like.case_insensitive);
                self.shown(&like.escape_char);
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
            Expr::Between(between) => {
                self.tag("between");
                self.flag(between.negated);
                [&between.expr, &between.low, &between.high].into_iter().try_for_each(|expr| self.expr(expr, columns))
            }
            Expr::Case(case) => {
                self.tag("case");
                self.option(case.expr.as_deref(), |encoder, expr| encoder.expr(expr, columns))?;
                self.list(case.when_then_expr.iter(), |encoder, (when, then)| {
                    encoder.expr(when, columns)?;
                    encoder.expr(then, columns)
                })?;
                self.option(case.else_expr.as_deref(), |encoder, expr| encoder.expr(expr, columns))
            }
            Expr::Cast(cast) => {
                self.shown(&cast.data_type);
                self.unary("cast", &cast.expr, columns)
            }
            Expr::TryCast(cast) => {
                self.shown(&cast.data_type);
                self.unary("try cast", &cast.expr, columns)
            }
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
                self.shown(&call.params.null_treatment);
                Ok(())
            }
            Expr::WindowFunction(call) => self.window(call, columns),
            Expr::InList(list) => {
                self.tag("in");
                self.flag(list.negated);
                self.expr(&list.expr, columns)?;
                self.exprs(&list.list, columns)
            }
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
        self.shown(&params.null_treatment);
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
        self.shown(&data_type);
        value.hash(&mut self.out);
        Ok(())
    }
}

/// The columns that an expression can name: those of all its inputs, side by side.
#[derive(Clone)]
struct Columns(Vec<DFSchemaRef>);

impl Columns {
    fn position(&self, column: &Column) -> Option<usize> {
        let mut before = 0;
        for schema in &self.0 {
            if let Some(position) = schema.maybe_index_of_column(column) {
                return Some(before + position);
            }
            before += schema.fields().len();
        }
        None
    }
}
