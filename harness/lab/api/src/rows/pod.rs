//! Pods: defaults, validation, and the ServiceAccount admission plugin.

use serde_json::{Value, json};

use super::names;
use crate::meta::{fill, items, items_mut, map_at, suffix, text};
use crate::registry::Admit;
use crate::status::{Cause, Status};
use crate::table::since;

type Columns = &'static [(&'static str, i64, fn(&Value) -> Value)];

/// Where a ServiceAccount's token is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) fn default(object: &mut Value) {
    map_at(object, "spec");
    default_spec(&mut object["spec"]);
    fill(&mut object["spec"], "enableServiceLinks", true);
    let class = qos(&object["spec"]);
    map_at(object, "status");
    fill(&mut object["status"], "phase", "Pending");
    fill(&mut object["status"], "qosClass", class);
}

/// Defaults of a PodSpec (core/v1 `SetDefaults_PodSpec`).
pub(super) fn default_spec(spec: &mut Value) {
    map_at(spec, "securityContext");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    if !text(spec, "/serviceAccountName").is_empty() {
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
    }
    let host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        items_mut(spec, list).for_each(|container| default_container(container, host));
    }
    for volume in items_mut(spec, "volumes") {
        for kind in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(kind) {
                fill(source, "defaultMode", 420);
            }
        }
        for source in volume
            .pointer_mut("/projected/sources")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn default_container(container: &mut Value, host: bool) {
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    let image = text(container, "/image");
    let latest = !image.contains('@')
        && (image.ends_with(":latest")
            || !image.rsplit('/').next().unwrap_or_default().contains(':'));
    let policy = if latest { "Always" } else { "IfNotPresent" };
    fill(container, "imagePullPolicy", policy);
    for port in items_mut(container, "ports") {
        fill(port, "protocol", "TCP");
        if host {
            let number = port["containerPort"].clone();
            fill(port, "hostPort", number);
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                fill(probe, field, value);
            }
            if let Some(get) = probe.get_mut("httpGet") {
                fill(get, "path", "/");
                fill(get, "scheme", "HTTP");
            }
        }
    }
}

fn qos(spec: &Value) -> &'static str {
    let all: Vec<&Value> = items(spec, "/containers").collect();
    let has = |container: &&Value, kind: &str, name: &str| {
        container
            .pointer(&format!("/resources/{kind}/{name}"))
            .is_some()
    };
    if !all.is_empty()
        && all
            .iter()
            .all(|one| has(one, "limits", "cpu") && has(one, "limits", "memory"))
    {
        return "Guaranteed";
    }
    let any = all.iter().any(|one| {
        ["requests", "limits"]
            .iter()
            .any(|kind| ["cpu", "memory"].iter().any(|name| has(one, kind, name)))
    });
    if any { "Burstable" } else { "BestEffort" }
}

pub(super) fn validate(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    validate_spec(&new["spec"], "spec", causes);
    if let Some(old) = old {
        let mut allowed = old["spec"].clone();
        // The fields that a pod may change after it was made, and those that binding sets.
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "nodeName",
            "terminationGracePeriodSeconds",
        ] {
            match new["spec"].get(field) {
                Some(value) => allowed[field] = value.clone(),
                None => {
                    allowed.as_object_mut().map(|map| map.remove(field));
                }
            }
        }
        for list in ["containers", "initContainers"] {
            let images: Vec<Value> = items(&new["spec"], &format!("/{list}"))
                .map(|one| one["image"].clone())
                .collect();
            for (container, image) in items_mut(&mut allowed, list).zip(images) {
                container["image"] = image;
            }
        }
        if allowed != new["spec"] {
            causes.push(Cause::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
        }
    }
}

/// What is wrong with a PodSpec.
pub(super) fn validate_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers: Vec<&Value> = items(spec, "/containers").collect();
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = Vec::new();
    let volumes: Vec<&str> = items(spec, "/volumes")
        .map(|volume| text(volume, "/name"))
        .collect();
    for list in ["initContainers", "containers"] {
        for (at, container) in items(spec, &format!("/{list}")).enumerate() {
            let field = format!("{path}.{list}[{at}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.name"), ""));
            } else {
                names::label(&format!("{field}.name"), name, causes);
            }
            if seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
            }
            seen.push(name);
            validate_resources(container, &format!("{field}.resources"), causes);
            if text(container, "/image").is_empty() {
                causes.push(Cause::required(format!("{field}.image"), ""));
            }
            for (at, port) in items(container, "/ports").enumerate() {
                let field = format!("{field}.ports[{at}].containerPort");
                if port["containerPort"] == 0 {
                    causes.push(Cause::required(field, ""));
                } else {
                    names::port(field, &port["containerPort"], causes);
                }
            }
            for (at, mount) in items(container, "/volumeMounts").enumerate() {
                let name = text(mount, "/name");
                if !volumes.contains(&name) {
                    causes.push(Cause {
                        reason: "FieldValueNotFound",
                        field: format!("{field}.volumeMounts[{at}].name"),
                        message: format!("Not found: {name:?}"),
                    });
                }
            }
        }
    }
    let policy = text(spec, "/restartPolicy");
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        causes.push(Cause::unsupported(
            format!("{path}.restartPolicy"),
            &policy.into(),
            &["Always", "OnFailure", "Never"],
        ));
    }
}

/// Quantities are numbers, and nobody asks for more than the limit.
fn validate_resources(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let list = |kind: &str| {
        container
            .pointer(&format!("/resources/{kind}"))
            .and_then(Value::as_object)
    };
    for kind in ["limits", "requests"] {
        for (name, quantity) in list(kind).into_iter().flatten() {
            if names::quantity(quantity.as_str().unwrap_or_default()).is_none() {
                let why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                causes.push(Cause::invalid(
                    format!("{path}.{kind}[{name}]"),
                    quantity,
                    why,
                ));
            }
        }
    }
    for (name, asked) in list("requests").into_iter().flatten() {
        let limit = list("limits").and_then(|limits| limits.get(name));
        let number = |quantity: &Value| names::quantity(quantity.as_str().unwrap_or_default());
        if let Some(limit) = limit
            && let (Some(wanted), Some(most)) = (number(asked), number(limit))
            && wanted > most
        {
            let limit = limit.as_str().unwrap_or_default();
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(format!("{path}.requests"), asked, &why));
        }
    }
}

/// Admission plugins ServiceAccount and DefaultTolerationSeconds.
pub(super) fn admit(admit: &mut Admit<'_>) -> Result<(), Status> {
    if admit.old.is_some() {
        return Ok(());
    }
    let mut name = text(admit.new, "/spec/serviceAccountName").to_owned();
    if name.is_empty() {
        name = "default".to_owned();
        admit.new["spec"]["serviceAccountName"] = name.clone().into();
        admit.new["spec"]["serviceAccount"] = name.clone().into();
    }
    let account = admit
        .state
        .get(&super::service_account().table, admit.namespace, &name);
    let Some(account) = account else {
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            admit.namespace
        );
        return Err(Status::forbidden(admit.kind, admit.name, &why));
    };
    let wanted = admit
        .new
        .pointer("/spec/automountServiceAccountToken")
        .or_else(|| account.get("automountServiceAccountToken"));
    if wanted != Some(&Value::Bool(false)) {
        mount_token(&mut admit.new["spec"]);
    }
    let spec = map_at(admit.new, "spec");
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if !tolerations.is_array() {
        *tolerations = json!([]);
    }
    if let Some(list) = tolerations.as_array_mut() {
        for key in [
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        ] {
            if !list
                .iter()
                .any(|one| one["key"] == key || one.get("key").is_none())
            {
                list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
            }
        }
    }
    spec.entry("preemptionPolicy")
        .or_insert_with(|| "PreemptLowerPriority".into());
    spec.entry("priority").or_insert_with(|| 0.into());
    Ok(())
}

fn mount_token(spec: &mut Value) {
    let mounted = |container: &Value| {
        items(container, "/volumeMounts").any(|mount| mount["mountPath"] == TOKEN_PATH)
    };
    let all = ["containers", "initContainers"];
    if all
        .iter()
        .all(|list| items(spec, &format!("/{list}")).all(mounted))
    {
        return;
    }
    let name = format!("kube-api-access-{}", suffix(5));
    for list in all {
        for container in items_mut(spec, list) {
            if !mounted(container) {
                let map = container.as_object_mut();
                if let Some(list) = map.and_then(|map| {
                    map.entry("volumeMounts")
                        .or_insert_with(|| json!([]))
                        .as_array_mut()
                }) {
                    list.push(json!({"name": name, "mountPath": TOKEN_PATH, "readOnly": true}));
                }
            }
        }
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    let map = spec.as_object_mut();
    if let Some(list) = map.and_then(|map| {
        map.entry("volumes")
            .or_insert_with(|| json!([]))
            .as_array_mut()
    }) {
        list.push(volume);
    }
}

fn ready(pod: &Value) -> Value {
    let statuses = items(pod, "/status/containerStatuses")
        .filter(|one| one["ready"] == true)
        .count();
    format!("{statuses}/{}", items(pod, "/spec/containers").count()).into()
}

/// What `kubectl get pods` calls the status (`printPod`).
fn status(pod: &Value) -> Value {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".into();
    }
    let mut shown = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let inits: Vec<&Value> = items(pod, "/status/initContainerStatuses").collect();
    let total = items(pod, "/spec/initContainers").count();
    for (at, one) in inits.iter().enumerate() {
        if one
            .pointer("/state/terminated/exitCode")
            .and_then(Value::as_i64)
            == Some(0)
            || one["started"] == true
        {
            continue;
        }
        let waiting = text(one, "/state/waiting/reason");
        return if let Some(reason) = one
            .pointer("/state/terminated/reason")
            .and_then(Value::as_str)
        {
            format!("Init:{reason}").into()
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}").into()
        } else {
            format!("Init:{at}/{total}").into()
        };
    }
    for one in items(pod, "/status/containerStatuses") {
        for pointer in ["/state/waiting/reason", "/state/terminated/reason"] {
            let reason = text(one, pointer);
            if !reason.is_empty() {
                reason.clone_into(&mut shown);
            }
        }
    }
    shown.into()
}

fn restarts(pod: &Value) -> Value {
    let count: i64 = items(pod, "/status/containerStatuses")
        .filter_map(|one| one["restartCount"].as_i64())
        .sum();
    let last = items(pod, "/status/containerStatuses")
        .filter_map(|one| one.pointer("/lastState/terminated/finishedAt"))
        .last();
    match last.filter(|_| count > 0) {
        Some(time) => format!("{count} ({} ago)", since(time)).into(),
        None => count.to_string().into(),
    }
}

fn or_none(pod: &Value, pointer: &str) -> Value {
    crate::table::or_none(pod, pointer)
}

pub(super) const COLUMNS: Columns = &[
    ("Ready", 0, ready),
    ("Status", 0, status),
    ("Restarts", 0, restarts),
    ("Age", 0, crate::table::age),
    ("IP", 1, |pod| or_none(pod, "/status/podIP")),
    ("Node", 1, |pod| or_none(pod, "/spec/nodeName")),
    ("Nominated Node", 1, |pod| {
        or_none(pod, "/status/nominatedNodeName")
    }),
    ("Readiness Gates", 1, |_| "<none>".into()),
];
