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
            // One without an end is the begin of what is not all there yet.
            Some(None) => return Some(text.trim()),
            Some(Some(length)) => rest.get(length..).unwrap_or_default(),
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
            '$' => dollar_quoted(rest)?,
            _ => comment(rest).map_or(Some(letter.len_utf8()), |length| length)?,
        };
    }
    None
}

/// The length of the comment that a text begins with, or that it has no end. Comments may stand in one another.
fn comment(text: &str) -> Option<Option<usize>> {
    if text.starts_with("--") {
        return Some(Some(text.find('\n').unwrap_or(text.len())));
    }
    text.strip_prefix("/*")?;
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let rest = text.get(at..).unwrap_or_default();
        let Some((next, deeper)) = [("/*", 1), ("*/", -1)]
            .into_iter()
            .filter_map(|(mark, deeper)| Some((rest.find(mark)?, deeper)))
            .min_by_key(|(next, _)| *next)
        else {
            return Some(None);
        };
        at += next + 2;
        depth += deeper;
    }
    Some(Some(at))
}

/// The length of the string between `$$` or `$name$` that a text begins with, or of the `$` alone; none where it has no end.
fn dollar_quoted(text: &str) -> Option<usize> {
    let name = text.get(1..)?.find('$').and_then(|end| text.get(..end + 2));
    let name = name.filter(|name| name.trim_matches('$').chars().all(|letter| letter == '_' || letter.is_alphanumeric()));
    // `$1` is a parameter.
    let is_number = |name: &&str| name.trim_start_matches('$').starts_with(|letter: char| letter.is_ascii_digit());
    match name.filter(|name| !is_number(name)) {
        Some(name) => Some(2 * name.len() + text.get(name.len()..)?.find(name)?),
        None => Some(1),
    }
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
        for text in ["SELECT 'a;", "SELECT \"a;", "SELECT 1 /* ;", "SELECT 1 -- ;", "/* a; /* b; */", "SELECT $a$;$b$", ""] {
            assert_eq!(statements(text), (vec![], text));
        }
    }

    #[test]
    fn dollars_quote_and_number() {
        assert_eq!(
            statements("SELECT $$a;'$$; SELECT $x$;$$;$x$; SELECT $1;").0,
            ["SELECT $$a;'$$", "SELECT $x$;$$;$x$", "SELECT $1"]
        );
        assert_eq!(last("/* a"), Some("/* a"));
    }

    #[test]
    fn space_and_comments_are_no_statement() {
        for text in ["", " \n", "-- a", "/* a */ -- b\n", "/* a /* b */ */"] {
            assert_eq!(last(text), None, "{text}");
        }
        assert_eq!(statements(" ; -- a\n;"), (vec![], ""));
    }
}
