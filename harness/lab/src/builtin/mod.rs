//! Containers that are tasks of the lab itself: system components whose sockets live in their
//! pod's network namespace, but whose code needs no process of its own.
//!
//! Start from [`Builtins`]. An image `lab.strata.dev/NAME:v1` runs the task registered as `NAME`, on a
//! thread of its own, so that the machine divides itself among components as it would among processes;
//! the container ends, and is restarted by its policy, when the task returns.

mod installed;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use self::installed::Installed;
use crate::api::webhook::Webhooks;
use crate::os::netns::NetNs;
use crate::os::nft::Nft;

/// What a task is given.
pub struct BuiltinContext {
    /// A client of the lab's API server.
    pub client: Client,
    /// The pod the task belongs to, as it was when the container started.
    pub pod: Pod,
    /// The container's part of the pod's specification (arguments, environment).
    pub container: Container,
    /// The node it runs on.
    pub node: String,
    /// The pod's network namespace (the node's, with `hostNetwork`).
    pub netns: NetNs,
    /// Where an admission webhook's server registers itself.
    pub webhooks: Webhooks,
    /// The program that sets rules in network namespaces.
    pub nft: Nft,
    /// Where a CNI's agent says that the node's pods can have a network.
    pub plugin: Installed,
    /// Cancelled when the container is to stop.
    pub cancel: CancellationToken,
    /// Writes one line to the container's log.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl BuiltinContext {
    /// The pod's own addresses, one a family.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let status = self.pod.status.as_ref();
        let ips = status
            .into_iter()
            .flat_map(|status| status.pod_ips.iter().flatten());
        ips.filter_map(|one| one.ip.parse().ok()).collect()
    }
}

/// A system component: runs until cancelled, or fails with the sentence that ends its log.
pub type Builtin = fn(BuiltinContext) -> BoxFuture<'static, anyhow::Result<()>>;

/// The components by name.
#[derive(Clone, Default)]
pub struct Builtins(BTreeMap<&'static str, Builtin>);

impl Builtins {
    /// Adds one component.
    #[must_use]
    pub fn with(mut self, name: &'static str, builtin: Builtin) -> Self {
        self.0.insert(name, builtin);
        self
    }

    /// The component that an image names, if it is one of ours.
    #[must_use]
    pub fn of_image(&self, image: &str) -> Option<Builtin> {
        let name = image.strip_prefix(crate::topology::BUILTIN_IMAGE_PREFIX)?;
        self.0.get(name.split(':').next()?).copied()
    }
}
