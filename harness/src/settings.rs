//! What the environment may say: one table of variables, read once.
//!
//! Start from [`Settings::from_env`]. Arguments are libtest's and are read in `runner`. Rule: a
//! variable beginning `STRATA_` that is not in the table is refused, since a misspelt one that is
//! silently ignored costs an afternoon.

mod variables;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

pub use self::variables::{VARIABLES, Variable};
use crate::stack::Layer;

/// How many random requests a check sends unless it is said otherwise.
const RANDOM_CASES: usize = 1000;
/// So many end well within a check's deadline.
const MOST_RANDOM_CASES: usize = 20_000;

/// More say nothing that three do not, and each is a machine or a container.
const MOST_NODES: usize = 5;

/// Nodes of which nothing is heard for longer are soon taken for dead.
const MOST_WATCH_LAG_MS: usize = 10_000;

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STRATA_PROVIDER`.
    pub provider: String,
    /// `STRATA_CNI`; whether there is one of that name is for the provider to say.
    pub cni: Option<String>,
    /// `STRATA_IP_FAMILY`; as for the CNI.
    pub ip_family: Option<String>,
    /// `STRATA_NODE_IMAGE`.
    pub node_image: Option<String>,
    /// `STRATA_NODES`.
    pub nodes: Option<usize>,
    /// `STRATA_KUBERNETES_VERSION`.
    pub kubernetes_version: Option<String>,
    /// `STRATA_K3S_BUNDLED`.
    pub k3s_bundled: bool,
    /// `STRATA_CONTEXT`; as for the CNI, and so the next ones.
    pub context: Option<String>,
    /// `STRATA_ALLOW`.
    pub allow: Option<String>,
    /// `STRATA_PROBE_IMAGE`.
    pub probe_image: Option<String>,
    /// `STRATA_PROBE_PULL`.
    pub probe_pull: Option<String>,
    /// `STRATA_OUTSIDE`.
    pub outside: Option<String>,
    /// `STRATA_INGRESS_CLASS`.
    pub ingress_class: Option<String>,
    /// `STRATA_GATEWAY_CLASS`.
    pub gateway_class: Option<String>,
    /// `STRATA_INGRESS`; as for the CNI.
    pub ingress: Option<String>,
    /// `STRATA_GATEWAY`; as for the CNI.
    pub gateway: Option<String>,
    /// `STRATA_LOAD_BALANCER`; as for the CNI.
    pub load_balancer: Option<String>,
    /// `STRATA_KEEP`.
    pub keep: bool,
    /// `STRATA_KEEP_GOING`.
    pub keep_going: bool,
    /// `STRATA_DEVIATIONS`.
    pub deviations: bool,
    /// `STRATA_SLOW`.
    pub slow: bool,
    /// `STRATA_AFTER_LAYER`.
    pub after_layer: Option<PathBuf>,
    /// `STRATA_REPORT_DIR`.
    pub report_dir: PathBuf,
    /// `STRATA_ENVOY`.
    pub envoy: Option<PathBuf>,
    /// `STRATA_TRAEFIK`.
    pub traefik: Option<PathBuf>,
    /// `STRATA_NFT`.
    pub nft: Option<PathBuf>,
    /// `STRATA_WATCH_LAG_MS`.
    pub watch_lag: Duration,
    /// `STRATA_KIND`.
    pub kind: Option<PathBuf>,
    /// `STRATA_ASSETS`; whether it is there is for [`crate::asset`] to say.
    pub assets: Option<String>,
    /// `STRATA_REGISTRY`; what it means is for [`crate::provider::registry`] to say.
    pub registry: Option<String>,
    /// `STRATA_REGISTRY_USERNAME`.
    pub registry_username: Option<String>,
    /// `STRATA_REGISTRY_PASSWORD`.
    pub registry_password: Option<Secret>,
    /// `STRATA_MINIKUBE`.
    pub minikube: Option<PathBuf>,
    /// `STRATA_CILIUM`.
    pub cilium: Option<PathBuf>,
    /// `STRATA_ISTIOCTL`.
    pub istioctl: Option<PathBuf>,
    /// `STRATA_ISTIO_PROFILE`; as for the CNI.
    pub istio_profile: Option<String>,
    /// `STRATA_SEED`.
    pub seed: Option<u64>,
    /// `STRATA_RANDOM_CASES`.
    pub random_cases: usize,
    /// `STRATA_LOG`.
    pub log: String,
}

/// What no log and no report may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Something that a person typed is wrong. The sentence names it and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadInput(pub String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

impl Settings {
    /// Reads this process' environment.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_env() -> Result<Self, BadInput> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the variables given. One with an empty value counts as not set.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BadInput> {
        let mut settings = Self {
            provider: "lab".to_owned(),
            cni: None,
            ip_family: None,
            node_image: None,
            nodes: None,
            kubernetes_version: None,
            k3s_bundled: false,
            context: None,
            allow: None,
            probe_image: None,
            probe_pull: None,
            outside: None,
            ingress_class: None,
            gateway_class: None,
            ingress: None,
            gateway: None,
            load_balancer: None,
            keep: false,
            keep_going: false,
            deviations: true,
            slow: false,
            after_layer: None,
            report_dir: workspace().join("target/strata"),
            envoy: None,
            traefik: None,
            nft: None,
            watch_lag: Duration::ZERO,
            kind: None,
            assets: None,
            registry: None,
            registry_username: None,
            registry_password: None,
            minikube: None,
            cilium: None,
            istioctl: None,
            istio_profile: None,
            seed: None,
            random_cases: RANDOM_CASES,
            log: "info,strata=debug".to_owned(),
        };
        for (name, value) in vars {
            let Some(name) = name.to_str().filter(|name| name.starts_with("STRATA_")) else {
                continue;
            };
            if !VARIABLES.iter().any(|variable| variable.name == name) {
                return Err(unknown(name));
            }
            if value.is_empty() {
                continue;
            }
            let path = PathBuf::from(&value);
            let Some(text) = value.to_str() else {
                return Err(BadInput(format!(
                    "{name} is not UTF-8; set it to plain text"
                )));
            };
            match name {
                "STRATA_PROVIDER" => text.clone_into(&mut settings.provider),
                "STRATA_CNI" => settings.cni = Some(text.to_owned()),
                "STRATA_IP_FAMILY" => settings.ip_family = Some(text.to_owned()),
                "STRATA_NODE_IMAGE" => settings.node_image = Some(text.to_owned()),
                "STRATA_NODES" => {
                    settings.nodes = Some(upto(MOST_NODES, name, text, "cannot be made")?)
                }
                "STRATA_KUBERNETES_VERSION" => settings.kubernetes_version = Some(text.to_owned()),
                "STRATA_K3S_BUNDLED" => settings.k3s_bundled = flag(name, text)?,
                "STRATA_CONTEXT" => settings.context = Some(text.to_owned()),
                "STRATA_ALLOW" => settings.allow = Some(text.to_owned()),
                "STRATA_PROBE_IMAGE" => settings.probe_image = Some(text.to_owned()),
                "STRATA_PROBE_PULL" => settings.probe_pull = Some(text.to_owned()),
                "STRATA_OUTSIDE" => settings.outside = Some(text.to_owned()),
                "STRATA_INGRESS_CLASS" => settings.ingress_class = Some(text.to_owned()),
                "STRATA_GATEWAY_CLASS" => settings.gateway_class = Some(text.to_owned()),
                "STRATA_INGRESS" => settings.ingress = Some(text.to_owned()),
                "STRATA_GATEWAY" => settings.gateway = Some(text.to_owned()),
                "STRATA_LOAD_BALANCER" => settings.load_balancer = Some(text.to_owned()),
                "STRATA_KEEP" => settings.keep = flag(name, text)?,
                "STRATA_KEEP_GOING" => settings.keep_going = flag(name, text)?,
                "STRATA_DEVIATIONS" => settings.deviations = flag(name, text)?,
                "STRATA_SLOW" => settings.slow = flag(name, text)?,
                "STRATA_AFTER_LAYER" => settings.after_layer = Some(program(path)),
                "STRATA_REPORT_DIR" => settings.report_dir = workspace().join(path),
                "STRATA_ENVOY" => settings.envoy = Some(workspace().join(path)),
                "STRATA_TRAEFIK" => settings.traefik = Some(workspace().join(path)),
                "STRATA_NFT" => settings.nft = Some(workspace().join(path)),
                "STRATA_WATCH_LAG_MS" => {
                    let ms = upto(
                        MOST_WATCH_LAG_MS,
                        name,
                        text,
                        "is no lag that a lab can have",
                    )?;
                    settings.watch_lag = Duration::from_millis(ms.try_into().unwrap_or(u64::MAX));
                }
                "STRATA_KIND" => settings.kind = Some(workspace().join(path)),
                "STRATA_ASSETS" => settings.assets = Some(text.to_owned()),
                "STRATA_REGISTRY" => settings.registry = Some(text.to_owned()),
                "STRATA_REGISTRY_USERNAME" => settings.registry_username = Some(text.to_owned()),
                "STRATA_REGISTRY_PASSWORD" => {
                    settings.registry_password = Some(Secret(text.to_owned()));
                }
                "STRATA_MINIKUBE" => settings.minikube = Some(workspace().join(path)),
                "STRATA_CILIUM" => settings.cilium = Some(workspace().join(path)),
                "STRATA_ISTIOCTL" => settings.istioctl = Some(workspace().join(path)),
                "STRATA_ISTIO_PROFILE" => settings.istio_profile = Some(text.to_owned()),
                "STRATA_SEED" => settings.seed = Some(number(name, text)?),
                // The build script's, which has read it by now.
                "STRATA_PROBE_BINARY" => {}
                "STRATA_RANDOM_CASES" => {
                    settings.random_cases = upto(MOST_RANDOM_CASES, name, text, "cannot be sent")?;
                }
                _ => {
                    EnvFilter::try_new(text).map_err(|error| {
                        BadInput(format!(
                            "{name}={text} is not a tracing filter ({error}); write for example \
                             info,strata=debug"
                        ))
                    })?;
                    text.clone_into(&mut settings.log);
                }
            }
        }
        Ok(settings)
    }

    /// Who is to serve a layer, with the variable that names them.
    #[must_use]
    pub fn servers(&self) -> [(Layer, &'static str, Option<&str>); 2] {
        [
            (Layer::Ingress, "STRATA_INGRESS", self.ingress.as_deref()),
            (Layer::Gateway, "STRATA_GATEWAY", self.gateway.as_deref()),
        ]
    }

    /// Where reports go even if another variable is wrong.
    #[must_use]
    pub fn report_dir_anyway() -> PathBuf {
        let dir = std::env::var_os("STRATA_REPORT_DIR").filter(|dir| !dir.is_empty());
        workspace().join(dir.map_or_else(|| PathBuf::from("target/strata"), PathBuf::from))
    }
}

/// The workspace's root. `cargo test` runs a test in its package's directory, so relative paths
/// that people type are taken from here instead. A program that was moved to another machine takes
/// its working directory.
#[must_use]
pub fn workspace() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    if built.join("Cargo.toml").is_file() {
        return built.to_owned();
    }
    std::env::current_dir().unwrap_or_default()
}

/// A program's bare name is looked for in PATH; anything with a slash is a path.
fn program(path: PathBuf) -> PathBuf {
    if path.components().count() > 1 {
        workspace().join(path)
    } else {
        path
    }
}

fn flag(name: &str, text: &str) -> Result<bool, BadInput> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(BadInput(format!(
            "{name}={text} is neither yes nor no; write 1 or 0"
        ))),
    }
}

fn number(name: &str, text: &str) -> Result<u64, BadInput> {
    text.parse().map_err(|_| {
        BadInput(format!(
            "{name}={text} is not a number; write one from 0 to {}",
            u64::MAX
        ))
    })
}

/// A number from 1 to `most`; `wrong` says what another one is.
fn upto(most: usize, name: &str, text: &str, wrong: &str) -> Result<usize, BadInput> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| {
        BadInput(format!(
            "{name}={text} {wrong}; write a number from 1 to {most}"
        ))
    })
}

fn unknown(name: &str) -> BadInput {
    let names = VARIABLES.iter().map(|variable| variable.name);
    BadInput(match nearest(name, names.clone()) {
        Some(near) => format!("{name} is not a variable of strata; did you mean {near}?"),
        None => {
            let all = names.collect::<Vec<_>>().join(", ");
            format!("{name} is not a variable of strata; unset it, or use one of {all}")
        }
    })
}

/// The candidate that a misspelt word was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 3.min(candidate.len() / 2))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_vars(
            vars.iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        )
        .map_err(|bad| bad.0)
    }

    #[test]
    fn defaults_hold_and_empty_means_unset() {
        let settings = settings(&[("STRATA_PROVIDER", ""), ("PATH", "/bin")]).unwrap();
        assert_eq!(settings.provider, "lab");
        assert!(!settings.keep);
        assert_eq!(settings.random_cases, 1000);
        assert!(settings.report_dir.ends_with("target/strata"));
        assert!(settings.report_dir.is_absolute());
    }

    #[test]
    fn every_variable_of_the_table_is_read() {
        for variable in VARIABLES {
            let value = if variable.name == "STRATA_LOG" {
                "info"
            } else {
                "1"
            };
            settings(&[(variable.name, value)]).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let sentence = |name, value| settings(&[(name, value)]).unwrap_err();
        assert_eq!(
            sentence("STRATA_PROVIDR", "kind"),
            "STRATA_PROVIDR is not a variable of strata; did you mean STRATA_PROVIDER?"
        );
        assert!(
            sentence("STRATA_FROBNICATE", "1").contains("use one of STRATA_PROVIDER, STRATA_CNI")
        );
        assert_eq!(
            sentence("STRATA_KEEP", "maybe"),
            "STRATA_KEEP=maybe is neither yes nor no; write 1 or 0"
        );
        assert!(sentence("STRATA_SEED", "-1").starts_with("STRATA_SEED=-1 is not a number"));
        for wrong in ["0", "20001", "many"] {
            let said = sentence("STRATA_RANDOM_CASES", wrong);
            assert!(said.ends_with("write a number from 1 to 20000"), "{said}");
        }
        assert!(sentence("STRATA_LOG", "strata=loud").contains("not a tracing filter"));
    }

    #[test]
    fn relative_paths_are_taken_from_the_workspace() {
        let settings = settings(&[
            ("STRATA_AFTER_LAYER", "ci/break"),
            ("STRATA_REPORT_DIR", "out"),
        ])
        .unwrap();
        assert_eq!(settings.after_layer, Some(workspace().join("ci/break")));
        assert_eq!(settings.report_dir, workspace().join("out"));
        assert_eq!(program("true".into()), PathBuf::from("true"));
    }
}
