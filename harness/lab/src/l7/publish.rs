//! Writing what was translated: only where it differs from what is there.
//!
//! Start from [`Publisher::apply`]. Every write is a server-side apply under the component's own
//! name, so that fields that others own stay theirs.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes objects for one component.
pub(crate) struct Publisher {
    client: Client,
    manager: &'static str,
    /// What was last written, by kind, namespace and name.
    written: HashMap<(String, String, String), String>,
    /// The UIDs of the namespaces that it was written to.
    namespaces: BTreeMap<String, String>,
}

impl Publisher {
    /// A writer under a component's name.
    pub(crate) fn new(client: Client, manager: &'static str) -> Self {
        Self {
            client,
            manager,
            written: HashMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Applies an object unless it is what was applied last. Tells whether it wrote.
    ///
    /// # Errors
    /// When the API server refuses it or cannot be reached.
    pub(crate) async fn apply<K>(&mut self, object: &K) -> anyhow::Result<bool>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        let key = (K::kind(&()).into_owned(), namespace.clone(), name.clone());
        let text = serde_json::to_string(object)?;
        if self.written.get(&key) == Some(&text) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let parameters = PatchParams::apply(self.manager).force();
        api.patch(&name, &parameters, &Patch::Apply(object))
            .await
            .map_err(|error| anyhow::anyhow!("{} {namespace}/{name}: {error}", K::kind(&())))?;
        self.written.insert(key, text);
        Ok(true)
    }

    /// Forgets what was written to namespaces that are gone, or are others of the same name.
    pub(crate) fn follow(&mut self, namespaces: &BTreeMap<String, String>) {
        let before = std::mem::replace(&mut self.namespaces, namespaces.clone());
        self.written
            .retain(|(_, namespace, _), _| match before.get(namespace) {
                Some(uid) => namespaces.get(namespace) == Some(uid),
                None => true,
            });
    }

    /// Forgets what was written under a name, so that it is written again.
    pub(crate) fn forget(&mut self, kind: &str, namespace: &str, name: &str) {
        self.written
            .remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
    }
}

/// A ConfigMap of files.
pub(crate) fn config_map(metadata: ObjectMeta, files: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap {
        metadata,
        data: Some(files),
        ..ConfigMap::default()
    }
}

/// A Secret of one file.
pub(crate) fn secret(
    metadata: ObjectMeta,
    files: impl IntoIterator<Item = (String, String)>,
) -> Secret {
    let data = files
        .into_iter()
        .map(|(name, text)| (name, k8s_openapi::ByteString(text.into_bytes())));
    Secret {
        metadata,
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// Metadata of a name in a namespace, with labels.
pub(crate) fn metadata(namespace: &str, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: BTreeMap<_, _> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        ..ObjectMeta::default()
    }
}
