//! Admission webhooks whose server is a task of the lab.
//!
//! Start from [`Webhooks::register`]. The API server reads MutatingWebhookConfiguration objects as
//! any API server does; where `clientConfig.service` names a Service and path registered here, the
//! handler is called in the process instead of over HTTPS. Whether a webhook applies, and what
//! follows when none answers (`failurePolicy`), the API server decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse};

/// Answers one AdmissionReview (admission.k8s.io/v1).
pub type Handler = Arc<
    dyn Fn(AdmissionRequest<DynamicObject>) -> BoxFuture<'static, AdmissionResponse> + Send + Sync,
>;

type Key = (String, String, String);

/// The webhook servers that run in this process, by the Service that stands before them.
#[derive(Clone, Default)]
pub struct Webhooks(Arc<Mutex<HashMap<Key, Handler>>>);

impl Webhooks {
    /// Serves `path` of Service `namespace/service` until the registration is dropped.
    #[must_use]
    pub fn register(
        &self,
        namespace: &str,
        service: &str,
        path: &str,
        handler: Handler,
    ) -> Registration {
        let key = (namespace.to_owned(), service.to_owned(), path.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), handler);
        Registration {
            webhooks: self.clone(),
            key,
        }
    }

    /// The handler behind a webhook's `clientConfig.service`, if one is up.
    #[must_use]
    pub fn find(&self, namespace: &str, service: &str, path: &str) -> Option<Handler> {
        let key = (namespace.to_owned(), service.to_owned(), path.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }
}

/// Keeps a handler registered.
pub struct Registration {
    webhooks: Webhooks,
    key: Key,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.webhooks
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
