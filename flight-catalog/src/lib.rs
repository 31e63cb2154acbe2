//! Names, sources and errors: what every connector implements and every protocol is served from.
//!
//! This crate knows no product and no protocol. A connector implements [`Source`]; the server resolves the tables that a
//! statement names through [`Catalogs`]; both report trouble as one [`Error`].

pub mod catalog;
pub mod compact;
pub mod conformance;
pub mod error;
pub mod information_schema;
pub mod ipc;
pub mod name;
pub mod native;
pub mod options;
pub mod policy;
pub mod quantity;
pub mod scan;
pub mod source;
pub mod sql;
pub mod tables;
pub mod virtual_table;
pub mod write;

pub use catalog::{Catalogs, Wanted};
pub use error::{Error, Kind, Place, Result};
pub use name::TableName;
pub use options::{Opt, OptType, Options};
pub use source::{
    Capabilities, Context, ForeignKey, Keys, Principal, Proof, Resolved, Source, Spec, TableEntry, TableKind, Version,
};
pub use tables::Tables;
pub use write::{Change, IfExists, IfMissing, Put, Target, Transaction};
