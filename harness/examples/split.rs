//! What the test of a split comes to, and what it says of a sample.
//!
//! Without arguments it prints the table of `docs/statistics.md`: what the test of a 90/10 split comes to,
//! exactly, beside two rules that are in use. With a `sample.jsonl` of a report's evidence and the arms'
//! weights (`split SAMPLE backend-v1=90 backend-v2=10`) it redoes the test, request by request.

use anyhow::Context as _;
use serde_json::Value;
use strata::verdict::chance::rules;
use strata::verdict::split::{Decision, SplitTest};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        None => print!("{}", table()?),
        Some((sample, arms)) => print!("{}", redone(sample, arms)?),
    }
    Ok(())
}

fn table() -> anyhow::Result<String> {
    rules::table().map_err(|no_verdict| anyhow::anyhow!("{}", no_verdict.because()))
}

fn redone(sample: &str, arms: &[String]) -> anyhow::Result<String> {
    let arms: Vec<(&str, f64)> = arms
        .iter()
        .map(|arm| {
            let (name, weight) = arm.split_once('=').context("an arm is NAME=WEIGHT")?;
            Ok((
                name,
                weight
                    .parse()
                    .with_context(|| format!("{arm}: no weight"))?,
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut test =
        SplitTest::new(arms).map_err(|no_verdict| anyhow::anyhow!("{}", no_verdict.because()))?;
    let text = std::fs::read_to_string(sample).with_context(|| format!("cannot read {sample}"))?;
    for line in text.lines() {
        let request: Value = serde_json::from_str(line).context("a line is no request")?;
        // One that failed is no arm's.
        if let Some(arm) = request["arm"].as_str()
            && test.observe(arm) != Decision::Undecided
        {
            break;
        }
    }
    let said = match test.decision() {
        Decision::Holds => "every arm receives its share",
        Decision::Broken => "some arm does not receive its share",
        Decision::Undecided => "undecided",
    };
    let records = test.records();
    let records = records
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"));
    Ok(format!("{said}\n{}", records.collect::<String>()))
}
