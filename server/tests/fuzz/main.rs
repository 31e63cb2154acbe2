//! Bytes from outside, changed at random from seeds that never change: whatever they are, there is an answer or an error, within
//! a second and 512 MiB. `make fuzz` goes on for longer, by other seeds, or led by what they reach.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod dice;
mod door;
mod rows;
mod seeds;
mod targets;

use std::alloc::System;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cap::Cap;

use crate::dice::Dice;
use crate::door::Outside;
use crate::targets::Target;

/// The most memory that all targets may have together. What asks for more ends the process.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 512 << 20);

/// The longest that one of them may take.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn puts() {
    run(Target::Puts, 2_000, 0x9E37_79B9);
}

#[test]
fn commands() {
    run(Target::Commands, 4_000, 0x00C0_FFEE);
}

#[test]
fn tickets() {
    run(Target::Tickets, 4_000, 0xDEAD_BEEF);
}

#[test]
fn cookies() {
    run(Target::Cookies, 4_000, 0x0BAD_CAFE);
}

#[test]
fn credentials() {
    run(Target::Credentials, 2_000, 0xABCD_EF01);
}

#[test]
fn statements() {
    run(Target::Statements, 5_000, 0x5EED_5EED);
}

#[test]
fn configurations() {
    run(Target::Configurations, 4_000, 0x1234_5678);
}

/// For cargo-fuzz, which begins with them.
#[test]
#[ignore = "it writes files, for make fuzz"]
fn seeds_are_written() {
    for target in Target::ALL {
        let folder = folder("corpus", target);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in Outside::new().seeds(target).iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

/// Tries what once failed, then so many changes of the seeds of a target; with `NEXUS_FUZZ_SECONDS`, for so long, other ones each time.
fn run(target: Target, turns: usize, seed: u64) {
    let seconds: Option<u64> = env::var("NEXUS_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    let seed = seconds.map_or(seed, |_| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64);
    let (outside, mut dice) = (Outside::new(), Dice::new(seed));
    let seeds = outside.seeds(target);
    let kept = folder("artifacts", target);
    fs::create_dir_all(&kept).unwrap();
    for file in fs::read_dir(&kept).unwrap() {
        attempt(&outside, target, &fs::read(file.unwrap().path()).unwrap());
    }
    // It stays there where the process ends by it.
    let last = kept.join(format!("last-{seed:x}"));
    let (began, mut longest, mut count) = (Instant::now(), Duration::ZERO, 0);
    for seed in &seeds {
        attempt(&outside, target, seed);
    }
    while seconds.map_or(count < turns, |seconds| began.elapsed() < Duration::from_secs(seconds)) {
        let bytes = target.changed(&mut dice, &seeds[count % seeds.len()], &seeds);
        fs::write(&last, &bytes).unwrap();
        longest = longest.max(attempt(&outside, target, &bytes));
        count += 1;
    }
    fs::remove_file(&last).unwrap();
    let most = ALLOCATOR.max_allocated() >> 20;
    println!("{target:?}: {count} in {:.1?}, the longest {longest:.1?}, at most {most} MiB by all", began.elapsed());
}

/// Takes some bytes; how long that took. What is slow is tried again: the machine may be busy with something else.
fn attempt(outside: &Outside, target: Target, bytes: &[u8]) -> Duration {
    let timed = || {
        let began = Instant::now();
        outside.take(target, bytes);
        began.elapsed()
    };
    let took = timed();
    if took < SOON {
        return took;
    }
    let took = took.min(timed()).min(timed());
    assert!(took < SOON, "{target:?} took {took:?}: {}", String::from_utf8_lossy(bytes));
    took
}

/// Where cargo-fuzz keeps what it has of a target.
fn folder(what: &str, target: Target) -> PathBuf {
    // As cargo says when it runs the tests, not when it built them: a checkout may lie elsewhere by then.
    Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().join("fuzz").join(what).join(target.name())
}
