//! What k3s brings of its own: Traefik as Ingress controller, and ServiceLB, which gives it the nodes' addresses.
//!
//! Start from [`on`]. k3s installs it itself, by a Job, while the cluster is already in use. ServiceLB takes a
//! port of every node for each port of a Service, so two Services of one port cannot both have an address: it is
//! enough for Traefik, and no load balancer that checks of several Services can stand on.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, Client};

use crate::budget::INSTALL;
use crate::provider::{Addon, Balancer, Cluster, Progress};
use crate::stack::Layer;
use crate::verdict::NoVerdict;
use crate::wait;

/// Why checks of load balancers are skipped.
pub(super) const NO_BALANCER: &str = "k3s' ServiceLB gives a port of the nodes to one Service alone, and Traefik has 80 and 443; without \
     STRATA_K3S_BUNDLED there is MetalLB";

/// A cluster with what k3s brings.
pub(super) fn on(cluster: Cluster) -> Cluster {
    let traefik = Traefik::of(&cluster.client);
    Cluster {
        load_balancer: Balancer::None(NO_BALANCER.to_owned()),
        ingress: Some(Arc::new(traefik)),
        layers: cluster.layers.clone().without(
            Layer::Gateway,
            "no Gateway controller of ours is installed beside Traefik; without STRATA_K3S_BUNDLED there is Contour",
        ),
        ..cluster
    }
}

/// k3s' own Traefik, in one cluster.
struct Traefik {
    client: Client,
}

impl Traefik {
    fn of(client: &Client) -> Self {
        Self {
            client: client.clone(),
        }
    }
}

#[async_trait(?Send)]
impl Addon for Traefik {
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()> {
        progress("waiting for k3s' own Traefik");
        let classes = Api::<IngressClass>::all(self.client.clone());
        let class = wait::object(
            "k3s has installed Traefik",
            INSTALL,
            classes,
            "traefik",
            |class| match class {
                Some(_) => wait::Progress::Ready(()),
                None => wait::Progress::NotYet("there is no IngressClass traefik".to_owned()),
            },
        );
        class.await.map_err(NoVerdict::into_error)?;
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), "kube-system");
        let available = wait::object(
            "Traefik is available",
            INSTALL,
            deployments,
            "traefik",
            |found| {
                let status = found.and_then(|found| found.status.as_ref());
                match status.and_then(|status| status.available_replicas) {
                    Some(replicas) if replicas > 0 => wait::Progress::Ready(()),
                    _ => wait::Progress::NotYet(
                        "Deployment kube-system/traefik has no available replica".to_owned(),
                    ),
                }
            },
        );
        available.await.map_err(NoVerdict::into_error)
    }
}
