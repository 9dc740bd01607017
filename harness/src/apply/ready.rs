//! Waiting until the workloads of a manifest are ready, and for nothing else.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::webhook::answers;
use super::{Document, Manifest};
use crate::budget::Budget;
use crate::pod::not_ready;
use crate::verdict::{NoVerdict, NoVerdictKind};
use crate::wait::{self, Progress};

/// Waits until every Deployment, DaemonSet, StatefulSet and Pod of a manifest is ready, every
/// definition of a kind is established, and every webhook can be reached. `into` is the namespace of documents that name none; `waiting` is told
/// what is still missing, as often as that changes.
///
/// # Errors
/// When one is not ready within the budget; the reason names it and the pod that holds it up.
pub(crate) async fn ready(
    client: &Client,
    manifest: &Manifest,
    into: Option<&str>,
    budget: Budget,
    waiting: &(dyn Fn(&str) + Sync),
) -> Result<(), NoVerdict> {
    let workloads = manifest.documents.iter().filter_map(Workload::of);
    let workloads: Vec<_> = workloads.collect();
    let open: BTreeSet<_> = workloads.iter().map(Workload::name).collect();
    let open = Open {
        names: Mutex::new(open),
        waiting,
    };
    open.tell();
    let each = workloads.iter().map(|workload| {
        let namespace = workload.document.namespace().or(into).unwrap_or("default");
        open.until(workload, client, namespace, budget)
    });
    let each: Vec<_> = each.collect();
    try_join_all(each).await.map(drop)
}

/// What is not ready yet, and who is told of it.
struct Open<'a> {
    names: Mutex<BTreeSet<String>>,
    waiting: &'a (dyn Fn(&str) + Sync),
}

impl Open<'_> {
    fn tell(&self) {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = in_short(&names) {
            (self.waiting)(&format!("waiting for {names}"));
        }
    }

    async fn until(
        &self,
        workload: &Workload<'_>,
        client: &Client,
        namespace: &str,
        budget: Budget,
    ) -> Result<(), NoVerdict> {
        workload.wait(client, namespace, budget).await?;
        let names = self.names.lock();
        let mut names = names.unwrap_or_else(PoisonError::into_inner);
        names.remove(&workload.name());
        drop(names);
        self.tell();
        Ok(())
    }
}

/// A few names and the number of the others; nothing of nothing.
fn in_short(names: &BTreeSet<String>) -> Option<String> {
    const SHOWN: usize = 3;
    let few: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len() {
        0 => None,
        n if n <= SHOWN => Some(few.join(", ")),
        n => Some(format!("{} and {} more", few.join(", "), n - SHOWN)),
    }
}

struct Workload<'a> {
    kind: Kind,
    document: &'a Document,
}

#[derive(Clone, Copy)]
enum Kind {
    Definition,
    Deployment,
    DaemonSet,
    StatefulSet,
    Pod,
    Mutating,
    Validating,
}

impl<'a> Workload<'a> {
    fn of(document: &'a Document) -> Option<Self> {
        let gvk = &document.gvk;
        let kind = match (gvk.group.as_str(), gvk.kind.as_str()) {
            ("apiextensions.k8s.io", "CustomResourceDefinition") => Kind::Definition,
            ("apps", "Deployment") => Kind::Deployment,
            ("apps", "DaemonSet") => Kind::DaemonSet,
            ("apps", "StatefulSet") => Kind::StatefulSet,
            ("", "Pod") => Kind::Pod,
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => Kind::Mutating,
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => Kind::Validating,
            _ => return None,
        };
        Some(Self { kind, document })
    }

    fn name(&self) -> String {
        format!("{} {}", self.document.gvk.kind, self.document.name)
    }

    async fn wait(
        &self,
        client: &Client,
        namespace: &str,
        budget: Budget,
    ) -> Result<(), NoVerdict> {
        let name = &self.document.name;
        let what = format!("{} in {namespace} is ready", self.name());
        match self.kind {
            Kind::Definition => {
                let api = Api::<CustomResourceDefinition>::all(client.clone());
                let what = format!("the kind {name} is established");
                wait::object(&what, budget, api, name, |it| told(it, established)).await
            }
            Kind::Mutating => answers::<MutatingWebhookConfiguration>(client, name, budget).await,
            Kind::Validating => {
                answers::<ValidatingWebhookConfiguration>(client, name, budget).await
            }
            Kind::Pod => {
                let api = Api::<Pod>::namespaced(client.clone(), namespace);
                wait::object(&what, budget, api, name, |it| told(it, not_ready)).await
            }
            Kind::Deployment => {
                let api = Api::<Deployment>::namespaced(client.clone(), namespace);
                let mut selector = None;
                let waited = wait::object(&what, budget, api, name, |it| {
                    selector = it
                        .and_then(|it| it.spec.as_ref())
                        .map(|it| it.selector.clone());
                    told(it, rolled_out)
                });
                let waited = waited.await;
                name_the_pod(waited, client, namespace, selector).await
            }
            Kind::DaemonSet => {
                let api = Api::<DaemonSet>::namespaced(client.clone(), namespace);
                let mut selector = None;
                let waited = wait::object(&what, budget, api, name, |it| {
                    selector = it
                        .and_then(|it| it.spec.as_ref())
                        .map(|it| it.selector.clone());
                    told(it, on_every_node)
                });
                let waited = waited.await;
                name_the_pod(waited, client, namespace, selector).await
            }
            Kind::StatefulSet => {
                let api = Api::<StatefulSet>::namespaced(client.clone(), namespace);
                let mut selector = None;
                let waited = wait::object(&what, budget, api, name, |it| {
                    selector = it
                        .and_then(|it| it.spec.as_ref())
                        .map(|it| it.selector.clone());
                    told(it, in_number)
                });
                let waited = waited.await;
                name_the_pod(waited, client, namespace, selector).await
            }
        }
    }
}

fn told<K>(object: Option<&K>, missing: impl Fn(&K) -> Option<String>) -> Progress<()> {
    match object.map(missing) {
        None => Progress::NotYet("it is not there".to_owned()),
        Some(Some(why)) => Progress::NotYet(why),
        Some(None) => Progress::Ready(()),
    }
}

/// What a Deployment still lacks, as `kubectl rollout status` sees it.
fn rolled_out(deployment: &Deployment) -> Option<String> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
        return Some("its controller has not seen it".to_owned());
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let old = status.replicas.unwrap_or(0) - updated;
    if updated < wanted {
        Some(format!("{updated} of {wanted} pods are made"))
    } else if old > 0 {
        Some(format!(
            "{old} pods of an earlier generation are still there"
        ))
    } else if available < wanted {
        Some(format!("{available} of {wanted} pods are available"))
    } else {
        None
    }
}

fn on_every_node(set: &DaemonSet) -> Option<String> {
    let Some(status) = &set.status else {
        return Some("its controller has not seen it".to_owned());
    };
    if status.observed_generation.unwrap_or(0) < set.metadata.generation.unwrap_or(0) {
        return Some("its controller has not seen it".to_owned());
    }
    let wanted = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let available = status.number_available.unwrap_or(0);
    (updated < wanted || available < wanted)
        .then(|| format!("{available} of {wanted} pods are available"))
}

fn in_number(set: &StatefulSet) -> Option<String> {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let status = set.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < set.metadata.generation.unwrap_or(0) {
        return Some("its controller has not seen it".to_owned());
    }
    let ready = status.ready_replicas.unwrap_or(0);
    (ready < wanted).then(|| format!("{ready} of {wanted} pods are ready"))
}

fn established(definition: &CustomResourceDefinition) -> Option<String> {
    let conditions = definition
        .status
        .iter()
        .flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    let holds = conditions.any(|it| it.type_ == "Established" && it.status == "True");
    (!holds).then(|| "the API has not established it".to_owned())
}

/// A Deployment only counts; which pod holds it up, and why, is what a person needs to know.
async fn name_the_pod(
    waited: Result<(), NoVerdict>,
    client: &Client,
    namespace: &str,
    selector: Option<LabelSelector>,
) -> Result<(), NoVerdict> {
    let Err(no_verdict) = waited else {
        return Ok(());
    };
    let labels = selector.and_then(|selector| selector.match_labels);
    let (NoVerdictKind::NotReached, Some(labels)) = (no_verdict.kind(), labels) else {
        return Err(no_verdict);
    };
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut pods = match api
        .list(&ListParams::default().labels(&labels.join(",")))
        .await
    {
        Ok(pods) => pods.items,
        Err(_) => return Err(no_verdict),
    };
    pods.sort_by_key(ResourceExt::name_any);
    let waiting = pods
        .iter()
        .find_map(|pod| Some((pod.name_any(), not_ready(pod)?)));
    let Some((pod, why)) = waiting else {
        return Err(no_verdict);
    };
    let warned = last_warning(client, namespace, &pod).await;
    let warned = warned
        .map(|warning| format!("; {warning}"))
        .unwrap_or_default();
    Err(no_verdict.with_likely(format!("{why}{warned}")))
}

/// What was warned of a pod last: `NetworkNotReady: network is not ready: …`.
async fn last_warning(client: &Client, namespace: &str, pod: &str) -> Option<String> {
    let about = format!("involvedObject.kind=Pod,involvedObject.name={pod},type=Warning");
    let api = Api::<Event>::namespaced(client.clone(), namespace);
    let events = api.list(&ListParams::default().fields(&about)).await.ok()?;
    let when = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    let last = events.items.into_iter().max_by_key(when)?;
    Some(format!("{}: {}", last.reason?, last.message?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_ready_when_every_pod_of_this_generation_is_available() {
        let said = |replicas: i32, status: &str| {
            let yaml = format!(
                "{{metadata: {{generation: 2}}, spec: {{replicas: {replicas}, selector: {{}},
                 template: {{}}}}, status: {status}}}"
            );
            rolled_out(&serde_yaml::from_str(&yaml).unwrap())
        };
        let seen = "observedGeneration: 2";
        assert_eq!(
            said(
                2,
                "{observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2}"
            ),
            Some("its controller has not seen it".to_owned())
        );
        for (replicas, rest, expected) in [
            (
                2,
                "replicas: 1, updatedReplicas: 1",
                Some("1 of 2 pods are made"),
            ),
            (
                1,
                "replicas: 2, updatedReplicas: 1, availableReplicas: 2",
                Some("1 pods of an earlier generation are still there"),
            ),
            (
                2,
                "replicas: 2, updatedReplicas: 2, availableReplicas: 1",
                Some("1 of 2 pods are available"),
            ),
            (
                2,
                "replicas: 2, updatedReplicas: 2, availableReplicas: 2",
                None,
            ),
            (0, "replicas: 0", None),
        ] {
            let status = format!("{{{seen}, {rest}}}");
            assert_eq!(said(replicas, &status).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn many_names_are_said_in_short() {
        let said = |names: &[&str]| in_short(&names.iter().map(ToString::to_string).collect());
        assert_eq!(said(&[]), None);
        assert_eq!(said(&["a", "b", "c"]).unwrap(), "a, b, c");
        assert_eq!(
            said(&["a", "b", "c", "d", "e"]).unwrap(),
            "a, b, c and 2 more"
        );
    }

    #[test]
    fn a_daemon_set_is_ready_when_every_node_has_its_pod() {
        let said = |status: &str| {
            let yaml = format!(
                "{{metadata: {{generation: 1}}, spec: {{selector: {{}}, template: {{}}}},
                 status: {{observedGeneration: 1, currentNumberScheduled: 3,
                 numberMisscheduled: 0, numberReady: 3, {status}}}}}"
            );
            on_every_node(&serde_yaml::from_str(&yaml).unwrap())
        };
        let missing =
            said("desiredNumberScheduled: 3, numberAvailable: 2, updatedNumberScheduled: 3");
        assert_eq!(missing.as_deref(), Some("2 of 3 pods are available"));
        assert_eq!(
            said("desiredNumberScheduled: 3, numberAvailable: 3, updatedNumberScheduled: 3"),
            None
        );
        let fresh: DaemonSet =
            serde_yaml::from_str("{spec: {selector: {}, template: {}}}").unwrap();
        assert_eq!(
            told(Some(&fresh), on_every_node).because(),
            "its controller has not seen it"
        );
        assert_eq!(
            told(None::<&DaemonSet>, on_every_node).because(),
            "it is not there"
        );
    }

    #[test]
    fn a_stateful_set_is_ready_when_all_its_pods_are() {
        let said = |status: &str| {
            let yaml = format!(
                "{{metadata: {{generation: 1}}, spec: {{replicas: 2, serviceName: web, selector: {{}},
                 template: {{}}}}, status: {{replicas: 2, {status}}}}}"
            );
            in_number(&serde_yaml::from_str(&yaml).unwrap())
        };
        let missing = said("observedGeneration: 1, readyReplicas: 1");
        assert_eq!(missing.as_deref(), Some("1 of 2 pods are ready"));
        assert_eq!(said("observedGeneration: 1, readyReplicas: 2"), None);
        let unseen = said("readyReplicas: 2");
        assert_eq!(unseen.as_deref(), Some("its controller has not seen it"));
    }

    impl<T> Progress<T> {
        fn because(self) -> String {
            match self {
                Progress::NotYet(why) => why,
                _ => String::new(),
            }
        }
    }
}
