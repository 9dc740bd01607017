//! The webhook's configuration, completed: whose certificate istiod is believed by.
//!
//! Start from [`complete`]. Istio's manifests leave `caBundle` empty and istiod fills it in, so whoever
//! waits for it knows that the webhook can be reached; here as well, though the API server asks
//! this istiod without TLS.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::SERVICE;

/// Writes the authority's certificate into the webhooks that are served by istiod and lack it.
///
/// # Errors
/// When the API server refuses it or cannot be reached.
pub(super) async fn complete(
    client: &Client,
    configurations: &Store<MutatingWebhookConfiguration>,
    namespace: &str,
    root: &str,
) -> anyhow::Result<()> {
    let root = ByteString(root.as_bytes().to_vec());
    for configuration in configurations.state() {
        let webhooks = configuration.webhooks.iter().flatten();
        let lacking = webhooks.filter(|webhook| {
            is_served(webhook, namespace) && webhook.client_config.ca_bundle.as_ref() != Some(&root)
        });
        let completed: Vec<_> = lacking
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": root}}))
            .collect();
        if completed.is_empty() {
            continue;
        }
        let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let patch = Patch::Strategic(json!({ "webhooks": completed }));
        let name = configuration.name_any();
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .map_err(|error| anyhow::anyhow!("MutatingWebhookConfiguration {name}: {error}"))?;
    }
    Ok(())
}

fn is_served(webhook: &MutatingWebhook, namespace: &str) -> bool {
    let service = webhook.client_config.service.as_ref();
    service.is_some_and(|service| service.name == SERVICE && service.namespace == namespace)
}
