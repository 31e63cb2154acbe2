//! How often each catalog was written to through this gateway: what is kept of a source that has no versions ends with a write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A count for each catalog that there is.
#[derive(Debug, Default)]
pub struct Writes(Mutex<HashMap<String, u64>>);

impl Writes {
    /// Counts one that has ended, whether well or not.
    pub fn note(&self, catalog: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(catalog.to_owned()).or_default() += 1;
    }

    /// How many there were.
    pub fn count(&self, catalog: &str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(catalog).copied().unwrap_or_default()
    }
}
