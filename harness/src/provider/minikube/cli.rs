//! The minikube program, asked about one profile alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use super::complaint;
use crate::provider::step::Step;
use crate::provider::tools::Tool;

/// minikube's own variable for where it keeps its profiles.
pub(super) const HOME: &str = "MINIKUBE_HOME";

/// minikube, and the profile that every command is about: nobody else's is touched.
#[derive(Debug, Clone)]
pub(super) struct Cli {
    pub(super) tool: Tool,
    pub(super) profile: String,
    /// The file that minikube writes its context to, instead of the person's own.
    pub(super) kubeconfig: PathBuf,
    /// [`HOME`], where it is set.
    pub(super) home: Option<String>,
}

impl Cli {
    /// The program, for who starts it otherwise than by a step.
    pub(super) fn path(&self) -> &Path {
        &self.tool.path
    }

    /// The environment of every command: plain text, no news of other versions, our own kubeconfig.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("KUBECONFIG", self.kubeconfig.display().to_string()),
            ("MINIKUBE_IN_STYLE", "false".to_owned()),
            ("MINIKUBE_WANTUPDATENOTIFICATION", "false".to_owned()),
        ];
        variables.extend(self.home.clone().map(|home| (HOME, home)));
        variables
    }

    /// Runs a command to its end; what it wrote to its standard output.
    ///
    /// # Errors
    /// When it cannot be run, takes too long, or fails: with what minikube says that it exits for, and
    /// what to do about it.
    pub(super) async fn run(
        &self,
        doing: &'static str,
        limit: Duration,
        arguments: &[&str],
    ) -> anyhow::Result<String> {
        let step = Step::new(self.path(), doing, limit, arguments)
            .argument("--profile")
            .argument(&self.profile);
        let variables = self.variables().into_iter();
        let step = variables.fold(step, |step, (name, value)| step.variable(name, value));
        let output = step.output().await?;
        if output.exit_code != 0 {
            bail!("{doing} failed: {}", complaint::sentence(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
