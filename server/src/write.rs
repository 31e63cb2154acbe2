//! Statements that write: what they change where, and the plan of the rows that they make.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Constraint, DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    CreateMemoryTable, DdlStatement, DmlStatement, EmptyRelation, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection,
    WriteOp, cast, lit, when,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::error::{list, suggestion};
use nexus_flight_catalog::policy::{is_part, sees_a_part};
use nexus_flight_catalog::{
    Catalogs, Change, Context, Error, IfExists, IfMissing, Kind, Put, Resolved, Result, Source, TableName, Tables, Target,
    Version, information_schema, native,
};

use crate::offered::not_offered;
use crate::query::{Ingest, Query, nullable};
use crate::session::Session;
use crate::temporary;

/// What the rows of an ingest are called in a plan.
pub const ROWS: &str = "rows";

/// What a statement changes.
#[derive(Debug)]
pub struct Write {
    /// In which table.
    pub name: TableName,
    /// Who holds it.
    pub source: Arc<dyn Source>,
    /// How.
    pub action: Action,
}

impl Write {
    /// `asked` names it in the refusal.
    /// Errors: `Unsupported` where the source takes rows for tables that are there alone, and this is more.
    fn offered(self, is_there: bool, asked: &str) -> Result<Self> {
        let spec = self.source.spec();
        let appends = matches!(&self.action, Action::Put { target, .. } if is_there && target.if_exists == IfExists::Append);
        match appends || matches!(self.action, Action::Change(_)) || spec.capabilities.ingest {
            true => Ok(self),
            false => Err(spec.ingest_refusal(asked)),
        }
    }
}

/// How a table is changed.
#[derive(Debug)]
pub enum Action {
    /// It gets the rows of the plan.
    Put {
        /// Where and when.
        target: Target,
        /// The columns of the rows.
        columns: SchemaRef,
    },
    /// It gets the rows of the plan in place of its own.
    Rewrite {
        /// Where, and of which version.
        target: Target,
        /// The columns of the rows.
        columns: SchemaRef,
        /// Gives one number: the rows that are not what they were.
        affected: Box<LogicalPlan>,
    },
    /// The source changes it.
    Change(Change),
    /// It is dropped.
    Drop,
    /// It is not there, as the statement wants it.
    Nothing,
}

/// The one column of the answer to a statement that writes: the rows that it affected, as in JDBC's update count.
pub fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, false)]))
}

/// That answer.
pub fn count_batch(affected: i64) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(Int64Array::from(vec![affected]))])?)
}

/// Whether a plan writes.
pub fn is_write(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Dml(_) | LogicalPlan::Ddl(_))
}

/// Where the names of a statement lead.
pub struct Names<'a> {
    /// Who asks.
    pub cx: &'a Context,
    /// Where names without a catalog or schema are looked up.
    pub session: &'a Session,
    /// All sources.
    pub catalogs: &'a Arc<Catalogs>,
    /// The usual schema.
    pub default_schema: &'a str,
    /// The tables that the statement names and that are there.
    pub tables: &'a Tables,
    /// Whether it makes a temporary table.
    pub is_temporary: bool,
}

impl Names<'_> {
    /// The true name of a table that is there.
    fn there(&self, reference: &TableReference) -> Option<(&TableName, &Resolved)> {
        let written = TableName::resolve(reference, &self.session.catalog, &self.session.schema);
        self.tables.get(&written)
    }

    /// The name of a table that is there or to be made.
    async fn name(&self, reference: &TableReference) -> Result<TableName> {
        if let Some((name, _)) = self.there(reference) {
            return Ok(name.clone());
        }
        let written = TableName::resolve(reference, &self.session.catalog, &self.session.schema);
        let TableReference::Partial { schema: first, table } = reference else { return Ok(written) };
        // `a.b` is in the schema `a` here, or else in the catalog `a`.
        if self.catalogs.source(&self.cx.principal, first).is_err() {
            return Ok(written);
        }
        let schemas = self.catalogs.schemas(self.cx, &written.catalog).await?;
        let is_schema = schemas.iter().any(|schema| **schema == **first);
        Ok(if is_schema { written } else { TableName::new(&**first, self.default_schema, &**table) })
    }
}

/// Parts an analysed plan that writes into the rows that it makes, and what becomes of them.
pub async fn split(plan: LogicalPlan, names: &Names<'_>) -> Result<(LogicalPlan, Write)> {
    match plan {
        LogicalPlan::Dml(DmlStatement { table_name, op, input, .. }) => {
            let Some((name, table)) = names.there(&table_name) else {
                return Err(Error::internal(format!("the table {table_name} was not resolved")));
            };
            let source = target_source(names.catalogs, names.cx, name)?;
            let asked = op.name().to_uppercase();
            let (rows, action) = dml(op, Arc::unwrap_or_clone(input), name, table, source.as_ref())?;
            Ok((rows, Write { name: name.clone(), source, action }.offered(true, &asked)?))
        }
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
            let name = match names.is_temporary {
                true => temporary_name(&create.name)?,
                false => names.name(&create.name).await?,
            };
            let source = target_source(names.catalogs, names.cx, &name)?;
            let (rows, action) = created(create, &name)?;
            Ok((rows, Write { name, source, action }.offered(false, "CREATE TABLE")?))
        }
        LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => {
            let action = match (names.there(&drop.name).is_some(), drop.if_exists) {
                (false, true) => Action::Nothing,
                // A table that is not there is the source's to tell: it may be there by then.
                _ => Action::Drop,
            };
            let name = names.name(&drop.name).await?;
            let source = target_source(names.catalogs, names.cx, &name)?;
            Ok((nothing(), Write { name, source, action }.offered(false, "DROP TABLE")?))
        }
        LogicalPlan::Ddl(ddl) => Err(not_offered(ddl.name())),
        _ => Err(Error::internal("a plan that does not write was taken for one that does")),
    }
}

fn temporary_name(reference: &TableReference) -> Result<TableName> {
    let name = temporary::name(reference.table());
    let fits = match reference {
        TableReference::Bare { .. } => true,
        TableReference::Partial { schema, .. } => **schema == *name.catalog,
        TableReference::Full { catalog, schema, .. } => **catalog == *name.catalog && **schema == *name.schema,
    };
    match fits {
        true => Ok(name),
        false => Err(Error::invalid(format!("a temporary table is in the catalog \"{}\", not in \"{reference}\"", name.catalog))
            .with_hint("name it without a catalog and a schema")),
    }
}

/// The source behind a table that is to be written. Errors: `Denied` where the catalog is read-only, `Unsupported` where its
/// kind takes no rows, `NotFound` for the rows of a native statement.
pub fn target_source(catalogs: &Catalogs, cx: &Context, name: &TableName) -> Result<Arc<dyn Source>> {
    let source = catalogs.source(&cx.principal, &name.catalog)?;
    // A statement that calls native has its rows by such a name.
    if name.schema == native::SCHEMA {
        return Err(Error::not_found(format!("schema \"{}.{}\" does not exist", name.catalog, name.schema))
            .with_hint("the rows of native cannot be changed: name the table itself"));
    }
    if name.schema == information_schema::NAME {
        return Err(Error::unsupported("information_schema cannot be written: it is made of what is there"));
    }
    if !source.spec().capabilities.append {
        return Err(source.spec().refusal("writing (ingest)"));
    }
    catalogs.check_writable(&name.catalog)?;
    source.check_write(cx, &name.schema, &name.table)?;
    Ok(source)
}

/// A plan that gives no rows.
pub fn nothing() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) })
}

/// The columns of a plan, any of which may be NULL: what the target takes is the source's to check.
fn columns_of(plan: &LogicalPlan) -> SchemaRef {
    nullable(plan.schema().as_arrow())
}

fn dml(
    op: WriteOp,
    input: LogicalPlan,
    name: &TableName,
    table: &Resolved,
    source: &dyn Source,
) -> Result<(LogicalPlan, Action)> {
    let version = &table.version;
    match op {
        WriteOp::Insert(InsertOp::Append) => {
            let rows = given_columns(input)?;
            let (target, columns) = (Target::append(&name.schema, &name.table), columns_of(&rows));
            Ok((rows, Action::Put { target, columns }))
        }
        WriteOp::Insert(InsertOp::Overwrite) => Err(not_offered("INSERT OVERWRITE")),
        WriteOp::Insert(InsertOp::Replace) => Err(not_offered("REPLACE INTO")),
        // Its rows are those of this moment, whatever the policy says by the time that they are written.
        WriteOp::Delete | WriteOp::Update if is_part(table) => Err(sees_a_part(name)),
        WriteOp::Delete => {
            let selected = Selected::of(input)?;
            if source.spec().capabilities.changes {
                return selected.change(name, None);
            }
            let affected = selected.counted()?;
            let kept = selected.filter.map_or_else(|| lit(false), Expr::is_not_true);
            let rows = LogicalPlan::Filter(Filter::try_new(kept, selected.table)?);
            rewrite(rows, affected, name, version)
        }
        WriteOp::Update => {
            let LogicalPlan::Projection(Projection { expr, input, .. }) = input else {
                return Err(Error::internal("an UPDATE is not planned as a projection"));
            };
            let selected = Selected::of(Arc::unwrap_or_clone(input))?;
            let set: Vec<(Column, Expr)> = selected.columns().into_iter().zip(expr).collect();
            if source.spec().capabilities.changes {
                return selected.change(name, Some(set));
            }
            let affected = selected.counted()?;
            let values = set.into_iter().map(|(column, value)| selected.updated(column, value)).collect::<Result<Vec<_>>>()?;
            let rows = LogicalPlan::Projection(Projection::try_new(values, selected.table)?);
            rewrite(rows, affected, name, version)
        }
        other => Err(not_offered(other.name())),
    }
}

fn rewrite(rows: LogicalPlan, affected: LogicalPlan, name: &TableName, version: &Version) -> Result<(LogicalPlan, Action)> {
    if *version == Version::Unknown {
        return Err(Error::unsupported(format!(
            "the table {name} cannot be updated: its source cannot tell whether it has changed meanwhile"
        ))
        .with_hint("write the rows that you want into another table"));
    }
    let target = Target { if_exists: IfExists::Rewrite(version.clone()), ..Target::append(&name.schema, &name.table) };
    let columns = columns_of(&rows);
    Ok((rows, Action::Rewrite { target, columns, affected: Box::new(affected) }))
}

/// Of an INSERT, the columns that the statement names: the planner puts NULL for the others, where the source may know better.
fn given_columns(input: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &input else { return Ok(input) };
    let given: Vec<usize> = (0..projection.expr.len()).filter(|at| !projection.expr[*at].column_refs().is_empty()).collect();
    if given.len() == projection.expr.len() {
        return Ok(input);
    }
    let columns: Vec<Expr> = given.into_iter().map(|at| Expr::Column(Column::from(input.schema().qualified_field(at)))).collect();
    Ok(LogicalPlanBuilder::from(input).project(columns)?.build()?)
}

/// The rows of one table that an UPDATE or DELETE is about.
struct Selected {
    table: Arc<LogicalPlan>,
    filter: Option<Expr>,
}

impl Selected {
    fn of(input: LogicalPlan) -> Result<Self> {
        let (table, filter) = match input {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => (input, Some(predicate)),
            table => (Arc::new(table), None),
        };
        let is_table = match table.as_ref() {
            LogicalPlan::TableScan(_) => true,
            LogicalPlan::SubqueryAlias(alias) => matches!(alias.input.as_ref(), LogicalPlan::TableScan(_)),
            _ => false,
        };
        if !is_table {
            return Err(Error::unsupported("UPDATE … FROM and DELETE … LIMIT are not offered")
                .with_hint("choose the rows by a condition on the table itself"));
        }
        if filter.as_ref().is_some_and(Expr::is_volatile) {
            return Err(Error::unsupported("rows cannot be chosen by a function that gives another value each time")
                .with_hint("compute the values into a column first"));
        }
        Ok(Self { table, filter })
    }

    fn columns(&self) -> Vec<Column> {
        self.table.schema().columns()
    }

    /// Counts the rows.
    fn counted(&self) -> Result<LogicalPlan> {
        let builder = LogicalPlanBuilder::from(Arc::clone(&self.table));
        let builder = match &self.filter {
            Some(filter) => builder.filter(filter.clone())?,
            None => builder,
        };
        Ok(builder.aggregate(Vec::<Expr>::new(), [count(lit(1i64))])?.build()?)
    }

    /// A column with its new value where the row is chosen.
    fn updated(&self, column: Column, value: Expr) -> Result<Expr> {
        let name = column.name.clone();
        let own = Expr::Column(column);
        let value = match &self.filter {
            _ if is_column(&value, &own) => own,
            Some(filter) => when(filter.clone(), value.unalias()).otherwise(own)?,
            None => value.unalias(),
        };
        Ok(value.alias(name))
    }

    /// For a source that does it itself.
    fn change(self, name: &TableName, set: Option<Vec<(Column, Expr)>>) -> Result<(LogicalPlan, Action)> {
        let set = set.map(|set| {
            let changed = set.into_iter().filter(|(column, value)| !is_column(value, &Expr::Column(column.clone())));
            changed
                .map(|(column, value)| Ok((Column::from_name(column.name), unqualified(value.unalias())?)))
                .collect::<Result<_>>()
        });
        let change = Change {
            schema: name.schema.clone(),
            table: name.table.clone(),
            filter: self.filter.map(unqualified).transpose()?,
            set: set.transpose()?,
        };
        Ok((nothing(), Action::Change(change)))
    }
}

fn is_column(value: &Expr, column: &Expr) -> bool {
    value == column || matches!(value, Expr::Alias(alias) if *alias.expr == *column)
}

/// An expression over the columns of one table, without its name. Errors: `Unsupported` where it reads other tables.
fn unqualified(expr: Expr) -> Result<Expr> {
    let refused = || {
        Error::unsupported("an UPDATE or DELETE of this source cannot read other tables").with_hint("compute the values first")
    };
    if expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))? {
        return Err(refused());
    }
    let bare = expr.transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::from_name(column.name))),
            other => Transformed::no(other),
        })
    });
    Ok(bare.data()?)
}

fn not_taken(what: &str, instead: &str) -> Error {
    Error::unsupported(format!("{what} in CREATE TABLE is not offered")).with_hint(instead)
}

fn created(create: CreateMemoryTable, name: &TableName) -> Result<(LogicalPlan, Action)> {
    let CreateMemoryTable { constraints, input, if_not_exists, or_replace, column_defaults, .. } = create;
    if !column_defaults.is_empty() {
        return Err(not_taken("DEFAULT", "leave it out, and give the value in each INSERT"));
    }
    let rows = Arc::unwrap_or_clone(input);
    let fields = rows.schema().fields();
    check_names(fields)?;
    if if_not_exists && or_replace {
        return Err(Error::invalid("a table is either replaced or kept where it exists")
            .with_hint("leave OR REPLACE or IF NOT EXISTS out"));
    }
    let mut primary_key = Vec::new();
    for constraint in constraints.iter() {
        match constraint {
            Constraint::PrimaryKey(columns) => primary_key.extend(columns.iter().map(|at| fields[*at].name().clone())),
            Constraint::Unique(_) => return Err(not_taken("UNIQUE", "leave it out: nothing would hold it")),
        }
    }
    // What is declared holds; what a query happens to give may be NULL.
    let columns = match &rows {
        // The columns of a primary key take no NULL (ISO/IEC 9075-2, unique constraint definition).
        LogicalPlan::EmptyRelation(_) => {
            let in_key = |field: &FieldRef| primary_key.contains(field.name());
            let column = |field: &FieldRef| field.as_ref().clone().with_nullable(field.is_nullable() && !in_key(field));
            Arc::new(Schema::new(fields.iter().map(column).collect::<Vec<_>>()))
        }
        rows => columns_of(rows),
    };
    let if_exists = match (if_not_exists, or_replace) {
        (true, _) => IfExists::Keep,
        (_, true) => IfExists::Replace,
        _ => IfExists::Fail,
    };
    let (schema, table) = (name.schema.clone(), name.table.clone());
    let target = Target { schema, table, if_missing: IfMissing::Create, if_exists, primary_key };
    Ok((rows, Action::Put { target, columns }))
}

/// Rows that a client sends, in the types of the table that they are for. Errors: `Invalid` for a column that it does not have.
pub fn ingested(
    ingest: &Arc<Ingest>,
    name: TableName,
    source: Arc<dyn Source>,
    there: Option<&Resolved>,
) -> Result<(LogicalPlan, Write)> {
    let target = Target {
        schema: name.schema.clone(),
        table: name.table.clone(),
        if_missing: ingest.if_missing,
        if_exists: ingest.if_exists.clone(),
        primary_key: vec![],
    };
    check_names(ingest.schema.fields())?;
    // What cannot be is refused before any row is read.
    let put = target.put(there.map(|there| &there.version))?;
    let sent = StreamingTable::try_new(Arc::clone(&ingest.schema), vec![Arc::new(Rows(Arc::clone(ingest)))])?;
    let rows = LogicalPlanBuilder::scan(ROWS, provider_as_source(Arc::new(sent)), None)?;
    let rows = match there.filter(|_| put == Put::Append) {
        Some(there) => {
            let own = there.provider.schema();
            let known: Vec<&str> = own.fields().iter().map(|field| field.name().as_str()).collect();
            let column = |field: &FieldRef| {
                let Ok(target) = own.field_with_name(field.name()) else {
                    return Err(Error::invalid(format!("the table {name} has no column \"{}\"", field.name()))
                        .with_hint(suggestion(field.name(), &known, || format!("the columns are {}", list(&known)))));
                };
                let value = cast(Expr::Column(Column::from_name(field.name())), target.data_type().clone());
                Ok(value.alias(field.name()))
            };
            rows.project(ingest.schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?)?
        }
        None => rows,
    };
    let plan = rows.build()?;
    let columns = columns_of(&plan);
    let asked = if put == Put::Replace { "replacing tables" } else { "making tables" };
    Ok((plan, Write { name, source, action: Action::Put { target, columns } }.offered(put == Put::Append, asked)?))
}

/// The rows that a client sends, as a partition of a table.
#[derive(Debug)]
struct Rows(Arc<Ingest>);

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = match self.0.take() {
            Some(rows) => rows.map_err(DataFusionError::from).boxed(),
            None => stream::iter([Err(Error::internal("the rows were read already").into())]).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0.schema), rows))
    }
}

/// In a transaction only what has transactions is written, and one catalog alone. Errors: `Unsupported`.
pub async fn check_transaction(query: &Query, write: &Write) -> Result<()> {
    let Some(open) = &query.transaction else { return Ok(()) };
    let (catalog, spec) = (&write.name.catalog, write.source.spec());
    if !spec.capabilities.transactions {
        return Err(Error::unsupported(format!("the catalog \"{catalog}\" of kind \"{}\" has no transactions", spec.kind))
            .with_hint("write to it outside of the transaction"));
    }
    open.writes(catalog).await
}

/// A table's columns have each their own name.
fn check_names(fields: &Fields) -> Result<()> {
    match (1..fields.len()).find(|at| fields[..*at].iter().any(|field| field.name() == fields[*at].name())) {
        Some(at) => Err(Error::invalid(format!("the table would have two columns \"{}\"", fields[at].name()))
            .with_hint("give each column its own name")),
        None => Ok(()),
    }
}

/// A table that may be there or not.
pub async fn perhaps<T>(table: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    match table.await {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
