//! What a measure found, in the form that plots and tables are made from.

use std::fmt;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One measure's report: a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) measure: String,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// The load of the last minute when it began.
    pub(crate) load_before: f64,
    /// The machine when it ended.
    pub(crate) machine: Machine,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// What was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) plots: Vec<Plot>,
    pub(crate) table: Table,
    /// What was not measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) skipped: Vec<String>,
}

/// A plot, on logarithmic scales: growth is a slope there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plot {
    /// The name of its file, without the extension.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<Line>,
}

/// A line of a plot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            points: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// In Markdown; the columns after the first are numbers.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<_> = (0..self.head.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        let rows = self.rows.iter().map(|row| line(row));
        line(&self.head) + &line(&rule) + &rows.collect::<String>()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            measure, seconds, ..
        } = self;
        writeln!(f, "\n{measure} ({seconds:.0} s)")?;
        f.write_str(&self.measured.table.markdown())?;
        for skipped in &self.measured.skipped {
            writeln!(f, "skipped: {skipped}")?;
        }
        Ok(())
    }
}

/// Where it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) nft: String,
    pub(crate) commit: String,
    pub(crate) optimized: bool,
    /// The load of the last minute.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default().parse()?;
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let processor = processors.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            let output = output.map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&output).trim().to_owned()
        };
        Ok(Self {
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kilobytes("/proc/meminfo", "MemTotal:")? >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            nft: said("nft", &["--version"]),
            commit: said("git", &["rev-parse", "--short=12", "HEAD"]),
            optimized: !cfg!(debug_assertions),
            load,
        })
    }
}

/// A number of kilobytes of a file of `/proc`.
pub(crate) fn kilobytes(file: &str, field: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{file} has no {field}"))
}

/// Samples of one thing, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, time: Duration) {
        self.add_milliseconds(time.as_secs_f64() * 1000.0);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn add_milliseconds(&mut self, milliseconds: f64) {
        self.0.push(milliseconds);
    }

    /// The smallest sample that so many hundredths of all are not above (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }
}

/// A number with about three digits.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        many if many >= 100.0 => format!("{number:.0}"),
        some if some >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
