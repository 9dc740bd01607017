//! The vantage outside: the probe as a process of this machine, from memory, so that no file is left.
//!
//! Start from [`sees`]. The probe is a program for Linux, as pods are, so on other systems no cluster has this vantage.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;

use super::step::Step;
use super::{Output, Outside, PrivateFile, image, reach};

/// Above the probe's own limit.
const RUN: Duration = Duration::from_secs(80);

/// Whether this machine runs the probe, and reaches every node; or why it is no vantage.
pub(super) async fn sees(nodes: &[Node]) -> Result<(), String> {
    runs_the_probe()?;
    reach::nodes(nodes).await
}

/// Whether it does, on this system.
pub(super) fn runs_the_probe() -> Result<(), String> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => Err(format!(
            "the probe is a program for Linux, and this machine runs {}",
            std::env::consts::OS
        )),
    }
}

/// This machine.
#[derive(Debug)]
pub(super) struct ThisMachine(PrivateFile);

impl ThisMachine {
    /// Holds the probe ready.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(PrivateFile::new("strata-probe", image::binary())?))
    }
}

#[async_trait]
impl Outside for ThisMachine {
    async fn run(&self, command: &[String], stdin: &[u8]) -> anyhow::Result<Output> {
        let program = self.0.path();
        // The first word is the probe's path in its image.
        let arguments = command.get(1..).context("there is no command")?;
        let step = Step::new(&program, "running the probe on this machine", RUN, &[]);
        let step = arguments.iter().fold(step, Step::argument);
        step.input(stdin).output().await
    }
}

#[cfg(test)]
mod tests {
    use strata_probe::{Spec as _, TcpSpec};

    use super::*;

    #[tokio::test]
    #[cfg_attr(not(target_os = "linux"), ignore = "the probe is a program for Linux")]
    async fn requests_start_from_here() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let spec = TcpSpec {
            connect_only: true,
            ..TcpSpec::new(listener.local_addr().unwrap().to_string())
        };
        let here = ThisMachine::new().unwrap();
        let output = here.run(&spec.command(), b"").await.unwrap();
        assert_eq!(output.exit_code, 0, "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let replies = strata_probe::replies::<TcpSpec>(&said).unwrap();
        assert!(replies[0].error.is_none(), "{said}");
        listener.accept().unwrap();
    }
}
