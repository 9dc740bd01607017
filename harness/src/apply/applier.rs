//! Putting the objects of a manifest into a cluster.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use kube::api::{
    Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiResource, Scope as KindScope};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};

use super::{Document, Fit, Manifest, RUN_LABEL, restricted};
use crate::budget::{CONVERGE, CREATE};
use crate::verdict::{Doing as _, NoVerdict};
use crate::wait::{self, Progress};

/// Who changes objects, in their `managedFields`.
pub(crate) const FIELD_MANAGER: &str = "strata";

/// An answer of the API that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// The machine's word: `Invalid`, `Forbidden`, `AlreadyExists`, …
    pub reason: String,
    /// The person's sentence.
    pub message: String,
}

/// Applies manifests. It remembers how the API serves each kind that it has met.
pub struct Applier {
    client: Client,
    fit: Fit,
    /// The run's id, which everything carries that no namespace takes away with it.
    run: String,
    kinds: Mutex<HashMap<GroupVersionKind, Served>>,
}

/// How the API serves a kind.
#[derive(Debug, Clone)]
struct Served {
    resource: ApiResource,
    namespaced: bool,
}

/// An object that belongs to no namespace, so that no namespace takes it away with it.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    resource: ApiResource,
    name: String,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").finish_non_exhaustive()
    }
}

impl Applier {
    /// An applier that knows no kind yet, for the run of this id.
    #[must_use]
    pub fn new(client: Client, fit: Fit, run: &str) -> Self {
        Self {
            client,
            fit,
            run: run.to_owned(),
            kinds: Mutex::default(),
        }
    }

    /// Applies the documents in their order, each in the namespace that it names.
    ///
    /// # Errors
    /// The first that the API refuses, with its file and line.
    pub async fn apply(&self, manifest: &Manifest) -> Result<(), NoVerdict> {
        for document in &manifest.documents {
            self.one(document, document.namespace(), document.object.clone())
                .await?;
        }
        Ok(())
    }

    /// Makes the namespace `name` with these labels, and those (and the annotations) of the
    /// document that stands for it.
    ///
    /// # Errors
    /// When the API refuses it.
    pub(crate) async fn namespace(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        manifest: Option<&Manifest>,
    ) -> Result<(), NoVerdict> {
        let mut documents = manifest.iter().flat_map(|manifest| &manifest.documents);
        let stands = documents.find(|document| document.is_namespace());
        let object = namespace_object(name, labels, stands);
        let written = Document {
            name: name.to_owned(),
            gvk: GroupVersionKind::gvk("", "v1", "Namespace"),
            at: stands.map_or_else(|| "made by strata".to_owned(), |it| it.at.clone()),
            object: object.clone(),
        };
        self.one(&written, None, object).await.map(drop)
    }

    /// Applies the documents in their order into a namespace; returns what belongs to none.
    /// Documents that stand for the namespace are left to [`Self::namespace`].
    ///
    /// # Errors
    /// The first that the API refuses, with its file and line.
    pub(crate) async fn apply_into(
        &self,
        namespace: &str,
        manifest: &Manifest,
    ) -> Result<Vec<Global>, NoVerdict> {
        let mut globals = Vec::new();
        let documents = manifest.documents.iter();
        for document in documents.filter(|document| !document.is_namespace()) {
            restricted::judge(document)?;
            let object = document.object.clone();
            globals.extend(self.one(document, Some(namespace), object).await?);
        }
        Ok(globals)
    }

    /// Creates the object of a document in a namespace and says what the API said. Nothing is
    /// tried twice.
    ///
    /// # Errors
    /// When the API cannot be asked, or does not serve the kind.
    pub(crate) async fn create(
        &self,
        namespace: &str,
        document: &Document,
    ) -> Result<Result<(DynamicObject, Option<Global>), Refusal>, NoVerdict> {
        let doing = || format!("creating {}", document.subject());
        restricted::judge(document)?;
        let served = self.served(&document.gvk).await.doing(doing)?;
        let place = served.namespaced.then_some(namespace);
        let mut object = self.fit.fitted(placed(document.object.clone(), place));
        if place.is_none() {
            self.claim(&mut object);
        }
        let object = serde_json::from_value(object).doing(doing)?;
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api(&served, place).create(&parameters, &object).await {
            Ok(object) => {
                let global = served.global(&object.name_any());
                Ok(Ok((object, global)))
            }
            Err(error) => Ok(Err(Refusal::of(error).doing(doing)?)),
        }
    }

    /// The objects of a kind in a namespace, by name; none where the API does not serve the kind.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) async fn list(
        &self,
        namespace: &str,
        gvk: &GroupVersionKind,
    ) -> Result<Vec<DynamicObject>, NoVerdict> {
        let doing = || format!("listing {} in {namespace}", gvk.kind);
        let Some(served) = self.look_up(gvk).await.doing(doing)? else {
            return Ok(Vec::new());
        };
        let place = served.namespaced.then_some(namespace);
        let api = self.api(&served, place);
        let mut items = api.list(&ListParams::default()).await.doing(doing)?.items;
        items.sort_by_key(ResourceExt::name_any);
        Ok(items)
    }

    /// Deletes what belongs to no namespace; one that is gone already is no error.
    ///
    /// # Errors
    /// When the API refuses.
    pub(crate) async fn delete(&self, global: &Global) -> Result<(), NoVerdict> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &global.resource);
        match api.delete(&global.name, &Default::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                Err(error).doing(|| format!("deleting {} {}", global.resource.kind, global.name))
            }
            Ok(_) => Ok(()),
        }
    }

    async fn one(
        &self,
        document: &Document,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Option<Global>, NoVerdict> {
        let doing = || format!("applying {}", document.subject());
        let served = self.served(&document.gvk).await.doing(doing)?;
        let place = served.namespaced.then(|| namespace.unwrap_or("default"));
        let mut object = self.fit.fitted(placed(object, place));
        let api = self.api(&served, place);
        if place.is_none() {
            self.claim(&mut object);
            self.not_others(&api, document).await.doing(doing)?;
        }
        let lacking = match self.may_lack(&document.gvk) {
            true => ValidationDirective::Warn,
            false => ValidationDirective::Strict,
        };
        let parameters = PatchParams {
            field_validation: Some(lacking),
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        wait::until("the API takes it", CREATE, async || {
            match api
                .patch(&document.name, &parameters, &Patch::Apply(&object))
                .await
            {
                Ok(_) => Ok(Progress::Ready(())),
                Err(error) => {
                    let passing = passing(&error);
                    let no_verdict = NoVerdict::from(error);
                    Ok(if passing {
                        Progress::NotYet(no_verdict.because().to_owned())
                    } else {
                        Progress::Stop(no_verdict)
                    })
                }
            }
        })
        .await
        .doing(doing)?;
        Ok(served.global(&document.name))
    }

    /// Labels what belongs to no namespace with the run, so that it can be told whose it is.
    fn claim(&self, object: &mut Value) {
        object["metadata"]["labels"][RUN_LABEL] = self.run.as_str().into();
    }

    /// Refuses to take over what somebody else has made under the same name.
    async fn not_others(
        &self,
        api: &Api<DynamicObject>,
        document: &Document,
    ) -> Result<(), NoVerdict> {
        match api.get_metadata_opt(&document.name).await? {
            Some(there) if there.labels().get(RUN_LABEL) != Some(&self.run) => {
                let (kind, name) = (&document.gvk.kind, &document.name);
                Err(NoVerdict::new(format!(
                    "{kind} {name} is there already, and not of this run: it has no label \
                     {RUN_LABEL}={}",
                    self.run
                )))
            }
            _ => Ok(()),
        }
    }

    fn api(&self, served: &Served, namespace: Option<&str>) -> Api<DynamicObject> {
        let client = self.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &served.resource),
            None => Api::all_with(client, &served.resource),
        }
    }

    /// How a kind is served. One whose definition was just applied appears a moment later; the
    /// groups without a dot are Kubernetes' own, and what they lack stays lacking.
    async fn served(&self, gvk: &GroupVersionKind) -> Result<Served, NoVerdict> {
        let (kind, version) = (&gvk.kind, gvk.api_version());
        let what = format!("the API serves {kind} of {version}");
        wait::until(&what, CONVERGE, async || {
            let missing = || format!("it serves no {kind} of {version}");
            Ok(match self.look_up(gvk).await? {
                Some(served) => Progress::Ready(served),
                None if gvk.group.contains('.') => Progress::NotYet(missing()),
                None => Progress::Stop(NoVerdict::new(missing())),
            })
        })
        .await
    }

    /// Whether fields and kinds of a group may be lacking.
    pub(super) fn may_lack(&self, gvk: &GroupVersionKind) -> bool {
        self.fit.definitions.may_lack(&gvk.group)
    }

    /// Whether the API serves a kind.
    pub(super) async fn serves(&self, gvk: &GroupVersionKind) -> Result<bool, NoVerdict> {
        let found = self.look_up(gvk).await;
        let found = found.doing(|| format!("looking whether the API serves {}", gvk.kind))?;
        Ok(found.is_some())
    }

    async fn look_up(&self, gvk: &GroupVersionKind) -> Result<Option<Served>, NoVerdict> {
        let kinds = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = kinds().get(gvk) {
            return Ok(Some(served.clone()));
        }
        let found = match discovery::pinned_kind(&self.client, gvk).await {
            Ok(found) => found,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let served = Served {
            resource: found.0,
            namespaced: found.1.scope == KindScope::Namespaced,
        };
        kinds().insert(gvk.clone(), served.clone());
        Ok(Some(served))
    }
}

impl Served {
    fn global(&self, name: &str) -> Option<Global> {
        (!self.namespaced).then(|| Global {
            resource: self.resource.clone(),
            name: name.to_owned(),
        })
    }
}

impl Refusal {
    /// What the API refused; an error that is no answer of the API's stays one.
    ///
    /// # Errors
    /// The error it is given.
    pub(crate) fn of(error: kube::Error) -> Result<Self, kube::Error> {
        match error {
            kube::Error::Api(status) => Ok(Self {
                code: status.code,
                reason: status.reason,
                message: status.message,
            }),
            other => Err(other),
        }
    }
}

/// Whether an answer is one that passes: a kind whose definition was just taken, a webhook whose
/// pod does not answer yet, a server that says "later", a change that came between.
fn passing(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    match status.code {
        404 => status
            .message
            .contains("could not find the requested resource"),
        409 | 429 | 503 | 504 => true,
        500 => status.message.contains("failed calling webhook"),
        _ => false,
    }
}

fn placed(mut object: Value, namespace: Option<&str>) -> Value {
    if let (Some(namespace), Some(metadata)) = (namespace, object.get_mut("metadata")) {
        metadata["namespace"] = namespace.into();
    }
    object
}

fn namespace_object(
    name: &str,
    labels: &BTreeMap<String, String>,
    stands: Option<&Document>,
) -> Value {
    let map = |field: &str| {
        let found = stands.and_then(|document| document.object.pointer(field));
        found.and_then(Value::as_object).cloned()
    };
    let mut all: Map<String, Value> = map("/metadata/labels").unwrap_or_default();
    // Those of strata come last: a sweep finds what a run left by them.
    all.extend(
        labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value))),
    );
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "labels": all,
            "annotations": map("/metadata/annotations").unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_tried_again() {
        let refused = |code: u16, message: &str| {
            let status = kube::core::Status::failure(message, "").with_code(code);
            passing(&kube::Error::Api(status.boxed()))
        };
        let webhook = "Internal error occurred: failed calling webhook \"a\": connection refused";
        for (code, message, expected) in [
            (
                404,
                "the server could not find the requested resource",
                true,
            ),
            (404, "namespaces \"a\" not found", false),
            (409, "the object has been modified", true),
            (422, "Service \"a\" is invalid", false),
            (403, "admission webhook \"a\" denied the request", false),
            (429, "", true),
            (500, webhook, true),
            (500, "Internal error occurred", false),
            (503, "", true),
        ] {
            assert_eq!(refused(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn the_document_gives_labels_and_the_run_the_name() {
        let written = "{apiVersion: v1, kind: Namespace, metadata: {name: any,
            labels: {istio-injection: enabled, strata.dev/run: mine}, annotations: {a: b}}}";
        let manifest = Manifest::parse(written, "a.yaml").unwrap();
        let labels = BTreeMap::from([("strata.dev/run".to_owned(), "x".to_owned())]);
        let object = namespace_object("strata-a-x", &labels, manifest.documents.first());
        assert_eq!(
            object["metadata"],
            json!({
                "name": "strata-a-x",
                "labels": {"istio-injection": "enabled", "strata.dev/run": "x"},
                "annotations": {"a": "b"},
            })
        );
    }
}
