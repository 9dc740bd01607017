//! The matrix: which clusters there are to run on, and what cannot be together.
//!
//! Start from [`Matrix::read`]; what it returns has been checked: every name that a cell uses is there, and
//! no cell has in it what clashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use semver::{Version, VersionReq};
use serde::Deserialize;

/// `ci/versions.yaml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Matrix {
    /// How long a cell may take.
    pub(crate) limit_minutes: u64,
    #[serde(default)]
    kubernetes: BTreeMap<Version, NodeImage>,
    #[serde(default)]
    parts: BTreeMap<String, Part>,
    #[serde(default)]
    clashes: Vec<Clash>,
    /// In the order in which they run.
    pub(crate) cells: Vec<Cell>,
}

/// A version of Kubernetes on kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeImage {
    /// With its digest.
    image: String,
    /// The kind release that it is the default of.
    kind: Version,
}

/// What may be installed in a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    layer: String,
    /// What settings call it, where that is not its name here.
    #[serde(default)]
    called: Option<String>,
    #[serde(default)]
    version: Option<String>,
    /// The versions that its project lists.
    #[serde(default)]
    kubernetes: Option<VersionReq>,
}

/// Parts that cannot be in one cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clash {
    parts: BTreeSet<String>,
    why: String,
}

/// One cluster, and what runs in it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cell {
    /// The name of its folder, too.
    pub(crate) name: String,
    /// `STRATA_PROVIDER`.
    pub(crate) provider: String,
    /// Its version of Kubernetes, on kind.
    #[serde(default)]
    pub(crate) kubernetes: Option<Version>,
    /// What is installed in it.
    #[serde(default)]
    pub(crate) parts: BTreeSet<String>,
    /// The CNI plugin of the lab: `STRATA_CNI`.
    #[serde(default)]
    cni: Option<String>,
    /// `STRATA_IP_FAMILY`.
    #[serde(default)]
    ip_family: Option<String>,
    /// Which checks, as a filter on the command line; all of them otherwise.
    #[serde(default)]
    pub(crate) filter: Option<String>,
    /// Why this version cannot run it; it is listed, and not run.
    #[serde(default)]
    pub(crate) not_yet: Option<String>,
}

impl Matrix {
    /// Reads and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong with the file, by cell or part.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the matrix {}", path.display()))?;
        Self::of(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    fn of(text: &str) -> anyhow::Result<Self> {
        let matrix: Self = serde_yaml::from_str(text)?;
        let mut names = BTreeSet::new();
        for cell in &matrix.cells {
            ensure!(
                names.insert(&cell.name),
                "two cells are called {}; give each a name of its own",
                cell.name
            );
            matrix
                .check(cell)
                .with_context(|| format!("cell {}", cell.name))?;
        }
        Ok(matrix)
    }

    fn check(&self, cell: &Cell) -> anyhow::Result<()> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        ensure!(
            cell.name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && cell.name.chars().all(allowed),
            "its name becomes a folder's: write lower-case letters, digits, - and ."
        );
        let mut by_layer = BTreeMap::new();
        for name in &cell.parts {
            let Some(part) = self.parts.get(name) else {
                bail!("{name} is not among the parts; add it there, with its layer and version");
            };
            if let Some(other) = by_layer.insert(&part.layer, name) {
                bail!(
                    "{other} and {name} are both of layer {}; choose one",
                    part.layer
                );
            }
            if let (Some(range), Some(kubernetes)) = (&part.kubernetes, &cell.kubernetes) {
                ensure!(
                    range.matches(kubernetes),
                    "{name} is for Kubernetes {range}, and not {kubernetes}"
                );
            }
        }
        for clash in &self.clashes {
            if let Some(unknown) = clash
                .parts
                .iter()
                .find(|name| !self.parts.contains_key(*name))
            {
                bail!("{unknown} clashes, and is not among the parts");
            }
            if clash.parts.is_subset(&cell.parts) {
                let names: Vec<_> = clash.parts.iter().map(String::as_str).collect();
                bail!("{} cannot be together: {}", names.join(" and "), clash.why);
            }
        }
        match (&cell.kubernetes, cell.provider.as_str()) {
            (None, "kind") => bail!("a cell on kind needs a version of Kubernetes"),
            (Some(version), _) if !self.kubernetes.contains_key(version) => {
                bail!(
                    "Kubernetes {version} has no node image; add it under kubernetes, by its digest"
                )
            }
            _ => Ok(()),
        }
    }

    /// What the environment says of a cell, for its run.
    pub(crate) fn environment(&self, cell: &Cell) -> BTreeMap<&'static str, String> {
        let image = cell
            .kubernetes
            .as_ref()
            .and_then(|version| self.kubernetes.get(version));
        let of_layer = |layer: &str| {
            let mut parts = cell
                .parts
                .iter()
                .filter_map(|name| Some((name, self.parts.get(name)?)));
            let (name, part) = parts.find(|(_, part)| part.layer == layer)?;
            Some(part.called.as_ref().unwrap_or(name).clone())
        };
        let said = [
            ("STRATA_PROVIDER", Some(cell.provider.clone())),
            ("STRATA_CNI", cell.cni.clone().or_else(|| of_layer("cni"))),
            ("STRATA_INGRESS", of_layer("ingress")),
            ("STRATA_GATEWAY", of_layer("gateway")),
            ("STRATA_IP_FAMILY", cell.ip_family.clone()),
            ("STRATA_NODE_IMAGE", image.map(|node| node.image.clone())),
        ];
        said.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// What a cell is of, for people: `Kubernetes 1.34.0, kind 0.30.0, calico v3.31.7`.
    pub(crate) fn described(&self, cell: &Cell) -> String {
        let mut words = Vec::new();
        if let Some(version) = &cell.kubernetes {
            words.push(format!("Kubernetes {version}"));
            words.extend(
                self.kubernetes
                    .get(version)
                    .map(|node| format!("kind {}", node.kind)),
            );
        }
        words.extend(cell.cni.clone());
        words.extend(cell.parts.iter().map(|name| {
            let version = self.parts.get(name).and_then(|part| part.version.as_ref());
            version.map_or_else(|| name.clone(), |version| format!("{name} {version}"))
        }));
        words.extend(cell.ip_family.clone());
        words.join(", ")
    }

    /// The cells that are named, in the matrix's order; all of them where none is.
    ///
    /// # Errors
    /// When there is none of a name.
    pub(crate) fn chosen(&self, names: &[String]) -> anyhow::Result<Vec<&Cell>> {
        for name in names {
            if !self.cells.iter().any(|cell| cell.name == *name) {
                let all: Vec<_> = self.cells.iter().map(|cell| cell.name.as_str()).collect();
                bail!("there is no cell {name}; choose of {}", all.join(", "));
            }
        }
        let wanted = |cell: &&Cell| names.is_empty() || names.contains(&cell.name);
        Ok(self.cells.iter().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "
limitMinutes: 1
kubernetes: { 1.34.0: { image: 'node@sha256:1', kind: 0.30.0 }, 1.36.1: { image: 'node@sha256:2', kind: 0.32.0 } }
parts:
  kindnet: { layer: cni }
  calico: { layer: cni, version: v3 }
  contour: { layer: ingress, version: v1, kubernetes: '>=1.32, <1.35' }
  other: { layer: gateway, called: another }
clashes: [{ parts: [contour, other], why: both want port 80 }]
cells:
";

    fn matrix(cells: &str) -> anyhow::Result<Matrix> {
        Matrix::of(&format!("{HEAD}{cells}"))
    }

    #[test]
    fn the_matrix_in_the_tree_can_be_used() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("versions.yaml");
        let matrix = Matrix::read(&path).unwrap();
        for minor in 32..=36 {
            let has = |cell: &Cell| cell.kubernetes.as_ref().is_some_and(|it| it.minor == minor);
            assert!(
                matrix.cells.iter().any(has),
                "no cell of Kubernetes 1.{minor}"
            );
        }
        let by_digest = |node: &NodeImage| node.image.contains("@sha256:");
        assert!(matrix.kubernetes.values().all(by_digest));
    }

    #[test]
    fn a_cell_says_what_its_run_is_told() {
        let matrix = matrix(
            "
  - { name: a, provider: lab, cni: calico, parts: [other] }
  - { name: b, provider: kind, kubernetes: 1.34.0, parts: [kindnet, contour], ipFamily: dual }
",
        )
        .unwrap();
        let said = |at: usize| {
            let pairs = matrix.environment(&matrix.cells[at]).into_iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            said(0),
            "STRATA_CNI=calico STRATA_GATEWAY=another STRATA_PROVIDER=lab"
        );
        assert_eq!(
            said(1),
            "STRATA_CNI=kindnet STRATA_INGRESS=contour STRATA_IP_FAMILY=dual STRATA_NODE_IMAGE=node@sha256:1 \
             STRATA_PROVIDER=kind"
        );
        let described = matrix.described(&matrix.cells[1]);
        assert_eq!(
            described,
            "Kubernetes 1.34.0, kind 0.30.0, contour v1, kindnet, dual"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        for (cells, said) in [
            (
                "  - { name: a, provider: lab }\n  - { name: a, provider: lab }",
                "two cells are called a",
            ),
            (
                "  - { name: a/b, provider: lab }",
                "its name becomes a folder's",
            ),
            (
                "  - { name: a, provider: kind }",
                "needs a version of Kubernetes",
            ),
            (
                "  - { name: a, provider: kind, kubernetes: 1.30.0 }",
                "has no node image",
            ),
            (
                "  - { name: a, provider: lab, parts: [nginx] }",
                "nginx is not among the parts",
            ),
            (
                "  - { name: a, provider: lab, parts: [calico, kindnet] }",
                "both of layer cni",
            ),
            (
                "  - { name: a, provider: kind, kubernetes: 1.36.1, parts: [contour] }",
                "contour is for Kubernetes >=1.32, <1.35, and not 1.36.1",
            ),
            (
                "  - { name: a, provider: kind, kubernetes: 1.34.0, parts: [contour, other] }",
                "contour and other cannot be together: both want port 80",
            ),
            ("  - { name: a, provder: lab }", "provder"),
        ] {
            let error = matrix(cells).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{cells}: {error:#}");
        }
    }

    #[test]
    fn cells_are_chosen_by_name() {
        let matrix =
            matrix("  - { name: a, provider: lab }\n  - { name: b, provider: lab }").unwrap();
        let names = |chosen: &[&str]| {
            let chosen: Vec<_> = chosen.iter().map(|name| (*name).to_owned()).collect();
            let cells = matrix.chosen(&chosen);
            cells.map(|cells| {
                cells
                    .iter()
                    .map(|cell| cell.name.clone())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        let error = names(&["c"]).unwrap_err().to_string();
        assert_eq!(error, "there is no cell c; choose of a, b");
    }
}
