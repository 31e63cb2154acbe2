//! Rows for the end of a table: files are written first, and then one snapshot more has them all (Iceberg specification, Commit
//! Conflict Resolution and Retry). Files of a statement that fails are removed.

mod change;
mod columns;
mod commit;
mod files;
mod manifest;
mod metrics;
mod parts;

use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryPool;
use futures::TryStreamExt;
use nexus_flight_catalog::{Context, Error, IfExists, IfMissing, Result, Target};
use object_store::ObjectStoreExt;
use serde_json::Value;

use super::catalog::{Catalog, Found};
use super::table::{Table, when_whole};
use super::{IcebergSource, SPEC};
use crate::lake::{Files, Lake, Name, SIZE};
use crate::stores::{Made, carried_out};

pub(super) use change::Change;
use columns::Columns;
use commit::Append;
use files::DataFiles;
use parts::Parting;
pub(super) use parts::transformed;

/// What is refused to who wants more than to put rows into a table that is there.
const MORE: &str = "making and replacing tables";

impl IcebergSource {
    /// Puts rows behind those of a table, as `Source::ingest` wants it.
    pub(super) async fn append(&self, cx: &Context, target: &Target, mut rows: SendableRecordBatchStream) -> Result<u64> {
        let Target { schema, table: name, if_missing, if_exists, .. } = target;
        if *if_exists != IfExists::Append {
            return Err(SPEC.ingest_refusal(MORE));
        }
        if let Some(table) = Name::parse(name).about() {
            return Err(Error::unsupported(format!("\"{name}\" is about the table \"{table}\" and takes no rows"))
                .with_hint(format!("name \"{table}\" itself")));
        }
        let catalog = Arc::clone(self.opened().await?);
        let (found, table, whole) = match now(catalog.as_ref(), schema, name).await? {
            Some(found) => found,
            None if *if_missing == IfMissing::Create => return Err(SPEC.ingest_refusal(MORE)),
            None => return Err(Error::not_found(format!("table \"{schema}.{name}\" does not exist"))),
        };
        let place = |error: Error| error.at(found.lake.store.place(&found.current.path));
        if whole.get("table-uuid").is_none_or(Value::is_null) {
            return Err(place(unwritten("it has no UUID, by which it could be told from another of its name")));
        }
        catalog.check_commit(&found, &table).map_err(place)?;
        let mut files = files(&found.lake, &table, &rows, &cx.memory).map_err(place)?;
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            files.write(&batch).await?;
        }
        let files = files.finish().await?;
        if files.is_empty() {
            return Ok(0);
        }
        let append = Append { catalog, schema: schema.clone(), name: name.clone(), table, files };
        carried_out(cx, append.commit()).await?;
        Ok(count)
    }
}

/// A table as it is now, with all that its file of metadata says; none where it is not there. No row goes behind a state that is older
/// than a file that is not whole. Errors: those of the catalog, and of reading the file.
async fn now(catalog: &dyn Catalog, schema: &str, name: &str) -> Result<Option<(Found, Table, Value)>> {
    let look = || async move {
        let Some(found) = catalog.find(schema, name).await? else { return Ok(None) };
        let (table, whole) = Table::read_whole(&found.lake, &found.current.path).await?;
        Ok::<_, Error>(Some((found, table, whole)))
    };
    when_whole(look).await
}

/// What makes files of these rows. Errors: `Unsupported` where the table wants what is not written here; `Precondition` where it has
/// other columns by now; `Denied` where its files are not in the location.
fn files(
    lake: &Arc<Lake>,
    table: &Table,
    rows: &SendableRecordBatchStream,
    pool: &Arc<dyn MemoryPool>,
) -> Result<Files<DataFiles>> {
    let (metadata, given) = (&table.metadata, rows.schema());
    let property = |name: &str| metadata.properties().get(name).map(String::as_str);
    if let Some(format) = property("write.format.default").filter(|format| !format.eq_ignore_ascii_case("parquet")) {
        return Err(unwritten(&format!("its files are to be {format} (write.format.default), and only Parquet is written")));
    }
    let schema = metadata.current_schema();
    let spec = metadata.default_partition_spec();
    let known = schema.as_struct().fields();
    if let Some(field) = given.fields().iter().find(|field| known.iter().all(|known| known.name != *field.name())) {
        return Err(Error::precondition(format!("the table has no column \"{}\" any more", field.name()))
            .with_hint("send the statement again")
            .with_retryable(true));
    }
    let mut left_out = known.iter().filter(|known| given.field_with_name(&known.name).is_err());
    if let Some(field) = left_out.find(|known| known.write_default.is_some()) {
        return Err(Error::unsupported(format!("the default of the column \"{}\" is not written here", field.name))
            .with_hint("give a value for it in every row"));
    }
    let (columns, parting) = (Columns::of(schema)?, Parting::of(spec, schema)?);
    let folder = folder(table, "write.data.path", "data");
    lake.inside(&folder)?;
    lake.inside(&folder_of_metadata(table))?;
    let size = property("write.target-file-size-bytes").and_then(|size| size.parse::<usize>().ok()).filter(|size| *size > 0);
    let (lake, schema, spec) = (Arc::clone(lake), schema.clone(), spec.spec_id());
    let store = Arc::clone(&lake.store);
    Ok(Files::new(&store, DataFiles { lake, columns, parting, schema, spec, folder }, size.unwrap_or(SIZE), pool))
}

/// The address of a folder of a table, which a property may say.
fn folder(table: &Table, property: &str, name: &str) -> String {
    match table.metadata.properties().get(property) {
        Some(folder) => folder.trim_end_matches('/').to_owned(),
        None => format!("{}/{name}", table.metadata.location().trim_end_matches('/')),
    }
}

fn folder_of_metadata(table: &Table) -> String {
    folder(table, "write.metadata.path", "metadata")
}

/// Puts a file of metadata where only this statement knows of it. Errors: those of the store.
pub(super) async fn put(lake: &Lake, address: &str, bytes: Bytes) -> Result<Made> {
    let path = lake.inside(address)?;
    lake.store.stays_within(&path).await?;
    let made = Made::new(&lake.store, path.clone());
    lake.store.objects().put(&path, bytes.into()).await.map_err(|cause| lake.store.write_error(&cause, &path))?;
    Ok(made)
}

/// Why a table takes no rows.
fn unwritten(why: &str) -> Error {
    Error::unsupported(format!("this table takes no rows here: {why}")).with_hint("the page of the connector says which do")
}

#[cfg(test)]
mod tests;
