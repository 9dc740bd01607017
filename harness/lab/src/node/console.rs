//! The standard streams of a running container, as its log and those who attach to it see them.
//!
//! Start from [`Console::of`]; [`Console::copy`] is the work of it. Whoever is attached gets what
//! the container writes as it writes it, and makes it wait by not reading, as with containerd.
//! Rule: nobody who has gone away is waited for, and nobody attached outlives the container.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::process::Streams;
use super::terminal::Terminal;
use crate::api::kubelet::ProcessStreams;

/// What of an output waits for one who is attached.
const BEHIND: usize = 64 << 10;
/// What is read of a container's output at once.
const PIECE: usize = 8 << 10;

/// One output of a container, as far as anybody else than the log reads it.
#[derive(Default)]
struct Tap(Mutex<Listeners>);

#[derive(Default)]
struct Listeners {
    pipes: Vec<DuplexStream>,
    closed: bool,
}

impl Tap {
    fn with<T>(&self, work: impl FnOnce(&mut Listeners) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is written from now on, to the end of the output.
    fn listen(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BEHIND);
        self.with(|listeners| {
            if !listeners.closed {
                listeners.pipes.push(ours);
            }
        });
        theirs
    }

    async fn write(&self, data: &[u8]) {
        let pipes = self.with(|listeners| std::mem::take(&mut listeners.pipes));
        let mut there = Vec::new();
        for mut pipe in pipes {
            if pipe.write_all(data).await.is_ok() {
                there.push(pipe);
            }
        }
        // Those who came meanwhile come after what was being written.
        self.with(|listeners| listeners.pipes.append(&mut there));
    }

    fn close(&self) {
        self.with(|listeners| {
            listeners.closed = true;
            listeners.pipes.clear();
        });
    }
}

/// How a container takes its standard input, as its specification says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// Whether there is any.
    pub(super) open: bool,
    /// Whether it ends with the first one who is attached to it.
    pub(super) once: bool,
}

type Stdin = Arc<tokio::sync::Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>>;

/// The streams of a container.
pub(super) struct Console {
    log: Arc<Log>,
    stdout: Tap,
    stderr: Tap,
    stdin: Option<Stdin>,
    once: bool,
    terminal: Option<Terminal>,
    ended: CancellationToken,
}

/// What a container writes, to be copied.
pub(super) struct Outputs {
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Console {
    /// The console of a process that has just started, and what is to be copied to it.
    ///
    /// # Errors
    /// When its terminal cannot be used.
    pub(super) fn of(streams: Streams, input: Input, log: Arc<Log>) -> io::Result<(Self, Outputs)> {
        let terminal = streams.terminal.map(Terminal::new).transpose()?;
        let stdin = match &terminal {
            Some(terminal) => Some(Box::new(terminal.clone()) as Box<_>),
            None => streams.stdin.map(|pipe| Box::new(pipe) as Box<_>),
        };
        let stdin = stdin.filter(|_| input.open);
        let outputs = match &terminal {
            Some(terminal) => Outputs {
                stdout: Some(Box::new(terminal.clone())),
                stderr: None,
            },
            None => Outputs {
                stdout: streams.stdout.map(|pipe| Box::new(pipe) as _),
                stderr: streams.stderr.map(|pipe| Box::new(pipe) as _),
            },
        };
        let console = Self {
            log,
            stdout: Tap::default(),
            stderr: Tap::default(),
            stdin: stdin.map(|stdin| Arc::new(tokio::sync::Mutex::new(Some(stdin)))),
            // A terminal cannot end one way only.
            once: input.once && terminal.is_none(),
            terminal,
            ended: CancellationToken::new(),
        };
        Ok((console, outputs))
    }

    /// Copies what the container writes, until it writes no more.
    pub(super) async fn copy(&self, outputs: Outputs) {
        let Outputs { stdout, stderr } = outputs;
        tokio::join!(
            self.copy_one(stdout, &self.stdout),
            self.copy_one(stderr, &self.stderr)
        );
        self.log.close();
        self.ended.cancel();
    }

    async fn copy_one(&self, from: Option<impl AsyncRead + Unpin>, tap: &Tap) {
        if let Some(mut from) = from {
            let mut lines = self.log.lines();
            let mut buffer = vec![0; PIECE];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let data = buffer.get(..read).unwrap_or_default();
                lines.put(data);
                tap.write(data).await;
            }
        }
        tap.close();
    }

    /// Joins the container; none if it writes no more.
    pub(super) fn attach(&self, stdin: bool) -> Option<ProcessStreams> {
        if self.ended.is_cancelled() {
            return None;
        }
        let detach = CancellationToken::new();
        let output = |tap: &Tap| {
            let read = ReaderStream::new(tap.listen());
            let read = read.take_until(detach.clone().cancelled_owned().boxed());
            Box::new(StreamReader::new(read)) as Box<dyn AsyncRead + Send + Unpin>
        };
        let (stdout, stderr) = (
            output(&self.stdout),
            self.terminal.is_none().then(|| output(&self.stderr)),
        );
        let input = self.stdin.clone().filter(|_| stdin);
        let (given, taken) = input
            .map(|stdin| (tokio::io::duplex(PIECE), stdin))
            .map_or((None, None), |((given, taken), stdin)| {
                (Some(given), Some((taken, stdin)))
            });
        let once = self.once;
        let feed = async move {
            if let Some((taken, stdin)) = taken {
                feed(taken, &stdin, once).await;
                // Otherwise the container's end is waited for.
                if !once {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let (sizes, terminal) = (mpsc::channel::<(u16, u16)>(4), self.terminal.clone());
        let (resize, mut sizes) = sizes;
        let resize = terminal.is_some().then_some(resize);
        let resized = async move {
            while let (Some((columns, rows)), Some(terminal)) = (sizes.recv().await, &terminal) {
                terminal.resize(columns, rows);
            }
            std::future::pending::<()>().await;
        };
        let ended = self.ended.clone();
        Some(ProcessStreams {
            stdin: given.map(|pipe| Box::new(pipe) as _),
            stdout,
            stderr,
            resize,
            exit: Box::pin(async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = feed => detach.cancel(),
                    () = resized => {}
                }
                Ok(0)
            }),
        })
    }
}

/// Passes on what one who is attached sends; those after each other, not in each other's words.
async fn feed(mut from: DuplexStream, stdin: &Stdin, once: bool) {
    let mut buffer = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let data = buffer.get(..read).unwrap_or_default();
        let mut stdin = stdin.lock().await;
        let Some(pipe) = stdin.as_mut() else {
            return;
        };
        if pipe.write_all(data).await.is_err() || pipe.flush().await.is_err() {
            // It reads no more.
            *stdin = None;
            return;
        }
    }
    if once {
        *stdin.lock().await = None;
    }
}

#[cfg(test)]
mod tests;
