//! What happened on a socket, told apart from what a protocol's library makes of it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use strata_probe::FailureKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure::kind_of_io;

/// A stream that remembers its first error and its end.
#[derive(Debug)]
pub(crate) struct Tap<T> {
    inner: T,
    witness: Witness,
}

/// Tells what a [`Tap`] saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    error: Option<FailureKind>,
    ended: bool,
}

impl Witness {
    /// How the connection broke: an error if there was one, else `closed` if the peer ended its side.
    pub(crate) fn verdict(&self) -> Option<FailureKind> {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.error.or(seen.ended.then_some(FailureKind::Closed))
    }

    /// The error, if there was one.
    pub(crate) fn error(&self) -> Option<FailureKind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).error
    }

    fn note<T>(&self, result: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = result {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.error.get_or_insert(kind_of_io(error));
        }
    }
}

impl<T> Tap<T> {
    /// Listens in on a stream.
    pub(crate) fn new(inner: T) -> (Self, Witness) {
        let witness = Witness::default();
        let tap = Self {
            inner,
            witness: witness.clone(),
        };
        (tap, witness)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = (buf.filled().len(), buf.remaining());
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.witness.note(&result);
        if matches!(result, Poll::Ready(Ok(()))) && before.1 > 0 && buf.filled().len() == before.0 {
            self.witness
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ended = true;
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.witness.note(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    // What becomes of closing says nothing about the answer: it is not noted.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
