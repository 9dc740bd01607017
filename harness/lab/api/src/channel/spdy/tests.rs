//! The codec against what a client really sent, and sessions against a client made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

use super::*;

/// What `kubectl` 1.20.2 sent for `echo hello | kubectl exec -i p -- cat`, from its first frame to its
/// last; 1.29.14 sent the same, but for the order of its resets.
pub(crate) const EXEC: &str = "
    80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ff
    ff800300010000001700000003000000000000c22e555c92929907000000ffff80030001000000190000000500000000
    0000c22ac5565c92925f5a02000000ffff800300010000001500000007000000000000c229975a5404000000ffff0000
    00030000000668656c6c6f0a000000030100000080030003000000080000000100000005800300030000000800000005
    000000058003000300000008000000070000000580030007000000080000000000000000";

/// The octets of a hexadecimal text.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let octets = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
    octets.map(|octet| u8::try_from(octet).unwrap()).collect()
}

fn opened(stream: u32, kind: &str) -> Frame {
    Frame::SynStream {
        stream,
        headers: vec![("streamtype".to_owned(), kind.to_owned())],
        fin: false,
    }
}

fn data(stream: u32, text: &str, fin: bool) -> Frame {
    Frame::Data {
        stream,
        data: Bytes::copy_from_slice(text.as_bytes()),
        fin,
    }
}

async fn frames(octets: &[u8]) -> io::Result<Vec<Frame>> {
    let mut reader = Reader::new(octets);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().await? {
        frames.push(frame);
    }
    Ok(frames)
}

#[tokio::test]
async fn kubectl_s_exec_is_understood() {
    let reset = |stream| Frame::RstStream {
        stream,
        reason: Reason::Cancel,
    };
    assert_eq!(
        frames(&octets(EXEC)).await.unwrap(),
        [
            opened(1, "error"),
            opened(3, "stdin"),
            opened(5, "stdout"),
            opened(7, "stderr"),
            data(3, "hello\n", false),
            data(3, "", true),
            reset(1),
            reset(5),
            reset(7),
            Frame::GoAway { last: 0 },
        ]
    );
}

#[tokio::test]
async fn what_is_cut_off_or_not_spdy_is_an_error() {
    let whole = octets(EXEC);
    let boundaries = [0, 49, 80, 113, 142, 156, 164, 180, 196, 212, 228];
    for length in 0..=whole.len() {
        let cut = frames(&whole[..length]).await;
        assert_eq!(
            cut.is_ok(),
            boundaries.contains(&length),
            "{length}: {cut:?}"
        );
    }
    for (octets, expected) in [
        ("8002000100000000", "a frame is not of SPDY/3"),
        ("80030001000fffff", "a control frame is too long"),
        ("800300060000000200 01", "a control frame is too short"),
        (
            "80030001000000 0c 00000001 00000000 0000 ffff",
            "headers are not packed as they should be",
        ),
    ] {
        let refused = frames(&self::octets(octets)).await.unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
}

#[tokio::test]
async fn settings_windows_and_what_is_not_known_are_passed_over() {
    let ignored = |kind| Frame::Ignored { kind };
    let text = "80030004 0000000c 00000001 00000007 00010000
        80030009 00000008 00000001 00010000 80030063 00000002 abcd 80030006 00000004 00000001";
    assert_eq!(
        frames(&octets(text)).await.unwrap(),
        [ignored(4), ignored(9), ignored(0x63), Frame::Ping(1)]
    );
}

#[tokio::test]
async fn every_frame_is_read_as_it_was_written() {
    let written = [
        opened(1, "data"),
        opened(3, "error"),
        data(1, "hello", true),
        Frame::RstStream {
            stream: 3,
            reason: Reason::RefusedStream,
        },
        Frame::Ping(7),
        Frame::GoAway { last: 3 },
    ];
    let (mut encoder, mut octets) = (Encoder::new().unwrap(), BytesMut::new());
    for frame in &written {
        encoder.encode(frame, &mut octets).unwrap();
    }
    assert_eq!(frames(&octets).await.unwrap(), written);
}

/// A client's side of a session.
pub(crate) struct Client<R, W> {
    frames: Reader<R>,
    to: W,
    encoder: Encoder,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    pub(crate) fn new(from: R, to: W) -> Self {
        Self {
            frames: Reader::new(from),
            to,
            encoder: Encoder::new().unwrap(),
        }
    }

    async fn send(&mut self, frame: &Frame) {
        let mut packed = BytesMut::new();
        self.encoder.encode(frame, &mut packed).unwrap();
        self.to.write_all(&packed).await.unwrap();
    }

    async fn next(&mut self) -> Frame {
        self.frames.next().await.unwrap().unwrap()
    }

    /// Opens a stream, and waits until it is answered.
    pub(crate) async fn open(&mut self, stream: u32, labels: &[(&str, &str)]) {
        let headers = labels
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        self.send(&Frame::SynStream {
            stream,
            headers: headers.collect(),
            fin: false,
        })
        .await;
        assert_eq!(self.next().await, Frame::SynReply { stream });
    }

    /// Opens streams by their types, and does not wait.
    pub(crate) async fn begin(&mut self, streams: &[(u32, &str)]) {
        for &(stream, kind) in streams {
            self.send(&opened(stream, kind)).await;
        }
    }

    /// Sends the last there is to say on a stream.
    pub(crate) async fn say(&mut self, stream: u32, text: &str) {
        self.send(&data(stream, text, true)).await;
    }

    /// Takes a stream back.
    pub(crate) async fn reset(&mut self, stream: u32) {
        let reason = Reason::Cancel;
        self.send(&Frame::RstStream { stream, reason }).await;
    }

    /// What is said on some streams, until all of them are over.
    pub(crate) async fn hear<const N: usize>(&mut self, streams: [u32; N]) -> [String; N] {
        let mut said = [const { String::new() }; N];
        let mut open = streams.to_vec();
        while !open.is_empty() {
            let Frame::Data { stream, data, fin } = self.next().await else {
                continue;
            };
            let at = streams.iter().position(|&one| one == stream).unwrap();
            said[at].push_str(&String::from_utf8_lossy(&data));
            open.retain(|&one| !(fin && one == stream));
        }
        said
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn ended(mut self) {
        assert!(matches!(self.next().await, Frame::GoAway { .. }));
        assert_eq!(self.frames.next().await.unwrap(), None);
    }
}

type Memory = Client<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// A client of a session that is being served.
fn client<F>(serve: impl FnOnce(Session) -> F + Send + 'static) -> Memory
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (from, to) = tokio::io::split(theirs);
    tokio::spawn(run(from, to, Peer::default(), serve));
    let (from, to) = tokio::io::split(ours);
    Client::new(from, to)
}

/// Sends back what comes, on as many channels as there are.
async fn echo(mut session: Session) {
    let mut all = tokio::task::JoinSet::new();
    while let Some(mut channel) = session.next().await {
        all.spawn(async move {
            let _ = tokio::io::copy(&mut channel.input, &mut channel.output).await;
            channel.output.shutdown().await.unwrap();
        });
    }
}

#[tokio::test]
async fn streams_are_channels_each_for_itself() {
    let mut client = client(echo);
    client.open(1, &[]).await;
    client.open(3, &[]).await;
    client.say(3, "three").await;
    assert_eq!(client.hear([3]).await, ["three"]);
    client.say(1, "one").await;
    assert_eq!(client.hear([1]).await, ["one"]);
    // The end alone, too.
    client.open(5, &[]).await;
    client.say(5, "").await;
    assert_eq!(client.hear([5]).await, [""]);
}

#[tokio::test]
async fn pings_are_answered_and_wrong_streams_refused() {
    let mut client = client(echo);
    client.send(&Frame::Ping(1)).await;
    assert_eq!(client.next().await, Frame::Ping(1));
    client.open(3, &[]).await;
    for stream in [1, 3, 4] {
        client.send(&opened(stream, "data")).await;
        let reason = Reason::ProtocolError;
        assert_eq!(client.next().await, Frame::RstStream { stream, reason });
    }
}

#[tokio::test]
async fn the_end_of_the_session_is_that_of_the_connection() {
    let mut client = client(async |mut session: Session| {
        let mut channel = session.next().await.unwrap();
        channel.output.write_all(b"bye").await.unwrap();
        channel.output.shutdown().await.unwrap();
    });
    client.open(1, &[]).await;
    assert_eq!(client.hear([1]).await, ["bye"]);
    client.ended().await;
}

#[tokio::test]
async fn a_channel_is_lost_when_it_is_reset_and_when_the_client_goes() {
    let (tell, mut told) = mpsc::channel(1);
    let mut client = client(async move |mut session: Session| {
        while let Some(channel) = session.next().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                channel.lost.cancelled().await;
                tell.send(channel.number).await.unwrap();
            });
        }
        std::future::pending::<()>().await;
    });
    client.open(1, &[]).await;
    client.open(3, &[]).await;
    client.reset(1).await;
    assert_eq!(told.recv().await, Some(1));
    drop(client);
    assert_eq!(told.recv().await, Some(3));
}

#[tokio::test]
async fn many_streams_one_after_the_other_are_as_good_as_one() {
    let mut client = client(echo);
    for stream in (1..).step_by(2).take(STREAMS + 10) {
        client.open(stream, &[]).await;
        client.say(stream, "x").await;
        assert_eq!(client.hear([stream]).await, ["x"]);
    }
}

#[tokio::test]
async fn too_many_streams_at_once_are_refused() {
    let mut client = client(echo);
    for stream in (1..).step_by(2).take(STREAMS) {
        client.open(stream, &[]).await;
    }
    let stream = 2 * u32::try_from(STREAMS).unwrap() + 1;
    client.send(&opened(stream, "data")).await;
    let reason = Reason::RefusedStream;
    assert_eq!(client.next().await, Frame::RstStream { stream, reason });
}

/// Lets everything go on that can: nothing here waits for anything outside the test.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_does_not_read_makes_who_writes_wait() {
    const ALL: usize = 8 << 20;
    let (written, go) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(tokio::sync::Notify::new()),
    );
    let served = {
        let (written, go) = (written.clone(), go.clone());
        async move |mut session: Session| {
            let mut channel = session.next().await.unwrap();
            // The server first: its client does not read.
            while written.load(Ordering::Relaxed) < ALL {
                let count = channel.output.write(&[b'x'; 4 << 10]).await.unwrap();
                written.fetch_add(count, Ordering::Relaxed);
            }
            channel.output.shutdown().await.unwrap();
            // Then the client: its server does not.
            go.notified().await;
            let mut sink = tokio::io::sink();
            let read = tokio::io::copy(&mut channel.input, &mut sink).await;
            assert_eq!(read.unwrap(), ALL as u64);
        }
    };
    let mut client = client(served);
    client.open(1, &[]).await;
    settle().await;
    let waiting = written.load(Ordering::Relaxed);
    assert!(waiting < 1 << 20, "{waiting} octets wait for a client");
    assert_eq!(client.hear([1]).await[0].len(), ALL);

    let sent = Arc::new(AtomicUsize::new(0));
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            let piece = "x".repeat(64 << 10);
            while sent.load(Ordering::Relaxed) < ALL {
                client.send(&data(1, &piece, false)).await;
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
            client.say(1, "").await;
            client
        }
    });
    settle().await;
    let waiting = sent.load(Ordering::Relaxed);
    assert!(waiting < 1 << 20, "{waiting} octets wait for the server");
    go.notify_one();
    sending.await.unwrap().ended().await;
}
