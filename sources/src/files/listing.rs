//! Which files make a table: discovery, patterns, partition folders, and the version that a listing has.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt, future, stream};
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use ring::digest::{Context as Digest, SHA256};

use super::claim::{self, Replaced};
use super::config::Declared;
use super::format::{Format, compression};
use super::pattern::Pattern;
use super::walk;
use crate::stores::{Store, ended_early};

/// The most files of one table.
const MOST_FILES: usize = 100_000;
/// How often a folder is listed that changes meanwhile.
const LISTINGS: usize = 20;
/// How many files are looked at side by side.
const HEADS_AT_ONCE: usize = 16;
/// What Hive calls the folder of NULL.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// The files of a table at one moment.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) format: Format,
    pub(super) compression: FileCompressionType,
    /// The columns that folders hold.
    pub(super) partitions: Vec<Field>,
    /// Sorted by path.
    pub(super) files: Vec<File>,
    /// A digest of all of it: equal digests mean equal files.
    pub(super) version: String,
}

/// A file as it was listed.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) meta: ObjectMeta,
    /// The values of the partition columns.
    pub(super) values: Vec<ScalarValue>,
}

/// Where the files of a table are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    File(Path),
    Folder(Path),
    /// A file or a folder; the store knows which.
    Either(Path),
    /// Segments with `*`, `?` and `**`.
    Pattern(String),
}

impl Target {
    /// The target as the user would look for it.
    pub(super) fn show(&self, store: &Store) -> String {
        match self {
            Target::File(path) | Target::Folder(path) | Target::Either(path) => store.show(path),
            Target::Pattern(pattern) => pattern.clone(),
        }
    }

    /// What a declared path means. Errors: `Invalid` for a path that no store can hold.
    pub(super) fn parse(path: &str) -> Result<Self> {
        if path.contains(['*', '?']) {
            return Ok(Target::Pattern(path.trim_matches('/').to_owned()));
        }
        let parsed =
            Path::parse(path.trim_matches('/')).map_err(|cause| Error::invalid(format!("\"{path}\" is no path: {cause}")))?;
        Ok(if path.ends_with('/') { Target::Folder(parsed) } else { Target::Either(parsed) })
    }
}

/// The tables that are there without being declared: data files and folders right under the location.
pub(super) async fn discover(store: &Store) -> Result<BTreeMap<String, Vec<Target>>> {
    let (files, folders) = top(store).await?;
    let mut found: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    let mut files = within(store, files).await?;
    files.sort();
    for path in files {
        let Some(named) = path.filename().filter(|name| !hidden(name)).and_then(Format::of) else { continue };
        found.entry(named.stem.to_owned()).or_default().push(Target::File(path.clone()));
    }
    for path in within(store, folders).await? {
        let Some(name) = path.filename().filter(|name| !hidden(name)) else { continue };
        found.entry(name.to_owned()).or_default().push(Target::Folder(path.clone()));
    }
    Ok(found)
}

/// The files that are not empty, and the folders, right under the location.
async fn top(store: &Store) -> Result<(Vec<Path>, Vec<Path>)> {
    let Some(folder) = store.folder.clone() else {
        let top = store.objects().list_with_delimiter(None).await;
        let top = top.map_err(|cause| store.list_error(&cause, &Path::default()))?;
        let files = top.objects.into_iter().filter(|meta| meta.size > 0).map(|meta| meta.location);
        return Ok((files.collect(), top.common_prefixes));
    };
    // Not through the store, which would fail for all of them because of one whose name is no path for it.
    let listed = tokio::task::spawn_blocking(move || {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let Some(path) = name.to_str().and_then(|name| Path::parse(name).ok()) else { continue };
            // What is a link counts as what it leads to; what leads nowhere is no table.
            match std::fs::metadata(folder.join(&name)) {
                Ok(found) if found.is_dir() => folders.push(path),
                Ok(found) if found.is_file() && found.len() > 0 => files.push(path),
                _ => {}
            }
        }
        Ok::<_, std::io::Error>((files, folders))
    });
    let listed = listed.await.map_err(ended_early)?;
    listed.map_err(|cause| {
        Error::unavailable(format!("the folder cannot be listed: {cause}")).at(store.place(&Path::default())).caused_by(cause)
    })
}

pub(super) fn hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Those of these paths that do not lead out of a local folder by a link.
async fn within(store: &Store, paths: Vec<Path>) -> Result<Vec<Path>> {
    let Some(root) = store.folder.clone() else { return Ok(paths) };
    let stays = move |path: &Path| root.join(path.as_ref()).canonicalize().is_ok_and(|real| real.starts_with(&root));
    let kept = tokio::task::spawn_blocking(move || paths.into_iter().filter(stays).collect());
    kept.await.map_err(ended_early)
}

/// Lists the files of a table. Errors: `NotFound` where there are none and no columns are declared.
pub(super) async fn list(store: &Store, table: &str, target: &Target, declared: Option<&Declared>) -> Result<Listing> {
    let (base, mut found) = find(store, target).await?;
    let wanted = declared.and_then(|declared| declared.format);
    let mut files = Vec::with_capacity(found.len());
    let mut kind: Option<(Format, FileCompressionType, Path)> = None;
    found.sort_by(|a, b| a.location.cmp(&b.location));
    for meta in found {
        let name = meta.location.filename().unwrap_or_default();
        let (format, packed) = match wanted {
            Some(format) => (format, compression(name).1),
            None => match Format::of(name) {
                Some(named) => (named.format, named.compression),
                None if matches!(target, Target::Folder(_) | Target::Pattern(_)) => continue,
                None => {
                    return Err(Error::invalid("the ending of this file says no format")
                        .with_hint(format!("declare the format of the table \"{table}\": parquet, csv, json or arrow"))
                        .at(store.place(&meta.location)));
                }
            },
        };
        match &kind {
            Some((first, first_packed, first_path)) if (*first, *first_packed) != (format, packed) => {
                return Err(Error::data(format!(
                    "the table \"{table}\" mixes formats: {} is {} and {} is {}",
                    store.show(first_path),
                    describe(*first, *first_packed),
                    store.show(&meta.location),
                    describe(format, packed)
                ))
                .with_hint("keep a folder for each format, or declare a table for each")
                .at(store.place(&base)));
            }
            Some(_) => {}
            None => kind = Some((format, packed, meta.location.clone())),
        }
        files.push(meta);
    }
    if files.is_empty() && declared.is_none_or(|declared| declared.columns.is_none()) {
        return Err(Error::not_found(format!("the table \"{table}\" has no data files"))
            .with_hint("put a file there, or declare the table's columns so that it can be empty")
            .at(store.place(&base)));
    }
    let (format, packed) = match kind {
        Some((format, packed, _)) => (format, packed),
        None => (wanted.unwrap_or(Format::Parquet), FileCompressionType::UNCOMPRESSED),
    };
    let version = version(&files);
    let (partitions, files) = partitions(store, &base, files, declared)?;
    Ok(Listing { format, compression: packed, partitions, files, version })
}

fn describe(format: Format, packed: FileCompressionType) -> String {
    if packed.is_compressed() { format!("compressed {}", format.name()) } else { format.name().to_owned() }
}

/// The files of a target, and the folder from which partition folders count.
async fn find(store: &Store, target: &Target) -> Result<(Path, Vec<ObjectMeta>)> {
    match target {
        Target::File(path) => {
            let meta = head(store, path).await.map_err(|cause| missing(store, cause, path))?;
            Ok((path.clone(), stay(store, vec![meta]).await?))
        }
        Target::Folder(folder) => Ok((folder.clone(), below(store, folder, None).await?)),
        Target::Either(path) => match head(store, path).await {
            Ok(meta) => Ok((path.clone(), stay(store, vec![meta]).await?)),
            Err(object_store::Error::NotFound { .. }) => Ok((path.clone(), below(store, path, None).await?)),
            Err(cause) => Err(store.error(&cause, path)),
        },
        Target::Pattern(pattern) => {
            let pattern = Pattern::parse(pattern);
            let base = pattern.base();
            Ok((base.clone(), below(store, &base, Some(&pattern)).await?))
        }
    }
}

/// Looks at one file. The store may name it by its place in the whole bucket.
async fn head(store: &Store, path: &Path) -> object_store::Result<ObjectMeta> {
    let meta = store.objects().head(path).await?;
    Ok(ObjectMeta { location: path.clone(), ..meta })
}

fn missing(store: &Store, cause: object_store::Error, path: &Path) -> Error {
    match cause {
        object_store::Error::NotFound { .. } => Error::not_found("the file does not exist").at(store.place(path)),
        other => store.error(&other, path),
    }
}

/// Whether there is a file under a path.
pub(super) async fn is_file(store: &Store, path: &Path) -> Result<bool> {
    match head(store, path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(cause) => Err(store.error(&cause, path)),
    }
}

/// All the files below a folder that are not hidden, of a pattern those that match; without those that others have taken the
/// place of. Errors: `Precondition` where they change faster than they can be listed.
async fn below(store: &Store, folder: &Path, pattern: Option<&Pattern>) -> Result<Vec<ObjectMeta>> {
    // Files that others put there one by one count as they come: only what the gateway changes is of one moment.
    let mut are_others = false;
    for _ in 0..LISTINGS {
        let before = store.changed(folder);
        let (marks, mut files) = all_below(store, folder, pattern).await?;
        let were_others = are_others;
        are_others = marks.is_empty() && !files.is_empty() && !files.iter().any(|file| claim::is_ours(&file.location));
        match claim::replaced(store, &marks, &files).await? {
            Replaced::Changing => {}
            Replaced::Files(gone) => {
                // What has come and gone while it was listed stands beside what was there before, or nothing is seen at all.
                if before == store.changed(folder) || (are_others && were_others) {
                    files.retain(|meta| !gone.contains(&meta.location));
                    match stay(store, files.into_iter().filter(|meta| meta.size > 0).collect()).await {
                        Err(error) if error.kind() == Kind::Precondition => {}
                        stayed => return stayed,
                    }
                }
            }
        }
    }
    Err(changing(store, folder))
}

/// The marks of the gateway below a folder, and the files.
async fn all_below(store: &Store, folder: &Path, pattern: Option<&Pattern>) -> Result<(Vec<ObjectMeta>, Vec<ObjectMeta>)> {
    let visible = |path: &Path| path.prefix_match(folder).is_some_and(|mut rest| !rest.any(|part| hidden(part.as_ref())));
    let wanted = |path: &Path| visible(path) && pattern.is_none_or(|pattern| pattern.matches(path.as_ref()));
    let listed = store.objects().list(Some(folder).filter(|folder| !folder.as_ref().is_empty()));
    let kept = listed.try_filter(|meta| future::ready(claim::is_mark(&meta.location) || wanted(&meta.location)));
    let found: Vec<ObjectMeta> = match (kept.take(MOST_FILES + 1).try_collect().await, &store.folder) {
        (Ok(files), _) => files,
        // A local folder that is not there has no files, as in a bucket.
        (Err(object_store::Error::NotFound { .. }), Some(_)) => Vec::new(),
        // One entry that it cannot take ends the listing of the store, whether that entry is wanted or not.
        (Err(object_store::Error::InvalidPath { .. } | object_store::Error::Generic { .. }), Some(root)) => {
            let mut paths = walk::files(root.clone(), folder.clone(), pattern.cloned(), MOST_FILES + 1).await?;
            paths.extend(claim::of(store, folder).await?);
            let heads =
                stream::iter(paths).map(async |path| head(store, &path).await.map_err(|cause| missing(store, cause, &path)));
            heads.buffered(HEADS_AT_ONCE).try_collect().await?
        }
        (Err(cause), _) => return Err(store.list_error(&cause, folder)),
    };
    if found.len() > MOST_FILES {
        return Err(Error::exhausted(format!("there are more than {MOST_FILES} files here"))
            .with_hint("declare tables over parts of it, or write fewer and larger files")
            .with_retryable(false)
            .at(store.place(folder)));
    }
    Ok(found.into_iter().partition(|meta| claim::is_mark(&meta.location)))
}

/// The same files, if none of them is a link that leads out of a local folder. Errors: `Denied`; `Precondition` where one has
/// gone since it was listed.
async fn stay(store: &Store, files: Vec<ObjectMeta>) -> Result<Vec<ObjectMeta>> {
    let kept = within(store, files.iter().map(|meta| meta.location.clone()).collect()).await?;
    if kept.len() == files.len() {
        return Ok(files);
    }
    match files.iter().find(|meta| !kept.contains(&meta.location)) {
        None => Ok(files),
        Some(gone) if store.is_gone(&gone.location) => Err(changing(store, &gone.location)),
        Some(out) => Err(Error::denied("this is a link that leads out of the location, or to nothing")
            .with_hint("remove the link")
            .at(store.place(&out.location))),
    }
}

fn changing(store: &Store, path: &Path) -> Error {
    Error::precondition("the files here change faster than they can be listed")
        .with_hint("send the statement again")
        .with_retryable(true)
        .at(store.place(path))
}

fn version(files: &[ObjectMeta]) -> String {
    let mut digest = Digest::new(&SHA256);
    for file in files {
        digest.update(file.location.as_ref().as_bytes());
        digest.update(&[0]);
        digest.update(&file.size.to_le_bytes());
        digest.update(&file.last_modified.timestamp_nanos_opt().unwrap_or_default().to_le_bytes());
        digest.update(file.e_tag.as_deref().unwrap_or_default().as_bytes());
        digest.update(&[0]);
    }
    digest.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The columns that `name=value` folders hold, and each file with its values.
fn partitions(
    store: &Store,
    base: &Path,
    files: Vec<ObjectMeta>,
    declared: Option<&Declared>,
) -> Result<(Vec<Field>, Vec<File>)> {
    let folders: Vec<Vec<(String, Option<String>)>> = files.iter().map(|file| folder_values(base, &file.location)).collect();
    let declared = declared.map(|declared| declared.partitions.as_slice()).unwrap_or_default();
    let names: Vec<&str> = match folders.first() {
        Some(first) => first.iter().map(|(name, _)| name.as_str()).collect(),
        None => declared.iter().map(|field| field.name().as_str()).collect(),
    };
    for (file, values) in files.iter().zip(&folders) {
        if !values.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()) {
            let first = files.first().map(|file| store.show(&file.location)).unwrap_or_default();
            return Err(Error::data(format!("its folders name other partition columns than those of {first}"))
                .with_hint("give all files of a table the same name=value folders")
                .at(store.place(&file.location)));
        }
    }
    if !declared.is_empty() && !declared.iter().map(|field| field.name().as_str()).eq(names.iter().copied()) {
        return Err(Error::invalid(format!("the folders hold the partition columns {names:?}, which are not those declared"))
            .with_hint("declare the name=value folders in the order of the path, or leave partitions out")
            .at(store.place(base)));
    }
    let fields: Vec<Field> = names
        .iter()
        .enumerate()
        .map(|(index, name)| match declared.get(index) {
            Some(field) => field.clone(),
            None => {
                let mut texts = folders.iter().filter_map(|values| values.get(index)?.1.as_deref());
                // As other engines do, `month=01` is a number too.
                let whole = texts.all(|text| text.parse::<i64>().is_ok() && !text.starts_with('+'));
                Field::new(*name, if whole { DataType::Int64 } else { DataType::Utf8 }, true)
            }
        })
        .collect();
    let typed = files.into_iter().zip(folders).map(|(meta, texts)| {
        let values = texts.into_iter().zip(&fields).map(|((name, text), field)| {
            let value = match text {
                Some(text) => ScalarValue::try_from_string(text, field.data_type()),
                None => ScalarValue::try_new_null(field.data_type()),
            };
            value.map_err(|cause| {
                Error::data(format!("the folder of the partition column \"{name}\" holds no {}", field.data_type()))
                    .caused_by(cause)
                    .at(store.place(&meta.location))
            })
        });
        Ok(File { values: values.collect::<Result<_>>()?, meta })
    });
    let typed = typed.collect::<Result<_>>()?;
    Ok((fields, typed))
}

fn folder_values(base: &Path, file: &Path) -> Vec<(String, Option<String>)> {
    let mut parts: Vec<String> =
        file.prefix_match(base).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect()).unwrap_or_default();
    parts.pop();
    let pair = |part: &String| {
        let (name, value) = part.split_once('=')?;
        Some((unescape(name), (value != NULL_PARTITION).then(|| unescape(value))))
    };
    parts.iter().filter_map(pair).collect()
}

/// Hive writes what cannot stand in a folder's name as `%3A`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_hold_values() {
        let values = Path::parse("t/y=2024/plain/d=a%3Ab%/z=__HIVE_DEFAULT_PARTITION__/f.csv").unwrap();
        let values = folder_values(&Path::from("t"), &values);
        let wanted = [("y", Some("2024")), ("d", Some("a:b%")), ("z", None)];
        assert_eq!(values, wanted.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }
}
