//! What is there already: looked at, and judged.
//!
//! Start from [`look`], which only reads; [`Sight::judged`] is pure. A layer of the right kind is used,
//! and one that is not there is skipped with what was missing. Rule: the provider's name says nothing
//! of what the cluster can do.

use std::collections::BTreeSet;

use anyhow::Context as _;
use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::apply::{GATEWAY_CLASS, RUN_LABEL};
use crate::provider::{Balancer, Layers, is_default, this_machine};
use crate::stack::Layer;

/// Where istiod is, for whoever asks for a sidecar by `istio-injection: enabled`.
const ISTIOD: (&str, &str) = ("istio-system", "istiod");

/// What a person chose among what there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// `STRATA_INGRESS_CLASS`.
    pub(super) ingress_class: Option<String>,
    /// `STRATA_GATEWAY_CLASS`.
    pub(super) gateway_class: Option<String>,
    /// Whether this machine is the vantage outside; found out where nobody says.
    pub(super) outside: Option<bool>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Kubernetes' version.
    pub(super) version: String,
    pub(super) nodes: Vec<Node>,
    pub(super) ingress_classes: Vec<IngressClass>,
    pub(super) gateway_classes: Vec<GatewayClass>,
    pub(super) istiods: Vec<Deployment>,
    pub(super) services: Vec<Service>,
    /// Namespaces of other runs, which nobody touches.
    pub(super) others: Vec<String>,
    /// Why this machine is no vantage outside.
    pub(super) unreached: Option<String>,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) layers: Layers,
    /// The IngressClass to name; nothing where the default one is taken.
    pub(super) ingress_class: Option<String>,
    pub(super) gateway_class: Option<String>,
    /// The Service that shows that there are load balancers.
    pub(super) balanced: Option<String>,
    /// Whether there is a vantage outside, or why not.
    pub(super) outside: Result<(), String>,
}

/// Looks at a cluster, as far as some layers go: for others there may be no right to look.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn look(
    client: &Client,
    layers: &BTreeSet<Layer>,
    choice: &Choice,
) -> anyhow::Result<Sight> {
    let version = client.apiserver_version().await;
    let nodes: Vec<Node> = list(client, "").await?;
    let unreached = match choice.outside {
        Some(true) => None,
        Some(false) => Some("STRATA_OUTSIDE=none says so".to_owned()),
        None => this_machine::sees(&nodes).await.err(),
    };
    let ours: Vec<Namespace> = list(client, RUN_LABEL).await?;
    Ok(Sight {
        version: version
            .context("the API server does not tell its version")?
            .git_version,
        nodes,
        ingress_classes: match layers.contains(&Layer::Ingress) {
            true => list(client, "").await?,
            false => Vec::new(),
        },
        gateway_classes: match layers.contains(&Layer::Gateway) {
            true => list(client, "").await?,
            false => Vec::new(),
        },
        istiods: list(client, "app=istiod").await?,
        services: list(client, "").await?,
        others: ours.iter().map(ResourceExt::name_any).collect(),
        unreached,
    })
}

/// Every object of a kind with these labels; none where the API does not serve the kind.
async fn list<K>(client: &Client, labels: &str) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    match api.list(&ListParams::default().labels(labels)).await {
        Ok(found) => Ok(found.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", K::plural(&()))),
    }
}

impl Sight {
    /// What follows from it, and from what a person chose.
    pub(super) fn judged(&self, choice: &Choice) -> Found {
        let mut layers = Layers::all();
        let mut there = |layer, found: Result<Option<String>, String>| match found {
            Ok(class) => class,
            Err(why) => {
                layers = std::mem::take(&mut layers).without(layer, why);
                None
            }
        };
        let ingress_class = there(Layer::Ingress, self.ingress(choice));
        let gateway_class = there(Layer::Gateway, self.gateway(choice));
        there(Layer::Mesh, self.mesh().map(|()| None));
        Found {
            layers,
            ingress_class,
            gateway_class,
            balanced: self.services.iter().find(|it| balanced(it)).map(named),
            outside: self.unreached.clone().map_or(Ok(()), Err),
        }
    }

    /// Who gives load balancers their addresses, by what the first that has one was given.
    pub(super) fn balancer(&self) -> Balancer {
        let Some(service) = self.services.iter().find(|it| balanced(it)) else {
            return Balancer::None("no Service of this cluster was given an address".to_owned());
        };
        let own = service.spec.iter().flat_map(|spec| &spec.cluster_ip);
        let status = service.status.iter();
        let mut given = status
            .flat_map(|status| &status.load_balancer)
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter_map(|ingress| ingress.ip.as_ref());
        match own.into_iter().any(|ip| given.any(|given| given == ip)) {
            true => Balancer::ClusterIps,
            false => Balancer::Own,
        }
    }

    /// The class to name in Ingresses that name none.
    fn ingress(&self, choice: &Choice) -> Result<Option<String>, String> {
        let names: BTreeSet<_> = self
            .ingress_classes
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        if let Some(chosen) = &choice.ingress_class {
            return among("IngressClass", "STRATA_INGRESS_CLASS", chosen, &names).map(Some);
        }
        if self.ingress_classes.iter().any(is_default) {
            return Ok(None);
        }
        the_only("IngressClass", "STRATA_INGRESS_CLASS", &names).map(Some)
    }

    /// The class to name in Gateways.
    fn gateway(&self, choice: &Choice) -> Result<Option<String>, String> {
        let accepted = |class: &&GatewayClass| {
            let status = class.status.iter();
            let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|it| it.type_ == "Accepted" && it.status == "True")
        };
        let accepted = self.gateway_classes.iter().filter(accepted);
        let names: BTreeSet<_> = accepted.map(ResourceExt::name_any).collect();
        let kind = "accepted GatewayClass";
        if let Some(chosen) = &choice.gateway_class {
            return among(kind, "STRATA_GATEWAY_CLASS", chosen, &names).map(Some);
        }
        if names.contains(GATEWAY_CLASS) {
            return Ok(None);
        }
        the_only(kind, "STRATA_GATEWAY_CLASS", &names).map(Some)
    }

    /// Whether sidecars are injected where a namespace asks for them.
    fn mesh(&self) -> Result<(), String> {
        let (namespace, name) = ISTIOD;
        let is = |it: &Deployment| {
            (it.namespace().as_deref(), &*it.name_any()) == (Some(namespace), name)
        };
        if self.istiods.iter().any(is) {
            return Ok(());
        }
        let others: Vec<_> = self.istiods.iter().map(named).collect();
        Err(match others.as_slice() {
            [] => format!("there is no istiod (Deployment {namespace}/{name})"),
            others => format!(
                "istiod is {}; this version judges {namespace}/{name} alone, whose sidecars are asked \
                 for by istio-injection: enabled",
                others.join(" and ")
            ),
        })
    }
}

fn among(
    kind: &str,
    variable: &str,
    chosen: &str,
    names: &BTreeSet<String>,
) -> Result<String, String> {
    if names.contains(chosen) {
        return Ok(chosen.to_owned());
    }
    Err(format!(
        "there is no {kind} {chosen}, which {variable} names; there is {}",
        all(names)
    ))
}

fn the_only(kind: &str, variable: &str, names: &BTreeSet<String>) -> Result<String, String> {
    match (names.len(), names.first()) {
        (1, Some(only)) => Ok(only.clone()),
        (0, _) => Err(format!("there is no {kind}")),
        _ => Err(format!(
            "there is no default among each {kind} ({}); {variable} chooses one",
            all(names)
        )),
    }
}

fn all(names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Whether a Service was given the address of a load balancer.
fn balanced(service: &Service) -> bool {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    status.is_some_and(|balancer| balancer.ingress.iter().flatten().next().is_some())
}

fn named<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&meta.namespace), part(&meta.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn objects<K: DeserializeOwned>(objects: &[Value]) -> Vec<K> {
        let read = |it: &Value| serde_json::from_value(it.clone()).unwrap();
        objects.iter().map(read).collect()
    }

    fn ingress_class(name: &str, default: bool) -> Value {
        let default = default.to_string();
        json!({"metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": default}}})
    }

    fn gateway_class(name: &str, accepted: &str) -> Value {
        json!({
            "metadata": {"name": name}, "spec": {"controllerName": "example.com/it"},
            "status": {"conditions": [{
                "type": "Accepted", "status": accepted, "reason": "Accepted", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        })
    }

    fn sight(ingress: &[Value], gateway: &[Value]) -> Sight {
        Sight {
            ingress_classes: objects(ingress),
            gateway_classes: objects(gateway),
            ..Sight::default()
        }
    }

    #[test]
    fn a_bare_cluster_has_its_network_and_nothing_above() {
        let found = sight(&[], &[]).judged(&Choice::default());
        assert_eq!(found.layers.lacks(Layer::Cni), None);
        assert_eq!(found.layers.lacks(Layer::Services), None);
        for (layer, why) in [
            (Layer::Ingress, "there is no IngressClass"),
            (
                Layer::Mesh,
                "there is no istiod (Deployment istio-system/istiod)",
            ),
            (Layer::Gateway, "there is no accepted GatewayClass"),
        ] {
            assert_eq!(found.layers.lacks(layer), Some(why));
        }
        assert_eq!(found.balanced, None);
    }

    #[test]
    fn the_class_is_the_default_or_the_only_or_the_chosen_one() {
        let chosen = Choice {
            ingress_class: Some("b".to_owned()),
            ..Choice::default()
        };
        let missing = Choice {
            ingress_class: Some("c".to_owned()),
            ..Choice::default()
        };
        let (a, b) = (ingress_class("a", false), ingress_class("b", false));
        let default = ingress_class("d", true);
        for (classes, choice, expected) in [
            (vec![&default, &a], Choice::default(), Ok(None)),
            (vec![&a], Choice::default(), Ok(Some("a"))),
            (
                vec![&a, &b],
                Choice::default(),
                Err(
                    "there is no default among each IngressClass (a, b); STRATA_INGRESS_CLASS chooses one",
                ),
            ),
            (vec![&a, &b, &default], chosen, Ok(Some("b"))),
            (
                vec![&a, &b],
                missing,
                Err("there is no IngressClass c, which STRATA_INGRESS_CLASS names; there is a, b"),
            ),
        ] {
            let classes: Vec<_> = classes.into_iter().cloned().collect();
            let found = sight(&classes, &[]).judged(&choice);
            let lacks = found.layers.lacks(Layer::Ingress);
            match expected {
                Ok(class) => assert_eq!((lacks, found.ingress_class.as_deref()), (None, class)),
                Err(why) => assert_eq!(lacks, Some(why)),
            }
        }
    }

    #[test]
    fn a_gateway_class_counts_once_its_controller_accepts_it() {
        let judged = |classes: &[Value]| sight(&[], classes).judged(&Choice::default());
        let found = judged(&[gateway_class("eg", "True"), gateway_class("old", "False")]);
        assert_eq!(found.gateway_class.as_deref(), Some("eg"));
        assert_eq!(found.layers.lacks(Layer::Gateway), None);
        let own = judged(&[
            gateway_class("eg", "True"),
            gateway_class("contour", "True"),
        ]);
        assert_eq!(
            (own.gateway_class, own.layers.lacks(Layer::Gateway)),
            (None, None)
        );
        let nobody = judged(&[gateway_class("contour", "False")]);
        assert!(nobody.layers.lacks(Layer::Gateway).is_some());
    }

    #[test]
    fn istiod_is_recognised_where_namespaces_ask_for_it() {
        let istiod = |name: &str| {
            json!({
                "metadata": {"namespace": "istio-system", "name": name},
                "spec": {"selector": {}, "template": {}},
            })
        };
        let lacks = |names: &[&str]| {
            let istiods = objects(&names.iter().map(|name| istiod(name)).collect::<Vec<_>>());
            let sight = Sight {
                istiods,
                ..sight(&[], &[])
            };
            let found = sight.judged(&Choice::default());
            found.layers.lacks(Layer::Mesh).map(str::to_owned)
        };
        assert_eq!(lacks(&["istiod"]), None);
        let why = lacks(&["istiod-1-30"]).unwrap();
        assert!(
            why.starts_with("istiod is istio-system/istiod-1-30"),
            "{why}"
        );
    }

    #[test]
    fn load_balancers_are_there_where_a_service_was_given_one() {
        let service = |ingress: Value| {
            json!({
                "metadata": {"namespace": "a", "name": "b"}, "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": ingress}},
            })
        };
        let balanced = |services: &[Value]| {
            let sight = Sight {
                services: objects(services),
                ..sight(&[], &[])
            };
            sight.judged(&Choice::default()).balanced
        };
        assert_eq!(balanced(&[service(json!([]))]), None);
        let balancer = |ip: &str| {
            let mut given = service(json!([{"ip": ip}]));
            given["spec"]["clusterIP"] = json!("10.96.0.7");
            let sight = Sight {
                services: objects(&[given]),
                ..sight(&[], &[])
            };
            sight.balancer()
        };
        assert_eq!(balancer("192.0.2.1"), Balancer::Own);
        // Somebody runs minikube's tunnel.
        assert_eq!(balancer("10.96.0.7"), Balancer::ClusterIps);
        assert!(matches!(sight(&[], &[]).balancer(), Balancer::None(_)));
        let given = service(json!([{"ip": "192.0.2.1"}]));
        assert_eq!(balanced(&[given]).as_deref(), Some("a/b"));
    }
}
