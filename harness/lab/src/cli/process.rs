//! The host's processes: whether one is still the one it was, its end, and what its tree uses.
//!
//! Start from [`Process`]. Rule: a process id alone means nothing, since ids are used again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use strata_lab::node::pidfd_open;

/// A process, so that no other is mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it started, in clock ticks since the machine did.
    started: u64,
    /// Which start of the machine that was.
    boot: String,
}

impl Process {
    /// The process of that id, now.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = Stat::read(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self {
            pid,
            started: stat.started,
            boot: boot(),
        })
    }

    /// This very process.
    pub(super) fn own() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    /// Its parent, if it is there.
    pub(super) fn parent(&self) -> anyhow::Result<Self> {
        let stat = Stat::read(self.pid).filter(|stat| self.is(stat));
        let stat = stat.with_context(|| format!("process {} has ended", self.pid))?;
        Self::of(stat.parent)
    }

    fn is(&self, stat: &Stat) -> bool {
        stat.started == self.started && !stat.dead && boot() == self.boot
    }

    /// Whether it has not ended.
    pub(super) fn is_there(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| self.is(&stat))
    }

    /// Its descriptor; none if it has ended.
    pub(super) fn open(&self) -> Option<Pidfd> {
        let pidfd = pidfd_open(self.pid).ok()?;
        // Only now is it sure that the id is not used again meanwhile.
        self.is_there().then_some(Pidfd(pidfd))
    }

    /// Its tree's memory; none if it has ended.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.is_there().then(|| Memory::of_tree(self.pid))
    }
}

/// A process that was there when this was made, and can be mistaken for no other.
pub(super) struct Pidfd(OwnedFd);

impl Pidfd {
    /// Sends it a signal; one that has ended is past minding.
    pub(super) fn signal(&self, signal: Signal) {
        // SAFETY: takes numbers, and no information beside the signal.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }

    /// Waits for its end, and says whether it came.
    pub(super) fn ends_within(&self, patience: Duration) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut polled, patience) {
                Err(nix::errno::Errno::EINTR) => {}
                polled => return polled.is_ok_and(|count| count > 0),
            }
        }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which start of the machine this is.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// What `/proc/PID/stat` tells (proc_pid_stat(5)).
struct Stat {
    dead: bool,
    parent: u32,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything, parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields = rest.split_whitespace().collect::<Vec<_>>();
        Some(Self {
            dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Memory of processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    /// With what is shared counted in parts, so that sums make sense.
    pub(super) pss: u64,
    pub(super) rss: u64,
    pub(super) processes: u64,
}

impl Memory {
    fn of_tree(root: u32) -> Self {
        let mut children = BTreeMap::<u32, Vec<u32>>::new();
        for pid in all().unwrap_or_default() {
            if let Some(stat) = Stat::read(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut sum = Self::default();
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            next.extend(children.remove(&pid).unwrap_or_default());
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            sum.add(&rollup.unwrap_or_default());
        }
        sum
    }

    fn add(&mut self, rollup: &str) {
        let kilobytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.pss += kilobytes("Pss:").unwrap_or_default() * 1024;
        self.rss += kilobytes("Rss:").unwrap_or_default() * 1024;
        self.processes += 1;
    }
}

fn all() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_mistaken_for_another_of_its_id() {
        let own = Process::own().unwrap();
        assert!(own.is_there());
        assert!(own.open().is_some());
        let earlier = Process {
            started: own.started - 1,
            ..own.clone()
        };
        assert!(!earlier.is_there());
        assert!(earlier.open().is_none());
        let before_the_machine_restarted = Process {
            boot: "another".to_owned(),
            ..own
        };
        assert!(!before_the_machine_restarted.is_there());
    }

    #[test]
    fn one_that_ended_is_not_there_though_nobody_waited_for_it() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        assert_eq!(process.parent().unwrap(), Process::own().unwrap());
        let pidfd = process.open().unwrap();
        assert!(!pidfd.ends_within(Duration::ZERO));
        pidfd.signal(Signal::SIGKILL);
        assert!(pidfd.ends_within(Duration::from_secs(60)));
        assert!(!process.is_there());
        child.wait().unwrap();
    }

    #[test]
    fn the_kernels_files_are_read_whatever_a_program_is_called() {
        let stat = "7 (a) Z 1 (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.dead, stat.parent, stat.started), (false, 3, 4711));
        assert!(Stat::parse("7 (a) Z 1 0").is_none());
        let mut memory = Memory::default();
        memory.add("Rss:                8 kB\nPss:                3 kB\nPss_Dirty:   1 kB\n");
        memory.add("");
        assert_eq!((memory.pss, memory.rss, memory.processes), (3072, 8192, 2));
    }
}
