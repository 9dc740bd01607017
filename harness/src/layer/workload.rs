//! Why pods are not ready: scheduling, image, configuration, crash, probe.
//!
//! Start from [`cause`]. It judges what [`Seen`] holds; gathering that is `look`'s work. Rule: the
//! least ready pod speaks for all, and what comes first in a pod's life is named first.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::ResourceExt;

use super::labels::{self, Labels};
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// What was seen of the workload behind a selector.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Where.
    pub(super) namespace: String,
    /// The equality terms that select the pods.
    pub(super) selector: Labels,
    /// All pods of the namespace.
    pub(super) pods: Vec<Pod>,
    /// All Deployments of the namespace.
    pub(super) deployments: Vec<Deployment>,
    /// All events of the namespace.
    pub(super) events: Vec<Event>,
    /// The last lines of the logs of containers that do not run: pod, container, line.
    pub(super) last_lines: Vec<(String, String, String)>,
}

/// The cause, if evidence names one; nothing if pods are selected and all are ready.
pub(super) fn cause(seen: &Seen) -> Option<Cause> {
    let selected = labels::selected(&seen.selector, &seen.pods);
    let mut living: Vec<_> = selected.into_iter().filter(|pod| !leaving(pod)).collect();
    if living.is_empty() {
        return none_there(seen);
    }
    living.retain(|pod| !ready(pod));
    living.sort_by_key(|pod| pod.name_any());
    living.into_iter().find_map(|pod| not_ready(seen, pod))
}

/// Whether a pod is in its node's network.
pub(super) fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// Whether a pod is being deleted.
pub(super) fn leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a pod's condition Ready is true.
pub(super) fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((
        &condition.status,
        condition.message.as_deref().unwrap_or_default(),
    ))
}

/// No pod is selected.
fn none_there(seen: &Seen) -> Option<Cause> {
    let Seen {
        namespace,
        selector,
        ..
    } = seen;
    let template = |deployment: &Deployment| {
        let labels = deployment.spec.as_ref()?.template.metadata.as_ref()?;
        labels.labels.clone()
    };
    let deployment = seen
        .deployments
        .iter()
        .find(|deployment| template(deployment).is_some_and(|has| labels::holds(selector, &has)));
    if let Some(deployment) = deployment {
        let name = deployment.name_any();
        let object = Object::new("Deployment", namespace, &name);
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        if replicas == Some(0) {
            return Some(Cause {
                kind: CauseKind::ScaledToZero,
                wrong: format!("{object} is scaled to zero: spec.replicas is 0"),
                change: format!("set spec.replicas of {object} to 1 or more"),
                see: object.see(),
            });
        }
        let (_, message) = warning(&seen.events, "ReplicaSet", &name, &["FailedCreate"])?;
        return Some(Cause {
            kind: CauseKind::PodsRefused,
            wrong: sentence(&format!("the API refuses the pods of {object}"), message),
            change: format!("what the refusal names, in spec.template of {object}"),
            see: format!("kubectl -n {namespace} get events --field-selector reason=FailedCreate"),
        });
    }
    let all: Vec<_> = seen.pods.iter().map(ResourceExt::labels).collect();
    let typed = labels::typed(selector);
    let see = format!("kubectl -n {namespace} get pods --show-labels");
    let Some(miss) = labels::miss(selector, "", &all) else {
        return Some(Cause {
            kind: CauseKind::NoPods,
            wrong: format!("namespace {namespace} has no pod at all, so none with {typed}"),
            change: format!("apply the workload whose pods are labelled {typed}"),
            see,
        });
    };
    Some(Cause {
        kind: CauseKind::NoPods,
        wrong: format!(
            "no pod in namespace {namespace} has {typed}: {}{}",
            miss.instead(),
            did_you_mean(miss.meant().as_deref())
        ),
        change: format!(
            "the label {} in the workload's spec.template.metadata.labels, or the selector",
            miss.key
        ),
        see,
    })
}

/// Why one pod is not ready.
pub(super) fn not_ready(seen: &Seen, pod: &Pod) -> Option<Cause> {
    let name = pod.name_any();
    let object = Object::new("Pod", &seen.namespace, &name);
    let status = pod.status.as_ref()?;
    let describe = object.describe();
    if let Some(("False", message)) = condition(pod, "PodScheduled") {
        return Some(Cause {
            kind: CauseKind::PodNotScheduled,
            wrong: sentence(&format!("no node takes {object}"), message),
            change: "the pod's requests, nodeSelector, affinity or tolerations in its workload's \
                     spec.template, or the nodes"
                .into(),
            see: describe,
        });
    }
    let containers = status.init_container_statuses.iter().flatten();
    let containers = containers.chain(status.container_statuses.iter().flatten());
    for container in containers.filter(|container| !container.ready) {
        if let Some(cause) = stopped(seen, pod, container) {
            return Some(cause);
        }
    }
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let reason = status.reason.as_deref().unwrap_or("its containers ended");
        let message = status.message.as_deref().unwrap_or_default();
        return Some(Cause {
            kind: CauseKind::PodEnded,
            wrong: sentence(&format!("{object} has ended ({phase}): {reason}"), message),
            change: format!("delete {object}, so that its workload makes another"),
            see: describe,
        });
    }
    let set_up = [
        "FailedMount",
        "FailedCreatePodSandBox",
        "FailedAttachVolume",
    ];
    if status.phase.as_deref() == Some("Pending")
        && let Some((reason, message)) = warning(&seen.events, "Pod", &name, &set_up)
    {
        return Some(Cause {
            kind: CauseKind::PodNotStarted,
            wrong: sentence(
                &format!("the node cannot set up {object}: {reason}"),
                message,
            ),
            change: "what the message names: the volume in spec.volumes, or the node's CNI".into(),
            see: describe,
        });
    }
    if let Some((_, message)) = warning(&seen.events, "Pod", &name, &["Unhealthy"]) {
        return Some(Cause {
            kind: CauseKind::ProbeFailing,
            wrong: sentence(&format!("{object} is not ready"), message),
            change: "the probe in spec.containers[].readinessProbe (or startupProbe, \
                     livenessProbe), or what it asks"
                .into(),
            see: describe,
        });
    }
    let (_, message) = condition(pod, "Ready").filter(|(status, _)| *status == "False")?;
    Some(Cause {
        kind: CauseKind::PodNotReady,
        wrong: sentence(&format!("{object} is not ready"), message),
        change: format!("what its conditions and events name, in the workload of {object}"),
        see: describe,
    })
}

/// Why a container does not run, if its state says so.
fn stopped(seen: &Seen, pod: &Pod, container: &ContainerStatus) -> Option<Cause> {
    let pod_name = pod.name_any();
    let object = Object::new("Pod", &seen.namespace, &pod_name);
    let name = &container.name;
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    let message = waiting
        .and_then(|waiting| waiting.message.as_deref())
        .unwrap_or_default();
    match reason {
        Some(
            reason @ ("ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"),
        ) => {
            return Some(Cause {
                kind: CauseKind::ImageNotThere,
                wrong: sentence(
                    &format!(
                        "image {} of {object} is not there: {reason}",
                        container.image
                    ),
                    message,
                ),
                change: format!(
                    "spec.containers[{name}].image in the workload of {object}, or load the image \
                     on the node"
                ),
                see: object.describe(),
            });
        }
        Some(
            reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"),
        ) => {
            return Some(Cause {
                kind: CauseKind::PodConfiguration,
                wrong: sentence(
                    &format!("container {name} of {object} cannot be made: {reason}"),
                    message,
                ),
                change: format!(
                    "what the message names: spec.containers[{name}] in the workload of {object}, \
                     or the object it refers to"
                ),
                see: object.describe(),
            });
        }
        _ => {}
    }
    let ended = ended(state).or_else(|| ended(container.last_state.as_ref()?))?;
    // A container that has been started again, and runs, is not what keeps the pod from being ready.
    if state.running.is_some() || (ended.exit_code == 0 && reason != Some("CrashLoopBackOff")) {
        return None;
    }
    let times = container.restart_count;
    let last = seen
        .last_lines
        .iter()
        .find(|(pod, container, _)| *pod == pod_name && container == name)
        .map(|(_, _, line)| format!("; it said last: {line}"))
        .unwrap_or_default();
    let see = format!(
        "kubectl -n {} logs {pod_name} -c {name} --previous",
        seen.namespace
    );
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some(Cause {
            kind: CauseKind::OutOfMemory,
            wrong: format!(
                "container {name} of {object} was ended for its memory (OOMKilled), {times} restarts"
            ),
            change: format!(
                "spec.containers[{name}].resources.limits.memory in the workload of {object}"
            ),
            see: object.describe(),
        });
    }
    Some(Cause {
        kind: CauseKind::CrashLoop,
        wrong: format!(
            "container {name} of {object} ends with exit code {}, {times} restarts{last}",
            ended.exit_code
        ),
        change: format!(
            "spec.containers[{name}].command, args or env in the workload of {object}, by what its \
             log says"
        ),
        see,
    })
}

fn ended(state: &ContainerState) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    state.terminated.as_ref()
}

/// The latest warning about an object; of a ReplicaSet, by its Deployment's name.
pub(super) fn warning<'a>(
    events: &'a [Event],
    kind: &str,
    name: &str,
    reasons: &[&str],
) -> Option<(&'a str, &'a str)> {
    let about = |event: &&Event| {
        let object = &event.involved_object;
        let is = object.name.as_deref().is_some_and(|is| match kind {
            "ReplicaSet" => is
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('-')),
            _ => is == name,
        });
        let reason = event.reason.as_deref().unwrap_or_default();
        is && object.kind.as_deref() == Some(kind)
            && event.type_.as_deref() == Some("Warning")
            && (reasons.is_empty() || reasons.contains(&reason))
    };
    let time = |event: &&Event| event.last_timestamp.as_ref().map(|time| time.0);
    let event = events.iter().filter(about).max_by_key(time)?;
    Some((
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default().trim(),
    ))
}

/// A fact, and what was said about it, if anything, in one line.
pub(super) fn sentence(fact: &str, said: &str) -> String {
    let words: Vec<_> = said.split_whitespace().collect();
    let said = words.join(" ");
    let said = said.trim_end_matches('.');
    if said.is_empty() {
        fact.to_owned()
    } else {
        format!("{fact}: {said}")
    }
}
