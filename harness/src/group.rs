//! A program and whatever it starts, as one: a group of processes that ends with its owner.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// The processes of a program that was started in a group of its own (`process_group(0)`); dropped,
/// whatever is left of them ends.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// A child's, which leads it.
    pub(crate) fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly there is nobody left, which is an error that means success.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
