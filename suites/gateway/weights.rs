//! How a rule's requests are shared out among its backends.
//!
//! Start from [`SUITE`]. Splits are decided by the sequential test of [`strata::verdict::split`], at
//! α = 1e-6 and β = 1e-3 for five points; whether requests over one connection, or by clients of two
//! addresses, are drawn one by one is asked beside it.

use std::collections::BTreeMap;

use strata::verdict::split::TOLERANCE;
use strata::wire::{Connections, Reply, RequestSpec};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Sampling, Scope, Sorted, Suite, expect_eq};

use super::{entrance, explain};
use crate::entrance::Entrance;
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::splits_by_weight",
        claim: "Weights of 90 and 10 send 90 % and 10 % of a rule's requests to its backends, whichever client and connection they come from.",
        source: "HTTPRouteWeight",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(splits_by_weight(scope)),
    },
    Check {
        id: "gateway::weight_zero_receives_nothing",
        claim: "A backend of weight 0 receives no request.",
        source: "Gateway API: BackendRef weight; HTTPRouteWeight",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(weight_zero_receives_nothing(scope)),
    },
    Check {
        id: "gateway::share_of_an_invalid_backend_is_500",
        claim: "A backend that does not exist keeps its share of 30 %, which is answered with 500.",
        source: "Gateway API: HTTPRouteRule backendRefs, \"the proportion of requests that would otherwise have been routed to an invalid backend MUST receive a 500\"",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(share_of_an_invalid_backend_is_500(scope)),
    },
];

const HOST: &str = "weighted.gateway.example";

/// The way in, once no proxy goes by what was in force before the fixture.
async fn converged(scope: &Scope) -> Result<Entrance, NoVerdict> {
    let last = "last.gateway.example";
    entrance(scope).await?.at_every_proxy(scope, last).await
}

async fn splits_by_weight(scope: &Scope) -> Outcome {
    let entrance = converged(scope).await?;
    let inside = scope.pod("app=frontend").await?;
    let spec = entrance.request(HOST, "/ninety");
    // Nobody promises that a pod reaches the Gateway's address; where one does, it is a second client.
    let clients = match inside.request(&spec).await?.failures().is_empty() {
        true => vec![entrance.outside(), &inside],
        false => vec![entrance.outside()],
    };
    let outcome = scope
        .sample(Sampling {
            what: "who answers a rule of weights 90 and 10",
            from: &clients,
            spec: &RequestSpec {
                concurrency: 8,
                connections: Connections::Reuse,
                ..spec
            },
            arms: &[("alpha", 90.0), ("beta", 10.0)],
            tolerance: TOLERANCE,
            sort: &|reply: &Reply| match (said::status(reply), reply.pod()) {
                (status, Some(pod)) if status == "200" => Sorted::Arm(pod.to_owned()),
                (failure, _) => Sorted::Failed(failure),
            },
            likely: "the weights of the HTTPRoute are others",
        })
        .await;
    explain(scope, outcome, "weighted", "/ninety").await
}

async fn weight_zero_receives_nothing(scope: &Scope) -> Outcome {
    let entrance = converged(scope).await?;
    // Were the weight one of a hundred, 1500 requests would miss it with probability 0.99¹⁵⁰⁰ < 1e-6.
    let spec = RequestSpec {
        count: 1500,
        concurrency: 8,
        ..entrance.request(HOST, "/zero")
    };
    let answers = entrance.outside().request(&spec).await?;
    let outcome = expect_eq(
        "the pods that answer 1500 requests, with counts, and failures",
        &(BTreeMap::from([("beta".to_owned(), 1500)]), BTreeMap::new()),
        &(answers.counts(), answers.failures()),
        "the controller takes weight 0 for no weight, which is 1",
    );
    explain(scope, outcome, "weighted", "/zero").await
}

async fn share_of_an_invalid_backend_is_500(scope: &Scope) -> Outcome {
    let entrance = converged(scope).await?;
    let outcome = shares(
        scope,
        entrance.outside(),
        &entrance.request(HOST, "/invalid"),
        Shares {
            what: "the answers of a rule of which 30 % go to a Service that does not exist",
            arms: &[("200 by alpha", 70.0), ("500", 30.0)],
            arm_of: said::said,
            // Its share is 30 %, or nothing, or everything: ten points tell these apart.
            tolerance: 0.1,
            likely: "the controller drops the invalid backend and gives its share to the others, or fails the whole rule",
        },
    )
    .await;
    explain(scope, outcome, "weighted", "/invalid").await
}
