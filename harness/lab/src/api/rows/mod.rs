//! A row for every built-in kind.
//!
//! Start from [`all`]. What a kind has of its own (defaults, validation, columns) is in the file of
//! its group.

use std::sync::LazyLock;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReview};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::registry::Kind;
use super::status::Status;
use super::{Shared, User, crd, meta, subresource};

mod apps;
mod core;
pub(crate) mod names;
mod networking;
mod pod;
mod service;

/// Every built-in kind.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        pod().clone(),
        namespace().clone(),
        service_account().clone(),
        Kind::builtin::<Node>("nodes", &["no"])
            .cluster()
            .status()
            .subresources(&["proxy"])
            .columns(core::NODE),
        Kind::builtin::<Service>("services", &["svc"])
            .status()
            .all()
            .default(service::default)
            .validate(service::validate)
            .admit(service::admit)
            .columns(service::COLUMNS),
        Kind::builtin::<Endpoints>("endpoints", &["ep"]).columns(core::ENDPOINTS),
        Kind::builtin::<ConfigMap>("configmaps", &["cm"])
            .validate(core::validate_immutable)
            .columns(core::CONFIG_MAP),
        Kind::builtin::<Secret>("secrets", &[])
            .default(core::default_secret)
            .validate(core::validate_immutable)
            .columns(core::SECRET),
        Kind::builtin::<Event>("events", &["ev"]).columns(core::EVENT),
        Kind::builtin::<PersistentVolumeClaim>("persistentvolumeclaims", &["pvc"]).status(),
        Kind::builtin::<Deployment>("deployments", &["deploy"])
            .status()
            .generation()
            .scale()
            .all()
            .default(apps::default_deployment)
            .validate(apps::validate)
            .columns(apps::DEPLOYMENT),
        Kind::builtin::<ReplicaSet>("replicasets", &["rs"])
            .status()
            .generation()
            .scale()
            .all()
            .default(apps::default_replica_set)
            .validate(apps::validate)
            .columns(apps::REPLICA_SET),
        Kind::builtin::<DaemonSet>("daemonsets", &["ds"])
            .status()
            .generation()
            .all()
            .default(apps::default_daemon_set)
            .validate(apps::validate)
            .columns(apps::DAEMON_SET),
        Kind::builtin::<StatefulSet>("statefulsets", &["sts"])
            .status()
            .generation()
            .scale()
            .all()
            .default(apps::default_stateful_set)
            .validate(apps::validate),
        Kind::builtin::<Job>("jobs", &[])
            .status()
            .generation()
            .all()
            .default(apps::default_job),
        Kind::builtin::<EndpointSlice>("endpointslices", &[])
            .validate(networking::validate_slice)
            .columns(networking::SLICE),
        Kind::builtin::<Ingress>("ingresses", &["ing"])
            .status()
            .generation()
            .default(|_| ())
            .validate(networking::validate_ingress)
            .admit(networking::admit_ingress)
            .columns(networking::INGRESS),
        Kind::builtin::<IngressClass>("ingressclasses", &[])
            .cluster()
            .generation()
            .columns(networking::INGRESS_CLASS),
        Kind::builtin::<NetworkPolicy>("networkpolicies", &["netpol"])
            .generation()
            .default(networking::default_policy),
        Kind::builtin::<Lease>("leases", &[]),
        Kind::builtin::<PodDisruptionBudget>("poddisruptionbudgets", &["pdb"])
            .status()
            .generation(),
        Kind::builtin::<Role>("roles", &[]),
        Kind::builtin::<RoleBinding>("rolebindings", &[]),
        Kind::builtin::<ClusterRole>("clusterroles", &[]).cluster(),
        Kind::builtin::<ClusterRoleBinding>("clusterrolebindings", &[]).cluster(),
        mutating_webhook_configuration().clone(),
        Kind::builtin::<ValidatingWebhookConfiguration>("validatingwebhookconfigurations", &[])
            .cluster()
            .generation(),
        custom_resource_definition().clone(),
        Kind::builtin::<SelfSubjectAccessReview>("selfsubjectaccessreviews", &[]).cluster(),
        Kind::builtin::<SubjectAccessReview>("subjectaccessreviews", &[]).cluster(),
        Kind::builtin::<TokenReview>("tokenreviews", &[]).cluster(),
        Kind::builtin::<SelfSubjectReview>("selfsubjectreviews", &[]).cluster(),
    ]
}

/// What answers a kind that is never stored.
pub(crate) type Respond = fn(&Shared, &User, Value) -> Result<Value, Status>;

/// The kinds whose create is a question.
pub(crate) fn virtual_kind(kind: &Kind) -> Option<Respond> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("authorization.k8s.io", _) => Some(subresource::review_access),
        ("authentication.k8s.io", "tokenreviews") => Some(subresource::review_token),
        ("authentication.k8s.io", _) => Some(subresource::review_self),
        _ => None,
    }
}

/// How long an object is given to end: only pods that run are given time.
pub(crate) fn grace(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let running = kind.table == pod().table
        && !meta::text(object, "/spec/nodeName").is_empty()
        && !matches!(meta::text(object, "/status/phase"), "Succeeded" | "Failed");
    if !running {
        return 0;
    }
    asked
        .or_else(|| {
            object
                .pointer("/spec/terminationGracePeriodSeconds")
                .and_then(Value::as_i64)
        })
        .unwrap_or(30)
}

/// What a deletion changes beside the metadata.
pub(crate) fn terminating(kind: &Kind, object: &mut Value) {
    if kind.table == namespace().table {
        object["status"] = json!({"phase": "Terminating"});
    }
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident, $make:expr) => {
        $(#[$doc])*
        pub(crate) fn $name() -> &'static Kind {
            static ROW: LazyLock<Kind> = LazyLock::new(|| $make);
            &ROW
        }
    };
}

row!(/// Namespace.
    namespace, Kind::builtin::<Namespace>("namespaces", &["ns"])
        .cluster()
        .status()
        .subresources(&["finalize"])
        .default(core::default_namespace)
        .validate(core::validate_namespace)
        .columns(core::NAMESPACE));
row!(/// Pod.
    pod, Kind::builtin::<Pod>("pods", &["po"])
        .status()
        .generation()
        .all()
        .subresources(&["binding", "eviction", "exec", "log"])
        .default(pod::default)
        .validate(pod::validate)
        .admit(pod::admit)
        .columns(pod::COLUMNS));
row!(/// ServiceAccount.
    service_account, Kind::builtin::<ServiceAccount>("serviceaccounts", &["sa"]).subresources(&["token"]));
row!(/// MutatingWebhookConfiguration.
    mutating_webhook_configuration,
    Kind::builtin::<MutatingWebhookConfiguration>("mutatingwebhookconfigurations", &[]).cluster().generation());
row!(/// CustomResourceDefinition.
    custom_resource_definition,
    Kind::builtin::<CustomResourceDefinition>("customresourcedefinitions", &["crd", "crds"])
        .cluster()
        .status()
        .generation()
        .admit(crd::establish));
