//! What other projects publish as one file, pinned in `manifests/assets.yaml`.
//!
//! Start from [`Upstream::find`]. Who makes a cluster of its own looks for them beforehand, so that nothing
//! that cannot be had is missed half-way. Rule: into a cluster that somebody has nothing of this is
//! installed.

use kube::Client;
use semver::{Prerelease, Version, VersionReq};

use super::Progress;
use crate::apply::{Applier, Fit, Manifest, install};
use crate::asset::Assets;
use crate::budget::INSTALL;
use crate::run::RunInfo;
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// What can be installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// What it is called in reports.
    pub(super) called: &'static str,
    /// Its name in `manifests/assets.yaml`; nothing where its project has no such file.
    pub(super) asset: Option<&'static str>,
    /// The versions of Kubernetes that its project lists for the version that is pinned.
    pub(super) kubernetes: &'static str,
}

/// A project's file, verified and read.
#[derive(Debug)]
pub(super) struct Upstream {
    part: Part,
    /// Which version of it is pinned.
    version: String,
    manifest: Manifest,
}

impl Upstream {
    /// The file of an asset, fetched if it has to be.
    ///
    /// # Errors
    /// Why it cannot be had, as what needs it is skipped with.
    pub(super) async fn find(
        assets: &Assets,
        part: Part,
        progress: Progress<'_>,
    ) -> Result<Self, String> {
        let Part { called, asset, .. } = part;
        let Some(asset) = asset else {
            return Ok(Self {
                part,
                version: String::new(),
                manifest: Manifest::default(),
            });
        };
        let listed = assets.listed().iter().find(|it| it.name == asset);
        let version = listed.map(|it| it.version.clone()).unwrap_or_default();
        let cannot = |why: String| format!("{called} {version} cannot be had: {why}");
        let path = assets.get(asset, progress).await;
        let path = path.map_err(|error| cannot(error.to_string()))?;
        let manifest = Manifest::load(&path, &path.display().to_string());
        let manifest = manifest.map_err(|error| cannot(error.to_string()))?;
        Ok(Self {
            part,
            version,
            manifest,
        })
    }

    /// One that was read already.
    #[cfg(test)]
    #[cfg(target_os = "linux")]
    pub(super) fn of(part: Part, version: &str, manifest: Manifest) -> Self {
        Self {
            part,
            version: version.to_owned(),
            manifest,
        }
    }

    /// What it is called in reports, with its version.
    pub(super) fn shown(&self) -> (String, String) {
        (self.part.called.to_owned(), self.version.clone())
    }

    /// [`Self::find`] for a layer, if the run plans it.
    ///
    /// # Errors
    /// Why the layer is skipped.
    pub(super) async fn planned(
        run: &RunInfo,
        layer: Layer,
        assets: &Assets,
        part: Part,
        progress: Progress<'_>,
    ) -> Result<Self, String> {
        match run.manifests.layer(layer) {
            Some(_) => Self::find(assets, part, progress).await,
            None => Err(format!("this run plans no {layer}")),
        }
    }

    /// Whether its project lists this version of Kubernetes.
    ///
    /// # Errors
    /// That it does not.
    pub(super) fn on(&self, kubernetes: &str) -> Result<(), String> {
        let Part {
            called,
            kubernetes: lists,
            ..
        } = self.part;
        match listed(lists, kubernetes) {
            true => Ok(()),
            false => Err(format!(
                "{called} {} is for Kubernetes {lists}, and this is {kubernetes}",
                self.version
            )),
        }
    }

    /// Applies it, then more that its kinds are needed for, and waits until all of it works.
    ///
    /// # Errors
    /// When the API refuses something, or something never gets ready.
    pub(super) async fn install(
        &self,
        (client, run): (&Client, &str),
        more: Option<&str>,
        progress: Progress<'_>,
    ) -> anyhow::Result<()> {
        let called = self.part.called;
        progress(format!("installing {called} {}", self.version).trim_end());
        let shown = format!("what {called} is told");
        let more = more.map(|text| Manifest::parse(text, &shown)).transpose()?;
        let applier = Applier::new(client.clone(), Fit::default(), run);
        for manifest in [&self.manifest].into_iter().chain(&more) {
            let installed = install(&applier, client, manifest, INSTALL, progress).await;
            installed.map_err(NoVerdict::into_error)?;
        }
        Ok(())
    }
}

/// Whether a range has a version as the API server tells it (`v1.34.1-gke.7`).
fn listed(range: &str, version: &str) -> bool {
    let version = version.trim_start_matches('v');
    let (Ok(range), Ok(mut version)) = (VersionReq::parse(range), Version::parse(version)) else {
        return false;
    };
    version.pre = Prerelease::EMPTY;
    range.matches(&version)
}
