//! Why pods have no sidecar.
//!
//! Start from [`cause`]. The injecting webhooks' own selectors decide what would be injected; the
//! rest explains pods that have none all the same.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use crate::layer::labels::{self, selects};
use crate::layer::workload;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object};

/// The container that a sidecar is.
const SIDECAR: &str = "istio-proxy";
/// The label and annotation of a pod that does not want one.
const INJECT: &str = "sidecar.istio.io/inject";
/// The label of a namespace whose pods should have one.
const INJECTION: &str = "istio-injection";

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// The namespace.
    pub(in crate::layer) namespace: Namespace,
    /// The labels `app` of those pods that should have a sidecar; others may do without on purpose.
    pub(in crate::layer) apps: BTreeSet<String>,
    /// Its pods.
    pub(in crate::layer) workload: workload::Seen,
    /// Every configuration of mutating webhooks.
    pub(in crate::layer) webhooks: Vec<MutatingWebhookConfiguration>,
    /// The EndpointSlices of the webhooks' Services.
    pub(in crate::layer) slices: Vec<EndpointSlice>,
}

/// Whether a pod has a sidecar: an ordinary container, or one that is started first and restarted.
pub(in crate::layer) fn has_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    containers
        .into_iter()
        .any(|container| container.name == SIDECAR)
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let app = |pod: &Pod| pod.labels().get("app").cloned().unwrap_or_default();
    let pods = seen.workload.pods.iter();
    let mut bare: Vec<_> = pods
        .filter(|pod| seen.apps.contains(&app(pod)) && !workload::leaving(pod))
        .collect();
    bare.retain(|pod| !has_sidecar(pod));
    bare.sort_by_key(|pod| pod.name_any());
    let Some(pod) = bare.first() else {
        return workload::cause(&seen.workload);
    };
    let injectors: Vec<_> = seen
        .webhooks
        .iter()
        .flat_map(|configuration| {
            let webhooks = configuration.webhooks.iter().flatten();
            webhooks.map(move |webhook| (configuration, webhook))
        })
        .filter(|(configuration, webhook)| injects(configuration, webhook))
        .collect();
    if injectors.is_empty() {
        return Some(Cause {
            kind: CauseKind::InjectorMissing,
            wrong:
                "nothing injects sidecars: there is no MutatingWebhookConfiguration for pods of \
                    Istio's"
                    .into(),
            change: "install the mesh's control plane (istiod), which registers \
                     istio-sidecar-injector"
                .into(),
            see: "kubectl get mutatingwebhookconfigurations".into(),
        });
    }
    let opted_out = opt_out(seen, pod);
    let namespace = seen.namespace.labels();
    let for_namespace: Vec<_> = injectors
        .into_iter()
        .filter(|(_, webhook)| {
            webhook
                .namespace_selector
                .as_ref()
                .is_none_or(|selector| selects(selector, namespace))
        })
        .collect();
    if for_namespace.is_empty() {
        return Some(label(seen, pod));
    }
    let injector = for_namespace.into_iter().find(|(_, webhook)| {
        webhook
            .object_selector
            .as_ref()
            .is_none_or(|selector| selects(selector, pod.labels()))
    });
    let Some((configuration, webhook)) = injector else {
        return opted_out;
    };
    opted_out
        .or_else(|| down(seen, configuration, webhook))
        .or_else(|| Some(too_late(seen, pod, configuration, webhook)))
}

/// Whether a webhook is one that injects sidecars: of Istio's by its name, for new pods.
fn injects(configuration: &MutatingWebhookConfiguration, webhook: &MutatingWebhook) -> bool {
    let has = |all: &Option<Vec<String>>, one: &str| {
        all.iter().flatten().any(|has| has == one || has == "*")
    };
    let rule =
        |rule: &RuleWithOperations| has(&rule.resources, "pods") && has(&rule.operations, "CREATE");
    let named = |name: &str| name.contains("sidecar-injector");
    (named(&configuration.name_any()) || named(&webhook.name))
        && webhook.rules.iter().flatten().any(rule)
}

/// The namespace does not ask for sidecars.
fn label(seen: &Seen, pod: &Pod) -> Cause {
    let name = seen.namespace.name_any();
    let object = Object::of_cluster("Namespace", &name);
    let has = seen.namespace.labels();
    let others = has
        .keys()
        .map(String::as_str)
        .filter(|key| *key != INJECTION);
    let (what, change) = match (has.get(INJECTION), nearest(INJECTION, others)) {
        (Some(value), _) => (
            format!("label {INJECTION} is {value}, not enabled"),
            format!("set label {INJECTION} of {object} to enabled"),
        ),
        (None, Some(near)) => (
            format!("it has a label {near}; did you mean {INJECTION}?"),
            format!("rename label {near} of {object} to {INJECTION}"),
        ),
        (None, None) => match has.get("istio.io/rev") {
            Some(revision) => (
                format!("label istio.io/rev is {revision}, which no injector is for"),
                format!("set label istio.io/rev of {object} to a revision that is installed"),
            ),
            None => (
                format!("it has no label {INJECTION}"),
                format!("set label {INJECTION} of {object} to enabled"),
            ),
        },
    };
    Cause {
        kind: CauseKind::InjectionLabel,
        wrong: format!(
            "{object} does not ask for sidecars, so pod {} has none: {what}",
            pod.name_any()
        ),
        change: format!("{change}, then restart its workloads"),
        see: format!("kubectl get namespace {name} --show-labels"),
    }
}

/// The pod itself does not want one.
fn opt_out(seen: &Seen, pod: &Pod) -> Option<Cause> {
    let name = pod.name_any();
    let object = Object::new("Pod", &seen.workload.namespace, &name);
    let host = workload::on_host_network(pod);
    let false_in = |map: &labels::Labels| map.get(INJECT).is_some_and(|value| value == "false");
    let (what, field) = if false_in(pod.labels()) {
        (
            format!("its label {INJECT} is false"),
            format!("metadata.labels.{INJECT}"),
        )
    } else if false_in(pod.annotations()) {
        (
            format!("its annotation {INJECT} is false"),
            format!("metadata.annotations.{INJECT}"),
        )
    } else if host {
        (
            "it is on its node's own network".to_owned(),
            "spec.hostNetwork".to_owned(),
        )
    } else {
        return None;
    };
    Some(Cause {
        kind: CauseKind::InjectionOptOut,
        wrong: format!("{object} asks for no sidecar: {what}"),
        change: format!("{field} in the spec.template of its workload"),
        see: object.see(),
    })
}

/// Nobody stands behind the webhook.
fn down(
    seen: &Seen,
    configuration: &MutatingWebhookConfiguration,
    webhook: &MutatingWebhook,
) -> Option<Cause> {
    let service = webhook.client_config.service.as_ref()?;
    let ready = seen
        .slices
        .iter()
        .filter(|slice| {
            slice.namespace().as_ref() == Some(&service.namespace)
                && slice.labels().get("kubernetes.io/service-name") == Some(&service.name)
        })
        .flat_map(|slice| &slice.endpoints)
        .any(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        });
    if ready {
        return None;
    }
    let object = Object::new("Service", &service.namespace, &service.name);
    Some(Cause {
        kind: CauseKind::InjectorDown,
        wrong: format!(
            "webhook {} of {} cannot inject sidecars: {object} has no ready endpoint",
            webhook.name,
            configuration.name_any()
        ),
        change: format!("the workload behind {object} (istiod), then restart the pods"),
        see: format!("kubectl -n {} get pods", service.namespace),
    })
}

/// All would be injected now: so the pod is older than what asks for it.
fn too_late(
    seen: &Seen,
    pod: &Pod,
    configuration: &MutatingWebhookConfiguration,
    webhook: &MutatingWebhook,
) -> Cause {
    let name = pod.name_any();
    let object = Object::new("Pod", &seen.workload.namespace, &name);
    let older = match (pod.creation_timestamp(), configuration.creation_timestamp()) {
        (Some(pod), Some(webhook)) if pod < webhook => "the injector was installed",
        // Then a pod is let in without its sidecar where the injector does not answer.
        _ if webhook.failure_policy.as_deref() == Some("Ignore") => {
            "its namespace asked for sidecars, or while the injector did not answer"
        }
        _ => "its namespace asked for sidecars",
    };
    let owners: BTreeSet<_> = pod
        .owner_references()
        .iter()
        .map(|owner| match owner.kind.as_str() {
            // A ReplicaSet's name is its Deployment's and a hash.
            "ReplicaSet" => format!(
                "deployment/{}",
                owner
                    .name
                    .rsplit_once('-')
                    .map_or(owner.name.as_str(), |(name, _)| name)
            ),
            kind => format!("{}/{}", kind.to_lowercase(), owner.name),
        })
        .collect();
    let change = match owners.first() {
        Some(owner) => format!(
            "restart it: kubectl -n {} rollout restart {owner}",
            seen.workload.namespace
        ),
        None => format!("delete {object} and create it again"),
    };
    Cause {
        kind: CauseKind::InjectedTooLate,
        wrong: format!("{object} has no sidecar: it was created before {older}"),
        change,
        see: object.describe(),
    }
}
