//! Which cluster of k3s is asked for, and the words that k3s takes for it.

use crate::settings::{BadInput, Settings};

/// The last release of k3s whose Kubernetes every controller here lists. Never pulled on a machine of this
/// project's, so its digest is not known.
const IMAGE: &str = "rancher/k3s:v1.34.1-k3s1";
const NODES: usize = 3;

/// By the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The image of the nodes.
    pub(super) image: String,
    /// Nodes beside the server.
    pub(super) agents: usize,
    /// Whether k3s' own Traefik and ServiceLB are used.
    pub(super) bundled: bool,
    network: bool,
}

impl Wanted {
    /// By the settings.
    ///
    /// # Errors
    /// When they ask for what this provider has not.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        let network = match settings.cni.as_deref() {
            None | Some("flannel") => true,
            Some("none") => false,
            Some(other) => {
                return Err(BadInput(format!(
                    "STRATA_CNI={other} is not a CNI that this version installs on k3s; choose flannel, which k3s has, \
                     or none"
                )));
            }
        };
        if let Some(family) = settings.ip_family.as_deref().filter(|it| *it != "ipv4") {
            return Err(BadInput(format!(
                "STRATA_IP_FAMILY={family}: this version makes clusters of k3s of ipv4 alone"
            )));
        }
        Ok(Self {
            image: image(settings)?,
            agents: settings.nodes.unwrap_or(NODES) - 1,
            bundled: settings.k3s_bundled,
            network,
        })
    }

    /// How many nodes there are in all.
    pub(super) const fn nodes(&self) -> usize {
        self.agents + 1
    }

    /// Whether nodes get ready: without a CNI plugin they never do.
    pub(super) const fn has_network(&self) -> bool {
        self.network
    }

    /// What `k3s server` is told.
    pub(super) fn server(&self) -> Vec<&'static str> {
        let mut words = vec!["server"];
        if !self.bundled {
            words.extend(["--disable=traefik", "--disable=servicelb"]);
        }
        if !self.network {
            words.extend(["--flannel-backend=none", "--disable-network-policy"]);
        }
        words
    }
}

/// The image that is named, or else the one of a version of Kubernetes, of which k3s makes one release or more
/// (`v1.34.1+k3s1`): a tag has no `+`.
fn image(settings: &Settings) -> Result<String, BadInput> {
    let version = settings.kubernetes_version.as_deref();
    match (&settings.node_image, version) {
        (Some(_), Some(version)) => Err(BadInput(format!(
            "STRATA_KUBERNETES_VERSION={version}: STRATA_NODE_IMAGE names an image, which decides the version; unset one"
        ))),
        (Some(image), None) => Ok(image.clone()),
        (None, None) => Ok(IMAGE.to_owned()),
        (None, Some(version)) => {
            let version = version.trim_start_matches('v');
            let number = version.split(['+', '-']).next().unwrap_or_default();
            if number.parse::<semver::Version>().is_err() {
                return Err(BadInput(format!(
                    "STRATA_KUBERNETES_VERSION={version} is no release of k3s; it has three numbers, as v1.34.1 or \
                     v1.34.1+k3s1"
                )));
            }
            let release = match number == version {
                true => format!("{version}-k3s1"),
                false => version.replace('+', "-"),
            };
            Ok(format!("rancher/k3s:v{release}"))
        }
    }
}
