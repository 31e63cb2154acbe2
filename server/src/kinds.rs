//! What can stand behind `kind = "…"`: connectors and engines, in one list.

use std::sync::{Arc, LazyLock};

use nexus_flight_catalog::{Options, Result, Source, Spec, source};

/// All kinds, sorted.
pub static SPECS: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
    let mut specs = [nexus_sources::SPECS, nexus_engines::SPECS].concat();
    specs.sort_by_key(|spec| spec.kind);
    specs
});

/// Makes a source of any of them. Errors: as [`source::open`].
pub fn open(kind: &str, options: &Options) -> Result<Arc<dyn Source>> {
    source::open(&SPECS, kind, options)
}
