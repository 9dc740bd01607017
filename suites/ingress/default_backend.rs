//! Default backends: what becomes of a request that no rule takes.
//!
//! Start from [`SUITE`]. An Ingress with rules keeps its default backend to its hosts; one without rules
//! takes whatever is left, so that its check is alone.

use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use k8s_openapi::api::networking::v1::Ingress;

use super::{entrance, explain, table};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::default_backend_takes_what_no_path_does",
        claim: "A request for a host of an Ingress that none of its paths takes goes to its default backend.",
        source: "Kubernetes: Ingress spec.defaultBackend",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(beside_rules(scope, OTHER_PATHS)),
    },
    Check {
        id: "ingress::default_backend_leaves_paths_to_their_rules",
        claim: "A path of an Ingress with a default backend is served by its own backend.",
        source: "Kubernetes: Ingress spec.defaultBackend",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(beside_rules(scope, OWN_PATHS)),
    },
    Check {
        id: "ingress::default_backend_serves_hosts_without_paths",
        claim: "A host whose rule has no paths is served by the default backend.",
        source: "Kubernetes: IngressRuleValue, and Ingress spec.defaultBackend",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(beside_rules(scope, NO_PATHS)),
    },
    Check {
        id: "ingress::default_backend_without_rules",
        claim: "An Ingress without rules takes every request that no rule takes, of whatever host and path, and none that one does.",
        source: "ingress conformance: default_backend.feature, no rules should send all requests to the default backend",
        needs: &[Need::Outside, Need::Alone],
        manifest: Some("ingress/default_backend_without_rules.yaml"),
        run: |scope| Box::pin(default_backend_without_rules(scope)),
    },
];

type Cases = &'static [(&'static str, &'static str, &'static str)];

const DEFAULTED: &str = "defaulted.example.local";
const OTHER_PATHS: Cases = &[
    (DEFAULTED, "/", "200 by beta"),
    (DEFAULTED, "/other", "200 by beta"),
    (DEFAULTED, "/alphabet", "200 by beta"),
];
const OWN_PATHS: Cases = &[
    (DEFAULTED, "/alpha", "200 by alpha"),
    (DEFAULTED, "/alpha/more", "200 by alpha"),
];
const NO_PATHS: Cases = &[
    ("bare.example.local", "/", "200 by beta"),
    ("bare.example.local", "/alpha", "200 by beta"),
];

async fn beside_rules(scope: &Scope, cases: Cases) -> Outcome {
    table(scope, "defaulted", cases).await
}

async fn default_backend_without_rules(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let settled = async |expected: [&str; 4]| {
        let outcome = scope
            .eventually(Eventually {
                what: "GET / without a host, of a host that nobody has, a path that no rule takes, and one that one does",
                expected: expected.map(str::to_owned),
                observe: async || {
                    Ok([
                        said::said(&entrance.get("", "/").await?),
                        said::said(&entrance.get("nobody.example.local", "/any/path").await?),
                        said::said(&entrance.get("paths.example.local", "/nobody").await?),
                        said::said(&entrance.get("paths.example.local", "/exact").await?),
                    ])
                },
                likely: "the controller heeds default backends of Ingresses with rules only",
            })
            .await;
        explain(scope, outcome, "everything", None, "/").await
    };
    let web = "200 by web";
    settled([web, web, web, "200 by alpha"]).await?;
    scope.delete::<Ingress>("everything").await?;
    settled(["404", "404", "404", "200 by alpha"]).await
}
