//! Which cluster of k3s is asked for, and the words that k3s takes for it.

use ipnet::Ipv6Net;
use rand::RngExt as _;

use crate::settings::{BadInput, Settings};

/// The last release of k3s whose Kubernetes every controller here lists. Never pulled on a machine of this
/// project's, so its digest is not known.
const IMAGE: &str = "rancher/k3s:v1.34.1-k3s1";
const NODES: usize = 3;
/// k3s' own ranges of IPv4 beside those of IPv6, as long as its documentation recommends them ("Dual-stack Networking").
/// Nothing routes these addresses, so what leaves the cluster bears a node's.
const DUAL_STACK: [&str; 3] = [
    "--cluster-cidr=10.42.0.0/16,fd00:10:42::/56",
    "--service-cidr=10.43.0.0/16,fd00:10:43::/112",
    "--flannel-ipv6-masq",
];
/// What a container needs for IPv6 where the engine does not switch it on: as kind runs its nodes.
const IPV6: [&str; 4] = [
    "--sysctl",
    "net.ipv6.conf.all.disable_ipv6=0",
    "--sysctl",
    "net.ipv6.conf.all.forwarding=1",
];

/// Of which address families pods, Services and nodes have addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    Ipv4,
    Dual,
}

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
    families: Families,
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
        let families = match settings.ip_family.as_deref() {
            None | Some("ipv4") => Families::Ipv4,
            Some("dual") => Families::Dual,
            Some(other) => {
                return Err(BadInput(format!(
                    "STRATA_IP_FAMILY={other} is no family of a k3s cluster; choose ipv4 or dual"
                )));
            }
        };
        Ok(Self {
            image: image(settings)?,
            agents: settings.nodes.unwrap_or(NODES) - 1,
            bundled: settings.k3s_bundled,
            network,
            families,
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
        if self.families == Families::Dual {
            let [pods, services, masquerade] = DUAL_STACK;
            words.extend([pods, services]);
            // Flannel's, and refused without it.
            words.extend(self.network.then_some(masquerade));
        }
        words
    }

    /// What the engine is told of the nodes' network. Engines from before 2024 choose no IPv6 subnet themselves.
    pub(super) fn subnet(&self) -> Vec<String> {
        match self.families {
            Families::Ipv4 => Vec::new(),
            Families::Dual => vec![
                "--ipv6".to_owned(),
                "--subnet".to_owned(),
                unique_local().to_string(),
            ],
        }
    }

    /// What the engine is told of every node's container.
    pub(super) const fn container(&self) -> &'static [&'static str] {
        match self.families {
            Families::Ipv4 => &[],
            Families::Dual => &IPV6,
        }
    }
}

/// A subnet that nobody else has (RFC 4193, section 3.2: forty bits by chance).
fn unique_local() -> Ipv6Net {
    let global: u128 = rand::rng().random_range(0..1 << 40);
    Ipv6Net::new_assert(((0xfd << 120) | (global << 80)).into(), 64)
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
