//! Layers: bringing them up, and saying why one of their claims was broken.
//!
//! Start from [`bring_up`], which applies `manifests/<layer>/` and waits for workloads, the same for
//! every layer; where a cluster has a program for it instead (`istioctl`, an addon), that is run. What a failure is about is a [`Subject`]; `diagnose` looks at objects and names
//! the cause. Rule: bring-up waits for pods and nothing else, since whatever else must come true is
//! a gate's to judge.

mod cni;
mod diagnose;
mod gateway;
mod ingress;
mod labels;
mod look;
mod mesh;
mod paths;
mod services;
mod subject;
mod tried;
mod workload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload_tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::apply::NEEDS_ANNOTATION;
pub use subject::Subject;

use crate::apply::{self, Applier, Document, Manifest, RUN_LABEL, open_namespace};
use crate::budget::CREATE;
use crate::provider::{Addon, Cluster, Need};
use crate::run::RunInfo;
use crate::stack::Layer;
use crate::verdict::{Doing as _, NoVerdict, NotPassed};

/// The label of a fixture's namespace, with the layer's name.
pub const LAYER_LABEL: &str = "strata.dev/layer";

/// Installs a layer, waits until its workloads are ready, applies its fixture and waits for that
/// one's.
///
/// # Errors
/// When the API refuses a document, or a workload never gets ready.
pub async fn bring_up(
    layer: Layer,
    cluster: &Arc<Cluster>,
    run: &RunInfo,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), NotPassed> {
    let manifests = run.manifests.layer(layer);
    let manifests =
        manifests.ok_or_else(|| NoVerdict::new(format!("manifests/{layer}/ was not read")))?;
    let client = &cluster.client;
    let applier = Applier::new(client.clone(), cluster.fit.clone(), &run.id);
    for (manifest, what) in [
        (&manifests.kinds, "its kinds"),
        (&manifests.install, "what it consists of"),
    ] {
        if let Some(manifest) = manifest {
            progress(&format!("applying {what}"));
            apply::install(&applier, client, manifest, CREATE, progress).await?;
        }
    }
    install(layer, cluster, progress).await?;
    progress("applying its fixture");
    let namespace = run.fixture_namespace(layer);
    let labels = BTreeMap::from([
        (RUN_LABEL.to_owned(), run.id.clone()),
        (LAYER_LABEL.to_owned(), layer.name().to_owned()),
    ]);
    let fixture = possible(&manifests.fixture, cluster).await?;
    let fixture = &applier.served_of(fixture).await?;
    let doing = || format!("bringing up the fixture of {layer}");
    open_namespace(&applier, client, &namespace, &labels, fixture)
        .await
        .doing(doing)?;
    applier.apply_into(&namespace, fixture).await.doing(doing)?;
    apply::ready(client, fixture, Some(&namespace), CREATE, progress)
        .await
        .doing(doing)?;
    Ok(())
}

/// What of a layer is brought up by programs, not by manifests.
async fn install(
    layer: Layer,
    cluster: &Cluster,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), NoVerdict> {
    let enable = async |addon: &Option<Arc<dyn Addon>>, what: &str| match addon {
        Some(addon) => (addon.enable(progress).await).doing(|| format!("bringing up {what}")),
        None => Ok(()),
    };
    match (layer, &cluster.istio) {
        (Layer::Ingress, _) => enable(&cluster.ingress, "the Ingress controller").await,
        (Layer::Gateway, _) => enable(&cluster.gateway, "the Gateway controller").await,
        (Layer::Mesh, Some(istio)) => {
            mesh::install::install(cluster, istio, mesh::install::LIMITS, progress).await
        }
        _ => Ok(()),
    }
}

/// A fixture without the objects that this cluster cannot have.
async fn possible(fixture: &Manifest, cluster: &Cluster) -> Result<Manifest, NoVerdict> {
    let mut possible = Manifest::default();
    for document in &fixture.documents {
        let lacks = match need(document)? {
            Some(need) => cluster.lacks(need).await?,
            None => None,
        };
        match lacks {
            None => possible.documents.push(document.clone()),
            Some(why) => tracing::info!("{} is left out: {why}", document.subject()),
        }
    }
    Ok(possible)
}

/// What an object says that it needs.
fn need(document: &Document) -> Result<Option<Need>, NoVerdict> {
    let annotation = format!(
        "/metadata/annotations/{}",
        NEEDS_ANNOTATION.replace('/', "~1")
    );
    let Some(name) = document.object.pointer(&annotation) else {
        return Ok(None);
    };
    let name = name.as_str().unwrap_or_default();
    let known = name.parse().map(Some);
    known
        .map_err(|why| NoVerdict::new(format!("{}: {NEEDS_ANNOTATION}: {why}", document.subject())))
}
