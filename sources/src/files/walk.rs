//! The files below a local folder, entry by entry, where one of those is nothing that the store can list: a name that is no
//! path for it, a link that goes round, a folder that may not be read.

use std::fs;
use std::path::{Path as FilePath, PathBuf};

use nexus_flight_catalog::{Error, Place, Result};
use object_store::path::Path;

use super::format::Format;
use super::listing::hidden;
use super::pattern::Pattern;
use crate::stores::{ended_early, too_long};

/// The files that are not empty and not hidden, of a pattern those that match; of more than `most`, as many. Links that lead
/// nowhere or round are left out. Errors: about an entry that is wanted and cannot be read.
pub(super) async fn files(root: PathBuf, folder: Path, pattern: Option<Pattern>, most: usize) -> Result<Vec<Path>> {
    let walk = tokio::task::spawn_blocking(move || {
        let mut walk = Walk { root, pattern, most, trail: Vec::new(), found: Vec::new() };
        walk.folder(folder.as_ref())?;
        Ok(walk.found)
    });
    walk.await.map_err(ended_early)?
}

struct Walk {
    root: PathBuf,
    pattern: Option<Pattern>,
    most: usize,
    /// The folders on the way to where it is, without links.
    trail: Vec<PathBuf>,
    found: Vec<Path>,
}

impl Walk {
    fn folder(&mut self, relative: &str) -> Result<()> {
        let folder = self.root.join(relative);
        let real = folder.canonicalize().map_err(|cause| unreadable(&cause, &folder))?;
        if !real.starts_with(&self.root) {
            let error = Error::denied("this is a link that leads out of the location").with_hint("remove the link");
            return Err(error.at(place(&folder)));
        }
        if self.trail.contains(&real) {
            return Ok(());
        }
        self.trail.push(real);
        for entry in fs::read_dir(&folder).map_err(|cause| unreadable(&cause, &folder))? {
            let name = entry.map_err(|cause| unreadable(&cause, &folder))?.file_name();
            self.entry(relative, &folder, &name)?;
        }
        self.trail.pop();
        Ok(())
    }

    fn entry(&mut self, parent: &str, folder: &FilePath, name: &std::ffi::OsStr) -> Result<()> {
        let text = name.to_string_lossy();
        let relative = if parent.is_empty() { text.clone().into_owned() } else { format!("{parent}/{text}") };
        let path = folder.join(name);
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            // Gone since it was listed, or a link that leads nowhere.
            Err(_) if fs::symlink_metadata(&path).is_ok_and(|it| it.is_symlink()) => return Ok(()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(unreadable(&cause, folder)),
        };
        let is_wanted = match &self.pattern {
            Some(pattern) if found.is_dir() => pattern.leads(&relative),
            Some(pattern) => pattern.matches(&relative),
            None => found.is_dir() || Format::of(&text).is_some(),
        };
        let is_file = found.is_file() && found.len() > 0;
        if hidden(&text) || !is_wanted || !(found.is_dir() || is_file) || self.found.len() >= self.most {
            return Ok(());
        }
        let Some(path) = name.to_str().and_then(|_| Path::parse(&relative).ok()) else {
            let message = format!("the name {name:?} is no path: a path has no control characters, and is UTF-8");
            return Err(Error::data(message).with_hint("rename it").at(place(folder)));
        };
        if found.is_dir() {
            return self.folder(&relative);
        }
        self.found.push(path);
        Ok(())
    }
}

fn place(path: &FilePath) -> Place {
    Place::File { path: path.display().to_string(), line: None }
}

fn unreadable(cause: &std::io::Error, folder: &FilePath) -> Error {
    let error = match cause.kind() {
        std::io::ErrorKind::PermissionDenied => Error::denied("this process may not read it"),
        std::io::ErrorKind::InvalidFilename => too_long(),
        _ => Error::unavailable(format!("the folder cannot be listed: {cause}")),
    };
    error.at(place(folder))
}
