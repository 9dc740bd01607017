//! Events, as controllers and kubelets record them.
//!
//! Start from [`Recorder::record`]. Recording never waits and never fails what it is about; an event
//! that repeats is counted instead of written again. The writer ends with its recorder.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    Normal,
    Warning,
}

/// Records one component's events.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::UnboundedSender<Occurrence>,
    _writer: Arc<AbortOnDropHandle<()>>,
}

struct Occurrence {
    about: ObjectReference,
    kind: Type,
    reason: &'static str,
    message: String,
    time: Timestamp,
}

/// What makes two occurrences one event: the object, the part of it, the reason and the message.
type Key = (Option<String>, Option<String>, &'static str, String);

/// A reference to an object of a built-in kind.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// A recorder of a component of the control plane.
    pub(crate) fn new(client: Client, component: &'static str) -> Self {
        Self::of(client, component, None)
    }

    /// A recorder of a component of a node.
    pub(crate) fn on_node(client: Client, component: &'static str, node: String) -> Self {
        Self::of(client, component, Some(node))
    }

    fn of(client: Client, component: &'static str, host: Option<String>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let source = EventSource {
            component: Some(component.to_owned()),
            host,
        };
        let writer = tokio::spawn(write(client, source, receiver));
        Self {
            sender,
            _writer: Arc::new(AbortOnDropHandle::new(writer)),
        }
    }

    /// Records what happened to an object.
    pub(crate) fn record<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        kind: Type,
        reason: &'static str,
        message: String,
    ) {
        self.record_about(reference(object), kind, reason, message);
    }

    /// Records what happened to a part of an object, which `fieldPath` names.
    pub(crate) fn record_about(
        &self,
        about: ObjectReference,
        kind: Type,
        reason: &'static str,
        message: String,
    ) {
        let occurrence = Occurrence {
            about,
            kind,
            reason,
            message,
            time: Timestamp::now(),
        };
        // The writer is aborted only together with us.
        let _ = self.sender.send(occurrence);
    }
}

async fn write(
    client: Client,
    source: EventSource,
    mut occurrences: mpsc::UnboundedReceiver<Occurrence>,
) {
    let mut known: HashMap<Key, (String, i32)> = HashMap::new();
    while let Some(occurrence) = occurrences.recv().await {
        let Occurrence {
            about,
            kind,
            reason,
            message,
            time,
        } = occurrence;
        let namespace = about.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
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
            let patch = Patch::Merge(patch);
            events.patch(name, &PatchParams::default(), &patch).await
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
                type_: Some(format!("{kind:?}")),
                reason: Some(reason.to_owned()),
                message: Some(message),
                first_timestamp: Some(Time(time)),
                last_timestamp: Some(Time(time)),
                count: Some(1),
                source: Some(source.clone()),
                reporting_component: source.component.clone(),
                reporting_instance: Some(source.host.clone().unwrap_or_default()),
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
