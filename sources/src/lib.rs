//! Every connector: a folder each, and one line in [`SPECS`].
//!
//! A connector sees `nexus-flight-catalog` and nothing else of the project. To add one, copy the folder `memory`.

use std::sync::Arc;

use nexus_flight_catalog::{Options, Result, Source, Spec, source};

pub mod delta;
pub mod files;
#[cfg(feature = "hudi")]
pub mod hudi;
pub mod iceberg;
mod lake;
pub mod memory;
pub mod postgres;
mod stores;

/// What can stand behind `kind = "…"`, sorted.
pub static SPECS: &[&Spec] = &[
    &delta::SPEC,
    &files::SPEC,
    #[cfg(feature = "hudi")]
    &hudi::SPEC,
    &iceberg::SPEC,
    &memory::SPEC,
    &postgres::SPEC,
];

/// Makes a source of one of these kinds. Errors: as [`source::open`].
pub fn open(kind: &str, options: &Options) -> Result<Arc<dyn Source>> {
    source::open(SPECS, kind, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_lists_the_known_ones() {
        let options = Options { catalog: "lake".into(), ..Options::default() };
        insta::assert_snapshot!(
            // Which is one where it is built in.
            open("file", &options).unwrap_err().to_string().replace("\"hudi\", ", ""),
            @r#"catalogs.lake.kind: there is no kind of source "file"; did you mean "files"? The kinds are "delta", "files", "iceberg", "memory", "postgres""#
        );
    }

    #[test]
    fn databases_and_buckets_are_elsewhere() {
        let is_elsewhere = |kind, key: &str, value: &str| {
            let values = [(key.to_owned(), serde_json::Value::from(value))].into_iter().collect();
            open(kind, &Options { values, ..Options::default() }).unwrap().is_elsewhere()
        };
        assert!(is_elsewhere("postgres", "url", "postgres://me@h/d"));
        assert!(is_elsewhere("files", "location", "s3://b"));
        assert!(is_elsewhere("delta", "location", "s3://b"));
        assert!(!is_elsewhere("delta", "location", "data"));
        #[cfg(feature = "hudi")]
        assert!(is_elsewhere("hudi", "location", "s3://b") && !is_elsewhere("hudi", "location", "data"));
        assert!(is_elsewhere("iceberg", "location", "s3://b"));
        assert!(!is_elsewhere("files", "location", "data"));
        assert!(!is_elsewhere("memory", "size", "1MiB"));
    }

    #[test]
    fn the_specs_are_sorted_and_documented() {
        assert!(SPECS.is_sorted_by_key(|spec| spec.kind));
        for spec in SPECS {
            assert!(spec.docs.starts_with("# "), "{}", spec.kind);
            for opt in spec.options {
                assert!(!opt.help.ends_with('.'), "{}: {}", spec.kind, opt.name);
            }
        }
    }
}
