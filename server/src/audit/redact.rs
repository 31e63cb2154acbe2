//! Statements without the values in them.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// What stands for a text that is no statement.
const NONE: &str = "(not a statement)";

/// A statement with `?` for each of its literals, and without comments, which may hold what was there before. One that falls into no
/// tokens of SQL is left out.
pub fn redacted(statement: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, statement).tokenize() else {
        return NONE.to_owned();
    };
    let mut text = String::with_capacity(statement.len());
    for token in tokens {
        match token {
            Token::Whitespace(_) => text.push(' '),
            // No statement has such a character outside of quotes: it may be a quote of another kind, as of a word processor.
            Token::Char(_) => return NONE.to_owned(),
            // Names are in double quotes, and placeholders have no value.
            Token::Word(_) | Token::Placeholder(_) => text.push_str(&token.to_string()),
            _ if is_literal(&token) => text.push('?'),
            other => text.push_str(&other.to_string()),
        }
    }
    text
}

fn is_literal(token: &Token) -> bool {
    let written = token.to_string();
    matches!(token, Token::Number(..)) || written.contains('\'') || written.contains('"') || written.starts_with('$')
}
