//! Ways between pods, and who answers at their ends.
//!
//! Start from [`reaches`], which waits until every path of a matrix leads to its pod, and [`judge`], which
//! asks once. Both explain the first path that does not, and record every cell for the reports.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::future::try_join_all;
use strata::wire::{TcpSpec, UdpSpec};
use strata::{Eventually, NoVerdict, Outcome, PodView, Scope, Subject, Vantage, expect_eq};

use crate::said;

pub(super) const ECHO_TCP: u16 = 9000;
pub(super) const ECHO_UDP: u16 = 9001;
pub(super) const HOST_TCP: u16 = 18081;
pub(super) const HOST_UDP: u16 = 18082;

/// A way from a vantage to a pod.
pub(super) struct Path {
    pub(super) from: Vantage,
    pub(super) to: PodView,
}

impl Path {
    pub(super) fn new(scope: &Scope, from: &PodView, to: &PodView) -> Self {
        Self {
            from: scope.from_pod(from),
            to: to.clone(),
        }
    }

    fn node(&self) -> &str {
        self.from.pod().map_or("outside", |pod| &pod.node)
    }

    pub(super) fn within_a_node(&self) -> bool {
        self.node() == self.to.node
    }

    /// A cell of the matrix: by node for people, by pod so that it is one of its kind.
    pub(super) fn name(&self) -> String {
        format!(
            "{} ({}) → {} ({})",
            self.node(),
            self.from.name(),
            self.to.node,
            self.to.name
        )
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject::PodPath {
            from: &self.from,
            to: &self.to,
        }
    }
}

pub(super) async fn within_a_node(scope: &Scope) -> Result<Vec<Path>, NoVerdict> {
    let mut pairs = all_pairs(scope, "app=peer", "app=echo").await?;
    pairs.retain(Path::within_a_node);
    Ok(pairs)
}

pub(super) async fn across_nodes(scope: &Scope) -> Result<Vec<Path>, NoVerdict> {
    let mut pairs = all_pairs(scope, "app=echo", "app=echo").await?;
    pairs.retain(|path| !path.within_a_node());
    Ok(pairs)
}

pub(super) async fn all_pairs(scope: &Scope, from: &str, to: &str) -> Result<Vec<Path>, NoVerdict> {
    let from = scope.ready_pods(from).await?;
    let to = scope.ready_pods(to).await?;
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)));
    Ok(pairs.map(|(from, to)| Path::new(scope, from, to)).collect())
}

/// Waits until every path leads to its pod; explains the first that does not.
pub(super) async fn reaches(
    scope: &Scope,
    protocol: &str,
    paths: &[Path],
    ask: impl AsyncFn(&Path) -> Result<String, NoVerdict>,
) -> Outcome {
    let mut seen = BTreeMap::new();
    let outcome = scope
        .eventually(Eventually {
            what: &format!("who answers over {protocol}, by path"),
            expected: expected(paths)?,
            observe: async || {
                seen = matrix(paths, &ask).await?;
                Ok(seen.clone())
            },
            likely: LOST,
        })
        .await;
    explain(scope, outcome, paths, &seen).await
}

/// The same for paths that a gate has seen converge: they are asked once.
pub(super) async fn judge(
    scope: &Scope,
    protocol: &str,
    paths: &[Path],
    ask: impl AsyncFn(&Path) -> Result<String, NoVerdict>,
) -> Outcome {
    let seen = matrix(paths, &ask).await?;
    let what = format!("who answers over {protocol}, by path");
    let outcome = expect_eq(what, &expected(paths)?, &seen, LOST);
    explain(scope, outcome, paths, &seen).await
}

const LOST: &str =
    "a route or tunnel is missing on one of the two nodes, or in one of the two pods";

fn expected(paths: &[Path]) -> Result<BTreeMap<String, String>, NoVerdict> {
    if paths.is_empty() {
        return Err(NoVerdict::new(
            "the fixture has no two pods to send between",
        ));
    }
    Ok(paths
        .iter()
        .map(|path| (path.name(), path.to.name.clone()))
        .collect())
}

async fn matrix(
    paths: &[Path],
    ask: &impl AsyncFn(&Path) -> Result<String, NoVerdict>,
) -> Result<BTreeMap<String, String>, NoVerdict> {
    let cells = paths
        .iter()
        .map(async |path| Ok::<_, NoVerdict>((path.name(), ask(path).await?)));
    Ok(try_join_all(cells).await?.into_iter().collect())
}

async fn explain(
    scope: &Scope,
    outcome: Outcome,
    paths: &[Path],
    seen: &BTreeMap<String, String>,
) -> Outcome {
    for (path, who) in seen {
        scope.record(&format!("path {path}"), who);
    }
    match paths
        .iter()
        .find(|path| seen.get(&path.name()) != Some(&path.to.name))
    {
        Some(path) => scope.explain(outcome, path.subject()).await,
        None => outcome,
    }
}

pub(super) async fn tcp(path: &Path) -> Result<String, NoVerdict> {
    let spec = TcpSpec {
        bytes: 64,
        timeout_ms: 1000,
        ..TcpSpec::new(at(path.to.ip, ECHO_TCP))
    };
    Ok(said::tcp(&path.from.tcp(&spec).await?))
}

pub(super) async fn udp(path: &Path) -> Result<String, NoVerdict> {
    let spec = UdpSpec {
        timeout_ms: 1000,
        ..UdpSpec::new(at(path.to.ip, ECHO_UDP))
    };
    Ok(said::udp(&path.from.udp(&spec).await?))
}

/// A datagram of three fragments at the usual MTUs.
pub(super) async fn several_mtus(path: &Path) -> Result<String, NoVerdict> {
    let spec = UdpSpec {
        bytes: 4000,
        ..UdpSpec::new(at(path.to.ip, ECHO_UDP))
    };
    Ok(said::udp(&path.from.udp(&spec).await?))
}

/// Over TCP to the destination's node, where a pod of the nodes' network answers.
pub(super) async fn tcp_to_node(path: &Path) -> Result<String, NoVerdict> {
    let spec = TcpSpec::new(at(path.to.host_ip, HOST_TCP));
    Ok(said::tcp(&path.from.tcp(&spec).await?))
}

/// 1 MiB there and back. The probe compares the echo; a difference is an error of kind `corrupted`.
pub(super) async fn mebibyte(path: &Path) -> Result<String, NoVerdict> {
    let spec = TcpSpec {
        bytes: 1 << 20,
        ..TcpSpec::new(at(path.to.ip, ECHO_TCP))
    };
    Ok(said::tcp(&path.from.tcp(&spec).await?))
}

/// Judges that each path's server sees the client's own address.
pub(super) async fn sees_its_client(paths: &[Path], what: &str, likely: &str) -> Outcome {
    let own = |path: &Path| path.from.pod().map(|pod| pod.ip);
    let expected: BTreeMap<_, _> = paths.iter().map(|path| (path.name(), own(path))).collect();
    let seen = try_join_all(paths.iter().map(async |path| {
        let spec = TcpSpec::new(at(path.to.ip, ECHO_TCP));
        let reply = path.from.tcp(&spec).await?.into_iter().next();
        let client = reply.and_then(|reply| Some(reply.answer?.client.ip()));
        Ok::<_, NoVerdict>((path.name(), client))
    }));
    expect_eq(what, &expected, &seen.await?.into_iter().collect(), likely)
}

pub(super) fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
