//! Substrait plans → logical plans, as an alternative to text: <https://substrait.io/serialization/binary_serialization/>.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use datafusion::common::TableReference;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion_substrait::logical_plan::consumer::from_substrait_plan;
use datafusion_substrait::substrait::proto::extensions::simple_extension_declaration::MappingType;
use datafusion_substrait::substrait::proto::{Plan, Version};
use datafusion_substrait::substrait::version;
use futures::FutureExt;
use nexus_flight_catalog::{Error, Result};
use prost::Message;
use serde_json::Value;

use crate::statement::{Caps, LEVELS, is_another_name, too_deep};

/// The release of Substrait whose messages are read. What others say in the same messages is read as well.
pub fn version() -> String {
    let Version { major_number, minor_number, patch_number, .. } = version::version();
    format!("{major_number}.{minor_number}.{patch_number}")
}

/// A plan as its message says it.
#[derive(Debug)]
pub struct Parsed {
    plan: Plan,
    /// The tables that it names.
    pub tables: BTreeSet<TableReference>,
}

const BY_NAME: &str = "read from the named_table of a catalog";
const BY_SQL: &str = "send the statement as SQL";
const BY_VALUE: &str = "put the values into it";
/// What a plan cannot do, by its name in JSON, and what to do instead. DataFusion takes a file for the table of its name, and has no
/// words for what writes.
const REFUSED: [(&str, &str, &str); 7] = [
    ("localFiles", "read from local_files", BY_NAME),
    ("extensionTable", "read from extension_table", BY_NAME),
    ("icebergTable", "read from iceberg_table", BY_NAME),
    ("write", "write", BY_SQL),
    ("ddl", "write", BY_SQL),
    ("update", "write", BY_SQL),
    ("dynamicParameter", "take parameters", BY_VALUE),
];

/// Reads a serialised `substrait.Plan`. Errors: `Exhausted` over a cap or where it nests too deep for planning, `Invalid` for bytes
/// that are no such message, or one that nests more than a hundred messages, `Unsupported` where it has what is `REFUSED`.
pub fn parse(bytes: &[u8], caps: &Caps) -> Result<Parsed> {
    if bytes.len() > caps.bytes {
        let message = format!("the Substrait plan has {} bytes, the limit is {}", bytes.len(), caps.bytes);
        return Err(Error::exhausted(message).with_hint("shorten it, or raise limits.statement").with_retryable(false));
    }
    let no_plan = |cause: String| {
        Error::invalid(format!("the bytes are no Substrait plan: {cause}")).with_hint("send a serialised substrait.Plan")
    };
    // Where in the message it is tells nobody anything, and at length.
    let cause = |error: String| error.rsplit(": ").next().map(str::to_owned).unwrap_or(error);
    let plan = Plan::decode(bytes).map_err(|error| no_plan(cause(error.to_string())))?;
    if plan.relations.is_empty() {
        return Err(no_plan("it has no relation".to_owned()));
    }
    // Relations stand within relations and within expressions, in dozens of ways; as JSON all of them look alike.
    let message = serde_json::to_value(&plan).map_err(|error| no_plan(error.to_string()))?;
    let mut tables = BTreeSet::new();
    named(&message, &mut tables)?;
    Levels::of(&plan).check(&message)?;
    Ok(Parsed { plan, tables })
}

/// What stands for such a message where statements are shown.
pub fn title(bytes: &[u8], caps: &Caps) -> String {
    let tables = parse(bytes, caps).map(|parsed| parsed.tables).unwrap_or_default();
    let tables: Vec<String> = tables.iter().map(TableReference::to_quoted_string).collect();
    match tables.is_empty() {
        true => "SUBSTRAIT PLAN".to_owned(),
        false => format!("SUBSTRAIT PLAN OF {}", tables.join(", ")),
    }
}

/// Collects the names of the tables that a message names anywhere. Errors: `Unsupported` where it has what is `REFUSED`.
fn named(message: &Value, tables: &mut BTreeSet<TableReference>) -> Result<()> {
    match message {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            if let Some((_, what, instead)) = REFUSED.iter().find(|(field, ..)| field == name) {
                return Err(Error::unsupported(format!("a Substrait plan cannot {what} here")).with_hint(*instead));
            }
            if name == "namedTable" {
                tables.extend(value.get("names").and_then(Value::as_array).and_then(|names| reference(names)));
            }
            named(value, tables)
        }),
        Value::Array(values) => values.iter().try_for_each(|value| named(value, tables)),
        _ => Ok(()),
    }
}

/// How deep a walk through a message is in what doubles the work of planning with each level: the same as in text, where it says why.
struct Levels {
    /// The functions that are called by another than their own names, by their anchors.
    aliases: BTreeSet<u64>,
    within: BTreeMap<&'static str, usize>,
}

impl Levels {
    fn of(plan: &Plan) -> Self {
        let functions = plan.extensions.iter().filter_map(|extension| match &extension.mapping_type {
            Some(MappingType::ExtensionFunction(function)) => Some(function),
            _ => None,
        });
        // A name may be followed by the types that it takes.
        let own = |name: &str| name.split(':').next().unwrap_or_default().to_lowercase();
        let aliases = functions.filter(|function| is_another_name(&own(&function.name)));
        Self { aliases: aliases.map(|function| u64::from(function.function_anchor)).collect(), within: BTreeMap::new() }
    }

    fn check(&mut self, message: &Value) -> Result<()> {
        match message {
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| self.field(name, value)),
            Value::Array(values) => values.iter().try_for_each(|value| self.check(value)),
            _ => Ok(()),
        }
    }

    fn field(&mut self, name: &str, value: &Value) -> Result<()> {
        // A reference to the function with the anchor 0 is left out.
        let function = || value.get("functionReference").and_then(Value::as_u64).unwrap_or_default();
        let what = match name {
            "ifThen" | "switchExpression" => "choices",
            "subquery" => "sub-queries in expressions",
            "scalarFunction" if self.aliases.contains(&function()) => "calls of functions by another than their own names",
            _ => return self.check(value),
        };
        let depth = self.within.entry(what).or_default();
        *depth += 1;
        if *depth > LEVELS {
            return Err(too_deep(what).with_hint("compute the innermost in a relation of its own"));
        }
        self.check(value)?;
        self.within.entry(what).and_modify(|depth| *depth -= 1);
        Ok(())
    }
}

/// The same reading of the parts of a name as the consumer's.
fn reference(names: &[Value]) -> Option<TableReference> {
    let mut names = names.iter().filter_map(Value::as_str);
    Some(match (names.next()?, names.next(), names.next()) {
        (table, None, _) => TableReference::bare(table),
        (schema, Some(table), None) => TableReference::partial(schema, table),
        (catalog, Some(schema), Some(table)) => TableReference::full(catalog, schema, table),
    })
}

impl Parsed {
    /// The plan over the tables that a state shows.
    pub async fn into_logical(self, state: &SessionState) -> Result<LogicalPlan> {
        // The consumer takes for granted that messages have the fields which a producer gives them.
        let consumed = AssertUnwindSafe(from_substrait_plan(state, &self.plan)).catch_unwind().await;
        let plan = consumed.map_err(|_| {
            Error::invalid("the Substrait plan lacks a field that it needs, or refers to one that is not there")
                .with_hint("send it as its producer made it")
        })?;
        Ok(plan?.transform_up_with_subqueries(filtered)?.data)
    }
}

/// The condition of a relation that reads, as a node of its own: the consumer gives it to the table without asking whether it is
/// taken there. It may be about columns that the relation then leaves out.
fn filtered(plan: LogicalPlan) -> DataFusionResult<Transformed<LogicalPlan>> {
    let mut scan = match plan {
        LogicalPlan::TableScan(scan) => scan,
        other => return Ok(Transformed::no(other)),
    };
    let Some(condition) = conjunction(std::mem::take(&mut scan.filters)) else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let rows = LogicalPlanBuilder::scan(scan.table_name, scan.source, None)?.filter(condition)?;
    let rows = match scan.projection {
        Some(_) => rows.project(scan.projected_schema.columns().into_iter().map(Expr::Column))?,
        None => rows,
    };
    Ok(Transformed::yes(rows.build()?))
}

#[cfg(test)]
mod tests {
    use datafusion_substrait::substrait::proto::expression::if_then::IfClause;
    use datafusion_substrait::substrait::proto::expression::{IfThen, RexType};
    use datafusion_substrait::substrait::proto::read_rel::{NamedTable, ReadType};
    use datafusion_substrait::substrait::proto::rel::RelType;
    use datafusion_substrait::substrait::proto::{CrossRel, Expression, FilterRel, PlanRel, ReadRel, Rel, plan_rel};

    use super::*;

    const CAPS: Caps = Caps { bytes: 1 << 20, tokens: 100_000, nesting: 1_000 };

    fn rel(rel_type: RelType) -> Rel {
        Rel { rel_type: Some(rel_type) }
    }

    fn table(names: &[&str]) -> Rel {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let read_type = Some(ReadType::NamedTable(NamedTable { names, ..NamedTable::default() }));
        rel(RelType::Read(Box::new(ReadRel { read_type, ..ReadRel::default() })))
    }

    fn bytes(rel: Rel) -> Vec<u8> {
        let relations = vec![PlanRel { rel_type: Some(plan_rel::RelType::Rel(rel)) }];
        Plan { relations, ..Plan::default() }.encode_to_vec()
    }

    #[test]
    fn tables_are_found_wherever_they_stand() {
        let (left, right) = (Some(Box::new(table(&["a"]))), Some(Box::new(table(&["c", "S", "t"]))));
        let plan = bytes(rel(RelType::Cross(Box::new(CrossRel { left, right, ..CrossRel::default() }))));
        assert_eq!(title(&plan, &CAPS), "SUBSTRAIT PLAN OF a, c.\"S\".t");
    }

    #[test]
    fn choices_within_choices_are_counted() {
        let nested = |levels: usize| {
            let mut choice = Expression::default();
            for _ in 0..levels {
                let then = IfClause { r#if: None, then: Some(choice) };
                let within = IfThen { ifs: vec![then.clone(), then], r#else: None };
                choice = Expression { rex_type: Some(RexType::IfThen(Box::new(within))) };
            }
            let filter =
                FilterRel { input: Some(Box::new(table(&["t"]))), condition: Some(Box::new(choice)), ..FilterRel::default() };
            parse(&bytes(rel(RelType::Filter(Box::new(filter)))), &CAPS)
        };
        nested(10).unwrap();
        insta::assert_snapshot!(nested(11).unwrap_err(), @"the statement nests more than 10 choices; compute the innermost in a relation of its own");
    }

    #[test]
    fn what_is_no_plan_or_too_large_is_refused() {
        let refusal = |bytes: &[u8]| parse(bytes, &Caps { bytes: 1_000, ..CAPS }).unwrap_err().to_string();
        insta::assert_snapshot!(refusal(b"SELECT 1"), @"the bytes are no Substrait plan: invalid varint; send a serialised substrait.Plan");
        insta::assert_snapshot!(refusal(b""), @"the bytes are no Substrait plan: it has no relation; send a serialised substrait.Plan");
        insta::assert_snapshot!(refusal(&[0; 1_001]), @"the Substrait plan has 1001 bytes, the limit is 1000; shorten it, or raise limits.statement");
        let mut deep = table(&["t"]);
        for _ in 0..60 {
            deep = rel(RelType::Filter(Box::new(FilterRel { input: Some(Box::new(deep)), ..FilterRel::default() })));
        }
        insta::assert_snapshot!(refusal(&bytes(deep)), @"the bytes are no Substrait plan: recursion limit reached; send a serialised substrait.Plan");
    }
}
