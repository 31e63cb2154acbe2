//! The targets of `server/tests/fuzz`, for cargo-fuzz.

#![allow(dead_code)]

#[path = "../../server/tests/fuzz/dice.rs"]
mod dice;
#[path = "../../server/tests/fuzz/door.rs"]
mod door;
#[path = "../../server/tests/fuzz/rows.rs"]
mod rows;
#[path = "../../server/tests/fuzz/seeds.rs"]
mod seeds;
#[path = "../../server/tests/fuzz/targets.rs"]
mod targets;

use std::sync::LazyLock;

use crate::door::Outside;
use crate::targets::Target;

static OUTSIDE: LazyLock<Outside> = LazyLock::new(|| {
    // What libfuzzer-sys put there ends the process also by a panic that becomes the error of one call.
    drop(std::panic::take_hook());
    Outside::new()
});

/// Takes some bytes for the target of this name. Panics where what comes of them must not.
pub fn take(name: &str, bytes: &[u8]) {
    let target = Target::ALL.into_iter().find(|target| target.name() == name);
    OUTSIDE.take(target.expect("a target of this name"), bytes);
}
