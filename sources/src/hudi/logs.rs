//! Log files, walked through before the crate of the format reads them: it makes room for whatever number it finds in one, and
//! goes past what it does not know.

use nexus_flight_catalog::{Error, Result};

use super::properties::refused;

/// What a block begins with.
const MAGIC: &[u8] = b"#HUDI#";
/// The most entries that the header or the footer of a block has, of which there are nine kinds.
const MOST_ENTRIES: u32 = 64;
/// The entry with the commit that wrote the block.
const INSTANT: u32 = 0;
/// The kinds of blocks that change rows.
const DELETES: u32 = 1;
const AVRO: u32 = 3;
const HFILE: u32 = 4;
const PARQUET: u32 = 5;

/// The commits that wrote what is in a log file of this name. What a failed write has cut is passed over, as Hudi does.
/// Errors: `Data` where a block has less than it says; `Unsupported` for blocks of HFile.
pub(super) fn instants(name: &str, file: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = file;
    // What is shorter than the beginning of a block is taken for the end.
    while rest.len() >= MAGIC.len() {
        let Some(block) = rest.strip_prefix(MAGIC) else { return Err(damaged(name)) };
        let mut block = Rest(block);
        let length = block.long().ok_or_else(|| damaged(name))?;
        rest = match whole(block.0, length) {
            Some((within, after)) => {
                found.extend(Rest(within).block(name)?);
                after
            }
            None => {
                let searched = rest.get(MAGIC.len()..).unwrap_or_default();
                let next = searched.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
                next.and_then(|next| searched.get(next..)).unwrap_or_default()
            }
        };
    }
    Ok(found)
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

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The commit that wrote a block, behind its length; none where it changes no rows.
    fn block(mut self, name: &str) -> Result<Option<String>> {
        let (kind, instant, mut content) = self.parts().ok_or_else(|| damaged(name))?;
        let is_sound = match kind {
            AVRO => content.records(),
            DELETES => content.int().and_then(|_| content.counted()).map(drop),
            HFILE => return Err(refused(format!("blocks of HFile, as in the log file {name},"))),
            PARQUET => Some(()),
            _ => return Ok(None),
        };
        match (is_sound, instant) {
            (Some(()), Some(instant)) => Ok(Some(instant)),
            // The crate would pass over a block that no commit is told of.
            _ => Err(damaged(name)),
        }
    }

    /// What kind a block is of, the commit that wrote it, and what it holds. All of that together is the block.
    fn parts(&mut self) -> Option<(u32, Option<String>, Rest<'a>)> {
        if self.int()? != 1 {
            return None;
        }
        let kind = self.int()?;
        let instant = self.entries()?;
        let length = usize::try_from(self.long()?).ok()?;
        let content = Rest(self.take(length)?);
        self.entries()?;
        self.long()?;
        self.0.is_empty().then_some((kind, instant, content))
    }

    /// Goes past the entries of a header or footer. The commit is the last one that is told.
    fn entries(&mut self) -> Option<Option<String>> {
        let count = self.int().filter(|count| *count <= MOST_ENTRIES)?;
        let mut instant = None;
        for _ in 0..count {
            let (key, value) = (self.int()?, self.counted()?);
            if key == INSTANT {
                instant = Some(std::str::from_utf8(value).ok()?.to_owned());
            }
        }
        Some(instant)
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

    /// The header of a block: how many entries it says that it has, and the one of the commit.
    fn header(says: u32, instant: &str) -> Vec<u8> {
        [says.to_be_bytes().to_vec(), INSTANT.to_be_bytes().to_vec(), counted(instant.as_bytes())].concat()
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

    fn kind(file: &[u8]) -> Kind {
        instants(".a.log.1", file).unwrap_err().kind()
    }

    #[test]
    fn blocks_tell_their_commits() {
        let deletes = [&3_u32.to_be_bytes()[..], &counted(b"keys")[..]].concat();
        let file = [
            block(AVRO, &header(1, "1"), &records(2, &[b"one", b""])),
            block(DELETES, &header(1, "2"), &deletes),
            // A rollback.
            block(0, &header(1, "3"), b""),
            block(PARQUET, &header(1, "4"), b"PAR1"),
        ];
        assert_eq!(instants("", &file.concat()).unwrap(), ["1", "2", "4"]);
        // A write that failed, and the next one.
        let cut = &file[0][..file[0].len() - 9];
        assert_eq!(instants("", &[cut, &file[1][..]].concat()).unwrap(), ["2"]);
        assert!(instants("", cut).unwrap().is_empty() && instants("", b"").unwrap().is_empty());
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
    }
}
