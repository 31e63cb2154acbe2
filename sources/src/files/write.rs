//! Rows for tables that are folders of Parquet files: each statement puts one file there, or none.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryConsumer;
use futures::TryStreamExt;
use nexus_flight_catalog::write::filled;
use nexus_flight_catalog::{Context, Error, IfExists, Kind, Put, Result, Target, Version};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::claim::{self, Held};
use super::format::Format;
use super::listing::{self, Listing, hidden};
use super::{FilesSource, heads};
use crate::stores::{Store, Upload, carried_out, unpacked};

/// A table that can be written, there or to be made.
struct Written {
    store: Arc<Store>,
    folder: Path,
    /// What is there now.
    there: Option<Listing>,
}

impl Written {
    fn version(&self) -> Option<Version> {
        self.there.as_ref().map(|listing| Version::Pinned(listing.version.clone()))
    }

    fn files(&self) -> impl Iterator<Item = Path> {
        self.there.iter().flat_map(|listing| listing.files.iter().map(|file| file.meta.location.clone()))
    }
}

impl FilesSource {
    /// Puts rows into a table, as `Source::ingest` wants it.
    pub(super) async fn put(&self, cx: &Context, target: &Target, mut rows: SendableRecordBatchStream) -> Result<u64> {
        self.known_schema(&target.schema)?;
        if !target.primary_key.is_empty() {
            return Err(Error::unsupported("files keep no primary key")
                .with_hint("declare primary_key for the table in the configuration, and leave it out here"));
        }
        let table = self.written(&target.table).await?;
        let begun = target.put(table.version().as_ref())?;
        let (columns, stored) = match (begun, &target.if_exists) {
            (Put::Keep, _) => return Ok(0),
            (Put::Append, _) | (Put::Replace, IfExists::Rewrite(_)) => {
                let columns = self.columns(target, &table, &rows.schema()).await?;
                (Arc::clone(&columns), columns)
            }
            (Put::Create | Put::Replace, _) => {
                self.free_columns(&target.table)?;
                (rows.schema(), unpacked(&rows.schema()))
            }
        };
        let name = claim::file_name();
        let by = table.folder.clone().join(name.as_str());
        let mut upload = Upload::begin(&table.store, by.clone(), stored)?;
        let memory = MemoryConsumer::new("a new file").register(&cx.memory);
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows() as u64;
            upload.write(&filled(&batch, &columns)?).await?;
            if memory.try_resize(upload.held()).is_err() {
                upload.flush().await?;
                memory.try_resize(upload.held())?;
            }
        }
        upload.flush().await?;
        let (own, target) = (self.clone(), target.clone());
        let made = carried_out(cx, async move { own.publish(&target, begun, &table, upload, &name).await }).await?;
        Ok(if made { count } else { 0 })
    }

    /// Makes an upload count as what it was begun for. Gives whether it does: another may have made a table that is kept.
    async fn publish(&self, target: &Target, begun: Put, table: &Written, upload: Upload, name: &str) -> Result<bool> {
        if begun == Put::Append {
            // Files that are added stand in nobody's way. A table that was dropped meanwhile does not come back, though.
            target.put(self.written(&target.table).await?.version().as_ref())?;
            return upload.close().await.map(|_| true);
        }
        let mut held = Held::take(&table.store, &table.folder, name).await?;
        let now = self.written(&target.table).await?;
        match target.put(now.version().as_ref())? {
            Put::Keep => return Ok(false),
            Put::Create if begun == Put::Create => {}
            Put::Replace if begun == Put::Replace => held.replaces(now.files()).await?,
            _ => return Err(meanwhile(target)),
        }
        held.decide(true);
        if let Err(error) = upload.close().await {
            // The store may have failed after the file was there.
            match table.store.objects().head(&table.folder.clone().join(name)).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    held.decide(false);
                    return Err(error);
                }
                Err(_) => return Err(error),
            }
        }
        held.finish().await;
        Ok(true)
    }

    /// Drops a table, as `Source::drop_table` wants it.
    pub(super) async fn drop_files(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        let (own, schema, table) = (self.clone(), schema.to_owned(), table.to_owned());
        carried_out(cx, async move { own.dropped(&schema, &table).await }).await
    }

    async fn dropped(&self, schema: &str, table: &str) -> Result<()> {
        self.known_schema(schema)?;
        let missing = || Error::not_found(format!("table \"{schema}.{table}\" does not exist"));
        let written = self.written(table).await?;
        if written.there.is_none() {
            return Err(missing());
        }
        self.free_columns(table)?;
        let mark = claim::drop_name();
        let mut held = Held::take(&written.store, &written.folder, &mark).await?;
        let now = self.written(table).await?;
        if now.there.is_none() {
            return Err(missing());
        }
        held.replaces(now.files()).await?;
        held.decide(true);
        let path = written.folder.clone().join(mark.as_str());
        let put = written.store.objects().put(&path, "dropped".into()).await;
        put.map_err(|cause| written.store.write_error(&cause, &path))?;
        held.finish().await;
        Ok(())
    }

    /// Where a table is or is to be. Errors: `Unsupported` where it is anything but a folder of Parquet files.
    async fn written(&self, table: &str) -> Result<Written> {
        let store = Arc::clone(self.store().await?);
        let declared = self.config.tables.get(table);
        let refused = |why: &str| {
            Err(Error::unsupported(format!("the table \"{table}\" cannot be written: {why}"))
                .with_hint("only a table that is a folder of Parquet files takes rows"))
        };
        let target = match self.target(&store, table, declared).await {
            Ok(target) => target,
            Err(error) if error.kind() == Kind::NotFound => {
                let folder = new_folder(table)?;
                if store.is_misnamed(&folder).await? {
                    return Err(Error::invalid(format!("\"{table}\" is there by a name in other letters"))
                        .with_hint("name it as it is listed, or take another name"));
                }
                listing::Target::Folder(folder)
            }
            Err(error) => return Err(error),
        };
        let folder = match &target {
            listing::Target::File(_) => return refused("it is one file"),
            listing::Target::Pattern(_) => return refused("it is the files that fit a pattern"),
            listing::Target::Folder(folder) => folder.clone(),
            listing::Target::Either(path) if listing::is_file(&store, path).await? => return refused("it is one file"),
            listing::Target::Either(path) => path.clone(),
        };
        store.stays_within(&folder).await?;
        let there = match listing::list(&store, table, &listing::Target::Folder(folder.clone()), declared).await {
            Ok(listing) => Some(listing),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(listing) = &there {
            if listing.format != Format::Parquet {
                return refused(&format!("its files are {}", listing.format.name()));
            }
            if !listing.partitions.is_empty() {
                return refused("its folders hold columns");
            }
        }
        Ok(Written { store, folder, there })
    }

    /// The columns that a file needs which is put beside those that are there.
    async fn columns(&self, target: &Target, table: &Written, rows: &SchemaRef) -> Result<SchemaRef> {
        let Some(listing) = &table.there else { return Err(meanwhile(target)) };
        let pinned = self.pinned(&table.store, listing);
        let shape = self.shape(&target.table, listing, &pinned, heads::Options { header: true, delimiter: b',' }).await?;
        match rows.fields().iter().find(|field| shape.columns.index_of(field.name()).is_err()) {
            Some(field) => Err(Error::precondition(format!("the table has no column \"{}\" any more", field.name()))
                .with_hint("send the statement again")
                .with_retryable(true)),
            None => Ok(Arc::clone(&shape.columns)),
        }
    }

    /// Errors: `Unsupported` where the configuration says what columns a table has: it would have them whatever is put there.
    fn free_columns(&self, table: &str) -> Result<()> {
        match self.config.tables.get(table) {
            Some(declared) if declared.columns.is_some() => {
                Err(Error::unsupported(format!("the columns of the table \"{table}\" are declared in the configuration"))
                    .with_hint("append rows, or take the declaration away first"))
            }
            _ => Ok(()),
        }
    }
}

fn meanwhile(target: &Target) -> Error {
    let Target { schema, table, .. } = target;
    Error::precondition(format!("the table \"{schema}.{table}\" was made or dropped while this statement ran"))
        .with_hint("send the statement again")
        .with_retryable(true)
}

/// The folder of a table that is not there yet. Errors: `Invalid` for a name that would not be found there again.
fn new_folder(table: &str) -> Result<Path> {
    let path = Path::parse(table).ok().filter(|path| path.as_ref() == table && path.parts().count() == 1);
    let path = path.filter(|_| !hidden(table) && !table.contains(['*', '?', '=']) && Format::of(table).is_none());
    path.ok_or_else(|| {
        Error::invalid(format!("\"{table}\" cannot be the name of a folder of files"))
            .with_hint("take a name without / * ? = that does not begin with . or _ and does not end like a file")
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use nexus_flight_catalog::{Context, Kind, Options, Principal};

    use crate::stores::heedless;

    #[tokio::test]
    async fn nothing_is_written_by_a_name_that_is_not_listed() {
        let (_, _, thread, _stays) = heedless();
        let values = serde_json::json!({ "location": "/proc" }).as_object().unwrap().clone();
        let source = (crate::files::SPEC.open)(&Options { catalog: "files".into(), values, ..Options::default() }).unwrap();
        let refused = source.drop_table(&Context::new(Principal::anonymous()), "main", &thread).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
    }
}
