//! Channels over a WebSocket (`channel.k8s.io`): every message begins with its channel's number.
//!
//! Start from [`run`].

use std::io;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::{Inlet, Numbered, Opener, Outgoing, Peer, Session};

/// In version 5 of the protocol: the channel whose number follows is over.
const CLOSE: u8 = 255;

/// How bytes are put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are, in binary messages.
    Binary,
    /// In base64 after a digit, in text messages.
    Base64,
}

impl Encoding {
    /// That of a protocol, by its name.
    pub(super) fn of(protocol: &str) -> Self {
        if protocol.contains("base64.") {
            Self::Base64
        } else {
            Self::Binary
        }
    }

    fn pack(self, number: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(number);
                message.put_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let digit = char::from(b'0'.saturating_add(number));
                Message::Text(format!("{digit}{}", STANDARD.encode(data)).into())
            }
        }
    }

    fn unpack(self, message: &[u8]) -> Option<(u8, Bytes)> {
        let (&number, data) = message.split_first()?;
        match self {
            Self::Binary => Some((number, Bytes::copy_from_slice(data))),
            Self::Base64 => {
                let number = number.checked_sub(b'0')?;
                Some((number, STANDARD.decode(data).ok()?.into()))
            }
        }
    }
}

/// Runs a session over a socket.
pub(super) async fn run<F: Future<Output = ()>>(
    socket: WebSocket,
    encoding: Encoding,
    numbered: Vec<Numbered>,
    peer: Peer,
    serve: impl FnOnce(Session) -> F,
) {
    let (session, opener, queue) = super::session(peer);
    let end = opener.outgoing.clone();
    let (sink, source) = socket.split();
    super::drive(
        read(source, encoding, numbered, opener),
        write(sink, encoding, queue),
        serve(session),
        end,
    )
    .await;
}

async fn read(
    mut source: SplitStream<WebSocket>,
    encoding: Encoding,
    numbered: Vec<Numbered>,
    opener: Opener,
) -> io::Result<()> {
    let mut inlets: Vec<Inlet> = Vec::new();
    for (number, Numbered { labels, greeting }) in (0..).zip(numbered) {
        let (mut channel, inlet) = opener.channel(number, labels);
        inlets.push(inlet);
        channel.output.write_all(&greeting).await?;
        opener.give(channel).await;
    }
    // There will be no more.
    drop(opener);
    while let Some(message) = source.next().await {
        let data: Bytes = match message.map_err(io::Error::other)? {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some((number, data)) = encoding.unpack(&data) else {
            continue;
        };
        let (number, over) = match (number, &*data) {
            (CLOSE, &[number]) => (number, true),
            (number, _) => (number, false),
        };
        match inlets.get_mut(usize::from(number)) {
            Some(inlet) if over => inlet.finish(),
            Some(inlet) => inlet.put(&data).await?,
            None => {}
        }
    }
    Ok(())
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    encoding: Encoding,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    while let Some(outgoing) = queue.recv().await {
        match outgoing {
            Outgoing::Data(number, data) => {
                let number = u8::try_from(number).map_err(io::Error::other)?;
                let message = encoding.pack(number, &data);
                sink.send(message).await.map_err(io::Error::other)?;
            }
            // Only clients say so; the end of the session is that of all its channels.
            Outgoing::Finish(_) => {}
            Outgoing::End => break,
        }
    }
    sink.send(goodbye()).await.map_err(io::Error::other)
}

/// The end of a socket. Without a code, client-go takes it for a broken connection.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }))
}
