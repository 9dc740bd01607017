//! The vantage outside: a container of the probe's image on the network of the nodes.
//!
//! Start from [`Beside`]. It reaches node addresses also where the nodes' machine is a virtual one.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use ipnet::IpNet;

use super::engine::Engine;
use crate::provider::{Output, Outside};

const START: Duration = Duration::from_secs(60);
/// Above the probe's own limit.
const RUN: Duration = Duration::from_secs(80);

/// The networks of nodes, by their prefixes, of an engine's network.
///
/// # Errors
/// When the engine does not tell.
pub(in crate::provider) async fn subnets(
    engine: &Engine,
    network: &str,
) -> anyhow::Result<Vec<IpNet>> {
    let format = match engine.name() {
        "podman" => "{{range .Subnets}}{{.Subnet}} {{end}}",
        _ => "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
    };
    let arguments = ["network", "inspect", "--format", format, network];
    let told = engine.step("looking at the nodes' network", START, &arguments);
    super::parts::read(&told.run().await?)
}

/// The container, which [`remove_beside`] removes.
#[derive(Debug)]
pub(in crate::provider) struct Beside {
    engine: Engine,
    container: String,
}

fn container(cluster: &str) -> String {
    format!("{cluster}-outside")
}

impl Beside {
    /// Starts the container beside a cluster's nodes.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub(in crate::provider) async fn start(
        engine: &Engine,
        (cluster, network): (&str, &str),
        archive: &Path,
    ) -> anyhow::Result<Self> {
        let load = engine.step("loading the probe's image", START, &["load", "--input"]);
        load.argument(archive).run().await?;
        let container = container(cluster);
        let image = strata_probe::image::REFERENCE;
        let arguments = [
            "run",
            "--detach",
            "--rm",
            "--network",
            network,
            "--name",
            &container,
            image,
            "serve",
        ];
        let run = engine.step("starting the vantage outside", START, &arguments);
        run.run()
            .await
            .context("there is no vantage outside the cluster")?;
        Ok(Self {
            engine: engine.clone(),
            container,
        })
    }
}

#[async_trait]
impl Outside for Beside {
    async fn run(&self, command: &[String], stdin: &[u8]) -> anyhow::Result<Output> {
        let mut step = self.engine.step(
            "running the probe outside",
            RUN,
            &["exec", "--interactive", &self.container],
        );
        for word in command {
            step = step.argument(word);
        }
        step.input(stdin).output().await
    }
}

/// Removes a cluster's container, if there is one, and the image, if nobody else has one of it.
pub(in crate::provider) async fn remove_beside(
    engine: &Engine,
    cluster: &str,
) -> anyhow::Result<()> {
    let container = container(cluster);
    let there = [
        "ps",
        "--all",
        "--quiet",
        "--filter",
        &format!("name=^/?{container}$"),
    ];
    let there = engine.step("looking for the vantage outside", START, &there);
    if !there.run().await?.trim().is_empty() {
        let arguments = ["rm", "--force", &container];
        engine
            .step("removing the vantage outside", START, &arguments)
            .run()
            .await?;
    }
    let image = ["rmi", strata_probe::image::REFERENCE];
    // Refused as long as another run's container is of it, and where there is none.
    let _ = engine
        .step("removing the probe's image", START, &image)
        .output()
        .await?;
    Ok(())
}
