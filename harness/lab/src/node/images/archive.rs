//! Archives of images: what `docker save` writes, and the OCI image layout in a tar.
//!
//! Start from [`images`]. An archive is a file that is read where it is needed, never in memory as
//! a whole: images are larger than what a small machine has to spare.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Image;

/// An image found in an archive.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) image: Image,
    /// Lowest first.
    pub(super) layers: Vec<Layer>,
}

/// A layer's tar, in the archive.
pub(super) struct Layer {
    archive: Arc<File>,
    place: Place,
    gzip: bool,
}

impl Layer {
    /// The tar from its beginning, not compressed.
    pub(super) fn open(&self) -> Box<dyn Read> {
        let content = BufReader::new(Content::new(self.archive.clone(), self.place));
        if self.gzip {
            return Box::new(MultiGzDecoder::new(content));
        }
        Box::new(content)
    }
}

/// The images of an archive, which may be compressed with gzip: then it is inflated below `scratch`.
pub(super) fn images(archive: File, scratch: &Path) -> anyhow::Result<Vec<Found>> {
    let archive = Arc::new(inflated(archive, scratch)?);
    let files = Files::read(archive).context(
        "this is not an image archive, as docker save or podman save writes one: no whole tar",
    )?;
    // What docker writes holds both forms; its own names the images in full.
    let found = if files.has("manifest.json") {
        let entries: Vec<SaveEntry> = files.json("manifest.json")?;
        let found = entries.iter().map(|entry| entry.found(&files));
        found.collect::<anyhow::Result<Vec<_>>>()?
    } else if files.has("index.json") {
        let index: ImageIndex = files.json("index.json")?;
        let images = index.manifests().iter().filter(|one| !is_attestation(one));
        let found = images.map(|descriptor| layout(&files, descriptor));
        found.collect::<anyhow::Result<Vec<_>>>()?
    } else {
        bail!(
            "this is not an image archive, as docker save or podman save writes one: it has neither manifest.json nor index.json"
        )
    };
    if found.is_empty() {
        bail!("the image archive holds no image");
    }
    Ok(found)
}

/// Beside images, builders put statements about them, as manifests of no platform.
fn is_attestation(descriptor: &Descriptor) -> bool {
    let platform = descriptor.platform().as_ref();
    platform.is_some_and(|platform| platform.architecture().to_string() == "unknown")
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
        found(&files.small(&self.config)?, names, layers)
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
        let ours = ours.with_context(|| {
            let machine = architecture();
            format!(
                "image {} is there for other machines, not for this one, which is {machine}",
                name.map_or(blob.as_str(), String::as_str)
            )
        })?;
        blob = self::blob(ours);
    }
    let manifest: ImageManifest = files.json(&blob)?;
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| files.layer(&self::blob(layer)))
        .collect::<Result<_, _>>()?;
    let config = files.small(&self::blob(manifest.config()))?;
    found(&config, name.cloned().into_iter().collect(), layers)
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

fn found(config: &[u8], names: Vec<String>, layers: Vec<Layer>) -> anyhow::Result<Found> {
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
        size: layers.iter().map(|layer| layer.place.length).sum(),
        ..Image::default()
    };
    Ok(Found {
        id,
        names,
        image,
        layers,
    })
}

/// Where something is in the archive.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    length: u64,
}

/// What is at a place.
struct Content {
    archive: Arc<File>,
    place: Place,
}

impl Content {
    fn new(archive: Arc<File>, place: Place) -> Self {
        Self { archive, place }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.place.length).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = match buffer.get_mut(..most) {
            Some(buffer) => self.archive.read_at(buffer, self.place.start)?,
            None => 0,
        };
        let length = u64::try_from(count).unwrap_or_default();
        self.place.start += length;
        self.place.length -= length;
        Ok(count)
    }
}

/// The largest file that describes an image; real ones are a hundredth of it.
const LARGEST_DESCRIPTION: u64 = 8 << 20;

/// The files of a tar, by path.
struct Files {
    archive: Arc<File>,
    places: HashMap<String, Place>,
    links: HashMap<String, String>,
}

impl Files {
    fn read(archive: Arc<File>) -> anyhow::Result<Self> {
        let mut places = HashMap::new();
        let mut links = HashMap::new();
        let end = archive.metadata()?.len();
        let mut tar = tar::Archive::new(archive.as_ref());
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let path = plain(&entry.path()?);
            if let Some(target) = entry.link_name()? {
                // `docker save` once linked a layer to its equal in another directory.
                let directory = Path::new(&path).parent().unwrap_or(Path::new(""));
                links.insert(path.clone(), plain(&directory.join(target)));
            } else {
                let place = Place {
                    start: entry.raw_file_position(),
                    length: entry.size(),
                };
                if place.length > end.saturating_sub(place.start) {
                    bail!("it ends in the middle of {path}: it was cut short");
                }
                places.insert(path, place);
            }
        }
        Ok(Self {
            archive,
            places,
            links,
        })
    }

    fn has(&self, path: &str) -> bool {
        self.place(path).is_some()
    }

    fn place(&self, path: &str) -> Option<Place> {
        let path = plain(Path::new(path));
        let target = self.links.get(&path).unwrap_or(&path);
        self.places.get(target).copied()
    }

    fn required(&self, path: &str) -> anyhow::Result<Place> {
        self.place(path)
            .with_context(|| format!("the image archive has no {path}, which it refers to"))
    }

    /// A file that describes something.
    fn small(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let place = self.required(path)?;
        if place.length > LARGEST_DESCRIPTION {
            bail!(
                "{path} of the image archive describes an image in {} bytes, which is too large to be true",
                place.length
            );
        }
        let mut content = Vec::new();
        Content::new(self.archive.clone(), place)
            .read_to_end(&mut content)
            .with_context(|| format!("{path} of the image archive"))?;
        Ok(content)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(&self.small(path)?)
            .with_context(|| format!("{path} of the image archive"))
    }

    fn layer(&self, path: &str) -> anyhow::Result<Layer> {
        let place = self.required(path)?;
        let compression = Compression::of(&self.archive, place)?;
        if let Some(other) = compression.refused() {
            bail!(
                "{path} of the image archive is compressed with {other}: save it with gzip or none"
            );
        }
        Ok(Layer {
            archive: self.archive.clone(),
            place,
            gzip: compression == Compression::Gzip,
        })
    }
}

/// How something is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Other(&'static str),
}

impl Compression {
    fn of(archive: &Arc<File>, place: Place) -> io::Result<Self> {
        let mut head = Vec::new();
        Content::new(archive.clone(), place)
            .take(6)
            .read_to_end(&mut head)?;
        let known: [(&[u8], Self); 4] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\x28\xb5\x2f\xfd", Self::Other("zstd")),
            (b"\xfd7zXZ\0", Self::Other("xz")),
            (b"BZh", Self::Other("bzip2")),
        ];
        let known = known.iter().find(|(magic, _)| head.starts_with(magic));
        Ok(known.map_or(Self::None, |(_, compression)| *compression))
    }

    const fn refused(self) -> Option<&'static str> {
        match self {
            Self::Other(name) => Some(name),
            Self::None | Self::Gzip => None,
        }
    }
}

/// The archive itself, or what it inflates to.
fn inflated(archive: File, scratch: &Path) -> anyhow::Result<File> {
    let length = archive.metadata()?.len();
    let archive = Arc::new(archive);
    let place = Place { start: 0, length };
    let compression = Compression::of(&archive, place)?;
    if let Some(other) = compression.refused() {
        bail!("the image archive is compressed with {other}: compress it with gzip, or not at all");
    }
    if compression == Compression::Gzip {
        let mut inflated = tempfile::tempfile_in(scratch)?;
        let mut content = MultiGzDecoder::new(BufReader::new(Content::new(archive, place)));
        io::copy(&mut content, &mut inflated).context("inflating the image archive")?;
        inflated.seek(SeekFrom::Start(0))?;
        return Ok(inflated);
    }
    let mut archive = Arc::into_inner(archive).context("the image archive is in use")?;
    archive.seek(SeekFrom::Start(0))?;
    Ok(archive)
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
