//! Injection: what istiod's webhook makes of a pod in a labelled namespace.
//!
//! Start from [`inject`]. Whether the webhook is asked at all is for its configuration's selectors
//! to say; a pod from before is never changed. The sidecar is a native one (an init container that
//! stays), as Istio has it since 1.27: the application starts after it and ends before it.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, Pod, Probe,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::json;

use super::registry::Workload;
use super::{CERTIFICATES, DIRECTORY, probes};
use crate::l7::cluster::TLS_MODE;
use crate::l7::envoy::READY_PORT;
use crate::l7::envoy::bootstrap::{arguments, environment};
use crate::topology::{BUILTIN_IMAGE_PREFIX, ENVOY_IMAGE};

/// What was injected, in Istio's form.
pub(super) const STATUS: &str = "sidecar.istio.io/status";
/// The sidecar's container.
const PROXY: &str = "istio-proxy";
const INIT: &str = "istio-init";
const CONFIG_VOLUME: &str = "istio-envoy";
const CERTIFICATE_VOLUME: &str = "istio-certs";

/// The workload of a pod that is to get a sidecar; none if it is to get none.
pub(super) fn workload_of(pod: &Pod, namespace: &str) -> Option<Workload> {
    let spec = pod.spec.as_ref()?;
    let refused = |value: Option<&String>| value.is_some_and(|value| value == "false");
    let key = "sidecar.istio.io/inject";
    // Redirecting a node's own connections would redirect everybody's.
    let on_host = spec.host_network == Some(true);
    let has = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .any(|container| container.name == PROXY);
    if on_host || has || refused(pod.labels().get(key)) || refused(pod.annotations().get(key)) {
        return None;
    }
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let probed = probes::of_pod(pod);
    Some(Workload::new(namespace, account, pod.labels()).probed(probed))
}

/// The workload of a pod that has a sidecar.
pub(super) fn injected_workload(pod: &Pod) -> Option<Workload> {
    pod.annotations().get(STATUS)?;
    let account = pod
        .spec
        .as_ref()?
        .service_account_name
        .as_deref()
        .unwrap_or("default");
    let finished = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(finished, Some("Succeeded" | "Failed")) {
        return None;
    }
    let workload = Workload::new(&pod.namespace()?, account, pod.labels());
    let workload = workload.probed(probes::of_injected(pod));
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let own = volumes
        .filter(|volume| volume.name == CONFIG_VOLUME)
        .find_map(|volume| volume.config_map.as_ref());
    Some(match own {
        Some(own) => workload.mounting(&own.name),
        None => workload,
    })
}

/// The name of a ServiceAccount's certificate Secret.
pub(super) fn certificate_secret(account: &str) -> String {
    format!("istio.{account}")
}

/// Adds the sidecar.
pub(super) fn inject(pod: &mut Pod, workload: &Workload) {
    let app = workload
        .labels
        .get("app")
        .or_else(|| workload.labels.get("app.kubernetes.io/name"));
    let revision = workload
        .labels
        .get("version")
        .cloned()
        .unwrap_or_else(|| "latest".to_owned());
    let canonical = app.cloned().unwrap_or_else(|| {
        pod.metadata
            .generate_name
            .clone()
            .or_else(|| pod.metadata.name.clone())
            .unwrap_or_default()
    });
    let labels = pod.labels_mut();
    labels.insert(TLS_MODE.to_owned(), "istio".to_owned());
    labels
        .entry("service.istio.io/canonical-name".to_owned())
        .or_insert_with(|| canonical.trim_end_matches('-').to_owned());
    labels
        .entry("service.istio.io/canonical-revision".to_owned())
        .or_insert(revision);
    let first = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers.first())
        .map(|first| first.name.clone());
    let rewritten = probes::are_rewritten(pod);
    let annotations = pod.annotations_mut();
    annotations.insert(
        STATUS.to_owned(),
        json!({
            "initContainers": [INIT, PROXY],
            "containers": null,
            "volumes": [CONFIG_VOLUME, CERTIFICATE_VOLUME],
            "revision": "default",
        })
        .to_string(),
    );
    if let Some(first) = first {
        // `kubectl logs` and `exec` go on meaning the application.
        annotations
            .entry("kubectl.kubernetes.io/default-container".to_owned())
            .or_insert(first);
    }
    let Some(spec) = &mut pod.spec else { return };
    if rewritten {
        spec.containers.iter_mut().for_each(probes::redirect);
    }
    // Before all others, so that the application's own init containers go through the mesh, too.
    let redirection = Container {
        name: INIT.to_owned(),
        image: Some(format!("{BUILTIN_IMAGE_PREFIX}istio-init:v1")),
        ..Container::default()
    };
    spec.init_containers
        .get_or_insert_default()
        .splice(0..0, [redirection, proxy()]);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.push(Volume {
        name: CONFIG_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: workload.config_map(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    volumes.push(Volume {
        name: CERTIFICATE_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(certificate_secret(&workload.service_account)),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
}

/// What Envoy is started with. As in Istio, a connection by which something comes after what its
/// listener was told has changed is ended with that answer: what is denied now is not served by it.
fn proxy_arguments() -> Vec<String> {
    let mut arguments = arguments(DIRECTORY);
    let drain = ["--drain-strategy", "immediate", "--drain-time-s", "45"];
    arguments.extend(drain.map(str::to_owned));
    arguments
}

fn proxy() -> Container {
    let strings = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect());
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let ready = Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(i32::from(READY_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(1),
        ..Probe::default()
    };
    Container {
        name: PROXY.to_owned(),
        image: Some(ENVOY_IMAGE.to_owned()),
        command: strings(&["/envoy"]),
        args: Some(proxy_arguments()),
        env: Some(environment()),
        ports: Some(vec![ContainerPort {
            name: Some("status-port".to_owned()),
            container_port: i32::from(READY_PORT),
            ..ContainerPort::default()
        }]),
        restart_policy: Some("Always".to_owned()),
        // The application starts when this has succeeded.
        startup_probe: Some(Probe {
            failure_threshold: Some(600),
            ..ready.clone()
        }),
        readiness_probe: Some(Probe {
            failure_threshold: Some(4),
            ..ready
        }),
        // For the mark on its sockets.
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                add: strings(&["NET_ADMIN"]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount(CONFIG_VOLUME, DIRECTORY),
            mount(CERTIFICATE_VOLUME, CERTIFICATES),
        ]),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_of_yaml;

    fn pod(yaml: &str) -> Pod {
        object_of_yaml(yaml)
    }

    #[test]
    fn who_gets_a_sidecar() {
        for (yaml, expected) in [
            (
                "{metadata: {labels: {app: a}}, spec: {containers: [{name: a}]}}",
                true,
            ),
            ("{metadata: {}, spec: {containers: [{name: a}]}}", true),
            (
                "{metadata: {}, spec: {hostNetwork: true, containers: [{name: a}]}}",
                false,
            ),
            (
                "{metadata: {}, spec: {containers: [{name: a}, {name: istio-proxy}]}}",
                false,
            ),
            (
                "{metadata: {}, spec: {initContainers: [{name: istio-proxy}], containers: [{name: a}]}}",
                false,
            ),
            (
                "{metadata: {labels: {sidecar.istio.io/inject: 'false'}}, spec: {containers: [{name: a}]}}",
                false,
            ),
        ] {
            assert_eq!(
                workload_of(&pod(yaml), "default").is_some(),
                expected,
                "{yaml}"
            );
        }
    }

    #[test]
    fn an_injected_pod_is_of_the_workload_it_was_injected_for() {
        let mut pod = pod(
            "{metadata: {name: a, namespace: default, labels: {app: a, pod-template-hash: x}}, spec: {initContainers: [{name: migrate}], containers: [{name: web}]}}",
        );
        let workload = workload_of(&pod, "default").unwrap();
        inject(&mut pod, &workload);
        assert_eq!(injected_workload(&pod), Some(workload.clone()));
        assert_eq!(workload_of(&pod, "default"), None);
        let mut relabelled = pod.clone();
        let labels = relabelled.labels_mut();
        labels.insert("app".to_owned(), "b".to_owned());
        let other = injected_workload(&relabelled).unwrap();
        assert_eq!(other.labels["app"], "b");
        assert_eq!(other.group(), workload.group());
        assert!(workload.as_admitted() && !other.as_admitted());
        let spec = pod.spec.as_ref().unwrap();
        let names = |containers: &[Container]| -> Vec<String> {
            containers
                .iter()
                .map(|container| container.name.clone())
                .collect()
        };
        assert_eq!(names(&spec.containers), ["web"]);
        let init = spec.init_containers.as_ref().unwrap();
        assert_eq!(names(init), [INIT, PROXY, "migrate"]);
        assert_eq!(init[1].restart_policy.as_deref(), Some("Always"));
        let volume = &spec.volumes.as_ref().unwrap()[0];
        assert_eq!(
            volume.config_map.as_ref().unwrap().name,
            workload.config_map()
        );
        assert_eq!(
            pod.annotations()["kubectl.kubernetes.io/default-container"],
            "web"
        );
    }
}
