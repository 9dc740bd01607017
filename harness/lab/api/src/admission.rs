//! Mutating admission webhooks.
//!
//! Start from [`mutate`]. Which webhooks apply is decided here, as MutatingWebhookConfiguration
//! says; who answers is in [`super::webhook`].

use kube::core::DynamicObject;
use kube::core::admission::AdmissionRequest;
use serde_json::{Value, json};

use super::meta::{self, items, text};
use super::registry::Kind;
use super::router::Call;
use super::selector::label_selector_matches;
use super::status::Status;
use super::write::Options;

/// A new object after every webhook that applies to it.
pub(crate) async fn mutate(
    call: &Call,
    mut object: Value,
    options: &Options,
) -> Result<Value, Status> {
    let kind = &call.asked.kind;
    let table = &super::rows::mutating_webhook_configuration().table;
    let (configurations, labels) = call.shared.store.transact(|state| {
        let configurations: Vec<_> = state.all(table).cloned().collect();
        let namespace = state.get(&super::rows::namespace().table, "", call.asked.namespace());
        (
            configurations,
            namespace.and_then(|namespace| namespace.pointer("/metadata/labels").cloned()),
        )
    });
    for webhook in configurations
        .iter()
        .flat_map(|configuration| items(configuration, "/webhooks"))
    {
        if !applies(webhook, kind, &object, labels.as_ref()) {
            continue;
        }
        object = ask(call, webhook, object, options).await?;
        (kind.hooks.default)(&mut object);
    }
    Ok(object)
}

fn applies(webhook: &Value, kind: &Kind, object: &Value, namespace_labels: Option<&Value>) -> bool {
    let names = |rule: &Value, field: &str, wanted: &str| {
        items(rule, &format!("/{field}")).any(|one| one == "*" || one == wanted)
    };
    let ruled = items(webhook, "/rules").any(|rule| {
        names(rule, "operations", "CREATE")
            && names(rule, "apiGroups", &kind.group)
            && names(rule, "apiVersions", &kind.version)
            && names(rule, "resources", &kind.plural)
    });
    let empty = json!({});
    let by_namespace = !kind.namespaced
        || label_selector_matches(
            webhook.get("namespaceSelector").unwrap_or(&empty),
            namespace_labels,
        );
    let by_object = label_selector_matches(
        webhook.get("objectSelector").unwrap_or(&empty),
        object.pointer("/metadata/labels"),
    );
    ruled && by_namespace && by_object
}

async fn ask(
    call: &Call,
    webhook: &Value,
    object: Value,
    options: &Options,
) -> Result<Value, Status> {
    let kind = &call.asked.kind;
    let service = |field: &str| text(webhook, &format!("/clientConfig/service/{field}")).to_owned();
    let (namespace, name, path) = (service("namespace"), service("name"), service("path"));
    let title = text(webhook, "/name").to_owned();
    let Some(handler) = call.shared.webhooks.find(&namespace, &name, &path) else {
        if text(webhook, "/failurePolicy") == "Ignore" {
            return Ok(object);
        }
        return Err(Status::internal(format!(
            "failed calling webhook {title:?}: failed to call webhook: Post \"https://{name}.{namespace}.svc:443{path}?timeout=10s\": no endpoints available for service {name:?}"
        )));
    };
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let request = json!({
        "uid": meta::uid(), "kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr,
        "name": meta::name(&object), "namespace": call.asked.namespace(), "operation": "CREATE",
        "userInfo": {"username": call.user.name, "groups": call.user.groups},
        "object": object, "oldObject": null, "dryRun": options.dry_run, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    });
    let request: AdmissionRequest<DynamicObject> = serde_json::from_value(request)
        .map_err(|error| Status::internal(format!("the request to webhook {title:?}: {error}")))?;
    let response = handler(request).await;
    if !response.allowed {
        let why = if response.result.message.is_empty() {
            "denied without a reason"
        } else {
            &response.result.message
        };
        return Err(Status::denied(format!(
            "admission webhook {title:?} denied the request: {why}"
        )));
    }
    let Some(patch) = response.patch else {
        return Ok(object);
    };
    let wrong =
        |error: String| Status::internal(format!("the patch of webhook {title:?}: {error}"));
    let patch: json_patch::Patch =
        serde_json::from_slice(&patch).map_err(|error| wrong(error.to_string()))?;
    let mut object = object;
    json_patch::patch(&mut object, &patch).map_err(|error| wrong(error.to_string()))?;
    Ok(object)
}
