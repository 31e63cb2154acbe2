//! Files that are read again when they change.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use metrics::Counter;
use nexus_flight_catalog::Result;
use ring::digest::{Context, SHA256};

/// How often files are looked at.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// The most that is read of a file.
const LARGEST_FILE: u64 = 1 << 20;

/// What files held when they were last read: enough to see that they have changed, and no more of what may be secret.
pub type Seen = [u8; 32];

/// What files hold.
pub fn seen(files: &[&[u8]]) -> Seen {
    let mut whole = Context::new(&SHA256);
    for file in files {
        whole.update(&(file.len() as u64).to_le_bytes());
        whole.update(file);
    }
    let mut seen = [0; 32];
    seen.copy_from_slice(whole.finish().as_ref());
    seen
}

/// The bytes of a small file. Errors: the reason.
pub fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    match bytes.len() as u64 > LARGEST_FILE {
        true => Err("it is larger than 1 MiB".to_owned()),
        false => Ok(bytes),
    }
}

/// How often what has changed could not be taken over. Counted from 0, so that an alert sees the first time.
pub fn failures(what: &'static str) -> Counter {
    metrics::counter!("nexus_reload_failures_total", "what" => what)
}

/// Reads files again and again, and each time that they hold something else, takes it over; until that says that nobody wants it
/// any more. What cannot be read or taken is told once for each reason, and what was there before stays.
pub async fn follow<T>(
    what: &'static str,
    mut held: Seen,
    read: impl Fn() -> Result<(Seen, T)>,
    mut take: impl FnMut(T) -> Result<bool>,
) {
    let mut told = None;
    failures(what).increment(0);
    loop {
        tokio::time::sleep(LOOKED_AT).await;
        let (now, taken) = match read() {
            Ok((now, _)) if now == held => continue,
            Ok((now, files)) => (now, take(files)),
            Err(error) if told.as_ref() == Some(&error.to_string()) => continue,
            Err(error) => ([0; 32], Err(error)),
        };
        told = taken.as_ref().err().filter(|_| now == [0; 32]).map(ToString::to_string);
        held = now;
        match taken {
            Ok(true) => tracing::info!(what, "a file has changed and was read again"),
            Ok(false) => return,
            Err(error) => {
                failures(what).increment(1);
                tracing::warn!(what, %error, "what a changed file holds cannot be used, and what was there before stays");
            }
        }
    }
}
