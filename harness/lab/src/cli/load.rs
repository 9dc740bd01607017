//! `load`: images from an archive, into every node of a lab that runs.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::record::Records;
use super::{InLab, connect};

/// How much of an archive is sent at a time.
const PIECE: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Load {
    /// What docker save or podman save wrote, or an OCI image layout in a tar; plain or gzip. `-` is
    /// standard input.
    archive: PathBuf,
    #[command(flatten)]
    in_lab: InLab,
}

#[derive(Debug, Deserialize)]
struct Loaded {
    images: Vec<String>,
}

/// A `Status`, of which only this matters here.
#[derive(Debug, Deserialize)]
struct Refused {
    message: String,
}

impl Load {
    pub(super) async fn run(self, records: &Records) -> anyhow::Result<()> {
        let begun = Instant::now();
        let name = &self.in_lab.lab;
        let (_, running) = records.running(name)?;
        let body = if self.archive == Path::new("-") {
            stream(tokio::io::stdin())
        } else {
            stream(open(&self.archive).await?)
        };
        let request = http::Request::post("/lab/v1/images")
            .header(http::header::CONTENT_TYPE, "application/x-tar")
            .body(body)?;
        let answer = connect::send(&running, request).await?;
        if !answer.status().is_success() {
            let why = serde_json::from_slice::<Refused>(answer.body())
                .map_or_else(|_| answer.status().to_string(), |refused| refused.message);
            bail!("{} was not loaded: {why}", self.archive.display());
        }
        let loaded: Loaded = serde_json::from_slice(answer.body())
            .context("the lab's answer is not one to this version of strata-lab")?;
        let mut out = io::stdout().lock();
        for image in loaded.images {
            writeln!(out, "Loaded {image}")?;
        }
        let took = begun.elapsed().as_secs_f64();
        writeln!(out, "Every node of lab {name:?} has it ({took:.2} s).")?;
        Ok(())
    }
}

async fn open(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let file = File::open(path)
        .await
        .with_context(|| format!("cannot read {shown}"))?;
    let is_dir = file.metadata().await?.is_dir();
    ensure!(
        !is_dir,
        "{shown} is a directory: make an archive of it, as with tar -C {shown} -cf - ."
    );
    Ok(file)
}

fn stream(source: impl AsyncRead + Send + 'static) -> connect::Stream {
    let pieces = ReaderStream::with_capacity(source, PIECE);
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}
