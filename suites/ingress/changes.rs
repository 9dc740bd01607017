//! Changes of Ingresses: that they take effect, and that nothing else suffers meanwhile.
//!
//! Start from [`SUITE`]. Each check has an Ingress of its own, on hosts of its own.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use strata::budget::CREATE;
use strata::wait::{self, Progress};
use strata::wire::{Reply, RequestSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::passing::text;
use super::{TUTORIAL, entrance, explain, served_by_all};
use crate::load::{load_until, none_failed, under_load};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::changes_take_effect",
        claim: "A path that is changed is served at once under its new name and no more under the old, and no request on an unchanged route fails meanwhile.",
        source: "Kubernetes: Ingress, updating an Ingress; sig-network: should conform to Ingress spec (nginx)",
        needs: &[Need::Outside],
        manifest: Some("ingress/changes_take_effect.yaml"),
        run: |scope| Box::pin(changes_take_effect(scope)),
    },
    Check {
        id: "ingress::deletion_takes_effect",
        claim: "A deleted Ingress is no longer served, and another of the same host still is.",
        source: "ingress-nginx: ingress deletion",
        needs: &[Need::Outside],
        manifest: Some("ingress/deletion_takes_effect.yaml"),
        run: |scope| Box::pin(deletion_takes_effect(scope)),
    },
    Check {
        id: "ingress::follows_endpoints",
        claim: "A backend that is scaled is served by exactly its ready pods.",
        source: "ingress conformance: load_balancing.feature, …; sig-network: should sync endpoints to NEG",
        needs: &[Need::Outside],
        manifest: Some("ingress/follows_endpoints.yaml"),
        run: |scope| Box::pin(follows_endpoints(scope)),
    },
    Check {
        id: "ingress::rolling_update",
        claim: "Pods of a backend are replaced by a rolling update without a failed request.",
        source: "sig-network: rolling update backend pods should not cause service disruption",
        needs: &[Need::Outside],
        manifest: Some("ingress/rolling_update.yaml"),
        run: |scope| Box::pin(rolling_update(scope)),
    },
    Check {
        id: "ingress::certificate_is_replaced",
        claim: "A certificate that is put in another one's place is shown by every proxy, and no request fails meanwhile.",
        source: "ingress-nginx: TLS certificates are reloaded dynamically; Kubernetes: Ingress spec.tls",
        needs: &[Need::Outside],
        manifest: Some("ingress/certificate_is_replaced.yaml"),
        run: |scope| Box::pin(certificate_is_replaced(scope)),
    },
    Check {
        id: "ingress::class_decides",
        claim: "An Ingress that is given a class that is served is served, and is no longer when it is taken away.",
        source: "ingress conformance: ingress_class.feature, invalid ingress class should not send traffic to the matching backend service; Kubernetes: IngressClass",
        needs: &[Need::Outside],
        manifest: Some("ingress/class_decides.yaml"),
        run: |scope| Box::pin(class_decides(scope)),
    },
];

async fn changes_take_effect(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let seen = async || {
        let old = said::said(&entrance.get("changes.example.local", "/old").await?);
        let new = said::said(&entrance.get("changes.example.local", "/new").await?);
        let steady = said::said(&entrance.get("steady.example.local", "/").await?);
        Ok([old, new, steady])
    };
    let settled = async |expected: [&str; 3]| {
        let outcome = scope
            .eventually(Eventually {
                what: "GET /old and /new of the host that changes, and / of the one that does not",
                expected: expected.map(str::to_owned),
                observe: seen,
                likely: "the controller does not hear of the change, or its proxies do not take it",
            })
            .await;
        explain(scope, outcome, "web", Some("changes.example.local"), "/new").await
    };
    settled(["200 by web", "404", "200 by web"]).await?;
    let patch = json!({ "spec": { "rules": [
        rule("changes.example.local", "/new"),
        rule("steady.example.local", "/"),
    ] } });
    let change = scope.merge::<Ingress>("web", patch);
    let answers = under_load(
        entrance.outside(),
        entrance.request("steady.example.local", "/"),
        change,
    )
    .await?;
    settled(["404", "200 by web", "200 by web"]).await?;
    none_failed(
        scope,
        &answers,
        "the proxies drop connections when they take a new configuration",
    )
}

fn rule(host: &str, path: &str) -> serde_json::Value {
    json!({ "host": host, "http": { "paths": [{
        "path": path,
        "pathType": "Prefix",
        "backend": { "service": { "name": "web", "port": { "number": 80 } } },
    }] } })
}

async fn deletion_takes_effect(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let settled = async |expected: [&str; 2]| {
        let outcome = scope
            .eventually(Eventually {
                what: "GET /goes and /stays of leaving.example.local",
                expected: expected.map(str::to_owned),
                observe: async || {
                    let goes = said::said(&entrance.get("leaving.example.local", "/goes").await?);
                    let stays = said::said(&entrance.get("leaving.example.local", "/stays").await?);
                    Ok([goes, stays])
                },
                likely: "the controller keeps the rules of Ingresses that are gone",
            })
            .await;
        explain(
            scope,
            outcome,
            "stays",
            Some("leaving.example.local"),
            "/stays",
        )
        .await
    };
    settled(["200 by web", "200 by web"]).await?;
    scope.delete::<Ingress>("goes").await?;
    settled(["404", "200 by web"]).await
}

async fn follows_endpoints(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    // Whether endpoints are chosen at random or in turn, by one proxy or several.
    let spec = RequestSpec {
        count: scope.enough(60, 2)?,
        concurrency: 4,
        ..entrance.request("grows.example.local", "/")
    };
    for replicas in [2, 1] {
        let patch = json!({ "spec": { "replicas": replicas } });
        scope.merge::<Deployment>("web", patch).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("whether exactly the ready pods answer 60 requests, how many they are at {replicas} replicas, and failures"),
                expected: (true, replicas, BTreeMap::new()),
                observe: async || {
                    let pods = scope.ready_pods("app=web").await?;
                    let pods: BTreeSet<_> = pods.into_iter().map(|pod| pod.name).collect();
                    let answers = entrance.outside().request(&spec).await?;
                    Ok((answers.served_by() == pods, pods.len(), answers.failures()))
                },
                likely: "the proxies follow the Service's endpoints late or not at all",
            })
            .await;
        explain(scope, outcome, "web", Some("grows.example.local"), "/").await?;
    }
    Ok(())
}

async fn rolling_update(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let host = "rolls.example.local";
    let request = entrance.request(host, "/");
    let spec = RequestSpec {
        count: scope.enough(60, 2)?,
        concurrency: 4,
        ..request.clone()
    };
    let served = async |pods| {
        let outcome = served_by_all(scope, &entrance, &spec, pods).await;
        explain(scope, outcome, "web", Some(host), "/").await
    };
    let before = names(scope).await?;
    served(before.clone()).await?;
    let change = async {
        let annotations = json!({ "strata.dev/rolled": "once" });
        let patch =
            json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
        scope.merge::<Deployment>("web", patch).await?;
        replaced(scope, &before).await
    };
    let answers = load_until(entrance.outside(), request, change).await?;
    served(names(scope).await?).await?;
    none_failed(
        scope,
        &answers,
        "the proxies send to pods that are ending, or give up those that are not yet",
    )
}

async fn names(scope: &Scope) -> Result<BTreeSet<String>, NoVerdict> {
    let pods = scope.ready_pods("app=web").await?;
    Ok(pods.into_iter().map(|pod| pod.name).collect())
}

/// Until none of these pods is left, and as many others are ready.
async fn replaced(scope: &Scope, before: &BTreeSet<String>) -> Result<(), NoVerdict> {
    wait::until("every pod of before is gone", CREATE, async || {
        let pods: Vec<Pod> = scope.list("app=web").await?;
        let left: Vec<_> = pods
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .filter(|name| before.contains(name))
            .collect();
        Ok(match left.is_empty() {
            true => Progress::Ready(()),
            false => Progress::NotYet(format!("{} still there", left.join(", "))),
        })
    })
    .await
}

async fn certificate_is_replaced(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let host = "renewed.example.local";
    let (first, ca) = certificate(scope, "renewed").await?;
    let (second, _) = certificate(scope, "next").await?;
    let request = entrance.secure(host, "/", &ca);
    let shown = async |expected: &str| {
        // There may be several proxies.
        let spec = RequestSpec {
            count: 10,
            ..request.clone()
        };
        let outcome = scope
            .eventually(Eventually {
                what: "ten times GET https://renewed.example.local/, verified: the answers, and the certificates shown",
                expected: BTreeSet::from([("200 by web".to_owned(), bare(expected))]),
                observe: async || {
                    let answers = entrance.outside().request(&spec).await?;
                    let seen = |reply: &Reply| {
                        let tls = reply.tls.as_ref();
                        let certificate = tls.and_then(|tls| tls.certificate.as_deref());
                        (said::said(reply), bare(certificate.unwrap_or_default()))
                    };
                    Ok(answers.0.iter().map(seen).collect())
                },
                likely: "the controller keeps certificates that it has read once",
            })
            .await;
        explain(scope, outcome, "web", Some(host), "/").await
    };
    shown(&first).await?;
    let next: Secret = scope.get("next").await?;
    let patch = json!({ "data": next.data });
    let change = scope.merge::<Secret>("renewed", patch);
    let answers = under_load(entrance.outside(), request.clone(), change).await?;
    shown(&second).await?;
    none_failed(
        scope,
        &answers,
        "the proxies drop connections when they take a new certificate",
    )
}

/// The certificate of a Secret of the check's, and its authority's.
async fn certificate(scope: &Scope, name: &str) -> Result<(String, String), NoVerdict> {
    let secret: Secret = scope.get(name).await?;
    Ok((text(&secret, "tls.crt")?, text(&secret, "ca.crt")?))
}

/// A certificate without what different writers of PEM write differently.
fn bare(certificate: &str) -> String {
    certificate.split_whitespace().collect()
}

async fn class_decides(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let host = "classed.example.local";
    let tutorials: Ingress = scope.get_in(scope.fixture(), TUTORIAL).await?;
    let class = tutorials.spec.and_then(|spec| spec.ingress_class_name);
    let class = class.ok_or_else(|| NoVerdict::new("Ingress my-ingress has no class"))?;
    for (class, expected) in [
        ("nobody", "404"),
        (class.as_str(), "200 by web"),
        ("nobody", "404"),
    ] {
        let patch = json!({ "spec": { "ingressClassName": class } });
        scope.merge::<Ingress>("web", patch).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://classed.example.local/, its Ingress of class {class}"),
                expected: expected.to_owned(),
                observe: async || Ok(said::said(&entrance.get(host, "/").await?)),
                likely: "the controller serves Ingresses of every class, or follows no change of it",
            })
            .await;
        explain(scope, outcome, "web", Some(host), "/").await?;
    }
    Ok(())
}
