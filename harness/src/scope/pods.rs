//! The pods that checks send traffic from and to.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::runtime::watcher;

use super::Scope;
use crate::budget::CREATE;
use crate::pod::{PodView, not_ready};
use crate::probe::Vantage;
use crate::verdict::{Doing as _, NoVerdict};
use crate::wait::{self, Progress};

impl Scope {
    /// The pods of a label selector in [`Self::namespace`], by name. Waits until there is at least
    /// one and all that are not on their way out are ready.
    ///
    /// # Errors
    /// When that is not so within [`CREATE`]; the reason names the pod and what it waits for.
    pub async fn ready_pods(&self, selector: &str) -> Result<Vec<PodView>, NoVerdict> {
        self.ready_pods_in(self.namespace(), selector).await
    }

    /// [`Self::ready_pods`] in a namespace of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::ready_pods`].
    pub async fn ready_pods_in(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<PodView>, NoVerdict> {
        let api = kube::Api::<Pod>::namespaced(self.client().clone(), namespace);
        let selection = watcher::Config::default().labels(selector);
        let what = format!("the pods {selector} in {namespace} are ready");
        wait::watched(&what, CREATE, api, selection, |pods| {
            all_ready(pods, selector)
        })
        .await
    }

    /// Deletes the pods of a label selector in a namespace that is not the check's own, and waits until as
    /// many others are ready in their place: whoever keeps them makes them anew.
    ///
    /// # Errors
    /// When there are none, the API refuses, or the others are not ready within [`CREATE`].
    pub async fn replace_pods_in(&self, namespace: &str, selector: &str) -> Result<(), NoVerdict> {
        let old = self.ready_pods_in(namespace, selector).await?;
        let api = kube::Api::<Pod>::namespaced(self.client().clone(), namespace);
        for pod in &old {
            api.delete(&pod.name, &DeleteParams::default())
                .await
                .doing(|| format!("deleting Pod {namespace}/{}", pod.name))?;
        }
        let uids: Vec<_> = old.iter().map(|view| &view.pod.metadata.uid).collect();
        let selection = watcher::Config::default().labels(selector);
        let what = format!("the pods {selector} in {namespace} have been replaced");
        wait::watched(&what, CREATE, api, selection, |pods| {
            if let Some(left) = pods.iter().find(|pod| uids.contains(&&pod.metadata.uid)) {
                return Progress::NotYet(format!("Pod {} is still there", left.name_any()));
            }
            match all_ready(pods, selector) {
                Progress::Ready(new) if new.len() < old.len() => {
                    Progress::NotYet(format!("{} of {} are there", new.len(), old.len()))
                }
                Progress::Ready(_) => Progress::Ready(()),
                Progress::NotYet(why) => Progress::NotYet(why),
                Progress::Stop(why) => Progress::Stop(why),
            }
        })
        .await
    }

    /// The vantage of the first of [`Self::ready_pods`].
    ///
    /// # Errors
    /// As [`Self::ready_pods`].
    pub async fn pod(&self, selector: &str) -> Result<Vantage, NoVerdict> {
        let pods = self.ready_pods(selector).await?;
        let first = pods.first();
        let first = first.ok_or_else(|| NoVerdict::new(format!("there is no pod {selector}")))?;
        Ok(self.from_pod(first))
    }

    /// The vantage of a pod.
    #[must_use]
    pub fn from_pod(&self, pod: &PodView) -> Vantage {
        let image = &self.cluster().fit.probe.reference;
        Vantage::pod_of(self.client().clone(), pod, image, self.transcript().clone())
    }

    /// The vantage outside the cluster.
    ///
    /// # Errors
    /// When there is none; a check that needs it says so in its row ([`crate::Need::Outside`]).
    pub fn outside(&self) -> Result<Vantage, NoVerdict> {
        match &self.cluster().outside {
            Some(outside) => Ok(Vantage::outside_of(
                outside.clone(),
                self.transcript().clone(),
            )),
            None => Err(NoVerdict::new("there is no vantage outside this cluster")
                .with_likely("the check's row does not say that it needs one (Need::Outside)")),
        }
    }
}

fn all_ready(pods: &[&Pod], selector: &str) -> Progress<Vec<PodView>> {
    let lives = |pod: &&&Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let live: Vec<_> = pods.iter().filter(lives).copied().collect();
    if live.is_empty() {
        return Progress::NotYet(format!("no pod has the labels {selector}"));
    }
    if let Some(reason) = live.iter().find_map(|pod| not_ready(pod)) {
        return Progress::NotYet(reason);
    }
    let views: Vec<_> = live.iter().filter_map(|pod| PodView::of(pod)).collect();
    if views.len() == live.len() {
        Progress::Ready(views)
    } else {
        Progress::NotYet("a pod has no address yet".to_owned())
    }
}
