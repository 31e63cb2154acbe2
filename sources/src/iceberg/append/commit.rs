//! Makes new files a part of a table, after whatever else has become one meanwhile.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iceberg::spec::{DataFile, ManifestFile};
use nexus_flight_catalog::{Error, Kind, Result};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::change::{Change, Snapshot};
use super::{folder_of_metadata, manifest, now, put};
use crate::iceberg::catalog::{Catalog, Found, Outcome};
use crate::iceberg::manifests;
use crate::iceberg::table::Table;
use crate::lake::New;
use crate::stores::Made;

/// How often a commit is tried.
const TRIES: u32 = 8;
/// How long is waited before the second try, and twice as long before each after it.
const WAIT: Duration = Duration::from_millis(50);

/// Files for the end of a table.
pub(super) struct Append {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) schema: String,
    pub(super) name: String,
    /// The state that they were written for.
    pub(super) table: Table,
    pub(super) files: Vec<New<DataFile>>,
}

/// What was written of a statement besides its rows.
#[derive(Default)]
struct Written {
    /// The manifest of its files.
    manifest: Option<(ManifestFile, Made)>,
    /// The lists of manifests, with their addresses: one for each try.
    lists: Vec<(String, Made)>,
}

impl Append {
    /// Makes one snapshot of them. Errors: `Precondition` where the table has changed so that they do not fit any more, or is changed
    /// all the time; `Unavailable` where it is not known what has become of the snapshot.
    pub(super) async fn commit(mut self) -> Result<()> {
        let (first, second) = Uuid::new_v4().as_u64_pair();
        let id = i64::try_from((first ^ second) >> 1).map_err(|_| Error::internal("a snapshot has no number"))?;
        let (mut written, mut wait) = (Written::default(), WAIT);
        for attempt in 0..=TRIES {
            if attempt > 0 {
                // Not all who wait come back at the same time.
                tokio::time::sleep(wait + Duration::from_micros(second % 50_000)).await;
                wait *= 2;
            }
            let (found, table, whole) = match self.now().await {
                Ok(now) => now,
                // Some server may have called that a conflict which was our own commit, sent again on the way.
                Err(error) if attempt > 0 && error.kind() != Kind::Precondition => {
                    self.keep(&mut written, |_| true);
                    return Err(doubtful(error));
                }
                Err(error) => return Err(error),
            };
            if self.is_done(&table, id, &mut written) {
                return Ok(());
            }
            self.check_fits(&found, &table)?;
            if attempt == TRIES {
                break;
            }
            let change = self.change(&found, &table, whole, id, &mut written).await?;
            match self.catalog.commit(&self.schema, &self.name, &found, &change).await? {
                Outcome::Conflict => {}
                Outcome::Done => {
                    let last = written.lists.last().map(|(address, _)| address.clone()).unwrap_or_default();
                    self.keep(&mut written, |address| address == last);
                    return Ok(());
                }
                Outcome::Unknown(error) => {
                    self.keep(&mut written, |_| true);
                    let known = self.now().await.is_ok_and(|(_, table, _)| table.metadata.snapshot_by_id(id).is_some());
                    return if known { Ok(()) } else { Err(doubtful(error)) };
                }
            }
        }
        Err(Error::precondition(format!("others have changed the table \"{}\" each of the {TRIES} times", self.name))
            .with_hint("send the statement again")
            .with_retryable(true))
    }

    /// The table as it is now.
    async fn now(&self) -> Result<(Found, Table, Value)> {
        now(self.catalog.as_ref(), &self.schema, &self.name).await?.ok_or_else(|| self.changed("was dropped"))
    }

    /// Whether a try that seemed to fail has not.
    fn is_done(&mut self, table: &Table, id: i64, written: &mut Written) -> bool {
        let Some(snapshot) = table.metadata.snapshot_by_id(id) else { return false };
        self.keep(written, |address| address == snapshot.manifest_list());
        true
    }

    /// What a snapshot names stays, with the lists that are chosen.
    fn keep(&mut self, written: &mut Written, chosen: impl Fn(&str) -> bool) {
        self.files.iter_mut().for_each(|new| new.made.keep());
        written.manifest.iter_mut().for_each(|(_, made)| made.keep());
        for (_, made) in written.lists.iter_mut().filter(|(address, _)| chosen(address)) {
            made.keep();
        }
    }

    /// Errors: `Precondition` where the files were written for another table, or other columns or partitions; `Unsupported` where the
    /// next state is not to be made here any more.
    fn check_fits(&self, found: &Found, table: &Table) -> Result<()> {
        let (then, now) = (&self.table.metadata, &table.metadata);
        if then.uuid() != now.uuid() || then.location() != now.location() {
            return Err(self.changed("was made anew"));
        }
        let same = then.format_version() == now.format_version()
            && then.current_schema() == now.current_schema()
            && then.default_partition_spec() == now.default_partition_spec();
        if !same {
            return Err(self.changed("got other columns, partitions or another format"));
        }
        let place = |error: Error| error.at(found.lake.store.place(&found.current.path));
        self.catalog.check_commit(found, table).map_err(place)
    }

    fn changed(&self, how: &str) -> Error {
        Error::precondition(format!("the table \"{}.{}\" {how} while this statement ran", self.schema, self.name))
            .with_hint("send the statement again")
            .with_retryable(true)
    }

    /// The state with the files after one that was found.
    async fn change(&self, found: &Found, table: &Table, whole: Value, id: i64, written: &mut Written) -> Result<Change> {
        let folder = folder_of_metadata(table);
        if written.manifest.is_none() {
            let address = format!("{folder}/{}-m0.avro", Uuid::new_v4());
            let files: Vec<DataFile> = self.files.iter().map(|new| new.told.clone()).collect();
            let (bytes, manifest) = manifest::manifest(table, files, id, &address).await?;
            written.manifest = Some((manifest, put(&found.lake, &address, bytes).await?));
        }
        let mut manifests: Vec<ManifestFile> = written.manifest.iter().map(|(manifest, _)| manifest.clone()).collect();
        if let Some(parent) = table.metadata.current_snapshot() {
            manifests.extend(manifests::list(&found.lake, table, parent).await?);
        }
        let (bytes, next_row) = manifest::list(table, manifests, id).await?;
        let address = format!("{folder}/snap-{id}-{}-{}.avro", written.lists.len() + 1, Uuid::new_v4());
        written.lists.push((address.clone(), put(&found.lake, &address, bytes).await?));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        Change::new(table, whole, Snapshot { id, list: &address, summary: self.summary(table), next_row, now })
    }

    /// What is new, and how much there is then, where that is known.
    fn summary(&self, table: &Table) -> Map<String, Value> {
        let added = |count: fn(&DataFile) -> u64| self.files.iter().map(|new| count(&new.told)).sum::<u64>();
        let (count, rows, bytes) = (added(|_| 1), added(DataFile::record_count), added(DataFile::file_size_in_bytes));
        let mut summary = Map::from_iter([("operation".to_owned(), "append".into())]);
        let before = table.metadata.current_snapshot().map(|snapshot| &snapshot.summary().additional_properties);
        for (what, added) in [("data-files", count), ("records", rows), ("files-size", bytes)] {
            summary.insert(format!("added-{what}"), added.to_string().into());
            if let Some(total) = total(before.map(|before| before.get(&format!("total-{what}"))), added) {
                summary.insert(format!("total-{what}"), total.into());
            }
        }
        for what in ["delete-files", "position-deletes", "equality-deletes"] {
            if let Some(total) = total(before.map(|before| before.get(&format!("total-{what}"))), 0) {
                summary.insert(format!("total-{what}"), total.into());
            }
        }
        summary
    }
}

/// A total after more was added to that of the snapshot before, which may not tell it; of no snapshot it is 0.
fn total(before: Option<Option<&String>>, added: u64) -> Option<String> {
    let before = match before {
        None => 0,
        Some(told) => told?.parse::<u64>().ok()?,
    };
    before.checked_add(added).map(|total| total.to_string())
}

/// Neither may be said to have failed what has not, nor be done twice.
fn doubtful(error: Error) -> Error {
    let message = format!("it is not known whether the rows are in the table: {}", error.message());
    let doubtful = Error::unavailable(message).with_retryable(false);
    let doubtful = doubtful.with_hint("look before you do it again; if they are not there, their files are orphans of the table");
    match error.place() {
        Some(place) => doubtful.at(place.clone()),
        None => doubtful,
    }
}
