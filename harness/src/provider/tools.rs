//! Programs that are not ours: where they are, and whether they are new enough.
//!
//! Start from [`nft`] and [`envoy`]. Each is taken from its variable, else from PATH, else from
//! where systems put it that ordinary users do not search. Rule: what is wrong is one sentence with
//! the remedy, before anything is started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use regex::Regex;
use semver::Version;

use crate::settings::workspace;

/// A program that was found and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// No program takes longer to tell its version.
const ASK: Duration = Duration::from_secs(20);
/// What installs the lab's programs.
const SETUP: &str = "run scripts/setup";

struct Wanted {
    name: &'static str,
    variable: &'static str,
    purpose: &'static str,
    /// How it is got, up to its variable.
    remedy: &'static str,
    arguments: &'static [&'static str],
    /// How its version is printed.
    pattern: &'static str,
    minimum: Version,
}

/// Finds `nft`, which programs the nodes' Service rules.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn nft(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "nft",
        variable: "STRATA_NFT",
        purpose: "programs Services in the lab",
        remedy: SETUP,
        arguments: &["--version"],
        pattern: r"v(\d+)\.(\d+)(?:\.(\d+))?",
        minimum: Version::new(1, 0, 2),
    };
    find(&wanted, given, ["/usr/sbin/nft".into(), "/sbin/nft".into()]).await
}

/// Finds `envoy`, which serves Ingress, mesh and Gateway.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn envoy(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "envoy",
        variable: "STRATA_ENVOY",
        purpose: "serves Ingress, mesh and Gateway in the lab",
        remedy: SETUP,
        arguments: &["--version"],
        pattern: r"/(\d+)\.(\d+)\.(\d+)[^/]*/",
        minimum: Version::new(1, 30, 0),
    };
    find(&wanted, given, [workspace().join(".tools/envoy")]).await
}

/// Finds `traefik`, which serves Ingress or Gateway in a lab where it is asked for.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn traefik(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "traefik",
        variable: "STRATA_TRAEFIK",
        purpose: "serves Ingress or Gateway in the lab where it is asked for",
        remedy: "run scripts/fetch-traefik",
        arguments: &["version"],
        pattern: r"(?m)^Version: +(\d+)\.(\d+)\.(\d+)",
        // Watches EndpointSlices, and says which features of the Gateway API it has.
        minimum: Version::new(3, 3, 0),
    };
    find(&wanted, given, [workspace().join(".tools/traefik")]).await
}

/// Finds `kind`, which makes clusters of containers.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn kind(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "kind",
        variable: "STRATA_KIND",
        purpose: "makes the clusters of STRATA_PROVIDER=kind",
        remedy: "install it (kind.sigs.k8s.io)",
        arguments: &["version"],
        pattern: r"kind v(\d+)\.(\d+)\.(\d+)",
        // Loads archives into every node, and takes --retain with --wait.
        minimum: Version::new(0, 20, 0),
    };
    find(&wanted, given, []).await
}

/// Finds `cilium`, which installs Cilium.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn cilium(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "cilium",
        variable: "STRATA_CILIUM",
        purpose: "installs the CNI plugin of that name",
        remedy: "install it (docs.cilium.io, \"Install the Cilium CLI\")",
        // Of itself alone: the cluster is not asked.
        arguments: &["version", "--client"],
        pattern: r"cilium-cli: v(\d+)\.(\d+)\.(\d+)",
        // Installs by Helm charts of its own without being told to.
        minimum: Version::new(0, 15, 0),
    };
    find(&wanted, given, []).await
}

/// Finds `minikube`, which makes clusters of containers or of virtual machines.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn minikube(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "minikube",
        variable: "STRATA_MINIKUBE",
        purpose: "makes the clusters of STRATA_PROVIDER=minikube",
        remedy: "install it (minikube.sigs.k8s.io/docs/start)",
        arguments: &["version"],
        pattern: r"minikube version: v(\d+)\.(\d+)\.(\d+)",
        // Loads archives into every node, and tells its errors by name in JSON.
        minimum: Version::new(1, 30, 0),
    };
    find(&wanted, given, []).await
}

/// Finds `istioctl`, which installs Istio.
///
/// # Errors
/// When it is absent, too old or cannot be run.
pub async fn istioctl(given: Option<&Path>) -> anyhow::Result<Tool> {
    let wanted = Wanted {
        name: "istioctl",
        variable: "STRATA_ISTIOCTL",
        purpose: "installs the mesh",
        remedy: "get it from a release of Istio (istio.io/latest/docs/setup/getting-started)",
        // Of itself alone: the cluster is not asked.
        arguments: &["version", "--remote=false"],
        pattern: r"(?m)^(?:client version: )?(\d+)\.(\d+)\.(\d+)",
        // Has the ambient profile, and uninstall without x.
        minimum: Version::new(1, 18, 0),
    };
    find(&wanted, given, []).await
}

async fn find(
    wanted: &Wanted,
    given: Option<&Path>,
    places: impl IntoIterator<Item = PathBuf>,
) -> anyhow::Result<Tool> {
    let Wanted {
        name,
        variable,
        purpose,
        remedy,
        ..
    } = wanted;
    let path = match given {
        Some(path) if path.is_file() => path.to_owned(),
        Some(path) => bail!(
            "{variable} names {}, which is not a file; give the path of {name}, or unset it and \
             {remedy}",
            path.display()
        ),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut all = on_path(Path::new(name), &path).chain(places);
            all.find(|path| path.is_file()).with_context(|| {
                format!("{name}, which {purpose}, is not installed; {remedy}, or set {variable}")
            })?
        }
    };
    let version = version(wanted, &path).await?;
    if version < wanted.minimum {
        bail!(
            "{} is {name} {version}, and strata needs {} or newer; {remedy}, or set {variable} to a \
             newer one",
            path.display(),
            wanted.minimum
        );
    }
    Ok(Tool { path, version })
}

/// Where a program of a bare name may be, by a search path.
pub fn on_path<'a>(name: &'a Path, path: &'a OsStr) -> impl Iterator<Item = PathBuf> + 'a {
    std::env::split_paths(path).map(move |dir| dir.join(name))
}

async fn version(wanted: &Wanted, path: &Path) -> anyhow::Result<Version> {
    let Wanted {
        name,
        variable,
        remedy,
        ..
    } = wanted;
    let remedy = format!("{remedy}, or set {variable} to a {name} that runs");
    let output = tokio::process::Command::new(path)
        .args(wanted.arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ASK, output)
        .await
        .with_context(|| {
            format!(
                "{} did not tell its version within {} s; {remedy}",
                path.display(),
                ASK.as_secs()
            )
        })?
        .with_context(|| format!("{} cannot be run; {remedy}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(wanted.pattern, &text).with_context(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = text
            .lines()
            .chain(stderr.lines())
            .find(|line| !line.trim().is_empty());
        format!(
            "{} does not say that it is {name} ({}); {remedy}",
            path.display(),
            said.unwrap_or("it says nothing")
        )
    })
}

fn parse(pattern: &str, text: &str) -> Option<Version> {
    let captures = Regex::new(pattern).ok()?.captures(text)?;
    let number = |index| {
        captures
            .get(index)
            .map_or(Some(0), |m| m.as_str().parse().ok())
    };
    Some(Version::new(number(1)?, number(2)?, number(3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(dir: &Path, name: &str, says: &str) -> PathBuf {
        let path = dir.join(name);
        crate::script::write(&path, &format!("echo '{says}'"));
        path
    }

    #[tokio::test]
    async fn versions_are_read_as_the_tools_print_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake(dir.path(), "nft", "nftables v1.0.6 (Lester Gooch #5)");
        assert_eq!(
            nft(Some(&path)).await.unwrap().version,
            Version::new(1, 0, 6)
        );
        let says = "envoy  version: 0e7b1a8/1.40.0/Clean/RELEASE/BoringSSL";
        let path = fake(dir.path(), "envoy", says);
        assert_eq!(
            envoy(Some(&path)).await.unwrap().version,
            Version::new(1, 40, 0)
        );
    }

    #[tokio::test]
    async fn what_is_wrong_comes_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let said = |error: anyhow::Error| format!("{error:#}");
        let old = fake(dir.path(), "old", "nftables v0.9.8 (E.D.S.)");
        let error = said(nft(Some(&old)).await.unwrap_err());
        assert!(
            error.contains("is nft 0.9.8, and strata needs 1.0.2 or newer"),
            "{error}"
        );
        let other = fake(dir.path(), "other", "hello");
        let error = said(envoy(Some(&other)).await.unwrap_err());
        assert!(
            error.contains("does not say that it is envoy (hello)"),
            "{error}"
        );
        assert!(
            error.contains("run scripts/setup, or set STRATA_ENVOY"),
            "{error}"
        );
        let error = said(nft(Some(&dir.path().join("absent"))).await.unwrap_err());
        assert!(error.contains("which is not a file"), "{error}");
    }
}
