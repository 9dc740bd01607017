//! `tcp`: connect, hold, send, compare the echo, ask who answers.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use strata_probe::{Answer, Failure, FailureKind, Stage, TcpReply, TcpSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::connect::{Progress, Target, connect};
use super::failure::{of_io, of_timeout};
use super::pace::Pace;
use super::resolve::Resolver;
use super::{at_least_one, hex, micros_since, write};
use crate::Trouble;

/// How much is sent and compared at a time, in bytes; a multiple of a word of the pattern.
const CHUNK: usize = 16 * 1024;
/// No probe's answer is longer.
const ANSWER: u64 = 64 * 1024;

/// Opens the connections; writes each reply when it is there.
pub(crate) async fn run(spec: TcpSpec) -> Result<(), Trouble> {
    at_least_one("count", spec.count)?;
    at_least_one("concurrency", spec.concurrency)?;
    at_least_one("timeoutMs", spec.timeout_ms)?;
    let target = Target::parse(&spec.to, None).map_err(Trouble::CommandLine)?;
    let pace = Pace::new(spec.count, None, None);
    let client = Client {
        resolver: Resolver::from_system(),
        target,
        spec,
    };
    let workers = client.spec.concurrency.min(client.spec.count);
    try_join_all((0..workers).map(|_| client.work(&pace))).await?;
    Ok(())
}

struct Client {
    spec: TcpSpec,
    target: Target,
    resolver: Resolver,
}

impl Client {
    async fn work(&self, pace: &Pace) -> Result<(), Trouble> {
        while let Some(sequence) = pace.next().await {
            write(&self.connection(sequence).await)?;
        }
        Ok(())
    }

    async fn connection(&self, sequence: u64) -> TcpReply {
        let mut reply = TcpReply {
            sequence,
            ..TcpReply::default()
        };
        let start = Instant::now();
        let patience =
            Duration::from_millis(self.spec.timeout_ms.saturating_add(self.spec.hold_ms));
        let deadline = start + patience;
        let mut progress = Progress::default();
        let exchange = self.exchange(start, deadline, &mut reply, &mut progress);
        let result = match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(of_timeout(progress.stage, deadline, self.spec.timeout_ms)),
        };
        reply.error = result.err();
        reply.latency_us = micros_since(start);
        reply
    }

    async fn exchange(
        &self,
        start: Instant,
        deadline: Instant,
        reply: &mut TcpReply,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let connecting = deadline - Duration::from_millis(self.spec.hold_ms);
        let opening = connect(
            &self.resolver,
            &self.target,
            self.spec.source,
            connecting,
            progress,
        );
        let opened = tokio::time::timeout_at(connecting.into(), opening).await;
        let (mut stream, remote) = match opened {
            Ok(opened) => opened?,
            Err(_) => return Err(of_timeout(progress.stage, connecting, self.spec.timeout_ms)),
        };
        reply.connected_us = Some(micros_since(start));
        reply.remote = Some(remote);
        reply.local = stream.local_addr().ok();
        progress.stage = Stage::Exchange;
        hold(&stream, Duration::from_millis(self.spec.hold_ms)).await?;
        let (mut reader, mut writer) = stream.split();
        let (sequence, bytes) = (reply.sequence, self.spec.bytes);
        let mut digest = Sha256::new();
        tokio::try_join!(
            send(&mut writer, sequence, bytes, &mut reply.sent, &mut digest),
            compare(&mut reader, sequence, bytes, &mut reply.received, progress),
        )?;
        if bytes > 0 {
            reply.sha256 = hex(&digest.finalize());
        }
        if !self.spec.connect_only {
            if !self.spec.silent {
                writer
                    .shutdown()
                    .await
                    .map_err(|error| of_io(Stage::Body, "ending our side", &error))?;
            }
            progress.stage = Stage::Body;
            reply.answer = Some(answer(&mut reader).await?);
        }
        Ok(())
    }
}

/// Idles; that the peer ends or cuts the connection meanwhile is a failure.
async fn hold(stream: &TcpStream, for_so_long: Duration) -> Result<(), Failure> {
    if for_so_long.is_zero() {
        return Ok(());
    }
    let lost = async {
        let mut byte = [0];
        match stream.peek(&mut byte).await {
            Ok(0) => Failure::new(
                FailureKind::Closed,
                Stage::Exchange,
                "the peer ended the idle connection",
            ),
            // A banner, to be read later.
            Ok(_) => std::future::pending().await,
            Err(error) => of_io(Stage::Exchange, "holding the connection", &error),
        }
    };
    match tokio::time::timeout(for_so_long, lost).await {
        Ok(failure) => Err(failure),
        Err(_) => Ok(()),
    }
}

async fn send(
    writer: &mut WriteHalf<'_>,
    sequence: u64,
    bytes: u64,
    sent: &mut u64,
    digest: &mut Sha256,
) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK];
    while *sent < bytes {
        let chunk = pattern(sequence, *sent, bytes, &mut chunk);
        writer
            .write_all(chunk)
            .await
            .map_err(|error| of_io(Stage::Exchange, "sending", &error))?;
        digest.update(&*chunk);
        *sent += chunk.len() as u64;
    }
    Ok(())
}

async fn compare(
    reader: &mut ReadHalf<'_>,
    sequence: u64,
    bytes: u64,
    received: &mut u64,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    while *received < bytes {
        let expected = pattern(sequence, *received, bytes, &mut expected);
        let mut filled = 0;
        while let Some(rest) = chunk.get_mut(filled..expected.len())
            && !rest.is_empty()
        {
            let length = reader
                .read(rest)
                .await
                .map_err(|error| of_io(progress.stage, "reading the echo", &error))?;
            if length == 0 {
                return Err(Failure::new(
                    FailureKind::Closed,
                    progress.stage,
                    format!("the peer ended after {received} of {bytes} bytes of the echo"),
                ));
            }
            progress.stage = Stage::Body;
            let came = chunk.iter().zip(expected.iter()).skip(filled).take(length);
            if let Some(at) = came.map(|(a, b)| a == b).position(|same| !same) {
                let at = *received + at as u64;
                *received += length as u64;
                return Err(Failure::new(
                    FailureKind::Corrupted,
                    Stage::Body,
                    format!("the echo differs at byte {at}"),
                ));
            }
            filled += length;
            *received += length as u64;
        }
    }
    Ok(())
}

/// What is sent at an offset: words that depend on the connection and on where they are, so that
/// bytes lost, doubled or of another connection show.
fn pattern(sequence: u64, offset: u64, end: u64, chunk: &mut [u8]) -> &mut [u8] {
    let length = usize::try_from(end - offset).map_or(chunk.len(), |left| left.min(chunk.len()));
    for (index, word) in chunk.chunks_mut(8).enumerate() {
        // The finaliser of SplitMix64.
        let mut x = sequence.rotate_left(40) ^ (offset / 8 + index as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        for (to, from) in word.iter_mut().zip(x.to_le_bytes()) {
            *to = from;
        }
    }
    chunk.split_at_mut(length).0
}

async fn answer(reader: &mut ReadHalf<'_>) -> Result<Answer, Failure> {
    let mut text = Vec::new();
    reader
        .take(ANSWER)
        .read_to_end(&mut text)
        .await
        .map_err(|error| of_io(Stage::Body, "reading who answers", &error))?;
    if text.is_empty() {
        return Err(Failure::new(
            FailureKind::Closed,
            Stage::Body,
            "the peer ended without saying who it is",
        ));
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            FailureKind::Protocol,
            Stage::Body,
            format!("the peer does not say who it is, as a probe would: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_depends_on_connection_and_place() {
        let mut whole = vec![0; CHUNK];
        let whole = pattern(1, 0, 100, &mut whole).to_vec();
        assert_eq!(whole.len(), 100);
        let mut part = vec![0; 16];
        assert_eq!(pattern(1, 16, 100, &mut part), &whole[16..32]);
        assert_ne!(pattern(2, 16, 100, &mut part), &whole[16..32]);
        assert_eq!(pattern(1, 96, 100, &mut part), &whole[96..]);
    }
}
