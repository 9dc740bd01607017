//! Policies, pods and namespaces that change: what a policy allows follows.
//!
//! Start from [`SUITE`]. Each check shows what passes before a change, and waits until something else does.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::policy::Then::{Denied, Passes};
use super::policy::Who::{Friend, Peer, Server, Stranger};
use super::policy::{Ask, Cast, Then, Way, Who, come_to};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::policy_is_updated",
        claim: "A policy that is changed lets in whom it allows now, and no longer whom it allowed before.",
        source: "sig-network: should enforce updated policy",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_is_updated(scope)),
    },
    Check {
        id: "cni::policy_follows_its_peers",
        claim: "A pod that is given the label of a policy's peers is let in, and no longer once it loses it.",
        source: "sig-network: should allow ingress access from updated pod",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_follows_its_peers(scope)),
    },
    Check {
        id: "cni::policy_follows_its_pods",
        claim: "A pod that is given the label of a policy's podSelector is isolated, and no longer once it loses it.",
        source: "sig-network: should deny ingress access to updated pod",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_follows_its_pods(scope)),
    },
    Check {
        id: "cni::policy_follows_namespaces",
        claim: "The pods of a namespace that is given the label of a policy's namespaceSelector are let in.",
        source: "sig-network: should allow ingress access from updated namespace",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_follows_namespaces(scope)),
    },
    Check {
        id: "cni::policy_allows_all_ingress",
        claim: "A policy that allows all ingress lets everybody in beside one that denies all.",
        source: "sig-network: should support allow-all policy; sig-network: should enforce multiple ingress policies with ingress allow-all policy taking precedence",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_allows_all_ingress(scope)),
    },
    Check {
        id: "cni::policy_allows_all_egress",
        claim: "A policy that allows all egress lets its pods reach everybody beside one that denies all.",
        source: "sig-network: should enforce multiple egress policies with egress allow-all policy taking precedence",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy.yaml"),
        run: |scope| Box::pin(policy_allows_all_egress(scope)),
    },
];

/// From these to the server, over TCP.
fn to_server(cast: &Cast, scope: &Scope, from: &[(Who, Then)]) -> Result<Vec<Way>, NoVerdict> {
    let ways: Vec<_> = from
        .iter()
        .map(|(who, then)| (*who, Server, Ask::Tcp, *then))
        .collect();
    cast.ways(scope, &ways)
}

/// Waits until of the ways to the server these pass and these do not.
async fn until(scope: &Scope, cast: &Cast, when: &str, from: &[(Who, Then)]) -> Outcome {
    let ways = to_server(cast, scope, from)?;
    come_to(scope, when, &ways, Way::then).await
}

/// A policy that lets in pods with this value of the label `app`.
fn allow(app: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]
"
    )
}

async fn policy_is_updated(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let both = [(Friend, Passes), (Stranger, Passes)];
    until(scope, &cast, "without a policy", &both).await?;
    scope.apply(&allow("friend")).await?;
    let friends = [(Friend, Passes), (Stranger, Denied)];
    until(scope, &cast, "under a policy for friends", &friends).await?;
    scope.apply(&allow("stranger")).await?;
    let strangers = [(Friend, Denied), (Stranger, Passes)];
    until(scope, &cast, "once it is for strangers", &strangers).await
}

async fn label(
    scope: &Scope,
    who: &str,
    label: &str,
    value: Option<&str>,
) -> Result<(), NoVerdict> {
    let patch = json!({ "metadata": { "labels": { label: value } } });
    scope.merge::<Pod>(who, patch).await.map(drop)
}

async fn policy_follows_its_peers(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let policy = allow("friend").replace("app: friend", "invited: \"yes\"");
    scope.apply(&policy).await?;
    let nobody = [(Friend, Denied), (Stranger, Denied)];
    until(scope, &cast, "before anybody is invited", &nobody).await?;
    label(scope, "stranger", "invited", Some("yes")).await?;
    let stranger = [(Friend, Denied), (Stranger, Passes)];
    until(scope, &cast, "once the stranger is invited", &stranger).await?;
    label(scope, "stranger", "invited", None).await?;
    until(scope, &cast, "once it is no longer", &nobody).await
}

async fn policy_follows_its_pods(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let policy = allow("friend").replace("app: server", "isolated: \"yes\"");
    scope.apply(&policy).await?;
    let everybody = [(Friend, Passes), (Stranger, Passes)];
    until(scope, &cast, "before the server is isolated", &everybody).await?;
    label(scope, "server", "isolated", Some("yes")).await?;
    let friends = [(Friend, Passes), (Stranger, Denied)];
    until(scope, &cast, "once it is", &friends).await?;
    label(scope, "server", "isolated", None).await?;
    until(scope, &cast, "once it is no longer", &everybody).await
}

async fn policy_follows_namespaces(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let policy = allow("friend").replace(
        "podSelector: {matchLabels: {app: friend}}",
        "namespaceSelector: {matchLabels: {strata.dev/invited: \"yes\"}}",
    );
    scope.apply(&policy).await?;
    let nobody = [(Friend, Denied), (Peer, Denied)];
    until(scope, &cast, "before a namespace is invited", &nobody).await?;
    let invited = "apiVersion: v1
kind: Namespace
metadata: {name: own, labels: {strata.dev/invited: \"yes\"}}
";
    scope.apply(invited).await?;
    let own = [(Friend, Passes), (Peer, Denied)];
    until(scope, &cast, "once the server's own is", &own).await
}

const DENY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {matchLabels: {app: WHO}}, policyTypes: [WAY]}
";

async fn policy_allows_all_ingress(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let deny = DENY.replace("WHO", "server").replace("WAY", "Ingress");
    scope.apply(&deny).await?;
    let nobody = [(Friend, Denied), (Stranger, Denied), (Peer, Denied)];
    until(scope, &cast, "while all ingress is denied", &nobody).await?;
    let allow = deny.replace("name: deny", "name: allow");
    scope
        .apply(&allow.replace("[Ingress]", "[Ingress], ingress: [{}]"))
        .await?;
    let everybody = [(Friend, Passes), (Stranger, Passes), (Peer, Passes)];
    until(scope, &cast, "once all of it is allowed too", &everybody).await
}

async fn policy_allows_all_egress(scope: &Scope) -> Outcome {
    let cast = Cast::of(scope).await?;
    let ways = |then| {
        let ways = [Server, Stranger, Peer].map(|to| (Friend, to, Ask::Tcp, then));
        cast.ways(scope, &ways)
    };
    let deny = DENY.replace("WHO", "friend").replace("WAY", "Egress");
    scope.apply(&deny).await?;
    come_to(
        scope,
        "while all egress is denied",
        &ways(Denied)?,
        Way::then,
    )
    .await?;
    let allow = deny.replace("name: deny", "name: allow");
    scope
        .apply(&allow.replace("[Egress]", "[Egress], egress: [{}]"))
        .await?;
    come_to(
        scope,
        "once all of it is allowed too",
        &ways(Passes)?,
        Way::then,
    )
    .await
}
