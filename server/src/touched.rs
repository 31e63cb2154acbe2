//! What a statement reads and writes, as its optimised plan says: for the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use nexus_flight_catalog::{Result, TableName, Tables};

use crate::plan::Planned;
use crate::session::Session;
use crate::{parameters, write};

/// Tables by their full names, and where the statement ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Where it ran; empty where it did not.
    pub route: &'static str,
    /// The tables that it reads, each with the columns that are looked at; shared with all who are given the same answer.
    pub reads: Arc<BTreeMap<String, BTreeSet<String>>>,
    /// The table that it writes.
    pub writes: Option<String>,
}

/// Where it is told what a statement touches; nowhere, where nobody wants to know.
pub type Telling = Option<Arc<Mutex<Touched>>>;

/// Tells what the plans of a statement touch.
#[derive(Debug)]
pub struct Tell {
    telling: Telling,
    tables: Tables,
    session: Session,
}

impl Tell {
    /// Of a statement.
    pub fn of(planned: &Planned) -> Self {
        let Planned { query, tables, .. } = planned;
        Self { telling: query.touched.clone(), tables: tables.clone(), session: query.session.clone() }
    }

    /// The tables that an optimised plan reads here.
    pub fn reads(&self, route: &'static str, plan: &LogicalPlan) -> Result<()> {
        let Some(telling) = &self.telling else { return Ok(()) };
        let mut touched = telling.lock().unwrap_or_else(PoisonError::into_inner);
        touched.route = route;
        let reads = Arc::make_mut(&mut touched.reads);
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let written = TableName::resolve(&scan.table_name, &self.session.catalog, &self.session.schema);
                let name = match self.tables.get(&written) {
                    Some((name, _)) => name.to_string(),
                    // Rows that are made by a function, or come with the statement, are of no table.
                    None if written.table.ends_with("()") || [parameters::ROWS, write::ROWS].contains(&&*written.table) => {
                        return Ok(TreeNodeRecursion::Continue);
                    }
                    None => written.to_string(),
                };
                reads.entry(name).or_default().extend(columns(scan));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// The table that is written.
    pub fn writes(&self, route: &'static str, name: &TableName) {
        let Some(telling) = &self.telling else { return };
        let mut touched = telling.lock().unwrap_or_else(PoisonError::into_inner);
        (touched.route, touched.writes) = (route, Some(name.to_string()));
    }
}

/// What was told, or would have been.
pub fn told(telling: &Telling) -> Touched {
    telling.as_ref().map(|telling| telling.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// Tells what was told when the answer was made that is given again.
pub fn tell_again(telling: &Telling, touched: &Touched) {
    if let Some(telling) = telling {
        *telling.lock().unwrap_or_else(PoisonError::into_inner) = Touched { route: "cache", ..touched.clone() };
    }
}

/// The columns that are read, and those that conditions within the scan look at.
fn columns(scan: &TableScan) -> impl Iterator<Item = String> {
    let read = scan.projected_schema.fields().iter().map(|field| field.name().clone());
    let compared = scan.filters.iter().flat_map(|filter| filter.column_refs()).map(|column| column.name.clone());
    read.chain(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_again_is_shared() {
        let reads = Arc::new(BTreeMap::from([("a.b.c".to_owned(), BTreeSet::new())]));
        let telling: Telling = Some(Arc::default());
        tell_again(&telling, &Touched { route: "datafusion", reads: Arc::clone(&reads), writes: None });
        let again = told(&telling);
        assert!(again.route == "cache" && Arc::ptr_eq(&again.reads, &reads));
    }
}
