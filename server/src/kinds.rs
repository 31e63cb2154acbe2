//! What can stand behind `kind = "…"`: connectors and engines, in one list.

use std::sync::{Arc, LazyLock};

use nexus_engines::{Engine, Opened};
use nexus_flight_catalog::{Options, Result, Source, Spec, source};

/// All kinds, sorted.
pub static SPECS: LazyLock<Vec<&'static Spec>> = LazyLock::new(|| {
    let mut specs = [nexus_sources::SPECS, nexus_engines::SPECS].concat();
    specs.sort_by_key(|spec| spec.kind);
    specs
});

/// A source, with the engine that it is, where it is one.
pub type Made = (Arc<dyn Source>, Option<Arc<dyn Engine>>);

/// Makes a source of any of them. Errors: as [`source::open`].
pub fn open(kind: &str, options: &Options) -> Result<Made> {
    match nexus_engines::open(kind, options) {
        Some(opened) => opened.map(|Opened { source, engine }| (source, Some(engine))),
        None => source::open(&SPECS, kind, options).map(|source| (source, None)),
    }
}
