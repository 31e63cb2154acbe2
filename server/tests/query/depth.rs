//! As deep as the caps let a statement be, it runs on the stacks that there are; deeper, it is refused.

use std::time::{Duration, Instant};

use nexus_flight_catalog::Kind;
use nexus_server::workers::{self, Workers};

use crate::fixture::Fixture;

/// The default of `limits.nesting`.
const NESTING: usize = 400;

/// Chains of `count` operators, joins or sub-queries, each kind of chain that a text can grow.
fn chains(count: usize) -> Vec<(&'static str, String)> {
    let nested = |open: &str, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(count), close.repeat(count));
    vec![
        ("plus", format!("SELECT id{} FROM numbers", " + id".repeat(count))),
        ("or", format!("SELECT id FROM numbers WHERE id = 0{}", " OR id = 1".repeat(count / 2))),
        ("and", format!("SELECT id FROM numbers WHERE id > 0{}", " AND id > 0".repeat(count / 2))),
        ("concat", format!("SELECT name{} FROM numbers", " || name".repeat(count))),
        ("parentheses", format!("SELECT {} FROM numbers", nested("(", "id", ")"))),
        ("minus", format!("SELECT {} FROM numbers", nested("- (", "id", ")"))),
        ("not", format!("SELECT {} (id > 1) FROM numbers", "NOT ".repeat(count))),
        ("cast", format!("SELECT id{} FROM numbers", "::bigint::double".repeat(count / 2))),
        ("function", format!("SELECT {} FROM numbers", nested("abs(", "id", ")"))),
        ("case", format!("SELECT {} FROM numbers", nested("CASE WHEN id > 1 THEN id ELSE ", "id", " END"))),
        ("subquery", format!("SELECT * FROM {} AS last", nested("(SELECT * FROM ", "numbers", ")"))),
        ("scalar subquery", format!("SELECT {}", nested("(SELECT ", "1", ")"))),
        ("in", format!("SELECT * FROM numbers WHERE {}", nested("id IN (SELECT id FROM numbers WHERE ", "true", ")"))),
        ("exists", format!("SELECT * FROM numbers WHERE {}", nested("EXISTS (SELECT 1 FROM numbers WHERE ", "true", ")"))),
        ("union", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(count))),
        ("except", format!("SELECT 1{}", " EXCEPT SELECT 2".repeat(count))),
        ("with", {
            let steps: Vec<_> = (1..=count).map(|step| format!("a{step} AS (SELECT * FROM a{})", step - 1)).collect();
            format!("WITH a0 AS (SELECT 1 AS id), {} SELECT * FROM a{count}", steps.join(", "))
        }),
        ("join", {
            let joins: String = (1..=count).map(|step| format!(" JOIN other a{step} ON a{step}.id = a0.id")).collect();
            format!("SELECT count(*) FROM other a0{joins}")
        }),
        ("array", format!("SELECT {}", nested("[", "1", "]"))),
    ]
}

/// On threads like those of the binary.
fn on_threads_of_the_binary<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = workers::threads("test").unwrap();
    let done = runtime.block_on(async { tokio::spawn(work).await.unwrap() });
    runtime.shutdown_background();
    done
}

#[test]
fn the_deepest_that_is_let_through_runs() {
    on_threads_of_the_binary(async {
        let fixture = Fixture::on("", Workers::here());
        for (name, _) in chains(1) {
            // The longest chain of this kind that the cap lets through.
            let (mut low, mut high) = (1, NESTING + 1);
            let text = |count: usize| chains(count).into_iter().find(|(other, _)| *other == name).unwrap().1;
            let let_through = async |count: usize| {
                let described = fixture.gateway.execute.describe(&fixture.query(&text(count))).await;
                !matches!(described, Err(error) if error.kind() == Kind::Exhausted)
            };
            while high - low > 1 {
                let middle = low.midpoint(high);
                if let_through(middle).await { low = middle } else { high = middle }
            }
            let began = Instant::now();
            let outcome = fixture.run(&text(low)).await;
            // Ten sub-queries are let through within one another, and more of everything else.
            assert!(low >= 9, "{name}: only {low} are let through");
            assert!(outcome.is_ok(), "{name}: {low}: {}", outcome.err().map(|error| error.to_string()).unwrap_or_default());
            assert!(began.elapsed() < Duration::from_secs(60), "{name}: {low} took {:?}", began.elapsed());
        }
    });
}

#[test]
fn a_hundred_thousand_are_refused_at_once() {
    on_threads_of_the_binary(async {
        let fixture = Fixture::on("", Workers::here());
        for (name, text) in chains(100_000) {
            let began = Instant::now();
            let error = fixture.error(&text).await;
            assert_eq!(error.kind(), Kind::Exhausted, "{name}: {error}");
            assert!(began.elapsed() < Duration::from_secs(5), "{name} took {:?}", began.elapsed());
        }
    });
}
