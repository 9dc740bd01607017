//! How a policy is judged: by ways that all lead to somebody before it, and of which some do not under it.
//!
//! Start from [`Case`], a policy and what comes of the ways between the pods of `manifests/cni/policy.yaml`
//! and those of the layer's fixture, or from [`enforced`], which takes any ways. Rule: denied is what the
//! plugin's project says that it does with a packet ([`Denial`]), and nothing else that can go wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::try_join_all;
use strata::wire::{FailureKind, RequestSpec, TcpSpec, UdpSpec};
use strata::{Denial, Eventually, NoVerdict, Outcome, PodView, Scope};

use super::paths::{ECHO_TCP, Path, at, tcp};
use crate::said;

/// A policy, and what comes of some ways under it.
pub(super) struct Case {
    /// One or more documents. `FIXTURE` stands for the namespace of the layer's fixture, `SERVER`, `FRIEND`
    /// and `STRANGER` for the blocks of just that pod's address, `EVERYBODY` for that of all addresses.
    pub(super) policy: &'static str,
    /// From whom to whom, what is asked for, and what comes of it.
    pub(super) ways: &'static [(Who, Who, Ask, Then)],
}

/// A check of one [`Case`], on the pods of `manifests/cni/policy.yaml`.
macro_rules! policy_check {
    (id: $id:expr, claim: $claim:expr, source: $source:expr, needs: $needs:expr, policy: $policy:expr, ways: $ways:expr,) => {
        Check {
            id: $id,
            claim: $claim,
            source: $source,
            needs: $needs,
            manifest: Some("cni/policy.yaml"),
            run: |scope| {
                const CASE: $crate::cni::policy::Case = $crate::cni::policy::Case {
                    policy: $policy,
                    ways: $ways,
                };
                Box::pin($crate::cni::policy::judge(scope, &CASE))
            },
        }
    };
}
pub(super) use policy_check;

/// A pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Of the check's own namespace.
    Server,
    /// The same, with the labels `app: friend` and `trusted`.
    Friend,
    /// The same, with the label `app: stranger`.
    Stranger,
    /// Of the fixture's namespace, with the label `app: peer`.
    Peer,
    /// The same, with the label `app: echo`.
    Echo,
}

use Who::{Echo, Friend, Peer, Server, Stranger};

/// The pods that take part.
pub(super) struct Cast(Vec<(Who, PodView)>);

impl Cast {
    pub(super) async fn of(scope: &Scope) -> Result<Self, NoVerdict> {
        let mut cast = Vec::new();
        for (who, selector) in [
            (Server, "app=server"),
            (Friend, "app=friend"),
            (Stranger, "app=stranger"),
        ] {
            cast.push((who, first(scope.ready_pods(selector).await?)?));
        }
        for (who, selector) in [(Peer, "app=peer"), (Echo, "app=echo")] {
            let pods = scope.ready_pods_in(scope.fixture(), selector).await?;
            cast.push((who, first(pods)?));
        }
        Ok(Self(cast))
    }

    pub(super) fn pod(&self, who: Who) -> Result<&PodView, NoVerdict> {
        let found = self.0.iter().find(|(one, _)| *one == who);
        found
            .map(|(_, pod)| pod)
            .ok_or_else(|| NoVerdict::new(format!("{who:?} takes no part")))
    }

    pub(super) fn ways(
        &self,
        scope: &Scope,
        ways: &[(Who, Who, Ask, Then)],
    ) -> Result<Vec<Way>, NoVerdict> {
        let one = |&(from, to, ask, then): &(Who, Who, Ask, Then)| {
            Ok(Way::new(scope, self.pod(from)?, self.pod(to)?, ask, then))
        };
        ways.iter().map(one).collect()
    }

    /// A policy with the names and addresses that it leaves open.
    pub(super) fn filled_in(&self, scope: &Scope, policy: &str) -> Result<String, NoVerdict> {
        let mut text = policy.replace("FIXTURE", scope.fixture());
        let mut everybody = "0.0.0.0/0";
        for (word, who) in [
            ("SERVER", Server),
            ("FRIEND", Friend),
            ("STRANGER", Stranger),
        ] {
            let ip = self.pod(who)?.ip;
            if ip.is_ipv6() {
                everybody = "::/0";
            }
            text = text.replace(word, &block(ip));
        }
        Ok(text.replace("EVERYBODY", &format!("\"{everybody}\"")))
    }
}

/// The block of just one address, as YAML has it.
pub(super) fn block(ip: IpAddr) -> String {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    format!("\"{ip}/{length}\"")
}

fn first(pods: Vec<PodView>) -> Result<PodView, NoVerdict> {
    let first = pods.into_iter().next();
    first.ok_or_else(|| NoVerdict::new("the manifest made no such pod"))
}

/// Judges a case.
pub(super) async fn judge(scope: &Scope, case: &Case) -> Outcome {
    let cast = Cast::of(scope).await?;
    let ways = cast.ways(scope, case.ways)?;
    enforced(scope, &cast.filled_in(scope, case.policy)?, &ways).await
}

/// What a connection comes to that the plugin denies.
pub(crate) async fn denied(scope: &Scope) -> Result<String, NoVerdict> {
    let plugin = scope.cluster().plugin().await?;
    let plugin = plugin.ok_or_else(|| NoVerdict::new("there is no CNI plugin that we know"))?;
    Ok(match plugin.denial {
        Denial::Silent => FailureKind::TimedOut.to_string(),
        Denial::Told => FailureKind::Refused.to_string(),
    })
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    /// The echo server's TCP port, which its container calls `echo`.
    Tcp,
    /// The same number over UDP.
    Udp,
    /// Its HTTP port.
    Http,
    /// This TCP port, of a server that has none of the above.
    Port(u16),
}

/// What comes of it under a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Passes,
    Denied,
}

pub(super) struct Way {
    path: Path,
    ask: Ask,
    then: Then,
}

impl Way {
    pub(super) fn new(scope: &Scope, from: &PodView, to: &PodView, ask: Ask, then: Then) -> Self {
        Self {
            path: Path::new(scope, from, to),
            ask,
            then,
        }
    }

    pub(super) fn then(&self) -> Then {
        self.then
    }

    fn name(&self) -> String {
        format!("{:?} {}", self.ask, self.path.name())
    }

    /// Who answers, or how nobody does.
    async fn seen(&self) -> Result<String, NoVerdict> {
        let Path { from, to } = &self.path;
        let word = match self.ask {
            Ask::Tcp => tcp(&self.path).await?,
            Ask::Port(port) => {
                let spec = TcpSpec {
                    timeout_ms: 1000,
                    ..TcpSpec::new(at(to.ip, port))
                };
                said::tcp(&from.tcp(&spec).await?)
            }
            Ask::Udp => {
                let spec = UdpSpec {
                    timeout_ms: 1000,
                    ..UdpSpec::new(at(to.ip, ECHO_TCP))
                };
                said::udp(&from.udp(&spec).await?)
            }
            Ask::Http => {
                let spec = RequestSpec {
                    timeout_ms: 1000,
                    ..RequestSpec::get(format!("http://{}/", at(to.ip, 8080)))
                };
                let answers = from.request(&spec).await?;
                let reply = answers.0.first();
                reply.map_or_else(String::new, |reply| {
                    said::who(reply.error.as_ref(), reply.answer.as_ref())
                })
            }
        };
        Ok(word)
    }
}

pub(super) fn ways(
    scope: &Scope,
    from: &[PodView],
    to: &PodView,
    ask: Ask,
    then: Then,
) -> Vec<Way> {
    let ways = from.iter().map(|from| Way::new(scope, from, to, ask, then));
    ways.collect()
}

/// Shows that every way leads to its server, applies the policy, and waits until some no longer do.
pub(super) async fn enforced(scope: &Scope, policy: &str, ways: &[Way]) -> Outcome {
    come_to(scope, "without a policy", ways, |_| Then::Passes).await?;
    scope.apply(policy).await?;
    come_to(scope, "under the policy", ways, Way::then).await
}

/// Waits until every way comes to what it should; explains the first that leads nowhere.
pub(super) async fn come_to(
    scope: &Scope,
    when: &str,
    ways: &[Way],
    then: impl Fn(&Way) -> Then,
) -> Outcome {
    let denied = denied(scope).await?;
    let expected: BTreeMap<_, _> = ways
        .iter()
        .map(|way| match then(way) {
            Then::Passes => (way.name(), way.path.to.name.clone()),
            Then::Denied => (way.name(), denied.clone()),
        })
        .collect();
    let mut seen = BTreeMap::new();
    let outcome = scope
        .eventually(Eventually {
            what: &format!("who answers {when}, by path"),
            expected: expected.clone(),
            observe: async || {
                let each = ways
                    .iter()
                    .map(async |way| Ok::<_, NoVerdict>((way.name(), way.seen().await?)));
                seen = try_join_all(each).await?.into_iter().collect();
                Ok(seen.clone())
            },
            likely: "the CNI plugin's agent on the server's or the client's node has not put the policy in force, or more than it says",
        })
        .await;
    // Of what is no pod nothing more can be found out.
    let lost = |way: &&Way| {
        let name = way.name();
        way.path.to.pod.metadata.name.is_some()
            && expected.get(&name) == Some(&way.path.to.name)
            && seen.get(&name) != expected.get(&name)
    };
    match ways.iter().find(lost) {
        Some(way) => scope.explain(outcome, way.path.subject()).await,
        None => outcome,
    }
}
