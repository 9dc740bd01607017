//! Which CNI plugin a cluster has, and whether it enforces NetworkPolicies, by its DaemonSet.
//!
//! Start from [`Cluster::plugin`]. What a plugin does with policies is what its project says of it, not
//! what is tried: one that should enforce them and does not is a finding of the checks, and must not
//! make them skip themselves.

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use super::Cluster;
use crate::verdict::{Doing as _, NoVerdict};

/// Where the CNI plugins live that people use, by the labels of their DaemonSets, and what they do
/// with policies.
const KNOWN: &[(&str, &str, Policies)] = &[
    ("vxlan-cni", "app=vxlan-cni", Policies::Ignored),
    // Its chart adds the container that enforces them (`netpol.enabled`).
    (
        "kube-flannel",
        "app=flannel",
        Policies::With("kube-network-policies"),
    ),
    ("kube-system", "k8s-app=cilium", Policies::Enforced),
    ("kube-system", "k8s-app=calico-node", Policies::Enforced),
    ("calico-system", "k8s-app=calico-node", Policies::Enforced),
    ("kube-system", "k8s-app=canal", Policies::Enforced),
    ("kube-system", "component=antrea-agent", Policies::Enforced),
    ("kube-system", "k8s-app=kube-router", Policies::Enforced),
    // Since kind v0.24.0, which has this one; its images are tagged by their day.
    (
        "kube-system",
        "k8s-app=kindnet",
        Policies::Since("v20240813"),
    ),
    ("kube-system", "name=weave-net", Policies::With("weave-npc")),
];

#[derive(Debug, Clone, Copy)]
enum Policies {
    Enforced,
    Ignored,
    /// Enforced by a container of this name, which may not be there.
    With(&'static str),
    /// Enforced from the image on whose tag begins with this day.
    Since(&'static str),
}

/// A CNI plugin that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Where its DaemonSet is.
    pub namespace: &'static str,
    /// The labels of its DaemonSet and pods.
    pub selector: &'static str,
    /// What its DaemonSet is called.
    pub name: String,
    /// Whether it enforces NetworkPolicies.
    pub enforces_policies: bool,
    /// What it does with a packet that no policy allows.
    pub denial: Denial,
}

/// What becomes of a packet that no policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It is dropped, and whoever sent it waits in vain.
    Silent,
    /// It is answered with an ICMP error, and whoever sent it is refused.
    Told,
}

impl Denial {
    /// By the labels of a plugin's DaemonSet. kube-router rejects (`icmp-port-unreachable`, in its
    /// `network_policy_controller`); all others drop.
    fn of(selector: &str) -> Self {
        match selector {
            "k8s-app=kube-router" => Self::Told,
            _ => Self::Silent,
        }
    }
}

impl Cluster {
    /// The CNI plugin, if it is one that we know.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn plugin(&self) -> Result<Option<Plugin>, NoVerdict> {
        let places = KNOWN
            .iter()
            .map(|&(namespace, selector, policies)| async move {
                let sets = Api::<DaemonSet>::namespaced(self.client.clone(), namespace)
                    .list(&ListParams::default().labels(selector))
                    .await
                    .doing(|| format!("looking for a CNI plugin in namespace {namespace}"))?;
                let first = sets.items.into_iter().next();
                Ok::<_, NoVerdict>(first.map(|set| Plugin {
                    namespace,
                    selector,
                    name: set.name_any(),
                    enforces_policies: enforces(policies, &set),
                    denial: Denial::of(selector),
                }))
            });
        let found = try_join_all(places).await?;
        Ok(found.into_iter().flatten().next())
    }
}

fn enforces(policies: Policies, set: &DaemonSet) -> bool {
    let pod = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let mut containers = pod.iter().flat_map(|pod| &pod.containers);
    match policies {
        Policies::Enforced => true,
        Policies::Ignored => false,
        Policies::With(name) => containers.any(|container| container.name == name),
        Policies::Since(first) => containers.any(|container| {
            let image = container.image.as_deref().unwrap_or_default();
            let tag = image
                .split('@')
                .next()
                .and_then(|image| image.rsplit(':').next());
            // Days are compared as text; a tag of another form is nobody's day.
            let day = tag.and_then(|tag| tag.get(..first.len()));
            day.is_some_and(|day| {
                day.starts_with('v')
                    && day[1..].bytes().all(|byte| byte.is_ascii_digit())
                    && day >= first
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whether_policies_are_enforced_is_seen_in_the_daemonset() {
        let set = |containers: &[(&str, &str)]| -> DaemonSet {
            let containers: Vec<_> = containers
                .iter()
                .map(|(name, image)| json!({ "name": name, "image": image }))
                .collect();
            serde_json::from_value(json!({ "spec": {
                "selector": {},
                "template": { "spec": { "containers": containers } },
            } }))
            .unwrap()
        };
        let of = |selector: &str, containers: &[(&str, &str)]| {
            let known = KNOWN.iter().find(|(_, known, _)| *known == selector);
            enforces(known.unwrap().2, &set(containers))
        };
        let flannel = ("kube-flannel", "flannel:v0.28.9");
        let enforcing = ("kube-network-policies", "kube-network-policies:v1.0.0");
        for (selector, containers, expected) in [
            ("app=vxlan-cni", vec![("vxlan-cni", "vxlan-cni:v1")], false),
            (
                "k8s-app=calico-node",
                vec![("calico-node", "node:v3.31.7")],
                true,
            ),
            ("app=flannel", vec![flannel], false),
            ("app=flannel", vec![flannel, enforcing], true),
            (
                "k8s-app=kindnet",
                vec![("kindnet-cni", "kindnetd:v1")],
                false,
            ),
            (
                "k8s-app=kindnet",
                vec![("kindnet-cni", "kindnetd:v20240513-cd2ac642")],
                false,
            ),
            (
                "k8s-app=kindnet",
                vec![("kindnet-cni", "kindnetd:v20240813-c6f155d6")],
                true,
            ),
            (
                "k8s-app=kindnet",
                vec![("kindnet-cni", "a:5/kindnetd:v20250512-df8de77b@sha256:00")],
                true,
            ),
        ] {
            assert_eq!(
                of(selector, &containers),
                expected,
                "{selector} {containers:?}"
            );
        }
    }
}
