//! A network namespace, held open.
//!
//! Start from [`NetNs::of_pid`]. A socket belongs for life to the namespace it was made in, so the
//! work done inside is making one; using it needs no thread there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;

use nix::sched::{CloneFlags, setns};

/// A network namespace. Clones share it; the kernel keeps it while one is held.
#[derive(Debug, Clone)]
pub struct NetNs(Arc<File>);

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl NetNs {
    /// The namespace of a process.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn of_pid(pid: u32) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(format!("/proc/{pid}/ns/net"))?)))
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/net")?)))
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. The work should be
    /// short: opening a socket, writing a sysctl.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` fails or panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    // Entering takes a privilege, even where one is already.
                    if !self.is_current()? {
                        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                    }
                    work()
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the work inside the namespace panicked")))
        })
    }

    fn is_current(&self) -> io::Result<bool> {
        let current = std::fs::metadata("/proc/thread-self/ns/net")?;
        let this = self.0.metadata()?;
        Ok((this.dev(), this.ino()) == (current.dev(), current.ino()))
    }

    /// A listening TCP socket inside the namespace, non-blocking.
    ///
    /// # Errors
    /// When the address is taken or not of this namespace.
    pub fn tcp_listener(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        self.run(|| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// A bound UDP socket inside the namespace, non-blocking.
    ///
    /// # Errors
    /// When the address is taken or not of this namespace.
    pub fn udp_socket(&self, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
        self.run(|| {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
    }

    /// Starts a program inside the namespace. A child is born into the namespace of the thread that
    /// makes it; entering it between fork and exec instead would have every start copy the page
    /// tables of the whole lab.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the program cannot be started.
    pub fn spawn(
        &self,
        command: &mut tokio::process::Command,
    ) -> io::Result<tokio::process::Child> {
        let runtime = tokio::runtime::Handle::current();
        self.run(|| {
            let _entered = runtime.enter();
            command.spawn()
        })
    }

    /// A netlink connection of this namespace; its task ends when the handle is dropped.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn netlink(&self) -> io::Result<rtnetlink::Handle> {
        let runtime = tokio::runtime::Handle::current();
        self.run(|| {
            let _entered = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            Ok(handle)
        })
    }
}

/// The unspecified address with a port: every address of a namespace, of either family where the
/// kernel has both.
#[must_use]
pub fn any(port: u16) -> SocketAddr {
    static V6: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/sys/net/ipv6").exists());
    if *V6 {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    }
}
