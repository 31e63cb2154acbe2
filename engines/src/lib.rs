//! Compute engines: what runs a whole statement elsewhere and streams its rows back. A folder each, and one line in [`SPECS`].
//!
//! An engine sees `nexus-flight-catalog` and nothing else of the project. What it holds is named and read as of any other source.

use nexus_flight_catalog::Spec;

mod engine;
mod scan;
mod told;
pub mod translate;
pub mod trino;

pub use engine::{Engine, Load, Opened, open};

/// What can stand behind `kind = "…"` beside the connectors, sorted.
pub static SPECS: &[&Spec] = &[&trino::SPEC];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_are_sorted_and_documented() {
        assert!(SPECS.is_sorted_by_key(|spec| spec.kind));
        assert!(SPECS.iter().map(|spec| spec.kind).eq(engine::ENGINES.iter().map(|(spec, _)| spec.kind)));
        for spec in SPECS {
            assert!(spec.docs.starts_with(&format!("# {}\n", spec.kind)), "{}", spec.kind);
            for opt in spec.options {
                assert!(!opt.help.ends_with('.'), "{}: {}", spec.kind, opt.name);
                assert!(spec.docs.contains(opt.name), "{}: {} is not on its page", spec.kind, opt.name);
            }
        }
    }
}
