//! The program that runs nodes as containers: `docker` or `podman`, which take the same words.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::provider::step::Step;
use crate::provider::tools;

const ASK: Duration = Duration::from_secs(20);

/// A container engine that answers.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Engine {
    name: String,
    path: PathBuf,
    version: String,
}

impl Engine {
    /// The one that a variable names, or else the first that is installed on a search path.
    ///
    /// # Errors
    /// When there is none, or its daemon does not answer.
    pub(in crate::provider) async fn find(
        choice: Option<(&str, &str)>,
        path: &OsStr,
    ) -> anyhow::Result<Self> {
        let in_path =
            |name: &str| tools::on_path(Path::new(name), path).find(|path| path.is_file());
        let (name, path) = match choice {
            Some((variable, name)) => {
                let path = in_path(name).with_context(|| {
                    format!("{variable} names {name}, which is not in PATH; install it, or unset {variable}")
                })?;
                (name.to_owned(), path)
            }
            None => ["docker", "podman"]
                .into_iter()
                .find_map(|name| Some((name.to_owned(), in_path(name)?)))
                .context("this provider's nodes are containers, and neither docker nor podman is in PATH; install one")?,
        };
        // Its version is the daemon's, where there is one: a client alone is of no use.
        let format = match name.as_str() {
            "docker" | "nerdctl" => "{{.Server.Version}}",
            _ => "{{.Client.Version}}",
        };
        let asked = Step::new(
            &path,
            "asking for its version",
            ASK,
            &["version", "--format", format],
        );
        match asked.run().await {
            Ok(version) => Ok(Self {
                version: version.trim().to_owned(),
                name,
                path,
            }),
            Err(error) => {
                bail!("{name} does not answer; start it, or get the right to use it: {error:#}")
            }
        }
    }

    pub(in crate::provider) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::provider) fn version(&self) -> String {
        self.version.clone()
    }

    /// A command of its own.
    pub(in crate::provider) fn step(
        &self,
        doing: &'static str,
        limit: Duration,
        arguments: &[&str],
    ) -> Step<'_> {
        Step::new(&self.path, doing, limit, arguments)
    }
}
