//! API servers to test.

use std::sync::Arc;

use crate::kubelet::Kubelet;
use crate::{ApiConfig, ApiServer};

/// A server without nodes.
pub(crate) fn server() -> ApiServer {
    ApiServer::alone().unwrap()
}

/// A server whose nodes are another's.
pub(crate) fn configured(kubelet: Arc<dyn Kubelet>) -> ApiServer {
    let alone = ApiConfig::alone().unwrap();
    ApiServer::new(ApiConfig { kubelet, ..alone }).unwrap()
}
