//! A source behind a policy.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::{Error, Kind, Result};
use crate::name::TableName;
use crate::policy::guard::Guarded;
use crate::policy::veil::veiled;
use crate::policy::{Action, Policies, Sight};
use crate::source::{Context, Keys, Principal, Resolved, Source, Spec, TableEntry};
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
            Err(error) => return Err(error),
        };
        let name = self.name(schema, table);
        match self.sight(cx, &name, &resolved) {
            Sight::Everything => Ok(()),
            _ => Err(Error::denied(format!("you see only a part of the table \"{name}\", and so may only append to it"))
                .with_hint(ASK)),
        }
    }

    fn check_native(&self, cx: &Context) -> Result<()> {
        match self.policies.current().allows_native(&cx.principal, &self.catalog) {
            true => Ok(()),
            false => Err(Error::denied(format!("you may not send statements of its own to the catalog \"{}\"", self.catalog))
                .with_hint(ASK)),
        }
    }

    fn sight(&self, cx: &Context, name: &TableName, table: &Resolved) -> Sight {
        let schema = table.provider.schema();
        self.policies.current().sight(&cx.principal, name, schema.fields().iter().map(|field| field.name().as_str()))
    }
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

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        let policy = self.policies.current();
        let mut schemas = self.inner.schemas(cx).await?;
        schemas.retain(|schema| policy.lists_schema(&cx.principal, &self.catalog, schema));
        Ok(schemas)
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
        let name = self.name(schema, table);
        // Before the source is asked: how long it takes tells nothing then.
        let policy = self.policies.current();
        if !policy.lists(&cx.principal, &name) {
            return Err(missing(&name));
        }
        let resolved = self.inner.table(cx, schema, table).await.map_err(|error| match error.kind() {
            Kind::NotFound => error,
            _ if policy.opens(&cx.principal, &name) => error,
            _ => veiled(error),
        })?;
        match self.sight(cx, &name, &resolved) {
            Sight::Nothing => Err(missing(&name)),
            Sight::Everything => Ok(resolved),
            Sight::Part { columns, filters } => {
                let Resolved { provider, version, keys } = resolved;
                let guarded =
                    Guarded::new(provider, &columns, &filters, &cx.principal, &self.policies.state).map_err(|cause| {
                        Error::internal(format!("the policy of the table \"{name}\" cannot be applied to its columns"))
                            .with_hint(ASK)
                            .caused_by(cause)
                    })?;
                let keys = visible(keys, &guarded);
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
        self.inner.ingest(cx, target, rows).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.check_write(cx, schema, table)?;
        self.check_sees_everything(cx, schema, table).await?;
        self.inner.drop_table(cx, schema, table).await
    }

    async fn change(&self, cx: &Context, change: &Change) -> Result<u64> {
        self.check_write(cx, &change.schema, &change.table)?;
        self.check_sees_everything(cx, &change.schema, &change.table).await?;
        self.inner.change(cx, change).await
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        let begun = self.inner.begin(cx).await?;
        Ok(Arc::new(Governed { inner: begun, catalog: self.catalog.clone(), policies: Arc::clone(&self.policies) }))
    }
}

#[async_trait]
impl Transaction for Governed<dyn Transaction> {
    async fn commit(&self, cx: &Context) -> Result<()> {
        self.inner.commit(cx).await
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
}

/// The keys whose columns are seen as they are.
fn visible(keys: Keys, guarded: &Guarded) -> Keys {
    let is_seen = |columns: &[String]| columns.iter().all(|column| guarded.shows(column));
    let primary = if is_seen(&keys.primary) { keys.primary } else { Vec::new() };
    // What they refer to may be hidden, and says something of it by its name.
    Keys { primary, foreign: Vec::new() }
}
