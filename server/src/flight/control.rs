//! Transactions by SQL, for clients that have no calls for them: `BEGIN`, `COMMIT`, `ROLLBACK` and named savepoints. The open
//! transaction is part of the session, which the client carries.

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{Ident, Statement};
use nexus_flight_catalog::{Error, Kind, Result};
use uuid::Uuid;

use crate::flight::caller::Caller;
use crate::statement::{self, Caps};
use crate::transactions::Transactions;

/// What a statement does to the transaction of its session.
#[derive(Debug, PartialEq, Eq)]
pub enum Control {
    /// Begins one.
    Begin,
    /// Makes what was written visible to all.
    Commit,
    /// Forgets what was written.
    Rollback,
    /// Marks this moment.
    Savepoint(String),
    /// Forgets a mark.
    Release(String),
    /// Forgets what was written since a mark.
    RollbackTo(String),
}

impl Control {
    /// What a text says, where it is such a statement. Errors: `Invalid`, `Unsupported` for a form that is not offered.
    pub fn of(text: &str, caps: &Caps) -> Result<Option<Self>> {
        let text = text.trim_start();
        // What comes after a comment only a parser knows.
        let is_comment = text.starts_with("--") || text.starts_with("/*");
        let first = text.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
        let words = ["abort", "begin", "commit", "end", "release", "rollback", "savepoint", "start"];
        if !is_comment && !words.iter().any(|word| first.eq_ignore_ascii_case(word)) {
            return Ok(None);
        }
        let Parsed::Statement(parsed) = statement::parse(text, caps)?.statement else { return Ok(None) };
        let refused = |what: &str| {
            Err(Error::unsupported(format!("{what} is not offered"))
                .with_hint("BEGIN, COMMIT, ROLLBACK, SAVEPOINT s, RELEASE SAVEPOINT s and ROLLBACK TO SAVEPOINT s are"))
        };
        Ok(Some(match *parsed {
            Statement::StartTransaction { modes, modifier, statements, exception, .. } => {
                if !modes.is_empty() || modifier.is_some() || !statements.is_empty() || exception.is_some() {
                    return refused("a transaction with modes");
                }
                Self::Begin
            }
            Statement::Commit { chain: false, modifier: None, .. } => Self::Commit,
            Statement::Rollback { chain: false, savepoint: None } => Self::Rollback,
            Statement::Rollback { chain: false, savepoint: Some(name) } => Self::RollbackTo(folded(&name)),
            Statement::Savepoint { name } => Self::Savepoint(folded(&name)),
            Statement::ReleaseSavepoint { name } => Self::Release(folded(&name)),
            Statement::Commit { .. } | Statement::Rollback { .. } => return refused("AND CHAIN"),
            _ => return Ok(None),
        }))
    }

    /// Does it for a caller, whose session has another transaction then, or none; `within` is the one that the statement came
    /// in. Errors: `Precondition` where the client cannot carry a session, where one is open already, or is not open any more, and
    /// where the client's driver began one, which is its to end.
    pub async fn run(self, caller: &mut Caller, within: Option<Uuid>, transactions: &Transactions) -> Result<()> {
        if let Some(id) = within.filter(|id| caller.session.transaction != Some(*id)) {
            return self.run_within(caller, id, transactions).await;
        }
        if !caller.keeps_cookies {
            return Err(Error::precondition("this client keeps no cookies, so its session cannot carry a transaction")
                .with_hint("turn autocommit off, or cookies on: adbc.flight.sql.rpc.with_cookie_middleware=true for ADBC"));
        }
        let cx = caller.context();
        let open = caller.session.transaction;
        match (self, open) {
            (Self::Begin, Some(_)) => {
                Err(Error::precondition("a transaction of this session is open already")
                    .with_hint("end it by COMMIT or ROLLBACK"))
            }
            (Self::Begin, None) => {
                let begun = transactions.begin(&caller.principal, caller.session.id)?;
                caller.set_transaction(Some(begun)).await;
                Ok(())
            }
            // As in PostgreSQL, ending what has not begun is no mistake.
            (Self::Commit | Self::Rollback, None) => Ok(()),
            (Self::Commit, Some(id)) => {
                transactions.end(&cx, id, true).await?;
                caller.set_transaction(None).await;
                Ok(())
            }
            (Self::Rollback, Some(id)) => {
                match transactions.end(&cx, id, false).await {
                    // It was rolled back when it was left alone.
                    Err(error) if error.kind() == Kind::Precondition => {}
                    ended => ended?,
                }
                caller.set_transaction(None).await;
                Ok(())
            }
            (Self::Savepoint(_) | Self::Release(_) | Self::RollbackTo(_), None) => {
                Err(Error::precondition("no transaction of this session is open").with_hint("begin one by BEGIN"))
            }
            (Self::Savepoint(name), Some(id)) => transactions.get(&caller.principal, id)?.name_savepoint(&cx, name).await,
            (Self::Release(name), Some(id)) => transactions.get(&caller.principal, id)?.end_named(&cx, &name, true).await,
            (Self::RollbackTo(name), Some(id)) => transactions.get(&caller.principal, id)?.end_named(&cx, &name, false).await,
        }
    }

    async fn run_within(self, caller: &Caller, id: Uuid, transactions: &Transactions) -> Result<()> {
        let (cx, open) = (caller.context(), transactions.get(&caller.principal, id)?);
        match self {
            Self::Begin => Err(Error::precondition("a transaction is open already, which the client's driver began")
                .with_hint("leave BEGIN out, or turn autocommit on to begin and end transactions by SQL")),
            Self::Commit | Self::Rollback => {
                Err(Error::precondition("the transaction was begun by the client's driver, which has to end it")
                    .with_hint("call commit() or rollback() of the connection, or turn autocommit on"))
            }
            Self::Savepoint(name) => open.name_savepoint(&cx, name).await,
            Self::Release(name) => open.end_named(&cx, &name, true).await,
            Self::RollbackTo(name) => open.end_named(&cx, &name, false).await,
        }
    }
}

/// As names are compared: without quotes in small letters.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<Control>> {
        Control::of(text, &Caps { bytes: 1 << 20, tokens: 1_000, nesting: 100 })
    }

    #[test]
    fn every_form_is_known() {
        for (text, control) in [
            ("BEGIN", Control::Begin),
            ("begin transaction;", Control::Begin),
            ("START TRANSACTION", Control::Begin),
            ("  Commit", Control::Commit),
            ("COMMIT WORK", Control::Commit),
            ("ROLLBACK", Control::Rollback),
            ("SAVEPOINT S", Control::Savepoint("s".into())),
            ("release savepoint \"S\"", Control::Release("S".into())),
            ("ROLLBACK TO SAVEPOINT s", Control::RollbackTo("s".into())),
            ("/* a /* tool */ */ BEGIN", Control::Begin),
            ("-- from a tool\n\n COMMIT -- now", Control::Commit),
        ] {
            assert_eq!(of(text).unwrap(), Some(control), "{text}");
        }
        for text in ["SELECT 1", "", "beginning", "INSERT INTO begin VALUES (1)", "/* BEGIN */ SELECT 1", "-- COMMIT"] {
            assert_eq!(of(text).unwrap_or(None), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        insta::assert_snapshot!(of("START TRANSACTION READ ONLY").unwrap_err(), @"a transaction with modes is not offered; BEGIN, COMMIT, ROLLBACK, SAVEPOINT s, RELEASE SAVEPOINT s and ROLLBACK TO SAVEPOINT s are");
        insta::assert_snapshot!(of("COMMIT AND CHAIN").unwrap_err(), @"AND CHAIN is not offered; BEGIN, COMMIT, ROLLBACK, SAVEPOINT s, RELEASE SAVEPOINT s and ROLLBACK TO SAVEPOINT s are");
    }
}
