//! Pods as checks see them.
//!
//! Start from [`PodView::of`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// A pod that runs, in the words of a check.
#[derive(Clone)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Its own address: the first of `status.podIPs`, or of the family that it is [looked at](Self::in_family) in.
    pub ip: IpAddr,
    /// All of them (`status.podIPs`).
    pub ips: Vec<IpAddr>,
    /// Its node's address.
    pub host_ip: IpAddr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All of it.
    pub pod: Pod,
}

/// In one line: all of a pod is two hundred.
impl fmt::Debug for PodView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            name,
            node,
            ip,
            ..
        } = self;
        write!(f, "PodView({namespace}/{name}, {ip}, on {node})")
    }
}

impl PodView {
    /// The view of a pod that has its addresses; nothing before that.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        Some(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            node: pod.spec.as_ref()?.node_name.clone()?,
            ip: status.pod_ip.as_ref()?.parse().ok()?,
            ips: status
                .pod_ips
                .iter()
                .flatten()
                .filter_map(|one| one.ip.parse().ok())
                .collect(),
            host_ip: status
                .host_ip
                .as_ref()
                .map_or(Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), |ip| {
                    ip.parse().ok()
                })?,
            labels: pod.labels().clone(),
            pod: pod.clone(),
        })
    }
}

impl PodView {
    /// The same pod by its addresses, and its node's, of the family of another address, as if it had
    /// no others; nothing if it has none of that family.
    #[must_use]
    pub fn in_family(&self, like: IpAddr) -> Option<Self> {
        let ip = |ips: &[IpAddr]| {
            ips.iter()
                .copied()
                .find(|ip| ip.is_ipv4() == like.is_ipv4())
        };
        let hosts = self
            .pod
            .status
            .iter()
            .flat_map(|of| of.host_ips.iter().flatten());
        let hosts: Vec<IpAddr> = hosts.filter_map(|one| one.ip.parse().ok()).collect();
        let own = if self.ip.is_ipv4() == like.is_ipv4() {
            self.ip
        } else {
            ip(&self.ips)?
        };
        let mut view = Self {
            ip: own,
            host_ip: ip(&hosts).unwrap_or(self.host_ip),
            ..self.clone()
        };
        if let Some(status) = &mut view.pod.status {
            status.pod_ip = Some(own.to_string());
        }
        Some(view)
    }
}

/// Why a pod is not ready; nothing if it is.
#[must_use]
pub fn not_ready(pod: &Pod) -> Option<String> {
    let name = pod.name_any();
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|it| it.status == "False") {
        let why = scheduled.message.as_deref().unwrap_or("no reason given");
        return Some(format!("Pod {name} is not scheduled: {why}"));
    }
    let init = status.init_container_statuses.unwrap_or_default();
    let containers = init
        .into_iter()
        .chain(status.container_statuses.unwrap_or_default());
    for container in containers {
        let state = container.state.unwrap_or_default();
        if let Some(waiting) = state.waiting {
            let reason = waiting.reason.unwrap_or_default();
            let message = waiting.message.unwrap_or_default();
            return Some(
                format!(
                    "Pod {name}: container {} is waiting: {reason} {message}",
                    container.name
                )
                .trim_end()
                .to_owned(),
            );
        }
        if let Some(ended) = state.terminated.filter(|ended| ended.exit_code != 0) {
            return Some(format!(
                "Pod {name}: container {} ended with exit code {}",
                container.name, ended.exit_code
            ));
        }
        if state.running.is_some() && !container.ready {
            return Some(format!(
                "Pod {name}: container {} runs and is not ready",
                container.name
            ));
        }
    }
    Some(match status.phase.as_deref() {
        None | Some("Pending") => format!("Pod {name} is pending"),
        Some(phase) => format!("Pod {name} is {phase} and not ready"),
    })
}
