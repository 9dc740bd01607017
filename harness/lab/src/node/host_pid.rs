//! By which id the host knows one of the lab's processes.
//!
//! Start from [`HostPids::of`]. The lab is in a PID namespace of its own, so its ids mean nothing to
//! `nsenter` outside. A `/proc` tells ids as its own PID namespace numbers them, even to a reader
//! in another one: the lab keeps a descriptor of the host's, from before it mounted its own.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::spawn::pidfd_open;

/// The host's ids of the lab's processes; the default knows none.
#[derive(Debug, Clone, Default)]
pub struct HostPids(Option<Arc<OwnedFd>>);

impl HostPids {
    /// The ids as this `/proc`, an open directory, tells them.
    #[must_use]
    pub fn new(proc: OwnedFd) -> Self {
        Self(Some(Arc::new(proc)))
    }

    /// The host's id of a process; none if it is gone, or the host is not known.
    #[must_use]
    pub fn of(&self, pid: u32) -> Option<u32> {
        let process = pidfd_open(pid).ok()?;
        let info = fs::read_to_string(self.path(&format!("self/fdinfo/{}", process.as_raw_fd()))?);
        parse(&info.ok()?)
    }

    /// The host's id of this very process.
    #[must_use]
    pub fn own(&self) -> Option<u32> {
        fs::read_link(self.path("self")?)
            .ok()?
            .to_str()?
            .parse()
            .ok()
    }

    fn path(&self, path: &str) -> Option<String> {
        let proc = self.0.as_ref()?;
        Some(format!("/proc/self/fd/{}/{path}", proc.as_raw_fd()))
    }
}

/// The line `Pid:` of a pidfd; 0 and -1 mean a process that is not of that namespace, or gone.
fn parse(info: &str) -> Option<u32> {
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_tells_its_process() {
        let info =
            |pid: &str| format!("pos:\t0\nflags:\t02000002\nPid:\t{pid}\nNSpid:\t{pid}\t7\n");
        assert_eq!(parse(&info("4711")), Some(4711));
        assert_eq!(parse(&info("0")), None);
        assert_eq!(parse(&info("-1")), None);
        assert_eq!(parse("pos:\t0\n"), None);
    }

    #[test]
    fn without_another_namespace_ids_are_the_same() {
        let proc = fs::File::open("/proc").unwrap();
        let pids = HostPids::new(proc.into());
        let own = std::process::id();
        assert_eq!(pids.of(own), Some(own));
        assert_eq!(pids.own(), Some(own));
        assert_eq!(HostPids::default().of(own), None);
    }
}
