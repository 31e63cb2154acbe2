//! What every source must do, checked in both directions: what it declares works, and what it does not declare is refused.
//!
//! A connector's test fills a real system with the tables of [`seed`], describes what it holds in a [`Fixture`], and expects
//! [`check`] to find nothing. Answers are compared with those of DataFusion over the same rows in memory.

use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{TableProviderFilterPushDown, col, lit};
use datafusion::physical_plan::{collect, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};

use crate::error::{Error, Kind, Result};
use crate::source::{Capabilities, Context, Keys, Principal, Resolved, Source, Version};

mod seed;
mod writes;

use seed::ROWS;
pub use seed::{SeedTable, seed, types};

/// Changes the rows of `types` to those of [`types`] with this many rows.
pub type Mutate = Box<dyn Fn(i64) -> BoxFuture<'static, ()> + Send + Sync>;

/// A source that holds the seed, and what is peculiar to it.
pub struct Fixture {
    /// The source under test.
    pub source: Arc<dyn Source>,
    /// The schema that holds the tables.
    pub schema: String,
    /// What it holds: [`seed`], less what it cannot hold, in the types that it can.
    pub tables: Vec<SeedTable>,
    /// What it can do with these tables: what its `Spec` declares, or less where that depends on how they are stored.
    pub capabilities: Capabilities,
    /// Changes the rows, for a source that pins versions.
    pub mutate: Option<Mutate>,
}

impl Fixture {
    /// A source that holds the whole seed, and can do with it all that it declares.
    pub fn new(source: Arc<dyn Source>, schema: impl Into<String>) -> Self {
        let capabilities = source.spec().capabilities;
        Self { source, schema: schema.into(), tables: seed(), capabilities, mutate: None }
    }
}

impl Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("source", &self.source).field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Holds a source to what is asked of every source and to what it declares. Errors: every violation, a line each.
pub async fn check(fixture: &Fixture) -> Result<(), Vec<String>> {
    let mut run = Run { fixture, cx: Context::new(Principal::anonymous()), violations: Vec::new() };
    run.declarations();
    run.listings().await;
    run.missing_names().await;
    run.left_early().await;
    for table in &fixture.tables {
        run.reads(table).await;
        run.push_down(table).await;
    }
    run.joins().await;
    run.statements().await;
    // These change the tables, so they come last.
    run.versions().await;
    run.writes().await;
    if run.violations.is_empty() { Ok(()) } else { Err(run.violations) }
}

struct Run<'a> {
    fixture: &'a Fixture,
    cx: Context,
    violations: Vec<String>,
}

impl Run<'_> {
    fn expect(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(violation());
        }
    }

    /// What a call gives, or a violation.
    fn works<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.violations.push(format!("{what} fails: {error}"))).ok()
    }

    /// A call must fail with a kind.
    fn fails<T>(&mut self, what: &str, kind: Kind, result: Result<T>) {
        match result {
            Ok(_) => self.violations.push(format!("{what} works, and must fail as {}", kind.name())),
            Err(error) if error.kind() == kind => {}
            Err(error) => {
                self.violations.push(format!("{what} fails as {}, not as {}: {error}", error.kind().name(), kind.name()));
            }
        }
    }

    async fn resolve(&self, table: &str) -> Result<Resolved> {
        self.cx.run(self.fixture.source.table(&self.cx, &self.fixture.schema, table)).await
    }

    /// A fixture may narrow what its source declares, never widen it.
    fn declarations(&mut self) {
        let declared = self.fixture.source.spec().capabilities.entries();
        for ((name, held), (_, declared)) in self.fixture.capabilities.entries().into_iter().zip(declared) {
            self.expect(declared || !held, || format!("the fixture expects {name}, which the source does not declare"));
        }
        for Capabilities { append, ingest, .. } in [self.fixture.source.spec().capabilities, self.fixture.capabilities] {
            self.expect(append || !ingest, || "ingest is declared without append".into());
        }
    }

    async fn listings(&mut self) {
        let Fixture { source, schema, tables, .. } = self.fixture;
        let pinged = source.ping(&self.cx).await;
        self.works("ping", pinged);
        let schemas = source.schemas(&self.cx).await;
        if let Some(schemas) = self.works("schemas", schemas) {
            self.expect(schemas.contains(schema), || format!("schemas lists {schemas:?} without \"{schema}\""));
            self.expect(schemas.is_sorted(), || format!("schemas are not sorted: {schemas:?}"));
        }
        let listed = source.tables(&self.cx, schema).await;
        if let Some(listed) = self.works("tables", listed) {
            let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
            self.expect(names.is_sorted(), || format!("tables are not sorted: {names:?}"));
            for table in tables {
                self.expect(names.contains(&table.name.as_str()), || format!("tables lists {names:?} without {}", table.name));
            }
        }
    }

    async fn missing_names(&mut self) {
        let Fixture { source, schema, .. } = self.fixture;
        let tables = source.tables(&self.cx, "no such schema").await;
        self.fails("listing a schema that is not there", Kind::NotFound, tables);
        let table = source.table(&self.cx, "no such schema", "types").await;
        self.fails("a table in a schema that is not there", Kind::NotFound, table);
        for name in ["no such table", "", "..", "../types", "types/", "*"] {
            let table = source.table(&self.cx, schema, name).await;
            self.fails(&format!("the table \"{name}\", which is not there,"), Kind::NotFound, table);
        }
    }

    /// Work that is dropped halfway leaves the source as it was.
    async fn left_early(&mut self) {
        let Fixture { source, schema, .. } = self.fixture;
        let cx = self.cx.clone();
        // Polled once at the most, and dropped.
        let _ = source.table(&cx, schema, "types").now_or_never();
        let resolved = self.resolve("types").await;
        let Some(resolved) = self.works("resolving after a resolution that was left", resolved) else { return };
        for what in ["a scan", "a scan after one that was left"] {
            let first = first_batch(&resolved.provider).await;
            if let Some(rows) = self.works(what, first) {
                self.expect(rows > 0, || format!("{what} gives no rows"));
            }
        }
    }

    /// Every answer about a table is the one that DataFusion gives over the same rows.
    async fn reads(&mut self, table: &SeedTable) {
        let name = &table.name;
        let resolved = self.resolve(name).await;
        let Some(resolved) = self.works(&format!("resolving {name}"), resolved) else { return };
        let (got, wanted) = (bare(&resolved.provider.schema()), bare(&table.batch.schema()));
        self.expect(got == wanted, || format!("{name} has the schema\n  {got:?}\nand should have\n  {wanted:?}"));
        let keys = if self.fixture.capabilities.keys { table.keys.clone() } else { Keys::default() };
        self.expect(resolved.keys == keys, || format!("{name} has the keys {:?} and should have {keys:?}", resolved.keys));
        for question in questions(table) {
            self.ask(&question, &[(name, Arc::clone(&resolved.provider))]).await;
        }
    }

    async fn joins(&mut self) {
        let mut tables = Vec::new();
        for name in ["types", "links"] {
            let resolved = self.resolve(name).await;
            let Some(resolved) = self.works(&format!("resolving {name}"), resolved) else { return };
            tables.push((name, resolved.provider));
        }
        let tables: Vec<(&str, Arc<dyn TableProvider>)> = tables;
        for sql in [
            "SELECT l.link, l.note, t.name, t.price FROM links l JOIN types t ON l.target = t.id",
            "SELECT l.link, t.name FROM links l LEFT JOIN types t ON l.target = t.id AND t.flag",
            "SELECT t.name, count(*), sum(t.price) FROM links l JOIN types t ON l.target = t.id WHERE t.id < 60 GROUP BY t.name",
            "SELECT id FROM types WHERE id IN (SELECT target FROM links WHERE link < 10)",
        ] {
            self.ask(&Question::any(sql), &tables).await;
        }
    }

    /// Compares one answer.
    async fn ask(&mut self, question: &Question, tables: &[(&str, Arc<dyn TableProvider>)]) {
        let (all, sql) = (&question.sql, &question.limited());
        let wanted = match reference(&self.fixture.tables) {
            Ok(tables) => answer(all, &tables).await,
            Err(error) => Err(error),
        };
        let tables: Vec<_> = tables.iter().map(|(name, table)| ((*name).to_owned(), Arc::clone(table))).collect();
        let got = answer(sql, &tables).await;
        let (Some(mut wanted), Some(mut got)) = (self.works(&format!("(reference) {all}"), wanted), self.works(sql, got)) else {
            return;
        };
        match question.order {
            Order::Exact => {}
            Order::Any => {
                wanted.sort();
                got.sort();
            }
            // Which rows a limit picks is free; how many they are, and that they are rows of the table, is not.
            Order::Limit(limit) => {
                let enough = wanted.len().min(limit);
                let strangers = got.iter().filter(|row| !wanted.contains(row)).count();
                self.expect(got.len() == enough, || format!("{sql} gives {} rows and should give {enough}", got.len()));
                self.expect(strangers == 0, || format!("{sql} gives {strangers} rows that it should not"));
                return;
            }
        }
        self.expect(got == wanted, || difference(sql, &got, &wanted));
    }

    /// Filters and limits reach the scan where that is declared, and do not where it is not.
    async fn push_down(&mut self, table: &SeedTable) {
        if table.name != "types" {
            return;
        }
        let resolved = self.resolve(&table.name).await;
        let Some(resolved) = self.works("resolving types", resolved) else { return };
        let Capabilities { filters, limit, .. } = self.fixture.capabilities;
        let filter = col("id").eq(lit(5i64));
        match resolved.provider.supports_filters_pushdown(&[&filter]) {
            Ok(answers) => {
                let taken = answers.iter().all(|answer| *answer != TableProviderFilterPushDown::Unsupported);
                self.expect(!filters || taken, || "filters are declared, and the table takes none".into());
                self.expect(filters || !taken, || "filters are not declared, and the table takes them".into());
            }
            Err(error) => self.violations.push(format!("asking for filters fails: {error}")),
        }
        let all = table.batch.num_rows();
        let rows = scan(&resolved.provider, 1).await;
        let Some(rows) = self.works("a scan with a limit", rows) else { return };
        self.expect(rows > 0, || "a scan with limit 1 gives no row".into());
        self.expect(!limit || rows < all, || format!("limits are declared, and a scan with limit 1 gives all {all} rows"));
        self.expect(limit || rows == all, || {
            format!("limits are not declared, and a scan with limit 1 gives {rows} of {all} rows")
        });
    }

    /// The source's own SQL.
    async fn statements(&mut self) {
        let source = &self.fixture.source;
        let sql = "SELECT 1";
        let (described, rows) = (source.native_describe(&self.cx, sql).await, source.native_query(&self.cx, sql).await);
        if self.fixture.capabilities.native {
            let described = self.works("describing a native statement", described);
            let rows = match rows {
                Ok(rows) => rows.try_collect::<Vec<_>>().await.map_err(Error::from),
                Err(error) => Err(error),
            };
            let rows = self.works("a native statement", rows);
            if let (Some(described), Some(rows)) = (described, rows) {
                self.expect(rows.iter().all(|batch| batch.schema() == described), || {
                    "a native statement gives another schema".into()
                });
                let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
                self.expect(count == 1, || format!("the native statement {sql} gives {count} rows"));
            }
        } else {
            self.refused("native statements", described.err());
            self.refused("native statements", rows.err());
        }
    }

    /// What is not declared is refused in the documented words.
    fn refused(&mut self, what: &str, error: Option<Error>) {
        let refusal = self.fixture.source.spec().refusal(what);
        match error {
            None => self.violations.push(format!("{what} work and are not declared")),
            Some(error) if error.kind() == refusal.kind() && error.message() == refusal.message() => {}
            Some(error) => self.violations.push(format!("{what} are not declared, and refused as \"{error}\"")),
        }
    }

    async fn versions(&mut self) {
        let (before, again) = (self.resolve("types").await, self.resolve("types").await);
        let (Some(before), Some(again)) = (self.works("resolving", before), self.works("resolving again", again)) else { return };
        if !self.fixture.capabilities.versions {
            let version = &before.version;
            return self.expect(*version == Version::Unknown, || format!("versions are not declared, and there is {version:?}"));
        }
        self.expect(matches!(before.version, Version::Pinned(_)), || "versions are declared, and there is none".into());
        self.expect(before.version == again.version, || "the version changes though the rows do not".into());
        let Some(mutate) = &self.fixture.mutate else {
            return self.violations.push("versions are declared, and the fixture cannot change rows to check them".into());
        };
        mutate(ROWS + 7).await;
        let after = self.resolve("types").await;
        if let Some(after) = self.works("resolving changed rows", after) {
            self.expect(after.version != before.version, || "the rows change and the version does not".into());
            let rows = answer("SELECT id, name FROM types", &[("types".to_owned(), after.provider)]).await;
            if let Some(rows) = self.works("reading changed rows", rows) {
                self.expect(rows.len() as i64 == ROWS + 7, || format!("after a change there are {} rows", rows.len()));
            }
        }
        // What was resolved before the change reads what it was pinned to, or says that this is gone.
        match answer("SELECT id, name FROM types", &[("types".to_owned(), before.provider)]).await {
            Ok(rows) => self.expect(rows.len() as i64 == ROWS, || format!("the earlier version now has {} rows", rows.len())),
            Err(error) if error.kind() == Kind::Precondition => {}
            Err(error) => self.violations.push(format!("the earlier version fails otherwise than by precondition: {error}")),
        }
    }
}

struct Question {
    sql: String,
    order: Order,
}

enum Order {
    /// The rows in this order.
    Exact,
    /// The rows in any order.
    Any,
    /// So many of the rows that the statement gives without a limit.
    Limit(usize),
}

impl Question {
    fn any(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), order: Order::Any }
    }

    fn limited(&self) -> String {
        match self.order {
            Order::Limit(limit) => format!("{} LIMIT {limit}", self.sql),
            Order::Exact | Order::Any => self.sql.clone(),
        }
    }
}

fn questions(table: &SeedTable) -> Vec<Question> {
    let name = &table.name;
    let schema = table.batch.schema();
    let mut asked = vec![
        Question::any(format!("SELECT * FROM {name}")),
        Question::any(format!("SELECT count(*) FROM {name}")),
        Question::any(format!("SELECT 1 FROM {name}")),
    ];
    for field in schema.fields() {
        asked.push(Question::any(format!("SELECT \"{0}\", count(\"{0}\") OVER () FROM {name}", field.name())));
        asked.push(Question::any(format!("SELECT \"{}\" FROM {name}", field.name())));
        if !field.data_type().is_nested() {
            asked.push(Question::any(format!("SELECT min(\"{0}\"), max(\"{0}\"), count(\"{0}\") FROM {name}", field.name())));
        }
    }
    let limits = |filter: &str, asked: &mut Vec<Question>| {
        for limit in [0, 1, 5, 1000] {
            asked.push(Question { sql: format!("SELECT * FROM {name} {filter}"), order: Order::Limit(limit) });
        }
    };
    limits("", &mut asked);
    if schema.column_with_name("price").is_none() {
        return asked;
    }
    for filter in [
        "id = 5",
        "id = -1",
        "id < 10",
        "id >= 100 AND small > 0",
        "id IN (1, 2, 3, 500)",
        "name IS NULL",
        "name IS NOT NULL AND flag",
        "name LIKE '%数据%'",
        "name LIKE 'x\\%\\_y%'",
        "name = 'naïve café 1'",
        "id < 5 OR small = 3",
        "NOT flag",
        "ratio > 4.5",
        "price BETWEEN 10.00 AND 500.5",
        "day < DATE '2022-06-01'",
        "at >= TIMESTAMP '2023-12-01 00:00:00'",
        "id + small > 100",
        "small <> 4 OR small IS NULL",
    ] {
        asked.push(Question::any(format!("SELECT * FROM {name} WHERE {filter}")));
        asked.push(Question::any(format!("SELECT count(*), min(id), max(name) FROM {name} WHERE {filter}")));
        limits(&format!("WHERE {filter}"), &mut asked);
    }
    for order in ["id", "id DESC", "price DESC NULLS LAST, id", "name NULLS FIRST, id"] {
        asked.push(Question { sql: format!("SELECT * FROM {name} ORDER BY {order} LIMIT 7"), order: Order::Exact });
        asked.push(Question {
            sql: format!("SELECT id FROM {name} WHERE flag ORDER BY {order} LIMIT 7 OFFSET 3"),
            order: Order::Exact,
        });
    }
    asked.push(Question::any(format!("SELECT small, count(*), sum(price), avg(ratio) FROM {name} GROUP BY small")));
    asked
}

/// The seed in memory.
fn reference(tables: &[SeedTable]) -> Result<Vec<(String, Arc<dyn TableProvider>)>> {
    let tables = tables.iter().map(|table| {
        let provider = MemTable::try_new(table.batch.schema(), vec![vec![table.batch.clone()]])?;
        Ok((table.name.clone(), Arc::new(provider) as Arc<dyn TableProvider>))
    });
    tables.collect()
}

fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3))
}

/// The rows of an answer as text.
async fn answer(sql: &str, tables: &[(String, Arc<dyn TableProvider>)]) -> Result<Vec<String>> {
    let session = session();
    for (name, table) in tables {
        session.register_table(name.as_str(), Arc::clone(table))?;
    }
    let plan = session.sql(sql).await?.create_physical_plan().await?;
    let schema = plan.schema();
    let mut rows = Vec::new();
    for batch in collect(plan, session.task_ctx()).await? {
        if batch.schema().fields().len() != schema.fields().len() {
            return Err(Error::internal(format!("a batch has {} columns", batch.num_columns())));
        }
        rows.extend(text(&batch)?);
    }
    Ok(rows)
}

fn text(batch: &RecordBatch) -> Result<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" | ");
    Ok((0..batch.num_rows()).map(row).collect())
}

/// How many rows a scan gives that was asked for few, before any plan above it.
async fn scan(provider: &Arc<dyn TableProvider>, limit: usize) -> Result<usize> {
    let session = session();
    let plan = provider.scan(&session.state(), Some(&vec![0]), &[], Some(limit)).await?;
    let batches = collect(plan, session.task_ctx()).await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

/// The rows of the first batch of a scan that is left after it.
async fn first_batch(provider: &Arc<dyn TableProvider>) -> Result<usize> {
    let session = session();
    let plan = provider.scan(&session.state(), None, &[], None).await?;
    let mut batches = execute_stream(plan, session.task_ctx())?;
    Ok(batches.try_next().await?.map_or(0, |batch| batch.num_rows()))
}

fn difference(sql: &str, got: &[String], wanted: &[String]) -> String {
    let differs = got.iter().zip(wanted).find(|(got, wanted)| got != wanted);
    let (got_row, wanted_row) = differs.map_or(("(none)", "(none)"), |(got, wanted)| (got.as_str(), wanted.as_str()));
    format!(
        "{sql} gives {} rows and should give {}; the first that differs is\n  {got_row}\nand should be\n  {wanted_row}",
        got.len(),
        wanted.len()
    )
}

/// A schema without what is beside names, types and nullability.
fn bare(schema: &SchemaRef) -> Vec<(String, DataType, bool)> {
    schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone(), field.is_nullable())).collect()
}
