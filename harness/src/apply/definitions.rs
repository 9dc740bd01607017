//! Whose definitions of kinds a cluster has.

use super::{Applier, Manifest};
use crate::verdict::NoVerdict;

/// Whose the definitions are of the kinds that layers add: Gateway API's and Istio's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Definitions {
    /// Those that manifests here were written for: what they lack is a mistake in a manifest, and refused.
    #[default]
    Ours,
    /// An implementation's, or somebody's: maybe older. Kinds and fields that they lack are left out of what is
    /// applied; the checks of these are skipped, since nothing says that it has the feature.
    Theirs,
}

impl Definitions {
    /// Whether what is lacking of a group is left out.
    pub(super) fn may_lack(self, group: &str) -> bool {
        let added = group == "gateway.networking.k8s.io" || group.ends_with(".istio.io");
        self == Self::Theirs && added
    }
}

impl Applier {
    /// A manifest without the objects of kinds that this cluster may lack and does.
    ///
    /// # Errors
    /// When the API cannot be asked.
    pub(crate) async fn served_of(&self, manifest: Manifest) -> Result<Manifest, NoVerdict> {
        let mut documents = Vec::new();
        for document in manifest.documents {
            if self.may_lack(&document.gvk) && !self.serves(&document.gvk).await? {
                let subject = document.subject();
                tracing::info!("{subject} is left out: the API serves no such kind");
            } else {
                documents.push(document);
            }
        }
        Ok(Manifest { documents })
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use gateway_api::gateways::Gateway;
    use kube::api::{Api, ListParams};
    use strata_lab::api::ApiServer;

    use super::super::{Fit, install};
    use super::*;
    use crate::budget::CREATE;

    /// A definition of Gateways that knows their class alone.
    const OLDER: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gateways.gateway.networking.k8s.io
  annotations: {api-approved.kubernetes.io: 'https://github.com/kubernetes-sigs/gateway-api/pull/1'}
spec:
  group: gateway.networking.k8s.io
  names: {kind: Gateway, plural: gateways, singular: gateway, listKind: GatewayList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {gatewayClassName: {type: string}, listeners: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
";
    const NEWER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: many}
spec: {gatewayClassName: contour, allowedListeners: {namespaces: {from: All}}, listeners: []}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: lent}
spec: {parentRef: {name: many}}
";

    #[tokio::test]
    async fn what_older_definitions_lack_is_left_out_where_they_are_not_ours() {
        let client = ApiServer::alone().unwrap().client("admin");
        let applier = |definitions| {
            let fit = Fit {
                definitions,
                ..Fit::default()
            };
            Applier::new(client.clone(), fit, "run")
        };
        let older = Manifest::parse(OLDER, "older.yaml").unwrap();
        let ours = applier(Definitions::Ours);
        install(&ours, &client, &older, CREATE, &|_| {})
            .await
            .unwrap();
        let newer = Manifest::parse(NEWER, "newer.yaml").unwrap();

        let all = ours.served_of(newer.clone()).await.unwrap();
        assert_eq!(all, newer);
        let refused = ours.apply_into("default", &all).await.unwrap_err();
        let why = refused.because();
        assert!(why.contains("allowedListeners"), "{why}");

        let theirs = applier(Definitions::Theirs);
        let left = theirs.served_of(newer).await.unwrap();
        theirs.apply_into("default", &left).await.unwrap();
        let gateways = Api::<Gateway>::namespaced(client, "default");
        let there = gateways.list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = there.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["many"]);
    }
}
