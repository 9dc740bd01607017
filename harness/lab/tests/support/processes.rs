//! Processes as the host sees them: whose child, whether gone, whether marked.

#![allow(dead_code, reason = "each program of tests uses some of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Long enough for any end; only a process that never ends waits so long.
const HANG: i32 = 60_000;

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The parent of a process that is there.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// A process and all its descendants, held by descriptors that mean no other process ever.
pub(crate) struct Tree(Vec<(String, OwnedFd)>);

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        let mut children = BTreeMap::<u32, Vec<u32>>::new();
        for pid in all() {
            children
                .entry(parent(pid).unwrap_or(0))
                .or_default()
                .push(pid);
        }
        let mut found = Vec::new();
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            next.extend(children.get(&pid).into_iter().flatten());
            // SAFETY: takes numbers; the result is checked before it is taken for a descriptor.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
            if fd >= 0 {
                let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) };
                found.push((format!("{pid} {}", command(pid)), fd));
            }
        }
        Self(found)
    }

    /// How many processes there were, by a word in their command line.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.0
            .iter()
            .filter(|(name, _)| name.contains(word))
            .count()
    }

    /// Waits until every one of them has ended.
    pub(crate) fn wait(&self) {
        for (name, process) in &self.0 {
            assert!(ended(process, HANG), "still there: {name}");
        }
    }

    /// Waits until those have ended that have the word in their command line.
    pub(crate) fn wait_for(&self, word: &str) {
        for (name, process) in self.0.iter().filter(|(name, _)| name.contains(word)) {
            assert!(ended(process, HANG), "still there: {name}");
        }
    }

    /// Fails unless every one of them has ended already.
    pub(crate) fn assert_ended(&self) {
        for (name, process) in &self.0 {
            assert!(ended(process, 0), "still there: {name}");
        }
    }
}

fn ended(process: &OwnedFd, milliseconds: i32) -> bool {
    let mut polled = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the structure outlives the call.
    unsafe { libc::poll(&raw mut polled, 1, milliseconds) == 1 }
}

fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The processes whose program or command line has the mark.
pub(crate) fn marked(mark: &str) -> Vec<String> {
    let is_marked = |pid: &u32| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.to_string_lossy().contains(mark) || command(*pid).contains(mark)
    };
    all()
        .into_iter()
        .filter(is_marked)
        .map(|pid| format!("{pid} {}", command(pid)))
        .collect()
}

/// Whether anything of the lab's is mounted where we are.
pub(crate) fn assert_no_mount() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let leaked = mounts.lines().find(|line| line.contains("strata-lab"));
    assert_eq!(leaked, None);
}

/// Sends a signal to a process, or to a group if negative.
pub(crate) fn signal(pid: i64, signal: i32) {
    // SAFETY: takes numbers only.
    let sent = unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}
