//! Log files, walked through before the crate of the format reads them: it makes room for whatever number it finds in one, counts the
//! items of a list that take no bytes, and goes past what it does not know.

use std::collections::{BTreeMap, BTreeSet};

use hudi_core::file_group::log_file::LogFile;
use nexus_flight_catalog::{Error, Result};

use super::avro;
use super::properties::refused;
use crate::stores::look_through_file;

/// What a block begins with.
const MAGIC: &[u8] = b"#HUDI#";
/// The most entries that the header or the footer of a block has, of which there are nine kinds.
const MOST_ENTRIES: u32 = 64;
/// The entries with the commit that wrote the block, with the one that it rolls back, and with the columns of its rows in Avro.
const INSTANT: u32 = 0;
const TARGET: u32 = 1;
const SCHEMA: u32 = 2;
/// The kinds of blocks: those that roll back a commit, and those that change rows.
const COMMAND: u32 = 0;
const DELETES: u32 = 1;
const AVRO: u32 = 3;
const HFILE: u32 = 4;
const PARQUET: u32 = 5;

/// What the log files of a slice tell of the commits that wrote them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Instants {
    /// The commits that wrote whole blocks, each with the attempts at it that did, by their tokens in names of files.
    pub(super) written: BTreeMap<String, BTreeSet<String>>,
    pub(super) rolled_back: BTreeSet<String>,
    torn: Vec<Torn>,
}

/// What is no whole block.
#[derive(Debug, PartialEq, Eq)]
struct Torn {
    /// The name of the file.
    file: String,
    /// The attempt that wrote the file.
    token: String,
    /// The instant in the name of the file.
    named: String,
    /// The commit that wrote it, where its header tells.
    told: Option<String>,
}

impl Instants {
    /// The log file in which rows of a completed commit are cut short, where there is one. `has` tells whether a commit is
    /// completed, and `is_named` whether files have the names of the commits that wrote them, as they do from version 8 on.
    ///
    /// Hudi's own reader passes over each block that is not whole (`HoodieLogFileReader.isBlockCorrupted`, and "Ignore the corrupt
    /// blocks" in `BaseHoodieLogRecordReader.scanInternal`, of 1.0), since by its protocol of writing no rows are lost by that: such
    /// a block is left by a write that failed, whose commit is never completed or is rolled back, or by an attempt at a task that
    /// was tried again, by which the same records went to another file under another token. Where none of that is so, the block was
    /// cut after its commit was completed, and what it held is a part of the table.
    pub(super) fn lost(&self, is_named: bool, has: impl Fn(&str) -> bool) -> Option<&str> {
        let is_lost = |torn: &&Torn| {
            // Without a name of its own, a block whose header is cut too is like one that is being written just now.
            let instant = if is_named { Some(&torn.named) } else { torn.told.as_ref() };
            instant.is_some_and(|instant| {
                let attempts = self.written.get(instant);
                let is_again = attempts.is_some_and(|tokens| tokens.iter().any(|token| *token != torn.token));
                has(instant) && !self.rolled_back.contains(instant) && !is_again
            })
        };
        self.torn.iter().find(is_lost).map(|torn| torn.file.as_str())
    }
}

/// Adds what a log file tells. What is cut in it is passed over, as Hudi does, and told by [`Instants::lost`].
/// Errors: `Data` where a block has less than it says; `Unsupported` for blocks of HFile.
pub(super) fn instants(log: &LogFile, file: &[u8], found: &mut Instants) -> Result<()> {
    let name = log.file_name();
    let torn = |told: Option<String>| {
        let (token, named) = (log.write_token.clone(), log.timestamp.clone());
        Torn { file: log.file_name(), token, named, told }
    };
    let mut rest = file;
    // What is shorter than the beginning of a block is taken for the end.
    while rest.len() >= MAGIC.len() {
        let Some(begun) = rest.strip_prefix(MAGIC) else { return Err(damaged(&name)) };
        let mut block = Rest(begun);
        let length = block.long().ok_or_else(|| damaged(&name))?;
        rest = match whole(block.0, length) {
            Some((within, after)) => {
                Rest(within).block(log, found)?;
                after
            }
            None => {
                let next = begun.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
                let (held, after) = begun.split_at(next.unwrap_or(begun.len()));
                found.torn.push(torn(held.get(8..).and_then(|held| Rest(held).begun())));
                after
            }
        };
    }
    if file.is_empty() || !rest.is_empty() {
        found.torn.push(torn(None));
    }
    Ok(())
}

/// A block without the length before it, and what follows; none where it was cut or is none.
fn whole(rest: &[u8], length: u64) -> Option<(&[u8], &[u8])> {
    let (block, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    // At its end is its length again, with what it begins with.
    let again = u64::from_be_bytes(*block.last_chunk::<8>()?);
    let is_whole = again.checked_sub(MAGIC.len() as u64) == Some(length);
    (is_whole && (after.len() < MAGIC.len() || after.starts_with(MAGIC))).then_some((block, after))
}

fn damaged(name: &str) -> Error {
    Error::data(format!("the log file {name} is not as Hudi writes it: a block has less in it than it says"))
        .with_hint("compact the table, or restore the file")
}

/// What is heeded of the header of a block.
#[derive(Default)]
struct Entries<'a> {
    instant: Option<String>,
    target: Option<String>,
    schema: Option<&'a str>,
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Goes past a block, behind its length.
    fn block(mut self, log: &LogFile, found: &mut Instants) -> Result<()> {
        let damaged = || damaged(&log.file_name());
        let (kind, entries, mut content) = self.parts().ok_or_else(damaged)?;
        let is_sound = match kind {
            AVRO => entries.schema.filter(|schema| avro::is_countable(schema)).and_then(|_| content.records()),
            DELETES => content.int().and_then(|_| content.counted()).map(drop),
            HFILE => return Err(refused(format!("blocks of HFile, as in the log file {},", log.file_name()))),
            PARQUET => look_through_file(content.0).ok(),
            COMMAND => {
                found.rolled_back.extend(entries.target);
                return Ok(());
            }
            _ => return Ok(()),
        };
        // The crate would pass over a block that no commit is told of.
        let instant = is_sound.and(entries.instant).ok_or_else(damaged)?;
        found.written.entry(instant).or_default().insert(log.write_token.clone());
        Ok(())
    }

    /// The commit that wrote a block of rows of which the end is missing, where its header tells so far.
    fn begun(mut self) -> Option<String> {
        self.int()?;
        self.int().filter(|kind| [DELETES, AVRO, HFILE, PARQUET].contains(kind))?;
        let count = self.int().filter(|count| *count <= MOST_ENTRIES)?;
        for _ in 0..count {
            let (key, value) = (self.int()?, self.counted()?);
            if key == INSTANT {
                return std::str::from_utf8(value).ok().map(str::to_owned);
            }
        }
        None
    }

    /// What kind a block is of, what its header tells, and what it holds. All of that together is the block.
    fn parts(&mut self) -> Option<(u32, Entries<'a>, Rest<'a>)> {
        if self.int()? != 1 {
            return None;
        }
        let kind = self.int()?;
        let entries = self.entries()?;
        let length = usize::try_from(self.long()?).ok()?;
        let content = Rest(self.take(length)?);
        self.entries()?;
        self.long()?;
        self.0.is_empty().then_some((kind, entries, content))
    }

    /// Goes past the entries of a header or footer. Of several with one key the last counts.
    fn entries(&mut self) -> Option<Entries<'a>> {
        let count = self.int().filter(|count| *count <= MOST_ENTRIES)?;
        let mut entries = Entries::default();
        for _ in 0..count {
            let (key, value) = (self.int()?, std::str::from_utf8(self.counted()?).ok()?);
            match key {
                INSTANT => entries.instant = Some(value.to_owned()),
                TARGET => entries.target = Some(value.to_owned()),
                SCHEMA => entries.schema = Some(value),
                _ => {}
            }
        }
        Some(entries)
    }

    /// Goes past a version and records.
    fn records(&mut self) -> Option<()> {
        self.int()?;
        let count = self.int()?;
        (0..count).try_for_each(|_| self.counted().map(drop))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// As many bytes as the number before them says.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.int()?).ok()?;
        self.take(count)
    }

    fn int(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    }

    fn long(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn counted(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    /// The header of a block: how many entries it says that it has besides that of the columns, which it has too, and the one of the
    /// commit.
    fn header(says: u32, instant: &str) -> Vec<u8> {
        header_of(r#""string""#, says, instant)
    }

    fn header_of(schema: &str, says: u32, instant: &str) -> Vec<u8> {
        let entry = |key: u32, text: &str| [&key.to_be_bytes()[..], &counted(text.as_bytes())[..]].concat();
        [&says.saturating_add(1).to_be_bytes()[..], &entry(SCHEMA, schema)[..], &entry(INSTANT, instant)[..]].concat()
    }

    fn block(kind: u32, header: &[u8], content: &[u8]) -> Vec<u8> {
        let (start, length) = ([1_u32.to_be_bytes(), kind.to_be_bytes()].concat(), (content.len() as u64).to_be_bytes());
        let block = [&start[..], header, &length[..], content, &0_u32.to_be_bytes()[..]].concat();
        let length = block.len() as u64 + 8;
        [MAGIC, &length.to_be_bytes()[..], &block[..], &(length + MAGIC.len() as u64).to_be_bytes()[..]].concat()
    }

    fn records(says: u32, records: &[&[u8]]) -> Vec<u8> {
        let start = [3_u32.to_be_bytes(), says.to_be_bytes()].concat();
        [start].into_iter().chain(records.iter().map(|record| counted(record))).flatten().collect()
    }

    fn log(name: &str) -> LogFile {
        name.parse().unwrap()
    }

    fn found(file: &[u8]) -> Result<Instants> {
        let mut found = Instants::default();
        instants(&log(".a_9.log.1_0-1-2"), file, &mut found).map(|()| found)
    }

    fn written(file: &[u8]) -> Vec<String> {
        found(file).unwrap().written.into_keys().collect()
    }

    fn kind(file: &[u8]) -> Kind {
        found(file).unwrap_err().kind()
    }

    #[test]
    fn blocks_tell_their_commits() {
        let deletes = [&3_u32.to_be_bytes()[..], &counted(b"keys")[..]].concat();
        let file = [
            block(AVRO, &header(1, "1"), &records(2, &[b"one", b""])),
            block(DELETES, &header(1, "2"), &deletes),
            block(COMMAND, &[&header(2, "3")[..], &TARGET.to_be_bytes(), &counted(b"1")[..]].concat(), b""),
            block(PARQUET, &header(1, "4"), b"PAR1"),
        ];
        assert_eq!(written(&file.concat()), ["1", "2", "4"]);
        assert_eq!(found(&file.concat()).unwrap().rolled_back, BTreeSet::from(["1".to_owned()]));
        // A write that failed, and the next one.
        let cut = &file[0][..file[0].len() - 9];
        assert_eq!(written(&[cut, &file[1][..]].concat()), ["2"]);
        assert!(written(cut).is_empty() && written(b"").is_empty());
    }

    #[test]
    fn what_is_cut_of_a_completed_commit_is_lost() {
        let block = |instant: &str| block(AVRO, &header(1, instant), &records(1, &[b"one"]));
        let of = |files: &[(&str, &[u8])]| {
            let mut found = Instants::default();
            for (name, file) in files {
                instants(&log(name), file, &mut found).unwrap();
            }
            found
        };
        let (one, two) = (block("1"), block("2"));
        let (cut, stub) = (&one[..one.len() - 9], &one[..20]);
        let (first, again) = (".a_1.log.1_0-1-2", ".a_1.log.2_0-1-3");
        let behind = [cut, &two[..]].concat();
        for is_named in [false, true] {
            assert_eq!(of(&[(first, cut)]).lost(is_named, |instant| instant == "1"), Some(first));
            assert_eq!(of(&[(first, &behind[..])]).lost(is_named, |_| true), Some(first));
            assert_eq!(of(&[(first, &one[..])]).lost(is_named, |_| true), None);
            // The write has failed, or the task was tried again.
            assert_eq!(of(&[(first, cut)]).lost(is_named, |_| false), None);
            assert_eq!(of(&[(first, cut), (again, &one[..])]).lost(is_named, |_| true), None);
        }
        let command = [&header(2, "3")[..], &TARGET.to_be_bytes(), &counted(b"1")[..]].concat();
        let taken_back = [cut, &self::block(COMMAND, &command, b"")[..]].concat();
        assert_eq!(of(&[(first, &taken_back[..])]).lost(false, |_| true), None);
        // Where the name of the file tells the commit, nothing needs to be left of the block.
        for left in [stub, &one[..3], b""] {
            assert_eq!(of(&[(first, left)]).lost(false, |_| true), None);
            assert_eq!(of(&[(first, left)]).lost(true, |_| true), Some(first));
        }
    }

    #[test]
    fn what_a_block_does_not_have_is_refused() {
        let sound = records(1, &[b"one"]);
        assert_eq!(kind(b"no log file"), Kind::Data);
        assert_eq!(kind(&block(AVRO, &header(u32::MAX, "1"), &sound)), Kind::Data);
        assert_eq!(kind(&block(AVRO, &header(2, "1"), &sound)), Kind::Data);
        assert_eq!(kind(&block(AVRO, &0_u32.to_be_bytes(), &sound)), Kind::Data);
        assert_eq!(kind(&block(AVRO, &header(1, "1"), &records(2, &[b"one"]))), Kind::Data);
        let long = [&records(1, &[])[..], &u32::MAX.to_be_bytes()[..]].concat();
        assert_eq!(kind(&block(AVRO, &header(1, "1"), &long)), Kind::Data);
        assert_eq!(kind(&block(HFILE, &header(1, "1"), b"")), Kind::Unsupported);
        // Lists of more items than anybody counts to, and of more groups of rows than there is memory for.
        assert_eq!(kind(&block(AVRO, &header_of(r#"{"type":"array","items":"null"}"#, 1, "1"), &sound)), Kind::Data);
        let footer = b"PAR1\x49\xFC\xFF\xFF\xFF\xFF\x07\x07\x00\x00\x00PAR1";
        assert_eq!(kind(&block(PARQUET, &header(1, "1"), footer)), Kind::Data);
    }
}
