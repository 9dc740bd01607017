//! The Pod Security Standard `restricted`, as far as a pod's own specification says.
//!
//! Start from [`violations`], which is pure. Every pod of strata's has to keep to it, whatever the
//! cluster enforces: [`judge`] is asked of each before it is applied. Rule: the only exceptions are pods
//! in their node's network or with ports of their node's, and these say so.
//!
//! The controls and their names are those of Kubernetes' "Pod Security Standards", policy v1.34.

use serde_json::Value;

use super::{Document, NEEDS_ANNOTATION};
use crate::verdict::NoVerdict;

/// Volumes that take nothing of a node's.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Sysctls that are a pod's own.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const SELINUX: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];
const SECCOMP: &[&str] = &["RuntimeDefault", "Localhost"];
const APPARMOR: &[&str] = &["RuntimeDefault", "Localhost"];
/// What a pod's specification breaks: the control, and the field.
pub type Violation = (&'static str, String);

/// The specification of the pods that a document makes; nothing if it makes none.
#[must_use]
pub fn pod_spec(object: &Value) -> Option<&Value> {
    let kind = object.get("kind")?.as_str()?;
    object.pointer(match kind {
        "Pod" => "/spec",
        "Deployment"
        | "DaemonSet"
        | "StatefulSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => "/spec/template/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    })
}

/// Refuses a document whose pods break the standard otherwise than they say.
///
/// # Errors
/// With the controls and fields.
pub(super) fn judge(document: &Document) -> Result<(), NoVerdict> {
    let broken = undeclared(&document.object);
    if broken.is_empty() {
        return Ok(());
    }
    let broken: Vec<_> = broken
        .iter()
        .map(|(control, field)| format!("{control} ({field})"))
        .collect();
    Err(NoVerdict::new(format!(
        "{} breaks the Pod Security Standard restricted: {}",
        document.subject(),
        broken.join(", ")
    ))
    .with_likely(
        "a manifest of strata's that lacks a securityContext, which is a defect of strata",
    ))
}

/// What the pods of a document break without saying that they need it.
#[must_use]
pub fn undeclared(object: &Value) -> Vec<Violation> {
    let Some(spec) = pod_spec(object) else {
        return Vec::new();
    };
    let annotations = object.pointer("/metadata/annotations");
    let needs = annotations.and_then(|all| all.get(NEEDS_ANNOTATION));
    let declared = needs.is_some_and(|needs| needs == "NodeNetwork");
    let mut broken = violations(spec);
    let of_the_nodes_network =
        |(control, field): &Violation| *control == "Host Ports" || field == "hostNetwork";
    broken.retain(|violation| !(declared && of_the_nodes_network(violation)));
    broken
}

/// Everything in a pod's specification that `restricted` (and `baseline`, which it contains) forbids.
#[must_use]
pub fn violations(spec: &Value) -> Vec<Violation> {
    let mut broken = of_the_pod(spec);
    for (path, container) in containers(spec) {
        broken.extend(of_a_container(spec, &path, container));
    }
    broken
}

fn containers(spec: &Value) -> impl Iterator<Item = (String, &Value)> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| {
        let containers = spec.get(list).and_then(Value::as_array);
        let containers = containers.into_iter().flatten().enumerate();
        containers.map(move |(index, container)| (format!("{list}[{index}]"), container))
    })
}

fn of_the_pod(spec: &Value) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (field, control) in [
        ("hostNetwork", "Host Namespaces"),
        ("hostPID", "Host Namespaces"),
        ("hostIPC", "Host Namespaces"),
    ] {
        if is(spec, &format!("/{field}"), true) {
            broken.push((control, field.to_owned()));
        }
    }
    for (index, volume) in items(spec, "/volumes").enumerate() {
        let sources = volume.as_object().into_iter().flat_map(|map| map.keys());
        let foreign = sources.filter(|key| *key != "name" && !VOLUMES.contains(&key.as_str()));
        broken.extend(foreign.map(|key| ("Volume Types", format!("volumes[{index}].{key}"))));
    }
    for sysctl in items(spec, "/securityContext/sysctls") {
        let name = text(sysctl, "/name").unwrap_or_default();
        if !SYSCTLS.contains(&name) {
            broken.push(("Sysctls", format!("securityContext.sysctls {name}")));
        }
    }
    broken.extend(of_a_context(spec, "securityContext"));
    broken
}

/// What a pod's and a container's security contexts have in common.
fn of_a_context(holder: &Value, path: &str) -> Vec<Violation> {
    let mut broken = Vec::new();
    let at = |field: &str| format!("/securityContext/{field}");
    let mut found = |control, field: &str| broken.push((control, format!("{path}.{field}")));
    if is(holder, &at("windowsOptions/hostProcess"), true) {
        found("HostProcess", "windowsOptions.hostProcess");
    }
    for field in ["user", "role"] {
        if text(holder, &at(&format!("seLinuxOptions/{field}"))).is_some_and(|set| !set.is_empty())
        {
            found("SELinux", &format!("seLinuxOptions.{field}"));
        }
    }
    for (field, control, allowed) in [
        ("seLinuxOptions/type", "SELinux", SELINUX),
        ("seccompProfile/type", "Seccomp", SECCOMP),
        ("appArmorProfile/type", "AppArmor", APPARMOR),
    ] {
        if text(holder, &at(field)).is_some_and(|set| !allowed.contains(&set)) {
            found(control, &field.replace('/', "."));
        }
    }
    if holder.pointer(&at("runAsUser")).and_then(Value::as_i64) == Some(0) {
        found("Running as Non-root user", "runAsUser");
    }
    broken
}

fn of_a_container(spec: &Value, path: &str, container: &Value) -> Vec<Violation> {
    let mut broken = of_a_context(container, &format!("{path}.securityContext"));
    let mut found = |control, field: &str| broken.push((control, format!("{path}.{field}")));
    if is(container, "/securityContext/privileged", true) {
        found("Privileged Containers", "securityContext.privileged");
    }
    if !is(
        container,
        "/securityContext/allowPrivilegeEscalation",
        false,
    ) {
        found(
            "Privilege Escalation",
            "securityContext.allowPrivilegeEscalation",
        );
    }
    let mut dropped = items(container, "/securityContext/capabilities/drop");
    if !dropped.any(|it| it == "ALL") {
        found("Capabilities", "securityContext.capabilities.drop");
    }
    let mut added = items(container, "/securityContext/capabilities/add");
    if added.any(|it| it != "NET_BIND_SERVICE") {
        found("Capabilities", "securityContext.capabilities.add");
    }
    if text(container, "/securityContext/procMount").is_some_and(|mount| mount != "Default") {
        found("/proc Mount Type", "securityContext.procMount");
    }
    if items(container, "/ports").any(|port| port.get("hostPort").is_some_and(|port| *port != 0)) {
        found("Host Ports", "ports.hostPort");
    }
    for (field, handler) in [
        ("livenessProbe", ""),
        ("readinessProbe", ""),
        ("startupProbe", ""),
        ("lifecycle", "/postStart"),
        ("lifecycle", "/preStop"),
    ] {
        for kind in ["httpGet", "tcpSocket"] {
            let host = text(container, &format!("/{field}{handler}/{kind}/host"));
            if host.is_some_and(|host| !host.is_empty()) {
                found("Host Probes / Lifecycle Hooks", field);
            }
        }
    }
    // A container's own word counts before its pod's.
    let said = |field: &str| {
        let own = container.pointer(&format!("/securityContext/{field}"));
        own.or_else(|| spec.pointer(&format!("/securityContext/{field}")))
    };
    if said("runAsNonRoot") != Some(&Value::Bool(true)) {
        found("Running as Non-root", "securityContext.runAsNonRoot");
    }
    if said("seccompProfile/type").is_none() {
        found("Seccomp", "securityContext.seccompProfile");
    }
    broken
}

fn is(value: &Value, pointer: &str, wanted: bool) -> bool {
    value.pointer(pointer) == Some(&Value::Bool(wanted))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "a", "ports": [{"containerPort": 80}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        })
    }

    fn broken_by(change: impl FnOnce(&mut Value)) -> Vec<&'static str> {
        let mut spec = good();
        change(&mut spec);
        violations(&spec)
            .into_iter()
            .map(|(control, _)| control)
            .collect()
    }

    #[test]
    fn every_control_is_kept_and_broken() {
        assert!(broken_by(|_| {}).is_empty());
        let own = "/containers/0/securityContext";
        let cases: &[(&str, &str, Value, &str)] = &[
            ("", "hostNetwork", json!(true), "Host Namespaces"),
            ("", "hostPID", json!(true), "Host Namespaces"),
            ("", "hostIPC", json!(true), "Host Namespaces"),
            (
                "",
                "volumes",
                json!([{"name": "a", "hostPath": {"path": "/"}}]),
                "Volume Types",
            ),
            (
                "/securityContext",
                "sysctls",
                json!([{"name": "kernel.msgmax", "value": "1"}]),
                "Sysctls",
            ),
            (
                "/securityContext",
                "runAsUser",
                json!(0),
                "Running as Non-root user",
            ),
            (
                "/securityContext",
                "runAsNonRoot",
                json!(false),
                "Running as Non-root",
            ),
            (
                "/securityContext",
                "seccompProfile",
                json!({"type": "Unconfined"}),
                "Seccomp",
            ),
            (
                "/securityContext",
                "seLinuxOptions",
                json!({"type": "spc_t"}),
                "SELinux",
            ),
            (
                "/securityContext",
                "appArmorProfile",
                json!({"type": "Unconfined"}),
                "AppArmor",
            ),
            (
                "/securityContext",
                "windowsOptions",
                json!({"hostProcess": true}),
                "HostProcess",
            ),
            (own, "privileged", json!(true), "Privileged Containers"),
            (
                own,
                "allowPrivilegeEscalation",
                json!(true),
                "Privilege Escalation",
            ),
            (own, "capabilities", json!({}), "Capabilities"),
            (
                own,
                "capabilities",
                json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}),
                "Capabilities",
            ),
            (own, "procMount", json!("Unmasked"), "/proc Mount Type"),
            (own, "runAsNonRoot", json!(false), "Running as Non-root"),
            (
                own,
                "seLinuxOptions",
                json!({"user": "system_u"}),
                "SELinux",
            ),
            (
                "/containers/0",
                "ports",
                json!([{"containerPort": 80, "hostPort": 80}]),
                "Host Ports",
            ),
            (
                "/containers/0",
                "livenessProbe",
                json!({"httpGet": {"host": "10.0.0.1", "port": 80}}),
                "Host Probes / Lifecycle Hooks",
            ),
        ];
        for (place, field, value, control) in cases {
            let broken = broken_by(|spec| spec.pointer_mut(place).unwrap()[*field] = value.clone());
            assert_eq!(broken, [*control], "{place}.{field} = {value}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed() {
        let bind = json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]});
        let allowed = [
            ("/containers/0/securityContext", "capabilities", bind),
            (
                "",
                "volumes",
                json!([{"name": "a", "configMap": {"name": "a"}}]),
            ),
            ("/securityContext", "runAsUser", json!(1000)),
            (
                "/containers/0",
                "ports",
                json!([{"containerPort": 80, "hostPort": 0}]),
            ),
        ];
        for (place, field, value) in allowed {
            let broken = broken_by(|spec| spec.pointer_mut(place).unwrap()[field] = value.clone());
            assert!(broken.is_empty(), "{place}.{field} = {value}: {broken:?}");
        }
        // What every container says needs no pod to say it.
        let broken = broken_by(|spec| {
            let context = spec["securityContext"].take();
            let own = spec["containers"][0]["securityContext"]
                .as_object_mut()
                .unwrap();
            own.extend(context.as_object().unwrap().clone());
        });
        assert!(broken.is_empty(), "{broken:?}");
    }

    #[test]
    fn init_containers_are_containers() {
        let broken = broken_by(|spec| spec["initContainers"] = json!([{"name": "b"}]));
        assert_eq!(broken, ["Privilege Escalation", "Capabilities"]);
    }

    #[test]
    fn only_the_nodes_network_can_be_asked_for() {
        let pod = |needs: Value, field: &str| {
            let mut spec = good();
            spec[field] = json!(true);
            json!({"kind": "Pod", "metadata": {"annotations": {NEEDS_ANNOTATION: needs}}, "spec": spec})
        };
        assert!(undeclared(&pod(json!("NodeNetwork"), "hostNetwork")).is_empty());
        assert_eq!(undeclared(&pod(json!("NodeNetwork"), "hostPID")).len(), 1);
        assert_eq!(undeclared(&pod(json!("DualStack"), "hostNetwork")).len(), 1);
        let template =
            json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{}]}}}});
        assert!(!undeclared(&template).is_empty());
        assert!(undeclared(&json!({"kind": "Service", "spec": {}})).is_empty());
    }
}
