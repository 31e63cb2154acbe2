//! `nexus serve --demo`: TPC-H made on the spot, and a table with a column of each Arrow type.

mod types;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexus_flight_catalog::{Catalogs, Error, Keys, Result};
use nexus_sources::memory::MemorySource;

use crate::config::Config;
use crate::tpch;

/// The configuration of the demo, over data that is made if it is not there yet.
pub fn config(folder: &Path, scale_factor: f64, flight: SocketAddr, http: SocketAddr) -> Result<Config> {
    tpch::check(scale_factor)?;
    let data = folder.join(format!("tpch-sf{scale_factor}"));
    if !data.join("region.parquet").exists() {
        eprintln!("making TPC-H data at scale factor {scale_factor} in {}", data.display());
        tpch::write(&data, scale_factor, |_, _| {})?;
    }
    Config::parse(&text(&data, flight, http)?, &folder.join("demo.toml"), &|_| None)
}

/// Where demo data is kept: in the user's cache folder.
pub fn folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("NEXUS_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("nexus-gateway")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/nexus-gateway")));
    cache.unwrap_or_else(|| std::env::temp_dir().join("nexus-gateway")).join("demo")
}

fn text(data: &Path, flight: SocketAddr, http: SocketAddr) -> Result<String> {
    let location = data.to_str().ok_or_else(|| Error::invalid("the path of the demo data is not UTF-8"))?;
    let mut text = format!(
        "flight.listen = \"{flight}\"\nhttp.listen = \"{http}\"\ndefaults.catalog = \"tpch\"\n\n[catalogs.demo]\nkind = \"memory\"\nwritable = true\n\n\
         [catalogs.tpch]\nkind = \"files\"\nlocation = {}\n",
        serde_json::Value::from(location),
    );
    for table in &tpch::TABLES {
        let foreign: Vec<String> = table
            .foreign
            .iter()
            .map(|key| format!("{{ columns = {:?}, table = {:?}, referenced = {:?} }}", key.columns, key.table, key.referenced))
            .collect();
        write!(
            text,
            "\n[catalogs.tpch.tables.{name}]\npath = \"{name}.parquet\"\nprimary_key = {:?}\nforeign_keys = [{}]\n",
            table.primary,
            foreign.join(", "),
            name = table.name,
        )
        .map_err(|error| Error::internal("the demo's configuration cannot be written").caused_by(error))?;
    }
    Ok(text)
}

/// Adds what no configuration can say: the table with a column of each type.
pub fn register(catalogs: &Catalogs) -> Result<()> {
    let source = MemorySource::new();
    source.insert("main", "types", vec![types::types()?], Keys { primary: vec!["id".to_owned()], foreign: vec![] })?;
    catalogs.register("demo", Arc::new(source));
    Ok(())
}
