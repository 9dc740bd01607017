//! What NetworkPolicies keep out, and what they let pass.
//!
//! Start from [`SUITE`]. These checks have clients on every node, the server's own and others; what does
//! not depend on the node is in `policy_ingress`, `policy_egress` and `policy_changes`. How a policy is
//! judged is [`super::policy`]'s.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use strata::{Check, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite};

use super::policy::{Ask, Then, Way, come_to, enforced, ways};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::policy_denies_all_ingress",
        claim: "A default-deny policy for ingress keeps out every pod, but not the pod's own node, and the pod's own connections are answered.",
        source: "sig-network: should support a 'default-deny-ingress' policy; Kubernetes: Network Policies, The two sorts of pod isolation",
        needs: &[Need::NetworkPolicy, Need::NodeNetwork],
        manifest: Some("cni/policy_denies_all_ingress.yaml"),
        run: |scope| Box::pin(policy_denies_all_ingress(scope)),
    },
    Check {
        id: "cni::policy_allows_pods_by_label",
        claim: "A policy that allows pods of a label lets these in, and no others.",
        source: "sig-network: should enforce policy to allow traffic from pods within server namespace based on PodSelector; Kubernetes: NetworkPolicyPeer podSelector",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy_allows_pods_by_label.yaml"),
        run: |scope| Box::pin(policy_allows_pods_by_label(scope)),
    },
    Check {
        id: "cni::policy_allows_pods_by_namespace",
        claim: "A policy that allows a namespace lets all its pods in, and not those of the policy's own.",
        source: "sig-network: should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
        needs: &[Need::Version(21), Need::NetworkPolicy],
        manifest: Some("cni/policy_allows_pods_by_namespace.yaml"),
        run: |scope| Box::pin(policy_allows_pods_by_namespace(scope)),
    },
    Check {
        id: "cni::policy_allows_a_named_port",
        claim: "A policy that allows a port by its name leaves other ports closed, and the same number over UDP.",
        source: "sig-network: should allow ingress access on one named port; sig-network: should not allow access by TCP when a policy specifies only SCTP",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy_allows_a_named_port.yaml"),
        run: |scope| Box::pin(policy_allows_a_named_port(scope)),
    },
    Check {
        id: "cni::policy_allows_a_range_of_ports",
        claim: "A policy with an endPort allows the ports of its range, and none below it.",
        source: "Kubernetes: NetworkPolicyPort endPort (KEP-2079); cilium: client-egress-expression-knp-port-range",
        needs: &[Need::Version(22), Need::NetworkPolicy],
        manifest: Some("cni/policy_allows_a_range_of_ports.yaml"),
        run: |scope| Box::pin(policy_allows_a_range_of_ports(scope)),
    },
    Check {
        id: "cni::policy_limits_egress",
        claim: "A policy for egress lets its pods reach whom it allows, and no other pod, and leaves them reachable.",
        source: "sig-network: should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector; cilium: client-egress-knp",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy_limits_egress.yaml"),
        run: |scope| Box::pin(policy_limits_egress(scope)),
    },
    Check {
        id: "cni::policy_excepts_addresses",
        claim: "A policy that allows a block of addresses keeps its exceptions out.",
        source: "sig-network: should enforce except clause while egress access to server in CIDR block; Kubernetes: IPBlock except",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policy_excepts_addresses.yaml"),
        run: |scope| Box::pin(policy_excepts_addresses(scope)),
    },
    Check {
        id: "cni::policies_add_up",
        claim: "What any of a pod's policies allows passes, and a deleted policy no longer counts.",
        source: "sig-network: should enforce multiple, stacked policies with overlapping podSelectors; sig-network: should stop enforcing policies after they are deleted",
        needs: &[Need::NetworkPolicy],
        manifest: Some("cni/policies_add_up.yaml"),
        run: |scope| Box::pin(policies_add_up(scope)),
    },
];

const DENY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
";

async fn policy_denies_all_ingress(scope: &Scope) -> Outcome {
    let server = server(scope).await?;
    let clients = scope.ready_pods("app=client").await?;
    let hosts = scope.ready_pods_in(scope.fixture(), "app=host").await?;
    let hosts = hosts.into_iter().filter(|host| host.node == server.node);
    let mut ways = ways(scope, &clients, &server, Ask::Tcp, Then::Denied);
    ways.extend(self::ways(scope, &clients, &server, Ask::Udp, Then::Denied));
    ways.extend(hosts.map(|host| Way::new(scope, &host, &server, Ask::Tcp, Then::Passes)));
    ways.extend(
        clients
            .iter()
            .map(|client| Way::new(scope, &server, client, Ask::Tcp, Then::Passes)),
    );
    enforced(scope, DENY, &ways).await
}

async fn policy_allows_pods_by_label(scope: &Scope) -> Outcome {
    let ways = friends_and_strangers(scope).await?;
    let policy = ingress("- from: [{podSelector: {matchLabels: {app: friend}}}]");
    enforced(scope, &policy, &ways).await
}

async fn policy_allows_pods_by_namespace(scope: &Scope) -> Outcome {
    let server = server(scope).await?;
    let own = scope.ready_pods("app=client").await?;
    let others = scope.ready_pods_in(scope.fixture(), "app=peer").await?;
    let mut ways = ways(scope, &own, &server, Ask::Tcp, Then::Denied);
    ways.extend(self::ways(scope, &others, &server, Ask::Tcp, Then::Passes));
    let policy = ingress(&format!(
        "- from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}}}]",
        scope.fixture()
    ));
    enforced(scope, &policy, &ways).await
}

async fn policy_allows_a_named_port(scope: &Scope) -> Outcome {
    let server = server(scope).await?;
    let clients = scope.ready_pods("app=client").await?;
    let mut ways = ways(scope, &clients, &server, Ask::Tcp, Then::Passes);
    ways.extend(self::ways(scope, &clients, &server, Ask::Udp, Then::Denied));
    ways.extend(self::ways(
        scope,
        &clients,
        &server,
        Ask::Http,
        Then::Denied,
    ));
    enforced(scope, &ingress("- ports: [{port: echo}]"), &ways).await
}

async fn policy_allows_a_range_of_ports(scope: &Scope) -> Outcome {
    let server = server(scope).await?;
    let clients = scope.ready_pods("app=client").await?;
    let mut ways = ways(scope, &clients, &server, Ask::Tcp, Then::Passes);
    ways.extend(self::ways(
        scope,
        &clients,
        &server,
        Ask::Http,
        Then::Denied,
    ));
    let policy = ingress("- ports: [{port: 8990, endPort: 9000}]");
    enforced(scope, &policy, &ways).await
}

async fn policy_limits_egress(scope: &Scope) -> Outcome {
    let server = server(scope).await?;
    let clients = scope.ready_pods("app=client").await?;
    let others = scope.ready_pods("app=other").await?;
    let mut ways = ways(scope, &clients, &server, Ask::Tcp, Then::Passes);
    for client in &clients {
        for other in &others {
            ways.push(Way::new(scope, client, other, Ask::Tcp, Then::Denied));
            ways.push(Way::new(scope, other, client, Ask::Tcp, Then::Passes));
        }
    }
    let policy = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
";
    enforced(scope, policy, &ways).await
}

async fn policy_excepts_addresses(scope: &Scope) -> Outcome {
    let ways = friends_and_strangers(scope).await?;
    let strangers = scope.ready_pods("app=stranger").await?;
    let six = strangers.iter().any(|stranger| stranger.ip.is_ipv6());
    let (everybody, one) = if six {
        ("::/0", 128)
    } else {
        ("0.0.0.0/0", 32)
    };
    let except: Vec<_> = strangers
        .iter()
        .map(|stranger| format!("\"{}/{one}\"", stranger.ip))
        .collect();
    let policy = ingress(&format!(
        "- from: [{{ipBlock: {{cidr: \"{everybody}\", except: [{}]}}}}]",
        except.join(", ")
    ));
    enforced(scope, &policy, &ways).await
}

async fn policies_add_up(scope: &Scope) -> Outcome {
    let ways = friends_and_strangers(scope).await?;
    let allow = ingress("- from: [{podSelector: {matchLabels: {app: friend}}}]");
    enforced(scope, &format!("{DENY}---{allow}"), &ways).await?;
    scope.delete::<NetworkPolicy>("allow").await?;
    come_to(scope, "under the one that is left", &ways, |_| Then::Denied).await?;
    scope.delete::<NetworkPolicy>("deny").await?;
    come_to(scope, "once none is left", &ways, |_| Then::Passes).await
}

/// A policy that selects the server and allows this.
fn ingress(rule: &str) -> String {
    format!(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  ingress:
  {rule}
"
    )
}

async fn server(scope: &Scope) -> Result<PodView, NoVerdict> {
    let servers = scope.ready_pods("app=server").await?;
    let first = servers.into_iter().next();
    first.ok_or_else(|| NoVerdict::new("the manifest made no server"))
}

/// From the friends of the manifest, who are to be let in, and its strangers, to its server.
async fn friends_and_strangers(scope: &Scope) -> Result<Vec<Way>, NoVerdict> {
    let server = server(scope).await?;
    let friends = scope.ready_pods("app=friend").await?;
    let strangers = scope.ready_pods("app=stranger").await?;
    let mut ways = ways(scope, &friends, &server, Ask::Tcp, Then::Passes);
    ways.extend(self::ways(
        scope,
        &strangers,
        &server,
        Ask::Tcp,
        Then::Denied,
    ));
    Ok(ways)
}
