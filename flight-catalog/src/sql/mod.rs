//! SQL for the databases behind catalogs. It is made here and nowhere else: names and values never come into a text otherwise.

use std::fmt::Debug;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

mod expr;

pub use expr::{condition, value};

/// How a database writes what all of them have.
pub trait Dialect: Debug + Send + Sync {
    /// A name between quotes.
    fn identifier(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    /// A value as a literal of its own type. None where the database cannot hold just this value.
    fn literal(&self, value: &ScalarValue) -> Option<String>;

    /// The name of a whole number's type, to cast to. None for other types.
    fn integer(&self, data_type: &DataType) -> Option<&'static str>;
}

/// What the database decides of two values as the gateway would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compares {
    /// Nothing but whether one is NULL.
    Nothing,
    /// Whether they are equal.
    Equality,
    /// Which is the greater, too.
    Order,
}

/// The columns that an expression is about.
pub trait Columns {
    /// The dialect of their database.
    fn dialect(&self) -> &dyn Dialect;

    /// The type that a column is read as, and how its values compare. None for a column that is not there.
    fn column(&self, name: &str) -> Option<(DataType, Compares)>;

    /// A value as it is compared with a column. None where that would not compare as the gateway does.
    fn compared(&self, name: &str, value: &ScalarValue) -> Option<String>;
}

/// The text of a query over one table: these columns, or rows without any; all conditions hold; at most so many rows.
pub fn select(dialect: &dyn Dialect, columns: &[&str], from: [&str; 2], conditions: &[String], limit: Option<usize>) -> String {
    let columns: Vec<String> = columns.iter().map(|column| dialect.identifier(column)).collect();
    let space = if columns.is_empty() { "" } else { " " };
    let mut sql = format!("SELECT{space}{} FROM {}", columns.join(", "), qualified(dialect, from));
    push_where(&mut sql, conditions);
    if let Some(limit) = limit {
        sql += &format!(" LIMIT {limit}");
    }
    sql
}

/// The text of an UPDATE of columns to values that are SQL already, of the rows for which all conditions hold.
pub fn update(dialect: &dyn Dialect, table: [&str; 2], set: &[(&str, String)], conditions: &[String]) -> String {
    let set: Vec<String> = set.iter().map(|(column, value)| format!("{} = {value}", dialect.identifier(column))).collect();
    let mut sql = format!("UPDATE {} SET {}", qualified(dialect, table), set.join(", "));
    push_where(&mut sql, conditions);
    sql
}

/// The text of a DELETE of the rows for which all conditions hold.
pub fn delete(dialect: &dyn Dialect, table: [&str; 2], conditions: &[String]) -> String {
    let mut sql = format!("DELETE FROM {}", qualified(dialect, table));
    push_where(&mut sql, conditions);
    sql
}

/// A table's name with its schema.
pub fn qualified(dialect: &dyn Dialect, [schema, table]: [&str; 2]) -> String {
    format!("{}.{}", dialect.identifier(schema), dialect.identifier(table))
}

fn push_where(sql: &mut String, conditions: &[String]) {
    if !conditions.is_empty() {
        *sql += &format!(" WHERE {}", conditions.join(" AND "));
    }
}
