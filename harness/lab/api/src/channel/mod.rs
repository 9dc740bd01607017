//! The streams between a client and what is behind a subresource: channels, told apart by labels.
//!
//! Start from [`Upgrade::of`]. A subresource names the protocols that it speaks and serves a
//! [`Session`], from which it takes a [`Channel`] whenever the client opens one; whether that came
//! by SPDY, WebSocket, or SPDY inside a WebSocket, it does not know. Rule: nothing on its way is
//! unbounded: who writes waits for who reads, in both directions.
//!
//! ```text
//! Upgrade ──► {websocket, spdy} ──► Session ──► Channel: labels, input, output
//!                   tunnel ──► spdy
//! ```

mod output;
pub(crate) mod spdy;
mod tunnel;
mod upgrade;
mod websocket;

use std::io;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve::Peer;

pub(crate) use self::output::Output;
pub(crate) use self::upgrade::{Protocols, Upgrade};

/// What of a channel's input is kept while nobody reads it: the window of a SPDY stream that says
/// nothing else (SPDY/3, 2.6.8).
const INPUT: usize = 64 << 10;
/// How many pieces of output wait for a client that does not read, over all channels of a session.
const OUTPUT: usize = 16;
/// How long a client has to close a connection that is over.
const LINGER: Duration = Duration::from_secs(1);

/// What a client says of a channel when it opens it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Vec<(String, String)>);

impl Labels {
    /// Labels from their names, in lower case, and values.
    pub(crate) fn new<'a>(labels: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let labels = labels.into_iter();
        Self(
            labels
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// A label's value; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        let mut all = self.0.iter();
        all.find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }
}

/// A channel of a WebSocket protocol, where numbers stand for channels that are there from the first.
pub(crate) struct Numbered {
    /// What a client would have said of it.
    pub(crate) labels: Labels,
    /// What the server says on it first.
    pub(crate) greeting: Bytes,
}

/// One stream of bytes from a client, and one to it.
pub(crate) struct Channel {
    /// The number by which its transport knows it.
    pub(crate) number: u32,
    pub(crate) labels: Labels,
    /// What the client sends, to the end of its side.
    pub(crate) input: DuplexStream,
    /// What the client is sent.
    pub(crate) output: Output,
    /// Cancelled when the client has taken the channel back, or is gone.
    pub(crate) lost: CancellationToken,
}

/// The channels of one client, as it opens them.
pub(crate) struct Session(mpsc::Receiver<Channel>);

impl Session {
    /// The next channel; none when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Channel> {
        self.0.recv().await
    }
}

/// What a transport has to write.
enum Outgoing {
    Data(u32, Bytes),
    /// The server's side of a channel is over.
    Finish(u32),
    /// The session is.
    End,
}

/// Makes the channels of a session.
struct Opener {
    session: mpsc::Sender<Channel>,
    peer: Peer,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Opener {
    /// A channel, and where its transport puts what the client sends on it.
    fn channel(&self, number: u32, labels: Labels) -> (Channel, Inlet) {
        let (pipe, input) = tokio::io::duplex(INPUT);
        let lost = CancellationToken::new();
        let output = Output::new(number, self.outgoing.clone());
        let inlet = Inlet {
            pipe: Some(pipe),
            output: output.alive(),
            peer: self.peer.clone(),
            _lost: lost.clone().drop_guard(),
        };
        let channel = Channel {
            number,
            labels,
            input,
            output,
            lost,
        };
        (channel, inlet)
    }

    /// Hands a channel to who serves the session; nobody is missed who no longer listens.
    async fn give(&self, channel: Channel) {
        let _ = self.session.send(channel).await;
    }
}

/// A transport's end of a channel. Dropping it is what [`Channel::lost`] tells.
struct Inlet {
    pipe: Option<DuplexStream>,
    output: Weak<()>,
    peer: Peer,
    _lost: DropGuard,
}

impl Inlet {
    /// Passes on what the client sent, as soon as there is room; drops what nobody will read.
    ///
    /// # Errors
    /// When there is no room, and the client has gone: nobody can wait for it any more.
    async fn put(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(pipe) = &mut self.pipe {
            tokio::select! {
                biased;
                written = pipe.write_all(data) => if written.is_err() {
                    self.pipe = None;
                },
                () = self.peer.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Ok(())
    }

    /// The client's side is over.
    fn finish(&mut self) {
        self.pipe = None;
    }

    /// Whether either side may still send something.
    fn is_open(&self) -> bool {
        self.pipe.is_some() || self.output.strong_count() > 0
    }
}

/// A session about to be served, and what its transport needs.
fn session(peer: Peer) -> (Session, Opener, mpsc::Receiver<Outgoing>) {
    let (given, taken) = mpsc::channel(1);
    let (outgoing, queue) = mpsc::channel(OUTPUT);
    let opener = Opener {
        session: given,
        peer,
        outgoing,
    };
    (Session(taken), opener, queue)
}

/// Runs a session until it is served, or the client is gone: `read` ends with the client, `write`
/// with [`Outgoing::End`].
async fn drive(
    read: impl Future<Output = io::Result<()>>,
    write: impl Future<Output = io::Result<()>>,
    serve: impl Future<Output = ()>,
    end: mpsc::Sender<Outgoing>,
) {
    let serve = async {
        serve.await;
        let _ = end.send(Outgoing::End).await;
        std::future::pending().await
    };
    let mut read = std::pin::pin!(read);
    let ended = tokio::select! {
        ended = &mut read => ended,
        written = write => match written {
            // Closing with something unread would reset the connection, and could cost the client
            // the end of what it was sent: it closes first, if it is quick.
            Ok(()) => tokio::time::timeout(LINGER, read).await.unwrap_or(Ok(())),
            failed => failed,
        },
        () = serve => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a streaming connection broke");
    }
}
