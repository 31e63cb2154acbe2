//! Which paths a pattern matches: `*` and `?` stand within a segment, `**` for segments.

use object_store::path::{Path, PathPart};

/// A pattern, by its segments.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<String>);

impl Pattern {
    pub(super) fn parse(pattern: &str) -> Self {
        Self(pattern.split('/').map(str::to_owned).collect())
    }

    /// The folder that all that matches is in.
    pub(super) fn base(&self) -> Path {
        let fixed = self.0.iter().take_while(|segment| !segment.contains(['*', '?']));
        fixed.map(|segment| PathPart::from(segment.as_str())).collect()
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        matches(&self.0, &segments(path))
    }

    /// Whether something in a folder may match.
    pub(super) fn leads(&self, folder: &str) -> bool {
        let folder = segments(folder);
        let mut pattern = self.0.iter();
        for name in folder {
            match pattern.next() {
                Some(any) if any == "**" => return true,
                Some(segment) if segment_matches(segment, name) => {}
                _ => return false,
            }
        }
        pattern.next().is_some()
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// `**` stands for any number of segments.
fn matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "**" => {
            matches(rest, path) || path.split_first().is_some_and(|(_, below)| matches(pattern, below))
        }
        (Some((segment, rest)), Some((name, below))) => segment_matches(segment, name) && matches(rest, below),
        _ => false,
    }
}

/// `*` stands for any text within a segment, `?` for one character.
fn segment_matches(pattern: &str, name: &str) -> bool {
    // The rows of the usual table, one at a time: which prefixes of the name the pattern so far can match.
    let name: Vec<char> = name.chars().collect();
    let mut reached: Vec<bool> = std::iter::once(true).chain(name.iter().map(|_| false)).collect();
    for wanted in pattern.chars() {
        let mut next = Vec::with_capacity(reached.len());
        let mut open = false;
        for (index, before) in reached.iter().enumerate() {
            open |= *before;
            let diagonal = index.checked_sub(1).and_then(|last| Some((*reached.get(last)?, *name.get(last)?)));
            next.push(match wanted {
                '*' => open,
                '?' => diagonal.is_some_and(|(reached, _)| reached),
                letter => diagonal.is_some_and(|(reached, found)| reached && found == letter),
            });
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, path: &str| Pattern::parse(pattern).matches(path);
        for (pattern, path) in [
            ("*.csv", "a.csv"),
            ("2024/*.csv", "2024/b.csv"),
            ("**/*.csv", "a/b/c.csv"),
            ("**/*.csv", "c.csv"),
            ("a?/x*y*z", "ab/x12y3z"),
            ("a/**", "a/b/c"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("*.csv", "a/b.csv"), ("2024/*.csv", "2023/b.csv"), ("a?", "a"), ("x*y", "xz"), ("*", "")] {
            assert!(!matches(pattern, path) || path.is_empty(), "{pattern} {path}");
        }
    }

    #[test]
    fn folders_lead_to_what_matches() {
        let leads = |pattern: &str, folder: &str| Pattern::parse(pattern).leads(folder);
        for (pattern, folder) in [("a/*.csv", "a"), ("a/**", "a/b/c"), ("**/x.csv", "b"), ("a?/*/x", "ab/c")] {
            assert!(leads(pattern, folder), "{pattern} {folder}");
        }
        for (pattern, folder) in [("*.csv", "a"), ("a/*.csv", "b"), ("a/*.csv", "a/b"), ("a?/*/x", "ab/c/x")] {
            assert!(!leads(pattern, folder), "{pattern} {folder}");
        }
    }
}
