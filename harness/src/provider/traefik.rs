//! Traefik in a lab: another project's Ingress controller and Gateway implementation, in place of the lab's own.
//!
//! Start from [`Traefik::by`]. The program that was found is packed as an image under the name that
//! `manifests/<layer>/traefik.yaml` has, so these manifests are the same wherever Traefik runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use strata_probe::image::Image;

use super::image::Archive;
use super::tools::{self, Tool};
use crate::apply::Variant;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;

/// What it is called in settings, in manifests and as a GatewayClass.
pub(super) const NAME: &str = "traefik";
const IMAGE: Image<'_> = Image {
    reference: "docker.io/library/traefik:v3.7.15",
    program: "/usr/local/bin/traefik",
    // As the image of the project itself, which listens at ports below 1024.
    user: "0:0",
};

/// Which layers of a lab are Traefik's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traefik {
    program: Option<PathBuf>,
    layers: Vec<Layer>,
}

impl Traefik {
    /// Reads the settings. Nothing is looked for yet.
    ///
    /// # Errors
    /// When they name who serves no layer of a lab.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        let mut layers = Vec::new();
        for (layer, variable, named) in settings.servers() {
            match named {
                None | Some("lab") => {}
                Some(NAME) => layers.push(layer),
                Some(other) => {
                    return Err(BadInput(format!(
                        "{variable}={other} serves no {layer} in a lab; choose lab or {NAME}"
                    )));
                }
            }
        }
        Ok(Self {
            program: settings.traefik.clone(),
            layers,
        })
    }

    /// Whether a layer is its.
    pub(super) fn serves(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    /// A layer's manifests: the lab's kinds, and Traefik where it is asked for.
    pub(super) fn variant(&self, layer: Layer) -> Variant {
        let lab = Variant::of("lab");
        match self.serves(layer) {
            true => Variant {
                install: NAME,
                ..lab
            },
            false => lab,
        }
    }

    /// The program, if a layer of the run is its.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub(super) async fn find(
        &self,
        planned: impl Fn(Layer) -> bool,
    ) -> anyhow::Result<Option<Tool>> {
        if !self.layers.iter().any(|layer| planned(*layer)) {
            return Ok(None);
        }
        tools::traefik(self.program.as_deref()).await.map(Some)
    }
}

/// Packs the program as the image that manifests name, into a folder.
///
/// # Errors
/// When it cannot be read, makes no image, or cannot be written.
pub(super) fn image(program: &Path, folder: &Path) -> anyhow::Result<Archive> {
    let shown = program.display();
    let binary = std::fs::read(program).with_context(|| format!("cannot read {shown}"))?;
    let archive = IMAGE.archive(&binary);
    let archive = archive.with_context(|| format!("{shown} makes no image"))?;
    Archive::of(&archive, &folder.join(".traefik-image.tar"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::workspace;

    fn by(vars: &[(&str, &str)]) -> Result<Traefik, String> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Traefik::by(&Settings::from_vars(vars).unwrap()).map_err(|bad| bad.0)
    }

    #[test]
    fn a_layer_is_traefik_s_where_it_is_asked_for() {
        let traefik = by(&[("STRATA_INGRESS", "traefik"), ("STRATA_GATEWAY", "lab")]).unwrap();
        let install = |layer| traefik.variant(layer).install;
        assert_eq!(install(Layer::Ingress), "traefik");
        assert_eq!(
            (install(Layer::Gateway), install(Layer::Cni)),
            ("lab", "lab")
        );
        let refused = by(&[("STRATA_GATEWAY", "contour")]).unwrap_err();
        assert_eq!(
            refused,
            "STRATA_GATEWAY=contour serves no gateway in a lab; choose lab or traefik"
        );
    }

    #[test]
    fn manifests_name_the_image_that_is_packed() {
        for layer in [Layer::Ingress, Layer::Gateway] {
            let path = workspace().join(format!("manifests/{layer}/{NAME}.yaml"));
            let text = std::fs::read_to_string(path).unwrap();
            assert!(
                text.contains(&format!("image: {}\n", IMAGE.reference)),
                "{layer}"
            );
        }
    }
}
