//! API servers to test.

use std::sync::Arc;

use futures::stream::BoxStream;

use crate::api::kubelet::{
    AttachRequest, ContainerRef, ExecRequest, Kubelet, KubeletError, LogOptions, PodRef,
    ProcessStreams,
};
use crate::api::pki::ClusterPki;
use crate::api::webhook::Webhooks;
use crate::api::{ApiConfig, ApiServer};
use crate::os::netns::NetNs;

struct NoKubelet;

#[async_trait::async_trait]
impl Kubelet for NoKubelet {
    async fn exec(&self, _: &ContainerRef, _: ExecRequest) -> Result<ProcessStreams, KubeletError> {
        Err(no_node())
    }

    async fn attach(
        &self,
        _: &ContainerRef,
        _: AttachRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        Err(no_node())
    }

    async fn logs(
        &self,
        _: &ContainerRef,
        _: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<bytes::Bytes>>, KubeletError> {
        Err(no_node())
    }

    async fn connect(&self, _: &PodRef, _: u16) -> Result<tokio::net::TcpStream, KubeletError> {
        Err(no_node())
    }
}

fn no_node() -> KubeletError {
    KubeletError::NotFound("there is no node".to_owned())
}

/// A server without nodes.
pub(crate) fn server() -> ApiServer {
    configured(Arc::new(NoKubelet))
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
