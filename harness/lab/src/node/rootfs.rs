//! A container's root file system, made from within its stage.
//!
//! Start from [`enter`]. The image is the lower layer of an overlay, where the kernel allows one,
//! and is copied where not; mounts are cloned before the old root goes and attached after, so that
//! an image's symbolic links only ever lead around in the image. Rule: everything mounted here is
//! in the container's own mount namespace, and goes with its last process.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// What the kubelet writes down for a container's stages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerFile {
    /// The process that holds the pod's namespaces.
    pub sandbox: u32,
    /// The image's files.
    pub lower: PathBuf,
    /// An empty directory of the container's: its own files, and where its root is mounted.
    pub directory: PathBuf,
    /// What is mounted into it, in this order.
    pub binds: Vec<Bind>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory; empty for the root.
    pub cwd: String,
    /// The entrypoint and its arguments.
    pub command: Vec<String>,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// The capabilities it keeps; all of the lab's if none are named.
    pub capabilities: Option<Vec<u8>>,
    /// Whether it may never gain privileges.
    pub no_new_privileges: bool,
    /// Whether its standard streams are a terminal.
    pub tty: bool,
}

/// A file or directory mounted into a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    /// Where the lab has it.
    pub source: PathBuf,
    /// Where the container has it.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl ContainerFile {
    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes it into the container's directory and says where.
    pub(super) fn write(&self) -> io::Result<PathBuf> {
        for name in ["upper", "work", "root"] {
            fs::create_dir_all(self.directory.join(name))?;
        }
        let path = self.directory.join("container.json");
        fs::write(&path, serde_json::to_vec(self)?)?;
        Ok(path)
    }

    /// The file that the first word of a command names, inside the container.
    pub(super) fn program(&self, command: &[CString]) -> Result<CString, String> {
        let name = command.first().map_or(c"", CString::as_c_str);
        let text = name.to_string_lossy();
        if text.is_empty() {
            return Err("no command specified".to_owned());
        }
        if text.contains('/') {
            return match fs::metadata(&*text) {
                Ok(_) => Ok(name.to_owned()),
                Err(error) => Err(format!("exec: \"{text}\": stat {text}: {}", plain(&error))),
            };
        }
        let path = self.env.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value);
        path.split(':')
            .map(|directory| Path::new(directory).join(&*text))
            .find(|file| {
                fs::metadata(file)
                    .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
            })
            .and_then(|file| CString::new(file.as_os_str().as_bytes()).ok())
            .ok_or_else(|| format!("exec: \"{text}\": executable file not found in $PATH"))
    }
}

/// PATH where neither the image nor the pod has one.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The error's own words without Rust's `(os error 2)`, as other runtimes print it.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Moves the calling process into the container's root file system.
pub(super) fn enter(file: &ContainerFile) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("mount namespace: {error}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| format!("cannot make mounts private: {error}"))?;
    let devices = DEVICES
        .iter()
        .filter_map(|name| Tree::clone_of(Path::new("/dev").join(name).as_path(), false).ok())
        .zip(DEVICES)
        .collect::<Vec<_>>();
    let binds = file
        .binds
        .iter()
        .map(|bind| Tree::clone_of(&bind.source, bind.read_only))
        .collect::<Result<Vec<_>, _>>()?;

    let root = file.directory.join("root");
    mount_root(file, &root)?;
    nix::unistd::chdir(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    // The old root ends up mounted over the new one, which `/` does not see and `.` does.
    nix::unistd::pivot_root(".", ".").map_err(|error| format!("pivot_root: {error}"))?;

    mount_kernel_file_systems(&devices)?;
    for (tree, bind) in binds.iter().zip(&file.binds) {
        tree.attach(&bind.target)
            .map_err(|error| format!("cannot mount at {}: {error}", bind.target))?;
    }
    umount2(".", MntFlags::MNT_DETACH).map_err(|error| format!("the old root: {error}"))?;
    nix::unistd::chdir("/").map_err(|error| format!("/: {error}"))?;
    if !file.cwd.is_empty() {
        // As runc does; a read-only image says so when the directory is entered.
        let _ = fs::create_dir_all(&file.cwd);
    }
    if file.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .map_err(|error| format!("cannot make the root read-only: {error}"))?;
    }
    Ok(())
}

fn mount_root(file: &ContainerFile, root: &Path) -> Result<(), String> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        file.lower.display(),
        file.directory.join("upper").display(),
        file.directory.join("work").display(),
    );
    for options in [format!("{options},userxattr"), options] {
        let flags = MsFlags::empty();
        if mount(
            Some("overlay"),
            root,
            Some("overlay"),
            flags,
            Some(&*options),
        )
        .is_ok()
        {
            return Ok(());
        }
    }
    // Not in a user namespace before Linux 5.11, nor on some file systems.
    copy(&file.lower, root)
        .map_err(|error| format!("cannot copy the image to {}: {error}", root.display()))?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(root), root, None::<&str>, bind, None::<&str>)
        .map_err(|error| format!("{}: {error}", root.display()))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

fn mount_kernel_file_systems(devices: &[(Tree, &str)]) -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let make = |path: &str| fs::create_dir_all(path).map_err(|error| format!("{path}: {error}"));
    let new = |kind: &str, path: &str, flags: MsFlags, options: Option<&str>| {
        mount(Some(kind), path, Some(kind), flags, options)
            .map_err(|error| format!("cannot mount {kind} at {path}: {error}"))
    };
    make("/proc")?;
    new("proc", "/proc", quiet, None)?;
    make("/sys")?;
    // A container of another engine around the lab may hide parts of sysfs; then there is none.
    let _ = new("sysfs", "/sys", quiet | MsFlags::MS_RDONLY, None);
    make("/dev")?;
    let tmpfs = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
    new("tmpfs", "/dev", tmpfs, Some("mode=755,size=65536k"))?;
    for (tree, name) in devices {
        tree.attach(&format!("/dev/{name}"))
            .map_err(|error| format!("/dev/{name}: {error}"))?;
    }
    make("/dev/pts")?;
    let secret = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    new("devpts", "/dev/pts", secret, options)?;
    make("/dev/shm")?;
    new("tmpfs", "/dev/shm", quiet, Some("mode=1777,size=65536k"))?;
    for (target, link) in [
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        std::os::unix::fs::symlink(target, link).map_err(|error| format!("{link}: {error}"))?;
    }
    Ok(())
}

/// A mount that is nowhere yet.
struct Tree {
    mount: OwnedFd,
    directory: bool,
}

impl Tree {
    fn clone_of(source: &Path, read_only: bool) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot mount {}: {error}", source.display());
        let directory = fs::metadata(source).map_err(failed)?.is_dir();
        let path = CString::new(source.as_os_str().as_bytes())
            .map_err(|error| format!("{}: {error}", source.display()))?;
        let mut flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
        if directory {
            flags |= AT_RECURSIVE;
        }
        // SAFETY: the path is a C string; the result is checked before it is taken for a descriptor.
        let mount = unsafe {
            let fd = libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::c_ulong::from(flags),
            );
            OwnedFd::from_raw_fd(checked(fd).map_err(failed)?)
        };
        if read_only {
            let attributes = libc::mount_attr {
                attr_set: libc::MOUNT_ATTR_RDONLY,
                attr_clr: 0,
                propagation: 0,
                userns_fd: 0,
            };
            // SAFETY: the structure outlives the call, which is given its size.
            let set = unsafe {
                libc::syscall(
                    libc::SYS_mount_setattr,
                    mount.as_raw_fd(),
                    c"".as_ptr(),
                    libc::c_ulong::from(libc::AT_EMPTY_PATH.unsigned_abs()),
                    &raw const attributes,
                    size_of::<libc::mount_attr>(),
                )
            };
            checked(set).map_err(failed)?;
        }
        Ok(Self { mount, directory })
    }

    fn attach(&self, target: &str) -> io::Result<()> {
        let path = Path::new(target);
        if self.directory {
            fs::create_dir_all(path)?;
        } else if !path.exists() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            File::create(path)?;
        }
        let path = CString::new(target)?;
        let empty: &CStr = c"";
        // SAFETY: both paths are C strings.
        let moved = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.mount.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::c_ulong::from(libc::MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS),
            )
        };
        checked(moved).map(drop)
    }
}

/// `MOVE_MOUNT_T_SYMLINKS` of `linux/mount.h`: follow links in the target, as `mount` does.
const MOVE_MOUNT_T_SYMLINKS: libc::c_uint = 0x10;

/// `AT_RECURSIVE` of `linux/fcntl.h`.
const AT_RECURSIVE: libc::c_uint = 0x8000;

fn checked(result: libc::c_long) -> io::Result<i32> {
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}
