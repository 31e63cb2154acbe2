//! The policy: a file of its own, which is read again when it changes.

use std::path::Path;
use std::sync::{Arc, Weak};

use nexus_flight_catalog::policy::{Expressions, Policies, Policy, PolicyText};
use nexus_flight_catalog::{Error, Place, Result};

use super::load;
use crate::reload::{self, Seen};
use crate::workers::Workers;

/// Reads a policy, with what makes its expressions, and goes on looking at its file on these threads for as
/// long as it is in use; errors that it hides are logged, and with `redacts` only of what kind they are. Each time that another one comes into
/// force that is told to `changed`, before and after. Errors: `Invalid` with the file, and the line where there is one.
pub fn policies(
    path: &Path,
    expressions: Expressions,
    redacts: bool,
    threads: &Workers,
    changed: impl Fn() + Send + Sync + 'static,
) -> Result<Arc<Policies>> {
    let (seen, policy) = read(path)?;
    let policies = Arc::new(Policies::new(policy, expressions, redacts).map_err(|error| within(path, error))?);
    let held: Weak<Policies> = Arc::downgrade(&policies);
    let (of_reading, of_taking) = (path.to_owned(), path.to_owned());
    let take = move |policy| match held.upgrade() {
        None => Ok(false),
        Some(policies) => {
            changed();
            policies.replace(policy).map_err(|error| within(&of_taking, error))?;
            changed();
            Ok(true)
        }
    };
    threads.spawn(reload::follow("policy", seen, move || read(&of_reading), take));
    Ok(policies)
}

fn read(path: &Path) -> Result<(Seen, Policy)> {
    let wrong = |reason: String| within(path, Error::invalid(format!("the policy cannot be read: {reason}")));
    let bytes = reload::read(path).map_err(wrong)?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (mut text, places) = load::parse::<PolicyText>(text, path, base, &|name| std::env::var(name).ok())?;
    for (rule, place) in text.rules.iter_mut().zip(places.items("rules")) {
        rule.place = Some(place);
    }
    Ok((reload::seen(&[&bytes, &places.seen()]), Policy::new(text).map_err(|error| within(path, error))?))
}

fn within(path: &Path, error: Error) -> Error {
    error.at(Place::File { path: path.display().to_string(), line: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_rule_has_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        let rule = "[[rules]]\ntables = [\"a.b.c\"]\nallow = [\"read\"]\n";
        std::fs::write(&path, format!("{rule}\n# The second.\n{rule}masks = {{ x = \"1\" }}\ncolumns = [\"y\"]\n")).unwrap();
        let error = read(&path).map(|_| ()).unwrap_err();
        assert_eq!(error.message(), "rule 2: it masks \"x\", which is not one of its columns");
        assert_eq!(error.place(), Some(&Place::File { path: path.display().to_string(), line: Some(6) }));
    }
}
