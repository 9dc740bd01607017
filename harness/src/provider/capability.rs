//! What a cluster can do, found out by looking.

use std::collections::BTreeSet;
use std::str::FromStr;

use gateway_api::experimental::xmeshes::XMesh;
use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use super::{Balancer, Cluster, Plugin};
use crate::verdict::{Doing as _, NoVerdict};

/// What a cluster must be able to do before a check means anything. Found out by looking at the
/// cluster; a check whose need is not met is skipped with that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// No other check beside it: it changes what they all see. Met by the order of the run.
    Alone,
    /// At least so many schedulable nodes.
    Nodes(usize),
    /// Schedulable nodes in at least so many zones, by their labels.
    Zones(usize),
    /// An implementation of `type: LoadBalancer`.
    LoadBalancer,
    /// One whose addresses are no cluster IPs, so that they are subject to `externalTrafficPolicy` and
    /// `loadBalancerSourceRanges`, and go when the load balancer goes.
    BalancerAddress,
    /// A vantage outside the cluster that reaches node addresses.
    Outside,
    /// Pods that use their node's network or ports. The Pod Security Standards baseline and restricted
    /// forbid them, and a cluster that enforces one refuses them.
    NodeNetwork,
    /// A cluster that was made for the run: what the check changes for a moment is everybody's, and on
    /// somebody's cluster others would see it.
    Ours,
    /// A CNI plugin whose DaemonSet we know.
    Plugin,
    /// A CNI plugin that enforces NetworkPolicies.
    NetworkPolicy,
    /// Addresses of IPv4 and of IPv6.
    DualStack,
    /// A feature that the Gateway API leaves to implementations, by the name that its conformance
    /// suite gives it: a GatewayClass says that it has it, or a mesh (XMesh).
    GatewayFeature(&'static str),
    /// Kubernetes 1.N or later: the first version that has a field, an API or a behaviour without a
    /// feature gate that has to be opened.
    Version(u32),
    /// Half a minute and more, which a person grants by `STRATA_SLOW=1`. For the runner to decide.
    Time,
}

impl FromStr for Need {
    type Err = String;

    /// Reads one that needs no number, by its name here.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = [
            ("LoadBalancer", Self::LoadBalancer),
            ("Outside", Self::Outside),
            ("NodeNetwork", Self::NodeNetwork),
            ("NetworkPolicy", Self::NetworkPolicy),
            ("DualStack", Self::DualStack),
        ];
        let found = named.iter().find(|(known, _)| *known == name);
        found.map(|(_, need)| *need).ok_or_else(|| {
            let names = named.map(|(known, _)| known).join(", ");
            format!("{name} is nothing that a cluster can be found to have; write one of {names}")
        })
    }
}

impl Cluster {
    /// Why a need is not met; nothing if it is.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn lacks(&self, need: Need) -> Result<Option<String>, NoVerdict> {
        Ok(match need {
            Need::Alone => None,
            Need::Nodes(wanted) => {
                let nodes = Api::<Node>::all(self.client.clone())
                    .list(&ListParams::default())
                    .await
                    .doing(|| "counting the nodes".to_owned())?;
                let found = nodes.items.iter().filter(|node| schedulable(node)).count();
                let are = if found == 1 { "is" } else { "are" };
                (found < wanted)
                    .then(|| format!("needs {wanted} schedulable nodes; there {are} {found}"))
            }
            Need::Zones(wanted) => {
                let nodes = Api::<Node>::all(self.client.clone())
                    .list(&ListParams::default())
                    .await
                    .doing(|| "looking at the nodes' zones".to_owned())?;
                let nodes = nodes.items.iter().filter(|node| schedulable(node));
                let zones: BTreeSet<_> = nodes.filter_map(zone).collect();
                let found = zones.len();
                (found < wanted).then(|| {
                    format!("needs nodes in {wanted} zones ({ZONE}); those of {found} are known")
                })
            }
            Need::LoadBalancer | Need::BalancerAddress => match &self.load_balancer {
                Balancer::None(why) => {
                    Some(format!("needs an implementation of type LoadBalancer; {why}"))
                }
                Balancer::ClusterIps if need == Need::BalancerAddress => Some(
                    "needs load balancers with addresses of their own; here they have their Services' \
                     cluster IPs"
                        .to_owned(),
                ),
                Balancer::ClusterIps | Balancer::Own => None,
            },
            Need::Outside => self.outside.is_none().then(|| {
                "needs a vantage outside the cluster that reaches the nodes; there is none"
                    .to_owned()
            }),
            Need::NodeNetwork => self.node_network.as_ref().err().map(|why| {
                format!("needs pods that use their node's network or ports; the cluster refuses them: {why}")
            }),
            Need::Ours => (!self.ours).then(|| {
                "needs a cluster that nobody else uses: it changes what is everybody's; this one was there already"
                    .to_owned()
            }),
            Need::Plugin => self.plugin().await?.is_none().then(|| {
                "needs a CNI plugin whose DaemonSet strata knows; there is none, so it runs outside \
                 of pods or is a new one"
                    .to_owned()
            }),
            Need::NetworkPolicy => {
                let needs = "needs a CNI plugin that enforces NetworkPolicies";
                match self.plugin().await? {
                    Some(plugin) if plugin.enforces_policies => None,
                    Some(Plugin {
                        namespace, name, ..
                    }) => Some(format!("{needs}; {namespace}/{name} ignores them")),
                    None => Some(format!("{needs}; there is none that we know")),
                }
            }
            Need::DualStack => {
                let nodes = Api::<Node>::all(self.client.clone())
                    .list(&ListParams::default())
                    .await
                    .doing(|| "looking at the nodes' address families".to_owned())?;
                let families: BTreeSet<_> = nodes.iter().flat_map(families).collect();
                (families.len() < 2).then(|| {
                    let has = families.into_iter().next().unwrap_or("no address family");
                    format!("needs pod CIDRs of IPv4 and of IPv6; the nodes have {has} only")
                })
            }
            Need::GatewayFeature(name) => {
                let classes = Api::<GatewayClass>::all(self.client.clone())
                    .list(&ListParams::default())
                    .await
                    .doing(|| "asking GatewayClasses for their features".to_owned())?;
                let meshes = meshes(&self.client).await?;
                let supported = classes.iter().any(|class| supports(class, name))
                    || meshes.iter().any(|mesh| mesh_supports(mesh, name));
                (!supported).then(|| {
                    format!(
                        "needs {name}; no GatewayClass or mesh says that it has that (supportedFeatures)"
                    )
                })
            }
            Need::Time => None,
            Need::Version(minor) => {
                let version = self.versions.get("kubernetes");
                let version = version.ok_or_else(|| {
                    NoVerdict::new("the provider does not tell the version of Kubernetes")
                })?;
                older(version, minor)?
                    .then(|| format!("needs Kubernetes 1.{minor}; this is {version}"))
            }
        })
    }
}

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

fn zone(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(ZONE)
}

/// Whether a class says that its controller does something (GEP-2162).
fn supports(class: &GatewayClass, feature: &str) -> bool {
    let status = class.status.iter();
    let mut features = status.flat_map(|status| status.supported_features.iter().flatten());
    features.any(|supported| supported.name == feature)
}

/// The meshes that say of themselves what they do; none where that cannot be said.
async fn meshes(client: &kube::Client) -> Result<Vec<XMesh>, NoVerdict> {
    let api = Api::<XMesh>::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // Where the kind is not there, whoever has no right to it is told of that first.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Vec::new()),
        Err(error) => Err(error).doing(|| "asking meshes for their features".to_owned()),
    }
}

/// The same of a mesh (GEP-3949).
fn mesh_supports(mesh: &XMesh, feature: &str) -> bool {
    let status = mesh.status.iter();
    let mut features = status.flat_map(|status| status.supported_features.iter().flatten());
    features.any(|supported| supported.name == feature)
}

/// Whether a version (`v1.34.0`, `v1.29.4-gke.1043000`) is older than 1.N.
fn older(version: &str, minor: u32) -> Result<bool, NoVerdict> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut number = || numbers.next()?.trim_end_matches('+').parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(own)) => Ok((major, own) < (1, minor)),
        _ => Err(NoVerdict::new(format!(
            "{version:?} is no version of Kubernetes that we know to read"
        ))),
    }
}

/// The families of a node's pod CIDRs.
fn families(node: &Node) -> impl Iterator<Item = &'static str> {
    let spec = node.spec.iter();
    let cidrs = spec.flat_map(|spec| spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten()));
    cidrs.map(|cidr| if cidr.contains(':') { "IPv6" } else { "IPv4" })
}

/// Whether an ordinary pod may be put there.
fn schedulable(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return true };
    let repels = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
    let tainted = spec
        .taints
        .iter()
        .flatten()
        .any(|taint| repels(&taint.effect));
    !tainted && spec.unschedulable != Some(true)
}

#[cfg(test)]
mod tests {
    use super::older;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, minor, expected) in [
            ("v1.34.0", 34, false),
            ("v1.34.0", 35, true),
            ("v1.9.11", 20, true),
            ("v1.20.2", 21, true),
            ("v1.20.2", 20, false),
            ("v1.29.4-gke.1043000", 29, false),
            ("v1.27+", 27, false),
            ("v2.0.0", 34, false),
        ] {
            assert_eq!(
                older(version, minor).unwrap(),
                expected,
                "{version} {minor}"
            );
        }
        assert!(older("latest", 20).is_err());
    }
}
