//! From text to expression: the grammar of Calico's selectors by recursive descent.
//!
//! ```text
//! selector := <empty> | or                      or := and ("||" and)*          and := op ("&&" op)*
//! op   := "!"* prim
//! prim := "(" or ")" | "all(" ")" | "global(" ")" | "has(" ident ")"
//!       | ident ("==" | "!=" | "contains" | "starts" "with" | "ends" "with") str
//!       | ident ("in" | "not" "in") "{" [str ("," str)* [","]] "}"
//! str  := "'" [^']* "'" | '"' [^"]* '"'         ident := [A-Za-z0-9_./-]{1,512}
//! ```
//! Only spaces and tabs may stand between words; none before the `(` of a function. Words are operators only behind a
//! label, so a label may be named `in` or `has`.

use std::collections::BTreeSet;
use std::fmt;

use super::{Expr, Operator};

/// Longest label name, in characters.
const LABEL_LIMIT: usize = 512;
/// Deepest nesting of parentheses: far past what people write, far short of what a thread's stack holds.
const DEPTH_LIMIT: usize = 100;
/// How much of a long text an error shows.
const SHOWN: usize = 100;

/// Why a text is no selector, and where. Prints as two lines: the text, and a caret under the character with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorError {
    /// The whole text.
    pub text: String,
    /// The character it stumbled over, counted in characters from 0; the text's length if something is missing.
    pub at: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl SelectorError {
    /// The same on one line, without the text, which the reader has as the field's value.
    pub fn sentence(&self) -> String {
        format!("the selector does not parse at character {}: {}", self.at + 1, self.message)
    }
}

impl std::error::Error for SelectorError {}

impl fmt::Display for SelectorError {
    /// A long text is shown in part; what would break the line or its columns is shown as a dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = if self.at > SHOWN / 2 && self.text.len() > SHOWN { self.at - SHOWN / 2 } else { 0 };
        let lead = if start > 0 { "…" } else { "" };
        let shown = self.text.chars().skip(start).map(|c| if c.is_control() { '·' } else { c });
        let mut shown: String = shown.take(SHOWN + 1).collect();
        if shown.chars().count() > SHOWN {
            shown.pop();
            shown.push('…');
        }
        let column = self.at - start + lead.chars().count();
        write!(f, "{lead}{shown}\n{:column$}^ {}", "", self.message)
    }
}

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.blanks();
    if parser.rest().is_empty() {
        return Ok(Expr::All);
    }
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(')') => Err(parser.error("this `)` closes nothing")),
        Some(c) => Err(parser.error(parser.unexpected(c, "expected `&&`, `||` or the end"))),
    }
}

type Parsed<T> = Result<T, SelectorError>;

struct Parser<'a> {
    text: &'a str,
    /// Byte offset; always at a character's start.
    at: usize,
    depth: usize,
}

/// Each part leaves the parser behind the blanks that follow it, so that the next can look at its first character.
impl<'a> Parser<'a> {
    fn or(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.and()?];
        while self.eat("||") {
            parts.push(self.and()?);
        }
        Ok(Expr::or(parts))
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.op()?];
        while self.eat("&&") {
            parts.push(self.op()?);
        }
        Ok(Expr::and(parts))
    }

    fn op(&mut self) -> Parsed<Expr> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let expr = self.primary()?;
        Ok(if negated { expr.not() } else { expr })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        if self.peek() == Some('(') {
            return self.group();
        }
        let start = self.at;
        let word = self.ident("expected a label, `has(…)`, `all()`, `global()` or `(`")?;
        if self.peek() == Some('(') && matches!(word, "has" | "all" | "global") {
            self.eat("(");
            let expr = match word {
                "all" => Expr::All,
                "global" => Expr::Global,
                _ => {
                    let label = self.ident("expected a label")?.to_owned();
                    self.blanks();
                    Expr::Has(label)
                }
            };
            self.need(")")?;
            return Ok(expr);
        }
        self.blanks();
        if self.peek() == Some('(') && matches!(word, "has" | "all" | "global") {
            return Err(self.error(format!("no blank may stand between `{word}` and `(`")));
        }
        self.comparison(word, start)
    }

    fn group(&mut self) -> Parsed<Expr> {
        if self.depth == DEPTH_LIMIT {
            return Err(self.error(format!("parentheses nest deeper than {DEPTH_LIMIT}")));
        }
        let open = self.at;
        self.depth += 1;
        self.eat("(");
        let expr = self.or()?;
        if self.rest().is_empty() {
            return Err(self.error_at(open, "this `(` is never closed"));
        }
        self.need(")")?;
        self.depth -= 1;
        Ok(expr)
    }

    /// What stands behind a label.
    fn comparison(&mut self, label: &str, start: usize) -> Parsed<Expr> {
        let label = label.to_owned();
        let operators = [
            ("==", "", Operator::Equal),
            ("!=", "", Operator::NotEqual),
            ("contains", "", Operator::Contains),
            ("starts", "with", Operator::StartsWith),
            ("ends", "with", Operator::EndsWith),
        ];
        for (first, second, operator) in operators {
            if self.eat_words(first, second) {
                return Ok(Expr::Compare(label, operator, self.string()?));
            }
        }
        if self.eat_words("in", "") {
            return Ok(Expr::In(label, self.set()?));
        }
        if self.eat_words("not", "in") {
            return Ok(Expr::NotIn(label, self.set()?));
        }
        match self.peek() {
            Some('=') => Err(self.error("a single `=` is no operator; write `==`")),
            None | Some('&' | '|' | ')') => {
                let message = format!("`{label}` alone says nothing; write `has({label})` or compare it");
                Err(self.error_at(start, message))
            }
            Some(_) => {
                let operators = "==, !=, in, not in, contains, starts with or ends with";
                Err(self.error(format!("expected an operator behind the label `{label}`: {operators}")))
            }
        }
    }

    fn set(&mut self) -> Parsed<BTreeSet<String>> {
        let open = self.at;
        let mut values = BTreeSet::new();
        self.need("{")?;
        while self.peek() != Some('}') {
            if self.rest().is_empty() {
                return Err(self.error_at(open, "this `{` is never closed"));
            }
            values.insert(self.string()?);
            if !self.eat(",") && !matches!(self.peek(), Some('}') | None) {
                return Err(self.error("expected `,` or `}`"));
            }
        }
        self.need("}")?;
        Ok(values)
    }

    fn string(&mut self) -> Parsed<String> {
        let Some(quote @ ('\'' | '"')) = self.peek() else {
            return Err(self.error("expected a value in quotes, such as 'blue'"));
        };
        let inside = &self.rest()[1..];
        let Some(length) = inside.find(quote) else {
            return Err(self.error("this quote is never closed"));
        };
        self.at += length + 2;
        self.blanks();
        Ok(inside[..length].to_owned())
    }

    /// A label or function name. The one part that leaves the blanks behind it: a function's `(` must touch its name.
    fn ident(&mut self, expected: &str) -> Parsed<&'a str> {
        self.blanks();
        let rest = self.rest();
        let length = rest.find(|c: char| !part_of_ident(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(match self.peek() {
                None => self.error(expected),
                Some(c) => self.error(self.unexpected(c, expected)),
            });
        }
        if length > LABEL_LIMIT {
            return Err(
                self.error(format!("a label has at most {LABEL_LIMIT} characters, this one {length}"))
            );
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.blanks();
        }
        found
    }

    /// An operator of one or two words; a word ends where a label could not go on.
    fn eat_words(&mut self, first: &str, second: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix(first) else { return false };
        let rest = if second.is_empty() { rest } else { rest.trim_start_matches([' ', '\t']) };
        let Some(rest) = rest.strip_prefix(second) else { return false };
        let word = first.starts_with(part_of_ident);
        if word && rest.starts_with(part_of_ident) {
            return false;
        }
        self.at = self.text.len() - rest.len();
        self.blanks();
        true
    }

    fn need(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(format!("expected `{token}`"))) }
    }

    fn unexpected(&self, c: char, expected: &str) -> String {
        match c {
            '&' | '|' if !self.rest().starts_with(&format!("{c}{c}")) => {
                format!("a single `{c}` is no operator; write `{c}{c}`")
            }
            c if c.is_whitespace() => "only spaces and tabs may stand between words".to_owned(),
            _ => expected.to_owned(),
        }
    }

    fn error(&self, message: impl Into<String>) -> SelectorError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, byte: usize, message: impl Into<String>) -> SelectorError {
        let at = self.text[..byte].chars().count();
        SelectorError { text: self.text.to_owned(), at, message: message.into() }
    }
}

fn part_of_ident(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
