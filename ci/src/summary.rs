//! A night's summary: a table of cells by layers, and what is newly broken and since when.
//!
//! Start from [`Night`], which is written as `summary.json` and read by the next night, and
//! [`Night::markdown`] for people. A check is broken since the first night of those, without a gap, in which it did
//! not pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use strata::report::{LayerReport, Report, TrialReport, Verdict};

use crate::cell::{Came, LOG};

/// The version of the schema of `summary.json`.
const SCHEMA: &str = "strata.night/v1";
/// Its name, in a night's folder.
pub(crate) const FILE: &str = "summary.json";
/// The layers, as the table has them.
const LAYERS: [&str; 5] = ["cni", "services", "ingress", "mesh", "gateway"];

/// What a night came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Night {
    schema: String,
    /// Its name, by which nights are in order.
    pub(crate) night: String,
    /// By name, in the order of the matrix.
    pub(crate) cells: Vec<CellSummary>,
}

/// What a cell came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CellSummary {
    pub(crate) name: String,
    /// What it is of.
    described: String,
    /// Whether it was run at all.
    pub(crate) ran: bool,
    /// In one word or sentence.
    pub(crate) outcome: String,
    /// Its exit code, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u8>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, Counts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    broken: Vec<Broken>,
    /// Broken the night before, and passed now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mended: Vec<String>,
}

/// How many trials of a layer came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    passed: usize,
    failed: usize,
    #[serde(default)]
    deviates: usize,
    no_verdict: usize,
    blocked: usize,
    skipped: usize,
}

/// A trial that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Broken {
    trial: String,
    /// Whether the cluster broke the claim; else there is no verdict.
    failed: bool,
    /// The likely cause, or why nothing can be said.
    why: String,
    /// The night since which it has not passed; nothing if no earlier night is known.
    since: Option<String>,
}

impl Night {
    /// One without cells.
    pub(crate) fn new(night: &str) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            night: night.to_owned(),
            cells: Vec::new(),
        }
    }

    /// The latest before this one, among the folders beside it that have a summary.
    ///
    /// # Errors
    /// When a summary cannot be read.
    pub(crate) fn before(nights: &Path, night: &str) -> anyhow::Result<Option<Self>> {
        let Ok(folders) = std::fs::read_dir(nights) else {
            return Ok(None);
        };
        let names = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let earlier = names.filter(|name| name.as_str() < night);
        let earlier = earlier.filter(|name| nights.join(name).join(FILE).is_file());
        let Some(latest) = earlier.max() else {
            return Ok(None);
        };
        let path = nights.join(latest).join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let read = serde_json::from_str(&text);
        read.map(Some)
            .with_context(|| format!("{} is not a summary of a night", path.display()))
    }

    /// A cell that was run.
    fn cell(&self, name: &str) -> Option<&CellSummary> {
        self.cells.iter().find(|cell| cell.name == name && cell.ran)
    }

    /// Adds a cell, held against what it was the night before.
    pub(crate) fn add(
        &mut self,
        name: &str,
        described: String,
        came: &Came,
        before: Option<&Self>,
    ) {
        let mut cell = CellSummary {
            name: name.to_owned(),
            described,
            ran: true,
            ..CellSummary::default()
        };
        let report = match came {
            Came::Ended(report) => {
                let ending = report.ending.as_ref();
                cell.code = ending.map(|ending| ending.code);
                cell.outcome = ending
                    .map(|ending| ending.meaning.clone())
                    .unwrap_or_default();
                Some(report)
            }
            Came::TooLong(report) => {
                cell.outcome = "ended, since its time was over".to_owned();
                report.as_ref()
            }
            Came::Silent(how) => {
                cell.outcome = format!("no report: {how}");
                None
            }
            Came::Interrupted => {
                cell.outcome = "interrupted".to_owned();
                None
            }
        };
        if let Some(report) = report {
            cell.read(
                report,
                &self.night,
                before.and_then(|night| night.cell(name)),
            );
        }
        self.cells.push(cell);
    }

    /// Adds a cell that was not run.
    pub(crate) fn add_not_run(&mut self, name: &str, described: String, why: &str) {
        self.cells.push(CellSummary {
            name: name.to_owned(),
            described,
            outcome: format!("not run: {why}"),
            ..CellSummary::default()
        });
    }

    /// For people, and for a CI's summary page; links lead into the night's folder.
    pub(crate) fn markdown(&self) -> String {
        let mut page = format!(
            "# Night {}\n\n| cell | {} | |\n",
            self.night,
            LAYERS.join(" | ")
        );
        page += &"| --- ".repeat(LAYERS.len() + 2);
        page += "|\n";
        for cell in &self.cells {
            let layers = LAYERS.map(|layer| {
                cell.layers
                    .get(layer)
                    .map_or_else(String::new, Counts::told)
            });
            let name = match cell.layers.is_empty() {
                true => cell.name.clone(),
                false => format!("[{0}]({0}/junit.xml)", cell.name),
            };
            let log = if cell.ran {
                format!(" ([log]({}/{LOG}))", cell.name)
            } else {
                String::new()
            };
            let _ = writeln!(
                page,
                "| {name} | {} | {}{log} |",
                layers.join(" | "),
                cell.outcome
            );
        }
        page += "\n";
        for cell in &self.cells {
            let _ = writeln!(page, "- **{}**: {}", cell.name, cell.described);
        }
        let newly = |broken: &Broken| broken.since.as_ref() == Some(&self.night);
        self.list(&mut page, "Newly broken", |cell| {
            cell.broken
                .iter()
                .filter(|it| newly(it))
                .map(Broken::told)
                .collect()
        });
        self.list(&mut page, "Still broken", |cell| {
            cell.broken
                .iter()
                .filter(|it| !newly(it))
                .map(Broken::told)
                .collect()
        });
        self.list(&mut page, "Mended", |cell| cell.mended.clone());
        page
    }

    fn list(&self, page: &mut String, title: &str, lines: impl Fn(&CellSummary) -> Vec<String>) {
        let all: Vec<_> = self
            .cells
            .iter()
            .flat_map(|cell| {
                lines(cell)
                    .into_iter()
                    .map(|line| format!("- {}: {line}\n", cell.name))
            })
            .collect();
        if !all.is_empty() {
            let _ = write!(page, "\n## {title}\n\n{}", all.concat());
        }
    }
}

impl CellSummary {
    fn read(&mut self, report: &Report, night: &str, before: Option<&Self>) {
        for layer in &report.layers {
            let counts = Counts::of(layer);
            if counts != Counts::default() {
                self.layers.insert(layer.layer.clone(), counts);
            }
            for trial in &layer.trials {
                let earlier = before
                    .and_then(|before| before.broken.iter().find(|it| it.trial == trial.name));
                match trial.verdict {
                    Verdict::Failed | Verdict::NoVerdict => {
                        let since = match earlier {
                            Some(earlier) => earlier.since.clone(),
                            None => before.map(|_| night.to_owned()),
                        };
                        self.broken.push(Broken::of(trial, since));
                    }
                    Verdict::Passed if earlier.is_some() => self.mended.push(trial.name.clone()),
                    _ => {}
                }
            }
        }
    }
}

impl Counts {
    fn of(layer: &LayerReport) -> Self {
        let count = |verdict: Verdict| {
            layer
                .trials
                .iter()
                .filter(|trial| trial.verdict == verdict)
                .count()
        };
        Self {
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            deviates: count(Verdict::Deviates),
            no_verdict: count(Verdict::NoVerdict),
            blocked: count(Verdict::Blocked),
            skipped: count(Verdict::Skipped),
        }
    }

    fn told(&self) -> String {
        let words = [
            (self.failed, "failed"),
            (self.no_verdict, "no verdict"),
            (self.blocked, "blocked"),
            (self.passed, "passed"),
            (self.deviates, "deviating as known"),
            (self.skipped, "skipped"),
        ];
        let words = words.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = words
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        words.join(", ")
    }
}

impl Broken {
    fn of(trial: &TrialReport, since: Option<String>) -> Self {
        let finding = trial.finding.as_ref().map(|finding| &finding.likely);
        let because = trial
            .no_verdict
            .as_ref()
            .map(|no_verdict| &no_verdict.because);
        Self {
            trial: trial.name.clone(),
            failed: trial.verdict == Verdict::Failed,
            why: finding.or(because).cloned().unwrap_or_default(),
            since,
        }
    }

    fn told(&self) -> String {
        let Self { trial, why, .. } = self;
        let word = if self.failed { "" } else { " (no verdict)" };
        let since = self.since.as_ref();
        let since = since.map_or_else(String::new, |since| format!(", since {since}"));
        format!(
            "`{trial}`{word}{since}: {}",
            why.lines().next().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn trial(name: &str, verdict: &str) -> Value {
        let mut trial = json!({
            "name": name, "kind": "check", "claim": "", "source": "", "verdict": verdict, "seconds": 0.1, "again": "",
        });
        if verdict == "failed" {
            trial["finding"] = json!({
                "what": "", "expected": "", "observed": "", "likely": format!("{name}'s cause"), "diagnosed": true,
            });
        }
        trial
    }

    fn ended(code: u8, trials: &[(&str, &str)]) -> Came {
        let trials: Vec<_> = trials
            .iter()
            .map(|(name, verdict)| trial(name, verdict))
            .collect();
        let report = json!({
            "schema": "strata.report/v1", "strata": "0", "run": "r", "seed": 1, "arguments": [], "started": "",
            "seconds": 1.0, "cluster": null, "troubles": [],
            "layers": [{ "layer": "services", "trials": trials }, { "layer": "mesh", "trials": [] }],
            "ending": { "code": code, "meaning": format!("code {code}"), "remark": null },
        });
        Came::Ended(Box::new(serde_json::from_value(report).unwrap()))
    }

    fn night(name: &str, before: Option<&Night>, cells: &[(&str, Came)]) -> Night {
        let mut night = Night::new(name);
        for (cell, came) in cells {
            night.add(cell, format!("of {cell}"), came, before);
        }
        night
    }

    #[test]
    fn what_is_broken_is_told_with_the_night_since_which() {
        let first = night(
            "01",
            None,
            &[("a", ended(101, &[("s::x", "failed"), ("s::y", "passed")]))],
        );
        let second = night(
            "02",
            Some(&first),
            &[("a", ended(101, &[("s::x", "failed"), ("s::y", "failed")]))],
        );
        let third = night(
            "03",
            Some(&second),
            &[("a", ended(101, &[("s::x", "passed"), ("s::y", "failed")]))],
        );
        let fourth = night(
            "04",
            Some(&third),
            &[("a", ended(101, &[("s::x", "failed"), ("s::y", "passed")]))],
        );
        let told = |night: &Night| {
            let cell = &night.cells[0];
            let broken = cell
                .broken
                .iter()
                .map(|it| (it.trial.clone(), it.since.clone()));
            (broken.collect::<Vec<_>>(), cell.mended.clone())
        };
        let since = |name: &str, night: Option<&str>| (name.to_owned(), night.map(str::to_owned));
        assert_eq!(told(&first), (vec![since("s::x", None)], vec![]));
        assert_eq!(
            told(&second),
            (vec![since("s::x", None), since("s::y", Some("02"))], vec![])
        );
        assert_eq!(
            told(&third),
            (vec![since("s::y", Some("02"))], vec!["s::x".to_owned()])
        );
        assert_eq!(
            told(&fourth),
            (vec![since("s::x", Some("04"))], vec!["s::y".to_owned()])
        );
    }

    #[test]
    fn the_page_has_a_table_and_what_changed() {
        let before = night(
            "01",
            None,
            &[("b", ended(101, &[("s::x", "failed"), ("s::y", "passed")]))],
        );
        let mut night = night(
            "02",
            Some(&before),
            &[
                ("a", ended(0, &[("s::x", "passed"), ("s::y", "skipped")])),
                (
                    "b",
                    ended(
                        101,
                        &[("s::x", "failed"), ("s::y", "failed"), ("s::z", "blocked")],
                    ),
                ),
                (
                    "c",
                    Came::Silent("exit status: 2; see its output.log".to_owned()),
                ),
                ("d", Came::TooLong(None)),
            ],
        );
        night.add_not_run("e", "of e".to_owned(), "not in this version");
        insta::assert_snapshot!(night.markdown());
    }

    #[test]
    fn the_night_before_is_the_latest_that_has_a_summary() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["2026-11-01", "2026-11-03", "2026-11-05"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let text = serde_json::to_string(&Night::new(name)).unwrap();
            std::fs::write(dir.path().join(name).join(FILE), text).unwrap();
        }
        std::fs::create_dir(dir.path().join("2026-11-04")).unwrap();
        let before = |night: &str| {
            Night::before(dir.path(), night)
                .unwrap()
                .map(|night| night.night)
        };
        assert_eq!(before("2026-11-05").as_deref(), Some("2026-11-03"));
        assert_eq!(before("2026-11-01"), None);
        assert_eq!(Night::before(&dir.path().join("none"), "x").unwrap(), None);
        std::fs::write(dir.path().join("2026-11-03").join(FILE), "{").unwrap();
        let error = Night::before(dir.path(), "2026-11-05").unwrap_err();
        assert!(
            format!("{error:#}").contains("is not a summary of a night"),
            "{error:#}"
        );
    }
}
