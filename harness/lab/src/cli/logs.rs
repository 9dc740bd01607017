//! `logs`: the lab's own log, or a pod's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;
use futures::io::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::process::Process;
use super::record::Records;
use super::{InLab, connect};

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// A pod; without one, it is what the lab's own parts log: kubelets, proxies, controllers.
    pod: Option<String>,
    #[command(flatten)]
    in_lab: InLab,
    /// Go on as more is logged.
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// The pod's namespace.
    #[arg(short, long, default_value = "default", requires = "pod")]
    namespace: String,
    /// The pod's container, if it has several.
    #[arg(short, long, requires = "pod")]
    container: Option<String>,
    /// Of the container's run before this one.
    #[arg(short, long, requires = "pod")]
    previous: bool,
}

impl Logs {
    pub(super) async fn run(self, records: &Records) -> anyhow::Result<()> {
        let (record, running) = records.running(&self.in_lab.lab)?;
        let Some(pod) = &self.pod else {
            let own = own(
                &record.log,
                self.tail,
                self.follow.then_some(&record.process),
            );
            return own.with_context(|| format!("the lab's log {}", record.log.display()));
        };
        let pods = Api::<Pod>::namespaced(connect::client(&running).await?, &self.namespace);
        let parameters = LogParams {
            container: self.container,
            follow: self.follow,
            previous: self.previous,
            tail_lines: self.tail.map(i64::from),
            ..LogParams::default()
        };
        let pod = pod.strip_prefix("pod/").unwrap_or(pod);
        let log = pods.log_stream(pod, &parameters).await;
        let mut log = std::pin::pin!(log.map_err(connect::said)?);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = log.read(&mut buffer).await?;
            match buffer.get(..count) {
                Some(read) if count > 0 => write(read)?,
                _ => return Ok(()),
            }
        }
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a log file, and goes on as long as the process is there that is followed.
fn own(path: &Path, tail: Option<u32>, follow: Option<&Process>) -> anyhow::Result<()> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // Watched before it is read: nothing is missed in between.
    changes.add_watch(path, AddWatchFlags::IN_MODIFY)?;
    let mut file = File::open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let lines = usize::try_from(tail.unwrap_or(u32::MAX))?;
    write(last_lines(&text, lines))?;
    let Some(process) = follow.and_then(Process::open) else {
        return Ok(());
    };
    loop {
        let mut polled = [changes.as_fd(), process.as_fd()]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            polled => polled?,
        };
        let ended = polled.last().and_then(PollFd::any) == Some(true);
        let _ = changes.read_events();
        text.clear();
        file.read_to_end(&mut text)?;
        write(&text)?;
        if ended {
            return Ok(());
        }
    }
}

fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    let begin = match count.checked_sub(1) {
        Some(before) => ends.nth(before).map_or(0, |(index, _)| index + 1),
        None => text.len(),
    };
    text.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_tail_is_so_many_lines() {
        let text = b"a\nb\nc\n";
        let tails: [(usize, &[u8]); 5] =
            [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (3, text), (9, text)];
        for (count, expected) in tails {
            assert_eq!(last_lines(text, count), expected, "{count}");
        }
        assert_eq!(last_lines(b"a\nb", 1), b"b");
        assert_eq!(last_lines(b"", 1), b"");
    }
}
