//! Flight SQL: the main way in.
