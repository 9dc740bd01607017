//! Istio's installer, as a provider hands it to the mesh layer.
//!
//! Start from [`Wanted`]. Who makes clusters of its own looks for `istioctl` beforehand, so that a mesh
//! that cannot be had is skipped with the reason. Installing is the mesh layer's work.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Layers;
use super::tools::{self, Tool};
use crate::run::RunInfo;
use crate::settings::{BadInput, Settings};
use crate::stack::Layer;

/// The profiles that the mesh suite can judge: both inject sidecars where a namespace asks for them.
const PROFILES: [&str; 2] = ["minimal", "ambient"];

/// A program that installs Istio, and which profile it is to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Istio {
    /// `istioctl`.
    pub istioctl: Tool,
    /// Istio's name of what to install.
    pub profile: &'static str,
}

/// What the settings say of it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    program: Option<PathBuf>,
    profile: &'static str,
}

impl Wanted {
    /// Reads the settings. Nothing is looked for yet.
    ///
    /// # Errors
    /// When they name a profile that there is not, or that has nothing to judge.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        let name = settings.istio_profile.as_deref().unwrap_or(PROFILES[0]);
        let profile = PROFILES.into_iter().find(|profile| *profile == name);
        Ok(Self {
            program: settings.istioctl.clone(),
            profile: profile.ok_or_else(|| {
                BadInput(format!(
                    "STRATA_ISTIO_PROFILE={name} is not a profile that this version installs; choose {}",
                    PROFILES.join(" or ")
                ))
            })?,
        })
    }

    /// The installer; or why the mesh is skipped, if the run plans one.
    ///
    /// # Errors
    /// When a person named a program that is none: that is not for skipping.
    pub(super) async fn find(&self, run: &RunInfo) -> anyhow::Result<Result<Istio, String>> {
        if run.manifests.layer(Layer::Mesh).is_none() {
            return Ok(Err("this run plans no mesh".to_owned()));
        }
        match tools::istioctl(self.program.as_deref()).await {
            Ok(istioctl) => Ok(Ok(Istio {
                istioctl,
                profile: self.profile,
            })),
            Err(error) if self.program.is_some() => Err(error),
            Err(error) => Ok(Err(format!("{error:#}"))),
        }
    }
}

/// The installer that was found, with the layers that there are then, and its version beside the others'.
pub(super) fn told(
    found: Result<Istio, String>,
    layers: Layers,
    versions: &mut BTreeMap<String, String>,
) -> (Layers, Option<Istio>) {
    match found {
        Ok(istio) => {
            versions.insert("istio".to_owned(), istio.istioctl.version.to_string());
            (layers, Some(istio))
        }
        Err(why) => (layers.without(Layer::Mesh, why), None),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::apply::{Variant, load_planned};

    fn wanted(vars: &[(&str, &Path)]) -> Result<Wanted, BadInput> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Wanted::by(&Settings::from_vars(vars)?)
    }

    /// A run of some layers that have a fixture and nothing else.
    pub(in crate::provider) fn run(layers: &[Layer]) -> RunInfo {
        let dir = tempfile::tempdir().unwrap();
        for layer in layers {
            let folder = dir.path().join(layer.name());
            std::fs::create_dir(&folder).unwrap();
            let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
            std::fs::write(folder.join("fixture.yaml"), pod).unwrap();
        }
        let manifests = load_planned(
            dir.path(),
            |_| Variant::of("toy"),
            layers.iter().copied(),
            [],
        )
        .unwrap();
        RunInfo {
            manifests: Arc::new(manifests),
            ..RunInfo::default()
        }
    }

    #[tokio::test]
    async fn a_program_that_was_named_has_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("istioctl");
        let named = wanted(&[("STRATA_ISTIOCTL", &program)]).unwrap();
        let error = named.find(&run(&[Layer::Mesh])).await.unwrap_err();
        assert!(
            error.to_string().contains("which is not a file"),
            "{error:#}"
        );

        crate::script::write(&program, "echo 'client version: 1.9.0'");
        let error = named.find(&run(&[Layer::Mesh])).await.unwrap_err();
        assert!(
            error.to_string().contains("strata needs 1.18.0 or newer"),
            "{error:#}"
        );

        crate::script::write(
            &program,
            "[ \"$*\" = 'version --remote=false' ] && echo 'client version: 1.30.3'",
        );
        let found = named.find(&run(&[Layer::Mesh])).await.unwrap().unwrap();
        assert_eq!(
            (found.istioctl.version.to_string().as_str(), found.profile),
            ("1.30.3", "minimal")
        );

        // A run without a mesh does not even look.
        crate::script::write(&program, "exit 1");
        let why = named.find(&run(&[Layer::Cni])).await.unwrap().unwrap_err();
        assert_eq!(why, "this run plans no mesh");
    }

    #[test]
    fn a_profile_that_has_nothing_to_judge_is_refused() {
        assert_eq!(
            wanted(&[("STRATA_ISTIO_PROFILE", Path::new("ambient"))])
                .unwrap()
                .profile,
            "ambient"
        );
        let refused = wanted(&[("STRATA_ISTIO_PROFILE", Path::new("empty"))]).unwrap_err();
        assert!(
            refused.0.ends_with("choose minimal or ambient"),
            "{refused}"
        );
    }
}
