//! Whether a trail is as it was written: no record changed, none missing, none added.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use nexus_flight_catalog::{Error, Kind, Place, Result};
use serde::Deserialize;

use crate::audit::chain::{Chain, Head, Link};
use crate::audit::{HEAD, files};
use crate::config;

/// A trail that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The index of the first record that is kept.
    pub first: u64,
    /// The index of the last.
    pub last: u64,
    /// The hash of the last, in hexadecimal digits: kept elsewhere, it tells later whether all up to here is still there.
    pub head: String,
    /// The bytes after it that are no whole line: what was being written when the process ended, or is now.
    pub torn: u64,
}

/// What the first record of a file says.
#[derive(Deserialize)]
struct Opened {
    event: String,
    previous: String,
}

/// Reads a trail from its first record to its last. `known` is an earlier last record, by index and hash. Errors: `Data` with the file,
/// the line and the index of the first record that is not as it was written.
pub fn verify(config: &config::Audit, base: &Path, known: Option<(u64, &str)>) -> Result<Verified> {
    let folder = base.join(&config.folder);
    let in_folder = |reason: String| Error::data(reason).at(Place::File { path: folder.display().to_string(), line: None });
    let io = |error: std::io::Error| in_folder(format!("the audit trail cannot be read: {error}"));
    let chain = Chain::new(config.key.as_ref());
    let mut known: Vec<Link> = match known {
        None => Vec::new(),
        Some((index, hash)) => {
            let known = Link::known(index, hash)
                .ok_or_else(|| Error::invalid("the hash of a record is 64 hexadecimal digits in lower case"))?;
            vec![known]
        }
    };
    let is_head_changed = match File::open(folder.join(HEAD)).and_then(|head| chain.of_head(&head)).map_err(io)? {
        Head::Empty => return Err(in_folder("the audit trail has no head".to_owned())),
        Head::Of(link) => {
            known.push(link);
            false
        }
        // Told at the end: a record that is wrong has more to say.
        Head::Changed => true,
    };
    let files = files(&folder).map_err(io)?;
    let Some((first, _)) = files.first() else { return Err(in_folder("record 0 is missing, and all after it".to_owned())) };
    let first = *first;
    if first > 0 && files.len() < config.keep as usize {
        // Old files go only when there are more than that.
        return Err(in_folder(format!("record 0 is missing, and those after it up to {first}")));
    }
    let (mut last, mut torn): (Option<Link>, u64) = (None, 0);
    let is_latest = |path: &Path| files.last().is_some_and(|(_, latest)| latest == path);
    for (begins, path) in &files {
        let mut lines = BufReader::new(File::open(path).map_err(io)?);
        let (mut line, mut number) = (Vec::new(), 0);
        while lines.read_until(b'\n', &mut line).map_err(io)? > 0 {
            number += 1;
            if !line.ends_with(b"\n") && is_latest(path) {
                // It was being written, or the process ended then. What should be here is missed by the head.
                torn = line.len() as u64;
                break;
            }
            let index = last.as_ref().map_or(first, Link::next);
            let wrong = |reason: String| {
                Error::new(Kind::Data, reason).at(Place::File { path: path.display().to_string(), line: Some(number) })
            };
            let before = match (&last, number) {
                (Some(last), 1) if *begins != last.next() => {
                    return Err(wrong(format!("record {} is missing, and those after it up to {begins}", last.next())));
                }
                (Some(last), _) => last.clone(),
                (None, _) => begins_after(first, &line).ok_or_else(|| wrong(changed(index)))?,
            };
            let link = chain.checked(&before, &line).ok_or_else(|| wrong(changed(index)))?;
            if number == 1 && begins_after(*begins, &line).as_ref() != Some(&before) {
                return Err(wrong(changed(index)));
            }
            known.retain(|known| known.index != link.index || known.hash != link.hash);
            if known.iter().any(|known| known.index == link.index) {
                return Err(wrong(changed(index)));
            }
            last = Some(link);
            line.clear();
        }
    }
    let last = last.ok_or_else(|| in_folder(format!("record {first} is missing, and all after it")))?;
    if known.iter().any(|known| known.index > last.index) {
        return Err(in_folder(format!("record {} is missing, and those after it", last.next())));
    }
    if is_head_changed {
        return Err(in_folder(format!("record {} is missing, or the head of the trail is not as it was written", last.next())));
    }
    // What is known of one before the first is of a file that was let go.
    Ok(Verified { first, last: last.index, head: last.hex(), torn })
}

fn changed(index: u64) -> String {
    format!("record {index} is not as it was written, or one before it is missing")
}

/// What the first line of a file says that it comes after.
fn begins_after(index: u64, line: &[u8]) -> Option<Link> {
    let opened: Opened = serde_json::from_slice(line).ok().filter(|opened: &Opened| opened.event == "opened")?;
    match index.checked_sub(1) {
        None => Some(Link::first()).filter(|first| first.hex() == opened.previous),
        Some(before) => Link::known(before, &opened.previous),
    }
}
