//! Starting the binary, and servers that misbehave.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use strata_probe::{Listening, Spec, replies};

/// The binary, with nothing of this machine's names or identity.
pub(crate) fn probe() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata-probe"));
    command
        .env_clear()
        .env("PROBE_RESOLV_CONF", "/dev/null")
        .env("PROBE_HOSTS", "/dev/null")
        .stdin(Stdio::null());
    command
}

/// Runs a client; whatever the network did, it must succeed.
pub(crate) fn ask<S: Spec>(spec: &S) -> Vec<S::Reply> {
    ask_with(spec, &[])
}

/// The same, with an environment.
pub(crate) fn ask_with<S: Spec>(
    spec: &S,
    environment: &[(&str, &dyn AsRef<OsStr>)],
) -> Vec<S::Reply> {
    let mut command = probe();
    command.args(&spec.command()[1..]);
    for (name, value) in environment {
        command.env(name, value.as_ref());
    }
    read::<S>(&command.output().unwrap())
}

/// The one reply of a client.
pub(crate) fn ask_one<S: Spec>(spec: &S) -> S::Reply {
    let mut replies = ask(spec);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

/// What a client that succeeded wrote.
pub(crate) fn read<S: Spec>(output: &Output) -> Vec<S::Reply> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(said, "");
    replies::<S>(&String::from_utf8_lossy(&output.stdout)).unwrap()
}

/// A `serve` of our own; ends with its owner.
pub(crate) struct Server {
    child: Child,
    pub(crate) at: Listening,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut command = probe();
        command.arg("serve").args(flags).envs([
            ("POD_NAME", "web-0"),
            ("POD_NAMESPACE", "default"),
            ("NODE_NAME", "worker"),
            ("POD_IP", "10.244.1.5"),
        ]);
        Self::of(command)
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let at = serde_json::from_str(&line).unwrap();
        Self { child, at }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.at.http[0].port())
    }

    pub(crate) fn tls_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.at.tls[0].port())
    }

    pub(crate) fn tcp(&self) -> String {
        format!("127.0.0.1:{}", self.at.tcp[0].port())
    }

    pub(crate) fn udp(&self) -> String {
        format!("127.0.0.1:{}", self.at.udp[0].port())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that does one thing to one connection.
pub(crate) struct Rude {
    pub(crate) at: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Rude {
    pub(crate) fn to_one(treat: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || treat(listener.accept().unwrap().0));
        Self {
            at,
            thread: Some(thread),
        }
    }

    /// Reads the beginning of a request, says something and closes in order.
    pub(crate) fn says(text: &'static [u8]) -> Self {
        Self::to_one(move |mut stream| {
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(text).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Until the client has gone: closing with something unread would be a reset.
            let _ = stream.read_to_end(&mut Vec::new());
        })
    }

    /// Reads the beginning of a request, says something and cuts the connection.
    pub(crate) fn resets(text: &'static [u8]) -> Self {
        Self::to_one(move |mut stream| {
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(text).unwrap();
            reset(stream);
        })
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // In case nobody ever came.
            let _ = TcpStream::connect(self.at);
            let _ = thread.join();
        }
    }
}

/// Closes with an RST (SO_LINGER with zero seconds, socket(7)).
pub(crate) fn reset(stream: TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
}

/// A port of loopback that nobody listens on.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits for something that must come; a minute only bounds a test that fails.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "not yet: {what}");
        std::thread::yield_now();
    }
}
