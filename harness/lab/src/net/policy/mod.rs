//! NetworkPolicies, enforced by nftables in each node, in the shape that Calico's Felix gives them.
//!
//! Start from [`enforce`], a part of Calico's agent; what it decides is in [`rules`], which is pure. A
//! policy holds for the packets that a node forwards, and for those of its pods to itself; what the
//! node sends to its own pods is looked at by no rule, as a kubelet's probes need it. Rule: rules
//! that somebody deletes are missing until theirs change, or [`REFRESH`] has passed.
//!
//! ```text
//! NetworkPolicies, Pods, Namespaces ──► model ──► rules ──► nftables
//! ```

mod matches;
mod model;
mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;

pub use self::rules::{TABLE, rules};
pub use super::nftables::Ruleset;
use super::nftables::{Rhythm, Say, Table};
use crate::builtin::BuiltinContext;
use crate::topology::IpFamily;
use crate::world::World;

/// How often everything is said again, whatever has changed: Felix's `NftablesRefreshInterval`.
pub const REFRESH: Duration = Duration::from_secs(180);

/// Keeps a node's rules those of the policies, for ever.
pub(super) async fn enforce(context: &BuiltinContext) -> anyhow::Result<()> {
    let mut world = World::default();
    let client = &context.client;
    let policies = world.watch::<NetworkPolicy>(Api::all(client.clone()));
    let pods = world.watch::<Pod>(Api::all(client.clone()));
    let namespaces = world.watch::<Namespace>(Api::all(client.clone()));
    world.ready().await;
    let table = |family| {
        (
            family,
            Table::new(context.netns.clone(), context.nft.clone()),
        )
    };
    let families = context.ips().into_iter().map(IpFamily::of);
    let mut tables: Vec<_> = families.map(table).collect();
    let mut rhythm = Rhythm::of(REFRESH);
    let mut say = Say::All;
    loop {
        let (policies, pods) = (policies.state(), pods.state());
        let namespaces = namespaces.state();
        for (family, table) in &mut tables {
            let wanted = rules(&policies, &pods, &namespaces, &context.node, *family);
            match table.sync(wanted, say).await {
                Ok(Some(done)) => {
                    (context.log)(&format!("{family}: {done}: {} policies", policies.len()));
                }
                Ok(None) => {}
                Err(error) => (context.log)(&format!("error: {family}: policies: {error:#}")),
            }
        }
        say = rhythm.next(&mut world).await;
    }
}
