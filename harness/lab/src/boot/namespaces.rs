//! The lab's namespaces, and why there may be none.
//!
//! Start from [`enter`]. An ordinary user gets a user namespace in which they are root, and with it
//! all the others. Root gets one too, with every id mapped as it is, and does without where user
//! namespaces are off. Rule: a refusal is one sentence that names who refuses, and how to allow it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork, getegid, geteuid};

use super::StartError;

/// Moves into new namespaces; the PID namespace is the next child's. Says whether the user
/// namespace is new too.
pub(super) fn enter() -> Result<bool, StartError> {
    let (uid, gid) = (geteuid(), getegid());
    let facts = Facts::read(Path::new("/"), uid.is_root());
    let refused = |error| StartError::Namespaces(facts.refusal(error));
    let own_user = match enter_user(uid, gid) {
        Ok(()) => true,
        Err(error) if !uid.is_root() => return Err(refused(error)),
        Err(_) => false,
    };
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(others).map_err(refused)?;
    Ok(own_user)
}

fn enter_user(uid: Uid, gid: Gid) -> Result<(), Errno> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    // Only who is outside may map more than one id: then files of other users stay root's to read.
    let mapper = uid.is_root().then(Mapper::start).transpose()?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    if mapper.is_some_and(|mapper| mapper.map().is_ok()) {
        return Ok(());
    }
    // A single group may only be mapped by who cannot leave groups with it (user_namespaces(7)).
    match fs::write("/proc/self/setgroups", "deny") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(errno(error)),
        _ => {}
    }
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(errno)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(errno)
}

/// A process that stays outside, and maps every id of the user namespace to itself.
struct Mapper {
    child: nix::unistd::Pid,
    go: Option<io::PipeWriter>,
}

/// One that is not told to go ends all the same, and is not left behind.
impl Drop for Mapper {
    fn drop(&mut self) {
        if self.go.take().is_some() {
            let _ = waitpid(self.child, None);
        }
    }
}

impl Mapper {
    fn start() -> Result<Self, Errno> {
        let (mut wait, go) = io::pipe().map_err(|_| Errno::last())?;
        let parent = std::process::id();
        // SAFETY: there is one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self {
                child,
                go: Some(go),
            }),
            ForkResult::Child => {
                drop(go);
                let mapped = wait.read_exact(&mut [0]).and_then(|()| {
                    for map in ["uid_map", "gid_map"] {
                        let own = fs::read_to_string(format!("/proc/self/{map}"))?;
                        fs::write(format!("/proc/{parent}/{map}"), identity(&own))?;
                    }
                    Ok(())
                });
                std::process::exit(i32::from(mapped.is_err()));
            }
        }
    }

    fn map(mut self) -> Result<(), Errno> {
        if let Some(mut go) = self.go.take() {
            // One that has ended has not mapped anything, and that is what counts.
            let _ = go.write_all(b"+");
        }
        match waitpid(self.child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }
}

/// A map of the same ids onto themselves: what is inside one namespace is outside of the next.
fn identity(map: &str) -> String {
    let mut lines = String::new();
    for line in map.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(inside), Some(count)) = (fields.next(), fields.nth(1)) {
            lines.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    lines
}

/// What decides about namespaces.
#[derive(Debug, Clone, Default)]
struct Facts {
    root: bool,
    /// `kernel.unprivileged_userns_clone`, of Debian's kernels.
    unprivileged_clone: Option<u64>,
    /// `user.max_user_namespaces`.
    maximum: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu's kernels.
    apparmor: Option<u64>,
    /// Whether a seccomp filter applies to this process.
    seccomp: bool,
    /// Whether this is a container of Docker's or Podman's.
    container: bool,
}

/// How a container has to be started so that the lab can run in it.
const CONTAINER_OPTIONS: &str = "start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined` or with `--privileged`";

impl Facts {
    fn read(root: &Path, is_root: bool) -> Self {
        let number = |path: &str| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            text.trim().parse().ok()
        };
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let seccomp = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"));
        let marks = [".dockerenv", "run/.containerenv"];
        Self {
            root: is_root,
            unprivileged_clone: number("proc/sys/kernel/unprivileged_userns_clone"),
            maximum: number("proc/sys/user/max_user_namespaces"),
            apparmor: number("proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            seccomp: seccomp.is_some_and(|mode| mode.trim() != "0"),
            container: marks.iter().any(|mark| root.join(mark).exists()),
        }
    }

    /// Who refused, and how to allow it.
    fn refusal(&self, error: Errno) -> String {
        let set = |variable: &str, is: u32, wanted: u32| {
            format!(
                "{variable} is {is}: set it with `sudo sysctl -w {variable}={wanted}`, or run as root"
            )
        };
        let because = if !self.root && self.unprivileged_clone == Some(0) {
            set("kernel.unprivileged_userns_clone", 0, 1)
        } else if !self.root && self.maximum == Some(0) {
            set("user.max_user_namespaces", 0, 15000)
        } else if error == Errno::ENOSPC {
            "as many are in use as the sysctls `user.max_*_namespaces` allow, or they are nested too deep: end what uses them, or raise the sysctls".to_owned()
        } else if self.container || (self.seccomp && self.apparmor != Some(1)) {
            let who = if self.seccomp {
                "a seccomp filter forbids it"
            } else {
                "it lacks CAP_SYS_ADMIN"
            };
            format!("{who}, as in an ordinary container: {CONTAINER_OPTIONS}")
        } else if !self.root && self.apparmor == Some(1) {
            set("kernel.apparmor_restrict_unprivileged_userns", 1, 0)
        } else if self.root {
            format!("the kernel says {error}: root lacks CAP_SYS_ADMIN here")
        } else {
            format!("the kernel says {error}: allow it user namespaces, or run as root")
        };
        format!("this process may not make the namespaces that the lab runs in, because {because}")
    }
}

/// Why `/proc` could not be mounted, and how to allow it.
pub(super) fn no_proc(error: Errno) -> String {
    match error {
        // mount_namespaces(7): not while parts of the one that is there are hidden.
        Errno::EPERM => format!(
            "the lab may not mount its own /proc, because parts of this one are masked, as in an ordinary container: {CONTAINER_OPTIONS}"
        ),
        error => format!("the lab cannot mount its own /proc: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            maximum: Some(96365),
            ..Facts::default()
        }
    }

    #[test]
    fn a_refusal_names_who_refuses_and_the_remedy() {
        let cases = [
            (
                Facts {
                    unprivileged_clone: Some(0),
                    ..facts()
                },
                Errno::EPERM,
                "kernel.unprivileged_userns_clone is 0: set it with `sudo sysctl -w kernel.unprivileged_userns_clone=1`",
            ),
            (
                Facts {
                    maximum: Some(0),
                    ..facts()
                },
                Errno::ENOSPC,
                "user.max_user_namespaces is 0: set it with `sudo sysctl -w user.max_user_namespaces=15000`",
            ),
            (
                Facts {
                    apparmor: Some(1),
                    ..facts()
                },
                Errno::EACCES,
                "kernel.apparmor_restrict_unprivileged_userns is 1: set it with `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
            ),
            (
                // A service's own filter is not what refuses on Ubuntu.
                Facts {
                    apparmor: Some(1),
                    seccomp: true,
                    ..facts()
                },
                Errno::EPERM,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
            ),
            (
                Facts {
                    apparmor: Some(1),
                    seccomp: true,
                    container: true,
                    ..facts()
                },
                Errno::EPERM,
                "a seccomp filter forbids it, as in an ordinary container: start the container with",
            ),
            (
                Facts {
                    root: true,
                    container: true,
                    ..facts()
                },
                Errno::EPERM,
                "it lacks CAP_SYS_ADMIN, as in an ordinary container",
            ),
            (facts(), Errno::ENOSPC, "as many are in use as"),
            (facts(), Errno::EPERM, "the kernel says EPERM"),
        ];
        for (facts, error, expected) in cases {
            let said = facts.refusal(error);
            assert!(said.contains(expected), "{facts:?}: {said}");
        }
    }

    #[test]
    fn facts_are_read_where_the_kernel_has_them() {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [
            (
                "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
            ),
            ("proc/sys/user/max_user_namespaces", "7\n"),
            (
                "proc/self/status",
                "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
            ),
            ("run/.containerenv", ""),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let facts = Facts::read(root.path(), false);
        assert_eq!(facts.apparmor, Some(1));
        assert_eq!(facts.maximum, Some(7));
        assert_eq!(facts.unprivileged_clone, None);
        assert!(facts.seccomp && facts.container);
    }

    #[test]
    fn root_keeps_every_id_it_has() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(identity(whole), "0 0 4294967295\n");
        let nested = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(nested), "0 0 1\n1 1 65536\n");
    }
}
