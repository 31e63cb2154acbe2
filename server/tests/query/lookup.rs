//! How long it takes to find an answer that is kept, when the statement is planned and the versions of its tables are known.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::{StreamExt, stream};
use nexus_flight_catalog::Result;
use nexus_server::config::Config;
use nexus_server::layers::Run;
use nexus_server::layers::cache::{Cache, Kept, Refreshes};
use nexus_server::plan::Planned;
use nexus_server::query::Answer;
use nexus_server::query::CacheUse::{Hit, Miss};
use nexus_server::workers::Workers;
use nexus_server::writes::Writes;

use crate::fixture::Fixture;

const ROUNDS: usize = 2_000;

/// Of 20 nodes.
const STATEMENT: &str = "SELECT a.c1 AS k, sum(b.c2 * (1 - c.c3)) AS s, count(*) AS n, max(d.c4) AS m
    FROM wide a JOIN wide b ON a.c0 = b.c0 JOIN wide c ON b.c15 = c.c1 JOIN wide d ON c.c2 = d.c2 JOIN wide e ON d.c14 = e.c15
    WHERE a.c1 > 1 AND b.c2 BETWEEN 2 AND 9 AND c.c3 IN (1, 2, 3) AND d.c5 <> e.c6
    GROUP BY a.c1 HAVING count(*) > 1 ORDER BY s DESC, k LIMIT 10";

/// Answers what is not kept.
struct Made;

#[async_trait]
impl Run for Made {
    async fn run(&self, planned: Planned) -> Result<Answer> {
        let rows = RecordBatch::new_empty(Arc::clone(&planned.schema));
        planned.state.give_back();
        Ok(Answer::new(rows.schema(), stream::iter([Ok(rows)]).boxed()))
    }
}

/// A row of 16 columns.
fn wide() -> RecordBatch {
    let column = |at: i64| (format!("c{at}"), Arc::new(Int64Array::from(vec![at])) as ArrayRef);
    RecordBatch::try_from_iter((0..16).map(column)).unwrap()
}

fn nodes(plan: &LogicalPlan) -> usize {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    nodes
}

#[tokio::test]
#[ignore = "it measures, and asserts nothing of what it measures: integration/bench/lookup.py reads it"]
async fn an_answer_that_is_kept_is_found() {
    let fixture = Fixture::new("");
    fixture.source.put("wide", wide());
    let config = Config::parse("[catalogs.test]\nkind = \"memory\"\n", Path::new("nexus.toml"), &|_| None).unwrap();
    let kept = Arc::new(Kept::new(&config, Arc::new(Writes::default())));
    let minute = Duration::from_secs(60);
    let cache = Cache::new(Made, kept, Arc::new(Refreshes::new(Workers::here(), minute)), Workers::here(), minute);
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let planned = fixture.gateway.planner.plan(fixture.query(STATEMENT)).await.unwrap().unwrap();
        assert!(nodes(&planned.plan) >= 20, "{}", planned.plan.display_indent());
        let began = Instant::now();
        let answer = cache.run(planned).await.unwrap();
        took.push(began.elapsed());
        assert_eq!(answer.cache.how, if round == 0 { Miss } else { Hit });
        assert_eq!(answer.batches.count().await, 1);
    }
    took.sort();
    eprintln!("found in {:.1} us", took[ROUNDS / 2].as_secs_f64() * 1e6);
}
