//! Diagnosing requests through an Ingress.
//!
//! Start from [`diagnose`]. What follows from what is seen is in [`judge`]; what is behind the
//! Ingress is the Service's matter, and handed on.

pub(super) mod judge;

#[cfg(test)]
pub(super) mod tests;

use self::judge::Seen;
use super::look::Look;
use super::services;
use crate::verdict::{Cause, NoVerdict};

/// Names the cause why a request is not answered as it should be.
pub(super) async fn diagnose(
    look: Look<'_>,
    namespace: &str,
    name: &str,
    host: Option<&str>,
    path: &str,
) -> Result<Option<Cause>, NoVerdict> {
    let seen = Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        host: host.map(ToOwned::to_owned),
        path: path.to_owned(),
        ingresses: look.all().await?,
        classes: look.all().await?,
        services: look.services().await?,
        secrets: look.within(namespace).await?,
    };
    if let Some(cause) = judge::cause(&seen) {
        return Ok(Some(cause));
    }
    let Some(backend) = judge::backend(&seen) else {
        return Ok(None);
    };
    let behind = services::objects(look, namespace, &backend.service, Some(backend.port)).await?;
    Ok(services::judge::cause(&behind))
}
