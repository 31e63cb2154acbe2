//! What the name of a table can mean besides the table as it is now. No table has `@` or `$` in its name, so a name alone tells.

use chrono::{DateTime, NaiveDate, NaiveTime};

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// A table as it is now.
    Now(&'a str),
    /// A table as it was: `table@when`.
    At(&'a str, &'a str),
    /// What is known about a table: `table$what`.
    About(&'a str, &'a str),
}

impl<'a> Name<'a> {
    /// Of any text.
    pub(crate) fn parse(name: &'a str) -> Self {
        let Some(at) = name.find(['@', '$']) else { return Self::Now(name) };
        let (table, rest) = name.split_at(at);
        match rest.strip_prefix('@') {
            Some(when) => Self::At(table, when),
            None => Self::About(table, rest.trim_start_matches('$')),
        }
    }

    /// The table that it is about; none where it is the table itself.
    pub(crate) fn about(self) -> Option<&'a str> {
        match self {
            Self::Now(_) => None,
            Self::At(table, _) | Self::About(table, _) => Some(table),
        }
    }
}

/// Whether a folder can be a table or a schema by its name.
pub(crate) fn is_name(folder: &str) -> bool {
    !folder.is_empty() && !folder.starts_with(['.', '_']) && !folder.contains(['/', '\\', '\0', '@', '$'])
}

/// A moment as it is written behind the `@`, in milliseconds since 1970: RFC 3339, or a date, which is its first moment in UTC.
pub(crate) fn moment(when: &str) -> Option<i64> {
    let date = NaiveDate::parse_from_str(when, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN).and_utc());
    let time = date.or_else(|| DateTime::parse_from_rfc3339(when).ok().map(|time| time.to_utc()));
    time.map(|time| time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_mean_a_state_or_what_is_known() {
        assert_eq!(Name::parse("t"), Name::Now("t"));
        assert_eq!(Name::parse("t@7"), Name::At("t", "7"));
        assert_eq!(Name::parse("t@a$b"), Name::At("t", "a$b"));
        assert_eq!(Name::parse("t$files"), Name::About("t", "files"));
        assert_eq!(Name::parse("名@2024-01-01").about(), Some("名"));
    }

    #[test]
    fn moments_are_dates_or_times() {
        assert_eq!(moment("1970-01-02"), Some(86_400_000));
        assert_eq!(moment("1970-01-01T01:00:00.0015+01:00"), Some(1));
        assert_eq!(moment("yesterday"), None);
    }
}
