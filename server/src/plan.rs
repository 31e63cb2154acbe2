//! Statement → plan: parse, resolve the tables it names, plan, bind, analyse.

mod known;
mod translated;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast;
use nexus_flight_catalog::policy::Expressions;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Catalogs, Error, Result, TableName, Tables, Wanted, information_schema};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::bounds::{NarrowUnnest, bounded, refuse_sizes, with_bounded_functions};
use crate::engines::Engines;
use crate::explain::{Clock, Explain};
use crate::layers::admission::Coming;
use crate::lookups::Lookups;
use crate::offered::{refuse_unknown, refuse_writes};
use crate::parameters::{bind, bind_nulls, counted, parameters, spread, type_placeholders};
use crate::pausing::PausingJoins;
use crate::plans::{Kept, Key, Plans};
use crate::procedures::{self, Call};
use crate::pushdown::NamesOnce;
use crate::query::{Description, Ingest, Query};
use crate::rewrite;
use crate::session::Session;
use crate::shares::Shares;
use crate::standard::{self, Casts, Distinct, Escapes, MoreTypes, Numbers, PlainNan, SingleRow, Subqueries, WholeRecursion};
use crate::state::{State, States};
use crate::statement::{self, Caps};
use crate::substrait;
use crate::system;
use crate::temporary::{self, Temporaries};
use crate::totals::GrandTotals;
use crate::windows::{self, Frames, WindowsByPartition};
use crate::write::{Names, Write, check_transaction, count_schema, ingested, is_write, nothing, perhaps, split, target_source};

/// Plans statements.
#[derive(Debug)]
pub struct Planner {
    catalogs: Arc<Catalogs>,
    default_schema: String,
    temporaries: Arc<Temporaries>,
    states: States,
    plans: Plans,
    lookups: Lookups,
    /// Those that can be drained; none where there are none.
    engines: Option<Arc<Engines>>,
    caps: Caps,
}

/// A statement ready to run.
#[derive(Debug)]
pub struct Planned {
    /// What was asked.
    pub query: Query,
    /// The columns of the answer, or of the one that is explained: every route conforms to them.
    pub schema: SchemaRef,
    /// The analysed plan, not yet optimised.
    pub plan: LogicalPlan,
    /// The tables it reads, pinned.
    pub tables: Tables,
    /// The functions, settings and stores of this statement alone.
    pub state: State,
    /// What becomes of the rows, where the statement writes.
    pub write: Option<Write>,
    /// What is to be told of it instead of its answer.
    pub explain: Option<Explain>,
    /// What it calls for instead.
    pub call: Option<Call>,
    /// From before its tables were looked up.
    pub began: Instant,
    /// The room that is kept for it until it has a slot or waits for one; none where its plan was there before.
    pub coming: Option<Coming>,
}

impl Planned {
    /// The catalogs of the tables that it reads and writes.
    pub fn catalogs(&self) -> BTreeSet<&str> {
        let written = self.write.iter().map(|write| write.name.catalog.as_str());
        self.tables.iter().map(|(name, _)| name.catalog.as_str()).chain(written).collect()
    }
}

/// A plan whose parameters are not bound yet.
struct Unbound {
    plan: LogicalPlan,
    /// With the types that the statement implies.
    parameters: Vec<(String, DataType)>,
    /// Whether the analysis is done, as it is where it needs no values.
    is_analysed: bool,
    tables: Tables,
    state: State,
    catalogs: Arc<Catalogs>,
    explain: Option<Explain>,
    /// Whether it makes a temporary table.
    is_temporary: bool,
    /// The turn to plan, for the analysis that is still to be done.
    turn: Option<OwnedSemaphorePermit>,
    /// What it calls for; then it does nothing else.
    call: Option<Call>,
}

impl Planner {
    /// A planner over catalogs, whose statements share the memory and disk of one runtime, those of one user `share` bytes of it. A
    /// column of a batch grows to at most `most` bytes.
    pub fn new(
        catalogs: Arc<Catalogs>,
        default_schema: String,
        temporaries: Arc<Temporaries>,
        runtime: Arc<RuntimeEnv>,
        caps: Caps,
        share: usize,
        most: usize,
    ) -> Result<Self> {
        let mut base = SessionStateBuilder::new()
            .with_config(settings(share))
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(MoreTypes))
            .with_analyzer_rule(Arc::new(WholeRecursion))
            .with_physical_optimizer_rules(physical_rules(most))
            .build();
        windows::register(&mut base)?;
        standard::register(&mut base)?;
        Ok(Self {
            catalogs,
            default_schema,
            temporaries,
            states: States::new(bounded(base, most)?, share),
            plans: Plans::default(),
            lookups: Lookups::new(Duration::ZERO, Arc::default()),
            engines: None,
            caps,
        })
    }

    /// A state for looking up the functions that statements can call.
    pub fn functions(&self) -> &SessionState {
        self.states.base()
    }

    /// What makes expressions of texts that stand in no statement, within the same caps.
    pub fn expressions(&self) -> Expressions {
        let caps = self.caps;
        Expressions::new(self.functions().clone(), move |text| statement::expression(text, &caps))
    }

    /// The memory of each user.
    pub fn shares(&self) -> &Arc<Shares> {
        self.states.shares()
    }

    /// Whether a plan of the statement is kept, whose answer may be kept too.
    pub fn has(&self, query: &Query) -> bool {
        query.ingest.is_none() && query.substrait.is_none() && self.key(query).is_some_and(|key| self.plans.has(&key))
    }

    /// The shape of the answer and of the parameters. Nothing runs.
    pub async fn describe(&self, query: &Query) -> Result<Description> {
        let Unbound { plan, parameters, is_analysed, state, explain, call, turn: _turn, .. } = self.plan_unbound(query).await?;
        let bound = match &query.parameters {
            Some(values) => bind(plan, &parameters, values)?,
            None => bind_nulls(plan, &parameters)?,
        };
        let is_update = is_write(&bound) || call.is_some();
        let schema = match is_update {
            true => count_schema(),
            false if is_analysed => schema_of(&bound),
            false => schema_of(&analyse(bound, &state.session)?),
        };
        let schema = if explain.is_some() { Explain::schema() } else { schema };
        state.give_back();
        Ok(described(schema, parameters, is_update))
    }

    /// The plan of a statement with its parameters bound, all rows of them; none where it has to run for each row by itself.
    /// Errors: `Invalid` where parameters are missing or too many.
    pub async fn plan(&self, query: Query) -> Result<Option<Planned>> {
        let began = Instant::now();
        if let Some(ingest) = query.ingest.clone() {
            return self.plan_ingest(query, &ingest).await.map(Some);
        }
        let unbound = self.plan_unbound(&query).await?;
        let Unbound { plan, parameters, is_analysed, tables, state, catalogs, mut explain, is_temporary, turn, call } = unbound;
        let bound = match &query.parameters {
            Some(values) if values.num_rows() > 1 => match spread(&plan, &parameters, values)? {
                Some(plan) => plan,
                None => {
                    state.give_back();
                    return Ok(None);
                }
            },
            Some(values) => bind(plan, &parameters, values)?,
            None if parameters.is_empty() => plan,
            None => {
                return Err(Error::invalid(format!("the statement has {} and none was given", counted(parameters.len())))
                    .with_hint("bind a value to each of them"));
            }
        };
        let plan = if is_analysed { bound } else { analyse(bound, &state.session)? };
        if let Some(explain) = explain.as_mut().filter(|_| !is_write(&plan)) {
            explain.clock.end("analysis");
            explain.translation = translated::explained(&plan, &tables, &catalogs, &query);
        }
        drop(turn);
        if call.is_some() {
            let (schema, write) = (count_schema(), None);
            return Ok(Some(Planned { query, schema, plan, tables, state, write, explain, call, began, coming: None }));
        }
        if !is_write(&plan) {
            let (schema, write) = (schema_of(&plan), None);
            return Ok(Some(Planned { query, schema, plan, tables, state, write, explain, call, began, coming: None }));
        }
        let (catalogs, default_schema) = (&catalogs, self.default_schema.as_str());
        let names = Names { cx: &query.cx, session: &query.session, catalogs, default_schema, tables: &tables, is_temporary };
        let (plan, write) = split(plan, &names).await?;
        check_transaction(&query, &write).await?;
        let (schema, write) = (count_schema(), Some(write));
        Ok(Some(Planned { query, schema, plan, tables, state, write, explain, call, began, coming: None }))
    }

    /// The rows that a client sends, as what they become.
    async fn plan_ingest(&self, query: Query, ingest: &Arc<Ingest>) -> Result<Planned> {
        let began = Instant::now();
        let name = if ingest.temporary {
            self.temporaries.start(&query)?;
            temporary::name(&ingest.table)
        } else {
            TableName::new(&*query.session.catalog, &*query.session.schema, &*ingest.table)
        };
        let catalogs = self.catalogs_of(&query, vec![name.catalog.clone()]).await?;
        let source = target_source(&catalogs, &query.cx, &name)?;
        let there = perhaps(catalogs.table(&query.cx, &name)).await?;
        let (plan, write) = ingested(ingest, name, source, there.as_ref())?;
        check_transaction(&query, &write).await?;
        let state = self.states.take(&query);
        let plan = analyse(plan, &state.session)?;
        let (schema, tables, write) = (count_schema(), Tables::default(), Some(write));
        Ok(Planned { query, schema, plan, tables, state, write, explain: None, call: None, began, coming: None })
    }

    /// The catalogs as a query sees them that names tables of some.
    async fn catalogs_of(&self, query: &Query, names: Vec<String>) -> Result<Arc<Catalogs>> {
        let catalogs = self.temporaries.over(&self.catalogs, &query.session);
        match &query.transaction {
            Some(open) => open.catalogs(&query.cx, &catalogs, names).await,
            None => Ok(catalogs),
        }
    }

    async fn plan_unbound(&self, query: &Query) -> Result<Unbound> {
        match &query.substrait {
            Some(plan) => self.plan_substrait(query, plan).await,
            None => {
                let key = self.key(query);
                match self.planned_before(query, key.as_ref()).await? {
                    Some(unbound) => Ok(unbound),
                    None => self.plan_statement(query, key).await,
                }
            }
        }
    }

    /// What the plan of a statement is kept under. What its names mean hangs on the temporary tables of its session, if there are any.
    fn key(&self, query: &Query) -> Option<Key> {
        self.plans.key(query).filter(|_| matches!(self.temporaries.of(&query.session), Ok(None)))
    }

    /// The plan of the statement as it was made when it came before, over its tables as they are now.
    async fn planned_before(&self, query: &Query, key: Option<&Key>) -> Result<Option<Unbound>> {
        let Some(key) = key else { return Ok(None) };
        let Some(kept) = self.plans.get(key).await else { return Ok(None) };
        let began = Instant::now();
        let (catalogs, tables) = self.resolve(query, kept.wanted.clone()).await?;
        kept.look(self.looked_up(query, &tables, began));
        self.laid_over(query, &kept, catalogs, tables).await
    }

    /// A plan that is kept, over tables; none where one of them has other columns.
    async fn laid_over(&self, query: &Query, kept: &Kept, catalogs: Arc<Catalogs>, tables: Tables) -> Result<Option<Unbound>> {
        let Some(plan) = kept.over(&tables, &query.session)? else { return Ok(None) };
        metrics::counter!("nexus_plans_reused_total").increment(1);
        let mut state = self.states.take(query);
        state.share_out(query.part.map(|part| part.wanted));
        let (parameters, is_analysed, explain, is_temporary) = (kept.parameters.clone(), kept.is_analysed, None, false);
        let turn = if is_analysed { None } else { state.turn().await };
        let call = None;
        Ok(Some(Unbound { plan, parameters, is_analysed, tables, state, catalogs, explain, is_temporary, turn, call }))
    }

    async fn plan_substrait(&self, query: &Query, plan: &[u8]) -> Result<Unbound> {
        let parsed = substrait::parse(plan, &self.caps)?;
        let mut state = self.states.take(query);
        state.share_out(query.part.map(|part| part.wanted));
        let wanted = parsed.tables.iter().map(|reference| {
            let written = TableName::resolve(reference, &query.session.catalog, &query.session.schema);
            let places = self.places(&query.session, reference)?;
            // Several ways to write a name lead to one table.
            Ok((written.clone(), Wanted { written, places, required: true, native: None }))
        });
        let wanted: BTreeMap<_, _> = wanted.collect::<Result<_>>()?;
        let (catalogs, tables) = self.resolve(query, wanted.into_values().collect()).await?;
        state.show(&tables);
        let turn = state.turn().await;
        metrics::counter!("nexus_plans_made_total").increment(1);
        let plan = parsed.into_logical(&state.session).await?;
        refuse_writes(&plan)?;
        refuse_sizes(&plan)?;
        let (parameters, is_analysed, explain, is_temporary, call) = (parameters(&plan)?, false, None, false, None);
        Ok(Unbound { plan, parameters, is_analysed, tables, state, catalogs, explain, is_temporary, turn, call })
    }

    /// The tables themselves, and the catalogs that they are of.
    async fn resolve(&self, query: &Query, wanted: Vec<Wanted>) -> Result<(Arc<Catalogs>, Tables)> {
        let catalogs = self.catalogs_of(query, wanted.iter().flat_map(Wanted::catalogs).collect()).await?;
        let span = tracing::info_span!(target: TRACE, "tables");
        let tables = catalogs.resolve(&query.cx, wanted).instrument(span).await?;
        Ok((catalogs, tables))
    }

    async fn plan_statement(&self, query: &Query, key: Option<Key>) -> Result<Unbound> {
        let mut clock = Clock::start();
        let statement::Parsed { mut statement, is_show, natives } = statement::parse(&query.statement, &self.caps)?;
        if let Some(call) = self.call(query, &statement)? {
            return Ok(self.planned_call(query, call));
        }
        if let Some(asked) = translated::asked(&statement) {
            return self.plan_translated(query, asked?).await;
        }
        refuse_unknown(&statement)?;
        let mut explain = None;
        // What is explained is planned as it would be by itself.
        while let Statement::Explain(asked) = statement {
            explain = Some(Explain::new(&asked)?);
            statement = *asked.statement;
        }
        clock.end("parsing");
        let mut state = self.states.take(query);
        state.share_out(query.part.map(|part| part.wanted));
        let is_temporary = temporary::take(&mut statement);
        if is_temporary {
            self.temporaries.start(query)?;
        }
        let mut wanted = self.wanted(&query.session, &state.session, &statement, is_show, is_temporary)?;
        for table in &mut wanted {
            table.native = natives.get(&table.written).cloned();
        }
        let began = Instant::now();
        let (catalogs, tables) = self.resolve(query, wanted.clone()).await?;
        clock.end("tables");
        state.show(&tables);
        let turn = state.turn().await;
        metrics::counter!("nexus_plans_made_total").increment(1);
        let plan = state.session.statement_to_plan(statement).await?;
        match is_write(&plan) && explain.is_none() {
            true => plan.inputs().into_iter().try_for_each(refuse_writes)?,
            false => refuse_writes(&plan)?,
        }
        refuse_sizes(&plan)?;
        let mut plan = type_placeholders(plan)?;
        let parameters = parameters(&plan)?;
        if let Some(explain) = &mut explain {
            clock.end("planning");
            explain.reads(&tables, &catalogs, &query.cx.principal);
            explain.clock = clock;
        }
        let comes_again = explain.is_none() && !is_show && !is_write(&plan);
        let is_analysed = comes_again && parameters.is_empty();
        if is_analysed {
            plan = analyse(plan, &state.session)?;
        }
        if let Some(key) = key.filter(|_| comes_again)
            && let Some(kept) = Kept::new(&plan, is_analysed, &parameters, wanted, &tables, &query.session)?
        {
            kept.look(self.looked_up(query, &tables, began));
            self.plans.keep(key, kept).await;
        }
        let call = None;
        Ok(Unbound { plan, parameters, is_analysed, tables, state, catalogs, explain, is_temporary, turn, call })
    }

    /// What a statement calls for, where it is one of who may have that; to others it is a call like any other.
    fn call(&self, query: &Query, statement: &Statement) -> Result<Option<Call>> {
        let Some(called) = procedures::called(statement, &self.default_schema) else { return Ok(None) };
        let about = if called.drains().is_some() { system::engines } else { system::cache };
        if !self.catalogs.is_admin(&query.cx.principal, &about(&self.default_schema)) {
            return Ok(None);
        }
        Ok(match (called.drains(), &self.engines) {
            (Some(is_drained), Some(engines)) => {
                let catalog = called.argument()?;
                // To who does not see the catalog it is not there.
                self.catalogs.source(&query.cx.principal, catalog)?;
                Some(Call::Drain { engine: engines.get(catalog)?, is_drained })
            }
            (Some(_), None) => None,
            (None, _) => Some(Call::Invalidate(called.invalidates(|reference| self.places(&query.session, reference))?)),
        })
    }

    fn planned_call(&self, query: &Query, call: Call) -> Unbound {
        Unbound {
            plan: nothing(),
            parameters: Vec::new(),
            is_analysed: true,
            tables: Tables::default(),
            state: self.states.take(query),
            catalogs: Arc::clone(&self.catalogs),
            explain: None,
            is_temporary: false,
            turn: None,
            call: Some(call),
        }
    }

    /// The tables that a statement names.
    fn wanted(
        &self,
        session: &Session,
        state: &SessionState,
        statement: &Statement,
        is_show: bool,
        is_temporary: bool,
    ) -> Result<Vec<Wanted>> {
        let mut wanted = BTreeMap::new();
        let optional = may_be_missing(statement)?;
        let is_made = matches!(statement, Statement::Statement(made) if matches!(**made, ast::Statement::CreateTable(_)));
        // DataFusion does not see the name after DROP TABLE.
        for reference in state.resolve_table_references(statement)?.into_iter().chain(optional.clone()) {
            let written = TableName::resolve(&reference, &session.catalog, &session.schema);
            // `SHOW` names every view that information_schema could have; it reads only those that there are.
            let is_guess = is_show && written.schema == information_schema::NAME && !information_schema::has(&written.table);
            let is_function =
                matches!(&reference, TableReference::Bare { table } if state.table_functions().contains_key(&**table));
            if !is_guess && !is_function {
                let required = optional.as_ref() != Some(&reference);
                let mut places = self.places(session, &reference)?;
                if !required && is_made && !is_temporary {
                    places.retain(|name| name.catalog != temporary::CATALOG);
                }
                wanted.insert(written.clone(), Wanted { written, places, required, native: None });
            }
        }
        Ok(wanted.into_values().collect())
    }

    /// What a name may mean, the first first. Errors: `Precondition` where it may be that of a temporary table which is not here.
    fn places(&self, session: &Session, reference: &TableReference) -> Result<Vec<TableName>> {
        let written = TableName::resolve(reference, &session.catalog, &session.schema);
        let has_temporary = || Ok::<_, Error>(self.temporaries.of(session)?.is_some());
        Ok(match reference {
            TableReference::Bare { table } if has_temporary()? => vec![temporary::name(table), written],
            // Of `a.b`, `a` is a schema of the current catalog, or else a catalog with the usual schema.
            TableReference::Partial { schema, table } if **schema == *temporary::CATALOG && has_temporary()? => {
                vec![written, temporary::name(table)]
            }
            TableReference::Partial { schema, table } => {
                vec![written, TableName::new(&**schema, &self.default_schema, &**table)]
            }
            _ => vec![written],
        })
    }
}

/// The table that a statement makes or drops.
fn may_be_missing(statement: &Statement) -> Result<Option<TableReference>> {
    let name = match statement {
        Statement::Statement(statement) => match statement.as_ref() {
            ast::Statement::CreateTable(create) => Some(&create.name),
            ast::Statement::Drop { names, .. } => names.first(),
            _ => None,
        },
        _ => None,
    };
    Ok(name.map(|name| object_name_to_table_reference(name.clone(), true)).transpose()?)
}

/// Up to how many bytes, or rows where the bytes are not known, one side of a join is collected for all who read the other. Its table takes as
/// much memory as those of its parts would; that one thread makes it is felt beyond this.
const COLLECTED: (usize, usize) = (128 << 20, 8_000_000);

/// The settings that all statements share; those of one user have so many bytes of memory.
fn settings(share: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(false).with_create_default_catalog_and_schema(false);
    let sorts = config.target_partitions();
    let options = config.options_mut();
    // 0.06 + 0.01 is 0.07 and nothing else: an exact literal is a decimal, as in the standard.
    options.sql_parser.parse_float_as_decimal = true;
    // A time with a zone is a moment, wherever the reader is.
    options.execution.time_zone = Some("+00:00".to_owned());
    options.sql_parser.collect_spans = true;
    // Each sort holds this back for reading what it has put on disk. Of little memory the usual 10 MiB would be all.
    let held_back = share / sorts.saturating_mul(4).max(32);
    options.execution.sort_spill_reservation_bytes = options.execution.sort_spill_reservation_bytes.min(held_back);
    // So much is looked up by all who read the other side, which then need not be shared out by hashes: that costs more than to make the
    // table of this side by one.
    options.optimizer.hash_join_single_partition_threshold = COLLECTED.0;
    options.optimizer.hash_join_single_partition_threshold_rows = COLLECTED.1;
    // Plain strings go to the wire as they are; views would be compacted there by another copy.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    // `x IS TRUE` is never NULL when planned and may be when executed, as DataFusion sees it; what is promised is held anyway.
    options.execution.skip_physical_aggregate_schema_check = true;
    // It keeps the first groups alone and forgets the one of NULL, and panics over NaN.
    options.optimizer.enable_topk_aggregation = false;
    // Of `min` and `max` together it forgets one as soon as a file begins with NULL, and leaves out what that one still wants.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// DataFusion's rules for physical plans, with ours around them.
fn physical_rules(most: usize) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let theirs = PhysicalOptimizer::new().rules.into_iter().map(|rule| match rule.name() {
        name if name.starts_with("FilterPushdown") => Arc::new(NamesOnce(rule)) as _,
        _ => rule,
    });
    let ours: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 3] =
        [Arc::new(NarrowUnnest { most }), Arc::new(PausingJoins), Arc::new(WindowsByPartition)];
    // What it asks of the rows beneath it is still to be settled.
    let totals: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(GrandTotals);
    iter::once(totals).chain(theirs).chain(ours).collect()
}

fn described(schema: SchemaRef, parameters: Vec<(String, DataType)>, is_update: bool) -> Description {
    let fields: Vec<Field> = parameters.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    Description { schema, parameters: Arc::new(Schema::new(fields)), is_update, parts: Vec::new() }
}

fn schema_of(plan: &LogicalPlan) -> SchemaRef {
    Arc::new(plan.schema().as_arrow().clone())
}

fn analyse(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    // Before the analysis, which gives the check its types, and compares what it is given.
    let plan = Subqueries.analyze(plan, state.config_options())?;
    let plan = SingleRow.analyze(plan, state.config_options())?;
    let plan = Numbers.analyze(plan, state.config_options())?;
    let plan = Casts.analyze(plan, state.config_options())?;
    let plan = Escapes.analyze(plan, state.config_options())?;
    let plan = Frames.analyze(plan, state.config_options())?;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    let plan = Distinct.analyze(plan, state.config_options())?;
    let plan = PlainNan.analyze(plan, state.config_options())?;
    Ok(with_bounded_functions(fold_casts(plan)?, state)?)
}

/// Makes a cast of a literal a literal, as the optimizer would later: the type of `round(price, 1)` hangs on the value of 1,
/// and what was promised must be what comes.
fn fold_casts(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let fold = |expr: Expr| match &expr {
        Expr::Cast(Cast { expr: inner, data_type }) => match inner.as_ref() {
            // What cannot be cast is told by the execution, and only where it is reached.
            Expr::Literal(value, _) => match value.cast_to(data_type) {
                Ok(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
                Err(_) => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    };
    rewrite::expressions(plan, |expr, _| expr.transform_up(fold), LogicalPlan::recompute_schema)
}
