//! What outlives the programs that brought it about: Services, while their nodes' proxies are replaced.
//!
//! Start from [`SUITE`]. The proxies are everybody's, so the check is alone, on clusters of its own only.

use strata::wire::RequestSpec;
use strata::{Check, Layer, Need, Outcome, Scope, Suite};

use super::endpoints::{answers, turn};
use super::{client, explain, named, only};
use crate::load::{load_until, none_failed};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[Check {
    id: "services::outlive_their_proxies",
    claim: "While kube-proxy is replaced on every node no request to a Service fails, and afterwards it follows its endpoints as before.",
    source: "sig-network: should work after restarting kube-proxy",
    needs: &[Need::Ours, Need::Alone],
    manifest: Some("services/two_pods.yaml"),
    run: |scope| Box::pin(outlive_their_proxies(scope)),
}];

async fn outlive_their_proxies(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let name = named(scope, "web");
    let blue = only(scope.ready_pods("colour=blue").await?)?;
    let green = only(scope.ready_pods("colour=green").await?)?;
    let requests = scope.enough(40, 2)?;
    let outcome = answers(scope, &client, &name, requests, [&blue, &green]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    let request = RequestSpec::get(format!("http://{name}/"));
    let replaced = scope.replace_pods_in("kube-system", "k8s-app=kube-proxy");
    let seen = load_until(&client, request, replaced).await?;
    let likely = "kube-proxy takes its rules away when it ends, or begins with none";
    none_failed(scope, &seen, likely)?;
    turn(&client, &blue, false).await?;
    let outcome = answers(scope, &client, &name, 40, [&green]).await;
    explain(scope, outcome, "web", 80, &client).await
}
