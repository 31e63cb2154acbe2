//! What no compiler checks: the dependency arrows, the form of files, and documentation that says what the code says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const LONGEST: usize = 600;

fn top() -> PathBuf {
    // As cargo says when it runs the tests, not when it built them: a checkout may lie elsewhere by then.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// The files that git knows or would know, by ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", &format!("*.{ending}")])
        .current_dir(top())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found: Vec<PathBuf> = listed.lines().map(|line| top().join(line)).filter(|path| path.exists()).collect();
    assert!(!found.is_empty(), "no .{ending} file was found");
    found
}

#[test]
fn dependencies_point_down() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--locked"])
        .current_dir(top())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut arrows = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let (from, to) = (package["name"].as_str().unwrap(), dependency["name"].as_str().unwrap());
            if to.starts_with("nexus-") {
                arrows.insert(format!("{from} -> {to}"));
            }
        }
    }
    let allowed = [
        "nexus-engines -> nexus-flight-catalog",
        "nexus-server -> nexus-engines",
        "nexus-server -> nexus-flight-catalog",
        "nexus-server -> nexus-sources",
        "nexus-sources -> nexus-flight-catalog",
    ];
    assert!(arrows.len() >= 3, "{arrows:?}");
    for arrow in arrows {
        assert!(allowed.contains(&arrow.as_str()), "{arrow} is not allowed");
    }
}

#[test]
fn files_have_their_form() {
    for path in files("rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not begin with a //! line", path.display());
    }
    for path in [files("rs"), files("py")].concat() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines, more than {LONGEST}", path.display());
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(!["utils", "util", "helpers", "manager", "misc"].contains(&stem), "{} says nothing", path.display());
    }
}

#[cfg(feature = "hudi")]
#[test]
fn the_generated_pages_are_fresh() {
    let page = std::fs::read_to_string(top().join("docs/src/connectors.md")).unwrap_or_default();
    assert!(page == nexus_server::docs::connectors(), "docs/src/connectors.md is not what the code says: run `make docs`");
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let pages = top().join("docs/src");
    let summary = std::fs::read_to_string(pages.join("SUMMARY.md")).unwrap();
    for path in files("md") {
        let text = std::fs::read_to_string(&path).unwrap();
        if let Ok(page) = path.strip_prefix(&pages)
            && page != Path::new("SUMMARY.md")
        {
            assert!(summary.contains(&format!("({})", page.display())), "{} is not in SUMMARY.md", page.display());
        }
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let found = path.parent().unwrap().join(target).exists();
                assert!(found, "{} links to {target}, which is not there", path.display());
            }
        }
    }
}

#[test]
fn every_setting_is_documented() {
    let page = std::fs::read_to_string(top().join("docs/src/configuration.md")).unwrap();
    let config = nexus_server::config::Config::default();
    let settings = config.resolved_settings(&nexus_server::kinds::SPECS);
    assert!(settings.len() > 15);
    for setting in settings.iter().filter(|setting| setting.key != "auth.users") {
        assert!(page.contains(&format!("`{}`", setting.key)), "{} is not in configuration.md", setting.key);
    }
}
