//! Ingress, mesh and Gateway, translated to Envoy configuration.
//!
//! Start from [`builtins`]. Each controller watches its objects, translates all of them with a
//! pure function, and serves what came of it to its Envoys; the data path is real Envoys only. Rule: a
//! controller knows nothing that it did not read from the API.
//!
//! ```text
//! objects ──► world ──► {ingress, mesh, gateway}::translate ──► envoy ──► xds ──► Envoy
//!                                                                 └──► publish ──► ConfigMap, Secret
//! ```

mod cluster;
mod envoy;
mod gateway;
mod ingress;
mod locality;
#[cfg(test)]
mod manifest;
mod mesh;
mod publish;
mod ready;
mod serve;

use std::time::Duration;

use crate::builtin::Builtins;
use crate::world;

/// How long what changes is waited for to be followed by more, as Contour's `--holdoff-delay`.
const HOLDOFF: Duration = Duration::from_millis(50);

/// Adds the layer 7 controllers to the lab's components.
#[must_use]
pub fn builtins(builtins: Builtins) -> Builtins {
    builtins
        .with("ingress-controller", |context| {
            Box::pin(ingress::run(context))
        })
        .with("istiod", |context| Box::pin(mesh::run(context)))
        .with("istio-init", |context| {
            Box::pin(mesh::redirect::run(context))
        })
        .with("gateway-controller", |context| {
            Box::pin(gateway::run(context))
        })
}
