//! Text → one parsed statement, within caps that keep every later recursion on the stack.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use nexus_flight_catalog::{Error, Place, Result, TableName};

use crate::config::Limits;

mod doubling;
mod named_windows;
mod native;
mod precedence;
mod repairs;
mod walk;

pub use doubling::{LEVELS, TABLES, is_another_name, too_deep};

/// How large a statement may be.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Bytes of text.
    pub bytes: usize,
    /// Tokens, without white space.
    pub tokens: usize,
    /// Operators, parentheses, joins and sub-queries that stand within one another.
    pub nesting: usize,
}

impl Caps {
    /// As configured.
    pub fn new(limits: &Limits) -> Self {
        Self { bytes: limits.statement.bytes(), tokens: limits.tokens as usize, nesting: limits.nesting as usize }
    }
}

/// A statement that is within the caps.
#[derive(Debug)]
pub struct Parsed {
    /// The one statement of the text. Every `?` has become `$1`, `$2`, … in order.
    pub statement: Statement,
    /// Whether it is a `SHOW …`, which DataFusion answers from `information_schema`.
    pub is_show: bool,
    /// The statements in a source's own SQL that it calls for, by the names of tables that stand in their places.
    pub natives: BTreeMap<TableName, Arc<str>>,
}

/// Parses one statement. Errors: `Exhausted` over a cap, `Invalid` with the position for a syntax error, `Unsupported` for
/// more than one statement.
pub fn parse(text: &str, caps: &Caps) -> Result<Parsed> {
    let mut tokens = tokens(text, caps)?;
    number_placeholders(&mut tokens)?;
    let end = tokens.last().map(|last| place(last.span.end));
    let is_show = matches!(tokens.first().map(|token| &token.token), Some(Token::Word(word)) if word.keyword == Keyword::SHOW);
    let mut statements = parser(tokens, caps)?.parse_statements().map_err(|error| at_end(Error::from(error), end))?;
    match (statements.pop_front(), statements.is_empty()) {
        (None, _) => Err(Error::invalid("there is no statement in the text")),
        (Some(_), false) => Err(Error::unsupported("more than one statement in one text").with_hint("send them one by one")),
        (Some(mut statement), true) => {
            let natives = match sql(&mut statement) {
                Some(sql) => {
                    doubling::flatten_and_check(sql)?;
                    repairs::repair(sql)?;
                    native::take(sql)?
                }
                None => BTreeMap::new(),
            };
            Ok(Parsed { statement, is_show, natives })
        }
    }
}

/// Parses an expression that stands by itself. Errors: as [`parse`].
pub fn expression(text: &str, caps: &Caps) -> Result<ast::ExprWithAlias> {
    Ok(parser(tokens(text, caps)?, caps)?.parse_into_expr()?)
}

/// The tokens of a text without white space, which are within the caps. Errors: as [`parse`].
fn tokens(text: &str, caps: &Caps) -> Result<Vec<TokenWithSpan>> {
    if text.len() > caps.bytes {
        let message = format!("the statement has {} bytes, the limit is {}", text.len(), caps.bytes);
        return Err(Error::exhausted(message).with_hint("shorten it, or raise limits.statement").with_retryable(false));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| datafusion::error::DataFusionError::from(ParserError::from(error)))?;
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    check(&tokens, caps)?;
    Ok(tokens)
}

/// A parser of tokens that are within the caps; its own limit counts its own calls, several for each level.
fn parser(tokens: Vec<TokenWithSpan>, caps: &Caps) -> Result<DFParser<'static>> {
    Ok(DFParserBuilder::new(tokens).with_recursion_limit(caps.nesting.saturating_mul(4)).build()?)
}

/// The statement of SQL proper, without an EXPLAIN around it.
fn sql(statement: &mut Statement) -> Option<&mut ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => sql(&mut explain.statement),
        Statement::CopyTo(_) | Statement::CreateExternalTable(_) | Statement::Reset(_) => None,
    }
}

/// DataFusion takes every `?` for the same parameter, so each gets its number here, where text in quotes is told apart.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut count = 0;
    let mut numbered = false;
    for TokenWithSpan { token, span } in tokens {
        let Token::Placeholder(name) = token else { continue };
        match name.as_str() {
            "?" => {
                count += 1;
                *name = format!("${count}");
            }
            other if other.strip_prefix('$').is_some_and(|digits| digits.parse::<u16>().is_ok_and(|n| n > 0)) => numbered = true,
            other => {
                return Err(Error::invalid(format!("unknown parameter \"{other}\""))
                    .with_hint("write parameters as ? or as $1, $2, …")
                    .at(place(span.start)));
            }
        }
        if count > 0 && numbered {
            let message = "parameters are written both as ? and as $1";
            return Err(Error::invalid(message).with_hint("use one of the two").at(place(span.start)));
        }
    }
    Ok(())
}

/// The parser names no position where it misses something at the end.
fn at_end(error: Error, end: Option<Place>) -> Error {
    match end {
        Some(end) if error.message().ends_with("found: EOF") => error.at(end),
        _ => error,
    }
}

fn place(location: Location) -> Place {
    Place::Statement { line: location.line, column: location.column }
}

/// Counts what becomes depth in the syntax tree or in the plan: both are walked and dropped by recursion.
fn check(tokens: &[TokenWithSpan], caps: &Caps) -> Result<()> {
    if tokens.len() > caps.tokens {
        let message = format!("the statement has {} tokens, the limit is {}", tokens.len(), caps.tokens);
        return Err(Error::exhausted(message).with_hint("shorten it, or raise limits.tokens").with_retryable(false));
    }
    let mut depth = Depth::default();
    for TokenWithSpan { token, span } in tokens {
        let deepest = depth.add(token);
        if depth.levels.len() > caps.nesting / PARENTHESES {
            let message = format!("the statement nests more than {} parentheses", caps.nesting / PARENTHESES);
            return Err(Error::exhausted(message)
                .with_hint("compute the innermost in a WITH of its own, or raise limits.nesting")
                .with_retryable(false)
                .at(place(span.start)));
        }
        if deepest > caps.nesting {
            let message = format!("the statement nests more than {} operators, joins or sub-queries", caps.nesting);
            return Err(Error::exhausted(message)
                .with_hint("use IN or VALUES for long lists, or raise limits.nesting")
                .with_retryable(false)
                .at(place(span.start)));
        }
    }
    Ok(())
}

/// How much more a pair of parentheses weighs than an operator: planning time grows with the cube of these, and with little
/// more than the length of a chain of operators.
const PARENTHESES: usize = 4;
/// As much for a join, of which a hundred take a third of a second and four hundred take twenty.
const JOINS: usize = 2;

/// An upper bound of the depth at the current token.
#[derive(Debug)]
struct Depth {
    /// Sub-queries, joins and set operations so far: each can stand on all those before it.
    relations: usize,
    /// Operators of the expressions that enclose the current one.
    enclosing: usize,
    /// Whether the next word begins no clause: it is the name of a relation, or GROUP after WITHIN. Operators count all the same.
    names: bool,
    /// Periods of the current name, which the parser goes through again with each of them.
    parts: usize,
    /// Whether a period came last.
    within: bool,
    /// Operators of the current expression, and whether commas here part relations, for each open parenthesis.
    levels: Vec<Level>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Level {
    operators: usize,
    in_from: bool,
    /// The clauses that have begun, a bit for each of [`CLAUSES`].
    clauses: u8,
}

/// With each of these another expression begins, once for each SELECT: where the word comes again it is the name of a column, or part
/// of an operator such as IS DISTINCT FROM.
const CLAUSES: [Keyword; 8] = [
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::WINDOW,
    Keyword::QUALIFY,
];

impl Default for Depth {
    fn default() -> Self {
        Self { relations: 0, enclosing: 0, names: false, parts: 0, within: false, levels: vec![Level::default()] }
    }
}

impl Depth {
    fn add(&mut self, token: &Token) -> usize {
        let names = std::mem::take(&mut self.names);
        let is_period = *token == Token::Period;
        if is_period {
            self.parts += 1;
        } else if !std::mem::take(&mut self.within) {
            self.parts = 0;
        }
        self.within = is_period;
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.enclosing += self.level().operators + 1;
                self.levels.push(Level::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if self.levels.len() > 1 {
                    self.levels.pop();
                    self.enclosing = self.enclosing.saturating_sub(self.level().operators + 1);
                    // What was in the parentheses is an operand of what comes after: a[1][1][1].
                    self.level().operators += 1;
                }
            }
            Token::Comma => {
                self.names = self.level().in_from;
                self.relations += usize::from(self.names);
                self.level().operators = 0;
            }
            Token::Word(word) => self.add_keyword(word.keyword, names),
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::SemiColon | Token::Placeholder(_) => {}
            Token::DoubleQuotedString(_) | Token::NationalStringLiteral(_) | Token::HexStringLiteral(_) => {}
            _ => self.level().operators += 1,
        }
        self.relations + self.enclosing + self.level().operators + self.parts
    }

    fn add_keyword(&mut self, keyword: Keyword, names: bool) {
        use Keyword::*;
        match keyword {
            SELECT | JOIN | APPLY | UNION | EXCEPT | INTERSECT | MINUS => {
                self.relations += if matches!(keyword, JOIN | APPLY) { JOINS } else { 1 };
                *self.level() = Level::default();
            }
            // Of each the parser calls itself, and asks nothing.
            EXPLAIN => self.relations += 1,
            WITHIN => self.names = true,
            AND | OR | NOT | IS | LIKE | ILIKE | BETWEEN | IN | CASE | INTERVAL | COLLATE | XOR | DIV | AT | CAST | EXISTS
            | SIMILAR | REGEXP | RLIKE | OVERLAPS | MEMBER | PRIOR => self.level().operators += 1,
            _ if names => {}
            _ => {
                if let Some(clause) = CLAUSES.iter().position(|clause| *clause == keyword) {
                    self.begin(clause);
                }
            }
        }
    }

    /// A clause begins, or its word comes again.
    fn begin(&mut self, clause: usize) {
        let level = self.level();
        let (bit, is_from) = (1 << clause, clause == 0);
        if level.clauses & bit == 0 {
            *level = Level { operators: 0, in_from: is_from, clauses: level.clauses | bit };
        }
        level.in_from |= is_from;
        self.names = is_from;
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { bytes: 1 << 20, tokens: 100_000, nesting: 1_000 };

    fn refusal(text: &str) -> String {
        parse(text, &CAPS).unwrap_err().to_string()
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let chains = [
            format!("SELECT {}1", "1+".repeat(1_200)),
            format!("SELECT {}1", "1 OR ".repeat(1_200)),
            format!("SELECT {}1{}", "(".repeat(1_200), ")".repeat(1_200)),
            format!("SELECT {}1", "NOT ".repeat(1_200)),
            format!("SELECT 1{}", "::int".repeat(1_200)),
            format!("SELECT a{}", "[1]".repeat(1_200)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(1_200)),
            format!("SELECT * FROM a{}", ", a".repeat(1_200)),
            format!("SELECT * FROM a{}", " JOIN a ON true".repeat(1_200)),
            format!("WITH a AS (SELECT 1) {} SELECT 1", ", a AS (SELECT * FROM a)".repeat(1_200)),
            format!("SELECT {}1{}", "f(1+".repeat(600), ")".repeat(600)),
            format!("SELECT 1{}", " IS DISTINCT FROM 1".repeat(1_200)),
            format!("SELECT 'a'{}", " SIMILAR TO 'a'".repeat(1_200)),
            format!("SELECT 'a'{}", " OVERLAPS 'a'".repeat(1_200)),
            format!("SELECT {}1", "f() WITHIN GROUP (ORDER BY 1) + ".repeat(1_200)),
            format!("SELECT {}1 FROM a", "window + limit + ".repeat(1_200)),
            format!("SELECT 1 FROM window{}", ", window".repeat(1_200)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(1_200)),
            format!("SELECT a{}", ".a".repeat(1_200)),
            format!("SELECT within{}", " AND within".repeat(1_200)),
            format!("SELECT (from{})", " OR from".repeat(1_200)),
            format!("SELECT a.from{} FROM a", " AND a.from".repeat(1_200)),
        ];
        for chain in chains {
            let error = parse(&chain, &CAPS).unwrap_err();
            assert!(error.message().contains("nests more than"), "{error}");
        }
        let list = vec!["1"; 20_000].join(", ");
        assert!(parse(&format!("SELECT * FROM t WHERE a IN ({list})"), &CAPS).is_ok());
        assert!(parse(&format!("SELECT {list}"), &CAPS).is_ok());
        assert!(parse(&format!("VALUES {}", vec!["(1, 2)"; 10_000].join(", ")), &CAPS).is_ok());
    }

    #[test]
    fn a_syntax_error_has_its_position() {
        insta::assert_snapshot!(refusal("SELECT (1\nFROM t"), @"line 2, column 1: syntax error: expected: ), found: FROM");
        insta::assert_snapshot!(refusal("SELECT 'a"), @"line 1, column 8: syntax error: unterminated string literal");
        insta::assert_snapshot!(refusal(""), @"there is no statement in the text");
        insta::assert_snapshot!(refusal("SELECT 1; SELECT 2"), @"more than one statement in one text; send them one by one");
    }

    #[test]
    fn question_marks_are_numbered_outside_of_quotes() {
        let parsed = parse("SELECT ?, '?', \"?\" FROM t WHERE a = ?", &CAPS).unwrap();
        assert_eq!(parsed.statement.to_string(), "SELECT $1, '?', \"?\" FROM t WHERE a = $2");
        insta::assert_snapshot!(refusal("SELECT ?, $1"), @"line 1, column 11: parameters are written both as ? and as $1; use one of the two");
        insta::assert_snapshot!(refusal("SELECT $a"), @r#"line 1, column 8: unknown parameter "$a"; write parameters as ? or as $1, $2, …"#);
    }

    #[test]
    fn the_caps_on_bytes_and_tokens_hold() {
        let caps = Caps { bytes: 30, tokens: 5, nesting: 10 };
        insta::assert_snapshot!(parse(&" ".repeat(31), &caps).unwrap_err(), @"the statement has 31 bytes, the limit is 30; shorten it, or raise limits.statement");
        insta::assert_snapshot!(parse("SELECT 1, 2, 3", &caps).unwrap_err(), @"the statement has 6 tokens, the limit is 5; shorten it, or raise limits.tokens");
    }
}
