//! The settings of DataFusion that give a statement another meaning, and which of them a file has changed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::pattern;

/// Their names and defaults. Others change how an answer is found, and not what it is.
const SETTINGS: [(&str, &str); 5] = [
    ("datafusion.sql_parser.dialect", "generic"),
    ("datafusion.sql_parser.enable_ident_normalization", "true"),
    ("datafusion.sql_parser.support_varchar_with_length", "true"),
    ("datafusion.sql_parser.default_null_ordering", "nulls_max"),
    ("datafusion.execution.enable_recursive_ctes", "true"),
];

/// The settings that are not as they are by default.
#[derive(Debug, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Takes notice of a statement that the gateway does not offer.
    pub(crate) fn note(&mut self, sql: &str) {
        static SET: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(set|reset)\s+([\w.]+)(\s*(=|to)\s*'?([^';]*))?"));
        let Some(found) = SET.captures(sql) else { return };
        let Some((name, default)) = SETTINGS.iter().find(|(name, _)| found[2].eq_ignore_ascii_case(name)) else { return };
        match found.get(5).map(|value| value.as_str().trim().to_lowercase()) {
            Some(value) if value != *default => self.0.insert(name, value),
            _ => self.0.remove(name),
        };
    }

    /// Why statements have another meaning.
    pub(crate) fn reason(&self) -> Option<String> {
        let (name, _) = self.0.first_key_value()?;
        Some(format!("refused: SET {name}, which the statement needs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_holds_until_it_is_as_it_was() {
        let mut settings = Settings::default();
        settings.note("set datafusion.sql_parser.dialect = 'DuckDB';");
        settings.note("set datafusion.execution.batch_size = 1");
        assert!(settings.reason().is_some_and(|reason| reason.contains("dialect")));
        settings.note("SET datafusion.sql_parser.dialect TO Generic");
        assert_eq!(settings.reason(), None);
    }
}
