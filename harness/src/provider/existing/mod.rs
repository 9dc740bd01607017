//! A cluster that somebody already has, by the name of a kubeconfig context.
//!
//! Start from [`Existing`]. It looks before it touches ([`look`]), tells what it would do
//! ([`preflight`]), asks for every right beforehand ([`rights`]), and does nothing unless the context is
//! named twice ([`context`]). Rule: it makes namespaces of its own and what is in them; what belongs to
//! the whole cluster is used as it is found, and what is not there is skipped.
//!
//! ```text
//! preflight: context ─► rights ─► look ─► told ─► allowed?
//! create:    claim ─► first namespace ─► Cluster          destroy: by the run's label
//! ```

mod context;
mod look;
mod namespaces;
mod preflight;
mod rights;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::context::Chosen;
use self::look::{Choice, Found, Sight};
use super::claim::{self, Claim};
use super::registry::{self, Target};
use super::this_machine::{self, ThisMachine};
use super::{Cluster, Outside, Planned, PrivateFile, Progress, Provider, image, serving};
use crate::apply::{Definitions, Fit, ProbeImage};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;
use crate::verdict::NoVerdict;

/// How long looking may take: an address that nobody is at says nothing, for ever.
const LOOK: Duration = Duration::from_secs(60);
/// How long all may take to go: beyond what namespaces may.
const REMOVE: Duration = Duration::from_secs(260);
/// When nodes may be told to pull an image.
const PULL_POLICIES: &[&str] = &["IfNotPresent", "Always", "Never"];

/// Judges a cluster that it neither makes nor takes away.
pub(super) struct Existing {
    chosen: Chosen,
    choice: Choice,
    probe: ProbeImage,
    /// Where the run pushes that image to.
    registry: Option<Target>,
    state: Option<PathBuf>,
    /// What [`Provider::preflight`] saw, or why it saw nothing.
    looked: Mutex<Option<anyhow::Result<Looked>>>,
    made: Mutex<Option<Made>>,
}

/// A cluster that was looked at.
struct Looked {
    client: kube::Client,
    sight: Sight,
    found: Found,
}

/// What there is to remove.
struct Made {
    client: kube::Client,
    run: String,
    claim: Claim,
    /// For programs of the user's, as long as this process runs.
    _kubeconfig: PrivateFile,
}

/// What came of looking.
enum Answer {
    Looked(Box<Looked>),
    /// The rights that are missing, in words.
    Lacking(String),
}

impl Existing {
    /// The cluster that the settings name. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When they name none, or one that there is not, or something that is not to be had there.
    pub(super) fn new(settings: &Settings) -> Result<Self, BadInput> {
        for (name, value) in [
            ("STRATA_CNI", &settings.cni),
            ("STRATA_IP_FAMILY", &settings.ip_family),
        ] {
            if let Some(value) = value {
                return Err(BadInput(format!(
                    "{name}={value} asks for what an existing cluster has already, or has not; unset it"
                )));
            }
        }
        serving::refused(
            settings,
            &[Layer::Ingress, Layer::Gateway],
            "an existing cluster is judged with its own; STRATA_INGRESS_CLASS and STRATA_GATEWAY_CLASS choose among them",
        )?;
        let registry = Target::of(settings)?;
        Ok(Self {
            chosen: Chosen::by(settings, context::read)?,
            choice: choice(settings)?,
            probe: probe(settings, registry.as_ref())?,
            registry,
            state: claim::folder("existing"),
            looked: Mutex::default(),
            made: Mutex::default(),
        })
    }

    /// Asks for rights, and then looks.
    async fn look(&self, planned: &Planned<'_>) -> anyhow::Result<Answer> {
        let client = super::client_of(self.chosen.kubeconfig.clone()).await?;
        let layers: BTreeSet<_> = planned
            .run
            .manifests
            .layers()
            .map(|(layer, _)| layer)
            .collect();
        let groups = client.list_api_groups().await;
        let groups = groups.context("cannot ask which API groups are served")?;
        let served = groups.groups.into_iter().map(|group| group.name).collect();
        let missing = rights::missing(&client, &rights::needed(&layers, &served)).await?;
        if !missing.is_empty() {
            return Ok(Answer::Lacking(rights::named(&missing)));
        }
        let sight = look::look(&client, &layers, &self.choice).await?;
        let found = sight.judged(&self.choice);
        Ok(Answer::Looked(Box::new(Looked {
            client,
            sight,
            found,
        })))
    }

    /// The sentence of who may not begin.
    fn refusal(&self, looked: &anyhow::Result<Looked>) -> BadInput {
        let name = &self.chosen.name;
        BadInput(match looked {
            Ok(_) => format!(
                "nothing was made in context {name}: STRATA_ALLOW={name} allows what is told above"
            ),
            Err(error) => format!(
                "nothing was made in context {name}, which could not be looked at ({}); \
                 STRATA_ALLOW={name} would allow a run",
                because(error)
            ),
        })
    }

    async fn cluster(
        &self,
        looked: Looked,
        made: &mut Option<Made>,
        run: &RunInfo,
    ) -> anyhow::Result<Cluster> {
        let state = claim::noted(self.state.as_deref(), "namespaces")?;
        let Looked {
            client,
            sight,
            found,
        } = looked;
        let kubeconfig = serde_json::to_vec(&self.chosen.kubeconfig)?;
        let kubeconfig = PrivateFile::new("kubeconfig", &kubeconfig)?;
        let path = kubeconfig.path();
        let made = made.insert(Made {
            client: client.clone(),
            run: run.id.clone(),
            claim: Claim::new(state, &run.id, self.about())?,
            _kubeconfig: kubeconfig,
        });
        let fit = Fit {
            probe: self.probe.clone(),
            ingress_class: found.ingress_class,
            gateway_class: found.gateway_class,
            definitions: Definitions::Theirs,
        };
        let node_network = namespaces::open(&made.client, &fit, &run.id).await?;
        let outside: Option<Arc<dyn Outside>> = match found.outside {
            Ok(()) => Some(Arc::new(ThisMachine::new()?)),
            Err(_) => None,
        };
        Ok(Cluster {
            client,
            kubeconfig: path,
            provider: self.name(),
            outside,
            load_balancer: sight.balancer(),
            versions: BTreeMap::from([("kubernetes".to_owned(), sight.version)]),
            ingress: None,
            gateway: None,
            istio: None,
            ours: false,
            layers: found.layers,
            fit,
            node_network,
            pid_annotation: None,
            nsenter: Vec::new(),
        })
    }

    /// What `scripts/sweep` needs to know to remove what a run left: the context, and the kubeconfig
    /// that it is in.
    fn about(&self) -> String {
        let files = std::env::join_paths(context::files()).unwrap_or_default();
        let files = files.to_string_lossy();
        format!("context {}\nkubeconfig {files}\n", self.chosen.name)
    }
}

#[async_trait(?Send)]
impl Provider for Existing {
    fn name(&self) -> &'static str {
        "existing"
    }

    async fn preflight(&self, planned: &Planned<'_>, tell: Progress<'_>) -> Result<(), BadInput> {
        let looked = tokio::time::timeout(LOOK, self.look(planned)).await;
        let looked = looked.unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "{} did not answer within {} s",
                self.chosen.server(),
                LOOK.as_secs()
            ))
        });
        let looked = match looked {
            Ok(Answer::Lacking(rights)) => {
                return Err(BadInput(format!(
                    "nothing was made in context {}: its user may not {rights}; \
                     manifests/existing/role.yaml has all that is needed",
                    self.chosen.name
                )));
            }
            Ok(Answer::Looked(looked)) => Ok(*looked),
            Err(error) => Err(error),
        };
        if let Ok(seen) = &looked {
            preflight::told(&self.chosen, planned, &self.probe, &seen.sight, &seen.found)
                .iter()
                .for_each(|line| tell(line));
            if let Some(registry) = &self.registry {
                image::runs_on(&seen.sight.nodes).map_err(|why| BadInput(format!("{why:#}")))?;
                tell(&format!(
                    "the run would push that image to {} first, where it stays",
                    registry.shown()
                ));
            }
        }
        if !self.chosen.allowed {
            return Err(self.refusal(&looked));
        }
        // A cluster that does not answer is no bad input: that it did not come up is said by the run.
        *self.looked.lock().await = Some(looked);
        Ok(())
    }

    async fn create(&self, run: &RunInfo, progress: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        let looked = self.looked.lock().await.take();
        let looked =
            looked.context("the cluster was not looked at, which is a defect of strata")??;
        if let Some(registry) = &self.registry {
            registry::push(&image::image()?, registry, progress).await?;
        }
        progress("opening a namespace");
        let mut made = self.made.lock().await;
        Ok(Arc::new(self.cluster(looked, &mut made, run).await?))
    }

    async fn keep(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let (run, context) = (&made.run, &self.chosen.name);
        let mut lines = vec![
            format!("the namespaces of run {run} stay in context {context}, as STRATA_KEEP=1 asks"),
            format!("see them: kubectl --context {context} get namespaces -l strata.dev/run={run}"),
            format!("remove them: scripts/sweep {run}"),
        ];
        if let Err(error) = made.claim.keep() {
            lines.push(format!("the next sweep will remove them: {error:#}"));
        }
        lines
    }

    async fn destroy(&self) -> Vec<String> {
        let Some(made) = self.made.lock().await.take() else {
            return Vec::new();
        };
        let run = &made.run;
        let gone = namespaces::remove(&made.client, run).await;
        let gone = gone.with_context(|| {
            format!("something of run {run} may be left; scripts/sweep {run} removes it")
        });
        let gone = gone.and_then(|()| made.claim.drop_it());
        gone.err().iter().map(because).collect()
    }

    fn patience(&self) -> Duration {
        REMOVE
    }
}

fn because(error: &anyhow::Error) -> String {
    // As everywhere: with the API's own sentence, and no cause said twice.
    NoVerdict::of_chain(error).because().to_owned()
}

fn choice(settings: &Settings) -> Result<Choice, BadInput> {
    let outside = match settings.outside.as_deref() {
        None => None,
        Some("local") => {
            this_machine::runs_the_probe().map_err(|why| {
                BadInput(format!(
                    "STRATA_OUTSIDE=local is not to be had here: {why}; set it to none"
                ))
            })?;
            Some(true)
        }
        Some("none") => Some(false),
        Some(other) => {
            return Err(BadInput(format!(
                "STRATA_OUTSIDE={other} is no vantage; choose local, which is this machine, or none"
            )));
        }
    };
    Ok(Choice {
        ingress_class: settings.ingress_class.clone(),
        gateway_class: settings.gateway_class.clone(),
        outside,
    })
}

fn probe(settings: &Settings, registry: Option<&Target>) -> Result<ProbeImage, BadInput> {
    let mut probe = ProbeImage::default();
    match (&settings.probe_image, registry) {
        (Some(_), Some(_)) => {
            return Err(BadInput(
                "STRATA_PROBE_IMAGE says that the probe's image is in a registry, and STRATA_REGISTRY that it \
                 is to be pushed to one; set one of them"
                    .to_owned(),
            ));
        }
        (Some(image), None) => probe.reference.clone_from(image),
        (None, Some(registry)) => {
            let pushed = image::image()
                .map_err(anyhow::Error::from)
                .and_then(|image| registry::reference(&image, registry));
            probe.reference = pushed.map_err(|error| {
                BadInput(format!("the embedded probe makes no image: {error:#}"))
            })?;
        }
        (None, None) => {}
    }
    if let Some(policy) = &settings.probe_pull {
        if !PULL_POLICIES.contains(&policy.as_str()) {
            return Err(BadInput(format!(
                "STRATA_PROBE_PULL={policy} is no pull policy; choose one of {}",
                PULL_POLICIES.join(", ")
            )));
        }
        probe.pull_policy.clone_from(policy);
    }
    Ok(probe)
}
