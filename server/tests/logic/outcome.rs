//! What came of the records, added up and printed.

use std::collections::BTreeMap;
use std::fmt;

/// The reasons that begin so are those of records that should pass.
const DEFECT: &str = "defect";

/// What came of the records.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Those that did as they should.
    pub(crate) passed: usize,
    /// Those that did not, and are not listed: where they stand, and what is wrong.
    pub(crate) failed: Vec<(String, String)>,
    /// Those that are listed one by one and still fail, by reason.
    pub(crate) known: Reasons,
    /// Those that were not run, by reason.
    pub(crate) skipped: Reasons,
    /// Those that are listed as failing and pass.
    pub(crate) recovered: Vec<String>,
}

/// How many records there are for each reason.
#[derive(Debug, Default)]
pub(crate) struct Reasons(BTreeMap<String, usize>);

impl Reasons {
    /// One more.
    pub(crate) fn count(&mut self, reason: &str) {
        *self.0.entry(reason.to_owned()).or_default() += 1;
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }

    fn defects(&self) -> usize {
        self.0.iter().filter(|(reason, _)| reason.starts_with(DEFECT)).map(|(_, count)| count).sum()
    }
}

impl Outcome {
    /// Adds those of another file.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.recovered.extend(other.recovered);
        for (mine, theirs) in [(&mut self.known, other.known), (&mut self.skipped, other.skipped)] {
            for (reason, count) in theirs.0 {
                *mine.0.entry(reason).or_default() += count;
            }
        }
    }

    /// How many records were run.
    pub(crate) fn run(&self) -> usize {
        self.passed + self.failed.len() + self.known.total()
    }

    /// How many records there are that the gateway should answer as DataFusion does: docs/src/decisions says which.
    pub(crate) fn applicable(&self) -> usize {
        self.passed + self.failed.len() + self.known.defects() + self.skipped.defects()
    }

    /// What is not as it was written down.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let failed = self.failed.iter().map(|(place, why)| format!("{place} fails: {why}\n"));
        failed.chain(self.recovered.iter().map(|place| format!("{place} passes: take it from skipped.txt"))).collect()
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, reasons) in [("known to fail", &self.known), ("skipped", &self.skipped)] {
            writeln!(f, "{:>6} {title}", reasons.total())?;
            for (reason, count) in &reasons.0 {
                writeln!(f, "{count:>6}   {reason}")?;
            }
        }
        let (failed, of) = (self.failed.len(), self.applicable());
        let (run, passed) = (self.run(), self.passed);
        writeln!(f, "{run:>6} run, of which {:.2} % passed", percent(passed, run))?;
        writeln!(f, "{of:>6} applicable, of which {:.2} % passed", percent(passed, of))?;
        write!(f, "{passed:>6} passed; {failed} failed that are not known to")
    }
}
