//! Rows for tables: each statement is one commit, or none.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use delta_kernel::schema::StructType;
use delta_kernel::table_features::ColumnMappingMode;
use futures::TryStreamExt;
use nexus_flight_catalog::{Context, Error, IfExists, Kind, Put, Result, Target, Version};
use object_store::path::Path;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::commit::{Commit, now};
use super::features::{self, WITHOUT_ZONE};
use super::form::Form;
use super::log::{Logs, Pinned, log_of};
use super::made::{Making, needs_names};
use super::writing::{Writing, are_there};
use super::{DeltaSource, drops, types};
use crate::lake::{Files, Folder, Name, New, SIZE};
use crate::stores::{Created, carried_out};

/// How often a commit is tried whose version another one takes.
const TRIES: usize = 10;
/// After how many commits there is a checkpoint, unless the table says it.
const CHECKPOINT: u64 = 10;
/// The properties of a table whose files have other names for its columns.
const MODE: &str = "delta.columnMapping.mode";
const LAST_ID: &str = "delta.columnMapping.maxColumnId";

/// What is to become of a table.
struct Plan {
    logs: Arc<Logs>,
    table: Path,
    /// The version that it was planned for; none where there is no table yet.
    base: Option<Arc<Pinned>>,
    form: Arc<Form>,
    /// What the commit says of the table, before its files.
    actions: Vec<Value>,
    /// Whether the files that are there go.
    replaces: bool,
}

impl DeltaSource {
    /// Puts rows into a table, as `Source::ingest` wants it.
    pub(super) async fn put(&self, cx: &Context, target: &Target, mut rows: SendableRecordBatchStream) -> Result<u64> {
        as_it_is(&target.table)?;
        if !target.primary_key.is_empty() {
            return Err(Error::unsupported("Delta keeps no primary key").with_hint("leave it out"));
        }
        let (tables, logs) = self.written().await?;
        let there = there(tables, &logs, &target.schema, &target.table).await?;
        let version = there.as_ref().map(|there| Version::Pinned(there.version()));
        let begun = target.put(version.as_ref())?;
        let plan = match (begun, there) {
            (Put::Keep, _) => return Ok(0),
            (Put::Create, _) => made(tables, logs, target, &rows.schema()).await?,
            (Put::Append, Some(there)) => Plan::same(logs, there, &rows.schema(), false)?,
            (Put::Replace, Some(there)) if matches!(target.if_exists, IfExists::Rewrite(_)) => {
                Plan::same(logs, there, &rows.schema(), true)?
            }
            (Put::Replace, Some(there)) => Plan::replaced(logs, there, &rows.schema())?,
            (_, None) => return Err(meanwhile(target)),
        };
        let store = &plan.logs.lake.store;
        let mut files = Files::new(store, Writing::new(store, &plan.table, Arc::clone(&plan.form)), SIZE, &cx.memory);
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            files.write(&plan.form.rows(&batch)?).await?;
        }
        let files = files.finish().await?;
        if begun == Put::Append && files.is_empty() {
            return Ok(0);
        }
        // Waiting can be left; what comes after it cannot.
        let turn = plan.logs.turn(&plan.table).await;
        let target = target.clone();
        let committed = async move {
            let _turn = turn;
            plan.commit(&target, files).await
        };
        let made = carried_out(cx, committed).await?;
        Ok(if made { count } else { 0 })
    }

    /// Drops a table, as `Source::drop_table` wants it.
    pub(super) async fn drop_delta(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        as_it_is(table)?;
        let (tables, logs) = self.written().await?;
        let missing = || Error::not_found(format!("table \"{schema}.{table}\" does not exist"));
        let folder = tables.find(schema, table).await?.ok_or_else(missing)?;
        if folder.as_ref().is_empty() {
            return Err(Error::unsupported("the location of the catalog is this table, and stays")
                .with_hint("set the location to the folder above it, or remove the table by hand"));
        }
        let dropped = carried_out(cx, async move { dropped(&logs, &folder).await }).await;
        dropped.map_err(|error| if error.kind() == Kind::NotFound { missing() } else { error })
    }

    /// By what tables are placed that are written, and what reads their logs. Errors: `Unsupported` where they are read alone.
    async fn written(&self) -> Result<(&Folder, Arc<Logs>)> {
        let opened = self.opened().await?;
        Ok((opened.tables.written()?, Arc::clone(&opened.logs)))
    }
}

/// A table as it is now; none where it is not there.
async fn there(tables: &Folder, logs: &Logs, schema: &str, table: &str) -> Result<Option<Arc<Pinned>>> {
    let Some(folder) = tables.find(schema, table).await? else { return Ok(None) };
    match logs.latest(&folder).await {
        Ok(pinned) => Ok(Some(pinned)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A table that is made with the columns of rows.
async fn made(tables: &Folder, logs: Arc<Logs>, target: &Target, rows: &SchemaRef) -> Result<Plan> {
    let store = &logs.lake.store;
    let table = tables.place(&target.schema, &target.table).await?;
    drops::finish(store, &table).await?;
    drops::check_vacant(store, &table).await?;
    let is_mapped = needs_names(rows.fields());
    let mut making = Making::new(is_mapped.then_some(0));
    let columns = making.columns(rows.fields())?;
    let mut configuration = Map::new();
    if let Some(last) = making.last_id {
        configuration.insert(MODE.to_owned(), json!("name"));
        configuration.insert(LAST_ID.to_owned(), json!(last.to_string()));
    }
    let mode = if is_mapped { ColumnMappingMode::Name } else { ColumnMappingMode::None };
    let form = Form::new(&structure(&columns)?, mode, &[], &HashMap::new())?.casting(rows)?;
    let metadata = json!({ "metaData": {
        "id": Uuid::new_v4().to_string(),
        "format": { "provider": "parquet", "options": {} },
        "schemaString": columns.to_string(),
        "partitionColumns": [],
        "configuration": configuration,
        "createdTime": now(),
    } });
    let actions = vec![features::new(is_mapped, making.without_zone), metadata];
    Ok(Plan { logs, table, base: None, form: Arc::new(form), actions, replaces: false })
}

impl Plan {
    /// Rows for a table that keeps its columns. Errors: `Unsupported` for a table that is not written here, `Precondition` where it has
    /// not the columns of the rows.
    fn same(logs: Arc<Logs>, base: Arc<Pinned>, rows: &SchemaRef, replaces: bool) -> Result<Self> {
        let located = |error: Error| error.at(logs.lake.store.place(&base.table));
        features::check(&base.snapshot, replaces).map_err(located)?;
        let form = form_of(&base, &base.snapshot.schema()).map_err(located)?;
        if let Some(field) = rows.fields().iter().find(|field| form.columns.index_of(field.name()).is_err()) {
            return Err(Error::precondition(format!("the table has no column \"{}\" any more", field.name()))
                .with_hint("send the statement again")
                .with_retryable(true));
        }
        Ok(Self { table: base.table.clone(), logs, base: Some(base), form: Arc::new(form), actions: Vec::new(), replaces })
    }

    /// Rows that take the place of a table, with their columns. Errors: `Unsupported` for a table that is not written here, or does not
    /// take such columns.
    fn replaced(logs: Arc<Logs>, base: Arc<Pinned>, rows: &SchemaRef) -> Result<Self> {
        let located = |error: Error| error.at(logs.lake.store.place(&base.table));
        features::check(&base.snapshot, true).map_err(located)?;
        let (form, actions) = match is_alike(&base, rows)? {
            true => (form_of(&base, &base.snapshot.schema()), Vec::new()),
            false => {
                let (columns, actions) = changed(&base, rows).map_err(located)?;
                (changed_form(&base, &columns, &actions), actions)
            }
        };
        let form = form.map_err(located)?.casting(rows)?;
        Ok(Self { table: base.table.clone(), logs, base: Some(base), form: Arc::new(form), actions, replaces: true })
    }

    /// Makes the files of a statement count. Gives whether they do: another may have made a table that is kept.
    async fn commit(self, target: &Target, mut files: Vec<New<Value>>) -> Result<bool> {
        let commit = match (&self.base, self.replaces) {
            (None, _) => Commit::new("CREATE TABLE AS SELECT", "ErrorIfExists"),
            (Some(_), true) => Commit::new("WRITE", "Overwrite"),
            (Some(_), false) => Commit::new("WRITE", "Append"),
        };
        for _ in 0..TRIES {
            let (version, time, removals) = match &self.base {
                None => {
                    // Whoever drops another table of this name removes the files of this one too, or has.
                    if drops::mark(&self.logs.lake.store, &self.table).await?.is_some() || !are_there(&files).await? {
                        return Err(meanwhile(target));
                    }
                    (0, None, Vec::new())
                }
                Some(base) => {
                    let now = self.unchanged(target, base).await?;
                    let (time, removals) = self.logs.before(&now, self.replaces).await?;
                    (now.snapshot.version().saturating_add(1), time, removals)
                }
            };
            let added = files.iter().map(|new| new.told.clone());
            let actions: Vec<Value> = self.actions.iter().cloned().chain(removals).chain(added).collect();
            match commit.send(&self.logs.lake, &self.table, version, time, &actions).await {
                Created::Made => {
                    files.iter_mut().for_each(|new| new.made.keep());
                    self.checkpoint(version).await;
                    return Ok(true);
                }
                Created::Taken if self.base.is_some() => {}
                Created::Taken => {
                    let there = Version::Pinned(self.logs.latest(&self.table).await?.version());
                    return match target.put(Some(&there))? {
                        Put::Keep => Ok(false),
                        Put::Create | Put::Append | Put::Replace => Err(meanwhile(target)),
                    };
                }
                Created::Failed(error) => return Err(error),
                Created::Unknown(error) => {
                    files.iter_mut().for_each(|new| new.made.keep());
                    let hint = "the store gave no answer: look whether the rows are there before you send the statement again";
                    return Err(error.with_hint(hint).with_retryable(false));
                }
            }
        }
        Err(Error::precondition("other statements wrote to the table all the time")
            .with_hint("send the statement again")
            .with_retryable(true)
            .at(self.logs.lake.store.place(&self.table)))
    }

    /// The table as it is now, if the files are still right for it. Errors: `Precondition` where they are not.
    async fn unchanged(&self, target: &Target, base: &Pinned) -> Result<Arc<Pinned>> {
        let now = match self.logs.latest(&self.table).await {
            Err(error) if error.kind() == Kind::NotFound => return Err(meanwhile(target)),
            other => other?,
        };
        target.put(Some(&Version::Pinned(now.version())))?;
        let (before, after) = (base.snapshot.table_configuration(), now.snapshot.table_configuration());
        if before.metadata() == after.metadata() && before.protocol() == after.protocol() {
            return Ok(now);
        }
        Err(Error::precondition("the columns or properties of the table were changed while this statement ran")
            .with_hint("send the statement again")
            .with_retryable(true)
            .at(self.logs.lake.store.place(&self.table)))
    }

    /// Writes a checkpoint where one is due, so that readers need not read each commit. Without it they read the same.
    async fn checkpoint(&self, version: u64) {
        let interval = self.base.as_ref().and_then(|base| base.snapshot.table_properties().checkpoint_interval);
        if version == 0 || !version.is_multiple_of(interval.map_or(CHECKPOINT, |interval| interval.get())) {
            return;
        }
        if let Err(error) = self.logs.checkpoint(&self.table, version).await {
            tracing::warn!(%error, "a checkpoint of a table could not be written");
        }
    }
}

/// How rows are stored in a table as it is.
fn form_of(base: &Pinned, columns: &StructType) -> Result<Form> {
    let table = base.snapshot.table_configuration();
    let metadata = table.metadata();
    let form = Form::new(columns, table.column_mapping_mode(), metadata.partition_columns(), metadata.configuration())?;
    Ok(if features::is_clustered(&base.snapshot) { form.bounded() } else { form })
}

/// The same where its columns become these, and its metadata the one of these actions.
fn changed_form(base: &Pinned, columns: &StructType, actions: &[Value]) -> Result<Form> {
    let table = base.snapshot.table_configuration();
    let metadata = actions.iter().find_map(|action| action.get("metaData"));
    let partitions = metadata.and_then(|metadata| metadata.get("partitionColumns")).and_then(Value::as_array);
    let partitions: Vec<String> = partitions.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Form::new(columns, table.column_mapping_mode(), &partitions, table.metadata().configuration())
}

/// Whether a table has the columns of rows already.
fn is_alike(base: &Pinned, rows: &SchemaRef) -> Result<bool> {
    let wanted = structure(&Making::new(None).columns(rows.fields())?)?;
    let (there, _) = types::shape(&base.snapshot.schema(), ColumnMappingMode::None)?;
    let (wanted, _) = types::shape(&wanted, ColumnMappingMode::None)?;
    let bare = |schema: &Schema| -> Vec<(String, DataType)> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    Ok(bare(&there) == bare(&wanted))
}

/// The columns of rows as those of a table that has others, and the actions that give it these.
fn changed(base: &Pinned, rows: &SchemaRef) -> Result<(StructType, Vec<Value>)> {
    let table = base.snapshot.table_configuration();
    let metadata = table.metadata();
    let refused = |why: &str| {
        Error::unsupported(format!("the table cannot get other columns: {why}")).with_hint("drop the table, and make it again")
    };
    if features::is_clustered(&base.snapshot) {
        return Err(refused("its files are ordered by some of those that it has (clustering)"));
    }
    let last_id = match table.column_mapping_mode() {
        ColumnMappingMode::None if needs_names(rows.fields()) => {
            return Err(refused("some names hold characters that its files do not take"));
        }
        ColumnMappingMode::None => None,
        ColumnMappingMode::Id | ColumnMappingMode::Name => {
            let last = metadata.configuration().get(LAST_ID).and_then(|last| last.parse::<i64>().ok());
            Some(last.ok_or_else(|| Error::data(format!("the table does not tell {LAST_ID}")))?)
        }
    };
    let mut making = Making::new(last_id);
    let columns = making.columns(rows.fields())?;
    let is_partition = |name: &String| {
        let field = rows.fields().iter().find(|field| field.name() == name);
        field.is_some_and(|field| !matches!(field.data_type(), DataType::Binary) && !field.data_type().is_nested())
    };
    let partitions = metadata.partition_columns();
    let keeps = partitions.len() < rows.fields().len() && partitions.iter().all(is_partition);
    let partitions = if keeps { partitions } else { &[] };
    let mut changed = serde_json::to_value(metadata)
        .map_err(|cause| Error::internal("the metadata of a table cannot be written").caused_by(cause))?;
    if let Some(parts) = changed.as_object_mut() {
        parts.insert("schemaString".to_owned(), json!(columns.to_string()));
        parts.insert("partitionColumns".to_owned(), json!(partitions));
        // They name columns that are not there any more.
        let configuration = metadata.configuration().iter().filter(|(key, _)| *key != "delta.dataSkippingStatsColumns");
        let mut configuration: Map<String, Value> = configuration.map(|(key, value)| (key.clone(), json!(value))).collect();
        configuration.extend(making.last_id.map(|last| (LAST_ID.to_owned(), json!(last.to_string()))));
        parts.insert("configuration".to_owned(), Value::Object(configuration));
        parts.retain(|_, value| !value.is_null());
    }
    let protocol = if making.without_zone { features::with(table.protocol(), WITHOUT_ZONE) } else { None };
    let actions = protocol.into_iter().chain([json!({ "metaData": changed })]).collect();
    Ok((structure(&columns)?, actions))
}

/// Columns as the kernel knows them.
fn structure(columns: &Value) -> Result<StructType> {
    serde_json::from_value(columns.clone()).map_err(|cause| {
        Error::unsupported(format!("a table cannot have these columns: {cause}")).with_hint("rename them, or cast them")
    })
}

async fn dropped(logs: &Logs, table: &Path) -> Result<()> {
    let commit = Commit::new("DROP TABLE", "Overwrite");
    for _ in 0..TRIES {
        let now = match logs.latest(table).await {
            Err(error) if error.kind() == Kind::NotFound => {
                // What somebody has dropped before, and not removed.
                drops::finish(&logs.lake.store, table).await?;
                return Err(error);
            }
            other => other?,
        };
        let version = now.snapshot.version().saturating_add(1);
        match commit.send(&logs.lake, table, version, None, &drops::actions()).await {
            Created::Made => {
                let mark = log_of(table).join(format!("{version:020}.json"));
                drops::clean(&logs.lake.store, table, &mark).await;
                return Ok(());
            }
            Created::Taken => {}
            Created::Failed(error) | Created::Unknown(error) => return Err(error),
        }
    }
    Err(Error::precondition("other statements wrote to the table all the time")
        .with_hint("send the statement again")
        .with_retryable(true)
        .at(logs.lake.store.place(table)))
}

/// Errors: `Unsupported` for a name that means a table at another time, or what is known about it.
fn as_it_is(table: &str) -> Result<()> {
    match Name::parse(table) {
        Name::Now(_) => Ok(()),
        Name::At(of, _) | Name::About(of, _) => {
            Err(Error::unsupported(format!("\"{table}\" is told of the table \"{of}\", and cannot be written"))
                .with_hint(format!("write to \"{of}\"; no table has @ or $ in its name")))
        }
    }
}

fn meanwhile(target: &Target) -> Error {
    let Target { schema, table, .. } = target;
    Error::precondition(format!("the table \"{schema}.{table}\" was made or dropped while this statement ran"))
        .with_hint("send the statement again")
        .with_retryable(true)
}
