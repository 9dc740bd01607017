//! A container's environment, and what of the pod its fields and files may show.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::ResourceExt;

use crate::node::images::Image;
use crate::node::objects::{Data, Kind, Objects};
use crate::topology::API_CLUSTER_IP;

/// Names and values, in the order of definition, each name once.
pub(in crate::node) type Environment = Vec<(String, String)>;

fn set(environment: &mut Environment, name: &str, value: String) {
    environment.retain(|(known, _)| known != name);
    environment.push((name.to_owned(), value));
}

/// The variables that the pod's specification gives a container.
///
/// # Errors
/// With the reason of `CreateContainerConfigError`, when what one refers to is not there, or not yet.
pub(super) async fn of_container(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
) -> Result<Environment, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut environment = service();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => (Kind::ConfigMap, &map.name, map.optional),
            (None, Some(secret)) => (Kind::Secret, &secret.name, secret.optional),
            (None, None) => continue,
        };
        match objects.watch(kind, &namespace, name).get().await {
            Some(data) => {
                for (key, value) in data.iter() {
                    let value = String::from_utf8_lossy(value).into_owned();
                    set(&mut environment, &format!("{prefix}{key}"), value);
                }
            }
            None if optional.unwrap_or_default() => {}
            None => return Err(format!("{kind} {name:?} not found")),
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, variable, &environment, objects).await? {
            set(&mut environment, &variable.name, value);
        }
    }
    Ok(environment)
}

async fn value_of(
    pod: &Pod,
    variable: &EnvVar,
    environment: &Environment,
    objects: &Objects,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(value, environment)));
    };
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path).map(Some);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, &map.key, map.optional),
        (None, Some(secret)) => (Kind::Secret, &secret.name, &secret.key, secret.optional),
        (None, None) => {
            return Err(format!(
                "{}: the lab has no resourceFieldRef",
                variable.name
            ));
        }
    };
    let namespace = pod.namespace().unwrap_or_default();
    let optional = optional.unwrap_or_default();
    let data = objects.watch(kind, &namespace, name).get().await;
    let value = data.as_deref().and_then(|data: &Data| data.get(key));
    match value {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None if data.is_none() => Err(format!("{kind} {name:?} not found")),
        None => Err(format!(
            "couldn't find key {key} in {kind} {namespace}/{name}"
        )),
    }
}

/// The variables of `default/kubernetes`, by which clients find the API server.
fn service() -> Environment {
    let url = format!("tcp://{API_CLUSTER_IP}:443");
    [
        ("KUBERNETES_SERVICE_HOST", API_CLUSTER_IP.to_string()),
        ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
        ("KUBERNETES_PORT", url.clone()),
        ("KUBERNETES_PORT_443_TCP", url),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
        ("KUBERNETES_PORT_443_TCP_PORT", "443".to_owned()),
        ("KUBERNETES_PORT_443_TCP_ADDR", API_CLUSTER_IP.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The image's variables under the pod's, with the few that every container has.
pub(super) fn merged(image: &Image, pod: &Environment, hostname: &str) -> Environment {
    let mut environment = Environment::new();
    set(
        &mut environment,
        "PATH",
        crate::node::rootfs::DEFAULT_PATH.to_owned(),
    );
    set(&mut environment, "HOSTNAME", hostname.to_owned());
    set(&mut environment, "HOME", "/root".to_owned());
    for (name, value) in image.env.iter().chain(pod) {
        set(&mut environment, name, value.clone());
    }
    environment
}

/// `$(NAME)` by its value, if it has one; `$$` is a dollar sign.
pub(in crate::node) fn expand(text: &str, environment: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        if let Some((name, following)) = reference {
            let value = environment.iter().find(|(known, _)| known == name);
            match value {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = following;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The value of a field that `fieldRef` may name.
///
/// # Errors
/// When it may not name it.
pub(in crate::node) fn field(pod: &Pod, path: &str) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "metadata.labels" => Some(all(pod.labels())),
        "metadata.annotations" => Some(all(pod.annotations())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" => status.and_then(|status| status.pod_ip.clone()),
        "status.podIPs" => status.map(|status| {
            let addresses = status
                .pod_ips
                .iter()
                .flatten()
                .map(|address| address.ip.clone());
            addresses.collect::<Vec<_>>().join(",")
        }),
        "status.hostIP" => status.and_then(|status| status.host_ip.clone()),
        "status.hostIPs" => status.map(|status| {
            let addresses = status
                .host_ips
                .iter()
                .flatten()
                .map(|address| address.ip.clone());
            addresses.collect::<Vec<_>>().join(",")
        }),
        _ => {
            let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            if let Some(key) = keyed("metadata.labels['") {
                pod.labels().get(key).cloned()
            } else if let Some(key) = keyed("metadata.annotations['") {
                pod.annotations().get(key).cloned()
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    };
    Ok(value.unwrap_or_default())
}

fn all(map: &BTreeMap<String, String>) -> String {
    let lines = map.iter().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_of_yaml;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let environment = vec![("A".to_owned(), "1".to_owned())];
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &environment), expected);
        }
    }

    #[test]
    fn fields_of_the_pod() {
        let pod: Pod = object_of_yaml(
            "{metadata: {name: a, labels: {x: 'y', app: web}}, status: {podIPs: [{ip: 10.0.0.1}]}}",
        );
        assert_eq!(
            field(&pod, "metadata.labels").unwrap(),
            "app=\"web\"\nx=\"y\""
        );
        assert_eq!(field(&pod, "metadata.labels['app']").unwrap(), "web");
        assert_eq!(field(&pod, "status.podIPs").unwrap(), "10.0.0.1");
        assert!(field(&pod, "spec.containers").is_err());
    }
}
