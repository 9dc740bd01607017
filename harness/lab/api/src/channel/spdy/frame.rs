//! The frames of SPDY/3.1, as far as Kubernetes' clients use them (SPDY/3, 2.2 and 2.6).
//!
//! Start from [`Reader`] and [`Encoder`]. Rule: no frame makes either keep more than it may: a
//! client's data come in pieces, however large it made their frame.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};

use super::header::{Packer, Unpacker};

/// Set in the first word of frames that are not data.
const CONTROL: u32 = 1 << 31;
const VERSION: u16 = 3;
/// Nothing more comes on the stream from this side.
const FIN: u8 = 1;
/// The longest control frame that is read: some headers of a few words.
const LARGEST_CONTROL: usize = 16 << 10;
/// The largest piece in which data are passed on.
const PIECE: usize = 16 << 10;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is ended before its time (2.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    ProtocolError = 1,
    RefusedStream = 3,
    /// Any other, which means nothing else to us.
    Cancel = 5,
}

/// A frame, or a piece of one with data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        headers: Vec<(String, String)>,
        fin: bool,
    },
    /// Only ever without headers.
    SynReply {
        stream: u32,
    },
    RstStream {
        stream: u32,
        reason: Reason,
    },
    Ping(u32),
    GoAway {
        last: u32,
    },
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    /// SETTINGS and WINDOW_UPDATE, whose windows nobody keeps to; HEADERS, which nobody sends; and
    /// what version 3 does not have.
    Ignored {
        kind: u16,
    },
}

/// Reads a client's frames.
pub(super) struct Reader<R> {
    from: BufReader<R>,
    headers: Unpacker,
    /// What is still to come of a frame with data.
    rest: Option<Rest>,
}

struct Rest {
    stream: u32,
    length: usize,
    fin: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            headers: Unpacker::new(),
            rest: None,
        }
    }

    /// The next frame; none at the connection's end.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not SPDY.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some(rest) = self.rest.take() {
            return self.piece(rest).await.map(Some);
        }
        let mut head = [0; 8];
        if self.from.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut head[1..]).await?;
        let mut head = &head[..];
        let (word, flags) = (head.get_u32(), head.get_u8());
        let length = usize::try_from(head.get_uint(3)).map_err(io::Error::other)?;
        let fin = flags & FIN != 0;
        if word & CONTROL == 0 {
            let rest = Rest {
                stream: word,
                length,
                fin,
            };
            return self.piece(rest).await.map(Some);
        }
        if length > LARGEST_CONTROL {
            return Err(wrong("a control frame is too long"));
        }
        let mut body = vec![0; length];
        self.from.read_exact(&mut body).await?;
        let bytes = word.to_be_bytes();
        let version = u16::from_be_bytes([bytes[0], bytes[1]]) & 0x7fff;
        let kind = u16::from_be_bytes([bytes[2], bytes[3]]);
        if version != VERSION {
            return Err(wrong("a frame is not of SPDY/3"));
        }
        self.control(kind, fin, &body).map(Some)
    }

    /// Some of a frame's data, as soon as any are there.
    async fn piece(&mut self, rest: Rest) -> io::Result<Frame> {
        let Rest {
            stream,
            length,
            fin,
        } = rest;
        let mut data = BytesMut::zeroed(length.min(PIECE));
        // Reading nothing would wait for the next frame.
        let read = match length {
            0 => 0,
            _ => self.from.read(&mut data).await?,
        };
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        data.truncate(read);
        let left = length - read;
        if left > 0 {
            self.rest = Some(Rest {
                stream,
                length: left,
                fin,
            });
        }
        Ok(Frame::Data {
            stream,
            data: data.freeze(),
            fin: fin && left == 0,
        })
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> io::Result<Frame> {
        let short = |_| wrong("a control frame is too short");
        let mut word = || body.try_get_u32().map_err(short);
        Ok(match kind {
            SYN_STREAM => {
                let stream = word()? & !CONTROL;
                let _associated = word()?;
                let _priority_and_slot = body.try_get_u16().map_err(short)?;
                Frame::SynStream {
                    stream,
                    headers: self.headers.unpack(body)?,
                    fin,
                }
            }
            SYN_REPLY => Frame::SynReply {
                stream: word()? & !CONTROL,
            },
            RST_STREAM => Frame::RstStream {
                stream: word()? & !CONTROL,
                reason: match word()? {
                    1 => Reason::ProtocolError,
                    3 => Reason::RefusedStream,
                    _ => Reason::Cancel,
                },
            },
            PING => Frame::Ping(word()?),
            GOAWAY => Frame::GoAway {
                last: word()? & !CONTROL,
            },
            HEADERS => {
                let _stream = word()?;
                // Headers are packed with what was in those before them.
                self.headers.unpack(body)?;
                Frame::Ignored { kind }
            }
            SETTINGS | WINDOW_UPDATE => Frame::Ignored { kind },
            kind => Frame::Ignored { kind },
        })
    }
}

/// Writes frames.
pub(super) struct Encoder(Packer);

impl Encoder {
    pub(super) fn new() -> io::Result<Self> {
        Packer::new().map(Self)
    }

    /// Adds a frame to what is to be sent.
    ///
    /// # Errors
    /// When it cannot be packed, which would be a defect.
    pub(super) fn encode(&mut self, frame: &Frame, to: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::SynStream {
                stream,
                headers,
                fin,
            } => {
                let headers = self.0.pack(headers)?;
                control(to, SYN_STREAM, *fin, headers.len() + 10);
                to.put_u32(*stream);
                to.put_u32(0);
                to.put_u16(0);
                to.put_slice(&headers);
            }
            Frame::SynReply { stream } => {
                let headers = self.0.pack(&[])?;
                control(to, SYN_REPLY, false, headers.len() + 4);
                to.put_u32(*stream);
                to.put_slice(&headers);
            }
            Frame::RstStream { stream, reason } => {
                control(to, RST_STREAM, false, 8);
                to.put_u32(*stream);
                to.put_u32(*reason as u32);
            }
            Frame::Ping(number) => {
                control(to, PING, false, 4);
                to.put_u32(*number);
            }
            Frame::GoAway { last } => {
                control(to, GOAWAY, false, 8);
                to.put_u32(*last);
                to.put_u32(0);
            }
            Frame::Data { stream, data, fin } => {
                to.put_u32(*stream);
                to.put_u8(if *fin { FIN } else { 0 });
                to.put_uint(data.len() as u64, 3);
                to.put_slice(data);
            }
            Frame::Ignored { kind } => control(to, *kind, false, 0),
        }
        Ok(())
    }
}

fn control(to: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    to.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    to.put_u8(if fin { FIN } else { 0 });
    to.put_uint(length as u64, 3);
}

pub(super) fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
