//! The probe's image, as a provider gives it to its cluster's nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

/// The probe's binary, built by this crate's build script for the machine that runs the harness.
static BINARY: &[u8] = include_bytes!(env!("EMBEDDED_PROBE"));

/// The probe as a program of this machine.
pub(super) fn binary() -> &'static [u8] {
    BINARY
}

/// The probe's image: an archive that every container runtime loads.
///
/// # Errors
/// When the embedded binary is not one for a machine we know, which is a defect of the build.
pub fn image() -> Result<Vec<u8>, strata_probe::image::ImageError> {
    strata_probe::image::archive(BINARY)
}

/// Whether nodes run the embedded probe, as far as they tell what they are. They need not be of this machine's kind:
/// an engine can be told to run another's containers, and a cluster that was there already is wherever it is.
///
/// # Errors
/// Which one does not, and what to do.
pub(super) fn runs_on(nodes: &[Node]) -> anyhow::Result<()> {
    runs(&strata_probe::image::architecture(BINARY)?, nodes)
}

fn runs(ours: &str, nodes: &[Node]) -> anyhow::Result<()> {
    for node in nodes {
        let info = node.status.as_ref().and_then(|it| it.node_info.as_ref());
        let Some(info) = info.filter(|it| it.architecture != ours) else {
            continue;
        };
        let (name, theirs) = (node.name_any(), &info.architecture);
        bail!(
            "node {name} is {theirs}, and the probe that is embedded here runs on {ours}; build strata with \
             STRATA_PROBE_BINARY set to a probe for {theirs} (harness/probe/README.md says how to make one)"
        );
    }
    Ok(())
}

/// An image as a file, which is there as long as this is. In the report directory rather than a
/// temporary one: whoever kills this process leaves nothing elsewhere.
pub(super) struct Archive(PathBuf);

impl Archive {
    pub(super) fn write(dir: &Path) -> anyhow::Result<Self> {
        let image = image().context("the embedded probe makes no image")?;
        Self::of(&image, &dir.join(".probe-image.tar"))
    }

    /// Of another program.
    pub(super) fn of(image: &[u8], path: &Path) -> anyhow::Result<Self> {
        std::fs::write(path, image).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_of_another_kind_than_the_probe_are_named() {
        let node = |name: &str, architecture: &str| -> Node {
            let info = json!({ "architecture": architecture });
            let mut info = serde_json::from_value::<serde_json::Map<_, _>>(info).unwrap();
            for field in [
                "bootID",
                "containerRuntimeVersion",
                "kernelVersion",
                "kubeProxyVersion",
                "kubeletVersion",
                "machineID",
                "operatingSystem",
                "osImage",
                "systemUUID",
            ] {
                info.insert(field.to_owned(), json!(""));
            }
            let node = json!({ "metadata": { "name": name }, "status": { "nodeInfo": info } });
            serde_json::from_value(node).unwrap()
        };
        runs("arm64", &[node("a", "arm64"), Node::default()]).unwrap();
        let said = runs("arm64", &[node("a", "arm64"), node("b", "amd64")]).unwrap_err();
        let said = said.to_string();
        assert!(
            said.starts_with("node b is amd64, and the probe that is embedded here runs on arm64"),
            "{said}"
        );
        // This machine's own.
        runs_on(&[]).unwrap();
    }
}
