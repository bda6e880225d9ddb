//! Values, medians, and the table they end in.

use std::fmt;

/// Values of one thing, in the order measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    /// The value at this share of the sorted ones: 0.5 is the median.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Median, the quarter points, and every value.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2} … {:.2}] of", self.median(), self.at(0.25), self.at(0.75))?;
        self.0.iter().try_for_each(|v| write!(f, " {v:.2}"))
    }
}

/// Two things measured in turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Series,
    pub(crate) theirs: Series,
}

impl Pairs {
    pub(crate) fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.0.push(ours);
        self.theirs.0.push(theirs);
    }

    /// Median of the ratios of the pairs: what both of a pair suffered alike drops out.
    pub(crate) fn ratio(&self) -> Series {
        Series(self.ours.0.iter().zip(&self.theirs.0).map(|(a, b)| a / b).collect())
    }

    pub(crate) fn print(&self, what: &str, unit: &str, ours: &str, theirs: &str) {
        println!(
            "{what} ({unit})\n  {ours:<12} {}\n  {theirs:<12} {}\n  {:<12} {}",
            self.ours,
            self.theirs,
            "ratio",
            self.ratio()
        );
    }
}

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Told, not promised.
    None,
}

struct Row {
    what: String,
    measured: String,
    value: f64,
    unit: &'static str,
    target: Target,
}

impl Row {
    fn met(&self) -> bool {
        match self.target {
            Target::AtMost(limit) => self.value <= limit,
            Target::AtLeast(limit) => self.value >= limit,
            Target::None => true,
        }
    }
}

/// The table.
#[derive(Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    /// A figure by itself.
    pub(crate) fn figure(&mut self, what: &str, series: &Series, unit: &'static str, target: Target) {
        println!("{what} ({unit}): {series}");
        let measured = format!("{:.2} to {:.2} {unit}", series.at(0.25), series.at(0.75));
        self.0.push(Row { what: what.to_owned(), measured, value: series.median(), unit, target });
    }

    /// The value that a share of the series is within.
    pub(crate) fn share(
        &mut self,
        what: &str,
        series: &Series,
        share: f64,
        unit: &'static str,
        target: Target,
    ) {
        let measured = format!("{} values", series.0.len());
        self.0.push(Row { what: what.to_owned(), measured, value: series.at(share), unit, target });
    }

    /// A ratio of two medians measured in turn.
    pub(crate) fn ratio(&mut self, what: &str, pairs: &Pairs, unit: &str, against: &str, target: Target) {
        pairs.print(what, unit, "egret", against);
        let measured = format!("{:.2} against {:.2} {unit}", pairs.ours.median(), pairs.theirs.median());
        self.0.push(Row {
            what: what.to_owned(),
            measured,
            value: pairs.ratio().median(),
            unit: "×",
            target,
        });
    }

    /// Whether no target was missed.
    pub(crate) fn all_met(&self) -> bool {
        self.0.iter().all(Row::met)
    }
}

/// A Markdown table, so that it can be put into `docs/benchmarks.md` as it is.
impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median | measured | target | verdict |\n| --- | --- | --- | --- | --- |")?;
        for row in &self.0 {
            let (target, verdict) = match row.target {
                Target::AtMost(limit) => (format!("≤ {limit} {}", row.unit), row.met()),
                Target::AtLeast(limit) => (format!("≥ {limit} {}", row.unit), row.met()),
                Target::None => (String::new(), true),
            };
            let verdict = match (row.target, verdict) {
                (Target::None, _) => "",
                (_, true) => "met",
                (_, false) => "**NOT met**",
            };
            writeln!(
                f,
                "| {} | {:.2} {} | {} | {target} | {verdict} |",
                row.what, row.value, row.unit, row.measured
            )?;
        }
        Ok(())
    }
}
