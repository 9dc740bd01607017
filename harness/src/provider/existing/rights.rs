//! Which rights a run needs in somebody's cluster, and which of them it has not.
//!
//! Start from [`missing`], which asks the API server (`SelfSubjectAccessReview`) before anything is
//! made. [`RULES`] is the one list: `manifests/existing/role.yaml` is written from it, for whoever
//! grants them. Rule: what a run is refused for lack of a right is a gap in this list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::stack::Layer;

/// So many questions at a time.
const ASKED_AT_ONCE: usize = 16;

/// What is done with the kinds that checks make, in namespaces that do not exist yet; so the right has
/// to be one to every namespace.
const MAKE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const READ: &[&str] = &["get", "list", "watch"];

/// Rights that go together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// The layer that alone needs them; all do without.
    pub(super) layer: Option<Layer>,
    pub(super) group: &'static str,
    pub(super) resources: &'static [&'static str],
    pub(super) verbs: &'static [&'static str],
}

/// All of them.
pub(super) const RULES: &[Rule] = &[
    Rule {
        layer: None,
        group: "",
        resources: &["namespaces", "pods", "services", "endpoints"],
        verbs: MAKE,
    },
    Rule {
        layer: None,
        group: "",
        resources: &["nodes", "events", "serviceaccounts"],
        verbs: READ,
    },
    Rule {
        layer: None,
        group: "",
        // Over a WebSocket an exec is a GET; newer API servers ask for both.
        resources: &["pods/exec"],
        verbs: &["get", "create"],
    },
    Rule {
        layer: None,
        group: "",
        resources: &["pods/log"],
        verbs: &["get"],
    },
    Rule {
        layer: None,
        group: "apps",
        resources: &["deployments", "daemonsets", "statefulsets"],
        verbs: MAKE,
    },
    Rule {
        layer: None,
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        verbs: MAKE,
    },
    Rule {
        layer: None,
        group: "networking.k8s.io",
        resources: &["networkpolicies"],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Services),
        group: "",
        resources: &["pods/proxy", "services/proxy"],
        verbs: &["get"],
    },
    Rule {
        layer: Some(Layer::Ingress),
        group: "",
        resources: &["secrets"],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Ingress),
        group: "networking.k8s.io",
        resources: &["ingresses"],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Ingress),
        group: "networking.k8s.io",
        resources: &["ingressclasses"],
        verbs: READ,
    },
    Rule {
        layer: Some(Layer::Mesh),
        group: "",
        resources: &["serviceaccounts"],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Mesh),
        group: "networking.istio.io",
        resources: &[
            "virtualservices",
            "destinationrules",
            "serviceentries",
            "sidecars",
        ],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Mesh),
        group: "security.istio.io",
        resources: &[
            "authorizationpolicies",
            "peerauthentications",
            "requestauthentications",
        ],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Mesh),
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        verbs: READ,
    },
    Rule {
        layer: Some(Layer::Gateway),
        group: "",
        resources: &["secrets", "configmaps"],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Gateway),
        group: "gateway.networking.k8s.io",
        resources: &[
            "gatewayclasses",
            "gateways",
            "httproutes",
            "grpcroutes",
            "tcproutes",
            "tlsroutes",
            "udproutes",
            "listenersets",
            "referencegrants",
            "backendtlspolicies",
        ],
        verbs: MAKE,
    },
    Rule {
        layer: Some(Layer::Gateway),
        group: "gateway.networking.x-k8s.io",
        resources: &["xmeshes"],
        verbs: READ,
    },
];

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    group: &'static str,
    /// With its subresource: `pods/exec`.
    resource: &'static str,
    verb: &'static str,
}

/// The rights of some layers, of API groups that are served: where there is no Gateway API, nobody
/// needs rights to it.
pub(super) fn needed(layers: &BTreeSet<Layer>, served: &BTreeSet<String>) -> Vec<Right> {
    let wanted = RULES.iter().filter(|rule| {
        let has = |layer| own_group(layer).is_none_or(|group| served.contains(group));
        let planned = |layer| layers.contains(&layer) && has(layer);
        rule.layer.is_none_or(planned) && (rule.group.is_empty() || served.contains(rule.group))
    });
    let rights = wanted.flat_map(|rule| {
        let each = move |resource: &'static str| {
            rule.verbs.iter().map(move |verb| Right {
                group: rule.group,
                resource,
                verb,
            })
        };
        rule.resources
            .iter()
            .flat_map(move |resource| each(resource))
    });
    rights.collect()
}

/// The API group without which there is nothing of a layer.
fn own_group(layer: Layer) -> Option<&'static str> {
    match layer {
        Layer::Mesh => Some("networking.istio.io"),
        Layer::Gateway => Some("gateway.networking.k8s.io"),
        Layer::Cni | Layer::Services | Layer::Ingress => None,
    }
}

/// Those of some rights that this user has not. Who may do everything is asked but once.
///
/// # Errors
/// When the API server cannot be asked.
pub(super) async fn missing(client: &Client, rights: &[Right]) -> anyhow::Result<Vec<Right>> {
    let everything = Right {
        group: "*",
        resource: "*",
        verb: "*",
    };
    if has(client, everything).await? {
        return Ok(Vec::new());
    }
    let asked = futures::stream::iter(rights.iter().copied())
        .map(async |right| Ok::<_, anyhow::Error>((right, has(client, right).await?)))
        .buffer_unordered(ASKED_AT_ONCE);
    let answers: Vec<_> = asked.try_collect().await?;
    let mut missing: Vec<_> = answers
        .into_iter()
        .filter_map(|(right, has)| (!has).then_some(right))
        .collect();
    missing.sort();
    Ok(missing)
}

async fn has(client: &Client, right: Right) -> anyhow::Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(right.attributes()),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .with_context(|| format!("cannot ask whether this user may {right}"))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

impl Right {
    /// As the API server is asked: without a namespace, which is every namespace.
    fn attributes(self) -> ResourceAttributes {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource, None),
        };
        ResourceAttributes {
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(self.verb.to_owned()),
            ..ResourceAttributes::default()
        }
    }

    /// As `kubectl auth can-i` takes it: `gateways.gateway.networking.k8s.io`, `pods/exec`.
    fn object(self) -> String {
        match self.group {
            "" => self.resource.to_owned(),
            group => format!("{}.{group}", self.resource),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.object())
    }
}

/// Rights in words, those to one thing together: `create, get pods/exec; list nodes`.
pub(super) fn named(rights: &[Right]) -> String {
    let mut verbs: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for right in rights {
        verbs.entry(right.object()).or_default().push(right.verb);
    }
    let each = verbs
        .iter()
        .map(|(object, verbs)| format!("{} {object}", verbs.join(", ")));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::apply::Manifest;
    use crate::settings::workspace;

    const SERVED: &[&str] = &[
        "apps",
        "discovery.k8s.io",
        "networking.k8s.io",
        "admissionregistration.k8s.io",
        "gateway.networking.k8s.io",
        "gateway.networking.x-k8s.io",
        "networking.istio.io",
        "security.istio.io",
    ];

    fn of(layers: &[Layer], served: &[&str]) -> Vec<Right> {
        let served = served.iter().map(ToString::to_string).collect();
        needed(&layers.iter().copied().collect(), &served)
    }

    #[test]
    fn what_is_missing_is_named_as_it_is_granted() {
        let right = |group, resource, verb| Right {
            group,
            resource,
            verb,
        };
        let rights = [
            right("", "pods/exec", "create"),
            right("", "pods/exec", "get"),
            right("apps", "daemonsets", "patch"),
        ];
        assert_eq!(
            named(&rights),
            "patch daemonsets.apps; create, get pods/exec"
        );
        let exec = rights[0].attributes();
        assert_eq!(exec.resource.as_deref(), Some("pods"));
        assert_eq!(exec.subresource.as_deref(), Some("exec"));
        // Nothing of a namespace: the run's do not exist yet.
        assert_eq!(exec.namespace, None);
    }

    #[test]
    fn only_what_is_planned_and_served_is_asked_for() {
        let named = |layers: &[Layer], served: &[&str]| named(&of(layers, served));
        let low = named(&[Layer::Cni, Layer::Services], SERVED);
        assert!(low.contains("create, patch, delete namespaces"), "{low}");
        assert!(
            !low.contains("ingresses.") && !low.contains("gateway"),
            "{low}"
        );
        let high = named(&[Layer::Gateway], SERVED);
        assert!(
            high.contains("httproutes.gateway.networking.k8s.io"),
            "{high}"
        );
        let without = named(&[Layer::Gateway], &["apps"]);
        assert!(
            !without.contains("httproutes") && !without.contains("secrets"),
            "{without}"
        );
    }

    /// `kubectl`'s plural of a kind, as far as these kinds go.
    fn plural(kind: &str) -> String {
        let kind = kind.to_lowercase();
        match (kind.strip_suffix('y'), kind.ends_with('s')) {
            (Some(stem), _) if !stem.ends_with('a') => format!("{stem}ies"),
            (_, true) => format!("{kind}es"),
            (_, false) => format!("{kind}s"),
        }
    }

    #[test]
    fn every_kind_of_every_manifest_may_be_made() {
        let all = of(&Layer::ALL, SERVED);
        let mut kinds = 0;
        for layer in Layer::ALL {
            let folder = workspace().join("manifests").join(layer.name());
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if ["lab", "traefik"].iter().any(|own| name.starts_with(own)) {
                    continue;
                }
                for document in Manifest::load(&path, &name).unwrap().documents {
                    let resource = plural(&document.gvk.kind);
                    let may = |verb: &str| {
                        all.iter().any(|right| {
                            right.verb == verb
                                && right.resource == resource
                                && right.group == document.gvk.group
                        })
                    };
                    assert!(MAKE.iter().all(|verb| may(verb)), "{}", document.subject());
                    kinds += 1;
                }
            }
        }
        assert!(kinds > 100);
    }

    /// `UPDATE_EXPECT=1 cargo test -p strata --lib page` writes it anew.
    #[test]
    fn the_role_on_its_page_is_this_list() {
        let mut role = "\
# What a user needs for STRATA_PROVIDER=existing, and nothing else: written from harness/src/provider/existing/rights.rs.
#
#     kubectl apply -f manifests/existing/role.yaml
#     kubectl create clusterrolebinding strata --clusterrole strata --user WHO    # or --serviceaccount NAMESPACE:NAME
#
# Rights to every namespace, since those of a run are made by it. Rules of layers that are not there may be left out.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: strata
rules:
"
        .to_owned();
        for rule in RULES {
            let list = |words: &[&str]| words.join(", ");
            if let Some(layer) = rule.layer {
                writeln!(role, "  # For {layer} alone.").unwrap();
            }
            writeln!(
                role,
                "  - apiGroups: [\"{}\"]\n    resources: [{}]\n    verbs: [{}]",
                rule.group,
                list(rule.resources),
                list(rule.verbs)
            )
            .unwrap();
        }
        expect_test::expect_file![workspace().join("manifests/existing/role.yaml")]
            .assert_eq(&role);
    }
}
