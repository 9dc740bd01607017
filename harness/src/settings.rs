//! What the environment may say: one table of variables, read once.
//!
//! Start from [`Settings::from_env`]. Arguments are libtest's and are read in `runner`. Rule: a
//! variable beginning `STRATA_` that is not in the table is refused, since a misspelt one that is
//! silently ignored costs an afternoon.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

/// A variable that a person may set.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What happens without it.
    pub default: &'static str,
}

/// All of them.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "STRATA_PROVIDER",
        meaning: "where the cluster comes from",
        default: "lab, the embedded cluster",
    },
    Variable {
        name: "STRATA_CNI",
        meaning: "the lab's CNI: vxlan, kindnet, flannel, calico or none; kind's: kindnet or none; \
                  minikube's: bridge, calico, cilium, flannel, kindnet, none, or the path of a manifest",
        default: "vxlan; on kind kindnet; minikube's own choice",
    },
    Variable {
        name: "STRATA_IP_FAMILY",
        meaning: "the cluster's address families: ipv4, or dual, which is both",
        default: "dual, unless this kernel has no IPv6; on kind ipv4",
    },
    Variable {
        name: "STRATA_NODE_IMAGE",
        meaning: "the image of kind's nodes, which decides Kubernetes' version",
        default: "the kind program's own",
    },
    Variable {
        name: "STRATA_NODES",
        meaning: "how many nodes minikube makes, 1 to 5",
        default: "3",
    },
    Variable {
        name: "STRATA_KUBERNETES_VERSION",
        meaning: "the version of Kubernetes that minikube starts, as its --kubernetes-version takes it",
        default: "the minikube program's own",
    },
    Variable {
        name: "STRATA_CONTEXT",
        meaning: "the kubeconfig context of the existing cluster, which is never the current one by itself",
        default: "none; STRATA_PROVIDER=existing refuses",
    },
    Variable {
        name: "STRATA_ALLOW",
        meaning: "the same context once more, by whoever allows the run to make things in it",
        default: "none; STRATA_PROVIDER=existing says what it would make, and refuses",
    },
    Variable {
        name: "STRATA_PROBE_IMAGE",
        meaning: "the probe's image in a registry that the existing cluster's nodes pull from",
        default: "strata.dev/probe:v1, loaded into the nodes beforehand",
    },
    Variable {
        name: "STRATA_PROBE_PULL",
        meaning: "when the existing cluster's nodes pull it: IfNotPresent, Always or Never",
        default: "IfNotPresent",
    },
    Variable {
        name: "STRATA_OUTSIDE",
        meaning: "the vantage outside the existing cluster: local, which is this machine, or none",
        default: "local where this machine reaches the kubelet of every node",
    },
    Variable {
        name: "STRATA_INGRESS_CLASS",
        meaning: "the existing cluster's IngressClass that is judged",
        default: "the default one, or the only one",
    },
    Variable {
        name: "STRATA_GATEWAY_CLASS",
        meaning: "the existing cluster's GatewayClass that is judged",
        default: "contour, or the only accepted one",
    },
    Variable {
        name: "STRATA_KEEP",
        meaning: "1 leaves the cluster running after the run and prints how to reach it",
        default: "0",
    },
    Variable {
        name: "STRATA_KEEP_GOING",
        meaning: "1 runs checks though a gate that they stand on has fallen",
        default: "0: they are blocked",
    },
    Variable {
        name: "STRATA_SLOW",
        meaning: "1 runs checks that take half a minute and more, too",
        default: "0: they are skipped",
    },
    Variable {
        name: "STRATA_AFTER_LAYER",
        meaning: "a program run after each layer's bring-up and before its checks; a relative path \
                  is taken from the workspace's root",
        default: "none",
    },
    Variable {
        name: "STRATA_REPORT_DIR",
        meaning: "where reports and evidence go; a relative path is taken from the workspace's root",
        default: "target/strata",
    },
    Variable {
        name: "STRATA_ENVOY",
        meaning: "the envoy program of the lab",
        default: "envoy in PATH, else .tools/envoy at the workspace's root",
    },
    Variable {
        name: "STRATA_NFT",
        meaning: "the nft program of the lab",
        default: "nft in PATH, else in /usr/sbin or /sbin",
    },
    Variable {
        name: "STRATA_KIND",
        meaning: "the kind program",
        default: "kind in PATH",
    },
    Variable {
        name: "STRATA_MINIKUBE",
        meaning: "the minikube program",
        default: "minikube in PATH",
    },
    Variable {
        name: "STRATA_ISTIOCTL",
        meaning: "the istioctl program, which installs Istio on clusters of kind and minikube",
        default: "istioctl in PATH; without it the mesh is skipped there",
    },
    Variable {
        name: "STRATA_ISTIO_PROFILE",
        meaning: "what istioctl installs: minimal or ambient",
        default: "minimal",
    },
    Variable {
        name: "STRATA_SEED",
        meaning: "a number that everything random in the checks derives from",
        default: "a new one each run; the reports name it",
    },
    Variable {
        name: "STRATA_RANDOM_CASES",
        meaning: "how many random requests each agrees_with_the_reference sends: 1 to 20000",
        default: "1000",
    },
    Variable {
        name: "STRATA_LOG",
        meaning: "what strata.log in the report directory holds, as a tracing filter",
        default: "info,strata=debug",
    },
];

/// How many random requests a check sends unless it is said otherwise.
const RANDOM_CASES: usize = 1000;
/// So many end well within a check's deadline.
const MOST_RANDOM_CASES: usize = 20_000;

/// More say nothing that three do not, and each is a machine or a container.
const MOST_NODES: usize = 5;

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
    /// `STRATA_KEEP`.
    pub keep: bool,
    /// `STRATA_KEEP_GOING`.
    pub keep_going: bool,
    /// `STRATA_SLOW`.
    pub slow: bool,
    /// `STRATA_AFTER_LAYER`.
    pub after_layer: Option<PathBuf>,
    /// `STRATA_REPORT_DIR`.
    pub report_dir: PathBuf,
    /// `STRATA_ENVOY`.
    pub envoy: Option<PathBuf>,
    /// `STRATA_NFT`.
    pub nft: Option<PathBuf>,
    /// `STRATA_KIND`.
    pub kind: Option<PathBuf>,
    /// `STRATA_MINIKUBE`.
    pub minikube: Option<PathBuf>,
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
            context: None,
            allow: None,
            probe_image: None,
            probe_pull: None,
            outside: None,
            ingress_class: None,
            gateway_class: None,
            keep: false,
            keep_going: false,
            slow: false,
            after_layer: None,
            report_dir: workspace().join("target/strata"),
            envoy: None,
            nft: None,
            kind: None,
            minikube: None,
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
                "STRATA_CONTEXT" => settings.context = Some(text.to_owned()),
                "STRATA_ALLOW" => settings.allow = Some(text.to_owned()),
                "STRATA_PROBE_IMAGE" => settings.probe_image = Some(text.to_owned()),
                "STRATA_PROBE_PULL" => settings.probe_pull = Some(text.to_owned()),
                "STRATA_OUTSIDE" => settings.outside = Some(text.to_owned()),
                "STRATA_INGRESS_CLASS" => settings.ingress_class = Some(text.to_owned()),
                "STRATA_GATEWAY_CLASS" => settings.gateway_class = Some(text.to_owned()),
                "STRATA_KEEP" => settings.keep = flag(name, text)?,
                "STRATA_KEEP_GOING" => settings.keep_going = flag(name, text)?,
                "STRATA_SLOW" => settings.slow = flag(name, text)?,
                "STRATA_AFTER_LAYER" => settings.after_layer = Some(program(path)),
                "STRATA_REPORT_DIR" => settings.report_dir = workspace().join(path),
                "STRATA_ENVOY" => settings.envoy = Some(workspace().join(path)),
                "STRATA_NFT" => settings.nft = Some(workspace().join(path)),
                "STRATA_KIND" => settings.kind = Some(workspace().join(path)),
                "STRATA_MINIKUBE" => settings.minikube = Some(workspace().join(path)),
                "STRATA_ISTIOCTL" => settings.istioctl = Some(workspace().join(path)),
                "STRATA_ISTIO_PROFILE" => settings.istio_profile = Some(text.to_owned()),
                "STRATA_SEED" => settings.seed = Some(number(name, text)?),
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
