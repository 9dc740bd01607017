//! All of routing at once, at random, against a model of the specification.
//!
//! Start from [`SUITE`]. The model, what is drawn and how a difference is shrunk are in the room
//! `reference`; docs/reference.md tells how one reads.

use strata::{Check, Layer, Need, Outcome, Scope, Suite};

use super::entrance;
use crate::reference::ingresses_agree;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[Check {
    id: "ingress::agrees_with_the_reference",
    claim: "Random requests to random Ingresses are answered as the specification of hosts, paths and path types says.",
    source: "Kubernetes: Ingress path types, multiple matches, hostname wildcards",
    needs: &[Need::Outside],
    manifest: Some("ingress/agrees_with_the_reference.yaml"),
    run: |scope| Box::pin(agrees_with_the_reference(scope)),
}];

async fn agrees_with_the_reference(scope: &Scope) -> Outcome {
    ingresses_agree(scope, &entrance(scope).await?).await
}
