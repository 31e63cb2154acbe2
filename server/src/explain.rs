//! `EXPLAIN`: how a statement would be answered, and with `ANALYZE`, how it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::format::ExplainFormat;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::sql::parser::ExplainStatement;
use nexus_flight_catalog::policy::is_part;
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::{Catalogs, Principal, Result, Tables, Version};

/// What is to be told of a statement, and what is known so far.
#[derive(Debug)]
pub struct Explain {
    /// Whether the statement runs.
    pub analyze: bool,
    verbose: bool,
    format: ExplainFormat,
    /// The tables that it reads, a line each.
    tables: String,
    /// Its text at the engine of its tables, or why there is none; none where they are of no engine.
    pub translation: Option<String>,
    /// What the cache has for it.
    pub cache: String,
    /// How long each part took.
    pub clock: Clock,
}

impl Explain {
    /// What an EXPLAIN asks for. Errors: `Invalid` for a format that there is not.
    pub fn new(asked: &ExplainStatement) -> Result<Self> {
        let ExplainStatement { analyze, verbose, format, .. } = asked;
        let format = format.as_deref().map_or(Ok(ExplainFormat::Indent), str::parse)?;
        let (tables, translation, cache, clock) = (String::new(), None, String::new(), Clock::start());
        Ok(Self { analyze: *analyze, verbose: *verbose, format, tables, translation, cache, clock })
    }

    /// The columns of the answer: what a line is about, and what it says.
    pub fn schema() -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![text("plan_type"), text("plan")]))
    }

    /// Takes down the tables, with where each comes from and in which version.
    pub fn reads(&mut self, tables: &Tables, catalogs: &Catalogs, principal: &Principal) {
        let line = |(name, table): (&nexus_flight_catalog::TableName, &nexus_flight_catalog::Resolved)| {
            let kind = catalogs.source(principal, &name.catalog).map_or("made by the gateway", |source| source.spec().kind);
            match &table.version {
                // It changes with what is hidden.
                _ if is_part(table) => format!("{name}: {kind}, in a version that is not told"),
                Version::Pinned(version) => format!("{name}: {kind}, version {version}"),
                Version::Unknown => format!("{name}: {kind}, of unknown version"),
            }
        };
        let mut lines: Vec<String> = tables.iter().map(line).collect();
        lines.sort();
        self.tables = lines.join("\n");
    }

    /// The answer, given the plans and, where the statement ran, what came of it.
    pub fn answer(&self, optimized: &LogicalPlan, physical: &dyn ExecutionPlan, ran: Option<&Ran>) -> Result<RecordBatch> {
        let mut lines = vec![("route", "here, by DataFusion".to_owned()), ("cache", self.cache.clone())];
        if !self.tables.is_empty() {
            lines.push(("tables", self.tables.clone()));
        }
        if let Some(translation) = &self.translation {
            lines.push(("translation", translation.clone()));
        }
        let logical = match self.format {
            ExplainFormat::PostgresJSON => optimized.display_pg_json().to_string(),
            ExplainFormat::Graphviz => optimized.display_graphviz().to_string(),
            _ if self.verbose => optimized.display_indent_schema().to_string(),
            _ => optimized.display_indent().to_string(),
        };
        lines.push(("logical_plan", logical));
        lines.push(("physical_plan", self.physical(physical)));
        if let Some(ran) = ran {
            lines.push(("answer", ran.to_string()));
        }
        lines.push(("times", self.clock.to_string()));
        let (kinds, texts): (Vec<_>, Vec<_>) = lines.into_iter().map(|(kind, text)| (kind, text.trim_end().to_owned())).unzip();
        let columns = (Arc::new(StringArray::from(kinds)), Arc::new(StringArray::from(texts)));
        Ok(RecordBatch::try_new(Self::schema(), vec![columns.0, columns.1])?)
    }

    fn physical(&self, plan: &dyn ExecutionPlan) -> String {
        let display = match (self.analyze, self.verbose) {
            (false, _) => DisplayableExecutionPlan::new(plan),
            (true, false) => DisplayableExecutionPlan::with_metrics(plan),
            (true, true) => DisplayableExecutionPlan::with_full_metrics(plan),
        };
        let display = display.set_show_statistics(self.verbose);
        match self.format {
            ExplainFormat::Tree => display.tree_render().to_string(),
            ExplainFormat::Graphviz => display.graphviz().to_string(),
            _ => display.indent(self.verbose).to_string(),
        }
    }
}

/// What came of a statement that was explained by running it.
#[derive(Debug, Default)]
pub struct Ran {
    /// The rows of its answer.
    pub rows: u64,
    /// Their bytes in memory.
    pub bytes: u64,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, {}", self.rows, Size(self.bytes))
    }
}

/// How long the parts of something took, one after the other.
#[derive(Debug)]
pub struct Clock {
    last: Instant,
    parts: Vec<(&'static str, Duration)>,
}

impl Clock {
    /// Begins with the first part.
    pub fn start() -> Self {
        Self { last: Instant::now(), parts: Vec::new() }
    }

    /// The part that ends now.
    pub fn end(&mut self, part: &'static str) {
        let now = Instant::now();
        self.parts.push((part, now - self.last));
        self.last = now;
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.parts.iter().map(|(part, took)| format!("{part}: {:.3} ms", took.as_secs_f64() * 1000.0));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}
