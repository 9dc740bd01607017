//! Pods that are not ready, in every way that a kubelet tells.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;

use super::labels::terms;
use super::tests::{Case, case, pod, pod_with, read, yaml};
use super::workload::{Seen, cause};

fn well() -> Seen {
    Seen {
        namespace: "shop".into(),
        selector: terms("app=web"),
        pods: vec![
            pod("web-0", "app=web", "10.244.1.5", "worker"),
            pod("client", "app=client", "10.244.1.6", "worker"),
        ],
        ..Seen::default()
    }
}

fn status(seen: &mut Seen, status: &str) {
    seen.pods[0] = pod_with("web-0", "app=web", status);
}

fn waiting(seen: &mut Seen, reason: &str, message: &str) {
    let text = format!(
        "{{phase: Pending, containerStatuses: [{{name: server, image: 'shop/web:v3', imageID: '', \
         ready: false, restartCount: 0, state: {{waiting: {{reason: {reason}, message: '{message}'}}}}}}]}}"
    );
    status(seen, &text);
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Event {
    yaml(&format!(
        "{{metadata: {{name: e}}, type: Warning, reason: {reason}, message: '{message}', \
         involvedObject: {{kind: {kind}, name: {name}}}}}"
    ))
}

fn deployment(replicas: i32) -> Deployment {
    yaml(&format!(
        "{{metadata: {{name: web, namespace: shop}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}}}}}}}"
    ))
}

const CRASHED: &str = "{phase: Running, containerStatuses: [{name: server, image: i, imageID: '', \
    ready: false, restartCount: 4, state: {waiting: {reason: CrashLoopBackOff}}, \
    lastState: {terminated: {exitCode: 2, reason: Error}}}]}";

pub(super) fn cases() -> Vec<Case> {
    let case = |name, change: fn(&mut Seen)| case(name, well(), change, cause);
    vec![
        case("all pods are ready", |_| {}),
        case("no pod has the label's value", |seen| {
            seen.selector = terms("app=wbe")
        }),
        case("no pod has the label", |seen| {
            seen.selector = terms("aap=web")
        }),
        case("there is no pod at all", |seen| seen.pods.clear()),
        case("the Deployment is scaled to zero", |seen| {
            seen.pods.remove(0);
            seen.deployments.push(deployment(0));
        }),
        case("the API refuses the pods", |seen| {
            seen.pods.remove(0);
            seen.deployments.push(deployment(2));
            let message = "pods \"web-7d4-\" is forbidden: exceeded quota: pods=0";
            seen.events
                .push(event("ReplicaSet", "web-7d4", "FailedCreate", message));
        }),
        case("a Deployment has only begun", |seen| {
            seen.pods.remove(0);
            seen.deployments.push(deployment(2));
        }),
        case("no node takes the pod", |seen| {
            status(
                seen,
                "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', \
                 message: '0/3 nodes are available: 3 node(s) did not match nodeSelector.'}]}",
            );
        }),
        case("the image cannot be pulled", |seen| {
            waiting(
                seen,
                "ImagePullBackOff",
                "Back-off pulling image \"shop/web:v3\"",
            );
        }),
        case("a Secret is missing", |seen| {
            waiting(
                seen,
                "CreateContainerConfigError",
                "secret \"web\" not found",
            );
        }),
        case("a volume cannot be mounted", |seen| {
            waiting(seen, "ContainerCreating", "");
            let message = "configmap \"web\" not found";
            seen.events
                .push(event("Pod", "web-0", "FailedMount", message));
        }),
        case("the container is being made", |seen| {
            waiting(seen, "ContainerCreating", "")
        }),
        case("the process crashes", |seen| {
            status(seen, CRASHED);
            let line = "panicked at src/main.rs: no such file".to_owned();
            seen.last_lines
                .push(("web-0".into(), "server".into(), line));
        }),
        case("the process has no memory left", |seen| {
            status(seen, &CRASHED.replace("reason: Error", "reason: OOMKilled"));
        }),
        case("the readiness probe fails", |seen| {
            status(
                seen,
                "{phase: Running, conditions: [{type: Ready, status: 'False', \
                 message: 'containers with unready status: [server]'}]}",
            );
            let message = "Readiness probe failed: HTTP probe failed with statuscode: 503";
            seen.events
                .push(event("Pod", "web-0", "Unhealthy", message));
        }),
        case("the pod is not ready, and nobody says why", |seen| {
            status(
                seen,
                "{phase: Running, conditions: [{type: Ready, status: 'False', \
                 message: 'containers with unready status: [server]'}]}",
            );
        }),
        case("the pod was evicted", |seen| {
            status(
                seen,
                "{phase: Failed, reason: Evicted, message: 'The node was low on resource: memory.'}",
            );
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("workload", read(&cases()));
}
