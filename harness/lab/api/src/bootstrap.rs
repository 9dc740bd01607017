//! The objects that every cluster begins with.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::rows::service_cidr::DEFAULT;
use super::write::{FieldValidation, Options};
use super::{Shared, write};
use crate::flags::{API_CLUSTER_IP, API_PORT};

/// Stores them.
///
/// # Errors
/// When one is refused, which would be a defect.
pub(crate) fn objects(shared: &Shared, service_cidrs: &[IpNet]) -> anyhow::Result<()> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let labels = json!({"kubernetes.io/metadata.name": name});
        create(
            shared,
            "",
            "namespaces",
            "",
            json!({"metadata": {"name": name, "labels": labels}}),
        )?;
    }
    create(
        shared,
        "networking.k8s.io",
        "servicecidrs",
        "",
        json!({"metadata": {"name": DEFAULT}, "spec": {"cidrs": service_cidrs}}),
    )?;
    // Where clients learn whom the API server trusts; its own authority is the same one.
    create(
        shared,
        "",
        "configmaps",
        "kube-system",
        json!({
            "metadata": {"name": "extension-apiserver-authentication"},
            "data": {"client-ca-file": shared.pki.ca_pem()},
        }),
    )?;
    // The control plane's address on the underlay: the second of the network.
    let address = "172.30.0.2";
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    create(
        shared,
        "",
        "services",
        "default",
        json!({
            "metadata": {"name": "kubernetes", "labels": labels},
            "spec": {"clusterIP": API_CLUSTER_IP.to_string(), "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT}]},
        }),
    )?;
    create(
        shared,
        "",
        "endpoints",
        "default",
        json!({
            "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}]}],
        }),
    )?;
    create(
        shared,
        "discovery.k8s.io",
        "endpointslices",
        "default",
        json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
        }),
    )?;
    Ok(())
}

fn create(
    shared: &Shared,
    group: &str,
    plural: &str,
    namespace: &str,
    mut object: Value,
) -> anyhow::Result<()> {
    let kind = shared
        .registry
        .find(group, "v1", plural)
        .ok_or_else(|| anyhow::anyhow!("there is no row for {plural}"))?;
    let options = Options {
        dry_run: false,
        manager: "kube-apiserver".to_owned(),
        validation: FieldValidation::Strict,
        force: false,
        applied: false,
    };
    let refused = |status: super::status::Status| anyhow::anyhow!("{plural}: {}", status.message);
    write::prepare(&kind, namespace, &mut object, &options).map_err(refused)?;
    write::create(shared, &kind, namespace, object, &options).map_err(refused)?;
    Ok(())
}
