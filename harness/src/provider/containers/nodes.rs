//! Whether a cluster's nodes are there.

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};

use crate::budget::CREATE;
use crate::verdict::NoVerdict;
use crate::wait;

/// Waits until so many nodes have joined, and each is ready.
///
/// # Errors
/// When they are not, and which one is not.
pub(in crate::provider) async fn all_ready(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let all = watcher::Config::default();
    let ready = wait::watched(
        "every node is ready",
        CREATE,
        nodes,
        all,
        |nodes| match nodes.iter().find(|node| !is_ready(node)) {
            Some(node) => wait::Progress::NotYet(format!("{} is not", node.name_any())),
            None if nodes.len() < wanted => {
                wait::Progress::NotYet(format!("{} of {wanted} have joined", nodes.len()))
            }
            None => wait::Progress::Ready(()),
        },
    );
    ready.await.map_err(NoVerdict::into_error)
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.iter();
    let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}
