//! What tickets and prepared handles hold. All of it travels with the client, sealed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use nexus_flight_catalog::{Error, Principal, Result};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::flight::encode::schema_bytes;
use crate::flight::profile::TypeProfile;
use crate::parts::Part;
use crate::session::Session;

/// The most that bound parameters may take in a handle: handles come back in every call about them.
pub const PARAMETERS: usize = 256 << 10;

/// The most that the endpoints of an answer may take for its statement, which each of them carries. Clients take messages of 4 MiB where
/// nobody tells them otherwise, and the statement comes back to them by itself too.
const CARRIED: usize = 2 << 20;

/// A statement that was described, to be run by whoever it was described for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// Tells it from others, so that it can be cancelled.
    pub id: Uuid,
    /// For whom.
    pub principal: String,
    /// What to run.
    pub statement: Statement,
    /// The current catalog and schema when it was described.
    pub session: Session,
    /// The types that were promised.
    pub profile: TypeProfile,
    /// Of the schema that was promised.
    pub fingerprint: [u8; 16],
    /// The part of its answer that is to be had.
    pub part: Option<Part>,
    /// The rows that it affected, where it writes: it ran when it was described, and never runs again.
    pub affected: Option<i64>,
}

/// A prepared statement.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prepared {
    /// For whom.
    pub principal: String,
    /// The types that were promised.
    pub profile: TypeProfile,
    /// What to run.
    pub statement: Statement,
}

/// A statement and the values bound to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Statement {
    /// The text.
    pub text: Arc<str>,
    /// The transaction that it is part of.
    pub transaction: Option<Uuid>,
    /// The serialised `substrait.Plan` that the text stands for.
    pub substrait: Option<Arc<[u8]>>,
    /// The rows of parameters as an Arrow IPC stream of one batch.
    parameters: Option<Vec<u8>>,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(text: &str, transaction: Option<Uuid>) -> Self {
        Self { text: text.into(), transaction, substrait: None, parameters: None }
    }

    /// A Substrait plan, with what stands for it where statements are shown.
    pub fn of_plan(plan: &[u8], title: &str, transaction: Option<Uuid>) -> Self {
        Self { substrait: Some(plan.into()), ..Self::new(title, transaction) }
    }

    /// The same statement in a transaction, or in none.
    pub fn within(self, transaction: Option<Uuid>) -> Self {
        Self { transaction, ..self }
    }

    /// The same statement with other parameters. Errors: `Exhausted` where they are too large to travel.
    pub fn bound(&self, rows: Option<&RecordBatch>) -> Result<Self> {
        let parameters = rows.map(to_ipc).transpose()?;
        if let Some(bytes) = parameters.as_ref().filter(|bytes| bytes.len() > PARAMETERS) {
            return Err(Error::exhausted(format!("the parameters have {} bytes, the limit is {PARAMETERS}", bytes.len()))
                .with_hint("bind smaller values")
                .with_retryable(false));
        }
        Ok(Self { parameters, ..self.clone() })
    }

    /// The most endpoints that its answer may come in.
    pub fn endpoints(&self) -> usize {
        let plan = self.substrait.as_ref().map_or(0, |plan| plan.len());
        let parameters = self.parameters.as_ref().map_or(0, Vec::len);
        (CARRIED / (self.text.len() + plan + parameters).max(1)).max(1)
    }

    /// The bound rows.
    pub fn parameters(&self) -> Result<Option<RecordBatch>> {
        let Some(bytes) = &self.parameters else { return Ok(None) };
        Ok(StreamReader::try_new(bytes.as_slice(), None)?.next().transpose()?)
    }
}

fn to_ipc(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Refuses what was made for somebody else.
pub fn check_owner(owner: &str, principal: &Principal, what: &str) -> Result<()> {
    if owner == &*principal.0 {
        return Ok(());
    }
    Err(Error::denied(format!("the {what} was made for another user")).with_hint("ask for one of your own"))
}

/// Tells one schema from another.
pub fn fingerprint(schema: &Schema) -> Result<[u8; 16]> {
    let mut short = [0; 16];
    short.copy_from_slice(&digest(&SHA256, &schema_bytes(schema)?).as_ref()[..16]);
    Ok(short)
}
