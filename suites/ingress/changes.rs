//! Changes of Ingresses: that they take effect, and that nothing else suffers meanwhile.
//!
//! Start from [`SUITE`]. Each check has an Ingress of its own, on hosts of its own.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use super::{entrance, explain};
use crate::load::{none_failed, under_load};
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
