//! What the commits of a table say: its columns, which files each wrote, and which file groups it replaced.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hudi_core::metadata::commit::{HoodieCommitMetadata, HoodieWriteStat};
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::avro;
use super::properties::refused;
use super::timeline::{Instant, Timeline};
use crate::lake::Lake;
use crate::stores::ended_early;

/// The most bytes of what one commit says.
const LARGEST: u64 = 256 * 1024 * 1024;
/// The memory that is spent on what commits say.
const KEPT: u64 = 64 * 1024 * 1024;
/// What an object or list in JSON may become: a file that was written, of so many values, which take room whether they are told or not.
const FIELDS: u64 = 32;
/// How many commits are read side by side.
const AT_ONCE: usize = 8;
/// The longest that is repeated of what a reader says, in bytes.
const SAID: usize = 300;

/// A file group: its partition, which is a folder, and its id in it.
pub(super) type Group = (String, String);

/// What one commit says.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) requested: String,
    /// The columns of the table from then on, in Avro; none where it does not say.
    schema: Option<String>,
    /// Whether columns are told by ids, which names in files do not tell.
    has_ids: bool,
    pub(super) writes: Vec<Write>,
    pub(super) replaced: Vec<Group>,
}

/// A file that a commit wrote.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) group: Group,
    /// Where it is in the table.
    pub(super) path: String,
    /// Its bytes at least; 0 where the commit does not say.
    pub(super) size: u64,
    /// The commit that the file group was of before; none for one that is new.
    previous: Option<String>,
}

/// What is known of the commits of a catalog's tables.
pub(super) struct Commits(moka::future::Cache<(Path, String), Arc<Commit>>);

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commits({})", self.0.entry_count())
    }
}

impl Commits {
    pub(super) fn new() -> Self {
        let weigh = |_: &(Path, String), commit: &Arc<Commit>| {
            let files = (commit.writes.len() + commit.replaced.len()).saturating_mul(400);
            let text = commit.schema.as_ref().map_or(200, |schema| 200 + schema.len());
            u32::try_from(files.saturating_add(text)).unwrap_or(u32::MAX)
        };
        Self(moka::future::Cache::builder().max_capacity(KEPT).weigher(weigh).build())
    }

    /// All of a timeline, in its order. `state` tells its table from any other that may come to stand in its place.
    /// Errors: `Data` with the file, for what is not as Hudi writes it.
    pub(super) async fn read(
        &self,
        lake: &Lake,
        timeline: &Timeline,
        has_completion: bool,
        state: &str,
    ) -> Result<Vec<Arc<Commit>>> {
        let read = |instant: Instant| async move {
            let path = timeline.file(&instant);
            let key = (path.clone(), state.to_owned());
            if let Some(known) = self.0.get(&key).await {
                return Ok(known);
            }
            let bytes = lake.read(&path, LARGEST).await?;
            let parsed = tokio::task::spawn_blocking(move || parse(instant.requested, &bytes, has_completion)).await;
            let parsed = match parsed {
                Ok(parsed) => parsed,
                Err(ended) if ended.is_panic() => Err(damaged("its parts contradict each other")),
                Err(ended) => return Err(ended_early(ended)),
            };
            let commit = Arc::new(parsed.map_err(|error| error.at(lake.store.place(&path)))?);
            self.0.insert(key, Arc::clone(&commit)).await;
            Ok::<_, Error>(commit)
        };
        let instants: Vec<Instant> = timeline.commits().cloned().collect();
        stream::iter(instants).map(read).buffered(AT_ONCE).try_collect().await
    }
}

fn parse(requested: String, bytes: &Bytes, has_completion: bool) -> Result<Commit> {
    let is_sound = if has_completion { avro::is_sound(bytes) } else { weight(bytes) <= u64::from(avro::MOST_VALUES) };
    if !is_sound {
        return Err(damaged("it is cut, packed, or larger or deeper than a commit is"));
    }
    let said = match has_completion {
        true => HoodieCommitMetadata::from_avro_bytes(bytes),
        false => HoodieCommitMetadata::from_json_bytes(bytes),
    };
    let said = said.map_err(|cause| damaged(&shortened(cause.to_string(), SAID)))?;
    let extra = |key: &str| said.extra_metadata.as_ref().and_then(|extra| extra.get(key)).filter(|text| !text.is_empty());
    let writes = said.iter_write_stats().filter_map(|(partition, stat)| write(partition, stat)).collect();
    let replaced = said.iter_replace_file_ids().map(|(partition, id)| (partition.clone(), id.clone())).collect();
    Ok(Commit { requested, schema: extra("schema").cloned(), has_ids: extra("latest_schema").is_some(), writes, replaced })
}

/// No less than how many values are made of a commit in JSON, of which each takes many times its bytes in memory.
fn weight(json: &[u8]) -> u64 {
    let of = |byte: &u8| match byte {
        b'{' | b'[' => FIELDS,
        b',' => 1,
        _ => 0,
    };
    json.iter().map(of).sum()
}

/// The file that a task wrote, the last one of several; none where it wrote nothing.
fn write(partition: &str, stat: &HoodieWriteStat) -> Option<Write> {
    let (id, path) = (stat.file_id.as_deref()?, stat.path.as_deref()?.trim_start_matches('/'));
    if id.is_empty() || path.is_empty() {
        return None;
    }
    let previous = stat.prev_commit.clone().filter(|previous| !previous.is_empty() && previous != "null");
    let size = stat.file_size_in_bytes.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    Some(Write { group: (partition.to_owned(), id.to_owned()), path: path.to_owned(), size, previous })
}

/// The columns of a table after its newest commit, in Avro; none where no commit tells.
/// Errors: `Unsupported` where columns are told by ids.
pub(super) fn schema(commits: &[Arc<Commit>]) -> Result<Option<&str>> {
    if commits.iter().any(|commit| commit.has_ids) {
        return Err(refused("tables whose columns were changed by schema on read, which are told by ids,".to_owned())
            .with_hint("write the table again without hoodie.schema.on.read.enable"));
    }
    Ok(commits.iter().rev().find_map(|commit| commit.schema.as_deref()))
}

/// Whether the newest commit tells the columns. Where it does not, the crate of the format takes those of some file that it wrote.
pub(super) fn newest_has_schema(commits: &[Arc<Commit>]) -> bool {
    commits.last().is_none_or(|newest| newest.schema.is_some())
}

/// The file groups that others stood in for by an instant.
pub(super) fn replaced(commits: &[Arc<Commit>], by: &str) -> HashSet<Group> {
    let past = commits.iter().filter(|commit| commit.requested.as_str() <= by);
    past.flat_map(|commit| commit.replaced.iter().cloned()).collect()
}

/// A file that the commits by an instant wrote, that holds rows still and is not there any more as a whole: its path in the table.
/// `has` tells whether a file is there. Of a log file that is cut the crate of the format would read what is left.
pub(super) fn missing(commits: &[Arc<Commit>], by: &str, has: impl Fn(&Write) -> bool) -> Option<String> {
    let gone = replaced(commits, by);
    let mut written: HashMap<&Group, Vec<&Write>> = HashMap::new();
    for write in commits.iter().filter(|commit| commit.requested.as_str() <= by).flat_map(|commit| &commit.writes) {
        let files = written.entry(&write.group).or_default();
        // A base file holds all that was written to the group before it.
        if !is_log(&write.path) {
            files.clear();
        }
        files.push(write);
    }
    let kept = written.into_iter().filter(|(group, _)| !gone.contains(*group)).flat_map(|(_, files)| files);
    kept.filter(|write| !has(write)).map(|write| write.path.clone()).min()
}

/// Whether a file group was there at an instant, and its files of then are not any more: by what later commits say of it. `has`
/// tells whether files of a group as it was then are there that are no older than a commit: a savepoint keeps some that are.
pub(super) fn cleaned(commits: &[Arc<Commit>], by: &str, has: impl Fn(&Group, &str) -> bool) -> bool {
    let gone = replaced(commits, by);
    let mut touched: HashSet<&Group> = HashSet::new();
    for commit in commits.iter().filter(|commit| commit.requested.as_str() > by) {
        for write in &commit.writes {
            let is_first = touched.insert(&write.group);
            let Some(previous) = write.previous.as_deref().filter(|previous| is_first && *previous <= by) else { continue };
            if !gone.contains(&write.group) && !has(&write.group, previous) {
                return true;
            }
        }
        if commit.replaced.iter().any(|group| !touched.contains(group) && !gone.contains(group) && !has(group, "")) {
            return true;
        }
    }
    false
}

/// Whether a path is of a log file.
fn is_log(path: &str) -> bool {
    path.rsplit('/').next().unwrap_or(path).starts_with('.')
}

fn damaged(why: &str) -> Error {
    Error::data(format!("this commit is not as Hudi writes it: {why}")).with_hint("restore the file, or write the table again")
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn commit(requested: &str, said: &Value) -> Arc<Commit> {
        Arc::new(parse(requested.to_owned(), &said.to_string().into(), false).unwrap())
    }

    fn wrote(id: &str, path: &str, previous: &str) -> Value {
        json!({ "fileId": id, "path": path, "prevCommit": previous, "fileSizeInBytes": 7 })
    }

    fn stats(stats: &[Value]) -> Value {
        json!({ "partitionToWriteStats": { "p": stats }, "extraMetadata": {}, "operationType": "UPSERT" })
    }

    #[test]
    fn what_was_written_last_has_to_be_there() {
        let commits = [
            commit("1", &stats(&[wrote("a", "p/a_1.parquet", "null"), wrote("b", "p/b_1.parquet", "null")])),
            commit("2", &stats(&[wrote("a", "p/a_2.parquet", "1"), wrote("b", "p/.b_2.log.1_0-1-1", "1")])),
        ];
        let missing_at = |by: &str, there: &[&str]| missing(&commits, by, |write| there.contains(&write.path.as_str()));
        let all = ["p/a_2.parquet", "p/b_1.parquet", "p/.b_2.log.1_0-1-1"];
        assert_eq!(missing_at("2", &all), None);
        assert_eq!(missing_at("2", &all[..2]).as_deref(), Some(all[2]));
        assert_eq!(missing(&commits, "2", |write| write.size < 7).as_deref(), Some(all[2]));
        assert_eq!(missing_at("1", &all).as_deref(), Some("p/a_1.parquet"));
        // The group that is another by then is not missed.
        let after = commit("3", &json!({ "partitionToReplaceFileIds": { "p": ["a", "b"] } }));
        let commits = [Arc::clone(&commits[0]), Arc::clone(&commits[1]), after];
        assert_eq!(missing(&commits, "3", |_| false), None);
        assert_eq!(replaced(&commits, "2").len(), 0);
        assert_eq!(replaced(&commits, "3").len(), 2);
    }

    #[test]
    fn what_later_commits_change_was_there() {
        let commits = [
            commit("2", &stats(&[])),
            commit("3", &stats(&[wrote("a", "p/a_3.parquet", "1"), wrote("n", "p/n_3.parquet", "null")])),
            commit("4", &json!({ "partitionToReplaceFileIds": { "p": ["n"] } })),
        ];
        assert!(cleaned(&commits, "2", |_, _| false));
        assert!(!cleaned(&commits, "2", |group, since| group.1 == "a" && since == "1"));
        assert!(!cleaned(&commits, "4", |_, _| false));
        let replaced = [commit("2", &stats(&[])), commit("4", &json!({ "partitionToReplaceFileIds": { "p": ["old"] } }))];
        assert!(cleaned(&replaced, "2", |_, _| false));
    }

    #[test]
    fn a_commit_that_would_take_all_memory_is_refused() {
        let of = |files: usize| {
            let stats = vec!["{}"; files].join(",");
            parse("1".to_owned(), &format!(r#"{{"partitionToWriteStats":{{"p":[{stats}]}}}}"#).into(), false)
        };
        assert!(of(1000).unwrap().writes.is_empty());
        let most = usize::try_from(u64::from(avro::MOST_VALUES) / FIELDS).unwrap();
        insta::assert_snapshot!(of(most).unwrap_err().message(), @"this commit is not as Hudi writes it: it is cut, packed, or larger or deeper than a commit is");
    }

    #[test]
    fn the_newest_commit_that_tells_columns_counts() {
        let told = |schema: &str| json!({ "extraMetadata": { "schema": schema } });
        let commits = [commit("1", &told("a")), commit("2", &told("b")), commit("3", &told("")), commit("4", &json!({}))];
        assert_eq!(schema(&commits).unwrap(), Some("b"));
        assert!(newest_has_schema(&commits[..2]) && !newest_has_schema(&commits));
        let by_id = [commit("1", &json!({ "extraMetadata": { "schema": "a", "latest_schema": "{}" } }))];
        assert_eq!(schema(&by_id).unwrap_err().kind(), Kind::Unsupported);
        let damaged = parse("1".to_owned(), &Bytes::from_static(b"{\"partitionToWriteStats\":"), false).unwrap_err();
        assert_eq!(damaged.kind(), Kind::Data);
        assert_eq!(parse("1".to_owned(), &Bytes::from_static(b"Obj"), true).unwrap_err().kind(), Kind::Data);
    }
}
