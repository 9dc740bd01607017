//! The system's components, as objects: the manifests of `system.yaml`, and those of the CNI.

use anyhow::Context as _;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};

use crate::net::cni::Cni;

const MANIFESTS: &str = include_str!("system.yaml");

/// The manifests of a CNI: the objects by which people, and programs, know it.
const fn of_cni(cni: Cni) -> &'static str {
    match cni {
        Cni::Vxlan => include_str!("cni/vxlan.yaml"),
        Cni::Kindnet => include_str!("cni/kindnet.yaml"),
        Cni::Flannel => include_str!("cni/flannel.yaml"),
        Cni::Calico => include_str!("cni/calico.yaml"),
    }
}

/// Applies them, in their order.
///
/// # Errors
/// When one is refused, which would be a defect.
pub(super) async fn apply(client: &Client, cni: Option<Cni>) -> anyhow::Result<()> {
    for (object, resource) in manifests(cni)? {
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

fn manifests(cni: Option<Cni>) -> anyhow::Result<Vec<(DynamicObject, ApiResource)>> {
    let own = cni
        .map(of_cni)
        .map(serde_yaml::from_multiple::<DynamicObject>);
    let mut objects = own.transpose()?.unwrap_or_default();
    objects.extend(serde_yaml::from_multiple(MANIFESTS)?);
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
        let told = |cni| {
            let names = manifests(Some(cni)).unwrap().into_iter();
            let names = names.map(|(object, resource)| {
                let namespace = object.namespace().unwrap_or_default();
                format!("{}/{namespace}/{}", resource.plural, object.name_any())
            });
            names.collect::<Vec<_>>().join(" ")
        };
        let others = "daemonsets/kube-system/kube-proxy configmaps/kube-system/coredns deployments/kube-system/coredns services/kube-system/kube-dns";
        for (cni, own) in [
            (
                Cni::Vxlan,
                "namespaces//vxlan-cni daemonsets/vxlan-cni/vxlan-cni",
            ),
            (Cni::Kindnet, "daemonsets/kube-system/kindnet"),
            (
                Cni::Flannel,
                "namespaces//kube-flannel daemonsets/kube-flannel/kube-flannel-ds",
            ),
            (Cni::Calico, "daemonsets/kube-system/calico-node"),
        ] {
            assert_eq!(told(cni), format!("{own} {others}"));
        }
        // Without a CNI there is the rest.
        assert_eq!(manifests(None).unwrap().len(), 4);
        let manifests = manifests(Some(Cni::Vxlan)).unwrap();
        let service = &manifests.last().unwrap().0.data;
        let address = service.pointer("/spec/clusterIP").unwrap();
        assert_eq!(*address, DNS_CLUSTER_IP.to_string());
    }

    #[test]
    fn every_components_image_is_one_of_the_labs() {
        let builtins = crate::net::builtins(crate::builtin::Builtins::default());
        for cni in Cni::ALL {
            for (object, _) in manifests(Some(cni)).unwrap() {
                let containers = object.data.pointer("/spec/template/spec/containers/0");
                if let Some(image) = containers.map(|container| container["image"].as_str()) {
                    assert!(builtins.of_image(image.unwrap()).is_some(), "{image:?}");
                }
            }
        }
    }
}
