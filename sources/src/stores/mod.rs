//! The stores that files are in, which connectors of files share: local folders and buckets, and what is read of a file at first.

mod create;
mod credentials;
mod direct;
mod filters;
mod footers;
mod lasting;
mod lists;
mod local;
mod locate;
mod location;
mod made;
mod pinned;
mod reader;
mod store;
mod tasks;
mod upload;

pub(crate) use create::Created;
pub(crate) use credentials::{Given, Renewed, no_keys};
pub(crate) use direct::Direct;
pub(crate) use filters::unqualified;
#[cfg(feature = "hudi")]
pub(crate) use footers::look_through_file;
pub(crate) use footers::{Footers, Readers, Rewrite, look_at_footer};
pub(crate) use locate::{Locate, cause};
pub(crate) use location::{Access, BUCKET, BucketOptions, Location, WrittenLocation, located, schema, text};
pub(crate) use made::Made;
pub(crate) use pinned::{PinnedStore, hex, immutable, session_url};
pub(crate) use reader::{Opens, Reader, guarded};
#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) use store::tests::heedless;
pub(crate) use store::{Store, credentials, told, too_long};
pub(crate) use tasks::{carried_out, ended_early, unbroken};
pub(crate) use upload::{Upload, Uploaded, unpacked};
