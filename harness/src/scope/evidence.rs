//! What is collected about a check that did not pass: the same at the desk and in CI.
//!
//! Start from [`COLLECTORS`]. Each writes files of its own; one that fails writes why, and never
//! changes a verdict.

use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::{Resource, core::GroupVersionKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Scope, sample};
use crate::budget::{Budget, REQUEST};
use crate::verdict::NoVerdict;
use crate::wait;

/// A file's name and what belongs into it; an empty one is not written.
type File = (String, String);

/// Collects one kind of evidence.
struct Collector {
    /// What it is called where it fails.
    name: &'static str,
    collect: for<'a> fn(&'a Scope) -> BoxFuture<'a, anyhow::Result<Vec<File>>>,
}

const COLLECTORS: &[Collector] = &[
    Collector {
        name: "probe",
        collect: |scope| {
            Box::pin(async { Ok(vec![("probe.jsonl".to_owned(), scope.transcript().text())]) })
        },
    },
    Collector {
        name: "sample",
        collect: |scope| {
            // It is there already, whatever the check came to.
            let kept = std::fs::read_to_string(scope.evidence.join(sample::LOG));
            let file = kept.map(|text| (sample::LOG.to_owned(), text));
            Box::pin(async move { Ok(file.into_iter().collect()) })
        },
    },
    Collector {
        name: "events",
        collect: |scope| Box::pin(events(scope)),
    },
    Collector {
        name: "pods",
        collect: |scope| Box::pin(typed::<Pod>(scope, "pods")),
    },
    Collector {
        name: "logs",
        collect: |scope| Box::pin(logs(scope)),
    },
    Collector {
        name: "services",
        collect: |scope| Box::pin(typed::<Service>(scope, "services")),
    },
    Collector {
        name: "endpointslices",
        collect: |scope| Box::pin(typed::<EndpointSlice>(scope, "endpointslices")),
    },
    Collector {
        name: "networkpolicies",
        collect: |scope| Box::pin(typed::<NetworkPolicy>(scope, "networkpolicies")),
    },
    Collector {
        name: "ingresses",
        collect: |scope| Box::pin(typed::<Ingress>(scope, "ingresses")),
    },
    Collector {
        name: "istio",
        collect: |scope| Box::pin(kinds(scope, "istio", ISTIO)),
    },
    Collector {
        name: "gateway",
        collect: |scope| Box::pin(kinds(scope, "gateway", GATEWAY)),
    },
];

/// Kinds that have no type here: group, version, kind.
type Kinds = &'static [(&'static str, &'static str, &'static str)];

const ISTIO: Kinds = &[
    ("networking.istio.io", "v1", "VirtualService"),
    ("networking.istio.io", "v1", "DestinationRule"),
    ("networking.istio.io", "v1", "ServiceEntry"),
    ("networking.istio.io", "v1", "Sidecar"),
    ("security.istio.io", "v1", "PeerAuthentication"),
    ("security.istio.io", "v1", "AuthorizationPolicy"),
    ("security.istio.io", "v1", "RequestAuthentication"),
];

const GATEWAY: Kinds = &[
    ("gateway.networking.k8s.io", "v1", "GatewayClass"),
    ("gateway.networking.k8s.io", "v1", "Gateway"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
    ("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant"),
];

/// One kind of evidence; the rest is there without it.
const EVIDENCE: Budget = Budget {
    name: "collect evidence",
    within: Duration::from_secs(10),
    ..REQUEST
};
/// A log is read from its end: what led to a failure is the last of it.
const LOG_LINES: i64 = 500;

impl Scope {
    /// Writes what explains a check that did not pass; returns the files' names.
    pub async fn collect_evidence(&self) -> Vec<String> {
        let collecting = COLLECTORS.iter().map(|collector| async {
            let collected = (collector.collect)(self);
            let collected = wait::bounded("collecting it", EVIDENCE, collected).await;
            let files = collected.unwrap_or_else(|why| {
                let name = format!("{}.error.txt", collector.name);
                vec![(name, format!("{}\n", why.because()))]
            });
            // At once: whatever else takes too long, this is there.
            let whole = files.into_iter().filter(|(_, content)| !content.is_empty());
            let written =
                whole.filter_map(
                    |(name, content)| match write(&self.evidence, &name, &content) {
                        Ok(()) => Some(name),
                        Err(error) => {
                            tracing::warn!("evidence: {error:#}");
                            None
                        }
                    },
                );
            written.collect::<Vec<_>>()
        });
        join_all(collecting).await.concat()
    }
}

fn write(dir: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

async fn all<K>(scope: &Scope) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(scope.client().clone(), scope.namespace());
    Ok(api.list(&ListParams::default()).await?.items)
}

async fn typed<K>(scope: &Scope, name: &str) -> anyhow::Result<Vec<File>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let mut text = String::new();
    for mut object in all::<K>(scope).await? {
        // Who set which field when is seldom the question, and twice as long as the object.
        object.meta_mut().managed_fields = None;
        let kind = K::kind(&());
        // Items of a list carry no kind of their own.
        let _ = write!(
            text,
            "---\n# {kind}\n{}\n",
            serde_yaml::to_string(&object)?.trim_end()
        );
    }
    Ok(vec![(format!("{name}.yaml"), text)])
}

async fn kinds(scope: &Scope, name: &str, kinds: Kinds) -> anyhow::Result<Vec<File>> {
    let mut text = String::new();
    for (group, version, kind) in kinds {
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let objects: Vec<DynamicObject> = scope
            .applier
            .list(scope.namespace(), &gvk)
            .await
            .map_err(|no_verdict| anyhow::anyhow!(no_verdict.because().to_owned()))?;
        for mut object in objects {
            object.metadata.managed_fields = None;
            let yaml = serde_yaml::to_string(&object)?;
            let _ = write!(text, "---\n# {kind}\n{}\n", yaml.trim_end());
        }
    }
    Ok(vec![(format!("{name}.yaml"), text)])
}

async fn events(scope: &Scope) -> anyhow::Result<Vec<File>> {
    let mut events = all::<Event>(scope).await?;
    let when = |event: &Event| {
        let series = event.last_timestamp.as_ref().map(|at| at.0);
        series.or_else(|| event.event_time.as_ref().map(|at| at.0))
    };
    events.sort_by_key(when);
    let mut text = String::new();
    for event in &events {
        let about = &event.involved_object;
        let _ = writeln!(
            text,
            "{}  {:<8}{} {}  {}: {}",
            when(event).map_or_else(|| "-".to_owned(), |at| at.to_string()),
            event.type_.as_deref().unwrap_or_default(),
            about.kind.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default(),
        );
    }
    Ok(vec![("events.txt".to_owned(), text)])
}

/// The logs of every container, and of the one that ran before it where there was one.
async fn logs(scope: &Scope) -> anyhow::Result<Vec<File>> {
    let api = Api::<Pod>::namespaced(scope.client().clone(), scope.namespace());
    let mut files = Vec::new();
    for pod in all::<Pod>(scope).await? {
        let pod_name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        let containers = status.init_container_statuses.into_iter().flatten();
        for container in containers.chain(status.container_statuses.into_iter().flatten()) {
            let state = container.state.unwrap_or_default();
            let previous = container.restart_count > 0;
            for (wanted, previous, suffix) in [
                (
                    state.running.is_some() || state.terminated.is_some(),
                    false,
                    "",
                ),
                (previous, true, ".previous"),
            ] {
                if !wanted {
                    continue;
                }
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(LOG_LINES),
                    ..LogParams::default()
                };
                let log = api.logs(&pod_name, &parameters).await;
                let text = log.unwrap_or_else(|error| {
                    format!("no log: {}\n", NoVerdict::from(error).because())
                });
                files.push((format!("{pod_name}.{}{suffix}.log", container.name), text));
            }
        }
    }
    Ok(files)
}
