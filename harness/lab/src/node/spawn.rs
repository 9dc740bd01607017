//! Starting the stages: the lab's own program again, under another name.
//!
//! Start from [`Stage`]. Every child is started by one thread that lives as long as the process,
//! for two reasons: a parent-death signal follows the thread that made the child, and a thread can
//! be told which PID namespace its children are born into. Nothing here forks without `exec`. Rule:
//! a stage has either become its command when [`Stage::start`] returns, or the error says why not.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{OnceLock, mpsc};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The PID namespace a child is born into.
pub(super) enum PidNamespace {
    /// The lab's own.
    Lab,
    /// A new one, whose first process the child is.
    New,
    /// That of a running container.
    Of(File),
}

struct Request {
    command: Command,
    namespace: PidNamespace,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// A stage about to be started.
pub(super) struct Stage {
    /// Its arguments and standard streams are the caller's to set.
    pub(super) command: Command,
    receiver: pipe::Receiver,
    sender: pipe::Sender,
}

impl Stage {
    /// Stage `name` of this very program, with an empty environment.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let (sender, receiver) = pipe::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(name)
            .env_clear()
            // A stage needs next to no memory, and its allocator would have that in huge pages: 4 MiB for
            // every sandbox, as long as its pod is there.
            .env("MIMALLOC_ALLOW_THP", "0")
            .kill_on_drop(true)
            // The stage opens the pipe by this path: an inherited descriptor would be inherited by
            // whatever else is being started at that moment too.
            .arg(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                sender.as_raw_fd()
            ));
        Ok(Self {
            command,
            receiver,
            sender,
        })
    }

    /// Adds an argument.
    pub(super) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Starts it and waits until it is what it is to be.
    ///
    /// # Errors
    /// With the stage's own words when it could not.
    pub(super) async fn start(self, namespace: PidNamespace) -> io::Result<Started> {
        let Self {
            command,
            mut receiver,
            sender,
        } = self;
        let mut child = spawn(command, namespace).await?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the stage ended at once"))?;
        // Its end is watched without reaping it: that is for whom the child is handed to.
        let pidfd = pidfd_open(pid)?;
        // SAFETY: an OwnedFd is open, and the same descriptor, for as long as it lives.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        let mut opened = [0; 1];
        tokio::select! {
            biased;
            read = receiver.read_exact(&mut opened) => { read?; }
            _ = pidfd.readable() => if !matches!(receiver.try_read(&mut opened), Ok(1)) {
                // Only a stage that never came to its first statement ends without a word.
                return Err(io::Error::other(format!("the stage ended at once: {}", child.wait().await?)));
            }
        }
        // From here on the stage holds the only writing end.
        drop(sender);
        let mut said = String::new();
        receiver.read_to_string(&mut said).await?;
        if said.is_empty() {
            let pidfd = pidfd.into_inner();
            return Ok(Started { child, pid, pidfd });
        }
        child.wait().await?;
        Err(io::Error::other(said))
    }
}

/// A stage that is what it was to be.
pub(super) struct Started {
    /// The process; dropping it kills it.
    pub(super) child: Child,
    /// Its id, as the lab sees it.
    pub(super) pid: u32,
    /// Its descriptor, which means no other process ever.
    pub(super) pidfd: OwnedFd,
}

/// A descriptor of a process, which means no other process ever.
///
/// # Errors
/// When there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; the result is checked before it is taken for a descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0);
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

async fn spawn(command: Command, namespace: PidNamespace) -> io::Result<Child> {
    static SPAWNER: OnceLock<io::Result<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::Builder::new()
                .name("spawner".to_owned())
                .spawn(move || serve(&receiver))?;
            Ok(sender)
        })
        .as_ref()
        .map_err(|error| io::Error::other(format!("the spawner thread: {error}")))?;
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("the spawner thread has ended");
    spawner
        .send(Request {
            command,
            namespace,
            runtime: Handle::current(),
            reply,
        })
        .map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn serve(requests: &mpsc::Receiver<Request>) {
    while let Ok(mut request) = requests.recv() {
        let _entered = request.runtime.enter();
        let spawned = spawn_in(&mut request.command, &request.namespace);
        // Nobody waiting any more: dropping the child ends it.
        let _ = request.reply.send(spawned);
    }
}

fn spawn_in(command: &mut Command, namespace: &PidNamespace) -> io::Result<Child> {
    match namespace {
        PidNamespace::Lab => return command.spawn(),
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Of(namespace) => setns(namespace, CloneFlags::CLONE_NEWPID)?,
    }
    let spawned = command.spawn();
    setns(
        File::open("/proc/thread-self/ns/pid")?,
        CloneFlags::CLONE_NEWPID,
    )?;
    spawned
}
