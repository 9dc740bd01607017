//! Who serves Ingresses and Gateways in a cluster that was made for the run, and has nobody of its own.
//!
//! Start from [`Serving::by`], which reads who is wanted; [`Server::find`] looks for it before there is a cluster, so that a
//! layer whose controller cannot be had is skipped with the reason, and [`Found::on`] says whether it is of use on
//! the cluster that came to be. It is installed as its layer is brought up. Rule: into a cluster that
//! somebody has nothing of this is installed.

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod who;

use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;

use self::who::{CONTOUR, GATEWAY, INGRESS, Server, TRAEFIK_VERSION};
use super::upstream::Upstream;
use super::{Addon, Balancer, Cluster, Progress};
use crate::apply::GATEWAY_CLASS;
use crate::asset::Assets;
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;

/// Who is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Serving {
    pub(super) ingress: Server,
    pub(super) gateway: Server,
}

impl Serving {
    /// By the settings.
    ///
    /// # Errors
    /// When they name who cannot be installed.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        let [(_, ingress, by_ingress), (_, gateway, by_gateway)] = settings.servers();
        Ok(Self {
            ingress: chosen(ingress, by_ingress, &INGRESS)?,
            gateway: chosen(gateway, by_gateway, &GATEWAY)?,
        })
    }
}

/// The one that is named; the first where none is.
fn chosen(variable: &str, named: Option<&str>, of: &[Server]) -> Result<Server, BadInput> {
    let named = named.unwrap_or(of[0].name);
    let found = of.iter().find(|server| server.name == named);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = of.iter().map(|server| server.name).collect();
        BadInput(format!(
            "{variable}={named} is nobody that this version installs; choose one of {}",
            names.join(", ")
        ))
    })
}

/// Refuses who is wanted where nobody can be: what serves there is `what`.
///
/// # Errors
/// When somebody is wanted.
pub(super) fn refused(settings: &Settings, layers: &[Layer], what: &str) -> Result<(), BadInput> {
    for (layer, variable, named) in settings.servers() {
        if let Some(named) = named.filter(|_| layers.contains(&layer)) {
            return Err(BadInput(format!("{variable}={named}: {what}; unset it")));
        }
    }
    Ok(())
}

/// Somebody whose files are here.
#[derive(Debug)]
pub(super) struct Found {
    server: Server,
    upstream: Upstream,
}

impl Server {
    /// Looks for it, if the run plans its layer.
    ///
    /// # Errors
    /// Why the layer is skipped.
    pub(super) async fn find(
        self,
        run: &RunInfo,
        layer: Layer,
        assets: &Assets,
        progress: Progress<'_>,
    ) -> Result<Found, String> {
        let upstream = Upstream::planned(run, layer, assets, self.part, progress).await?;
        Ok(Found {
            server: self,
            upstream,
        })
    }
}

impl Found {
    /// What will have been installed, with versions.
    pub(super) fn shown(&self) -> impl Iterator<Item = (String, String)> {
        let (name, version) = TRAEFIK_VERSION;
        let ours = (self.server.name == name).then(|| (name.to_owned(), version.to_owned()));
        let theirs = self.server.part.asset.map(|_| self.upstream.shown());
        theirs.into_iter().chain(ours)
    }

    /// Whether it can be in a cluster with Contour's static installation.
    ///
    /// # Errors
    /// Why it cannot.
    fn beside_contour(self) -> Result<Self, String> {
        match self.server.name == CONTOUR.name {
            true => Err(
                "Contour's quickstart, which serves Ingresses, and its Gateway provisioner bring the same definitions \
                 in different versions; choose another by STRATA_GATEWAY or STRATA_INGRESS"
                    .to_owned(),
            ),
            false => Ok(self),
        }
    }

    /// What brings up the layer on a cluster, where it is of use there.
    ///
    /// # Errors
    /// Why it is of no use.
    fn on(self, cluster: &Cluster, run: &str) -> Result<Arc<dyn Addon>, String> {
        let Self { server, upstream } = self;
        if server.of_mesh && cluster.istio.is_none() {
            return Err(format!(
                "{} is served by the mesh's own controller, and no mesh is brought up: {}",
                server.name,
                cluster
                    .layers
                    .lacks(Layer::Mesh)
                    .unwrap_or("this run plans none")
            ));
        }
        let kubernetes = cluster.versions.get("kubernetes");
        let kubernetes = kubernetes.map_or("", String::as_str);
        upstream.on(kubernetes)?;
        if let Balancer::None(why) = &cluster.load_balancer {
            return Err(format!(
                "{} is reached by a load balancer, and there is none: {why}",
                server.name
            ));
        }
        Ok(Arc::new(Installed {
            upstream,
            more: server.more,
            client: cluster.client.clone(),
            run: run.to_owned(),
        }))
    }
}

/// A cluster in which these come to serve, each in its layer; or which lacks the layer, and why.
pub(super) fn serve(
    mut cluster: Cluster,
    (ingress, gateway): (Option<Result<Found, String>>, Result<Found, String>),
    run: &RunInfo,
) -> Cluster {
    let of_contour = matches!(&ingress, Some(Ok(found)) if found.server.name == CONTOUR.name);
    if let Some(ingress) = ingress {
        cluster.ingress = served(&mut cluster, Layer::Ingress, ingress, run);
    }
    let gateway = match cluster.ingress.is_some() && of_contour {
        true => gateway.and_then(|found| found.beside_contour()),
        false => gateway,
    };
    let class = gateway.as_ref().map(|found| found.server.class).ok();
    cluster.gateway = served(&mut cluster, Layer::Gateway, gateway, run);
    let class = class.filter(|class| *class != GATEWAY_CLASS);
    cluster.fit.gateway_class = class.map(str::to_owned);
    cluster
}

fn served(
    cluster: &mut Cluster,
    layer: Layer,
    found: Result<Found, String>,
    run: &RunInfo,
) -> Option<Arc<dyn Addon>> {
    let versions: Vec<_> = found.iter().flat_map(Found::shown).collect();
    match found.and_then(|found| found.on(cluster, &run.id)) {
        Ok(addon) => {
            cluster.versions.extend(versions);
            Some(addon)
        }
        Err(why) => {
            cluster.layers = std::mem::take(&mut cluster.layers).without(layer, why);
            None
        }
    }
}

/// A layer's controller, not yet installed.
struct Installed {
    upstream: Upstream,
    more: &'static str,
    client: Client,
    run: String,
}

#[async_trait(?Send)]
impl Addon for Installed {
    async fn enable(&self, progress: Progress<'_>) -> anyhow::Result<()> {
        let of = (&self.client, self.run.as_str());
        let more = (!self.more.is_empty()).then_some(self.more);
        self.upstream.install(of, more, progress).await
    }
}
