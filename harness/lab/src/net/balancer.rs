//! What a cloud's load balancer does: a connection from outside to one of its addresses goes to one node, and stays there.
//!
//! Start from [`balance`]. nftables chooses by a hash of the connection's addresses and ports: the choice is a mark, and
//! for each mark there is a table of routes by that node alone. A route with several next hops does for who forwards
//! packets, but the outside sends its own: Linux 6.18 was seen to choose one hop when a socket connects and another when
//! it looks the route up again, so that one retransmission sent the rest of a connection to a node that knew nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::kept::{Changed, Kept};
use super::link::Links;
use super::nftables::{Elements, Ruleset, Say, Table, address_type, word};
use super::proxy::load_balancers::LoadBalancers;
use super::route::to;
use super::underlay::{BRIDGE, NodeLink};
use crate::os::netns::NetNs;
use crate::os::nft::Nft;
use crate::topology::{self, IpFamilies, IpFamily, load_balancer_cidr};
use crate::world::World;

/// The mark of what goes to the first node, and the number of the table of routes by it; the other nodes' follow.
const FIRST: u32 = 100;
const TABLE: &str = "load-balancer";
/// Where each address goes that does not go everywhere.
const ADDRESSES: &str = "addresses";

/// Nodes, by their places in the order of all.
type Hops = BTreeSet<usize>;

/// Sends each load balancer's address to the nodes that answer for it: with `externalTrafficPolicy:
/// Local` only those with an endpoint, as a load balancer learns from health checks; with
/// `sessionAffinity: ClientIP` one of them, since the outside is one client, and each node remembers
/// its clients by itself. Runs until cancelled.
///
/// # Errors
/// When the outside's routes or rules cannot be changed.
pub async fn balance(
    outside: NetNs,
    nft: Nft,
    nodes: Vec<NodeLink>,
    families: IpFamilies,
    client: Client,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut world = World::default();
    let services = world.watch::<Service>(Api::all(client.clone()));
    let slices = world.watch::<EndpointSlice>(Api::all(client));
    let work = async {
        for family in families.each() {
            routes(&outside, &nodes, *family).await?;
        }
        let tables = families.each().iter().map(|family| {
            let table = Table::new(outside.clone(), nft.clone());
            (*family, table)
        });
        let mut tables: Vec<_> = tables.collect();
        world.ready().await;
        let mut kept = Kept::default();
        // Whether the rules are said though no Service asks for others than before.
        let mut again = true;
        loop {
            let (services, slices) = (services.state(), slices.state());
            let changed = kept.update(&services, &slices, LoadBalancers::of);
            if again || asks_otherwise(&changed, &kept) {
                let all = together(&kept);
                again = false;
                for (family, table) in &mut tables {
                    let special = special(&nodes, *family, &all);
                    let wanted = rules(*family, &balanced(&nodes, *family), &special);
                    if let Err(error) = table.sync(wanted, Say::Changes).await {
                        tracing::warn!("load balancer addresses: {error:#}");
                        // Tried again with the next change of anything.
                        again = true;
                    }
                }
            }
            world.changed().await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// Whether a Service that has changed asks for something else of its addresses.
fn asks_otherwise(changed: &[Changed<LoadBalancers>], kept: &Kept<LoadBalancers>) -> bool {
    let nothing = LoadBalancers::default();
    changed.iter().any(|Changed { key, before }| {
        let (before, now) = (before.as_ref(), kept.get(key));
        before.unwrap_or(&nothing) != now.unwrap_or(&nothing)
    })
}

/// What all Services ask for.
fn together(kept: &Kept<LoadBalancers>) -> LoadBalancers {
    let mut all = LoadBalancers::default();
    for of_service in kept.all() {
        all.include(of_service);
    }
    all
}

/// The nodes that a load balancer sends to: not the control plane, which kubeadm labels
/// `node.kubernetes.io/exclude-from-external-load-balancers`, unless it is all there is.
pub(super) fn balanced(nodes: &[NodeLink], family: IpFamily) -> Hops {
    let of = |wanted: &dyn Fn(&NodeLink) -> bool| {
        let places = nodes.iter().enumerate();
        let there = places.filter(|(_, node)| node.ip(family).is_some() && wanted(node));
        there.map(|(place, _)| place).collect::<Hops>()
    };
    let workers = of(&|node| node.name != topology::CONTROL_PLANE);
    if workers.is_empty() {
        return of(&|_| true);
    }
    workers
}

/// A table of routes for each node, which its mark leads to.
async fn routes(outside: &NetNs, nodes: &[NodeLink], family: IpFamily) -> anyhow::Result<()> {
    let links = Links::of(outside)?;
    let bridge = links.index(BRIDGE).await?;
    for (place, mark) in (0..nodes.len()).zip(FIRST..) {
        let Some(node) = nodes[place].ip(family) else {
            continue;
        };
        let route = to(load_balancer_cidr(family)).through(bridge).by(node);
        links.route(route.in_table(mark)).await?;
        links
            .rule(family, mark)
            .await
            .with_context(|| format!("nothing leads to node {} by its mark", nodes[place].name))?;
    }
    Ok(())
}

/// The addresses of a family that do not go to every node.
fn special(nodes: &[NodeLink], family: IpFamily, wanted: &LoadBalancers) -> BTreeMap<IpAddr, Hops> {
    let all = balanced(nodes, family);
    let ours = |address: &&IpAddr| IpFamily::of(**address) == family;
    let mut special = BTreeMap::new();
    for (address, names) in wanted.local.iter().filter(|(address, _)| ours(address)) {
        let named = |place: &usize| names.contains(&nodes[*place].name);
        let hops: Hops = all.iter().copied().filter(named).collect();
        // With no such node, the address goes where all go, and the proxies there say why.
        if !hops.is_empty() {
            special.insert(*address, hops);
        }
    }
    for address in wanted.sticky.iter().filter(ours) {
        let hops = special.entry(*address).or_insert_with(|| all.clone());
        *hops = hops.iter().copied().take(1).collect();
    }
    special
}

/// The rules of a family.
fn rules(family: IpFamily, all: &Hops, special: &BTreeMap<IpAddr, Hops>) -> Ruleset {
    let mut table = Ruleset::of(family, TABLE);
    let definition = format!("type {} : verdict ;", address_type(family));
    table.maps.insert(ADDRESSES, Elements::new(definition));
    for hops in special
        .values()
        .chain([all])
        .filter(|hops| !hops.is_empty())
    {
        table.chain(&chain(hops), None, [choice(family, hops)]);
    }
    for (address, hops) in special {
        let verdict = format!("goto {}", chain(hops));
        table.map(ADDRESSES, address.to_string(), verdict, "a load balancer's");
    }
    let (ip, everywhere) = (word(family), load_balancer_cidr(family));
    let mut output = vec![format!("{ip} daddr vmap @{ADDRESSES}")];
    if !all.is_empty() {
        output.push(format!("{ip} daddr {everywhere} goto {}", chain(all)));
    }
    // Of this type, a chain that changes the mark has the packet's route looked up again.
    table.chain("output", None, output).hook = Some("type route hook output priority -150");
    table
}

fn chain(hops: &Hops) -> String {
    hops.iter()
        .fold("nodes".to_owned(), |name, hop| format!("{name}-{hop}"))
}

/// Marks a packet for one of several nodes: all of a connection for the same.
fn choice(family: IpFamily, hops: &Hops) -> String {
    let marks = hops.iter().zip(0..).map(|(hop, number)| {
        let mark = FIRST as usize + hop;
        format!("{number} : {mark}")
    });
    let (ip, marks) = (word(family), marks.collect::<Vec<_>>().join(", "));
    let number = format!(
        "jhash {ip} saddr . {ip} daddr . th sport . th dport mod {}",
        hops.len()
    );
    format!("meta mark set {number} map {{ {marks} }}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::shared;

    #[test]
    fn rules_are_said_again_when_a_service_asks_otherwise() {
        let service = |spec: Value| -> Arc<Service> {
            let mut all = json!({
                "metadata": {"namespace": "ns", "name": "web"},
                "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "172.30.1.1", "ipMode": "VIP"}]}},
            });
            json_patch::merge(&mut all["spec"], &spec);
            shared(all)
        };
        let slice = |nodes: &[&str]| -> Arc<EndpointSlice> {
            let nodes = nodes.iter().zip(2..);
            let endpoints = nodes.map(
                |(node, last)| json!({"addresses": [format!("10.244.1.{last}")], "nodeName": node}),
            );
            let all = json!({
                "metadata": {
                    "namespace": "ns", "name": "web-1",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": endpoints.collect::<Vec<_>>(),
            });
            shared(all)
        };
        let everywhere = service(json!({}));
        let local = service(json!({"externalTrafficPolicy": "Local"}));
        let sticky =
            service(json!({"externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"}));
        let mut kept = Kept::default();
        for (what, services, slices, otherwise, nodes, is_sticky) in [
            (
                "new",
                vec![&everywhere],
                vec![slice(&["a"])],
                false,
                None,
                false,
            ),
            (
                "local",
                vec![&local],
                vec![slice(&["a"])],
                true,
                Some("a"),
                false,
            ),
            (
                "one more there",
                vec![&local],
                vec![slice(&["a", "a"])],
                false,
                Some("a"),
                false,
            ),
            (
                "one elsewhere",
                vec![&local],
                vec![slice(&["a", "b"])],
                true,
                Some("ab"),
                false,
            ),
            ("nobody", vec![&local], vec![], true, Some(""), false),
            ("sticky", vec![&sticky], vec![], true, Some(""), true),
            ("gone", vec![], vec![], true, None, false),
        ] {
            let services: Vec<_> = services.into_iter().cloned().collect();
            let changed = kept.update(&services, &slices, LoadBalancers::of);
            assert_eq!(asks_otherwise(&changed, &kept), otherwise, "{what}");
            let all = together(&kept);
            let at: Vec<String> = all
                .local
                .into_values()
                .map(|nodes| nodes.into_iter().collect())
                .collect();
            assert_eq!(at.first().map(String::as_str), nodes, "{what}");
            assert_eq!(all.sticky.len(), usize::from(is_sticky), "{what}");
        }
    }

    #[test]
    fn an_address_goes_where_its_service_is() {
        let special = BTreeMap::from([
            ("172.30.1.2".parse().unwrap(), Hops::from([2])),
            ("172.30.1.3".parse().unwrap(), Hops::from([1])),
        ]);
        let wanted = rules(IpFamily::V4, &Hops::from([1, 2]), &special);
        insta::assert_snapshot!(wanted.replace());
    }
}
