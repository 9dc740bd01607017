//! Waiting until admission webhooks can be reached: until then what they judge is refused.
//!
//! Start from [`answers`]. A webhook in the cluster can be reached once its configuration says whose
//! certificates to believe, which mostly its own server writes there, and once its Service has a ready endpoint.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::Document;
use crate::budget::Budget;
use crate::verdict::NoVerdict;
use crate::wait::{self, Progress};

/// The label of an EndpointSlice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A configuration of webhooks, of either kind.
pub(super) trait Configuration:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Each webhook's name, and where its server is.
    fn servers(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn servers(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|it| (it.name.as_str(), &it.client_config))
            .collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn servers(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|it| (it.name.as_str(), &it.client_config))
            .collect()
    }
}

/// Whether a document configures webhooks.
pub(super) fn is_configuration(document: &Document) -> bool {
    let gvk = &document.gvk;
    gvk.group == "admissionregistration.k8s.io" && gvk.kind.ends_with("WebhookConfiguration")
}

/// Waits until every webhook of a configuration can be reached. One outside the cluster (`url`) is
/// its owner's to keep.
///
/// # Errors
/// When that is not so within the budget.
pub(super) async fn answers<K: Configuration>(
    client: &Client,
    name: &str,
    budget: Budget,
) -> Result<(), NoVerdict> {
    let kind = K::kind(&()).into_owned();
    let what = format!("{kind} {name} says whose certificates to believe");
    let api = Api::<K>::all(client.clone());
    let services = wait::object(&what, budget, api, name, believed).await?;
    for (namespace, service) in services {
        let what = format!(
            "Service {namespace}/{service}, which {kind} {name} names, has a ready endpoint"
        );
        let api = Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
        let of_it = watcher::Config::default().labels(&format!("{SERVICE_LABEL}={service}"));
        wait::watched(&what, budget, api, of_it, endpoint).await?;
    }
    Ok(())
}

/// The Services of a configuration's webhooks, once none lacks its `caBundle`.
fn believed<K: Configuration>(configuration: Option<&K>) -> Progress<BTreeSet<(String, String)>> {
    let Some(configuration) = configuration else {
        return Progress::NotYet("it is not there".to_owned());
    };
    let mut services = BTreeSet::new();
    for (name, server) in configuration.servers() {
        let Some(service) = &server.service else {
            continue;
        };
        if server
            .ca_bundle
            .as_ref()
            .is_none_or(|bundle| bundle.0.is_empty())
        {
            return Progress::NotYet(format!("webhook {name} has no caBundle"));
        }
        services.insert((service.namespace.clone(), service.name.clone()));
    }
    Progress::Ready(services)
}

fn endpoint(slices: &[&EndpointSlice]) -> Progress<()> {
    let endpoints = || slices.iter().flat_map(|slice| slice.endpoints.iter());
    let ready = |it: &k8s_openapi::api::discovery::v1::Endpoint| {
        it.conditions.as_ref().and_then(|it| it.ready) != Some(false)
    };
    match endpoints().count() {
        0 => Progress::NotYet("it has no endpoint".to_owned()),
        _ if endpoints().any(ready) => Progress::Ready(()),
        n => Progress::NotYet(format!("none of its {n} endpoints is ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn because<T>(progress: Progress<T>) -> Option<String> {
        match progress {
            Progress::NotYet(why) => Some(why),
            _ => None,
        }
    }

    #[test]
    fn a_webhook_is_believed_by_its_bundle() {
        let said = |client: &str| {
            let yaml = format!(
                "{{webhooks: [{{name: a, sideEffects: None, admissionReviewVersions: [v1],
                 clientConfig: {client}}}]}}"
            );
            let it: ValidatingWebhookConfiguration = serde_yaml::from_str(&yaml).unwrap();
            because(believed(Some(&it)))
        };
        let lacks = Some("webhook a has no caBundle".to_owned());
        assert_eq!(said("{service: {namespace: n, name: s}}"), lacks);
        assert_eq!(
            said("{service: {namespace: n, name: s}, caBundle: ''}"),
            lacks
        );
        assert_eq!(
            said("{service: {namespace: n, name: s}, caBundle: YQ==}"),
            None
        );
        assert_eq!(said("{url: 'https://elsewhere'}"), None);
        let none = believed(None::<&ValidatingWebhookConfiguration>);
        assert_eq!(because(none).unwrap(), "it is not there");
    }

    #[test]
    fn a_service_answers_by_a_ready_endpoint() {
        let said = |endpoints: &str| {
            let yaml = format!("{{addressType: IPv4, endpoints: {endpoints}}}");
            let slice: EndpointSlice = serde_yaml::from_str(&yaml).unwrap();
            because(endpoint(&[&slice]))
        };
        assert_eq!(because(endpoint(&[])).unwrap(), "it has no endpoint");
        assert_eq!(said("[]").unwrap(), "it has no endpoint");
        let not_ready = "{addresses: [10.0.0.1], conditions: {ready: false}}";
        assert_eq!(
            said(&format!("[{not_ready}]")).unwrap(),
            "none of its 1 endpoints is ready"
        );
        assert_eq!(
            said(&format!("[{not_ready}, {{addresses: [10.0.0.2]}}]")),
            None
        );
    }
}
