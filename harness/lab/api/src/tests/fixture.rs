//! API servers to test.

use std::sync::Arc;

use strata_os::netns::NetNs;

use crate::kubelet::Kubelet;
use crate::pki::ClusterPki;
use crate::webhook::Webhooks;
use crate::{ApiConfig, ApiServer};

/// A server without nodes.
pub(crate) fn server() -> ApiServer {
    ApiServer::alone().unwrap()
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
