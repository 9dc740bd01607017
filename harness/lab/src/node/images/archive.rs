//! Archives of images: what `docker save` writes, and the OCI image layout in a tar.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path};

use anyhow::{Context, bail};
use flate2::read::GzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Image;

/// An image found in an archive.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) image: Image,
    /// The layers' tars, lowest first, not compressed.
    pub(super) layers: Vec<Vec<u8>>,
}

/// The images of an archive, which may be compressed with gzip.
pub(super) fn images(archive: &[u8]) -> anyhow::Result<Vec<Found>> {
    let archive = inflated(archive)?;
    let files = Files::read(&archive).context("this is not an image archive: not a tar")?;
    // What docker writes holds both forms; its own names the images in full.
    if let Some(manifest) = files.get("manifest.json") {
        let entries: Vec<SaveEntry> =
            serde_json::from_slice(manifest).context("manifest.json of the image archive")?;
        return entries.iter().map(|entry| entry.found(&files)).collect();
    }
    if files.get("index.json").is_some() {
        let index: ImageIndex = files.json("index.json")?;
        let mut found = Vec::new();
        for descriptor in index.manifests() {
            found.push(layout(&files, descriptor)?);
        }
        return Ok(found);
    }
    bail!("this is not an image archive: it has neither manifest.json nor index.json")
}

/// One image in `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaveEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl SaveEntry {
    fn found(&self, files: &Files) -> anyhow::Result<Found> {
        let layers = self
            .layers
            .iter()
            .map(|path| files.layer(path))
            .collect::<Result<_, _>>()?;
        let names = self.repo_tags.clone().unwrap_or_default();
        found(files.required(&self.config)?, names, layers)
    }
}

fn layout(files: &Files, descriptor: &Descriptor) -> anyhow::Result<Found> {
    let annotations = descriptor.annotations().clone().unwrap_or_default();
    let name = annotations
        .get("io.containerd.image.name")
        .or_else(|| annotations.get("org.opencontainers.image.ref.name"));
    let mut blob = blob(descriptor);
    // An image of several platforms is an index of its own: the lab's platform is the host's.
    if descriptor.media_type().to_string().contains("index") {
        let index: ImageIndex = files.json(&blob)?;
        let ours = index.manifests().iter().find(|manifest| {
            manifest
                .platform()
                .as_ref()
                .is_some_and(|platform| platform.architecture().to_string() == architecture())
        });
        let ours = ours.or_else(|| index.manifests().first());
        blob = self::blob(ours.context("the image's index lists no manifest")?);
    }
    let manifest: ImageManifest = files.json(&blob)?;
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| files.layer(&self::blob(layer)))
        .collect::<Result<_, _>>()?;
    let config = files.required(&self::blob(manifest.config()))?;
    found(config, name.cloned().into_iter().collect(), layers)
}

fn blob(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// The host's architecture in the words of image configurations.
pub(in crate::node) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn found(config: &[u8], names: Vec<String>, layers: Vec<Vec<u8>>) -> anyhow::Result<Found> {
    let parsed = ImageConfiguration::from_reader(config).context("the image's configuration")?;
    let architecture = parsed.architecture().to_string();
    if architecture != self::architecture() {
        bail!(
            "image {} is for {architecture}, this machine is {}",
            names.join(", "),
            self::architecture()
        );
    }
    let id = Sha256::digest(config)
        .iter()
        .fold("sha256:".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    let run = parsed.config().clone().unwrap_or_default();
    let env = run.env().iter().flatten().map(|variable| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        (name.to_owned(), value.to_owned())
    });
    let image = Image {
        id: id.clone(),
        entrypoint: run.entrypoint().clone().unwrap_or_default(),
        cmd: run.cmd().clone().unwrap_or_default(),
        env: env.collect(),
        working_dir: run.working_dir().clone().unwrap_or_default(),
        size: layers.iter().map(|layer| layer.len() as u64).sum(),
        ..Image::default()
    };
    Ok(Found {
        id,
        names,
        image,
        layers,
    })
}

/// The files of a tar, by path.
struct Files<'a> {
    contents: HashMap<String, &'a [u8]>,
    links: HashMap<String, String>,
}

impl<'a> Files<'a> {
    fn read(tar: &'a [u8]) -> anyhow::Result<Self> {
        let mut contents = HashMap::new();
        let mut links = HashMap::new();
        for entry in tar::Archive::new(tar).entries()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            let start = usize::try_from(entry.raw_file_position())?;
            let end = start + usize::try_from(entry.size())?;
            if let Some(target) = entry.link_name()? {
                // `docker save` once linked a layer to its equal in another directory.
                let directory = Path::new(&path).parent().unwrap_or(Path::new(""));
                links.insert(path.clone(), plain(&directory.join(target)));
            } else if let Some(content) = tar.get(start..end) {
                contents.insert(path, content);
            }
        }
        Ok(Self { contents, links })
    }

    fn get(&self, path: &str) -> Option<&'a [u8]> {
        let path = plain(Path::new(path));
        let target = self.links.get(&path).unwrap_or(&path);
        self.contents.get(target).copied()
    }

    fn required(&self, path: &str) -> anyhow::Result<&'a [u8]> {
        self.get(path)
            .with_context(|| format!("the image archive has no {path}, which it refers to"))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(self.required(path)?)
            .with_context(|| format!("{path} of the image archive"))
    }

    fn layer(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let layer = self.required(path)?;
        if layer.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            bail!("{path} of the image archive is compressed with zstd: save it with gzip or none");
        }
        Ok(inflated(layer)?.into_owned())
    }
}

fn inflated(data: &[u8]) -> anyhow::Result<Cow<'_, [u8]>> {
    if !data.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(data));
    }
    let mut inflated = Vec::new();
    GzDecoder::new(data)
        .read_to_end(&mut inflated)
        .context("gzip")?;
    Ok(Cow::Owned(inflated))
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}
