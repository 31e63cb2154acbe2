//! DataFusion's own SQL tests, the `.slt` files of the crate `datafusion-sqllogictest`, against running gateways over Flight SQL.
//!
//! `NEXUS_LOGIC_FOLDER` is where the files are, and `NEXUS_LOGIC_ENDPOINTS` lists gateways, as `http://host:port` with commas
//! between: each runs one file at a time. Their catalogs are `datafusion`, with the schema `public` the default, `my_catalog`
//! and `my_other_catalog`; all are of the kind `memory`, writable and empty. `NEXUS_LOGIC_ONLY` names files to run alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod connection;
mod names;
mod outcome;
mod seeds;
mod settings;
mod skipped;
mod suite;
mod values;

use std::cell::RefCell;
use std::env;
use std::path::PathBuf;

use outcome::Outcome;
use regex::Regex;
use skipped::Skipped;

/// How many records are run. It only grows.
const RUN: usize = 9_571;
/// How many records pass. It only grows, but by those that want refused, or answered wrongly, what is right by now; they are
/// listed as differing.
const PASSED: usize = 9_428;
/// Of a thousand records that could pass, so many do.
const PER_MILLE: usize = 990;
/// Of a thousand records that are run, so many pass; what the gateway answers otherwise on purpose counts as failed.
const PER_MILLE_OF_RUN: usize = 985;

#[tokio::test]
#[ignore = "it wants the files and gateways, which make test PARTS=logic gives it"]
async fn statements_are_answered_as_by_datafusion() {
    let folder = PathBuf::from(env::var("NEXUS_LOGIC_FOLDER").expect("NEXUS_LOGIC_FOLDER names a folder"));
    let endpoints = env::var("NEXUS_LOGIC_ENDPOINTS").expect("NEXUS_LOGIC_ENDPOINTS names gateways");
    let only = env::var("NEXUS_LOGIC_ONLY").ok();
    let skipped = Skipped::parse(include_str!("skipped.txt")).unwrap();
    let mut files = suite::files(&folder).unwrap();
    if let Some(only) = &only {
        files.retain(|file| only.split(',').any(|wanted| file.ends_with(wanted)));
    }
    // The largest come first, so that no gateway is left alone with one at the end.
    files.sort_by_cached_key(|file| file.metadata().map_or(0, |data| data.len()));
    let (waiting, outcome) = (RefCell::new(files), RefCell::new(Outcome::default()));
    let workers = endpoints.split(',').map(async |endpoint| {
        loop {
            let Some(file) = waiting.borrow_mut().pop() else { return };
            let done = suite::run(endpoint, &folder, &file, &skipped).await.unwrap_or_else(|error| panic!("{error}"));
            outcome.borrow_mut().add(done);
        }
    });
    futures::future::join_all(workers).await;
    let outcome = outcome.into_inner();
    println!("{outcome}");
    let mut wrong = outcome.wrong();
    if only.is_none() {
        wrong.extend(skipped.unmet().iter().map(|what| format!("{what} stands for no record: take it from skipped.txt")));
        if outcome.run() != RUN {
            wrong.push(format!("{} records are run, and {RUN} were: where they are more, write it down", outcome.run()));
        }
        if outcome.passed != PASSED {
            wrong.push(format!("{} records pass, and {PASSED} did: where they are more, write it down", outcome.passed));
        }
        if outcome.passed * 1_000 < outcome.applicable() * PER_MILLE {
            wrong.push(format!("less than {PER_MILLE} of 1000 applicable records pass"));
        }
        if outcome.passed * 1_000 < outcome.run() * PER_MILLE_OF_RUN {
            wrong.push(format!("less than {PER_MILLE_OF_RUN} of 1000 records that are run pass"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pattern that takes upper and lower case for the same, and any character for a point.
fn pattern(text: &str) -> Regex {
    Regex::new(&format!("(?is){text}")).unwrap()
}
