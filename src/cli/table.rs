//! Aligned columns of text.
//!
//! In: a heading and rows, painted or not. Out: lines without trailing blanks. Never: chooses colours, asks for terminal widths.

use std::fmt;

use super::paint::width;

/// A table. A column whose cells are all numbers is aligned to the right.
#[derive(Debug, Clone, Default)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(heading: &[&'static str]) -> Table {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell per column. An empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(cells.collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |n: usize| self.rows.iter().filter_map(move |row| row.get(n));
        let wide = |text: &str| width(text);
        let widths: Vec<usize> = (self.heading.iter().enumerate())
            .map(|(n, title)| column(n).map(|cell| wide(cell)).max().unwrap_or(0).max(wide(title)))
            .collect();
        let number = |cell: &String| cell == "-" || cell.bytes().all(|b| b.is_ascii_digit());
        let right: Vec<bool> =
            (0..widths.len()).map(|n| !self.rows.is_empty() && column(n).all(number)).collect();
        let heading: Vec<String> = self.heading.iter().map(|title| (*title).to_owned()).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
                let blanks = " ".repeat(width.saturating_sub(wide(cell)));
                line += &if *right { format!("{blanks}{cell}  ") } else { format!("{cell}{blanks}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `12s`, `5m`, `3h`, `2d`: the largest unit that fills.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::Paint;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["POOL", "LEASED", "WHY"]);
        table.row(["egress".to_owned(), "7".to_owned(), String::new()]);
        table.row(["a".to_owned(), "1024".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "POOL    LEASED  WHY\negress       7  -\na         1024  x\n");
    }

    #[test]
    fn the_widest_address_there_is_widens_its_column_alone() {
        let wide = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let mut table = Table::new(&["ADDRESS", "PACKETS", "WHY"]);
        table.row([wide.to_owned(), "7".to_owned(), Paint::ALWAYS.bad("held")]);
        table.row(["10.10.10.1".to_owned(), "1024".to_owned(), "direct".to_owned()]);
        let lines: Vec<String> = table.to_string().lines().map(str::to_owned).collect();
        let column = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        assert_eq!(column(&lines[1], " 7"), column(&lines[2], " 1024"), "numbers end in one column");
        assert_eq!(lines[0].find("WHY"), lines[2].find("direct"));
        assert_eq!(lines[0].find("WHY"), lines[1].find('\x1b'), "escapes take no columns");
        assert_eq!(lines[0].find("PACKETS"), Some(wide.len() + 2));
    }
}
