//! Pods as checks see them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::watcher;

use super::Scope;
use crate::budget::CREATE;
use crate::probe::Vantage;
use crate::verdict::NoVerdict;
use crate::wait::{self, Progress};

/// A pod that runs, in the words of a check.
#[derive(Debug, Clone)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Its own address (the first of `status.podIPs`).
    pub ip: IpAddr,
    /// Its node's address.
    pub host_ip: IpAddr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All of it.
    pub pod: Pod,
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

impl Scope {
    /// The pods of a label selector in [`Self::namespace`], by name. Waits until there is at least
    /// one and all that are not on their way out are ready.
    ///
    /// # Errors
    /// When that is not so within [`CREATE`]; the reason names the pod and what it waits for.
    pub async fn ready_pods(&self, selector: &str) -> Result<Vec<PodView>, NoVerdict> {
        self.ready_pods_in(self.namespace(), selector).await
    }

    /// [`Self::ready_pods`] in a namespace of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::ready_pods`].
    pub async fn ready_pods_in(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<PodView>, NoVerdict> {
        let api = kube::Api::<Pod>::namespaced(self.client().clone(), namespace);
        let selection = watcher::Config::default().labels(selector);
        let what = format!("the pods {selector} in {namespace} are ready");
        wait::watched(&what, CREATE, api, selection, |pods| {
            all_ready(pods, selector)
        })
        .await
    }

    /// The vantage of the first of [`Self::ready_pods`].
    ///
    /// # Errors
    /// As [`Self::ready_pods`].
    pub async fn pod(&self, selector: &str) -> Result<Vantage, NoVerdict> {
        let pods = self.ready_pods(selector).await?;
        let first = pods.first();
        let first = first.ok_or_else(|| NoVerdict::new(format!("there is no pod {selector}")))?;
        Ok(self.from_pod(first))
    }

    /// The vantage of a pod.
    #[must_use]
    pub fn from_pod(&self, pod: &PodView) -> Vantage {
        Vantage::pod_of(self.client().clone(), pod, self.transcript().clone())
    }

    /// The vantage outside the cluster.
    ///
    /// # Errors
    /// When there is none; a check that needs it says so in its row ([`crate::Need::Outside`]).
    pub fn outside(&self) -> Result<Vantage, NoVerdict> {
        match &self.cluster().outside {
            Some(outside) => Ok(Vantage::outside_of(
                outside.clone(),
                self.transcript().clone(),
            )),
            None => Err(NoVerdict::new("there is no vantage outside this cluster")
                .with_likely("the check's row does not say that it needs one (Need::Outside)")),
        }
    }
}

fn all_ready(pods: &[&Pod], selector: &str) -> Progress<Vec<PodView>> {
    let lives = |pod: &&&Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let live: Vec<_> = pods.iter().filter(lives).copied().collect();
    if live.is_empty() {
        return Progress::NotYet(format!("no pod has the labels {selector}"));
    }
    if let Some(reason) = live.iter().find_map(|pod| not_ready(pod)) {
        return Progress::NotYet(reason);
    }
    let views: Vec<_> = live.iter().filter_map(|pod| PodView::of(pod)).collect();
    if views.len() == live.len() {
        Progress::Ready(views)
    } else {
        Progress::NotYet("a pod has no address yet".to_owned())
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
