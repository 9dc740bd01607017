//! `docs/coverage.md`: what the suites that others trust assert, test by test, and which check answers to it.
//!
//! Start from [`Work`], one file of `suites/coverage/`. What a check's row says that it answers to has to be
//! there as well. Rule: a check that asserts less than the test covers it in part, and the file says what is
//! missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use serde::Deserialize;
use strata::Check;

use super::checks;

const HEAD: &str = "\
# Coverage

What the suites that others trust assert, test by test, and which of our [checks](checks.md) answers to it. This page is
made from the files in `suites/coverage/`: `UPDATE_EXPECT=1 cargo test -p strata-suites --lib page` writes it anew. Tests
compare it, and see to it that every check named here exists and that what a check's row answers to is named here.

| answer | what it means |
| --- | --- |
| covered | a check asserts at least what the test does |
| in part | a check asserts less, and what is missing is said |
| open | we mean to and have not; what it is about |
| left out | we do not mean to, and why |
";

/// A suite that we compare ourselves with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    /// What stands before one of its names in a check's row.
    work: String,
    title: String,
    about: String,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    title: String,
    rows: Vec<Row>,
}

/// Tests with one answer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
struct Row {
    answer: Answer,
    names: Vec<String>,
}

#[derive(Debug)]
enum Answer {
    Covered(Vec<String>),
    Part { checks: Vec<String>, lacks: String },
    Open(String),
    Out(String),
}

/// A row as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    covered: Option<Vec<String>>,
    part: Option<Vec<String>>,
    lacks: Option<String>,
    open: Option<String>,
    out: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    /// Names that mean nothing without their file's.
    #[serde(default)]
    within: BTreeMap<String, Vec<String>>,
}

impl TryFrom<Written> for Row {
    type Error = String;

    fn try_from(row: Written) -> Result<Self, String> {
        let mut names = row.names;
        for (file, own) in row.within {
            names.extend(own.into_iter().map(|name| format!("{file}, {name}")));
        }
        let answer = match (row.covered, row.part, row.lacks, row.open, row.out) {
            (Some(checks), None, None, None, None) => Answer::Covered(checks),
            (None, Some(checks), Some(lacks), None, None) => Answer::Part { checks, lacks },
            (None, None, None, Some(about), None) => Answer::Open(about),
            (None, None, None, None, Some(why)) => Answer::Out(why),
            _ => {
                return Err(format!(
                    "say one of covered, part with lacks, open and out of {names:?}"
                ));
            }
        };
        Ok(Self { answer, names })
    }
}

impl Answer {
    const WORDS: [&str; 4] = ["covered", "in part", "open", "left out"];

    const fn word(&self) -> &'static str {
        let [covered, part, open, out] = Self::WORDS;
        match self {
            Self::Covered(_) => covered,
            Self::Part { .. } => part,
            Self::Open(_) => open,
            Self::Out(_) => out,
        }
    }

    fn checks(&self) -> &[String] {
        match self {
            Self::Covered(checks) | Self::Part { checks, .. } => checks,
            Self::Open(_) | Self::Out(_) => &[],
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Covered(_) => None,
            Self::Part { lacks: text, .. } | Self::Open(text) | Self::Out(text) => Some(text),
        }
    }
}

impl Work {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }

    fn names(&self) -> impl Iterator<Item = (&str, &Answer)> {
        self.rows()
            .flat_map(|Row { answer, names }| names.iter().map(move |name| (name.as_str(), answer)))
    }

    /// How many names have an answer of this word.
    fn count(&self, word: &str) -> usize {
        let names = self.names();
        names.filter(|(_, answer)| answer.word() == word).count()
    }

    /// What of this work a check's source names. Tests of the Gateway API need no word before them.
    fn named_by(&self, source: &'static str) -> Vec<&'static str> {
        let prefix = format!("{}: ", self.work);
        let bare = self.work == "Gateway API conformance";
        let mut named = Vec::new();
        for part in source.split("; ") {
            if let Some(name) = part.strip_prefix(&prefix) {
                named.push(name);
            } else if bare && part.split(", ").all(is_test_of_the_gateway_api) {
                named.extend(part.split(", "));
            }
        }
        named
    }

    /// The names that a source's name stands for: itself, or all that begin with what stands before `…`.
    fn meant(&self, name: &str) -> Vec<(&str, &Answer)> {
        let is_meant = |full: &str| match name.strip_suffix(" …") {
            Some(start) => full.starts_with(start),
            None => full == name,
        };
        self.names().filter(|(full, _)| is_meant(full)).collect()
    }

    /// The name that shares the most words, or else the longest beginning, with one that there is not.
    fn nearest(&self, name: &str) -> &str {
        let words = |text: &str| -> BTreeSet<String> {
            let words = text.split(|c: char| !c.is_alphanumeric());
            words.map(str::to_lowercase).collect()
        };
        let sought = words(name);
        let alike = |full: &str| {
            let beginning = full.chars().zip(name.chars()).take_while(|(a, b)| a == b);
            (words(full).intersection(&sought).count(), beginning.count())
        };
        let nearest = self.names().max_by_key(|(full, _)| alike(full));
        nearest.map_or("none", |(full, _)| full)
    }
}

/// `HTTPRouteWeight`, and not `RFC 791` or `tutorial`.
fn is_test_of_the_gateway_api(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric())
}

fn works() -> Vec<Work> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("coverage");
    let files = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn codes<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: Vec<_> = ids.into_iter().map(|id| format!("`{id}`")).collect();
    ids.join(", ")
}

fn summary(works: &[Work]) -> String {
    let mut table = format!("\n| suite | tests | {} |\n", Answer::WORDS.join(" | "));
    table.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    let line = |title: &str, works: &[Work]| {
        let of = |word| works.iter().map(|work| work.count(word)).sum();
        let counts: [usize; 4] = Answer::WORDS.map(of);
        let all: usize = counts.iter().sum();
        let cells = counts.map(|count| count.to_string());
        format!("| {title} | {all} | {} |\n", cells.join(" | "))
    };
    for work in works {
        table.push_str(&line(&work.title, std::slice::from_ref(work)));
    }
    table.push_str(&line("together", works));
    table
}

fn page(works: &[Work]) -> String {
    let mut page = HEAD.to_owned() + &summary(works);
    for work in works {
        let _ = write!(page, "\n## {}\n\n{}\n", work.title, work.about);
        for group in &work.groups {
            let _ = writeln!(
                page,
                "\n### {}\n\n| tests | answer | by which checks, what is missing, or why |\n| --- | --- | --- |",
                group.title
            );
            for Row { answer, names } in &group.rows {
                let by = codes(answer.checks().iter().map(String::as_str));
                let why = match (answer.reason(), by.is_empty()) {
                    (Some(reason), true) => reason.to_owned(),
                    (Some(lacks), false) => format!("{by}; missing: {lacks}"),
                    (None, _) => by,
                };
                let names = names.join("; ").replace('|', "\\|");
                let _ = writeln!(page, "| {names} | {} | {why} |", answer.word());
            }
        }
    }
    let named: BTreeSet<_> = works
        .iter()
        .flat_map(Work::rows)
        .flat_map(|row| row.answer.checks())
        .map(String::as_str)
        .collect();
    let own = checks().map(|(_, _, check)| check.id);
    let own: Vec<_> = own.filter(|id| !named.contains(id)).collect();
    let _ = writeln!(
        page,
        "\n## What none of them asserts\n\n{} checks answer to none of these suites, but to specifications, to the tutorial or to \
         other works: {}.",
        own.len(),
        codes(own.iter().copied())
    );
    page
}

#[test]
fn the_page_of_coverage_says_what_the_files_say() {
    expect_file!["../../docs/coverage.md"].assert_eq(&page(&works()));
}

#[test]
fn every_test_is_answered_once_and_with_a_reason() {
    for work in works() {
        let mut seen = BTreeSet::new();
        for (name, answer) in work.names() {
            assert!(seen.insert(name), "{}: {name} is there twice", work.title);
            let said = answer.reason().is_none_or(|reason| !reason.is_empty());
            assert!(said, "{}: {name} has no reason", work.title);
        }
        for Row { answer, names } in work.rows() {
            assert!(!names.is_empty(), "{}: {answer:?} of nothing", work.title);
            let by = matches!(answer, Answer::Covered(_) | Answer::Part { .. });
            assert_eq!(by, !answer.checks().is_empty(), "{}: {names:?}", work.title);
        }
    }
}

#[test]
fn every_check_that_is_named_exists() {
    let ids: BTreeSet<_> = checks().map(|(_, _, check)| check.id).collect();
    for work in works() {
        for Row { answer, names } in work.rows() {
            for id in answer.checks() {
                assert!(
                    ids.contains(id.as_str()),
                    "{id}, for {names:?}, is no check"
                );
            }
        }
    }
}

#[test]
fn what_a_check_answers_to_is_in_the_comparison() {
    let works = works();
    let mut wrong = Vec::new();
    for (_, _, check) in checks() {
        for work in &works {
            for name in work.named_by(check.source) {
                wrong.extend(disagreement(work, check, name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a name in a check's row.
fn disagreement(work: &Work, check: &Check, name: &str) -> Vec<String> {
    let Check { id, .. } = check;
    let meant = work.meant(name);
    if meant.is_empty() {
        let nearest = work.nearest(name);
        return vec![format!(
            "{id} answers to {name:?} of {}, which has no such test; the nearest is {nearest:?}",
            work.title
        )];
    }
    let other = meant
        .into_iter()
        .filter(|(_, answer)| !answer.checks().iter().any(|by| by == id));
    let said = |(full, answer): (&str, &Answer)| {
        format!(
            "{id} says that it answers to {full:?}, which suites/coverage calls {} without it",
            answer.word()
        )
    };
    other.map(said).collect()
}

#[test]
fn a_row_without_a_clear_answer_is_refused() {
    for row in [
        "names: [a]",
        "{names: [a], part: [b]}",
        "{names: [a], covered: [b], open: c}",
        "{names: [a], covered: [b], lacks: c}",
    ] {
        let refusal = serde_yaml::from_str::<Row>(row).unwrap_err().to_string();
        assert!(refusal.contains("say one of"), "{row}: {refusal}");
    }
}
