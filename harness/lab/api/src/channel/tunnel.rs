//! A stream of bytes inside the binary messages of a WebSocket: what `kubectl` has had for
//! port-forward since 1.31, with SPDY in it.
//!
//! Start from [`open`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;

use super::websocket::goodbye;

/// The two directions of a tunnel.
pub(super) fn open(socket: WebSocket) -> (impl AsyncRead + Send + Unpin, Writer) {
    let (sink, source) = socket.split();
    let messages = source.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(data)) => Some(Ok::<Bytes, io::Error>(data)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let writer = Writer {
        sink,
        said_goodbye: false,
    };
    (StreamReader::new(messages.boxed()), writer)
}

/// What goes into a tunnel; shutting it down closes the socket.
pub(super) struct Writer {
    sink: SplitSink<WebSocket, Message>,
    said_goodbye: bool,
}

impl Writer {
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        message: impl FnOnce() -> Message,
    ) -> Poll<io::Result<()>> {
        ready!(self.sink.poll_ready_unpin(context)).map_err(io::Error::other)?;
        let sent = self.sink.start_send_unpin(message());
        Poll::Ready(sent.map_err(io::Error::other))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let message = || Message::Binary(Bytes::copy_from_slice(data));
        self.poll_send(context, message).map_ok(|()| data.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.sink.poll_flush_unpin(context);
        flushed.map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            ready!(self.poll_send(context, goodbye))?;
            self.said_goodbye = true;
        }
        self.poll_flush(context)
    }
}
