//! The file slices of a table at an instant: which base files hold its rows, and which log files change them.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::TryStreamExt;
use hudi_core::error::CoreError;
use hudi_core::file_group::FileGroup;
use hudi_core::file_group::base_file::BaseFile;
use hudi_core::file_group::file_slice::FileSlice;
use hudi_core::file_group::log_file::LogFile;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::HOODIE;
use super::commits::Group;
use super::properties::refused;
use super::timeline::Committed;
use crate::lake::{DataFile, Lake};

/// How the file begins that tells of a folder that it is a partition.
const PARTITION: &str = ".hoodie_partition_metadata";
/// Base files of other formats.
const FOREIGN: &[&str] = &["hfile", "lance", "orc"];

/// The files of a table that are there.
#[derive(Debug)]
pub(super) struct Files {
    table: Path,
    /// By their paths in the table, with their bytes.
    sizes: HashMap<String, u64>,
    /// What each file group is made of, of completed commits.
    groups: BTreeMap<Group, FileGroup>,
    /// A log file that belongs to what is not compacted yet.
    compacting: Option<String>,
}

/// A file slice whose log files are to be merged: where its files are in the table, with the bytes that they were listed with.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) slice: FileSlice,
    pub(super) base: Option<(String, u64)>,
    pub(super) logs: Vec<(String, u64)>,
}

impl Logged {
    /// The bytes of its base file, and those of its log files.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let base = self.base.as_ref().map_or(0, |(_, size)| *size);
        (base, self.logs.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size)))
    }
}

impl Files {
    /// Lists those of the table in a folder. Errors: `Data` for names that Hudi does not give; `Unsupported` for base files of
    /// other formats.
    pub(super) async fn list(lake: &Lake, table: &Path, committed: &Committed) -> Result<Self> {
        let within = (!table.as_ref().is_empty()).then_some(table);
        let mut listed = lake.store.objects().list(within);
        let mut files = Listed::default();
        loop {
            let next = listed.try_next().await.map_err(|cause| lake.store.list_error(&cause, table))?;
            let Some(object) = next else { break };
            let Some(parts) = object.location.prefix_match(table) else { continue };
            let path: Path = parts.collect();
            files.add(path.as_ref(), object.size, committed).map_err(|error| error.at(lake.store.place(&object.location)))?;
        }
        let sound = files.finish(table.clone());
        sound.map_err(|error| error.at(lake.store.place(table)))
    }

    /// Whether a file is there, with so many bytes at least.
    pub(super) fn has(&self, path: &str, least: u64) -> bool {
        self.sizes.get(path).is_some_and(|size| *size >= least)
    }

    /// Whether a file group has files of an instant that are no older than another.
    pub(super) fn has_group(&self, group: &Group, since: &str, by: &str) -> bool {
        let slice = self.groups.get(group).and_then(|group| group.get_file_slice_as_of(by));
        slice.is_some_and(|slice| slice.creation_instant_time() >= since)
    }

    /// What holds the rows at an instant, but for file groups that others stand in for. Of a table that is read optimised that is
    /// base files only. Errors: `Unsupported` where the crate of the format would leave log files out.
    pub(super) fn slices(&self, by: &str, replaced: &HashSet<Group>, optimised: bool) -> Result<(Vec<DataFile>, Vec<Logged>)> {
        if let Some(log) = self.compacting.as_ref().filter(|_| !optimised) {
            return Err(refused(format!("log files that wait for a compaction, as {log} does in a table of version 6,"))
                .with_hint("run the compaction, or set read = \"read_optimized\" for what is compacted"));
        }
        let (mut plain, mut logged) = (Vec::new(), Vec::new());
        for (_, files) in self.groups.iter().filter(|(group, _)| !replaced.contains(*group)) {
            let later = files.file_slices.values().filter(|slice| slice.creation_instant_time() > by);
            let mut logs = later.flat_map(|slice| &slice.log_files);
            if let Some(log) = logs.find(|log| !optimised && log.timestamp.as_str() <= by) {
                // It was completed after the compaction was asked for, and is in none of the slices of then.
                let message = format!("states in which {} belongs to a compaction that is later", log.file_name());
                return Err(refused(message).with_hint("name a later commit"));
            }
            let Some(slice) = files.get_file_slice_as_of(by) else { continue };
            let base = slice.base_file_relative_path().map_err(|cause| unsound(&cause))?;
            if !optimised && slice.has_log_file() {
                let sized = |path: String| {
                    let size = self.sizes.get(&path).copied().unwrap_or_default();
                    (path, size)
                };
                let base = base.map(sized);
                let logs = slice.log_files.iter().map(|log| slice.log_file_relative_path(log).map(sized));
                let logs = logs.collect::<std::result::Result<Vec<_>, CoreError>>().map_err(|cause| unsound(&cause))?;
                logged.push(Logged { slice: slice.clone(), base, logs });
            } else if let Some(name) = base {
                let within = Path::parse(&name).map_err(|cause| Error::data(format!("this is no path: {cause}")))?;
                let path = self.table.parts().chain(within.parts()).collect();
                let size = self.sizes.get(&name).copied().unwrap_or_default();
                plain.push(DataFile { path, name, size, rows: None, deleted: Some(0), constants: Vec::new(), deletes: None });
            }
        }
        Ok((plain, logged))
    }
}

/// The files as far as they are listed.
#[derive(Default)]
struct Listed {
    sizes: HashMap<String, u64>,
    partitions: HashSet<String>,
    bases: BTreeMap<Group, Vec<BaseFile>>,
    logs: BTreeMap<Group, Vec<LogFile>>,
    compacting: Option<String>,
}

impl Listed {
    fn add(&mut self, path: &str, size: u64, committed: &Committed) -> Result<()> {
        let (partition, name) = path.rsplit_once('/').unwrap_or(("", path));
        if path.split('/').next() == Some(HOODIE) || name.ends_with(".crc") {
            return Ok(());
        }
        if name.starts_with(PARTITION) {
            self.partitions.insert(partition.to_owned());
            return Ok(());
        }
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let not_ours = || {
            Error::data("this file is in a table of Hudi, and has no name that Hudi gives")
                .with_hint("remove it from the folder of the table")
        };
        if name.starts_with('.') {
            // What changes are told by, and nothing else is.
            if !name.contains(".log.") || name.ends_with(".cdc") {
                return Ok(());
            }
            let mut log: LogFile = name.parse().map_err(|_: CoreError| not_ours())?;
            if log.file_name() != name {
                return Err(not_ours());
            }
            if committed.is_compaction(&log.timestamp) {
                self.compacting = Some(path.to_owned());
            }
            self.sizes.insert(path.to_owned(), size);
            if committed.has(&log.timestamp) {
                log.completion_timestamp = committed.completion(&log.timestamp);
                self.logs.entry((partition.to_owned(), log.file_id.clone())).or_default().push(log);
            }
        } else if extension.eq_ignore_ascii_case("parquet") {
            let mut base: BaseFile = name.parse().map_err(|_: CoreError| not_ours())?;
            if base.file_name() != name {
                return Err(not_ours());
            }
            self.sizes.insert(path.to_owned(), size);
            if committed.has(&base.commit_timestamp) {
                base.completion_timestamp = committed.completion(&base.commit_timestamp);
                self.bases.entry((partition.to_owned(), base.file_id.clone())).or_default().push(base);
            }
        } else if FOREIGN.iter().any(|foreign| extension.eq_ignore_ascii_case(foreign)) {
            return Err(refused(format!("base files of the format {extension}")));
        }
        Ok(())
    }

    fn finish(mut self, table: Path) -> Result<Files> {
        let mut groups = BTreeMap::new();
        let all: HashSet<Group> = self.bases.keys().chain(self.logs.keys()).cloned().collect();
        for group in all {
            let (partition, id) = &group;
            // The table itself is one where it has no others.
            if !partition.is_empty() && !self.partitions.contains(partition) {
                let message = format!("the folder {partition} has files of the table and is no partition of it");
                return Err(Error::data(message).with_hint(format!("it has no {PARTITION}; remove the folder, or restore that")));
            }
            let mut files = FileGroup::new(id.clone(), partition.clone());
            files.add_base_files(self.bases.remove(&group).unwrap_or_default()).map_err(|cause| unsound(&cause))?;
            files.add_log_files(self.logs.remove(&group).unwrap_or_default()).map_err(|cause| unsound(&cause))?;
            groups.insert(group, files);
        }
        Ok(Files { table, sizes: self.sizes, groups, compacting: self.compacting })
    }
}

fn unsound(cause: &CoreError) -> Error {
    Error::data(format!("the files of the table do not go together: {cause}")).with_hint("run a rollback of failed writes")
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::super::timeline::tests::committed;
    use super::*;

    const FIRST: &str = "20240101000000000";
    const SECOND: &str = "20240102000000000";

    fn files(paths: &[String], compacting: Option<&str>) -> Result<Files> {
        let committed = committed(&[FIRST, SECOND], compacting);
        let mut listed = Listed::default();
        for path in paths {
            listed.add(path, 10, &committed)?;
        }
        listed.finish(Path::from("t"))
    }

    fn base(group: &str, instant: &str) -> String {
        format!("p/{group}_0-1-2_{instant}.parquet")
    }

    fn log(group: &str, instant: &str) -> String {
        format!("p/.{group}_{instant}.log.1_0-1-2")
    }

    fn named(files: &Files, by: &str, replaced: &[&str], optimised: bool) -> (Vec<String>, Vec<Vec<String>>) {
        let replaced = replaced.iter().map(|id| ("p".to_owned(), (*id).to_owned())).collect();
        let (plain, logged) = files.slices(by, &replaced, optimised).unwrap();
        let paths = |slice: Logged| slice.base.into_iter().chain(slice.logs).map(|(path, _)| path).collect::<Vec<String>>();
        (plain.into_iter().map(|file| file.name).collect(), logged.into_iter().map(paths).collect())
    }

    #[test]
    fn each_group_has_the_slice_of_the_time() {
        let marked = "p/.hoodie_partition_metadata".to_owned();
        let (uncommitted, stray) = (base("c", "20240103000000000"), "p/_SUCCESS".to_owned());
        let mut all = vec![marked, base("a", FIRST), base("a", SECOND), base("b", FIRST), log("b", SECOND), log("d", FIRST)];
        all.extend([uncommitted, stray]);
        let files = files(&all, None).unwrap();
        let (plain, logged) = named(&files, SECOND, &[], false);
        assert_eq!(plain, [base("a", SECOND)]);
        // The last has no base file at all, and is there none the less.
        assert_eq!(logged, [vec![base("b", FIRST), log("b", SECOND)], vec![log("d", FIRST)]]);
        assert_eq!(named(&files, FIRST, &["b"], false).0, [base("a", FIRST)]);
        let (plain, logged) = named(&files, SECOND, &[], true);
        assert_eq!((plain, logged.len()), (vec![base("a", SECOND), base("b", FIRST)], 0));
        assert!(files.has(&base("a", FIRST), 10) && !files.has(&base("a", FIRST), 11));
        let has_group = |id: &str, since: &str| files.has_group(&("p".to_owned(), id.to_owned()), since, SECOND);
        assert!(has_group("a", SECOND) && has_group("b", FIRST) && !has_group("b", SECOND) && !has_group("c", ""));
        let (plain, logged) = files.slices(SECOND, &HashSet::new(), false).unwrap();
        assert_eq!(plain[0].path, Path::from(format!("t/{}", base("a", SECOND))));
        assert_eq!((plain[0].size, logged[0].sizes()), (10, (10, 10)));
    }

    fn of_version_8(paths: &[String], commits: &[(&str, &str)]) -> Files {
        let committed = super::super::timeline::tests::completed(commits);
        let mut listed = Listed::default();
        for path in paths.iter().map(String::as_str).chain(["p/.hoodie_partition_metadata"]) {
            listed.add(path, 10, &committed).unwrap();
        }
        listed.finish(Path::from("t")).unwrap()
    }

    #[test]
    fn archived_log_files_are_of_the_slice_of_the_later_ones() {
        let archived = "20231231000000000";
        let paths = [log("d", SECOND), log("d", archived), log("d", FIRST)];
        let files = of_version_8(&paths, &[(FIRST, "20240101000000009"), (SECOND, "20240102000000009")]);
        assert_eq!(named(&files, SECOND, &[], false).1, [vec![log("d", archived), log("d", FIRST), log("d", SECOND)]]);
    }

    #[test]
    fn a_log_file_that_is_in_a_later_slice_is_not_lost() {
        let third = "20240103000000000";
        let commits = [(FIRST, "20240101000000009"), (SECOND, "20240104000000000"), (third, "20240103000000009")];
        // The second commit was completed after the third, a compaction, was asked for.
        let files = of_version_8(&[base("a", FIRST), log("a", SECOND), base("a", third)], &commits);
        assert_eq!(named(&files, third, &[], false).1, [vec![base("a", third), log("a", SECOND)]]);
        assert_eq!(named(&files, FIRST, &[], false).0, [base("a", FIRST)]);
        let refused = files.slices(SECOND, &HashSet::new(), false).unwrap_err();
        insta::assert_snapshot!(refused.message(), @"states in which .a_20240102000000000.log.1_0-1-2 belongs to a compaction that is later are not read here");
        assert_eq!(named(&files, SECOND, &[], true).0, [base("a", FIRST)]);
    }

    #[test]
    fn what_would_vanish_is_refused() {
        let marked = || "p/.hoodie_partition_metadata".to_owned();
        let waiting = files(&[marked(), base("a", FIRST), log("a", "20240103000000000")], Some("20240103000000000")).unwrap();
        let refused = waiting.slices(SECOND, &HashSet::new(), false).unwrap_err();
        insta::assert_snapshot!(refused.message(), @"log files that wait for a compaction, as p/.a_20240103000000000.log.1_0-1-2 does in a table of version 6, are not read here");
        assert_eq!(named(&waiting, SECOND, &[], true).0, [base("a", FIRST)]);
        let kind = |paths: &[String]| files(paths, None).unwrap_err().kind();
        assert_eq!(kind(&[base("a", FIRST)]), Kind::Data);
        assert_eq!(kind(&["p/part-0.parquet".to_owned()]), Kind::Data);
        assert_eq!(kind(&["p/.a.log.x".to_owned()]), Kind::Data);
        assert_eq!(kind(&[format!("p/a_0-1-2_{FIRST}.orc")]), Kind::Unsupported);
        assert_eq!(kind(&[marked(), base("a", FIRST), format!("p/a_9-9-9_{FIRST}.parquet")]), Kind::Data);
    }
}
