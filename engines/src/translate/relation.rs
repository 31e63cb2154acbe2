//! A SELECT as it is put together. Its columns are texts over what is in FROM, so that what is planned one on the other, as a
//! condition on a join and a projection of that, is one SELECT.

/// A column of a SELECT.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// What it is, over what is in FROM.
    pub(super) sql: String,
    /// Whether it is a column of FROM, and so may stand anywhere and any number of times.
    pub(super) is_reference: bool,
    /// Whether its type at the engine is that of the plan. Of another type it is handed on as it is, and nothing is made of it.
    pub(super) is_known: bool,
}

impl Column {
    /// What is computed.
    pub(super) fn computed(sql: String) -> Self {
        Self { sql, is_reference: false, is_known: true }
    }
}

/// A SELECT.
#[derive(Debug, Default)]
pub(super) struct Relation {
    /// None where it has no FROM, and one row.
    pub(super) from: Option<String>,
    /// Whether there is a join in FROM.
    pub(super) is_join: bool,
    /// All of them hold.
    pub(super) conditions: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// The GROUP BY, which is empty where all rows are one group; none where they are not grouped.
    pub(super) group: Option<String>,
    pub(super) is_distinct: bool,
    pub(super) order: Vec<String>,
    pub(super) skip: usize,
    pub(super) fetch: Option<usize>,
}

impl Relation {
    /// All columns of what is in FROM.
    pub(super) fn of(from: String, columns: Vec<Column>) -> Self {
        Self { from: Some(from), columns, ..Self::default() }
    }

    /// Whether all its columns are those of FROM, row by row: what is made of them can be written in their place.
    pub(super) fn is_plain(&self) -> bool {
        self.group.is_none() && !self.is_distinct && self.columns.iter().all(|column| column.is_reference)
    }

    /// Whether conditions can be added, and groups made.
    pub(super) fn is_open(&self) -> bool {
        self.is_plain() && !self.is_limited()
    }

    /// Whether it is all that is in FROM, which can be joined.
    pub(super) fn is_bare(&self) -> bool {
        self.is_open() && self.from.is_some() && self.conditions.is_empty()
    }

    pub(super) fn is_limited(&self) -> bool {
        self.skip > 0 || self.fetch.is_some()
    }

    /// Of its rows those behind `skip`, and of these as many as `fetch`.
    pub(super) fn limit(&mut self, skip: usize, fetch: Option<usize>) {
        let left = self.fetch.map(|rows| rows.saturating_sub(skip));
        self.fetch = left.into_iter().chain(fetch).min();
        // Numbers of rows are of 63 bits at most, here and there.
        self.skip = self.skip.saturating_add(skip).min(i64::MAX as usize);
    }

    /// The text. Columns get these names, as far as there are any; the order is left out where it makes no difference to who reads
    /// the rows.
    pub(super) fn select(&self, names: &[String], is_ordered: bool) -> String {
        let mut names = names.iter();
        let column = |column: &Column| match names.next() {
            Some(name) => format!("{} AS {name}", column.sql),
            None => column.sql.clone(),
        };
        let columns: Vec<String> = self.columns.iter().map(column).collect();
        // There is no SELECT without columns.
        let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
        let mut sql = format!("SELECT {}{columns}", if self.is_distinct { "DISTINCT " } else { "" });
        if let Some(from) = &self.from {
            sql += &format!(" FROM {from}");
        }
        if !self.conditions.is_empty() {
            sql += &format!(" WHERE {}", self.conditions.join(" AND "));
        }
        if let Some(group) = self.group.as_ref().filter(|group| !group.is_empty()) {
            sql += &format!(" {group}");
        }
        if !self.order.is_empty() && (is_ordered || self.is_limited()) {
            sql += &format!(" ORDER BY {}", self.order.join(", "));
        }
        if self.skip > 0 {
            sql += &format!(" OFFSET {}", self.skip);
        }
        if let Some(fetch) = self.fetch {
            sql += &format!(" LIMIT {fetch}");
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_a_limit_is_one() {
        let limited = |limits: &[(usize, Option<usize>)]| {
            let mut relation = Relation::default();
            limits.iter().for_each(|(skip, fetch)| relation.limit(*skip, *fetch));
            relation.select(&[], true)
        };
        assert_eq!(limited(&[(0, Some(3))]), "SELECT 1 LIMIT 3");
        assert_eq!(limited(&[(2, Some(10)), (3, Some(5))]), "SELECT 1 OFFSET 5 LIMIT 5");
        assert_eq!(limited(&[(0, Some(4)), (3, Some(5))]), "SELECT 1 OFFSET 3 LIMIT 1");
        assert_eq!(limited(&[(0, Some(4)), (9, None)]), "SELECT 1 OFFSET 9 LIMIT 0");
        assert_eq!(limited(&[(2, None)]), "SELECT 1 OFFSET 2");
    }

    #[test]
    fn an_order_is_kept_where_it_counts() {
        let mut relation = Relation { order: vec!["t1.a ASC NULLS LAST".to_owned()], ..Relation::default() };
        assert_eq!(relation.select(&[], false), "SELECT 1");
        assert_eq!(relation.select(&[], true), "SELECT 1 ORDER BY t1.a ASC NULLS LAST");
        relation.limit(0, Some(1));
        assert_eq!(relation.select(&[], false), "SELECT 1 ORDER BY t1.a ASC NULLS LAST LIMIT 1");
    }
}
