//! Catalog name → source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Kind, Result, list, suggestion};
use crate::information_schema;
use crate::name::TableName;
use crate::native::Native;
use crate::policy::{Action, Governed, Policies};
use crate::source::{Context, Keys, Principal, Resolved, Source, TableEntry, Version};
use crate::tables::Tables;

/// How many tables of one statement are resolved at once.
const RESOLVED_AT_ONCE: usize = 16;

/// All registered sources. Shared by every statement; a source registered now is seen by the next statement.
#[derive(Debug, Default)]
pub struct Catalogs {
    sources: RwLock<BTreeMap<String, Arc<dyn Source>>>,
    /// Those that statements may write to.
    writable: RwLock<BTreeSet<String>>,
    /// Who may do what with them; everybody everything where there is none.
    policies: OnceLock<Arc<Policies>>,
}

/// A table that a statement names.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name as it was written, made full.
    pub written: TableName,
    /// What it may mean: the first of these that is there.
    pub places: Vec<TableName>,
    /// Whether it must be there: a table that is made or dropped need not.
    pub required: bool,
    /// The statement in the own SQL of its catalog whose rows it is; none where it is a table.
    pub native: Option<Arc<str>>,
}

impl Wanted {
    /// The catalogs that it may be in.
    pub fn catalogs(&self) -> Vec<String> {
        self.places.iter().map(|name| name.catalog.clone()).collect()
    }
}

impl Catalogs {
    /// Puts every source behind a policy, whether it is registered already or will be.
    pub fn govern(&self, policies: Arc<Policies>) {
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        // There is one for the whole life of the process; what it says may change.
        if self.policies.set(Arc::clone(&policies)).is_ok() {
            for (name, source) in sources.iter_mut() {
                *source = Arc::new(Governed::new(Arc::clone(source), &**name, Arc::clone(&policies)));
            }
        }
    }

    /// Who may do what; none where everybody may do everything.
    pub fn policies(&self) -> Option<&Arc<Policies>> {
        self.policies.get()
    }

    /// Registers a source under a name, in place of an earlier one.
    pub fn register(&self, name: impl Into<String>, source: Arc<dyn Source>) {
        let name = name.into();
        // The map is whole after every single insert, so a panic elsewhere cannot have left it broken.
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        let source = match self.policies.get() {
            Some(policies) => Arc::new(Governed::new(source, &*name, Arc::clone(policies))),
            None => source,
        };
        sources.insert(name, source);
    }

    /// Lets statements write to a catalog.
    pub fn allow_writes(&self, name: impl Into<String>) {
        self.writable.write().unwrap_or_else(PoisonError::into_inner).insert(name.into());
    }

    /// Errors: `Denied` where statements may not write to a catalog.
    pub fn check_writable(&self, name: &str) -> Result<()> {
        if self.writable.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(());
        }
        Err(Error::denied(format!("the catalog \"{name}\" is read-only"))
            .with_hint(format!("set writable = true under [catalogs.{name}]")))
    }

    /// The same catalogs with other sources behind some of their names.
    pub fn replaced(&self, by: impl IntoIterator<Item = (String, Arc<dyn Source>)>) -> Self {
        let mut sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        sources.extend(by);
        let writable = self.writable.read().unwrap_or_else(PoisonError::into_inner).clone();
        Self { sources: RwLock::new(sources), writable: RwLock::new(writable), policies: self.policies.clone() }
    }

    /// Whether a principal may see in a table of the gateway itself what others do. Where there is no policy everybody may.
    pub fn is_admin(&self, principal: &Principal, name: &TableName) -> bool {
        self.policies.get().is_none_or(|policies| policies.current().allows(principal, name, Action::Admin))
    }

    /// The names of the catalogs that a principal sees, sorted.
    pub fn names(&self, principal: &Principal) -> Vec<String> {
        self.all().into_iter().filter(|(_, source)| source.is_visible(principal)).map(|(name, _)| name).collect()
    }

    /// All catalogs with their names, sorted.
    pub fn all(&self) -> Vec<(String, Arc<dyn Source>)> {
        let sources = self.sources.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        sources.iter().map(|(name, source)| (name.clone(), Arc::clone(source))).collect()
    }

    /// The source behind a catalog, for who sees it. Errors: `NotFound` with the nearest name.
    pub fn source(&self, principal: &Principal, name: &str) -> Result<Arc<dyn Source>> {
        let sources = self.sources.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(source) = sources.get(name).filter(|source| source.is_visible(principal)) {
            return Ok(Arc::clone(source));
        }
        let known = sources.iter().filter(|(_, source)| source.is_visible(principal)).map(|(name, _)| name.as_str());
        Err(missing("catalog", name, &known.collect::<Vec<_>>()))
    }

    /// The schemas of a catalog, `information_schema` among them, sorted.
    pub async fn schemas(&self, cx: &Context, catalog: &str) -> Result<Vec<String>> {
        let mut schemas = cx.run(self.source(&cx.principal, catalog)?.schemas(cx)).await?;
        schemas.push(information_schema::NAME.to_owned());
        schemas.sort();
        schemas.dedup();
        Ok(schemas)
    }

    /// The tables of a schema, sorted by name.
    pub async fn tables(&self, cx: &Context, catalog: &str, schema: &str) -> Result<Vec<TableEntry>> {
        let source = self.source(&cx.principal, catalog)?;
        if schema == information_schema::NAME {
            return Ok(information_schema::tables());
        }
        cx.run(source.tables(cx, schema)).await
    }

    /// One table. Errors: `NotFound` with the nearest catalog, schema or table name.
    pub async fn table(self: &Arc<Self>, cx: &Context, name: &TableName) -> Result<Resolved> {
        let source = self.source(&cx.principal, &name.catalog)?;
        if name.schema == information_schema::NAME {
            return match information_schema::table(self, cx, &name.catalog, &name.table) {
                Some(table) => Ok(table),
                None => {
                    let entries = information_schema::tables();
                    let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                    Err(missing("table", &name.table, &known))
                }
            };
        }
        match cx.run(source.table(cx, &name.schema, &name.table)).await {
            // With a place it is about a table that is there, and says itself what is not.
            Err(error) if error.kind() == Kind::NotFound && error.place().is_none() => {
                Err(explain_missing(cx, source.as_ref(), name).await.unwrap_or(error))
            }
            other => other,
        }
    }

    /// A statement in the own SQL of a catalog, as a table. Errors: `NotFound` with the nearest name of a catalog, and those of
    /// [`Source::native_describe`].
    pub async fn native(&self, cx: &Context, catalog: &str, sql: Arc<str>) -> Result<Resolved> {
        let source = self.source(&cx.principal, catalog)?;
        let provider = Arc::new(Native::describe(source, cx, catalog, sql).await?);
        Ok(Resolved { provider, version: Version::Unknown, keys: Keys::default() })
    }

    /// The tables that a statement names, side by side, without those that are not there and need not be.
    pub async fn resolve(self: &Arc<Self>, cx: &Context, wanted: impl IntoIterator<Item = Wanted>) -> Result<Tables> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let resolved: Vec<_> = stream::iter(wanted)
            .map(|Wanted { written, places, required, native }| async move {
                let resolved = match native {
                    Some(sql) => self.native(cx, &written.catalog, sql).await.map(|table| (written.clone(), table)),
                    None => self.resolve_one(cx, places).await,
                };
                match resolved {
                    Err(error) if error.kind() == Kind::NotFound && !required => Ok(None),
                    table => Ok::<_, Error>(Some((written, table?))),
                }
            })
            .buffered(RESOLVED_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Tables::new(resolved.into_iter().flatten().collect()))
    }

    /// The first that is there. Errors: that of the last place, of those in catalogs that there are.
    async fn resolve_one(self: &Arc<Self>, cx: &Context, places: Vec<TableName>) -> Result<(TableName, Resolved)> {
        let mut missing = None;
        for name in places {
            if missing.is_some() && self.source(&cx.principal, &name.catalog).is_err() {
                continue;
            }
            match self.table(cx, &name).await {
                Err(error) if error.kind() == Kind::NotFound => missing = Some(error),
                table => return Ok((name, table?)),
            }
        }
        Err(missing.unwrap_or_else(|| Error::internal("a table was looked for nowhere")))
    }
}

/// A source says only that a name is not there; which part of it, and what was meant, is found out here for all of them.
async fn explain_missing(cx: &Context, source: &dyn Source, name: &TableName) -> Option<Error> {
    let schemas = cx.run(source.schemas(cx)).await.ok()?;
    if !schemas.contains(&name.schema) {
        let known: Vec<&str> = schemas.iter().map(String::as_str).collect();
        return Some(missing("schema", &format!("{}.{}", name.catalog, name.schema), &known));
    }
    let entries = cx.run(source.tables(cx, &name.schema)).await.ok()?;
    let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    Some(missing("table", &name.to_string(), &known))
}

fn missing(what: &str, name: &str, known: &[&str]) -> Error {
    let there = || if known.is_empty() { format!("there is no {what} here") } else { format!("there are {}", list(known)) };
    let last = name.rsplit('.').next().unwrap_or(name);
    Error::not_found(format!("{what} \"{name}\" does not exist")).with_hint(suggestion(last, known, there))
}
