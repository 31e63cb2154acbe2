//! Options that only some kinds of catalogs have.

use nexus_flight_catalog::{Error, Options, Result};

/// An option that some kinds of catalogs have.
pub(crate) struct Has {
    pub(crate) option: &'static str,
    /// The kinds that have it.
    pub(crate) kinds: &'static [&'static str],
    /// Those of them that are nothing without it.
    pub(crate) needed: &'static [&'static str],
}

impl Has {
    /// An option that these kinds have, and may be without.
    pub(crate) const fn some(option: &'static str, kinds: &'static [&'static str]) -> Self {
        Self { option, kinds, needed: &[] }
    }

    /// An option that these kinds have, and are nothing without.
    pub(crate) const fn all(option: &'static str, kinds: &'static [&'static str]) -> Self {
        Self { option, kinds, needed: kinds }
    }
}

/// Errors: `Invalid` for an option that has no meaning for a kind of catalog, and for one that it needs and that is not given.
pub(crate) fn check_kind(kind: &str, options: &Options, all: &[Has]) -> Result<()> {
    for Has { option, kinds, needed } in all {
        let is_given = options.values.contains_key(*option);
        if is_given && !kinds.contains(&kind) {
            return Err(Error::invalid(format!("\"{option}\" has no meaning where the catalog is \"{kind}\""))
                .with_hint(format!("remove it, or set catalog = \"{}\"", kinds.join("\" or \"")))
                .at(options.key(option)));
        }
        if !is_given && needed.contains(&kind) {
            return Err(Error::invalid(format!("a catalog of the kind \"{kind}\" needs \"{option}\""))
                .with_hint(format!("add {option} = …"))
                .at(options.key(option)));
        }
    }
    Ok(())
}
