//! One command of another program: bounded in time, alone in its group, and its last words kept.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Output;
use crate::group::Group;

/// A command, not yet run.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    program: &'a Path,
    /// For errors: "creating a cluster".
    doing: &'static str,
    limit: Duration,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(
        program: &'a Path,
        doing: &'static str,
        limit: Duration,
        arguments: &[&str],
    ) -> Self {
        Self {
            program,
            doing,
            limit,
            arguments: arguments.iter().map(OsString::from).collect(),
            variables: Vec::new(),
            input: Vec::new(),
        }
    }

    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn kubeconfig(self, path: &Path) -> Self {
        self.argument("--kubeconfig").argument(path)
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    pub(crate) fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        input.as_ref().clone_into(&mut self.input);
        self
    }

    /// Runs it; what it wrote to its standard output.
    ///
    /// # Errors
    /// When it cannot be run, takes too long, or fails: with the last lines that it wrote.
    pub(crate) async fn run(self) -> anyhow::Result<String> {
        let (doing, shown) = (self.doing, self.shown());
        let output = self.output().await?;
        if output.exit_code != 0 {
            bail!(
                "{doing} failed: {shown} ended with exit code {}: {}",
                output.exit_code,
                last_words(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub(crate) async fn output(self) -> anyhow::Result<Output> {
        let shown = self.shown();
        let mut child = Command::new(self.program)
            .args(&self.arguments)
            .envs(self.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", self.program.display()))?;
        let _group = Group::of(&child);
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Who does not read it to the end says why by its exit code.
                let _ = stdin.write_all(&self.input).await;
            }
        };
        let whole = async { tokio::join!(child.wait_with_output(), feed).0 };
        let output = tokio::time::timeout(self.limit, whole)
            .await
            .with_context(|| {
                format!(
                    "{} did not end within {} s: {shown}",
                    self.doing,
                    self.limit.as_secs()
                )
            })?
            .with_context(|| format!("{shown} cannot be waited for"))?;
        Ok(Output {
            // None is a signal's doing.
            exit_code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    /// As a person would type it.
    fn shown(&self) -> String {
        let program = self.program.file_name().unwrap_or_default();
        let words = std::iter::once(program).chain(self.arguments.iter().map(OsString::as_os_str));
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}

/// The lines of a complaint that say most: the first that speaks of an error, else the last; and what a program that
/// it ran in turn had said, which kind writes below.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find(|line| line.to_ascii_lowercase().contains("error"));
    let error = error.or_else(|| lines().next_back());
    let in_turn = lines().find_map(|line| line.strip_prefix("Command Output:"));
    let said: Vec<_> = error.into_iter().chain(in_turn.map(str::trim)).collect();
    match said.is_empty() {
        true => "it wrote nothing".to_owned(),
        false => said.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn what_says_most_is_told() {
        for (wrote, told) in [
            ("", "it wrote nothing"),
            ("one\n two \n\n", "two"),
            (
                "Creating cluster\nERROR: no such image\nbye",
                "ERROR: no such image",
            ),
            (
                "ERROR: failed to create cluster: command \"docker run x\" failed with error: exit status 126\n\n\
                 Command Output: docker: permission denied\n",
                "ERROR: failed to create cluster: command \"docker run x\" failed with error: exit status 126; docker: \
                 permission denied",
            ),
        ] {
            assert_eq!(last_words(wrote.as_bytes()), told);
        }
    }
}
