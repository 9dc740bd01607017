//! `completion`: what a shell needs to complete commands and options.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(super) struct Completion {
    /// The shell; as in `source <(strata-lab completion bash)`.
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        let mut command = super::Arguments::command();
        clap_complete::generate(self.shell, &mut command, "strata-lab", &mut script);
        // Written here rather than by `generate`, which panics when nobody reads on.
        Ok(std::io::stdout().write_all(&script)?)
    }
}
