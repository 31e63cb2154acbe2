//! A source behind a policy.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Place, Result};
use crate::name::TableName;
use crate::policy::guard::Guarded;
use crate::policy::veil::Veil;
use crate::policy::{Action, Policies, Sight};
use crate::source::{Context, ForeignKey, Keys, Principal, Resolved, Source, Spec, TableEntry};
use crate::write::{Change, IfExists, Target, Transaction};

/// A source of which everybody sees and changes what the policy lets them. What is denied is as if it were not there.
#[derive(Debug)]
pub struct Governed<S: ?Sized> {
    inner: Arc<S>,
    catalog: String,
    policies: Arc<Policies>,
}

impl<S: Source + ?Sized> Governed<S> {
    /// A source under the name of its catalog.
    pub fn new(inner: Arc<S>, catalog: impl Into<String>, policies: Arc<Policies>) -> Self {
        Self { inner, catalog: catalog.into(), policies }
    }

    fn name(&self, schema: &str, table: &str) -> TableName {
        TableName::new(&*self.catalog, schema, table)
    }

    /// Who sees a part of a table has made the rows anew without the others. Errors: `Denied`.
    async fn check_sees_everything(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        let resolved = match self.inner.table(cx, schema, table).await {
            Ok(resolved) => resolved,
            // Who may write may know that; there is nothing to lose.
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(self.veiled(cx, &self.name(schema, table), error)),
        };
        let name = self.name(schema, table);
        match self.sight(cx, &name, &resolved)? {
            Sight::Everything => Ok(()),
            _ => Err(sees_a_part(&name)),
        }
    }

    /// What is about a table: its columns may have had other names then, and bounds of files are values of rows. So no rule is applied to
    /// it, and who sees a part of the table sees nothing of it.
    async fn about_table(&self, cx: &Context, schema: &str, table: &str, about: &str) -> Result<Resolved> {
        let (name, policy) = (self.name(schema, about), self.policies.current());
        if !policy.lists(&cx.principal, &name) {
            return Err(missing(&self.name(schema, table)));
        }
        if !policy.opens(&cx.principal, &name) {
            return Err(Error::denied(format!("you see only a part of the table \"{name}\", and so nothing of \"{table}\""))
                .with_hint(ASK));
        }
        self.inner.table(cx, schema, table).await
    }

    fn check_native(&self, cx: &Context) -> Result<()> {
        match self.policies.current().allows_native(&cx.principal, &self.catalog) {
            true => Ok(()),
            false => Err(Error::denied(format!("you may not send statements of its own to the catalog \"{}\"", self.catalog))
                .with_hint(ASK)),
        }
    }

    fn sight(&self, cx: &Context, name: &TableName, table: &Resolved) -> Result<Sight> {
        let (schema, policy) = (table.provider.schema(), self.policies.current());
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some(column) = policy.misfit(&cx.principal, name, &columns) {
            return Err(self.misfit(cx, name, &table.provider, &format!("there is no column \"{column}\"")));
        }
        Ok(policy.sight(&cx.principal, name, columns.into_iter()))
    }

    /// What a rule does not fit cannot be read by those whom the rule is about. Which rule it is, is for who keeps the policy.
    fn misfit(&self, cx: &Context, name: &TableName, table: &Arc<dyn TableProvider>, why: &str) -> Error {
        let rules = self.policies.unfit_for(&cx.principal, name, table);
        let rules = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        tracing::error!(query = %cx.query, table = %name, why, rules, "a table is closed: a rule of the policy does not fit");
        Error::denied(format!("a rule about the table \"{name}\" does not fit its columns"))
            .with_hint("ask who keeps the policy of this gateway; its log says which rule")
    }

    fn veil(&self, cx: &Context) -> Veil {
        Veil { query: cx.query, redacts: self.policies.redacts }
    }

    /// The error of reading a table, for who may not see all of it. One at a key of the configuration is of what the catalog was given, such
    /// as a statement that tells a version, and that may be of other tables.
    fn veiled(&self, cx: &Context, name: &TableName, error: Error) -> Error {
        let policy = self.policies.current();
        if !policy.opens(&cx.principal, name) {
            return self.veil(cx).over(error);
        }
        match error.place() {
            Some(Place::Key(_)) if !policy.opens_catalog(&cx.principal, &self.catalog) => self.veil(cx).over_key(error),
            _ => error,
        }
    }

    /// The error of a write: it may tell of other tables too.
    fn veiled_write(&self, cx: &Context, error: Error) -> Error {
        match self.policies.current().opens_catalog(&cx.principal, &self.catalog) {
            true => error,
            false => self.veil(cx).over_write(error),
        }
    }

    /// The keys whose columns are seen, and refer to what is seen.
    fn keys(&self, cx: &Context, keys: Keys, is_seen: impl Fn(&String) -> bool) -> Keys {
        let policy = self.policies.current();
        let is_whole = |columns: &[String]| columns.iter().all(&is_seen);
        let primary = if is_whole(&keys.primary) { keys.primary } else { Vec::new() };
        let is_shown = |key: &ForeignKey| {
            is_whole(&key.columns) && policy.shows(&cx.principal, &self.name(&key.schema, &key.table), &key.referenced)
        };
        Keys { primary, foreign: keys.foreign.into_iter().filter(is_shown).collect() }
    }
}

/// The refusal to who would make rows anew without those that they do not see.
pub fn sees_a_part(name: &TableName) -> Error {
    Error::denied(format!("you see only a part of the table \"{name}\", and so may only append to it")).with_hint(ASK)
}

/// Whether somebody sees only a part of a table, by how it was resolved for them.
pub fn is_part(table: &Resolved) -> bool {
    table.provider.as_any().is::<Guarded>()
}

/// What to do where the policy stands in the way.
const ASK: &str = "ask who keeps the policy of this gateway";

fn missing(name: &TableName) -> Error {
    Error::not_found(format!("table \"{}.{}\" does not exist", name.schema, name.table))
}

#[async_trait]
impl<S: Source + ?Sized> Source for Governed<S> {
    fn spec(&self) -> &'static Spec {
        self.inner.spec()
    }

    fn is_visible(&self, principal: &Principal) -> bool {
        self.policies.current().lists_catalog(principal, &self.catalog)
    }

    fn is_elsewhere(&self) -> bool {
        self.inner.is_elsewhere()
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        let policy = self.policies.current();
        let mut schemas = self.inner.schemas(cx).await?;
        schemas.retain(|schema| policy.lists_schema(&cx.principal, &self.catalog, schema));
        Ok(schemas)
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.inner.about(name)
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        let policy = self.policies.current();
        if !policy.lists_schema(&cx.principal, &self.catalog, schema) {
            return Err(Error::not_found(format!("schema \"{schema}\" does not exist")));
        }
        let mut tables = self.inner.tables(cx, schema).await?;
        tables.retain(|entry| policy.lists(&cx.principal, &self.name(schema, &entry.name)));
        Ok(tables)
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        if let Some(about) = self.inner.about(table) {
            return self.about_table(cx, schema, table, about).await;
        }
        let name = self.name(schema, table);
        // Before the source is asked: how long it takes tells nothing then.
        let policy = self.policies.current();
        if !policy.lists(&cx.principal, &name) {
            return Err(missing(&name));
        }
        let resolved = self.inner.table(cx, schema, table).await.map_err(|error| match error.kind() {
            Kind::NotFound => error,
            _ => self.veiled(cx, &name, error),
        })?;
        match self.sight(cx, &name, &resolved)? {
            Sight::Nothing => Err(missing(&name)),
            Sight::Everything => Ok(Resolved { keys: self.keys(cx, resolved.keys, |_| true), ..resolved }),
            Sight::Part { columns, filters } => {
                let Resolved { provider, version, keys } = resolved;
                let (inner, expressions) = (Arc::clone(&provider), &self.policies.expressions);
                let guarded = Guarded::new(inner, &columns, &filters, &cx.principal, expressions, self.veil(cx))
                    .map_err(|cause| self.misfit(cx, &name, &provider, Error::from(cause).message()))?;
                let keys = self.keys(cx, keys, |column| guarded.shows(column));
                Ok(Resolved { provider: Arc::new(guarded), version, keys })
            }
        }
    }

    fn check_write(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        let name = self.name(schema, table);
        if self.policies.current().allows(&cx.principal, &name, Action::Write) {
            return Ok(());
        }
        // In the same words whether the table is there or not.
        Err(Error::denied(format!("you may not write to the table \"{name}\"")).with_hint(ASK))
    }

    async fn native_describe(&self, cx: &Context, sql: &str) -> Result<SchemaRef> {
        self.check_native(cx)?;
        self.inner.native_describe(cx, sql).await
    }

    async fn native_query(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream> {
        self.check_native(cx)?;
        self.inner.native_query(cx, sql).await
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        self.check_write(cx, &target.schema, &target.table)?;
        if matches!(target.if_exists, IfExists::Replace | IfExists::Rewrite(_)) {
            self.check_sees_everything(cx, &target.schema, &target.table).await?;
        }
        self.inner.ingest(cx, target, rows).await.map_err(|error| self.veiled_write(cx, error))
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.check_write(cx, schema, table)?;
        self.check_sees_everything(cx, schema, table).await?;
        self.inner.drop_table(cx, schema, table).await.map_err(|error| self.veiled_write(cx, error))
    }

    async fn change(&self, cx: &Context, change: &Change) -> Result<u64> {
        self.check_write(cx, &change.schema, &change.table)?;
        self.check_sees_everything(cx, &change.schema, &change.table).await?;
        self.inner.change(cx, change).await.map_err(|error| self.veiled_write(cx, error))
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        let begun = self.inner.begin(cx).await?;
        Ok(Arc::new(Governed { inner: begun, catalog: self.catalog.clone(), policies: Arc::clone(&self.policies) }))
    }
}

#[async_trait]
impl Transaction for Governed<dyn Transaction> {
    async fn commit(&self, cx: &Context) -> Result<()> {
        self.inner.commit(cx).await.map_err(|error| self.veiled_write(cx, error))
    }

    async fn rollback(&self, cx: &Context) -> Result<()> {
        self.inner.rollback(cx).await
    }

    async fn savepoint(&self, cx: &Context, name: &str) -> Result<()> {
        self.inner.savepoint(cx, name).await
    }

    async fn release(&self, cx: &Context, name: &str) -> Result<()> {
        self.inner.release(cx, name).await
    }

    async fn rollback_to(&self, cx: &Context, name: &str) -> Result<()> {
        self.inner.rollback_to(cx, name).await
    }

    fn wanted(&self) -> Option<Arc<Semaphore>> {
        self.inner.wanted()
    }
}

#[cfg(test)]
mod tests;
