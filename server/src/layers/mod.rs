//! What stands between the protocols and the execution. No layer knows a product.

pub mod audit;
pub mod cache;
pub mod limit;
