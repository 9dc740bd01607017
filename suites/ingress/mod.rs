//! Ingress: HTTP from outside the cluster, routed by host and path.
//!
//! Start from [`SUITE`], the gates; `routing` and `default_backend` judge which backend a request
//! reaches, `passing` what arrives there, `protocols` what is spoken, `changes` what happens when
//! Ingresses change, `admission` which of them the API refuses, `classes` which class is the default one, `agreement` all of routing at random. Every
//! request starts outside the cluster. In the fixture `alpha` and `beta` are backends of one pod each, so that an
//! answer tells which of them it came from; hosts differ from Ingress to Ingress.

pub(crate) mod admission;
pub(crate) mod agreement;
pub(crate) mod changes;
pub(crate) mod classes;
pub(crate) mod default_backend;
pub(crate) mod passing;
pub(crate) mod protocols;
pub(crate) mod routing;

use std::collections::{BTreeMap, BTreeSet};

use strata::budget::PROVISION;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite};

use crate::entrance::{Case, Entrance, ingress_address, served_by};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: GATES,
    checks: &[],
};

const GATES: &[Check] = &[
    Check {
        id: "ingress::has_an_address",
        claim: "The tutorial's Ingress is given an address.",
        source: "Kubernetes: Ingress status.loadBalancer",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(has_an_address(scope)),
    },
    Check {
        id: "ingress::routes_host_and_path",
        claim: "GET /frontend of host app.example.local reaches the tutorial's frontend, its path unchanged, through the Ingress controller.",
        source: "tutorial, \"curl http://$(minikube ip)/frontend\", with the Host header that it lacks",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(routes_host_and_path(scope)),
    },
    Check {
        id: "ingress::unknown_host_is_not_found",
        claim: "The tutorial's own request, without the Host header, is answered with 404.",
        source: "tutorial, \"curl http://$(minikube ip)/frontend\", as printed; ingress conformance: host_rules.feature, host rule should not route traffic when hostname does not match …",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(unknown_host_is_not_found(scope)),
    },
];

const TUTORIAL: &str = "my-ingress";
const HOST: &str = "app.example.local";

async fn has_an_address(scope: &Scope) -> Outcome {
    let told = Eventually {
        what: "whether status.loadBalancer of Ingress my-ingress tells an address",
        expected: true,
        observe: async || Ok(ingress_address(&scope.get(TUTORIAL).await?).is_some()),
        likely: "no controller serves the Ingress's class, or its own Service has no address",
    };
    let outcome = scope.eventually_within(PROVISION, told).await;
    explain(scope, outcome, TUTORIAL, None, "/frontend").await
}

async fn routes_host_and_path(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_ingress(scope, TUTORIAL).await?;
    let frontends = scope.ready_pods("app=frontend").await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET /frontend of app.example.local: its answer, whether by a pod of frontend, the path that arrived, and whether the controller brought it",
            expected: ("200".to_owned(), true, "/frontend".to_owned(), true),
            observe: async || {
                let servers = entrance.servers(scope).await?;
                let reply = entrance.get(HOST, "/frontend").await?;
                let ours = frontends.iter().any(|pod| reply.pod() == Some(&pod.name));
                let path = reply.answer.as_ref().map(|answer| answer.path.clone());
                let brought = served_by(&reply, &servers).is_some();
                Ok((said::status(&reply), ours, path.unwrap_or_default(), brought))
            },
            likely: "the rule's host or path has a typo, its Service has no ready pod, or another controller has the address",
        })
        .await;
    explain(scope, outcome, TUTORIAL, Some(HOST), "/frontend").await
}

async fn unknown_host_is_not_found(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_ingress(scope, TUTORIAL).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET /frontend without a Host header of the Ingress's",
            expected: "404".to_owned(),
            observe: async || Ok(said::said(&entrance.get("", "/frontend").await?)),
            likely: "an Ingress without a host, or a default backend, takes every host",
        })
        .await;
    explain(scope, outcome, TUTORIAL, None, "/frontend").await
}

/// The way in, once the last Ingress of the fixture is served: then all of them are.
async fn entrance(scope: &Scope) -> Result<Entrance, NoVerdict> {
    Entrance::of_ingress(scope, TUTORIAL)
        .await?
        .settled("last.example.local")
        .await
}

/// Judges a table of hosts and paths, all of them rules of one Ingress.
async fn table(scope: &Scope, ingress: &str, cases: &[Case]) -> Outcome {
    let table = entrance(scope).await?.table(cases).await?;
    let outcome = table.judged("the controller orders or compares paths in a way of its own");
    match table.unanswered(cases) {
        Some((host, path, _)) => explain(scope, outcome, ingress, Some(host), path).await,
        None => outcome,
    }
}

/// Judges that these pods, and no others, answer so many requests: whether endpoints are chosen at random or in turn, by one
/// proxy or several.
async fn served_by_all(
    scope: &Scope,
    entrance: &Entrance,
    spec: &RequestSpec,
    pods: BTreeSet<String>,
) -> Outcome {
    scope
        .eventually(Eventually {
            what: &format!("the pods that answer {} requests, and failures", spec.count),
            expected: (pods, BTreeMap::new()),
            observe: async || {
                let answers = entrance.outside().request(spec).await?;
                Ok((answers.served_by(), answers.failures()))
            },
            likely: "the controller or its proxies follow the Service's endpoints late or not at all",
        })
        .await
}

async fn explain(
    scope: &Scope,
    outcome: Outcome,
    name: &str,
    host: Option<&str>,
    path: &str,
) -> Outcome {
    let subject = Subject::Ingress {
        namespace: scope.namespace(),
        name,
        host,
        path,
    };
    scope.explain(outcome, subject).await
}
