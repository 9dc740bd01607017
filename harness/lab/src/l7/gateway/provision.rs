//! What a Gateway is made of: an Envoy of its own, and the Service in front of it.
//!
//! Start from [`objects`]. All of it is in the Gateway's namespace and owned by the Gateway, so that
//! garbage collection removes it; which is also how Contour's provisioner does it.

use std::collections::BTreeMap;

use gateway_api::gateways::Gateway;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, PodSpec,
    PodTemplateSpec, Probe, Secret, SecretVolumeSource, Service, ServicePort, ServiceSpec, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::translate::Translated;
use super::{DIRECTORY, SECRETS};
use crate::l7::envoy::bootstrap::{Bootstrap, arguments, bootstrap_files, environment};
use crate::l7::envoy::{READY_PORT, fingerprint};
use crate::l7::publish::{config_map, secret};
use crate::topology::ENVOY_IMAGE;

/// On everything that belongs to a Gateway (GEP-1762).
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// On everything that this controller made.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gateway-controller");

/// A Gateway's Envoy.
pub(super) struct Objects {
    pub(super) secret: Secret,
    pub(super) config_map: ConfigMap,
    pub(super) deployment: Deployment,
    pub(super) service: Service,
}

/// The name of everything that a Gateway is made of: `envoy-` and its own, so far as a Service's
/// name may be as long.
pub(super) fn name(gateway: &Gateway) -> String {
    fitting(format!("envoy-{}", gateway.name_any()))
}

/// The value of [`GATEWAY_NAME`] for a Gateway's objects.
pub(super) fn label(gateway: &Gateway) -> String {
    fitting(gateway.name_any())
}

/// A text as a DNS label: cut, and told apart by a fingerprint, where it is too long or has dots.
fn fitting(text: String) -> String {
    const MOST: usize = 63;
    if text.len() <= MOST && !text.contains('.') {
        return text;
    }
    let start: String = text.replace('.', "-").chars().take(MOST - 13).collect();
    format!("{start}-{}", fingerprint(&text))
}

/// What a Gateway's Envoy is told as.
pub(super) fn group(gateway: &Gateway) -> String {
    let namespace = gateway.namespace().unwrap_or_default();
    format!("{namespace}/{}", name(gateway))
}

/// What has to be there for a Gateway, whose Envoy is told by this Service and port.
pub(super) fn objects(translated: &Translated<'_>, control_plane: (&str, &str, u16)) -> Objects {
    let gateway = translated.gateway;
    let start = bootstrap_files(&Bootstrap {
        group: &group(gateway),
        control_plane,
        mark: None,
    });
    Objects {
        secret: secret(metadata(gateway), translated.snapshot.secret_files()),
        config_map: config_map(metadata(gateway), start),
        deployment: deployment(translated),
        service: service(translated),
    }
}

/// What tells a Gateway's pods from all others.
fn selector(gateway: &Gateway) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "envoy".to_owned()),
        (GATEWAY_NAME.to_owned(), label(gateway)),
    ])
}

fn labels(gateway: &Gateway) -> BTreeMap<String, String> {
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    let mut labels = infrastructure.labels.unwrap_or_default();
    labels.extend(selector(gateway));
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels
}

fn annotations(gateway: &Gateway) -> Option<BTreeMap<String, String>> {
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    infrastructure
        .annotations
        .filter(|annotations| !annotations.is_empty())
}

fn metadata(gateway: &Gateway) -> ObjectMeta {
    ObjectMeta {
        namespace: gateway.namespace(),
        name: Some(name(gateway)),
        labels: Some(labels(gateway)),
        annotations: annotations(gateway),
        owner_references: Some(vec![OwnerReference {
            api_version: Gateway::api_version(&()).into_owned(),
            kind: Gateway::kind(&()).into_owned(),
            name: gateway.name_any(),
            uid: gateway.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

fn deployment(translated: &Translated<'_>) -> Deployment {
    let gateway = translated.gateway;
    let mut labels = labels(gateway);
    // A Gateway in a namespace of the mesh is not itself in the mesh.
    labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    let volume = |name: &str| Volume {
        name: name.to_owned(),
        ..Volume::default()
    };
    let object = name(gateway);
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![envoy()],
        // Envoy ends when it is told to, but not if it is told before it listens for that: it is its container's
        // first process, which signals do not end by themselves.
        termination_grace_period_seconds: Some(1),
        volumes: Some(vec![
            Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: object.clone(),
                    ..ConfigMapVolumeSource::default()
                }),
                ..volume("config")
            },
            Volume {
                secret: Some(SecretVolumeSource {
                    secret_name: Some(object),
                    ..SecretVolumeSource::default()
                }),
                ..volume("secrets")
            },
        ]),
        ..PodSpec::default()
    };
    Deployment {
        metadata: metadata(gateway),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: LabelSelector {
                match_labels: Some(selector(gateway)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: annotations(gateway),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Envoy's container. The listeners' ports are not among its ports: a listener that is added must
/// not replace the pod.
fn envoy() -> Container {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    Container {
        name: "envoy".to_owned(),
        image: Some(ENVOY_IMAGE.to_owned()),
        command: Some(vec!["/envoy".to_owned()]),
        args: Some(arguments(DIRECTORY)),
        env: Some(environment()),
        ports: Some(vec![ContainerPort {
            name: Some("ready".to_owned()),
            container_port: i32::from(READY_PORT),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/healthz/ready".to_owned()),
                port: IntOrString::Int(i32::from(READY_PORT)),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            ..Probe::default()
        }),
        volume_mounts: Some(vec![mount("config", DIRECTORY), mount("secrets", SECRETS)]),
        ..Container::default()
    }
}

fn service(translated: &Translated<'_>) -> Service {
    let gateway = translated.gateway;
    let ports = translated.ports.iter().map(|port| ServicePort {
        name: Some(port.name.clone()),
        port: i32::from(port.port),
        target_port: Some(IntOrString::Int(i32::from(port.target))),
        protocol: Some(if port.datagrams { "UDP" } else { "TCP" }.to_owned()),
        ..ServicePort::default()
    });
    let asked = gateway.spec.addresses.iter().flatten();
    let wanted = asked.filter_map(|address| address.value.clone()).next();
    Service {
        metadata: metadata(gateway),
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            selector: Some(selector(gateway)),
            ports: Some(ports.collect()),
            load_balancer_ip: wanted,
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
