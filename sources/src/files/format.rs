//! The formats that files are in, told by their names.

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use serde::Deserialize;

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Parquet,
    Csv,
    /// One object a line.
    Json,
    /// Arrow IPC, as file or stream.
    Arrow,
}

/// What the name of a file says: the table's name, the format and the compression around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Named<'a> {
    pub(super) stem: &'a str,
    pub(super) format: Format,
    pub(super) compression: FileCompressionType,
}

impl Format {
    /// All names, as the configuration writes them.
    pub(super) const NAMES: &[&str] = &[Format::Parquet.name(), Format::Csv.name(), Format::Json.name(), Format::Arrow.name()];

    /// The format as the configuration writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Arrow => "arrow",
        }
    }

    /// Takes a file's name apart, such as `orders.csv.gz`; nothing where its ending says nothing.
    pub(super) fn of(name: &str) -> Option<Named<'_>> {
        let (rest, compression) = compression(name);
        let (stem, ending) = rest.rsplit_once('.')?;
        let format = match ending.to_ascii_lowercase().as_str() {
            "parquet" => Format::Parquet,
            "csv" => Format::Csv,
            "json" | "jsonl" | "ndjson" => Format::Json,
            "arrow" | "arrows" | "feather" | "ipc" => Format::Arrow,
            _ => return None,
        };
        // Parquet and Arrow compress inside; around them it would cost the whole file for every row.
        let whole = matches!(format, Format::Parquet | Format::Arrow) && compression.is_compressed();
        (!stem.is_empty() && !whole).then_some(Named { stem, format, compression })
    }
}

/// What is left of a name without the ending of a compression, and that compression.
pub(super) fn compression(name: &str) -> (&str, FileCompressionType) {
    let kinds = [
        (".gz", FileCompressionType::GZIP),
        (".bz2", FileCompressionType::BZIP2),
        (".xz", FileCompressionType::XZ),
        (".zst", FileCompressionType::ZSTD),
    ];
    let found = kinds.into_iter().find_map(|(ending, kind)| Some((name.strip_suffix(ending)?, kind)));
    found.unwrap_or((name, FileCompressionType::UNCOMPRESSED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_format_and_compression() {
        let of = |name| Format::of(name).map(|named| (named.stem, named.format, named.compression.is_compressed()));
        assert_eq!(of("a.parquet"), Some(("a", Format::Parquet, false)));
        assert_eq!(of("a.b.CSV.gz"), Some(("a.b", Format::Csv, true)));
        assert_eq!(of("a.ndjson.zst"), Some(("a", Format::Json, true)));
        for name in ["a", "a.gz", ".csv", "a.txt", "a.parquet.gz", "parquet"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
