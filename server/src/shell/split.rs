//! Where one statement ends and the next begins: at a semicolon that is in no string, name or comment.

/// The statements of a text that end in a semicolon, without it, and what comes after the last of them.
pub(super) fn statements(text: &str) -> (Vec<&str>, &str) {
    let mut statements = Vec::new();
    let mut rest = text;
    while let Some(at) = semicolon(rest) {
        let (statement, after) = rest.split_at(at);
        statements.extend(last(statement));
        rest = after.strip_prefix(';').unwrap_or(after);
    }
    (statements, rest)
}

/// A text as a statement, unless it holds nothing but space and comments.
pub(super) fn last(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = match comment(rest) {
            Some(length) => rest.get(length..).unwrap_or_default(),
            None if letter.is_whitespace() => rest.get(letter.len_utf8()..).unwrap_or_default(),
            None => return Some(text.trim()),
        };
    }
    None
}

/// The position of the first semicolon that ends a statement.
fn semicolon(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let letter = rest.chars().next()?;
        at += match letter {
            ';' => return Some(at),
            // A doubled quote is the end of one string and the begin of the next, which comes to the same.
            '\'' | '"' => 2 + rest.get(1..)?.find(letter)?,
            _ => comment(rest).unwrap_or(letter.len_utf8()),
        };
    }
    None
}

/// The length of the comment that a text begins with. A comment without an end goes on to the end of the text.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.strip_prefix("/*").map(|inner| inner.find("*/").map_or(text.len(), |end| end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_end_statements_only_outside_of_quotes_and_comments() {
        let text = "SELECT 'a;''b' ;; SELECT \"c;d\" -- e;'\n; /* f; ' */ SELECT 'é';\n SELECT 2 -- g";
        let (found, rest) = statements(text);
        assert_eq!(found, ["SELECT 'a;''b'", "SELECT \"c;d\" -- e;'", "/* f; ' */ SELECT 'é'"]);
        assert_eq!(last(rest), Some("SELECT 2 -- g"));
    }

    #[test]
    fn what_is_open_waits_for_more() {
        for text in ["SELECT 'a;", "SELECT \"a;", "SELECT 1 /* ;", "SELECT 1 -- ;", ""] {
            assert_eq!(statements(text), (vec![], text));
        }
    }

    #[test]
    fn space_and_comments_are_no_statement() {
        for text in ["", " \n", "-- a", "/* a */ -- b\n", "/* a"] {
            assert_eq!(last(text), None, "{text}");
        }
        assert_eq!(statements(" ; -- a\n;"), (vec![], ""));
    }
}
