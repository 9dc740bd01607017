//! Weighted splits: whether each arm of a VirtualService receives its share.
//!
//! Start from [`SUITE`]. Every split is decided by the sequential test of [`strata::verdict::split`], at
//! α = 1e-6 and β = 1e-3 for five points; requests that fail are judged apart. A client without a
//! sidecar is the control: what it sees is the Service, whose two pods both carry `app: backend`.

use std::collections::BTreeMap;

use strata::wire::{Connections, Reply, RequestSpec};
use strata::{Check, Eventually, Layer, Outcome, Scope, Subject, Suite};

use super::{by_address, client, explain_host};
use crate::load::{none_failed, under_load};
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::splits_by_weight",
        claim: "The tutorial's VirtualService sends 90 % of requests to backend-v1 and 10 % to backend-v2.",
        source: "tutorial, \"Try a traffic split\"; istio: virtualServiceCases, shifting",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(splits_by_weight(scope)),
    },
    Check {
        id: "mesh::outsiders_ignore_the_split",
        claim: "A client without a sidecar sees the Service behind the split: half and half.",
        source: "the control of mesh::splits_by_weight; tutorial, \"Test it: curl backend\", from a pod without a sidecar",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(outsiders_ignore_the_split(scope)),
    },
    Check {
        id: "mesh::splits_each_request_of_a_connection",
        claim: "Requests over connections that are kept are split as those over new ones are: nobody sticks to an arm.",
        source: "Istio: VirtualService HTTPRoute, weights are of requests, not of connections",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(splits_each_request_of_a_connection(scope)),
    },
    Check {
        id: "mesh::splits_in_half",
        claim: "Equal weights send half of the requests each way.",
        source: "istio: virtualServiceCases, shifting",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(splits_in_half(scope)),
    },
    Check {
        id: "mesh::splits_in_thirds",
        claim: "Three weights of 33, 33 and 34 send a third of the requests each way, one of them to a pod without a sidecar.",
        source: "istio: virtualServiceCases, shifting",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(splits_in_thirds(scope)),
    },
    Check {
        id: "mesh::weight_zero_receives_nothing",
        claim: "Of weights 0 and 100 the first receives no request at all.",
        source: "Istio: HTTPRouteDestination weight, \"a weight of 0 receives no traffic\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(weight_zero_receives_nothing(scope)),
    },
    Check {
        id: "mesh::weights_change_without_loss",
        claim: "Weights that are changed under load take effect, and no request fails meanwhile.",
        source: "istio: virtualServiceCases, shifting; Istio: traffic shifting task",
        needs: &[],
        manifest: Some("mesh/weights_change_without_loss.yaml"),
        run: |scope| Box::pin(weights_change_without_loss(scope)),
    },
];

const TUTORIAL: [(&str, f64); 2] = [("backend-v1", 90.0), ("backend-v2", 10.0)];

async fn splits_by_weight(scope: &Scope) -> Outcome {
    judge(scope, "backend", &TUTORIAL, Connections::New).await
}

async fn outsiders_ignore_the_split(scope: &Scope) -> Outcome {
    let outsider = scope.pod("app=outsider").await?;
    let spec = by_address(scope, "backend", "/").await?;
    let look = RequestSpec {
        count: scope.enough(40, 2)?,
        ..spec.clone()
    };
    // The outsider's node knows both endpoints before any request is counted.
    scope
        .eventually(Eventually {
            what: "the pods that answer 40 requests of a pod without a sidecar to http://backend/",
            expected: ["backend-v1", "backend-v2"].map(str::to_owned).into(),
            observe: async || Ok(outsider.request(&look).await?.served_by()),
            likely: "the outsider has a sidecar after all, or Service backend does not select both versions",
        })
        .await?;
    let outcome = shares(
        scope,
        &outsider,
        &spec,
        Shares {
            what: "who answers http://backend/ for a pod without a sidecar",
            arms: &[("backend-v1", 1.0), ("backend-v2", 1.0)],
            arm_of: arm,
            // The split is forty points away.
            tolerance: 0.1,
            likely: "the outsider has a sidecar after all, or Service backend does not select both versions",
        },
    )
    .await;
    let subject = Subject::Service {
        namespace: scope.namespace(),
        name: "backend",
        port: Some(80),
        from: &outsider,
    };
    scope.explain(outcome, subject).await
}

async fn splits_each_request_of_a_connection(scope: &Scope) -> Outcome {
    judge(scope, "kept", &TUTORIAL, Connections::Reuse).await
}

async fn splits_in_half(scope: &Scope) -> Outcome {
    let arms = [("backend-v1", 50.0), ("backend-v2", 50.0)];
    judge(scope, "even", &arms, Connections::Reuse).await
}

async fn splits_in_thirds(scope: &Scope) -> Outcome {
    let arms = [("backend-v1", 33.0), ("backend-v2", 33.0), ("legacy", 34.0)];
    judge(scope, "thirds", &arms, Connections::Reuse).await
}

async fn weight_zero_receives_nothing(scope: &Scope) -> Outcome {
    let arms = [("backend-v1", 0.0), ("backend-v2", 100.0)];
    judge(scope, "moved", &arms, Connections::New).await
}

async fn weights_change_without_loss(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let host = format!("moving.{}", scope.namespace());
    let url = format!("http://{host}/");
    // Both arms are asked for, so the route in force shows by whether the other one still answers.
    let look = RequestSpec {
        count: scope.enough(40, 2)?,
        concurrency: 8,
        ..RequestSpec::get(&url)
    };
    let arms = async || {
        let answers = client.request(&look).await?;
        Ok((answers.served_by(), answers.failures()))
    };
    let settled = async |expected: &[&str]| {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("the pods that answer 40 requests to {url}, and failures"),
                expected: (
                    expected.iter().map(|arm| (*arm).to_owned()).collect(),
                    BTreeMap::new(),
                ),
                observe: arms,
                likely: "the client's sidecar has not taken the route",
            })
            .await;
        explain_host(scope, outcome, "moving").await
    };
    scope.apply(&moving(scope, 100, 0)).await?;
    // Another host of the route is asked until it is in force: until the sidecar knows a host it passes connections on
    // to the Service, which has no pods, and the pod's own kernel remembers their ports for a while. A later connection
    // to the same Service from such a port would go the same way, past the sidecar.
    let asked = format!("http://asked.{}/", scope.namespace());
    let outcome = scope
        .eventually(Eventually {
            what: &format!("GET {asked}"),
            expected: "200 by backend-v1".to_owned(),
            observe: async || Ok(said::said(&client.get(&asked).await?)),
            likely: "the client's sidecar has not taken the route",
        })
        .await;
    explain_host(scope, outcome, "moving").await?;
    settled(&["backend-v1"]).await?;
    let change = moving(scope, 50, 50);
    let answers = under_load(&client, RequestSpec::get(&url), scope.apply(&change)).await?;
    settled(&["backend-v1", "backend-v2"]).await?;
    none_failed(
        scope,
        &answers,
        "the sidecar drops requests when it takes a new route",
    )
}

/// A route to both versions in the fixture's namespace.
fn moving(scope: &Scope, first: u32, second: u32) -> String {
    let fixture = scope.fixture();
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: moving}}
spec:
  hosts: [moving, asked]
  http:
    - route:
        - {{destination: {{host: backend-v1.{fixture}.svc.cluster.local}}, weight: {first}}}
        - {{destination: {{host: backend-v2.{fixture}.svc.cluster.local}}, weight: {second}}}"
    )
}

/// Judges the split of a VirtualService, whose host has the same name, as the client in the mesh sees it.
async fn judge(
    scope: &Scope,
    host: &str,
    arms: &[(&str, f64)],
    connections: Connections,
) -> Outcome {
    let client = client(scope).await?;
    // Of so many connections, each with ten requests at first, one that is drawn as a whole stands out.
    let spec = RequestSpec {
        connections,
        concurrency: 30,
        ..by_address(scope, host, "/").await?
    };
    let outcome = scope
        .split(&client, &spec, arms, arm, "the weights of the VirtualService are others, or requests do not pass the client's sidecar")
        .await;
    let observed = scope.shares();
    let subject = Subject::Split {
        namespace: scope.namespace(),
        virtual_service: host,
        expected: arms,
        observed: &observed,
    };
    scope.explain(outcome, subject).await
}

/// The arm that a reply came from: the fixture's pods are called as their arms are.
fn arm(reply: &Reply) -> String {
    reply.pod().map_or_else(|| said::said(reply), str::to_owned)
}
