//! Everything that a run will apply, read before any cluster exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Manifest, ManifestError};
use crate::settings::BadInput;
use crate::stack::Layer;

/// Which files of a layer's folder install it. One that is not there is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Whose kinds: `<kinds>-crds.yaml`.
    pub kinds: &'static str,
    /// Whose installation: `<install>.yaml`.
    pub install: &'static str,
}

impl Variant {
    /// Both of one name.
    #[must_use]
    pub fn of(name: &'static str) -> Self {
        Self {
            kinds: name,
            install: name,
        }
    }
}

/// A layer's own manifests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerManifests {
    /// Kinds that must be served before the rest is applied.
    pub kinds: Option<Manifest>,
    /// What installs the layer.
    pub install: Option<Manifest>,
    /// `fixture.yaml`: what its gates and its checks without a manifest stand on.
    pub fixture: Manifest,
}

/// The manifests of a plan.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    layers: BTreeMap<Layer, LayerManifests>,
    checks: BTreeMap<&'static str, Manifest>,
}

impl Manifests {
    /// A layer's; nothing if it was not planned.
    #[must_use]
    pub fn layer(&self, layer: Layer) -> Option<&LayerManifests> {
        self.layers.get(&layer)
    }

    /// Those of the planned layers.
    pub fn layers(&self) -> impl Iterator<Item = (Layer, &LayerManifests)> {
        self.layers.iter().map(|(layer, of)| (*layer, of))
    }

    /// A check's, by its file's name in the row; nothing if it was not planned.
    #[must_use]
    pub fn check(&self, file: &str) -> Option<&Manifest> {
        self.checks.get(file)
    }
}

/// Reads the manifests of layers below `root`, each in the variant that suits the cluster, and the files
/// that checks name.
///
/// # Errors
/// The first that is missing or malformed, in one sentence with file and line.
pub fn load_planned(
    root: &Path,
    variant: impl Fn(Layer) -> Variant,
    layers: impl IntoIterator<Item = Layer>,
    checks: impl IntoIterator<Item = &'static str>,
) -> Result<Manifests, BadInput> {
    let folder = root
        .file_name()
        .map_or("manifests".into(), |name| name.to_string_lossy());
    let load = |file: &str| Manifest::load(&root.join(file), &format!("{folder}/{file}"));
    let own = |file: &str| load(file)?.without_namespaces(&format!("{folder}/{file}"));
    let mut manifests = Manifests::default();
    for layer in layers {
        let if_there = |name: String| {
            let file = format!("{layer}/{name}.yaml");
            root.join(&file).is_file().then(|| load(&file)).transpose()
        };
        let Variant { kinds, install } = variant(layer);
        let loaded = LayerManifests {
            kinds: if_there(format!("{kinds}-crds")).map_err(bad)?,
            install: if_there(install.to_owned()).map_err(bad)?,
            fixture: own(&format!("{layer}/fixture.yaml")).map_err(bad)?,
        };
        manifests.layers.insert(layer, loaded);
    }
    for file in checks {
        manifests.checks.insert(file, own(file).map_err(bad)?);
    }
    Ok(manifests)
}

/// Where the workspace keeps them.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    crate::settings::workspace().join(name)
}

fn bad(error: ManifestError) -> BadInput {
    BadInput(crate::verdict::NoVerdict::from(error).because().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &[&str] = &["services/web.yaml"];

    #[test]
    fn only_what_is_planned_is_read_and_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("manifests");
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let load = |files: &'static [&str]| {
            let lab = |_| Variant::of("lab");
            load_planned(&root, lab, [Layer::Services], files.iter().copied())
        };
        let said = load(&[]).unwrap_err().0;
        assert!(
            said.starts_with("manifests/services/fixture.yaml does not exist"),
            "{said}"
        );

        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
        write("services/fixture.yaml", service);
        write("ingress/fixture.yaml", "{");
        let loaded = load(&[]).unwrap();
        let layer = loaded.layer(Layer::Services).unwrap();
        assert_eq!(layer.fixture.documents.len(), 1);
        assert_eq!(layer.install, None);
        assert!(loaded.layer(Layer::Ingress).is_none());

        let said = load(WEB).unwrap_err().0;
        assert!(
            said.starts_with("manifests/services/web.yaml does not exist"),
            "{said}"
        );
        write("services/web.yaml", service);
        write("services/lab.yaml", service);
        let loaded = load(WEB).unwrap();
        assert!(loaded.check("services/web.yaml").is_some());
        assert!(loaded.layer(Layer::Services).unwrap().install.is_some());
        write("services/lab-crds.yaml", "kind: [\n");
        let said = load(WEB).unwrap_err().0;
        assert!(
            said.starts_with("manifests/services/lab-crds.yaml:"),
            "{said}"
        );
    }
}
