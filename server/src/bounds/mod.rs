//! How large a batch may become. Operators count what they keep against the memory limit, but not the batch that they are
//! about to make, and a few things make far more than they are given: `repeat(name, 1000000)` of a batch of rows is gigabytes.

mod concatenation;
mod counted;
mod functions;
mod measure;
mod patterns;
mod rows;
mod series;
mod types;
mod unfolded;
mod unnest;

pub use concatenation::replaced as with_bounded_functions;
pub use counted::{counted, with_constants_within};
pub use functions::bounded;
pub use measure::bytes;
pub use rows::{rows_as_wide, rows_within};
pub use types::{all_within, refuse_sizes};
pub use unfolded::unfolded;
pub use unnest::NarrowUnnest;

/// The least and the most that the bound is, whatever the memory limit.
const RANGE: (usize, usize) = (8 << 20, 128 << 20);

/// The bytes that a column may grow to in one batch, under a memory limit for all statements: several such columns of
/// several statements are there at a time.
pub fn most(memory: usize) -> usize {
    (memory / 8).clamp(RANGE.0, RANGE.1)
}

/// Bytes for people.
fn shown(bytes: u128) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
