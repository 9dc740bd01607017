//! API servers to test.

use std::sync::Arc;

use crate::api::kubelet::{Kubelet, NoNodes};
use crate::api::pki::ClusterPki;
use crate::api::webhook::Webhooks;
use crate::api::{ApiConfig, ApiServer};
use crate::os::netns::NetNs;

/// A server without nodes.
pub(crate) fn server() -> ApiServer {
    configured(Arc::new(NoNodes))
}

/// A server whose nodes are another's.
pub(crate) fn configured(kubelet: Arc<dyn Kubelet>) -> ApiServer {
    let pki = Arc::new(ClusterPki::new(&["localhost".to_owned()]).unwrap());
    ApiServer::new(ApiConfig {
        kubelet,
        webhooks: Webhooks::default(),
        pki,
        network: NetNs::current().unwrap(),
    })
    .unwrap()
}
