//! What policies let in: a table of cases, each of which is a check.
//!
//! Start from [`SUITE`]. Each row is a policy for the server of `manifests/cni/policy.yaml`, or its friend, and what comes
//! of the ways to it; without the policy all of them pass ([`super::policy::judge`]).

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
        id: "cni::policy_of_pods_and_namespace",
        claim: "A peer with a podSelector and a namespaceSelector is a pod that satisfies both.",
        source: "sig-network: should enforce policy based on PodSelector and NamespaceSelector; sig-network: should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: FIXTURE}}, podSelector: {matchLabels: {app: peer}}}]
"#,
        ways: &[
            (Peer, Server, Tcp, Passes),
            (Echo, Server, Tcp, Denied),
            (Friend, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_pods_or_namespace",
        claim: "Two peers of a rule, a podSelector and a namespaceSelector, let in the pods of either.",
        source: "sig-network: should enforce policy based on PodSelector or NamespaceSelector",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: FIXTURE}}}, {podSelector: {matchLabels: {app: friend}}}]
"#,
        ways: &[
            (Peer, Server, Tcp, Passes),
            (Echo, Server, Tcp, Passes),
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_every_namespace",
        claim: "A peer with an empty namespaceSelector is a pod of any namespace that its podSelector selects.",
        source: "Kubernetes: NetworkPolicyPeer namespaceSelector, \"an empty selector selects all namespaces\"",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [peer, friend]}]}}]
"#,
        ways: &[
            (Peer, Server, Tcp, Passes),
            (Friend, Server, Tcp, Passes),
            (Echo, Server, Tcp, Denied),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_expression_in",
        claim: "A podSelector with the expression In selects pods with one of its values.",
        source: "sig-network: should enforce policy based on PodSelector with MatchExpressions",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [nobody, friend]}]}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_expression_not_in",
        claim: "A podSelector with the expression NotIn selects all pods but those with one of its values.",
        source: "sig-network: should enforce policy based on PodSelector with MatchExpressions",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [stranger]}]}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_expression_exists",
        claim: "A podSelector with the expression Exists selects pods with the label, whatever its value.",
        source: "sig-network: should enforce policy based on PodSelector with MatchExpressions",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchExpressions: [{key: trusted, operator: Exists}]}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_expression_does_not_exist",
        claim: "A podSelector with the expression DoesNotExist selects pods without the label.",
        source: "sig-network: should enforce policy based on PodSelector with MatchExpressions",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchExpressions: [{key: trusted, operator: DoesNotExist}]}}]
"#,
        ways: &[
            (Stranger, Server, Tcp, Passes),
            (Friend, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_namespace_expression",
        claim: "A namespaceSelector with an expression selects namespaces by it.",
        source: "sig-network: should enforce policy based on NamespaceSelector with MatchExpressions",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [nobody, FIXTURE]}]}}]
"#,
        ways: &[(Peer, Server, Tcp, Passes), (Friend, Server, Tcp, Denied)],
    },
    policy_check! {
        id: "cni::policy_of_a_port",
        claim: "A policy that allows a port by its number leaves other ports closed, and the same number over UDP.",
        source: "sig-network: should enforce policy based on Ports",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - ports: [{port: 9000}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Denied),
            (Friend, Server, Udp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_a_udp_port",
        claim: "A policy that allows a UDP port leaves the same number closed over TCP.",
        source: "Kubernetes: NetworkPolicyPort protocol",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - ports: [{port: 9000, protocol: UDP}]
"#,
        ways: &[
            (Friend, Server, Udp, Passes),
            (Friend, Server, Tcp, Denied),
            (Friend, Server, Http, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_a_protocol",
        claim: "A policy that allows a protocol without a port allows all its ports, and no other protocol.",
        source: "Kubernetes: NetworkPolicyPort port, \"if this field is not provided, this matches all port names and numbers\"",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - ports: [{protocol: TCP}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Friend, Server, Http, Passes),
            (Friend, Server, Udp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_sctp",
        claim: "A policy that allows an SCTP port leaves the same number closed over TCP and UDP.",
        source: "sig-network: should not allow access by TCP when a policy specifies only SCTP",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - ports: [{port: 9000, protocol: SCTP}]
"#,
        ways: &[(Friend, Server, Tcp, Denied), (Friend, Server, Udp, Denied)],
    },
    policy_check! {
        id: "cni::policy_of_peer_and_port",
        claim: "A rule with peers and ports lets those peers in at those ports, and at no other.",
        source: "sig-network: should allow ingress access from namespace on one named port",
        needs: &[Need::NetworkPolicy, Need::Version(21)],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: FIXTURE}}}]
    ports: [{port: echo}]
"#,
        ways: &[
            (Peer, Server, Tcp, Passes),
            (Peer, Server, Http, Denied),
            (Friend, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_two_rules",
        claim: "A policy of two rules lets in what either of them allows.",
        source: "Kubernetes: NetworkPolicySpec ingress, \"the traffic matches at least one ingress rule\"",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: echo}]
  - ports: [{port: web}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
            (Stranger, Server, Http, Passes),
            (Friend, Server, Udp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_a_block",
        claim: "A policy that allows a block of addresses lets these in, and no others.",
        source: "Kubernetes: IPBlock cidr",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{ipBlock: {cidr: FRIEND}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
        ],
    },
    policy_check! {
        id: "cni::policy_of_an_excepted_address",
        claim: "An address that one block excepts and another one allows is let in.",
        source: "sig-network: should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{ipBlock: {cidr: EVERYBODY, except: [FRIEND, STRANGER]}}, {ipBlock: {cidr: FRIEND}}]
"#,
        ways: &[
            (Friend, Server, Tcp, Passes),
            (Stranger, Server, Tcp, Denied),
            (Peer, Server, Tcp, Passes),
        ],
    },
    policy_check! {
        id: "cni::policy_selects_its_own_pods",
        claim: "A policy isolates the pods that it selects, and no others of its namespace.",
        source: "Kubernetes: NetworkPolicySpec podSelector",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Ingress]
"#,
        ways: &[
            (Stranger, Friend, Tcp, Denied),
            (Stranger, Server, Tcp, Passes),
            (Friend, Server, Tcp, Passes),
        ],
    },
    policy_check! {
        id: "cni::policy_types_default_to_ingress",
        claim: "A policy without policyTypes and without egress rules isolates its pods from what comes in, and not from what goes out.",
        source: "Kubernetes: NetworkPolicySpec policyTypes, its default",
        needs: &[Need::NetworkPolicy],
        policy: r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: []
"#,
        ways: &[(Friend, Server, Tcp, Denied), (Server, Friend, Tcp, Passes)],
    },
];
