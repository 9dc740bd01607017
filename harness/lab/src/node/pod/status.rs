//! What is reported of a pod: from what its containers do to `status`.
//!
//! Start from [`report`], a function of what is known and nothing else.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PodState {
    pub(super) init: Vec<ContainerStatus>,
    pub(super) containers: Vec<ContainerStatus>,
    /// One a family, the cluster's first choice first.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether the namespaces and the network are there.
    pub(super) sandbox: bool,
    pub(super) started: Option<Time>,
    /// Why the pod as a whole can never run: a reason and a message.
    pub(super) failed: Option<(String, String)>,
    /// Whether nothing will be started again.
    pub(super) ended: bool,
}

/// A container that is still to come.
pub(super) fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    }
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    Some(state.terminated.as_ref()?.exit_code)
}

fn running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

fn last(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

/// Whether an init container goes on beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl PodState {
    /// Before anything is done.
    pub(super) fn new(spec: &PodSpec) -> Self {
        let has_init = spec
            .init_containers
            .as_ref()
            .is_some_and(|init| !init.is_empty());
        let reason = if has_init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let status = |container: &Container| ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting(reason, None)),
            last_state: Some(ContainerState::default()),
            started: Some(false),
            ..ContainerStatus::default()
        };
        Self {
            init: spec.init_containers.iter().flatten().map(status).collect(),
            containers: spec.containers.iter().map(status).collect(),
            started: Some(Time(Timestamp::now())),
            ..Self::default()
        }
    }

    /// Whether an init container is over, or is up if it is a sidecar.
    fn initialized(&self, spec: &PodSpec, index: usize) -> bool {
        let container = spec
            .init_containers
            .as_ref()
            .and_then(|init| init.get(index));
        let Some(status) = self.init.get(index) else {
            return true;
        };
        if container.is_some_and(is_sidecar) {
            return status.started == Some(true) || self.ended;
        }
        exit_code(status) == Some(0)
    }

    fn phase(&self, spec: &PodSpec) -> &'static str {
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        if self.failed.is_some() {
            return "Failed";
        }
        for (index, status) in self.init.iter().enumerate() {
            if self.initialized(spec, index) {
                continue;
            }
            let failed = exit_code(status).is_some_and(|code| code != 0);
            return if failed && (policy == "Never" || self.ended) {
                "Failed"
            } else {
                "Pending"
            };
        }
        let all = self.containers.len();
        let is_running = self
            .containers
            .iter()
            .filter(|status| running(status))
            .count();
        let stopped = self.containers.iter().filter(|status| {
            exit_code(status).is_some() || (!running(status) && last(status).is_some())
        });
        let stopped = stopped.count();
        let succeeded = self
            .containers
            .iter()
            .filter(|status| exit_code(status) == Some(0))
            .count();
        if is_running + stopped < all {
            return if self.ended { "Failed" } else { "Pending" };
        }
        if is_running > 0 {
            return "Running";
        }
        match policy {
            _ if !self.ended && policy == "Always" => "Running",
            _ if succeeded == all => "Succeeded",
            _ if self.ended || policy == "Never" => "Failed",
            _ => "Running",
        }
    }
}

fn names<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> String {
    let names = statuses
        .map(|status| status.name.as_str())
        .collect::<Vec<_>>();
    names.join(" ")
}

/// `pod.status` for what is known; conditions that are not the kubelet's stay.
pub(super) fn report(pod: &Pod, state: &PodState, host: &[IpAddr]) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = state.phase(&spec);
    let finished = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let incomplete = state.init.iter().enumerate();
    let incomplete = incomplete.filter(|(index, _)| !state.initialized(&spec, *index));
    let incomplete = names(incomplete.map(|(_, status)| status));
    let sidecars = state.init.iter().zip(spec.init_containers.iter().flatten());
    let sidecars = sidecars
        .filter(|(_, container)| is_sidecar(container))
        .map(|(status, _)| status);
    let unready = names(
        sidecars
            .chain(&state.containers)
            .filter(|status| !status.ready),
    );

    let initialized = if phase == "Succeeded" {
        Judged::new(true, "PodCompleted", None)
    } else if incomplete.is_empty() {
        Judged::yes()
    } else {
        let message = format!("containers with incomplete status: [{incomplete}]");
        Judged::new(false, "ContainersNotInitialized", Some(message))
    };
    let containers_ready = match finished {
        Some(reason) => Judged::new(false, reason, None),
        None if unready.is_empty() => Judged::yes(),
        None => {
            let message = format!("containers with unready status: [{unready}]");
            Judged::new(false, "ContainersNotReady", Some(message))
        }
    };
    let closed = spec.readiness_gates.iter().flatten().find(|gate| {
        let condition = conditions(pod).find(|condition| condition.type_ == gate.condition_type);
        condition.is_none_or(|condition| condition.status != "True")
    });
    let ready = match closed {
        Some(gate) if containers_ready.holds => {
            let message = format!(
                "corresponding condition of pod readiness gate \"{}\" is not True.",
                gate.condition_type
            );
            Judged::new(false, "ReadinessGatesNotReady", Some(message))
        }
        _ => containers_ready.clone(),
    };
    let ours = [
        (
            "PodReadyToStartContainers",
            Judged {
                holds: state.sandbox,
                ..Judged::default()
            },
        ),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    let others = conditions(pod).filter(|known| ours.iter().all(|(name, _)| known.type_ != *name));
    let mut all = others.cloned().collect::<Vec<_>>();
    if !all
        .iter()
        .any(|condition| condition.type_ == "PodScheduled")
    {
        all.push(condition(pod, "PodScheduled", Judged::yes()));
    }
    all.extend(
        ours.clone()
            .map(|(name, judged)| condition(pod, name, judged)),
    );
    all.sort_by_key(|condition| ORDER.iter().position(|name| condition.type_ == *name));

    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(all),
        reason: state.failed.as_ref().map(|(reason, _)| reason.clone()),
        message: state.failed.as_ref().map(|(_, message)| message.clone()),
        host_ip: first(host),
        host_ips: Some(host_ips(host)),
        pod_ips: pod_ips(&state.addresses),
        pod_ip: first(&state.addresses),
        start_time: state.started.clone(),
        init_container_statuses: Some(state.init.clone()).filter(|init| !init.is_empty()),
        container_statuses: Some(state.containers.clone()),
        qos_class: Some(qos_class(&spec).to_owned()),
        ..PodStatus::default()
    }
}

/// A node's addresses, as `status.hostIPs` has them.
pub(super) fn host_ips(addresses: &[IpAddr]) -> Vec<HostIP> {
    let each = addresses.iter().map(ToString::to_string);
    each.map(|ip| HostIP { ip }).collect()
}

/// A pod's addresses, as `status.podIPs` has them.
pub(super) fn pod_ips(addresses: &[IpAddr]) -> Option<Vec<PodIP>> {
    let each = addresses.iter().map(ToString::to_string);
    (!addresses.is_empty()).then(|| each.map(|ip| PodIP { ip }).collect())
}

const ORDER: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

#[derive(Debug, Clone, Default)]
struct Judged {
    holds: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Judged {
    fn new(holds: bool, reason: &str, message: Option<String>) -> Self {
        Self {
            holds,
            reason: Some(reason.to_owned()),
            message,
        }
    }

    fn yes() -> Self {
        Self {
            holds: true,
            ..Self::default()
        }
    }
}

fn conditions(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
}

fn condition(pod: &Pod, name: &str, judged: Judged) -> PodCondition {
    let status = if judged.holds { "True" } else { "False" };
    let before = conditions(pod).find(|known| known.type_ == name && known.status == status);
    let since = before.and_then(|known| known.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: judged.reason,
        message: judged.message,
        last_transition_time: Some(since.unwrap_or_else(|| Time(Timestamp::now()))),
        ..PodCondition::default()
    }
}

fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let named = |container: &Container| {
        let resources = container.resources.as_ref()?;
        let limits = resources.limits.clone().unwrap_or_default();
        let requests = resources.requests.clone().unwrap_or_default();
        Some((limits, requests))
    };
    let any = containers()
        .filter_map(named)
        .any(|(l, r)| !(l.is_empty() && r.is_empty()));
    let guaranteed = containers().all(|container| {
        named(container).is_some_and(|(limits, requests)| {
            ["cpu", "memory"].iter().all(|name| {
                let limit = limits.get(*name);
                limit.is_some()
                    && requests
                        .get(*name)
                        .is_none_or(|request| Some(request) == limit)
            })
        })
    });
    match (guaranteed, any) {
        (true, _) => "Guaranteed",
        (false, true) => "Burstable",
        (false, false) => "BestEffort",
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
