//! The parameters of a statement: their types, and the values that take their places.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, ParamValues, ScalarValue, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Cast, DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Projection, Values, WriteOp};
use nexus_flight_catalog::compact::exactly;
use nexus_flight_catalog::{Error, Result};

use crate::bounds::all_within;
use crate::write::is_write;

/// Gives a type to the placeholders whose place implies one that DataFusion does not see: under a cast, and in LIMIT and OFFSET.
pub fn type_placeholders(plan: LogicalPlan) -> Result<LogicalPlan> {
    fn typed(expr: Expr, data_type: &DataType) -> Expr {
        match expr {
            Expr::Placeholder(Placeholder { id, field: None }) => {
                let field = Arc::new(Field::new(&id, data_type.clone(), true));
                Expr::Placeholder(Placeholder { id, field: Some(field) })
            }
            other => other,
        }
    }
    let plan = plan.transform_up_with_subqueries(|node| {
        let in_limit = matches!(node, LogicalPlan::Limit(_));
        node.map_expressions(|expr| {
            let expr = if in_limit { typed(expr, &DataType::Int64) } else { expr };
            expr.transform_up(|expr| match expr {
                Expr::Cast(Cast { expr, data_type }) if matches!(*expr, Expr::Placeholder(_)) => {
                    let expr = Box::new(typed(*expr, &data_type));
                    Ok(Transformed::yes(Expr::Cast(Cast { expr, data_type })))
                }
                other => Ok(Transformed::no(other)),
            })
            .map(|transformed| if in_limit { Transformed::yes(transformed.data) } else { transformed })
        })
    });
    Ok(plan.data()?)
}

/// The parameters of a plan in order, with the types it implies. Errors: `Invalid` for a gap in the numbers.
pub fn parameters(plan: &LogicalPlan) -> Result<Vec<(String, DataType)>> {
    let mut fields = plan.get_parameter_fields()?;
    let count = fields.len();
    (1..=count)
        .map(|number| {
            let name = format!("${number}");
            let field = fields.remove(&name).ok_or_else(|| {
                Error::invalid(format!("the statement has {} and none is {name}", counted(count)))
                    .with_hint("number them from $1 without gaps")
            })?;
            let data_type = field.map_or(DataType::Utf8, |field| field.data_type().clone());
            Ok((name, data_type))
        })
        .collect()
}

fn check(wanted: &[(String, DataType)], values: &RecordBatch) -> Result<()> {
    if values.num_columns() == wanted.len() {
        let mut types = values.schema_ref().fields().iter().map(|field| field.data_type());
        return match types.find(|data_type| has_views(data_type)) {
            None => Ok(()),
            Some(data_type) => Err(Error::unsupported(format!("a parameter of the type {data_type} is not taken"))
                .with_hint("send its values as a List")),
        };
    }
    let message = {
        let (given, were) = (values.num_columns(), if values.num_columns() == 1 { "was" } else { "were" });
        format!("the statement has {} and {given} {were} given", counted(wanted.len()))
    };
    Err(Error::invalid(message).with_hint("bind a value to each of them"))
}

/// Whether there are list views in a type. DataFusion has no value of such a type.
pub fn has_views(data_type: &DataType) -> bool {
    all_within(data_type).iter().any(|data_type| matches!(data_type, DataType::ListView(_) | DataType::LargeListView(_)))
}

/// Rows with lists in place of their list views. They may be far larger than what was sent: many views may show the same values.
pub fn as_lists(rows: RecordBatch) -> Result<RecordBatch> {
    if !rows.schema_ref().fields().iter().any(|field| has_views(field.data_type())) {
        return Ok(rows);
    }
    let schema = with_lists(rows.schema_ref());
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| exactly(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The columns of [`as_lists`]. What is in a dictionary, in runs or in a union stays, since no cast reaches it.
pub fn with_lists(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(with_list).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_list(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::List(item) | DataType::ListView(item) => DataType::List(with_list(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(with_list(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(with_list(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_list).collect()),
        DataType::Map(entries, sorted) => DataType::Map(with_list(entries), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Binds the first row.
pub fn bind(plan: LogicalPlan, wanted: &[(String, DataType)], values: &RecordBatch) -> Result<LogicalPlan> {
    check(wanted, values)?;
    if values.num_rows() == 0 {
        return Err(Error::invalid("the parameters have no row").with_hint("bind a value to each of them"));
    }
    if wanted.is_empty() {
        return Ok(plan);
    }
    let values: Vec<ScalarValue> =
        values.columns().iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<_, DataFusionError>>()?;
    // A value for a column takes its type here; elsewhere the analysis casts, and says what does not fit.
    let values = match is_write(&plan) {
        true => {
            values.into_iter().zip(wanted).map(|(value, (_, wanted))| value.cast_to(wanted)).collect::<Result<Vec<_>, _>>()?
        }
        false => values,
    };
    Ok(plan.replace_params_with_values(&ParamValues::from(values))?)
}

/// So many parameters, in words.
pub fn counted(parameters: usize) -> String {
    if parameters == 1 { "1 parameter".to_owned() } else { format!("{parameters} parameters") }
}

/// A statement is described with NULLs of the implied types, so that its answer has the types that it will have.
pub fn bind_nulls(plan: LogicalPlan, parameters: &[(String, DataType)]) -> Result<LogicalPlan> {
    if parameters.is_empty() {
        return Ok(plan);
    }
    let values: Vec<ScalarValue> =
        parameters.iter().map(|(_, data_type)| ScalarValue::try_new_null(data_type)).collect::<Result<_, DataFusionError>>()?;
    Ok(plan.replace_params_with_values(&ParamValues::from(values))?)
}

/// An `INSERT … VALUES` of one row with a row of values for each row of its parameters, as one statement; none for any other
/// statement.
pub fn spread(plan: &LogicalPlan, wanted: &[(String, DataType)], values: &RecordBatch) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Dml(DmlStatement { op: WriteOp::Insert(InsertOp::Append), input, .. }) = plan else { return Ok(None) };
    let mut inner = input.as_ref();
    while let LogicalPlan::Projection(Projection { input, .. }) = inner {
        inner = input;
    }
    if !matches!(inner, LogicalPlan::Values(Values { values, .. }) if values.len() == 1) {
        return Ok(None);
    }
    check(wanted, values)?;
    let columns = values.columns().iter().zip(wanted).map(|(column, (_, wanted))| exactly(column, wanted));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let fields = wanted.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
    let spread = plan.clone().transform_up(|node| match node {
        LogicalPlan::Values(Values { schema, values }) => {
            let rows = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?;
            let row = values
                .into_iter()
                .flatten()
                .zip(schema.fields())
                .map(|(value, field)| Ok(value.transform_up(|expr| Ok(of_column(expr))).data()?.alias(field.name())));
            let row = row.collect::<Result<Vec<_>, DataFusionError>>()?;
            let rows = LogicalPlanBuilder::scan(ROWS, provider_as_source(Arc::new(rows)), None)?.project(row)?.build()?;
            Ok(Transformed::yes(rows))
        }
        node => Ok(Transformed::yes(node.recompute_schema()?)),
    });
    let spread = spread.data()?;
    // Within a sub-query they are not reached.
    Ok(spread.get_parameter_names()?.is_empty().then_some(spread))
}

/// What the rows of parameters are called in a plan.
pub const ROWS: &str = "parameters";

fn of_column(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            Transformed::yes(Expr::Column(Column::new(Some(TableReference::bare(ROWS)), id)))
        }
        other => Transformed::no(other),
    }
}
