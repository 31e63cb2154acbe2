//! Compute engines: what runs a whole statement elsewhere and streams its rows back. None is offered yet, so this crate holds
//! the place that the dependency arrows give it, and nothing else.
