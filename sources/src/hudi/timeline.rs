//! The instants of a table: what was done to it, when, and which of them a time means.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use nexus_flight_catalog::{Error, Result};
use object_store::path::Path;

use super::properties::{Properties, refused};
use crate::lake::{Lake, moment};
use crate::stores::hex;

/// How many instants are named where one is not there.
const NAMED: usize = 5;
/// The actions that change the rows of a table once they are completed.
const COMMITS: &[&str] = &["commit", "deltacommit", "replacecommit"];
/// The actions that do not.
const OTHERS: &[&str] =
    &["clean", "clustering", "compaction", "indexing", "logcompaction", "restore", "rollback", "savepoint", "schemacommit"];

/// An action on a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instant {
    /// When it was asked for, by which it is known: a time as 14 or 17 digits.
    pub(super) requested: String,
    pub(super) action: String,
    pub(super) state: State,
    /// When it was completed, where the table tells.
    pub(super) completed: Option<String>,
    /// The name of the file that says so.
    file: String,
}

/// How far an action has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Requested,
    Inflight,
    Completed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Inflight => "inflight",
            Self::Completed => "completed",
        }
    }
}

/// The instants of a table that are not archived, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Timeline {
    folder: Path,
    instants: Vec<Instant>,
    pub(super) has_completion: bool,
    in_utc: bool,
}

impl Timeline {
    /// As it is now. Errors: `Unsupported` for an action that is not known; `Data` for names that are none of instants.
    pub(super) async fn read(lake: &Lake, table: &Path, properties: &Properties) -> Result<Self> {
        let folder = properties.timeline(table)?;
        lake.store.stays_within(&folder).await?;
        // In a bucket there are no folders, and a table that was just made has nothing there.
        if lake.store.folder.is_some() && lake.store.changed(&folder).is_none() {
            return Err(Error::data("the table has no timeline").with_hint("restore the folder").at(lake.store.place(&folder)));
        }
        let listed = lake.store.objects().list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|cause| lake.store.list_error(&cause, &folder))?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        let instants = instants(names, properties.has_completion).map_err(|error| error.at(lake.store.place(&folder)))?;
        Ok(Self { folder, instants, has_completion: properties.has_completion, in_utc: properties.in_utc })
    }

    /// All instants.
    pub(super) fn instants(&self) -> impl Iterator<Item = &Instant> {
        self.instants.iter()
    }

    /// The completed instants that changed the rows.
    pub(super) fn commits(&self) -> impl DoubleEndedIterator<Item = &Instant> {
        self.instants.iter().filter(|instant| instant.is_commit())
    }

    /// The file that tells of an instant.
    pub(super) fn file(&self, instant: &Instant) -> Path {
        self.folder.clone().join(instant.file.as_str())
    }

    /// Tells this state of the rows from any other: an action can be completed after a later one.
    pub(super) fn digest(&self) -> String {
        let told = |commit: &Instant| {
            let completed = commit.completed.as_deref().unwrap_or_default();
            format!("{} {completed} {}\n", commit.requested, commit.action)
        };
        hex(&self.commits().map(told).collect::<String>(), 8)
    }

    /// What tells which files hold rows.
    pub(super) fn files(&self) -> Committed {
        let pending = || self.instants.iter().filter(|instant| instant.state < State::Completed);
        // Of such a table log files have the name of what they will be compacted to.
        let compactions = pending().filter(|instant| !self.has_completion && instant.action == "compaction");
        Committed {
            completed: self.commits().map(|commit| (commit.requested.clone(), commit.completed.clone())).collect(),
            pending: pending().map(|instant| instant.requested.clone()).collect(),
            compactions: compactions.map(|instant| instant.requested.clone()).collect(),
            first: self.first().map(str::to_owned),
            has_completion: self.has_completion,
        }
    }

    /// What is older than this commit is archived, and only what is completed is; but for what savepoints keep.
    fn first(&self) -> Option<&str> {
        self.gaps().last().map(|(_, until)| *until).or_else(|| self.written().next())
    }

    /// Whether this look, which is a later one, shows that the one before is of one state by an instant: that it lacks no earlier
    /// commit, and that a list of files which was made meanwhile does not either. A list is not made at one moment, so what is
    /// newer may be in it and what is older not; nor is one that was begun before something was archived.
    pub(super) fn confirms(&self, before: &Self, by: &str) -> bool {
        let known: HashSet<&str> = before.commits().map(|commit| commit.requested.as_str()).collect();
        let mut past = self.commits().map(|commit| commit.requested.as_str()).filter(|commit| *commit <= by);
        self.first() == before.first() && past.all(|commit| known.contains(commit))
    }

    /// The instants of commits, however far they have come.
    fn written(&self) -> impl Iterator<Item = &str> {
        let written = self.instants.iter().filter(|instant| COMMITS.contains(&instant.action.as_str()));
        written.map(|instant| instant.requested.as_str())
    }

    /// Between which instants others may be archived that are later than one which is not: a savepoint keeps it.
    pub(super) fn gaps(&self) -> Vec<(&str, &str)> {
        let savepoints = self.instants.iter().filter(|instant| instant.action == "savepoint");
        let kept: HashSet<&str> = savepoints.map(|instant| instant.requested.as_str()).collect();
        self.written().zip(self.written().skip(1)).take_while(|(commit, _)| kept.contains(commit)).collect()
    }

    /// The instant that a text means: one, or a moment.
    /// Errors: `NotFound` with the newest there are; `Unsupported` for a moment where instants are not times of a known zone.
    pub(super) fn by(&self, when: &str) -> Result<String> {
        match (is_instant(when), moment(when)) {
            (true, _) => Ok(when.to_owned()),
            (false, Some(_)) if !self.in_utc => {
                Err(refused("times of a table whose instants are of the zone of its writer".to_owned())
                    .with_hint(format!("name an instant; {}", self.known())))
            }
            (false, Some(millis)) => instant_of(millis)
                .ok_or_else(|| Error::not_found(format!("{when} is no time of a table")).with_hint(self.known())),
            (false, None) => {
                let message = format!("\"{when}\" is no instant of the table, and no time");
                Err(Error::not_found(message).with_hint(self.known()))
            }
        }
    }

    /// The commit that a text means: the newest that was asked for by then.
    /// Errors: `NotFound` with the newest there are, and those of [`Self::by`].
    pub(super) fn at(&self, when: &str) -> Result<&Instant> {
        let by = self.by(when)?;
        let is_unknown = self.gaps().iter().any(|(after, until)| *after < by.as_str() && by.as_str() < *until);
        let commit = self.commits().rfind(|commit| commit.requested <= by && !is_unknown);
        commit.ok_or_else(|| Error::not_found(format!("of {when} no commit is known")).with_hint(self.known()))
    }

    /// The newest commits, for people.
    fn known(&self) -> String {
        let newest: Vec<&str> = self.commits().rev().take(NAMED).map(|commit| commit.requested.as_str()).collect();
        match newest.as_slice() {
            [] => "the table has no commits".to_owned(),
            newest => format!("of {} commits the newest are {}", self.commits().count(), newest.join(", ")),
        }
    }

    /// As a table, the newest first.
    pub(super) fn provided(&self) -> Result<Arc<dyn TableProvider>> {
        let newest = || self.instants.iter().rev();
        let requested: StringArray = newest().map(|instant| Some(instant.requested.as_str())).collect();
        let actions: StringArray = newest().map(|instant| Some(instant.action.as_str())).collect();
        let states: StringArray = newest().map(|instant| Some(instant.state.name())).collect();
        let completed: StringArray = newest().map(|instant| instant.completed.as_deref()).collect();
        let columns: [(&str, ArrayRef, bool); 4] = [
            ("instant", Arc::new(requested), false),
            ("action", Arc::new(actions), false),
            ("state", Arc::new(states), false),
            ("completed", Arc::new(completed), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns);
        let batch = batch.map_err(|cause| Error::internal("a table cannot be made").caused_by(cause))?;
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
    }
}

impl Instant {
    fn is_commit(&self) -> bool {
        self.state == State::Completed && COMMITS.contains(&self.action.as_str())
    }
}

/// Which files hold rows, by the instants in their names.
#[derive(Debug)]
pub(super) struct Committed {
    /// With the times of their completion, where they are told.
    completed: HashMap<String, Option<String>>,
    pending: HashSet<String>,
    /// Those that log files are named by.
    compactions: HashSet<String>,
    first: Option<String>,
    has_completion: bool,
}

impl Committed {
    /// Whether the commit that wrote a file is completed.
    pub(super) fn has(&self, instant: &str) -> bool {
        if self.completed.contains_key(instant) {
            return true;
        }
        !self.pending.contains(instant) && is_instant(instant) && self.first.as_deref().is_some_and(|first| instant < first)
    }

    /// Whether log files of this name wait for a compaction.
    pub(super) fn is_compaction(&self, instant: &str) -> bool {
        self.compactions.contains(instant)
    }

    /// When a commit was completed, where the table tells. Of archived ones it does not: they go before all that are not.
    pub(super) fn completion(&self, instant: &str) -> Option<String> {
        match self.completed.get(instant) {
            Some(completed) => completed.clone(),
            None => self.has_completion.then(|| instant.to_owned()),
        }
    }
}

/// Whether a text is an instant.
fn is_instant(text: &str) -> bool {
    matches!(text.len(), 14 | 17) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A moment in milliseconds since 1970 as an instant in UTC.
fn instant_of(millis: i64) -> Option<String> {
    let instant = DateTime::from_timestamp_millis(millis)?.format("%Y%m%d%H%M%S%3f").to_string();
    is_instant(&instant).then_some(instant)
}

/// The instants that files tell of, each as far as it has come.
fn instants<'a>(files: impl Iterator<Item = &'a str>, has_completion: bool) -> Result<Vec<Instant>> {
    // A savepoint has the time of the commit that it keeps.
    let mut furthest: BTreeMap<(String, bool), Instant> = BTreeMap::new();
    for file in files.filter(|file| file.starts_with(|first: char| first.is_ascii_digit()) && !file.ends_with(".crc")) {
        let instant = instant(file, has_completion)?;
        let key = (instant.requested.clone(), instant.action == "savepoint");
        match furthest.get(&key) {
            Some(other) if other.state >= instant.state => {}
            _ => drop(furthest.insert(key, instant)),
        }
    }
    Ok(furthest.into_values().collect())
}

fn instant(file: &str, has_completion: bool) -> Result<Instant> {
    let unknown =
        || Error::data(format!("\"{file}\" is no file of a timeline")).with_hint("remove it if it does not belong here");
    let (times, rest) = file.split_once('.').ok_or_else(unknown)?;
    let (action, state) = match rest.rsplit_once('.') {
        Some((action, "requested")) => (action, State::Requested),
        Some((action, "inflight")) => (action, State::Inflight),
        None if rest == "inflight" => ("commit", State::Inflight),
        None => (rest, State::Completed),
        Some(_) => return Err(unknown()),
    };
    if !COMMITS.contains(&action) && !OTHERS.contains(&action) {
        return Err(refused(format!("tables on whose timeline is the action {action}")));
    }
    let (requested, completed) = match times.split_once('_') {
        Some((requested, completed)) => (requested, Some(completed)),
        None => (times, None),
    };
    // Where completed actions tell when they were, one that does not is none.
    let is_told = completed.is_some() == (has_completion && state == State::Completed);
    if !is_told || !is_instant(requested) || !completed.is_none_or(is_instant) {
        return Err(unknown());
    }
    let completed = completed.map(str::to_owned);
    Ok(Instant { requested: requested.to_owned(), action: action.to_owned(), state, completed, file: file.to_owned() })
}

#[cfg(test)]
pub(super) mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    /// With these commits, and a compaction that is not done.
    pub(in crate::hudi) fn committed(commits: &[&str], compaction: Option<&str>) -> Committed {
        Committed {
            completed: commits.iter().map(|commit| ((*commit).to_owned(), None)).collect(),
            pending: compaction.into_iter().map(str::to_owned).collect(),
            compactions: compaction.into_iter().map(str::to_owned).collect(),
            first: commits.first().map(|first| (*first).to_owned()),
            has_completion: false,
        }
    }

    /// The same of a table of version 8, with the times of completion.
    pub(in crate::hudi) fn completed(commits: &[(&str, &str)]) -> Committed {
        let requested: Vec<&str> = commits.iter().map(|(requested, _)| *requested).collect();
        let completed = commits.iter().map(|(requested, at)| ((*requested).to_owned(), Some((*at).to_owned()))).collect();
        Committed { completed, has_completion: true, ..committed(&requested, None) }
    }

    fn timeline(files: &[&str], has_completion: bool) -> Timeline {
        let instants = instants(files.iter().copied(), has_completion).unwrap();
        Timeline { folder: Path::from("t/.hoodie"), instants, has_completion, in_utc: true }
    }

    const FILES: &[&str] = &[
        "20240101000000000.commit.requested",
        "20240101000000000.inflight",
        "20240101000000000_20240101000005000.commit",
        "20240102000000000.clustering.requested",
        "20240102000000000_20240102000005000.replacecommit",
        "20240102000000000_20240103000000000.savepoint",
        "20240103000000000.compaction.requested",
        "20240104000000000.deltacommit.requested",
        "20240104000000000.deltacommit.inflight",
        "20240105000000000_20240105000001000.clean",
    ];

    #[test]
    fn instants_are_as_far_as_they_have_come() {
        let timeline = timeline(FILES, true);
        let told: Vec<String> =
            timeline.instants.iter().map(|i| format!("{} {} {}", &i.requested[6..8], i.action, i.state.name())).collect();
        assert_eq!(
            told,
            [
                "01 commit completed",
                "02 replacecommit completed",
                "02 savepoint completed",
                "03 compaction requested",
                "04 deltacommit inflight",
                "05 clean completed",
            ]
        );
        assert_eq!(timeline.commits().count(), 2);
        let first = timeline.commits().next().unwrap();
        assert_eq!(timeline.file(first).to_string(), format!("t/.hoodie/{}", FILES[2]));
    }

    #[test]
    fn a_file_holds_rows_if_its_commit_is_completed_or_archived() {
        let files = timeline(FILES, true).files();
        assert!(files.has("20240101000000000") && files.has("20231231000000000"));
        for not in ["20240103000000000", "20240104000000000", "20240101120000000", "x"] {
            assert!(!files.has(not), "{not}");
        }
        assert!(!files.is_compaction("20240103000000000"));
        assert_eq!(files.completion("20240101000000000").as_deref(), Some("20240101000005000"));
        // What is pending is not archived, however old it is.
        let old = timeline(&["20230101000000000.compaction.inflight", "20240101000000000.commit"], false).files();
        assert!(!old.has("20230101000000000") && old.has("20230102000000000"));
        assert!(old.is_compaction("20230101000000000") && !old.is_compaction("20230102000000000"));
    }

    #[test]
    fn what_a_savepoint_keeps_is_older_than_what_is_archived() {
        let timeline = timeline(
            &[
                "20240101000000000_20240101000005000.commit",
                "20240101000000000_20240101000006000.savepoint",
                "20240105000000000_20240105000005000.commit",
                "20240106000000000_20240106000005000.commit",
            ],
            true,
        );
        let files = timeline.files();
        assert!(files.has("20240103000000000") && !files.has("20240105120000000"));
        let (instants, folder) = (timeline.instants[3..].to_vec(), timeline.folder.clone());
        let archived = Timeline { instants, folder, has_completion: true, in_utc: true };
        let newest = "20240106000000000";
        assert!(timeline.confirms(&timeline, newest) && !archived.confirms(&timeline, newest));
        // Which commits there were is not known.
        assert_eq!(timeline.at("20240103000000000").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(timeline.at("20240101000000000").unwrap().requested, "20240101000000000");
        assert_eq!(timeline.at("20240105120000000").unwrap().requested, "20240105000000000");
    }

    #[test]
    fn a_look_that_lacks_an_earlier_commit_is_not_confirmed() {
        let look = |days: &[&str]| {
            let files: Vec<String> = days.iter().map(|day| format!("202401{day}000000000.commit")).collect();
            timeline(&files.iter().map(String::as_str).collect::<Vec<_>>(), false)
        };
        let (whole, later) = (look(&["01", "02", "03"]), look(&["01", "02", "03", "04"]));
        assert!(later.confirms(&whole, "20240103000000000"));
        let lacking = look(&["01", "03"]);
        assert!(!later.confirms(&lacking, "20240103000000000") && later.confirms(&lacking, "20240101000000000"));
    }

    #[test]
    fn a_state_is_named_by_an_instant_or_a_time() {
        let timeline = timeline(FILES, true);
        let at = |when: &str| timeline.at(when).unwrap().requested.as_str();
        assert_eq!(at("20240101000000000"), "20240101000000000");
        assert_eq!(at("20240102000000"), "20240101000000000");
        assert_eq!(at("2024-01-02"), "20240102000000000");
        assert_eq!(at("2024-01-01T12:00:00+01:00"), "20240101000000000");
        insta::assert_snapshot!(timeline.at("2023-12-31").unwrap_err(), @"of 2023-12-31 no commit is known; of 2 commits the newest are 20240102000000000, 20240101000000000");
        insta::assert_snapshot!(timeline.at("7").unwrap_err().message(), @r#""7" is no instant of the table, and no time"#);
        let elsewhere = Timeline { in_utc: false, ..timeline };
        assert_eq!(elsewhere.at("2024-01-02").unwrap_err().kind(), Kind::Unsupported);
        assert!(elsewhere.at("20240102000000000").is_ok());
    }

    #[test]
    fn a_digest_tells_what_is_completed() {
        let before = timeline(FILES, true).digest();
        assert_eq!(before, timeline(&FILES[..7], true).digest());
        let mut later = FILES.to_vec();
        later.push("20240103000000000_20240106000000000.commit");
        assert_ne!(before, timeline(&later, true).digest());
    }

    #[test]
    fn what_is_no_instant_is_an_error() {
        let kind = |file: &str, has_completion| instant(file, has_completion).unwrap_err().kind();
        assert_eq!(kind("20240101000000000.commit", true), Kind::Data);
        assert_eq!(kind("20240101000000000_20240101000005000.commit", false), Kind::Data);
        assert_eq!(kind("2024.commit", false), Kind::Data);
        assert_eq!(kind("20240101000000000.truncate", false), Kind::Unsupported);
    }
}
