//! A lab as a client of its API sees it.

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::{Config, KubeConfigOptions};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use tokio::runtime::Runtime;

use crate::desk::Desk;

/// The image of the shell, where it was loaded.
pub(crate) const IMAGE: &str = "localhost/shell:v1";

pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    /// Those of namespace `default`.
    pub(crate) pods: Api<Pod>,
}

impl Cluster {
    /// The lab of a desk, as soon as pods can be made in it.
    pub(crate) fn of(desk: &Desk) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(desk.kubeconfig(), &options).await;
            let mut config = config.unwrap();
            // A refusal is to be seen, not asked for again.
            config.default_retry = false;
            let client = Client::try_from(config).unwrap();
            let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
            let there = |account: Option<&ServiceAccount>| account.is_some();
            await_condition(accounts, "default", there).await.unwrap();
            client
        });
        let pods = Api::default_namespaced(client.clone());
        Self {
            runtime,
            client,
            pods,
        }
    }

    pub(crate) fn create(&self, pod: &Pod) {
        let parameters = PostParams::default();
        let created = self.pods.create(&parameters, pod);
        self.runtime.block_on(created).unwrap();
    }

    /// Waits until a pod's first container runs, or waits for a reason.
    pub(crate) fn wait(&self, name: &str, condition: impl Fn(&str) -> bool) {
        let said = |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.clone()).unwrap_or_default();
            let containers = status.container_statuses.unwrap_or_default();
            let state = containers.first().and_then(|one| one.state.clone());
            let state = state.unwrap_or_default();
            let waiting = state.waiting.and_then(|waiting| waiting.reason);
            let running = state.running.map(|_| "running".to_owned());
            waiting.or(running).is_some_and(|said| condition(&said))
        };
        let waited = await_condition(self.pods.clone(), name, said);
        self.runtime.block_on(waited).unwrap();
    }
}
