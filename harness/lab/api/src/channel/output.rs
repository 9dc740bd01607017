//! The server's side of a channel.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::Outgoing;

/// The largest piece of output: as much as Go's `io.Copy` takes at once.
const PIECE: usize = 32 << 10;

/// What a client is sent on a channel. Shutting it down tells the client that this was all.
pub(crate) struct Output {
    number: u32,
    to: PollSender<Outgoing>,
    finished: bool,
    alive: Arc<()>,
}

impl Output {
    pub(super) fn new(number: u32, to: mpsc::Sender<Outgoing>) -> Self {
        Self {
            number,
            to: PollSender::new(to),
            finished: false,
            alive: Arc::default(),
        }
    }

    /// Upgrades as long as the output is there.
    pub(super) fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        item: impl FnOnce(u32) -> Outgoing,
    ) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.to.poll_reserve(context)).map_err(gone)?;
        Poll::Ready(self.to.send_item(item(self.number)).map_err(gone))
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let piece = &data[..data.len().min(PIECE)];
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sent = self.poll_send(context, |number| {
            Outgoing::Data(number, Bytes::copy_from_slice(piece))
        });
        sent.map_ok(|()| piece.len())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(self.poll_send(context, Outgoing::Finish))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}
