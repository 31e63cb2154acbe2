//! A session: the current catalog and schema of a client, carried by the client itself as a sealed value.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a client has set. Any replica that can open the sealed value can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Tells sessions apart in logs and tables.
    pub id: Uuid,
    /// Where names without a catalog are looked up.
    pub catalog: String,
    /// Where names without a schema are looked up.
    pub schema: String,
    /// When it began.
    pub started: SystemTime,
}

impl Session {
    /// A new session with the configured defaults.
    pub fn new(catalog: impl Into<String>, schema: impl Into<String>) -> Self {
        Self { id: Uuid::new_v4(), catalog: catalog.into(), schema: schema.into(), started: SystemTime::now() }
    }
}
