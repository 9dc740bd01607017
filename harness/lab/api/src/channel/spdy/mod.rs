//! Channels over SPDY/3.1: every channel is a stream that the client opens.
//!
//! Start from [`run`]. What is served is what Kubernetes' clients speak, which is what Go's
//! `spdystream` does: no stream is opened from here, none has a priority, and none has a window.
//! Those clients neither grant windows nor keep to them, so that a server which waited for a grant
//! would wait for ever after the first 64 KiB; the connection's own flow control, TCP's, is what
//! bounds both sides, as in Kubernetes. Rule: a stream is answered before anything is sent on it,
//! for its client drops what comes earlier.

mod frame;
mod header;

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use self::frame::{Encoder, Frame, Reader, Reason};
use super::{Inlet, Labels, Opener, Outgoing, Peer, Session};

/// The most streams that a client may have open at once.
const STREAMS: usize = 1024;

/// Runs a session over a connection.
pub(super) async fn run<F: Future<Output = ()>>(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    peer: Peer,
    serve: impl FnOnce(Session) -> F,
) {
    let (session, opener, queue) = super::session(peer);
    let end = opener.outgoing.clone();
    let (answers, answered) = mpsc::channel(1);
    super::drive(
        read(Reader::new(reader), opener, answers),
        write(writer, queue, answered),
        serve(session),
        end,
    )
    .await;
}

async fn read(
    mut frames: Reader<impl AsyncRead + Unpin>,
    opener: Opener,
    answers: mpsc::Sender<Frame>,
) -> io::Result<()> {
    let mut streams = HashMap::<u32, Inlet>::new();
    let mut newest = 0;
    // Answers that cannot be sent are those of a session that is over.
    while let Some(frame) = frames.next().await? {
        match frame {
            Frame::SynStream {
                stream,
                headers,
                fin,
            } => {
                streams.retain(|_, inlet| inlet.is_open());
                let refusal = if stream % 2 == 0 || stream <= newest {
                    Some(Reason::ProtocolError)
                } else {
                    (streams.len() >= STREAMS).then_some(Reason::RefusedStream)
                };
                if let Some(reason) = refusal {
                    let _ = answers.send(Frame::RstStream { stream, reason }).await;
                    continue;
                }
                newest = stream;
                let (channel, mut inlet) = opener.channel(stream, Labels(headers));
                if fin {
                    inlet.finish();
                }
                streams.insert(stream, inlet);
                let _ = answers.send(Frame::SynReply { stream }).await;
                opener.give(channel).await;
            }
            Frame::Data { stream, data, fin } => {
                if let Some(inlet) = streams.get_mut(&stream) {
                    inlet.put(&data).await?;
                    if fin {
                        inlet.finish();
                    }
                }
            }
            Frame::RstStream { stream, .. } => drop(streams.remove(&stream)),
            // Those that a client begins are odd; the others would be answers to ours.
            Frame::Ping(number) if number % 2 == 1 => {
                let _ = answers.send(Frame::Ping(number)).await;
            }
            // It goes on reading what it still wants, and then closes.
            Frame::GoAway { .. } | Frame::Ping(_) => {}
            Frame::SynReply { .. } | Frame::Ignored { .. } => {}
        }
    }
    Ok(())
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
    mut answers: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut encoder = Encoder::new()?;
    let mut packed = BytesMut::new();
    loop {
        let frame = tokio::select! {
            // A stream's answer is there before its channel is, so that it is also sent before.
            biased;
            Some(answer) = answers.recv() => answer,
            Some(outgoing) = queue.recv() => match outgoing {
                Outgoing::Data(stream, data) => Frame::Data { stream, data, fin: false },
                Outgoing::Finish(stream) => Frame::Data { stream, data: Bytes::new(), fin: true },
                Outgoing::End => break,
            },
            else => break,
        };
        encoder.encode(&frame, &mut packed)?;
        writer.write_all(&packed).await?;
        writer.flush().await?;
        packed.clear();
    }
    encoder.encode(&Frame::GoAway { last: 0 }, &mut packed)?;
    writer.write_all(&packed).await?;
    writer.flush().await?;
    writer.shutdown().await
}

#[cfg(test)]
pub(crate) mod tests;
