//! Where DataFusion's plans and functions answer otherwise than the standard (ISO/IEC 9075-2), and PostgreSQL: put right.
//! What can be told from the text alone is put right there, in [`crate::statement`]; windows have a place of their own.

mod casts;
mod escapes;
mod numbers;
mod overlay;
mod recursion;
mod single_row;
mod types;

pub use casts::Casts;
pub use escapes::Escapes;
pub use numbers::Numbers;
pub use overlay::Overlay;
pub use recursion::WholeRecursion;
pub use single_row::SingleRow;
pub use types::MoreTypes;
