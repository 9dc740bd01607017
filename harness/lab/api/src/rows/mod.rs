//! A row for every built-in kind.
//!
//! Start from [`all`]. What a kind has of its own (defaults, validation, columns) is in the file of
//! its group.

use std::sync::LazyLock;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::api::autoscaling;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
    PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::registry::{Convert, Kind};
use super::status::Status;
use super::{Shared, User, crd, meta, review};

mod apps;
mod batch;
mod core;
mod event;
mod location;
pub(crate) mod names;
mod network_policy;
mod networking;
mod pod;
mod policy;
mod service;
pub(crate) mod service_cidr;
mod storage;

/// Every built-in kind.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        pod().clone(),
        namespace().clone(),
        service_account().clone(),
        Kind::builtin::<Node>("nodes", &["no"])
            .annotated_by_status()
            .cluster()
            .status()
            .subresources(&["proxy"])
            .columns(core::NODE),
        service().clone(),
        endpoints().clone(),
        Kind::builtin::<ConfigMap>("configmaps", &["cm"])
            .default(core::default_config_map)
            .validate(core::validate_config_map)
            .columns(core::CONFIG_MAP),
        Kind::builtin::<Secret>("secrets", &[])
            .default(core::default_secret)
            .validate(core::validate_secret)
            .columns(core::SECRET),
        Kind::builtin::<Event>("events", &["ev"])
            .made_by_put()
            .columns(event::COLUMNS),
        Kind::builtin::<events::v1::Event>("events", &["ev"])
            .stored_in(
                "events.",
                Convert {
                    version: "v1",
                    to_stored: event::to_core,
                    from_stored: event::to_events,
                },
            )
            .columns(event::COLUMNS),
        Kind::builtin::<LimitRange>("limitranges", &["limits"])
            .made_by_put()
            .default(policy::default_limits)
            .columns(policy::CREATED),
        Kind::builtin::<ResourceQuota>("resourcequotas", &["quota"])
            .returns_deleted()
            .status()
            .columns(policy::QUOTA),
        Kind::builtin::<PodTemplate>("podtemplates", &[]).returns_deleted(),
        Kind::builtin::<ReplicationController>("replicationcontrollers", &["rc"])
            .status()
            .generation()
            .scale()
            .all()
            .default(apps::default_replication_controller)
            .columns(apps::REPLICATION_CONTROLLER),
        Kind::builtin::<PersistentVolume>("persistentvolumes", &["pv"])
            .returns_deleted()
            .cluster()
            .status()
            .default(storage::default_volume)
            .columns(storage::VOLUME),
        Kind::builtin::<PersistentVolumeClaim>("persistentvolumeclaims", &["pvc"])
            .returns_deleted()
            .status()
            .default(storage::default_claim)
            .validate(storage::validate_claim)
            .admit(storage::admit_claim)
            .columns(storage::CLAIM),
        Kind::builtin::<StorageClass>("storageclasses", &["sc"])
            .returns_deleted()
            .cluster()
            .default(storage::default_class)
            .validate(storage::validate_class)
            .columns(storage::CLASS),
        Kind::builtin::<CSIDriver>("csidrivers", &[])
            .needs_version()
            .returns_deleted()
            .cluster(),
        Kind::builtin::<CSINode>("csinodes", &[])
            .needs_version()
            .returns_deleted()
            .cluster(),
        Kind::builtin::<VolumeAttachment>("volumeattachments", &[])
            .needs_version()
            .returns_deleted()
            .cluster()
            .status(),
        Kind::builtin::<Deployment>("deployments", &["deploy"])
            .counts_annotations()
            .annotated_by_status()
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
            .admit(apps::admit_daemon_set)
            .columns(apps::DAEMON_SET),
        Kind::builtin::<StatefulSet>("statefulsets", &["sts"])
            .status()
            .generation()
            .scale()
            .all()
            .default(apps::default_stateful_set)
            .validate(apps::validate_stateful_set)
            .columns(apps::STATEFUL_SET),
        Kind::builtin::<ControllerRevision>("controllerrevisions", &[]).columns(apps::REVISION),
        Kind::builtin::<Job>("jobs", &[])
            .status()
            .generation()
            .all()
            .default(batch::default_job)
            .validate(batch::validate_job)
            .admit(batch::admit_job)
            .columns(batch::JOB),
        Kind::builtin::<CronJob>("cronjobs", &["cj"])
            .status()
            .generation()
            .all()
            .default(batch::default_cron_job)
            .validate(batch::validate_cron_job)
            .columns(batch::CRON_JOB),
        Kind::builtin::<autoscaling::v2::HorizontalPodAutoscaler>(
            "horizontalpodautoscalers",
            &["hpa"],
        )
        .status()
        .all()
        .default(policy::default_scaler)
        .columns(policy::SCALER),
        Kind::builtin::<autoscaling::v1::HorizontalPodAutoscaler>(
            "horizontalpodautoscalers",
            &["hpa"],
        )
        .status()
        .all()
        .default(policy::default_scaler_v1)
        .stored_in(
            "horizontalpodautoscalers.autoscaling",
            Convert {
                version: "autoscaling/v2",
                to_stored: policy::scaler_to_v2,
                from_stored: policy::scaler_to_v1,
            },
        )
        .columns(policy::SCALER),
        Kind::builtin::<EndpointSlice>("endpointslices", &[])
            .validate(networking::validate_slice)
            .columns(networking::SLICE),
        Kind::builtin::<Ingress>("ingresses", &["ing"])
            .status()
            .generation()
            .default(networking::default_ingress)
            .validate(networking::validate_ingress)
            .admit(networking::admit_ingress)
            .columns(networking::INGRESS),
        Kind::builtin::<IngressClass>("ingressclasses", &[])
            .cluster()
            .generation()
            .columns(networking::INGRESS_CLASS),
        Kind::builtin::<ServiceCIDR>("servicecidrs", &[])
            .cluster()
            .status()
            .default(service_cidr::default)
            .validate(service_cidr::validate)
            .columns(service_cidr::COLUMNS),
        Kind::builtin::<NetworkPolicy>("networkpolicies", &["netpol"])
            .generation()
            .default(network_policy::default)
            .validate(network_policy::validate)
            .columns(network_policy::COLUMNS),
        Kind::builtin::<Lease>("leases", &[])
            .made_by_put()
            .needs_version()
            .columns(core::LEASE),
        Kind::builtin::<PodDisruptionBudget>("poddisruptionbudgets", &["pdb"])
            .needs_version()
            .status()
            .generation()
            .default(policy::default_budget)
            .validate(policy::validate_budget)
            .columns(policy::BUDGET),
        Kind::builtin::<PriorityClass>("priorityclasses", &["pc"])
            .cluster()
            .generation()
            .default(policy::default_priority)
            .validate(policy::validate_priority)
            .columns(policy::PRIORITY),
        Kind::builtin::<RuntimeClass>("runtimeclasses", &[])
            .made_by_put()
            .needs_version()
            .cluster()
            .columns(core::RUNTIME_CLASS),
        Kind::builtin::<Role>("roles", &[])
            .made_by_put()
            .columns(policy::CREATED),
        Kind::builtin::<RoleBinding>("rolebindings", &[])
            .made_by_put()
            .default(policy::default_binding)
            .validate(policy::validate_binding)
            .columns(policy::BINDING),
        Kind::builtin::<ClusterRole>("clusterroles", &[])
            .made_by_put()
            .cluster()
            .columns(policy::CREATED),
        Kind::builtin::<ClusterRoleBinding>("clusterrolebindings", &[])
            .made_by_put()
            .cluster()
            .default(policy::default_binding)
            .validate(policy::validate_binding)
            .columns(policy::BINDING),
        mutating_webhook_configuration().clone(),
        Kind::builtin::<ValidatingWebhookConfiguration>("validatingwebhookconfigurations", &[])
            .needs_version()
            .cluster()
            .generation(),
        custom_resource_definition().clone(),
        Kind::builtin::<SelfSubjectAccessReview>("selfsubjectaccessreviews", &[]).cluster(),
        Kind::builtin::<SelfSubjectRulesReview>("selfsubjectrulesreviews", &[]).cluster(),
        Kind::builtin::<SubjectAccessReview>("subjectaccessreviews", &[]).cluster(),
        Kind::builtin::<LocalSubjectAccessReview>("localsubjectaccessreviews", &[]),
        Kind::builtin::<TokenReview>("tokenreviews", &[]).cluster(),
        Kind::builtin::<SelfSubjectReview>("selfsubjectreviews", &[]).cluster(),
    ]
}

/// What answers a kind that is never stored.
pub(crate) type Respond = fn(&Shared, &User, Value) -> Result<Value, Status>;

/// The kinds whose create is a question.
pub(crate) fn virtual_kind(kind: &Kind) -> Option<Respond> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("authorization.k8s.io", "selfsubjectrulesreviews") => Some(review::review_rules),
        ("authorization.k8s.io", _) => Some(review::review_access),
        ("authentication.k8s.io", "tokenreviews") => Some(review::review_token),
        ("authentication.k8s.io", _) => Some(review::review_self),
        _ => None,
    }
}

/// How long an object is given to end, where its kind knows of that: only pods that run are given time.
pub(crate) fn grace(kind: &Kind, object: &Value, asked: Option<i64>) -> Option<i64> {
    if kind.table != pod().table {
        return None;
    }
    let running = !meta::text(object, "/spec/nodeName").is_empty()
        && !matches!(meta::text(object, "/status/phase"), "Succeeded" | "Failed");
    if !running {
        return Some(0);
    }
    let own = || {
        object
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
    };
    Some(asked.or_else(own).unwrap_or(30))
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
    pod, Kind::builtin::<Pod>("pods", &["po"]).annotated_by_status().returns_deleted()
        .status()
        .generation()
        .all()
        .subresources(&["attach", "binding", "eviction", "exec", "log", "portforward", "proxy"])
        .default(pod::default)
        .validate(pod::validate)
        .admit(pod::admit)
        .locate(location::pod)
        .columns(pod::COLUMNS));
row!(/// Service.
    service, Kind::builtin::<Service>("services", &["svc"])
        .made_by_put()
        .returns_deleted()
        .status()
        .all()
        .subresources(&["proxy"])
        .default(service::default)
        .validate(service::validate)
        .admit(service::admit)
        .locate(location::service)
        .columns(service::COLUMNS));
row!(/// Endpoints.
    endpoints, Kind::builtin::<Endpoints>("endpoints", &["ep"]).made_by_put().columns(core::ENDPOINTS));
row!(/// ServiceAccount.
    service_account, Kind::builtin::<ServiceAccount>("serviceaccounts", &["sa"]).returns_deleted()
        .subresources(&["token"])
        .columns(core::SERVICE_ACCOUNT));
row!(/// MutatingWebhookConfiguration.
    mutating_webhook_configuration,
    Kind::builtin::<MutatingWebhookConfiguration>("mutatingwebhookconfigurations", &[]).needs_version().cluster().generation());
row!(/// CustomResourceDefinition.
    custom_resource_definition,
    Kind::builtin::<CustomResourceDefinition>("customresourcedefinitions", &["crd", "crds"]).needs_version()
        .cluster()
        .status()
        .generation()
        .admit(crd::establish)
        .columns(policy::CREATED));
