//! The CNI plugin of a cluster of kind.

use kube::Client;

use super::NODE_COUNT;
use crate::asset::Assets;
use crate::provider::Progress;
use crate::provider::containers::all_ready;
use crate::provider::upstream::{Part, Upstream};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};

const CALICO: Part = Part {
    called: "calico",
    asset: "calico",
    kubernetes: "*",
};

/// What the pods' network is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    /// kind's own.
    Kindnet,
    /// Nothing: nodes never get ready.
    Nothing,
    /// Calico, by its project's manifest.
    Calico,
}

impl Plugin {
    /// The one that is asked for.
    ///
    /// # Errors
    /// When this provider has not got it.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        match settings.cni.as_deref() {
            None | Some("kindnet") => Ok(Self::Kindnet),
            Some("calico") => Ok(Self::Calico),
            Some("none") => Ok(Self::Nothing),
            Some(other) => Err(BadInput(format!(
                "STRATA_CNI={other} is not a CNI that this version installs on kind; choose kindnet, which kind has, \
                 calico, or none"
            ))),
        }
    }

    /// What has to be installed for it, if anything.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn find(
        self,
        assets: &Assets,
        progress: Progress<'_>,
    ) -> anyhow::Result<Option<Upstream>> {
        match self {
            Self::Calico => {
                let calico = Upstream::find(assets, CALICO, progress).await;
                let calico = calico.map_err(|why| anyhow::anyhow!("STRATA_CNI=calico: {why}"));
                calico.map(Some)
            }
            Self::Kindnet | Self::Nothing => Ok(None),
        }
    }
}

/// Installs a plugin that kind has not, and waits for the nodes, which wait for it.
///
/// # Errors
/// When it does not come up, or a node does not.
pub(super) async fn install(
    plugin: &Upstream,
    client: &Client,
    run: &RunInfo,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    plugin.install((client, &run.id), None, progress).await?;
    all_ready(client, NODE_COUNT).await
}
