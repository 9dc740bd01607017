//! Images: what containers are made of.
//!
//! Start from [`Store`]. An image comes in as an archive, as `docker save` or an OCI layout, and
//! its layers are unpacked once, on the lab's tmpfs; nothing is ever pulled from a registry. The
//! one image that is not loaded is the host's own Envoy. Rule: a name means what containerd takes
//! it to mean, so `probe:v1` is `docker.io/library/probe:v1`.

mod archive;
mod host;
mod layer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use tokio::sync::watch;

pub(super) use archive::architecture as archive_architecture;

use self::archive::Layer;
use super::rootfs::Bind;
use crate::topology::ENVOY_IMAGE;

/// An image that containers can be started from.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Its unpacked files.
    pub files: PathBuf,
    /// What of the host is mounted into it.
    pub binds: Vec<Bind>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `ENV`.
    pub env: Vec<(String, String)>,
    /// `WORKDIR`.
    pub working_dir: String,
    /// The size of its archive's layers.
    pub size: u64,
}

/// The images that the lab has.
pub struct Store {
    root: PathBuf,
    images: Mutex<HashMap<String, Arc<Image>>>,
    changed: watch::Sender<usize>,
}

impl Store {
    /// An empty store that unpacks below `root`; `envoy` is the program of the image of the host's
    /// Envoy.
    ///
    /// # Errors
    /// When the directory cannot be made, or Envoy's libraries are not found.
    pub fn new(root: &Path, envoy: Option<&Path>) -> anyhow::Result<Self> {
        let root = root.join("images");
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let store = Self {
            root,
            images: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        if let Some(envoy) = envoy {
            let image = host::image(envoy, "/envoy", &store.root.join("envoy"))?;
            store.add(ENVOY_IMAGE, Arc::new(image));
        }
        Ok(store)
    }

    /// Loads every image of an archive, and says their names in full.
    ///
    /// # Errors
    /// When it is not an archive of images, or cannot be unpacked; then none of it is there.
    pub fn load(&self, archive: File) -> anyhow::Result<Vec<String>> {
        let mut loaded = Vec::new();
        for found in archive::images(archive, &self.root)? {
            let digest = found.id.trim_start_matches("sha256:");
            if found.names.is_empty() {
                bail!(
                    "image {digest} has no name in the archive: save it by its name, as in docker save NAME:TAG"
                );
            }
            let files = self.unpacked(digest, &found.layers)?;
            let image = Arc::new(Image {
                files,
                ..found.image
            });
            loaded.push((found.names, image));
        }
        let mut names = Vec::new();
        for (image_names, image) in loaded {
            for name in image_names {
                self.add(&name, image.clone());
                names.push(normalised(&name));
            }
        }
        Ok(names)
    }

    /// The directory that an image's layers are unpacked in.
    fn unpacked(&self, digest: &str, layers: &[Layer]) -> anyhow::Result<PathBuf> {
        let files = self.root.join(digest);
        if files.exists() {
            return Ok(files);
        }
        // Unpacked beside and renamed, so that what is there is whole.
        let partial = tempfile::tempdir_in(&self.root)?;
        for layer in layers {
            layer::unpack(|| layer.open(), partial.path())
                .with_context(|| format!("cannot unpack a layer of image {digest}"))?;
        }
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
        match fs::rename(partial.path(), &files) {
            // Somebody else was first.
            Err(_) if files.exists() => {}
            renamed => {
                renamed?;
                // It is not there any more under the name that it would be removed by.
                let _ = partial.keep();
            }
        }
        Ok(files)
    }

    /// A file without a name that an archive can be kept in while it is loaded.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.root)
    }

    /// The image of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.locked().get(&normalised(name)).cloned()
    }

    /// All names with their images.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Arc<Image>)> {
        let images = self.locked();
        images
            .iter()
            .map(|(name, image)| (name.clone(), image.clone()))
            .collect()
    }

    /// Changes whenever an image is added.
    pub(super) fn changes(&self) -> watch::Receiver<usize> {
        self.changed.subscribe()
    }

    fn add(&self, name: &str, image: Arc<Image>) {
        self.locked().insert(normalised(name), image);
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Image>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reference in full, as containerd has it.
#[must_use]
pub fn normalised(name: &str) -> String {
    let with_domain = match name.split_once('/') {
        // Only a first part that could be a host name is one.
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    let last = with_domain.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        with_domain
    } else {
        format!("{with_domain}:latest")
    }
}
