//! Writing statuses, and removing what is no longer wanted.

use std::fmt::Debug;

use gateway_api::gateways::{Gateway, GatewayStatus};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Writes a Gateway's status, in which a merge would leave what it does not name.
pub(super) async fn write_gateway(
    api: Api<Gateway>,
    gateway: &Gateway,
    status: &GatewayStatus,
) -> anyhow::Result<()> {
    let mut status = serde_json::to_value(status)?;
    if status.get("addresses").is_none() {
        status["addresses"] = json!(null);
    }
    write(api, &gateway.metadata, &status).await
}

/// Writes a status over the one that was seen. If another was written meanwhile, that will be seen,
/// and this is tried again over it: nobody's part of it gets lost.
pub(super) async fn write<K>(
    api: Api<K>,
    metadata: &ObjectMeta,
    status: &impl Serialize,
) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "metadata": { "resourceVersion": metadata.resource_version, "uid": metadata.uid },
        "status": status,
    });
    let name = metadata.name.as_deref().unwrap_or_default();
    match api
        .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
        Err(error) => Err(anyhow::anyhow!(
            "status of {}/{name}: {error}",
            api.resource_url()
        )),
        Ok(_) => Ok(()),
    }
}

/// Removes an object that may be there.
pub(super) async fn remove<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(anyhow::anyhow!(
            "{} {namespace}/{name}: {error}",
            K::kind(&())
        )),
        Ok(_) => Ok(()),
    }
}
