//! All of matching at once, at random, against a model of the specification.
//!
//! Start from [`SUITE`]. The model, what is drawn and how a difference is shrunk are in the room
//! `reference`; docs/reference.md tells how one reads.

use gateway_api::gateways::Gateway;
use strata::budget::PROVISION;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Subject, Suite};

use super::gateway_address;
use crate::entrance::Entrance;
use crate::reference::http_routes_agree;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[Check {
    id: "gateway::agrees_with_the_reference",
    claim: "Random requests to random HTTPRoutes are answered as the specification of hostnames, matches and their precedence says.",
    source: "Gateway API: HTTPRoute spec.hostnames, HTTPRouteRule matches",
    needs: &[Need::Outside],
    manifest: Some("gateway/agrees_with_the_reference.yaml"),
    run: |scope| Box::pin(agrees_with_the_reference(scope)),
}];

/// Of the check's own, so that its routes and others' are apart.
const GATEWAY: &str = "reference";

async fn agrees_with_the_reference(scope: &Scope) -> Outcome {
    let mut address = None;
    let outcome = scope
        .eventually_within(
            PROVISION,
            Eventually {
                what: "whether Gateway reference has an address",
                expected: true,
                observe: async || {
                    address = gateway_address(&scope.get::<Gateway>(GATEWAY).await?);
                    Ok(address.is_some())
                },
                likely: "the Gateway's proxy is not ready, or its Service has no address",
            },
        )
        .await;
    let subject = Subject::Gateway {
        namespace: scope.namespace(),
        name: GATEWAY,
        listener: None,
    };
    scope.explain(outcome, subject).await?;
    let entrance = Entrance::at(scope, address.unwrap_or_default())?;
    http_routes_agree(scope, &entrance).await
}
