//! The version of a table, where the catalog says which statement tells it.

use std::sync::LazyLock;
use std::time::Duration;

use futures::TryStreamExt;
use nexus_flight_catalog::{Error, Kind, Place, Result, Version};
use ring::hmac;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::decode::Raw;
use super::error;
use super::pool::Lease;

/// How long the statement may take.
const WITHIN: Duration = Duration::from_secs(10);
/// By which values are hashed: who is told a version could else try which value it is of. Each process has its own, as its answers are its own;
/// none of those comes in parts that another one would have to know the version of.
static KEY: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, Uuid::new_v4().as_bytes()));
const HINT: &str = "write one SELECT of one value, such as SELECT max(changed) FROM orders, or leave it out for no version";

/// What tells the version of a table.
#[derive(Debug, Clone)]
pub(super) struct Versioned {
    /// Where it stands in the configuration.
    pub(super) place: Place,
    /// One statement of one value.
    pub(super) sql: String,
}

impl Versioned {
    /// The version of now: a hash of the value, whatever its type and length; unknown where there is none. Errors: what is wrong with the
    /// statement, at its key; `Unavailable` and `Timeout` where the server does not answer. After an error the transaction is still open.
    pub(super) async fn read(&self, lease: &Lease) -> Result<Version> {
        self.value(lease).await.map_err(|error| self.failed(&error))
    }

    async fn value(&self, lease: &Lease) -> Result<Version> {
        lease.run(&format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", WITHIN.as_millis())).await?;
        let statement = lease.answer(lease.client()?.prepare(&self.sql)).await?;
        match (statement.columns().len(), statement.params().len()) {
            (1, 0) => {}
            (0, 0) => return Err(Error::invalid("it gives no value")),
            (columns, 0) => return Err(Error::invalid(format!("it gives {columns} columns"))),
            _ => return Err(Error::invalid("it has parameters")),
        }
        let none: [&(dyn ToSql + Sync); 0] = [];
        let mut rows = Box::pin(lease.answer(lease.client()?.query_raw(&statement, none)).await?);
        let first = lease.answer(rows.try_next()).await?;
        if first.is_some() && lease.answer(rows.try_next()).await?.is_some() {
            return Err(Error::invalid("it gives more than one row"));
        }
        lease.run("ROLLBACK").await?;
        let value: Option<Raw<'_>> = match &first {
            Some(row) => row.try_get(0).map_err(error::of)?,
            None => None,
        };
        Ok(value.map_or(Version::Unknown, |Raw(value)| hashed(value)))
    }

    /// That it is this statement which failed. What is not there is not the table.
    fn failed(&self, error: &Error) -> Error {
        let kind = match error.kind() {
            Kind::Cancelled => Kind::Timeout,
            Kind::NotFound | Kind::Exists | Kind::Unsupported => Kind::Invalid,
            other => other,
        };
        let message = match kind {
            Kind::Timeout => format!("the version of the table was not told within {} s", WITHIN.as_secs()),
            _ => format!("the version of the table cannot be told: {}", error.message()),
        };
        let hint = match kind {
            Kind::Unavailable | Kind::Exhausted | Kind::Precondition => error.hint().unwrap_or("send the statement again"),
            Kind::Timeout => "have it read less, by an index on what it reads, or leave it out for no version",
            _ => HINT,
        };
        Error::new(kind, message).with_hint(hint).with_retryable(error.retryable()).at(self.place.clone())
    }
}

fn hashed(value: &[u8]) -> Version {
    let hash = hmac::sign(&KEY, value);
    Version::Pinned(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn a_version_does_not_tell_its_value_to_who_tries_them() {
        let (one, two) = (1_i64.to_be_bytes(), 2_i64.to_be_bytes());
        assert_eq!(hashed(&one), hashed(&one));
        assert_ne!(hashed(&one), hashed(&two));
        let tried = digest(&SHA256, &one).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_ne!(hashed(&one), Version::Pinned(tried));
    }

    #[test]
    fn an_error_is_of_the_statement_and_not_of_the_table() {
        let place = Place::Key("catalogs.shop.tables.public.t.version_sql".to_owned());
        let versioned = Versioned { place, sql: String::new() };
        let failed = |error: Error| {
            let error = versioned.failed(&error);
            (error.kind(), error.to_string())
        };
        let (kind, text) = failed(Error::not_found("relation \"x\" does not exist"));
        assert_eq!(kind, Kind::Invalid);
        insta::assert_snapshot!(text, @r#"catalogs.shop.tables.public.t.version_sql: the version of the table cannot be told: relation "x" does not exist; write one SELECT of one value, such as SELECT max(changed) FROM orders, or leave it out for no version"#);
        let (kind, text) = failed(Error::cancelled());
        assert_eq!(kind, Kind::Timeout);
        insta::assert_snapshot!(text, @"catalogs.shop.tables.public.t.version_sql: the version of the table was not told within 10 s; have it read less, by an index on what it reads, or leave it out for no version");
        let (kind, _) = failed(Error::unavailable("the connection to the database broke off"));
        assert_eq!(kind, Kind::Unavailable);
    }
}
