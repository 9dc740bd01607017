//! Diagnosing Gateways and HTTPRoutes.
//!
//! Start from [`diagnose`] and [`diagnose_route`]. What follows from what is seen is in [`judge`] and
//! [`route`]; what is behind a route is the Service's matter, and handed on.

pub(super) mod judge;
mod parent;
pub(super) mod route;

#[cfg(test)]
pub(super) mod tests;

use gateway_api::referencegrants::ReferenceGrantSpec;
use kube::ResourceExt as _;
use serde::Deserialize as _;

use super::look::Look;
use super::services;
use crate::verdict::{Cause, NoVerdict};

/// Names the cause why a Gateway does not serve.
pub(super) async fn diagnose(
    look: Look<'_>,
    namespace: &str,
    name: &str,
    listener: Option<&str>,
) -> Result<Option<Cause>, NoVerdict> {
    let seen = judge::Seen {
        listener: listener.map(str::to_owned),
        ..seen(look, namespace, name).await?
    };
    Ok(judge::cause(&seen))
}

async fn seen(look: Look<'_>, namespace: &str, name: &str) -> Result<judge::Seen, NoVerdict> {
    Ok(judge::Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        listener: None,
        gateways: look.all().await?,
        classes: look.all().await?,
    })
}

/// Names the cause why a request through a route is not answered as it should be.
pub(super) async fn diagnose_route(
    look: Look<'_>,
    namespace: &str,
    name: &str,
    path: &str,
) -> Result<Option<Cause>, NoVerdict> {
    let group = "gateway.networking.k8s.io";
    let grants = look
        .untyped(None, group, &["v1", "v1beta1"], "ReferenceGrant")
        .await?;
    let grants = grants.iter().filter_map(|grant| {
        let spec = ReferenceGrantSpec::deserialize(grant.data.get("spec")?).ok()?;
        Some((grant.namespace().unwrap_or_default(), spec))
    });
    let seen = route::Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        path: path.to_owned(),
        routes: look.within(namespace).await?,
        gateways: seen(look, namespace, name).await?,
        services: look.services().await?,
        grants: grants.collect(),
        namespaces: look.namespaces().await?,
    };
    if let Some(cause) = route::cause(&seen) {
        return Ok(Some(cause));
    }
    let Some((namespace, service, port)) = route::backend(&seen) else {
        return Ok(None);
    };
    let behind = services::objects(look, &namespace, &service, port).await?;
    Ok(services::judge::cause(&behind))
}
