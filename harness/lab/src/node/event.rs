//! Events about pods, as a kubelet records them.
//!
//! Start from [`Recorder::pod`]. Recording never waits: one task a node writes the events, and
//! counts those that repeat instead of writing them again. It ends with the last recorder.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// Records events of one node's kubelet.
#[derive(Clone)]
pub(super) struct Recorder(mpsc::UnboundedSender<Occurrence>);

struct Occurrence {
    about: ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
    time: Timestamp,
}

/// Where an event is about: its object, what happened, and how it is told.
type Key = (Option<String>, Option<String>, &'static str, String);

impl Recorder {
    /// A recorder, and the task that writes what it records.
    pub(super) fn new(client: Client, node: String) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), write(client, node, receiver))
    }

    /// Records what happened to a pod, or to one of its containers.
    pub(super) fn pod(
        &self,
        pod: &Pod,
        field: Option<String>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: field,
        };
        let time = Timestamp::now();
        // Nobody is left to write it only when the node is going away.
        let _ = self.0.send(Occurrence {
            about,
            warning,
            reason,
            message,
            time,
        });
    }
}

async fn write(client: Client, node: String, mut occurrences: mpsc::UnboundedReceiver<Occurrence>) {
    let mut known: HashMap<Key, (String, i32)> = HashMap::new();
    while let Some(occurrence) = occurrences.recv().await {
        let Occurrence {
            about,
            warning,
            reason,
            message,
            time,
        } = occurrence;
        let namespace = about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let events = Api::<Event>::namespaced(client.clone(), &namespace);
        let key = (
            about.uid.clone(),
            about.field_path.clone(),
            reason,
            message.clone(),
        );
        let written = if let Some((name, count)) = known.get_mut(&key) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": Time(time)});
            events
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
        } else {
            let object = about.name.clone().unwrap_or_default();
            let name = format!("{object}.{:x}", time.as_nanosecond());
            known.insert(key, (name.clone(), 1));
            let event = Event {
                metadata: ObjectMeta {
                    name: Some(name),
                    namespace: Some(namespace),
                    ..ObjectMeta::default()
                },
                involved_object: about,
                type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
                reason: Some(reason.to_owned()),
                message: Some(message),
                first_timestamp: Some(Time(time)),
                last_timestamp: Some(Time(time)),
                count: Some(1),
                source: Some(EventSource {
                    component: Some("kubelet".to_owned()),
                    host: Some(node.clone()),
                }),
                reporting_component: Some("kubelet".to_owned()),
                reporting_instance: Some(node.clone()),
                ..Event::default()
            };
            events.create(&PostParams::default(), &event).await
        };
        if let Err(error) = written {
            // The namespace may be going away, with everything in it.
            tracing::debug!(%error, reason, "an event was not recorded");
        }
    }
}
