//! Where files are: the options that say so, alike for every connector of files.

use std::path::PathBuf;

use nexus_flight_catalog::{Error, Opt, OptType, Options, Result, information_schema};
use object_store::path::Path;
use secrecy::SecretString;
use serde::Deserialize;

/// An optional text.
pub(crate) const fn text(name: &'static str, help: &'static str) -> Opt {
    Opt { name, value: OptType::String, required: false, secret: false, help }
}

const LOCATION: Opt =
    Opt { required: true, ..text("location", "a folder, relative to the configuration file, or s3://bucket/prefix") };

/// The options that say how a bucket is reached.
pub(crate) struct BucketOptions {
    pub(crate) endpoint: Opt,
    pub(crate) region: Opt,
    pub(crate) access_key_id: Opt,
    pub(crate) secret_access_key: Opt,
    pub(crate) session_token: Opt,
    pub(crate) allow_http: Opt,
}

pub(crate) const BUCKET: BucketOptions = BucketOptions {
    endpoint: text("endpoint", "the address of an S3 server other than that of AWS"),
    region: text("region", "the region of the bucket"),
    access_key_id: text("access_key_id", "the id of the access key; without it, it comes from the environment or the machine"),
    secret_access_key: Opt { secret: true, ..text("secret_access_key", "the secret of the access key") },
    session_token: Opt { secret: true, ..text("session_token", "the token that goes with a temporary access key") },
    allow_http: Opt { value: OptType::Boolean, ..text("allow_http", "whether the endpoint may be http") },
};

/// All options of a connector of files: where those are, its own, and how a bucket is reached, which makes `ALL` of them.
pub(crate) const fn located<const OWN: usize, const ALL: usize>(own: [Opt; OWN], bucket: BucketOptions) -> [Opt; ALL] {
    let BucketOptions { endpoint, region, access_key_id, secret_access_key, session_token, allow_http } = bucket;
    let bucket = [endpoint, region, access_key_id, secret_access_key, session_token, allow_http];
    assert!(ALL == 1 + OWN + bucket.len(), "another number of options");
    let mut all = [LOCATION; ALL];
    let mut at = 0;
    while at < OWN {
        all[1 + at] = own[at];
        at += 1;
    }
    let mut at = 0;
    while at < bucket.len() {
        all[1 + OWN + at] = bucket[at];
        at += 1;
    }
    all
}

/// The schema of what is directly in a location, of these things. Errors: `Invalid` for a name that no schema can have.
pub(crate) fn schema(written: Option<String>, of: &str, options: &Options) -> Result<String> {
    let schema = written.unwrap_or_else(|| "main".to_owned());
    if schema == information_schema::NAME || schema.is_empty() {
        return Err(Error::invalid(format!("no schema of {of} can have this name"))
            .with_hint("choose another, or leave schema out")
            .at(options.key("schema")));
    }
    Ok(schema)
}

/// Where the files of a catalog are.
pub(crate) enum Location {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: Path, access: Access },
}

/// How a bucket is reached.
pub(crate) struct Access {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<SecretString>,
    pub(crate) session_token: Option<SecretString>,
    pub(crate) allow_http: bool,
}

/// The same as it is written.
#[derive(Deserialize)]
pub(crate) struct WrittenLocation {
    location: String,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<SecretString>,
    session_token: Option<SecretString>,
    #[serde(default)]
    pub(crate) allow_http: bool,
}

impl WrittenLocation {
    /// Errors: `Invalid` with the key at fault.
    pub(crate) fn check(self, options: &Options) -> Result<Location> {
        let Self { location, endpoint, region, access_key_id, secret_access_key, session_token, allow_http } = self;
        let Some((scheme, rest)) = location.split_once("://") else {
            if let Some((scheme, _)) = location.split_once(":/") {
                return Err(Error::invalid(format!("\"{scheme}:/\" begins neither a folder nor an address"))
                    .with_hint("write a local folder, or s3://bucket/prefix")
                    .at(options.key("location")));
            }
            for (name, given) in [
                ("endpoint", endpoint.is_some()),
                ("region", region.is_some()),
                ("access_key_id", access_key_id.is_some()),
                ("secret_access_key", secret_access_key.is_some()),
                ("session_token", session_token.is_some()),
            ] {
                if given {
                    return Err(Error::invalid(format!("\"{name}\" has no meaning for the local folder \"{location}\""))
                        .with_hint("remove it, or write the location as s3://bucket/prefix")
                        .at(options.key(name)));
                }
            }
            return Ok(Location::Folder(options.base.join(location)));
        };
        if scheme != "s3" {
            return Err(Error::invalid(format!("a location cannot start with {scheme}://"))
                .with_hint("write a local folder, or s3://bucket/prefix")
                .at(options.key("location")));
        }
        for (name, other, given, missing) in [
            ("access_key_id", "secret_access_key", access_key_id.is_some(), secret_access_key.is_none()),
            ("secret_access_key", "access_key_id", secret_access_key.is_some(), access_key_id.is_none()),
        ] {
            if given && missing {
                let error = Error::invalid(format!("\"{name}\" is given without \"{other}\""));
                return Err(error.with_hint("give both, or neither").at(options.key(name)));
            }
        }
        if !allow_http && endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
            return Err(Error::invalid("the endpoint is http and not https")
                .with_hint("set allow_http = true if that is meant")
                .at(options.key("endpoint")));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Error::invalid("the location names no bucket")
                .with_hint("write s3://bucket/prefix")
                .at(options.key("location")));
        }
        let prefix = Path::parse(prefix.trim_matches('/'))
            .map_err(|cause| Error::invalid(format!("this is no path in a bucket: {cause}")).at(options.key("location")))?;
        let access = Access { endpoint, region, access_key_id, secret_access_key, session_token, allow_http };
        Ok(Location::Bucket { bucket: bucket.to_owned(), prefix, access })
    }
}
