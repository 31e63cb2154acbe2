//! The settings in force, flat, for people to look at: what is secret or came from elsewhere shows as `***`.

use nexus_flight_catalog::Spec;
use serde::Serialize;
use serde_json::Value;

use super::Config;

const MASK: &str = "***";

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted key.
    pub key: String,
    /// Its value as it would be written, or `***`.
    pub value: String,
    /// Whether the file does not set it.
    pub default: bool,
}

impl Config {
    /// All settings, sorted by key. Options that their connector declares secret are masked, and so is every option of a
    /// kind that `specs` does not know, and every value that a reference gave.
    pub fn resolved_settings(&self, specs: &[&Spec]) -> Vec<Setting> {
        let mut settings = Vec::new();
        self.section(&mut settings, "flight", &self.flight);
        self.section(&mut settings, "http", &self.http);
        if let Some(tls) = &self.tls {
            self.section(&mut settings, "tls", tls);
        }
        self.section(&mut settings, "auth", &self.auth);
        if let Some(policy) = &self.policy {
            self.section(&mut settings, "policy", policy);
        }
        if let Some(audit) = &self.audit {
            self.section(&mut settings, "audit", audit);
        }
        self.section(&mut settings, "tickets", &self.tickets);
        self.section(&mut settings, "limits", &self.limits);
        self.section(&mut settings, "cache", &self.cache);
        self.section(&mut settings, "log", &self.log);
        self.section(&mut settings, "traces", &self.traces);
        self.section(&mut settings, "defaults", &self.defaults);
        self.section(&mut settings, "engines", &self.engines);
        for (name, catalog) in &self.catalogs {
            let spec = specs.iter().find(|spec| spec.kind == catalog.kind);
            self.section(&mut settings, &format!("catalogs.{name}.kind"), &catalog.kind);
            self.section(&mut settings, &format!("catalogs.{name}.ttl"), &catalog.ttl);
            self.section(&mut settings, &format!("catalogs.{name}.stale"), &catalog.stale);
            self.section(&mut settings, &format!("catalogs.{name}.writable"), &catalog.writable);
            for (key, value) in &catalog.options {
                let option = spec.and_then(|spec| spec.options.iter().find(|opt| opt.name == key));
                let shown = option.is_some_and(|option| !option.secret);
                let value = if shown { value } else { &Value::from(MASK) };
                self.flatten(&mut settings, format!("catalogs.{name}.{key}"), value);
            }
        }
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        settings
    }

    fn section(&self, settings: &mut Vec<Setting>, key: &str, values: &impl Serialize) {
        // These are plain structures of our own, which always have a JSON form.
        let values = serde_json::to_value(values).unwrap_or_default();
        self.flatten(settings, key.to_owned(), &values);
    }

    fn flatten(&self, settings: &mut Vec<Setting>, key: String, value: &Value) {
        if let Value::Object(inner) = value {
            for (name, value) in inner {
                self.flatten(settings, format!("{key}.{name}"), value);
            }
            return;
        }
        let shown = match value {
            _ if self.places.referenced(&key) => MASK.to_owned(),
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => String::new(),
            other => other.to_string(),
        };
        settings.push(Setting { default: !self.places.has(&key), key, value: shown });
    }
}
