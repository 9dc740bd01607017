//! Which cluster: a context of the kubeconfig by its name, and never another.
//!
//! Start from [`Chosen::by`]. Rule: neither the current context nor the one of the cluster that this
//! process may run in is ever taken without being named.

use std::path::PathBuf;

use kube::config::{Kubeconfig, KubeconfigError};

use crate::settings::{BadInput, Settings, nearest, workspace};

/// The files that `KUBECONFIG` names; none where it names none, and the user's own is meant. As
/// everywhere, relative paths are taken from the workspace's root.
pub(super) fn files() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    paths.map(|path| workspace().join(path)).collect()
}

/// Reads those files.
pub(super) fn read() -> Result<Kubeconfig, KubeconfigError> {
    let files = files();
    if files.is_empty() {
        return Kubeconfig::read();
    }
    files.iter().try_fold(Kubeconfig::default(), |all, file| {
        all.merge(Kubeconfig::read_from(file)?)
    })
}

/// A context that was named.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    /// Its name.
    pub(super) name: String,
    /// The kubeconfig, with nothing but this context in it.
    pub(super) kubeconfig: Kubeconfig,
    /// Whether its name was said a second time, as a permission.
    pub(super) allowed: bool,
}

impl Chosen {
    /// The context that the settings name.
    ///
    /// # Errors
    /// When they name none, one that there is not, or allow another.
    pub(super) fn by(
        settings: &Settings,
        read: impl FnOnce() -> Result<Kubeconfig, KubeconfigError>,
    ) -> Result<Self, BadInput> {
        let kubeconfig = read().map_err(|error| {
            BadInput(format!(
                "STRATA_PROVIDER=existing needs a kubeconfig ({error}); set KUBECONFIG to one"
            ))
        })?;
        let Some(name) = settings.context.clone() else {
            return Err(BadInput(format!(
                "STRATA_PROVIDER=existing takes no context by itself, the current one neither; set \
                 STRATA_CONTEXT to {}",
                one_of(&kubeconfig)
            )));
        };
        let kubeconfig = alone(kubeconfig, &name)?;
        match &settings.allow {
            Some(allow) if *allow != name => Err(BadInput(format!(
                "STRATA_ALLOW={allow} allows another context than STRATA_CONTEXT={name}; nothing is \
                 asked of either until both name the same"
            ))),
            allow => Ok(Self {
                allowed: allow.is_some(),
                name,
                kubeconfig,
            }),
        }
    }

    /// Where its API server is.
    pub(super) fn server(&self) -> &str {
        let cluster = self.kubeconfig.clusters.first();
        let cluster = cluster.and_then(|named| named.cluster.as_ref());
        cluster
            .and_then(|cluster| cluster.server.as_deref())
            .unwrap_or("an address that the kubeconfig does not tell")
    }
}

/// A kubeconfig of one context alone: what it leads to does not change with the current one.
fn alone(mut kubeconfig: Kubeconfig, name: &str) -> Result<Kubeconfig, BadInput> {
    let wrong = |what: String| BadInput(format!("STRATA_CONTEXT={name} {what}"));
    let found = kubeconfig.contexts.iter().find(|it| it.name == name);
    let Some(found) = found else {
        let names = kubeconfig.contexts.iter().map(|it| it.name.as_str());
        let hint = nearest(name, names).map_or_else(
            || format!("set it to {}", one_of(&kubeconfig)),
            |near| format!("did you mean {near}?"),
        );
        return Err(wrong(format!("is no context of the kubeconfig; {hint}")));
    };
    let context = found.context.clone();
    let context = context.ok_or_else(|| wrong("is a context without content".to_owned()))?;
    kubeconfig.clusters.retain(|it| it.name == context.cluster);
    if kubeconfig.clusters.is_empty() {
        let cluster = context.cluster;
        return Err(wrong(format!(
            "names cluster {cluster}, which the kubeconfig has not"
        )));
    }
    let user = context.user.unwrap_or_default();
    kubeconfig.auth_infos.retain(|it| it.name == user);
    if !user.is_empty() && kubeconfig.auth_infos.is_empty() {
        return Err(wrong(format!(
            "names user {user}, which the kubeconfig has not"
        )));
    }
    kubeconfig.contexts.retain(|it| it.name == name);
    kubeconfig.current_context = Some(name.to_owned());
    Ok(kubeconfig)
}

fn one_of(kubeconfig: &Kubeconfig) -> String {
    let names: Vec<_> = kubeconfig
        .contexts
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    match names.as_slice() {
        [] => "a context; the kubeconfig has none".to_owned(),
        [only] => format!("{only}, if that is the one"),
        names => format!("one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
current-context: prod
clusters: [{name: a, cluster: {server: 'https://a:6443'}}, {name: b, cluster: {server: 'https://b:6443'}}]
users: [{name: anna, user: {token: a}}, {name: bert, user: {token: b}}]
contexts:
  - {name: prod, context: {cluster: a, user: anna}}
  - {name: test, context: {cluster: b, user: bert}}
  - {name: lost, context: {cluster: nowhere, user: bert}}
  - {name: gone, context: {cluster: b, user: nobody}}
";

    fn chosen(vars: &[(&str, &str)]) -> Result<Chosen, String> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let settings = Settings::from_vars(vars).unwrap();
        Chosen::by(&settings, || Kubeconfig::from_yaml(TWO)).map_err(|bad| bad.0)
    }

    #[test]
    fn the_current_context_is_never_taken_by_itself() {
        let said = chosen(&[]).unwrap_err();
        assert!(said.contains("takes no context by itself"), "{said}");
        assert!(
            said.ends_with("set STRATA_CONTEXT to one of prod, test, lost, gone"),
            "{said}"
        );
        let said = chosen(&[("STRATA_ALLOW", "prod")]).unwrap_err();
        assert!(said.contains("takes no context by itself"), "{said}");
    }

    #[test]
    fn a_context_that_is_not_there_is_refused_with_those_that_are() {
        let said = chosen(&[("STRATA_CONTEXT", "tset")]).unwrap_err();
        assert_eq!(
            said,
            "STRATA_CONTEXT=tset is no context of the kubeconfig; did you mean test?"
        );
        let said = chosen(&[("STRATA_CONTEXT", "staging-eu")]).unwrap_err();
        assert!(
            said.ends_with("set it to one of prod, test, lost, gone"),
            "{said}"
        );
        let said = chosen(&[("STRATA_CONTEXT", "lost")]).unwrap_err();
        assert!(said.contains("names cluster nowhere"), "{said}");
        let said = chosen(&[("STRATA_CONTEXT", "gone")]).unwrap_err();
        assert!(said.contains("names user nobody"), "{said}");
    }

    #[test]
    fn a_permission_for_another_context_is_none_for_this() {
        let said = chosen(&[("STRATA_CONTEXT", "test"), ("STRATA_ALLOW", "prod")]).unwrap_err();
        assert!(said.contains("allows another context"), "{said}");
        assert!(!chosen(&[("STRATA_CONTEXT", "test")]).unwrap().allowed);
        let both = [("STRATA_CONTEXT", "test"), ("STRATA_ALLOW", "test")];
        assert!(chosen(&both).unwrap().allowed);
    }

    #[test]
    fn nothing_of_other_contexts_is_kept() {
        let chosen = chosen(&[("STRATA_CONTEXT", "test")]).unwrap();
        assert_eq!(chosen.server(), "https://b:6443");
        let kept = serde_json::to_string(&chosen.kubeconfig).unwrap();
        assert!(
            kept.contains("bert") && kept.contains("\"current-context\":\"test\""),
            "{kept}"
        );
        assert!(!kept.contains("anna") && !kept.contains("prod"), "{kept}");
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_said() {
        let settings = Settings::from_vars([]).unwrap();
        let said = Chosen::by(&settings, || Err(KubeconfigError::FindPath)).unwrap_err();
        assert!(said.0.ends_with("set KUBECONFIG to one"), "{said}");
    }
}
