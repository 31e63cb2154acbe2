//! What the tables of lakes share, whichever format tells of them: a snapshot is a list of Parquet files with the rows of each that are
//! deleted, and is read by one scan.
//!
//! The formats' crates read metadata and nothing else. What makes answers right is decided here, once: columns are found in a file
//! as its format says ([`Columns`]), deleted rows are positions that the reader never decodes ([`Deletes`]), and whatever is left out
//! by bounds is left out by [`Bounds`].
//!
//! Rows on their way into tables become files here too, whichever format will tell of them ([`Files`]).
//!
//! The servers that know tables are called here too, with whatever they give for a time ([`Http`], [`Vending`]).

mod access;
mod avro_bytes;
mod avro_names;
mod columns;
mod conform;
mod equality;
mod floats;
mod http;
mod kept;
mod kinds;
mod layout;
mod name;
mod nans;
mod open;
mod positions;
mod room;
mod scan;
mod snapshot;
#[cfg(test)]
mod tests;
mod vector;
mod vended;
mod writing;

pub(crate) use access::Lake;
pub(crate) use avro_bytes::{MAGIC, Rest};
pub(crate) use avro_names::allow_any_script;
pub(crate) use columns::{Column, Columns};
pub(crate) use conform::becomes;
#[cfg(feature = "hudi")]
pub(crate) use conform::conform;
pub(crate) use equality::{Equality, EqualityFile};
#[cfg(feature = "hudi")]
pub(crate) use floats::Floats;
#[cfg(test)]
pub(crate) use http::tests::{Reply, served};
pub(crate) use http::{Answer, Http, MOST_NAMES, Page, address, checked_token, encoded};
pub(crate) use kinds::{Has, check_kind};
pub(crate) use layout::Folder;
pub(crate) use name::{Name, is_name, moment};
pub(crate) use nans::{Nans, leaves};
pub(crate) use positions::{All, DeleteFile, Positions, Tail, Vector};
pub(crate) use room::{Room, Taken};
#[cfg(feature = "hudi")]
pub(crate) use scan::Known;
pub(crate) use scan::{LakeTable, rows};
pub(crate) use snapshot::{Bounds, DataFile, Deletes, Lacking, Snapshot};
pub(crate) use vector::deletion_vector;
pub(crate) use vended::{Vending, Vends, life};
pub(crate) use writing::{Files, New, SIZE, Writes};
