//! What was looked up lately of the tables of a statement that comes again, so that an answer which is kept can be found, and given, without
//! asking their sources. It has no rows: whoever reads some looks up anew what is read.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Constraints;
use datafusion::datasource::TableType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use nexus_flight_catalog::policy::Guarded;
use nexus_flight_catalog::{Error, Keys, Resolved, TableName, Tables, Version, Wanted};

use crate::writes::Writes;

/// Says for how long what was looked up is taken for what is so.
#[derive(Debug)]
pub struct Lookups {
    check: Duration,
    writes: Arc<Writes>,
}

/// What was looked up for a statement, as its user sees it.
#[derive(Debug, Clone)]
pub struct Known {
    /// From before the sources were asked.
    began: Instant,
    /// Without their rows.
    tables: Tables,
}

impl Lookups {
    /// It is so for that long, never where it is zero, and not after one of these writes.
    pub fn new(check: Duration, writes: Arc<Writes>) -> Self {
        Self { check, writes }
    }

    /// Whether it is never so.
    pub fn is_off(&self) -> bool {
        self.check.is_zero()
    }

    /// What is kept of a look-up that began then; none where a table has no version, or there is nothing to look up.
    pub fn known(&self, tables: &Tables, began: Instant) -> Option<Known> {
        if self.is_off() {
            return None;
        }
        let of_table = |(written, name, table): (&TableName, &TableName, &Resolved)| {
            Some((written.clone(), (name.clone(), without_rows(table)?)))
        };
        let known: BTreeMap<_, _> = tables.written().map(of_table).collect::<Option<_>>()?;
        (!known.is_empty()).then(|| Known { began, tables: Tables::new(known) })
    }

    /// The tables, where they are taken to be as they were.
    pub fn tables(&self, known: Known, wanted: &[Wanted]) -> Option<Tables> {
        // A name may mean another table by now.
        let changed = self.writes.changed(wanted.iter().flat_map(|wanted| &wanted.places));
        known.holds(Instant::now(), self.check, changed).then_some(known.tables)
    }
}

impl Known {
    /// Whether it began later than another one.
    pub fn is_after(&self, other: &Self) -> bool {
        self.began > other.began
    }

    /// Whether it is taken for what is so now, for so long, where something that it hangs on was changed last then: a look-up that was under
    /// way meanwhile may have missed it.
    fn holds(&self, now: Instant, check: Duration, changed: Option<Instant>) -> bool {
        changed.is_none_or(|changed| changed < self.began) && now.saturating_duration_since(self.began) <= check
    }
}

/// What is known of a table besides its rows; none where it has no version, or is made of other tables.
fn without_rows(table: &Resolved) -> Option<Resolved> {
    let provider = &table.provider;
    if table.version == Version::Unknown || provider.get_logical_plan().is_some() {
        return None;
    }
    let (schema, kind) = (provider.schema(), provider.table_type());
    let constraints = provider.constraints().cloned().unwrap_or_default();
    let columns: Arc<dyn TableProvider> = Arc::new(Columns { schema, kind, constraints });
    let provider: Arc<dyn TableProvider> = match provider.as_any().downcast_ref::<Guarded>() {
        Some(guarded) => Arc::new(guarded.over(columns)),
        None => columns,
    };
    Some(Resolved { provider, version: table.version.clone(), keys: Keys::default() })
}

/// The columns of a table, for planning.
#[derive(Debug)]
struct Columns {
    schema: SchemaRef,
    kind: TableType,
    constraints: Constraints,
}

#[async_trait]
impl TableProvider for Columns {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("rows are read of a table of which only the columns are known").into())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::datasource::empty::EmptyTable;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn name() -> TableName {
        TableName::new("c", "s", "t")
    }

    fn tables(version: Version) -> Tables {
        let provider = Arc::new(EmptyTable::new(Arc::new(Schema::empty())));
        let table = Resolved { provider, version, keys: Keys::default() };
        Tables::new([(name(), (name(), table))].into())
    }

    fn pinned() -> Tables {
        tables(Version::Pinned("1".to_owned()))
    }

    #[test]
    fn it_holds_for_the_interval_and_until_something_changes() {
        let began = Instant::now();
        let known = Known { began, tables: Tables::default() };
        let holds = |after: Duration, changed| known.holds(began + after, HOUR, changed);
        assert!(holds(HOUR, None));
        assert!(!holds(HOUR + Duration::from_nanos(1), None));
        assert!(holds(HOUR, began.checked_sub(Duration::from_nanos(1))));
        // Both at once, or the change in between: it may not have been seen.
        assert!(!holds(HOUR, Some(began)));
        assert!(!holds(HOUR, Some(began + HOUR)));
    }

    #[test]
    fn what_has_no_version_or_no_table_is_not_known() {
        let lookups = Lookups::new(HOUR, Arc::default());
        let known = |tables: &Tables| lookups.known(tables, Instant::now()).is_some();
        assert!(known(&pinned()));
        assert!(!known(&tables(Version::Unknown)));
        assert!(!known(&Tables::default()));
        assert!(Lookups::new(Duration::ZERO, Arc::default()).known(&pinned(), Instant::now()).is_none());
    }

    #[test]
    fn what_is_written_given_up_or_opened_anew_is_looked_up_again() {
        let writes = Arc::new(Writes::default());
        let lookups = Lookups::new(HOUR, Arc::clone(&writes));
        let wanted =
            [Wanted { written: name(), places: vec![TableName::new("c", "b", "t"), name()], required: true, native: None }];
        let (of_name, beside) = (name(), TableName::new("c", "s", "made of the same rows"));
        let changes: [&dyn Fn(); 5] =
            [&|| writes.wrote(&of_name), &|| writes.wrote(&beside), &|| writes.committed("c"), &|| writes.opened("c"), &|| {
                writes.governed()
            }];
        for change in changes {
            let known = lookups.known(&pinned(), Instant::now()).unwrap();
            assert!(lookups.tables(known.clone(), &wanted).is_some());
            change();
            assert!(lookups.tables(known, &wanted).is_none());
        }
    }
}
