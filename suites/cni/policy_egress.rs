//! What policies let out, and what those of both ways do: a table of cases, each of which is a check.
//!
//! Start from [`SUITE`]. As `policy_ingress`, with policies for the friend of `manifests/cni/policy.yaml`, or its server.

use strata::{Check, Layer, Need, Suite};

use super::policy::Ask::{Http, Tcp, Udp};
use super::policy::Then::{Denied, Passes};
use super::policy::Who::{Echo, Friend, Peer, Server, Stranger};
use super::policy::policy_check;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    policy_check! {
        id: "cni::policy_denies_all_egress",
        claim: "A default-deny policy for egress keeps its pods from every pod, over TCP and UDP, and leaves them reachable.",
        source: "cilium: all-egress-deny-knp; Kubernetes: Network Policies, default deny all egress traffic",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
"#,
        ways: &[
            (Friend, Server, Tcp, Denied),
            (Friend, Server, Udp, Denied),
            (Friend, Peer, Tcp, Denied),
            (Server, Friend, Tcp, Passes),
            (Stranger, Server, Tcp, Passes),
        ],
    },
    policy_check! {
        id: "cni::policy_denies_both_ways",
        claim: "A default-deny policy for both ways keeps its pods from everybody and everybody from them, and nobody else from each other.",
        source: "sig-network: should support a 'default-deny-all' policy",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
"#,
        ways: &[
            (Friend, Server, Tcp, Denied),
            (Peer, Server, Tcp, Denied),
            (Server, Friend, Tcp, Denied),
            (Server, Peer, Tcp, Denied),
            (Friend, Stranger, Tcp, Passes),
        ],
    },
    policy_check! {
        id: "cni::policy_leaves_a_pod_to_itself",
        claim: "A pod that is denied both ways reaches itself.",
        source: "Kubernetes: Network Policies, \"a Pod cannot block access to itself\"",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
"#,
        ways: &[
            (Server, Server, Tcp, Passes),
            (Server, Server, Http, Passes),
            (Friend, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_to_a_named_port",
        claim: "A policy that allows egress to a port by its name leads to that port of each pod that calls one so, and to no other.",
        source: "sig-network: should allow egress access on one named port",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - ports: [{port: echo}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Denied),
            (Friend, Server, Udp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_to_a_range",
        claim: "A policy for egress with an endPort allows the ports of its range, and none below it.",
        source: "Kubernetes: NetworkPolicyPort endPort (KEP-2079)",
        needs: &[Need::NetworkPolicy, Need::Version(22)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - ports: [{port: 8990, endPort: 9010}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_by_expression",
        claim: "A policy that allows egress to pods by an expression over their labels leads to those that it holds for, and to no others.",
        source: "cilium: client-egress-expression-knp",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [server, nobody]}]}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Passes),
            (Friend, Stranger, Tcp, Denied),
            (Friend, Peer, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_to_a_range_by_expression",
        claim: "A rule for egress with an expression and a range of ports leads to those ports of those pods.",
        source: "cilium: client-egress-expression-knp-port-range",
        needs: &[Need::NetworkPolicy, Need::Version(22)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [stranger]}]}}]
    ports: [{port: 8990, endPort: 9010}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Denied),
            (Friend, Stranger, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_to_a_block",
        claim: "A policy that allows egress to a block of addresses leads to these, and to no others.",
        source: "sig-network: should allow egress access to server in CIDR block",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: SERVER}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Stranger, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_but_to_exceptions",
        claim: "A policy that allows egress to a block of addresses does not lead to its exceptions.",
        source: "sig-network: should enforce except clause while egress access to server in CIDR block",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: EVERYBODY, except: [SERVER]}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Denied),
            (Friend, Stranger, Tcp, Passes),
            (Friend, Peer, Tcp, Passes),
        ],
    },
    policy_check! {
        id: "cni::policy_of_egress_to_another_namespace",
        claim: "A policy that allows egress to pods of another namespace leads to these, and neither to others there nor to those of its own.",
        source: "sig-network: should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: FIXTURE}}, podSelector: {matchLabels: {app: peer}}}]
"#,
        ways: &[
            (Friend, Peer, Tcp, Passes),
            (Friend, Echo, Tcp, Denied),
            (Friend, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policies_of_egress_add_up",
        claim: "What any of a pod's policies for egress allows passes.",
        source: "Kubernetes: Network Policies, \"network policies do not conflict; they are additive\"",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: first}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: second}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: stranger}}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Stranger, Tcp, Passes),
            (Friend, Peer, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_both_ways",
        claim: "One policy's rules for ingress and for egress are each of their own way.",
        source: "sig-network: should work with Ingress,Egress specified together",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: both}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
  egress:
  - to: [{podSelector: {matchLabels: {app: stranger}}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
            (Server, Stranger, Tcp, Passes),
            (Server, Friend, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policies_of_both_ends_agree",
        claim: "A connection passes only if the policies of both its ends allow it.",
        source: "Kubernetes: Network Policies, \"both the egress policy on the source pod and the ingress policy on the destination pod need to allow the connection\"; sig-network: should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: stranger}}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Denied),
            (Stranger, Server, Tcp, Passes),
            (Friend, Stranger, Tcp, Denied),
        ],
    },
];
