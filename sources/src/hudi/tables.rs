//! The tables of a location: each at the newest state, or at one that a name means.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;

use super::changes::Changes;
use super::commits::{self, Commits};
use super::merge::Merging;
use super::partitions::Partitions;
use super::properties::{Properties, refused};
use super::slices::Files;
use super::timeline::Timeline;
use super::types;
use crate::lake::{Floats, Lake, LakeTable, Snapshot};

/// How often a table is looked at that is another at the end than at the beginning.
const TRIES: usize = 3;
/// The memory that lists of files may take.
const KEPT: u64 = 64 * 1024 * 1024;

/// The tables of one catalog, with what was read of them.
pub(super) struct Tables {
    lake: Arc<Lake>,
    /// Whether log files are left out, so that rows are those of the last compaction.
    optimised: bool,
    commits: Commits,
    read: moka::future::Cache<(Path, String), Arc<State>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tables({:?})", self.lake)
    }
}

/// A table at an instant.
#[derive(Debug)]
struct State {
    /// The files whose rows are all that they hold.
    snapshot: Arc<Snapshot>,
    /// Those with log files, where there are any.
    merging: Option<Arc<Merging>>,
}

/// What of a table a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When<'a> {
    Now,
    /// As it was.
    At(&'a str),
    /// What was written after the one and by the other.
    Between(&'a str, &'a str),
}

impl Tables {
    pub(super) fn new(lake: Arc<Lake>, optimised: bool) -> Self {
        let weigh = |_: &(Path, String), state: &Arc<State>| {
            // A file has a path and a name, and each column of it two bounds with their flags.
            let each = 400 + 64 * state.snapshot.bounds.len();
            u32::try_from(state.snapshot.files.len().saturating_mul(each)).unwrap_or(u32::MAX)
        };
        let read = moka::future::Cache::builder().max_capacity(KEPT).weigher(weigh).build();
        Self { lake, optimised, commits: Commits::new(), read }
    }

    /// The instants of the table in a folder.
    pub(super) async fn timeline(&self, folder: &Path) -> Result<Timeline> {
        let properties = Properties::read(&self.lake, folder).await?;
        Timeline::read(&self.lake, folder, &properties).await
    }

    /// The table in a folder, and the name of its version. `catalog` and `name` are those by which the statement knows it.
    /// Errors: `NotFound` for a state that is not there, with the newest ones; `Unsupported` for what is not read; `Data`.
    pub(super) async fn table(
        &self,
        catalog: &str,
        name: &str,
        folder: &Path,
        when: When<'_>,
    ) -> Result<(Arc<dyn TableProvider>, String)> {
        let placed = |error: Error| error.at(self.lake.store.place(folder));
        for _ in 0..TRIES {
            let properties = Properties::read(&self.lake, folder).await?;
            let timeline = Timeline::read(&self.lake, folder, &properties).await?;
            let by = match when {
                When::Now => timeline.commits().next_back().map(|commit| commit.requested.clone()),
                When::At(when) | When::Between(_, when) => Some(timeline.at(when).map_err(placed)?.requested.clone()),
            };
            let read = if self.optimised && properties.is_merge_on_read { ":optimised" } else { "" };
            let at = by.as_deref().unwrap_or("-");
            let version = format!("{at}:{}:{}{read}", timeline.digest(), properties.digest);
            let Some(state) = self.state(folder, &properties, &timeline, by.as_deref(), &version).await? else { continue };
            let table = format!("{folder}\0{name}");
            let plain = LakeTable::new(Arc::clone(&self.lake), catalog, &table, &version, Arc::clone(&state.snapshot))?;
            let provider: Arc<dyn TableProvider> = match &state.merging {
                Some(merging) => Arc::new(Merged { plain, merging: Arc::clone(merging) }),
                None => Arc::new(plain),
            };
            let When::Between(from, _) = when else { return Ok((provider, version)) };
            if self.optimised && properties.is_merge_on_read {
                let error = refused("changes of a table that is merged on read, but for those in its log files,".to_owned());
                return Err(placed(error.with_hint("ask a catalog with read = \"snapshot\"")));
            }
            if !properties.has_meta {
                return Err(placed(refused(
                    "changes of a table without Hudi's columns (hoodie.populate.meta.fields)".to_owned(),
                )));
            }
            return Ok((Arc::new(Changes::new(provider, timeline.by(from).map_err(placed)?)), version));
        }
        Err(placed(
            Error::new(Kind::Precondition, "the table was written to each time that it was looked at")
                .with_hint("run the statement again")
                .with_retryable(true),
        ))
    }

    /// A table at an instant; none where it was written to meanwhile. Statements that want it at once read it once; where the one that
    /// reads is cancelled, another does.
    async fn state(
        &self,
        folder: &Path,
        properties: &Properties,
        timeline: &Timeline,
        by: Option<&str>,
        version: &str,
    ) -> Result<Option<Arc<State>>> {
        let key = (folder.clone(), version.to_owned());
        // What is none is not kept, as errors are not.
        let reading = async {
            match self.read_state(folder, properties, timeline, by).await {
                Ok(Some(state)) => Ok(state),
                Ok(None) => Err(None),
                Err(error) => Err(Some(error)),
            }
        };
        match self.read.try_get_with(key, reading).await {
            Ok(state) => Ok(Some(state)),
            Err(none) => match &*none {
                None => Ok(None),
                Some(error) => Err(error.copied()),
            },
        }
    }

    async fn read_state(
        &self,
        folder: &Path,
        properties: &Properties,
        timeline: &Timeline,
        by: Option<&str>,
    ) -> Result<Option<Arc<State>>> {
        let placed = |error: Error| error.at(self.lake.store.place(folder));
        let said = self.commits.read(&self.lake, timeline, properties.has_completion, &properties.digest).await?;
        let schema = commits::schema(&said).map_err(placed)?.or_else(|| properties.create_schema());
        let schema = schema.ok_or_else(|| {
            placed(Error::data("neither a commit nor a property of the table tells its columns").with_hint("write to the table"))
        })?;
        let (schema, columns) = types::shape(schema, properties.has_meta).map_err(placed)?;
        let (plain, logged) = match by {
            None => (Vec::new(), Vec::new()),
            Some(by) => {
                let files = Files::list(&self.lake, folder, &timeline.files()).await?;
                let now = Timeline::read(&self.lake, folder, properties).await?;
                if !now.confirms(timeline, by) {
                    return Ok(None);
                }
                match self.whole(folder, &files, &said, by) {
                    // What was the newest state is none any more, and may be cleaned up.
                    Err(error) if error.kind() == Kind::Data && now.digest() != timeline.digest() => return Ok(None),
                    whole => whole?,
                }
                let replaced = commits::replaced(&said, by);
                files.slices(by, &replaced, self.optimised).map_err(placed)?
            }
        };
        let partitions = Partitions::new(properties);
        let folders: Vec<&str> = plain.iter().map(|file| file.name.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
        let bounds = partitions.bounds(&schema, &folders)?;
        let columns = Arc::new(columns.with_floats(Floats::ByText));
        let snapshot =
            Snapshot { schema: Arc::clone(&schema), columns, constants: Vec::new(), files: plain, bounds, lacking: None };
        let merging = match by {
            Some(by) if !logged.is_empty() => {
                properties.mergeable().and_then(|()| types::known_to_the_crate(&schema)).map_err(placed)?;
                if !commits::newest_has_schema(&said) {
                    let error = refused("log files of a table whose newest commit does not tell its columns".to_owned());
                    return Err(placed(error.with_hint("write to the table, or compact it")));
                }
                let folders: Vec<&str> = logged.iter().map(|logged| logged.slice.partition_path.as_str()).collect();
                let bounds = partitions.bounds(&schema, &folders)?;
                match Merging::open(&self.lake, folder, timeline, by, &schema, logged, bounds).await? {
                    Some(merging) if merging.is_of(properties).map_err(placed)? => Some(Arc::new(merging)),
                    _ => return Ok(None),
                }
            }
            _ => None,
        };
        Ok(Some(Arc::new(State { snapshot: Arc::new(snapshot), merging })))
    }

    /// Errors: `Data` where a file is missing that the table has now; `NotFound` where those of an earlier state are cleaned up.
    fn whole(&self, folder: &Path, files: &Files, said: &[Arc<commits::Commit>], by: &str) -> Result<()> {
        let missing = commits::missing(said, by, |write| files.has(&write.path, write.size));
        let is_newest = said.last().is_none_or(|last| last.requested == by);
        match missing {
            Some(path) if is_newest => {
                let message = format!("a commit of the table wrote the file {path}, and it is not there as a whole");
                Err(Error::data(message)
                    .with_hint("it was removed or cut by hand; restore the file, or the table to an earlier savepoint")
                    .at(self.lake.store.place(folder)))
            }
            None if !commits::cleaned(said, by, |group, since| files.has_group(group, since, by)) => Ok(()),
            _ => Err(Error::not_found(format!("the files of the table as of {by} are cleaned up"))
                .with_hint("name a later commit; \"$timeline\" has them")
                .at(self.lake.store.place(folder))),
        }
    }
}

/// A table some of whose file slices have log files: those are merged, and all others scanned.
#[derive(Debug)]
struct Merged {
    plain: LakeTable,
    merging: Arc<Merging>,
}

#[async_trait]
impl TableProvider for Merged {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.plain.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // What is merged is filtered by the plan.
        self.plain.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.plain.schema().fields().len()).collect());
        let merged = self.merging.scan(&wanted, filters, state.config().target_partitions())?;
        let plain = self.plain.scan(state, projection, filters, limit).await?;
        UnionExec::try_new(std::iter::once(plain).chain(merged).collect())
    }
}
