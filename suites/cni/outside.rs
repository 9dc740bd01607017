//! The world outside the cluster, as pods reach it, and policies that look at its addresses.
//!
//! Start from [`World`], a server at the vantage outside. Rule: what keeps even the nodes from it is no
//! defect of the pods' network, so a node reaches it first, or nothing is judged.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use strata::budget::CONVERGE;
use strata::wait::{self, Progress};
use strata::wire::{TcpReply, TcpSpec, UdpReply, UdpSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, Vantage};

use super::dual_stack::second_view;
use super::paths::{HOST_TCP, at};
use super::policy::Ask::{Port, Tcp};
use super::policy::Then::{Denied, Passes};
use super::policy::Who::{Friend, Server, Stranger};
use super::policy::{Cast, Then, Way, Who, block, enforced};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Cni,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "cni::pods_reach_the_outside",
        claim: "A pod of every node reaches a server outside the cluster by TCP and by UDP, as the nodes do.",
        source: "sig-network: should provide Internet connection for containers (IPv4); cilium: no-policies",
        needs: &[Need::Outside, Need::NodeNetwork],
        manifest: None,
        run: |scope| Box::pin(pods_reach_the_outside(scope)),
    },
    Check {
        id: "cni::dual_stack_pods_reach_the_outside",
        claim: "A pod of every node reaches a server outside the cluster in the second family too, as the nodes do.",
        source: "sig-network: should provide Internet connection for containers (IPv6); cilium: no-policies",
        needs: &[Need::Outside, Need::NodeNetwork, Need::DualStack],
        manifest: None,
        run: |scope| Box::pin(pods_reach_the_outside_in_the_second_family(scope)),
    },
    Check {
        id: "cni::policy_denies_egress_to_the_outside",
        claim: "A default-deny policy for egress keeps its pods from a server outside the cluster, and nobody else.",
        source: "cilium: all-egress-deny-knp",
        needs: &[Need::NetworkPolicy, Need::Outside, Need::NodeNetwork],
        manifest: Some("cni/policy.yaml"),
        run: |scope| {
            const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
";
            let out = &[(Friend, Denied), (Stranger, Passes)];
            Box::pin(policy(scope, POLICY, out, (Friend, Denied)))
        },
    },
    Check {
        id: "cni::policy_of_egress_to_an_outside_block",
        claim: "A policy that allows egress to a block outside the cluster leads to a server there, and to no pod.",
        source: "cilium: to-cidr-external-knp",
        needs: &[Need::NetworkPolicy, Need::Outside, Need::NodeNetwork],
        manifest: Some("cni/policy.yaml"),
        run: |scope| {
            const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: OUTSIDE}}]
";
            let out = &[(Friend, Passes), (Stranger, Passes)];
            Box::pin(policy(scope, POLICY, out, (Friend, Denied)))
        },
    },
    Check {
        id: "cni::policy_excepts_an_outside_block",
        claim: "A policy that allows egress to everybody but a block outside the cluster keeps its pods from a server there.",
        source: "cilium: to-cidr-external-knp",
        needs: &[Need::NetworkPolicy, Need::Outside, Need::NodeNetwork],
        manifest: Some("cni/policy.yaml"),
        run: |scope| {
            const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: EVERYBODY, except: [OUTSIDE]}}]
";
            let out = &[(Friend, Denied), (Stranger, Passes)];
            Box::pin(policy(scope, POLICY, out, (Friend, Passes)))
        },
    },
];

/// A server outside the cluster that echoes, by TCP and by UDP.
struct World {
    outside: Vantage,
    ip: IpAddr,
    port: u16,
}

impl World {
    /// At the address by which the vantage outside reaches a node, and a port that others are unlikely to have.
    async fn beside(scope: &Scope, node: &PodView) -> Result<Self, NoVerdict> {
        let outside = scope.outside()?;
        let to = at(node.ip, HOST_TCP);
        let replies = outside.tcp(&TcpSpec::new(&to)).await?;
        let own = replies.first().and_then(|reply| reply.local);
        let own = own.ok_or_else(|| {
            NoVerdict::new(format!(
                "the vantage outside does not reach {to}, so nobody knows its address"
            ))
        })?;
        // Another in each run, since a server that nobody waits for may stay for a minute.
        let port = 20_000 + u16::try_from(scope.seed() % 10_000).unwrap_or_default();
        Ok(Self {
            outside,
            ip: own.ip(),
            port,
        })
    }

    /// What comes of a connection to it, and of a datagram.
    async fn asked(&self, from: &Vantage) -> Result<(Vec<TcpReply>, Vec<UdpReply>), NoVerdict> {
        let to = at(self.ip, self.port);
        let tcp = TcpSpec {
            timeout_ms: 1000,
            ..TcpSpec::new(&to)
        };
        let udp = UdpSpec {
            timeout_ms: 1000,
            ..UdpSpec::new(&to)
        };
        Ok((from.tcp(&tcp).await?, from.udp(&udp).await?))
    }

    /// Waits until a node reaches it; who answers.
    async fn reached(&self, node: &Vantage) -> Result<String, NoVerdict> {
        let to = at(self.ip, self.port);
        let what = format!("{} reaches {to}, where this run serves", node.name());
        let served = wait::until(&what, CONVERGE, async || {
            let (tcp, udp) = self.asked(node).await?;
            let by_tcp = tcp.first().and_then(|reply| reply.answer.as_ref());
            let by_udp = udp.first().and_then(|reply| reply.answer.as_ref());
            Ok(match (by_tcp, by_udp) {
                (Some(one), Some(other)) if one.pod == other.pod => {
                    Progress::Ready(one.pod.clone())
                }
                _ => Progress::NotYet(format!(
                    "TCP: {}, UDP: {}",
                    said::tcp(&tcp),
                    said::udp(&udp)
                )),
            })
        });
        served.await.map_err(|why| {
            why.with_likely(
                "a firewall between the nodes and the vantage outside, which says nothing of pods",
            )
        })
    }

    /// As one end of a way.
    fn as_pod(&self, name: &str) -> PodView {
        PodView {
            namespace: String::new(),
            name: name.to_owned(),
            node: "outside".to_owned(),
            ip: self.ip,
            ips: vec![self.ip],
            host_ip: self.ip,
            labels: BTreeMap::new(),
            pod: Pod::default(),
        }
    }
}

async fn pods_reach_the_outside(scope: &Scope) -> Outcome {
    let nodes = scope.ready_pods("app=host").await?;
    let pods = scope.ready_pods("app=echo").await?;
    reached_as_by_nodes(scope, &nodes, &pods).await
}

async fn pods_reach_the_outside_in_the_second_family(scope: &Scope) -> Outcome {
    let second = |pods: Vec<PodView>| pods.iter().map(second_view).collect::<Result<Vec<_>, _>>();
    let nodes = second(scope.ready_pods("app=host").await?)?;
    let pods = second(scope.ready_pods("app=echo").await?)?;
    reached_as_by_nodes(scope, &nodes, &pods).await
}

async fn reached_as_by_nodes(scope: &Scope, nodes: &[PodView], pods: &[PodView]) -> Outcome {
    let node = nodes.first();
    let node = node.ok_or_else(|| NoVerdict::new("the fixture has no pod in a node's network"))?;
    let world = World::beside(scope, node).await?;
    let judged = async {
        let mut expected = BTreeMap::new();
        for node in nodes {
            let who = world.reached(&scope.from_pod(node)).await?;
            expected.insert(node.node.clone(), (who.clone(), who));
        }
        let ask = async |pod: &PodView| {
            let (tcp, udp) = world.asked(&scope.from_pod(pod)).await?;
            let who = (said::tcp(&tcp), said::udp(&udp));
            Ok::<_, NoVerdict>((pod.node.clone(), who))
        };
        scope
            .eventually(Eventually {
                what: &format!("who answers a pod at {} by TCP and by UDP, by the pod's node, where the node itself is answered so", at(world.ip, world.port)),
                expected,
                observe: async || Ok(try_join_all(pods.iter().map(ask)).await?.into_iter().collect()),
                likely: "the node does not put its own address in the place of the pod's (the CNI plugin's masquerading), so no answer finds its way back",
            })
            .await
    };
    world.outside.while_serving(world.port, judged).await
}

/// Judges what a policy lets out of the cluster, and whether the first of these, who is denied or passes,
/// reaches a pod.
async fn policy(
    scope: &Scope,
    text: &str,
    out: &[(Who, Then)],
    (who, then): (Who, Then),
) -> Outcome {
    let cast = Cast::of(scope).await?;
    let nodes = scope.ready_pods_in(scope.fixture(), "app=host").await?;
    let node = nodes.first();
    let node = node.ok_or_else(|| NoVerdict::new("the fixture has no pod in a node's network"))?;
    let world = World::beside(scope, node).await?;
    let judged = async {
        let server = world.as_pod(&world.reached(&scope.from_pod(node)).await?);
        let way = |&(from, then): &(Who, Then)| {
            let ask = Port(world.port);
            Ok::<_, NoVerdict>(Way::new(scope, cast.pod(from)?, &server, ask, then))
        };
        let mut ways = out.iter().map(way).collect::<Result<Vec<_>, _>>()?;
        ways.extend(cast.ways(scope, &[(who, Server, Tcp, then)])?);
        let text = text.replace("OUTSIDE", &block(world.ip));
        enforced(scope, &cast.filled_in(scope, &text)?, &ways).await
    };
    world.outside.while_serving(world.port, judged).await
}
