//! Colours: only where a person looks at a terminal, and never if `NO_COLOR` says so (no-color.org).
//!
//! In: words and what they mean. Out: the same words, perhaps between escapes. Never: meaning that is in the colour alone.

use std::io::IsTerminal;

/// Whether to paint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// What suits standard output: a terminal that understands escapes, and nobody asked for none.
    pub fn of_stdout() -> Paint {
        let asked_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Paint(std::io::stdout().is_terminal() && !asked_off && !dumb)
    }

    /// Plain text.
    pub const OFF: Paint = Paint(false);

    /// As on a terminal.
    #[cfg(test)]
    pub const ALWAYS: Paint = Paint(true);

    /// Something is wrong.
    pub fn bad(self, text: &str) -> String {
        self.escape("31", text)
    }

    /// Something to look at.
    pub fn doubtful(self, text: &str) -> String {
        self.escape("33", text)
    }

    /// As it should be.
    pub fn good(self, text: &str) -> String {
        self.escape("32", text)
    }

    fn escape(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How many columns a text takes: escapes take none.
pub fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            rest.by_ref().find(|c| *c == 'm');
        } else {
            columns += 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_takes_no_columns_and_none_is_none() {
        assert_eq!(Paint::OFF.bad("held"), "held");
        assert_eq!(Paint::ALWAYS.bad("held"), "\x1b[31mheld\x1b[0m");
        assert_eq!(width(&Paint::ALWAYS.good("größe")), 5);
    }
}
