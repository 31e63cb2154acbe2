//! Where rows are written: standard output, or a file that takes the place of another only when it is whole.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nexus_flight_catalog::{Error, Result};
use tempfile::NamedTempFile;

/// What the rows of statements are written to.
pub(super) struct Destination {
    to: Box<dyn Write + Send>,
    /// The file that is written, and the path it is for.
    replaces: Option<(NamedTempFile, PathBuf)>,
}

impl Destination {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self { to: Box::new(BufWriter::new(io::stdout())), replaces: None }
    }

    /// A file, as it was before until [`keep`](Self::keep) is called. Pipes and devices are written at once.
    pub(super) fn file(path: &Path) -> Result<Self> {
        Self::open(path).map_err(|cause| failed(path, &cause))
    }

    fn open(path: &Path) -> io::Result<Self> {
        let old = std::fs::metadata(path);
        if let Ok(old) = &old
            && !old.is_file()
        {
            let to = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { to: buffered(to), replaces: None });
        }
        // The mode of a file like any other, which the umask narrows.
        let mode = old.map_or_else(|_| Permissions::from_mode(0o666), |old| old.permissions());
        // Behind a link is what is meant; and beside it, since only within one file system a file is moved in one step.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = tempfile::Builder::new().permissions(mode).tempfile_in(folder)?;
        Ok(Self { to: buffered(written.reopen()?), replaces: Some((written, path)) })
    }

    /// Puts the file in its place. Without this, nothing has changed.
    pub(super) fn keep(mut self) -> Result<()> {
        self.to.flush().map_err(super::output::failed)?;
        let Some((written, path)) = self.replaces else { return Ok(()) };
        written.persist(&path).map(|_| ()).map_err(|cause| failed(&path, &cause.error))
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn buffered(file: File) -> Box<dyn Write + Send> {
    Box::new(BufWriter::new(file))
}

fn failed(path: &Path, cause: &io::Error) -> Error {
    Error::invalid(format!("{} cannot be written: {cause}", path.display())).with_hint("check --output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_as_it_was_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let write = |text: &str| {
            let mut to = Destination::file(&path).unwrap();
            to.write_all(text.as_bytes()).unwrap();
            to
        };
        write("a").keep().unwrap();
        drop(write("b"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
        write("c").keep().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        Destination::file(Path::new("/dev/null")).unwrap().keep().unwrap();
        assert!(Destination::file(&folder.path().join("none/rows.csv")).is_err());
    }
}
