//! The system's components, as objects: the manifests of `system.yaml`.

use anyhow::Context as _;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};

const MANIFESTS: &str = include_str!("system.yaml");

/// Applies them, in their order.
///
/// # Errors
/// When one is refused, which would be a defect.
pub(super) async fn apply(client: &Client) -> anyhow::Result<()> {
    for (object, resource) in manifests()? {
        let name = object.name_any();
        let kind = resource.kind.clone();
        let api = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::<DynamicObject>::all_with(client.clone(), &resource),
        };
        api.patch(
            &name,
            &PatchParams::apply("strata-lab"),
            &Patch::Apply(&object),
        )
        .await
        .with_context(|| format!("{kind} {name} of the system's manifests"))?;
    }
    Ok(())
}

fn manifests() -> anyhow::Result<Vec<(DynamicObject, ApiResource)>> {
    let objects = serde_yaml::from_multiple::<DynamicObject>(MANIFESTS)?;
    let with_resource = objects.into_iter().map(|object| {
        let types = object.types.as_ref().context("a manifest without a kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        Ok((object, ApiResource::from_gvk(&kind)))
    });
    with_resource.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::DNS_CLUSTER_IP;

    #[test]
    fn the_manifests_say_what_the_lab_is_made_for() {
        let manifests = manifests().unwrap();
        let names = manifests
            .iter()
            .map(|(object, resource)| format!("{}/{}", resource.plural, object.name_any()))
            .collect::<Vec<_>>();
        assert_eq!(
            names,
            [
                "namespaces/vxlan-cni",
                "daemonsets/vxlan-cni",
                "daemonsets/kube-proxy",
                "deployments/coredns",
                "services/kube-dns"
            ]
        );
        let service = &manifests.last().unwrap().0.data;
        let address = service.pointer("/spec/clusterIP").unwrap();
        assert_eq!(*address, DNS_CLUSTER_IP.to_string());
    }
}
