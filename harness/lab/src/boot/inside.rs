//! The lab itself, wired together: API server, nodes, network, controllers.
//!
//! Start from [`run`]. What does not need another thing does not wait for it. Rule: the lab says
//! that it is ready once, when every node is; from then on a part that ends takes the lab with it.
//!
//! ```text
//! authority ─┐
//! images ────┼─► API server ──► controllers, system manifests ─┐
//! sandboxes ─┴─► underlay ────► kubelets ──────────────────────┴─► ready
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures::{StreamExt, TryFutureExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::first::{Home, OUTSIDE, Started};
use super::outside::{self, Outside};
use super::report::{Ready, Report};
use super::{LabConfig, StartError, images, system};
use crate::api::pki::ClusterPki;
use crate::api::webhook::Webhooks;
use crate::api::{ApiConfig, ApiServer};
use crate::builtin::{Builtins, Installed};
use crate::net::balancer;
use crate::net::cni::{Cni, NodePods};
use crate::net::underlay::{self, NodeLink};
use crate::node::images::Store;
use crate::node::sandbox::{Sandbox, SandboxConfig, SandboxNetwork};
use crate::node::{NodeConfig, Nodes, NodesConfig};
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::{
    API_CLUSTER_IP, API_PORT, CLUSTER_DOMAIN, CONTROL_PLANE, IpFamilies, IpFamily, locality,
    node_cidr_mask_size, nth, pod_cidr, service_cidr, underlay_cidr,
};
use crate::watch::{Again, Watch as _};
use crate::{controllers, l7, net};

/// The parts of the lab that have to be there as long as it is.
type Parts = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Runs the lab until it is told to end; says the exit code.
pub(super) async fn run(started: Started, home: Home) -> Result<i32, StartError> {
    let begun = started.begun;
    let mut ends = [
        stop_signal(SignalKind::terminate())?,
        stop_signal(SignalKind::interrupt())?,
    ];
    let mut parts = Parts::new();
    let [terminate, interrupt] = &mut ends;
    let ready = tokio::select! {
        ready = bring_up(started, home, &mut parts) => ready?,
        _ = terminate.recv() => return Ok(0),
        _ = interrupt.recv() => return Ok(0),
    };
    // A starter that is gone by now has let go of the lifeline too.
    let _ = Report::Ready(ready).send();
    tracing::info!(took = ?begun.elapsed(), "ready");
    tokio::select! {
        _ = terminate.recv() => Ok(0),
        _ = interrupt.recv() => Ok(0),
        ended = ended(&mut parts) => {
            tracing::error!("the lab ends: {ended}");
            Ok(1)
        }
    }
}

fn stop_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, StartError> {
    signal(kind).map_err(|error| StartError::Spawn(format!("cannot start the lab: {error}")))
}

/// Waits until a part ends, and says which and why.
async fn ended(parts: &mut Parts) -> String {
    match parts.join_next().await {
        Some(Ok((part, Ok(())))) => format!("{part} has ended"),
        Some(Ok((part, Err(error)))) => format!("{part} failed: {error:#}"),
        Some(Err(error)) => format!("a part of it panicked: {error}"),
        None => "it has no parts".to_owned(),
    }
}

/// A node to be.
#[derive(Debug, Clone)]
struct Plan {
    name: String,
    /// One a family.
    ips: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    control_plane: bool,
}

/// The control plane, and the workers after it.
fn plan(workers: usize, families: IpFamilies) -> anyhow::Result<Vec<Plan>> {
    (0..=workers)
        .map(|index| {
            let each = families.each().iter();
            let pod_cidrs = each.clone().map(|family| node_cidr(*family, index));
            Ok(Plan {
                name: match index {
                    0 => CONTROL_PLANE.to_owned(),
                    1 => "strata-worker".to_owned(),
                    _ => format!("strata-worker{index}"),
                },
                ips: each.map(|family| node_ip(*family, index)).collect(),
                pod_cidrs: pod_cidrs.collect::<Result<_, _>>()?,
                control_plane: index == 0,
            })
        })
        .collect()
}

/// The address of a node, by its number.
fn node_ip(family: IpFamily, index: usize) -> IpAddr {
    // The outside has the first.
    let offset = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(2);
    nth(underlay_cidr(family), offset)
}

/// The part of the pods' network that a node has, by its number.
fn node_cidr(family: IpFamily, index: usize) -> anyhow::Result<IpNet> {
    let mut all = pod_cidr(family).subnets(node_cidr_mask_size(family))?;
    let found = all.nth(index);
    found.with_context(|| format!("{} is too small for {index} nodes", pod_cidr(family)))
}

/// Logs how long a step took.
async fn timed<T>(step: &'static str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    tracing::info!(took = ?begun.elapsed(), "{step}");
    done
}

async fn bring_up(started: Started, home: Home, parts: &mut Parts) -> Result<Ready, StartError> {
    let Started {
        config,
        listener,
        user_namespace,
        ..
    } = started;
    let Home { root, host_pids } = home;
    let api_error = |error: anyhow::Error| StartError::Api(format!("the API server: {error:#}"));
    let nodes_error = |error: anyhow::Error| StartError::Nodes(format!("{error:#}"));
    let network = |error: anyhow::Error| {
        StartError::Network(format!("the nodes' network cannot be made: {error:#}"))
    };
    config.cni.map_or(Ok(()), Cni::check).map_err(network)?;
    config.ip_families.check().map_err(network)?;
    let plans = plan(config.workers, config.ip_families).map_err(nodes_error)?;
    let nft = Nft::new(&config.nft);
    let outside = NetNs::current().map_err(|error| network(error.into()))?;
    let cancel = CancellationToken::new();
    // Ends the clones of it that the parts were given, whatever happens.
    let _cancelled = cancel.clone().drop_guard();

    let (sandboxes, outside_sandbox, store, pki, ()) = tokio::try_join!(
        timed("sandboxes", sandboxes(&plans)).map_err(nodes_error),
        outside_sandbox(&outside).map_err(nodes_error),
        timed("image store", image_store(&root, &config)),
        timed("certificates", certificates()).map_err(api_error),
        timed("nft", check_nft(&nft, &outside)),
    )?;
    let pki = Arc::new(pki);

    let webhooks = Webhooks::default();
    let nodes = Nodes::new(NodesConfig {
        builtins: l7::builtins(net::builtins(Builtins::default())),
        images: store.clone(),
        root: root.clone(),
        webhooks: webhooks.clone(),
        nft: nft.clone(),
        host_pids: host_pids.clone(),
    });
    let commands = root.join("outside");
    fs::create_dir_all(&commands).map_err(|error| api_error(error.into()))?;
    let control_plane = sandboxes.first().map(Sandbox::netns);
    let api = ApiServer::new(ApiConfig {
        kubelet: nodes.clone(),
        webhooks,
        pki: pki.clone(),
        network: control_plane.unwrap_or_else(|| outside.clone()),
        service_cidrs: config
            .ip_families
            .each()
            .iter()
            .copied()
            .map(service_cidr)
            .collect(),
        watch_lag: config.watch_lag,
    })
    .map_err(api_error)?
    .extend(outside::routes(Arc::new(Outside {
        images: store.clone(),
        sandbox: outside_sandbox,
        root: commands,
    })))
    .extend(images::routes(store.clone()));
    let server = listener
        .local_addr()
        .map(|address| format!("https://{address}"))
        .map_err(|error| api_error(error.into()))?;
    let kubeconfig = pki.admin_kubeconfig(&server).map_err(api_error)?;
    let kubeconfig_file = root.join("kubeconfig");
    fs::write(&kubeconfig_file, &kubeconfig).map_err(|error| api_error(error.into()))?;
    serve(parts, "the API server", &api, listener, &cancel);

    let client_of = {
        let api = api.clone();
        move |user: &str| api.client(user)
    };
    let controllers = controllers::run(client_of.clone(), cancel.clone());
    parts.spawn(async move {
        controllers.await;
        ("the controllers", Ok(()))
    });

    let links = plans
        .iter()
        .zip(&sandboxes)
        .map(|(plan, sandbox)| NodeLink {
            name: plan.name.clone(),
            ips: plan.ips.clone(),
            netns: sandbox.netns(),
        });
    let links = links.collect::<Vec<_>>();
    let admin = api.client("kubernetes-admin");
    let names = plans.iter().map(|plan| plan.name.clone()).collect();
    let join = timed(
        "underlay",
        underlay::join(&outside, &links, config.ip_families),
    )
    .map_err(network);
    let kubelets = async {
        join.await?;
        if let Some(control_plane) = links.first() {
            let address = SocketAddr::from((node_ip(IpFamily::V4, 0), API_PORT));
            let listener = control_plane.netns.tcp_listener(address);
            let listener = listener.with_context(|| format!("cannot listen on {address}"));
            let listener = listener.map_err(network)?;
            serve(parts, "the API server's endpoint", &api, listener, &cancel);
        }
        let world = net::dns::world::serve(
            outside.clone(),
            machines(&links, config.ip_families),
            outside_ips(config.ip_families),
            cancel.clone(),
        );
        parts.spawn(async move { ("the world's name server", world.await) });
        let balancer = balancer::balance(
            outside.clone(),
            nft.clone(),
            links.clone(),
            config.ip_families,
            admin.clone(),
            cancel.clone(),
        );
        parts.spawn(async move { ("the load balancer", balancer.await) });
        for (index, (plan, sandbox)) in plans.into_iter().zip(sandboxes).enumerate() {
            let pod_cidrs = plan.pod_cidrs.clone();
            // With no plugin nobody ever says that it is installed, and no pod is given a network.
            let cni = config.cni.unwrap_or_default();
            let network = NodePods::new(cni, sandbox.netns(), nft.clone(), pod_cidrs);
            let config = NodeConfig {
                name: plan.name,
                ips: plan.ips,
                pod_cidrs: plan.pod_cidrs,
                sandbox,
                network: Arc::new(network),
                plugin: Installed::default(),
                labels: locality(index),
                control_plane: plan.control_plane,
            };
            let (nodes, client_of, cancel) = (nodes.clone(), client_of.clone(), cancel.clone());
            parts.spawn(async move { ("a kubelet", nodes.run(client_of, config, cancel).await) });
        }
        tokio::select! {
            ready = timed("nodes", nodes_ready(&admin, names, config.cni.is_some())) => ready.map_err(nodes_error),
            ended = ended(parts) => Err(StartError::Nodes(format!("the lab did not start: {ended}"))),
        }
    };
    let manifests = timed("system manifests", system::apply(&admin, config.cni))
        .map_err(|error| StartError::System(format!("{error:#}")));
    tokio::try_join!(
        kubelets,
        manifests,
        timed("images", load_images(&store, &config.images)),
    )?;

    let pid = host_pids.own().unwrap_or_else(std::process::id);
    _cancelled.disarm();
    Ok(Ready {
        server,
        kubeconfig,
        kubeconfig_path: format!("/proc/{pid}/root{}", kubeconfig_file.display()),
        pid,
        user_namespace,
    })
}

/// The outside's addresses.
fn outside_ips(families: IpFamilies) -> Vec<IpAddr> {
    let each = families.each().iter();
    each.map(|family| nth(underlay_cidr(*family), 1)).collect()
}

/// The outside and the nodes, by the names that the world has for them.
fn machines(nodes: &[NodeLink], families: IpFamilies) -> Vec<(String, Vec<IpAddr>)> {
    let outside = (OUTSIDE.to_owned(), outside_ips(families));
    let nodes = nodes
        .iter()
        .map(|node| (node.name.clone(), node.ips.clone()));
    nodes.chain([outside]).collect()
}

fn serve(
    parts: &mut Parts,
    part: &'static str,
    api: &ApiServer,
    listener: std::net::TcpListener,
    cancel: &CancellationToken,
) {
    let (api, cancel) = (api.clone(), cancel.clone());
    parts.spawn(async move { (part, api.serve(listener, cancel).await) });
}

async fn sandboxes(plans: &[Plan]) -> anyhow::Result<Vec<Sandbox>> {
    let each = plans.iter().map(|plan| {
        Sandbox::create(SandboxConfig {
            hostname: plan.name.clone(),
            netns: SandboxNetwork::New,
        })
    });
    futures::future::try_join_all(each).await
}

async fn outside_sandbox(outside: &NetNs) -> anyhow::Result<Sandbox> {
    Sandbox::create(SandboxConfig {
        hostname: OUTSIDE.to_owned(),
        netns: SandboxNetwork::Shared(outside.clone()),
    })
    .await
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

async fn image_store(root: &Path, config: &LabConfig) -> Result<Arc<Store>, StartError> {
    let (root, envoy) = (root.to_owned(), config.envoy.clone());
    let store = blocking(move || Store::new(&root, envoy.as_deref())).await;
    let failed = |error| StartError::Envoy(format!("the image of the host's Envoy: {error:#}"));
    store.map(Arc::new).map_err(failed)
}

async fn load_images(images: &Arc<Store>, archives: &[PathBuf]) -> Result<(), StartError> {
    let each = archives.iter().map(|path| async move {
        let (images, archive) = (images.clone(), path.clone());
        let loaded = blocking(move || images.load(fs::File::open(archive)?)).await;
        let failed = |error| {
            StartError::Image(format!(
                "cannot load image archive {}: {error:#}",
                path.display()
            ))
        };
        let names = loaded.map_err(failed)?;
        tracing::info!(?names, archive = %path.display(), "loaded");
        Ok(())
    });
    futures::future::try_join_all(each).await.map(drop)
}

/// Every name and address that the API server is reached by.
async fn certificates() -> anyhow::Result<ClusterPki> {
    let control_plane = node_ip(IpFamily::V4, 0);
    let addresses = [
        Ipv4Addr::LOCALHOST.into(),
        control_plane,
        API_CLUSTER_IP.into(),
    ];
    let mut names = addresses.map(|address| address.to_string()).to_vec();
    let service = ["", ".default", ".default.svc"].map(|suffix| format!("kubernetes{suffix}"));
    names.extend(service);
    names.push(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
    names.extend(["localhost", CONTROL_PLANE].map(str::to_owned));
    blocking(move || ClusterPki::new(&names)).await
}

/// Finds out early, and in one place, whether rules can be set at all.
async fn check_nft(nft: &Nft, outside: &NetNs) -> Result<(), StartError> {
    let listed = nft.run(outside, &["list", "tables"], "").await;
    listed.map(drop).map_err(|error| {
        StartError::Nft(format!(
            "the lab programs Services with nft, but {error:#}: install nftables, or say where nft is"
        ))
    })
}

/// Waits until every node is there and, where they can be, ready.
async fn nodes_ready(
    client: &Client,
    mut missing: BTreeSet<String>,
    can_be: bool,
) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let mut changes =
        Node::watch(nodes, watcher::Config::default(), Again::default()).applied_objects();
    while !missing.is_empty() {
        match changes.next().await {
            Some(Ok(node)) if is_ready(&node, can_be) => drop(missing.remove(&node.name_any())),
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!(%error, "watching nodes"),
            None => anyhow::bail!("the nodes {missing:?} did not become ready"),
        }
    }
    Ok(())
}

fn is_ready(node: &Node, can_be: bool) -> bool {
    let status = node.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|one| one.type_ == "Ready" && (one.status == "True" || !can_be))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_follow_the_topology() {
        let shown = |families| {
            let plans = plan(2, families).unwrap().into_iter();
            let shown =
                plans.map(|plan| format!("{} {:?} {:?}", plan.name, plan.ips, plan.pod_cidrs));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(
            shown(IpFamilies::Ipv4),
            [
                "strata-control-plane [172.30.0.2] [10.244.0.0/24]",
                "strata-worker [172.30.0.3] [10.244.1.0/24]",
                "strata-worker2 [172.30.0.4] [10.244.2.0/24]",
            ]
        );
        assert_eq!(
            shown(IpFamilies::Dual),
            [
                "strata-control-plane [172.30.0.2, fd00:172:30::2] [10.244.0.0/24, fd00:10:244::/64]",
                "strata-worker [172.30.0.3, fd00:172:30::3] [10.244.1.0/24, fd00:10:244:1::/64]",
                "strata-worker2 [172.30.0.4, fd00:172:30::4] [10.244.2.0/24, fd00:10:244:2::/64]",
            ]
        );
        assert_eq!(plan(50, IpFamilies::Dual).unwrap().len(), 51);
    }
}
