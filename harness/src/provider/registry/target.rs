//! Which registry, and what the image is called there.

use oci_client::Reference;
use oci_client::secrets::RegistryAuth;

use super::credentials::{self, DockerConfig};
use crate::settings::{BadInput, Secret, Settings};
use crate::web::is_loopback;

/// What the image is called below the path that a person names.
const NAME: &str = "strata-probe";

/// Where the image is pushed to, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST[:PORT]`.
    host: String,
    repository: String,
    plain: bool,
    credentials: Credentials,
}

#[derive(Debug, Clone)]
enum Credentials {
    Given(String, Secret),
    Docker(DockerConfig),
}

impl Target {
    /// The registry of the settings, if they name one.
    ///
    /// # Errors
    /// When what they name is none.
    pub fn of(settings: &Settings) -> Result<Option<Self>, BadInput> {
        let user = settings.registry_username.as_ref();
        let credentials = match (user, &settings.registry_password) {
            (Some(name), Some(password)) => Credentials::Given(name.clone(), password.clone()),
            (None, None) => Credentials::Docker(DockerConfig::of_this_user()),
            (Some(_), None) => return Err(alone("USERNAME", "PASSWORD")),
            (None, Some(_)) => return Err(alone("PASSWORD", "USERNAME")),
        };
        let named = settings.registry.as_deref();
        named
            .map(|named| Self::parse(named, credentials))
            .transpose()
    }

    fn parse(named: &str, credentials: Credentials) -> Result<Self, BadInput> {
        let bad = |problem: &str| {
            BadInput(format!(
                "STRATA_REGISTRY {problem}; write HOST[:PORT][/PATH], like registry.example:5000/team"
            ))
        };
        let (scheme, place) = match named.split_once("://") {
            Some((scheme @ ("http" | "https"), place)) => (Some(scheme), place),
            Some(_) => return Err(bad("has a scheme that is neither http nor https")),
            None => (None, named),
        };
        if place.contains('@') {
            return Err(bad(
                "has credentials in it, which belong into STRATA_REGISTRY_USERNAME and \
                 STRATA_REGISTRY_PASSWORD",
            ));
        }
        let place = place.trim_end_matches('/');
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        let name = without_port(host);
        if !is_host(host) {
            return Err(bad("begins with no host"));
        }
        // Container runtimes take a first part without a dot or a port for a user of Docker Hub.
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(bad("names a host without its domain or port"));
        }
        let mut parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        parts.push(NAME);
        if !parts.iter().all(|part| is_part(part)) {
            return Err(bad(
                "has a path that no image can have: small letters, digits and .-_",
            ));
        }
        Ok(Self {
            plain: scheme.map_or_else(|| is_loopback(name), |scheme| scheme == "http"),
            host: host.to_owned(),
            repository: parts.join("/"),
            credentials,
        })
    }

    /// Whom the registry is told that this is.
    pub(super) async fn credentials(&self) -> anyhow::Result<RegistryAuth> {
        match &self.credentials {
            Credentials::Given(name, password) => {
                Ok(RegistryAuth::Basic(name.clone(), password.0.clone()))
            }
            Credentials::Docker(config) => credentials::of(config, &self.host).await,
        }
    }

    /// What errors and progress call it.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Whether it is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(super) fn tagged(&self, tag: String) -> Reference {
        Reference::with_tag(self.host.clone(), self.repository.clone(), tag)
    }

    pub(super) fn by_digest(&self, digest: &str) -> Reference {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        Reference::with_digest(host, repository, digest.to_owned())
    }

    /// The reference that a pod's `image` has to be.
    pub(super) fn pinned(&self, digest: &str) -> String {
        format!("{}@{digest}", self.shown())
    }

    /// What helps whoever is refused.
    pub(super) fn remedy(&self) -> String {
        match &self.credentials {
            Credentials::Given(..) => {
                "set STRATA_REGISTRY_USERNAME and STRATA_REGISTRY_PASSWORD to those of one who may \
                 push there"
                    .to_owned()
            }
            Credentials::Docker(_) => format!(
                "run docker login {}, or set STRATA_REGISTRY_USERNAME and STRATA_REGISTRY_PASSWORD",
                self.host
            ),
        }
    }

    /// What to do if an error means that the other side speaks plain HTTP, or does not.
    pub(super) fn scheme_hint(&self, said: &str) -> String {
        let host = &self.host;
        // Go's servers answer 400 to plain HTTP where they expect TLS.
        if self.plain && said.contains("400") {
            format!("; if it speaks TLS, write STRATA_REGISTRY=https://{host}/…")
        } else if !self.plain && said.contains("InvalidContentType") {
            format!(
                "; it speaks plain HTTP: write STRATA_REGISTRY=http://{host}/…, if you trust the network"
            )
        } else if !self.plain && said.contains("UnknownIssuer") {
            "; if its authority is your own, name its certificate (PEM) by SSL_CERT_FILE".to_owned()
        } else {
            String::new()
        }
    }

    #[cfg(test)]
    #[cfg(target_os = "linux")]
    pub(super) fn with_docker_config(mut self, config: DockerConfig) -> Self {
        self.credentials = Credentials::Docker(config);
        self
    }
}

fn alone(one: &str, other: &str) -> BadInput {
    BadInput(format!(
        "STRATA_REGISTRY_{one} is set and STRATA_REGISTRY_{other} is not; set both, or neither"
    ))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_host(host: &str) -> bool {
    let name = without_port(host);
    let port = host.get(name.len() + 1..);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let named = !name.is_empty() && name.bytes().all(letter);
    let address = address.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
    (named || address) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether a text may be a part of an image's name (distribution's grammar, a little narrower).
fn is_part(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| letter(byte) || matches!(byte, b'.' | b'-' | b'_');
    let mut ends = text.bytes().next().into_iter().chain(text.bytes().last());
    !text.is_empty() && text.bytes().all(inner) && ends.all(letter)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn target(vars: &[(&str, &str)]) -> Result<Option<Target>, String> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let settings = Settings::from_vars(vars).unwrap();
        Target::of(&settings).map_err(|bad| bad.0)
    }

    #[test]
    fn tls_is_left_out_on_loopback_and_where_a_person_says_so() {
        assert!(target(&[]).unwrap().is_none());
        for (named, plain, shown) in [
            ("127.0.0.1:5000", true, "127.0.0.1:5000/strata-probe"),
            (
                "localhost:5000/a/b/",
                true,
                "localhost:5000/a/b/strata-probe",
            ),
            ("[::1]:5000", true, "[::1]:5000/strata-probe"),
            (
                "https://127.0.0.1:5000",
                false,
                "127.0.0.1:5000/strata-probe",
            ),
            (
                "registry.example/team",
                false,
                "registry.example/team/strata-probe",
            ),
            ("registry:5000", false, "registry:5000/strata-probe"),
            (
                "http://registry:5000/team",
                true,
                "registry:5000/team/strata-probe",
            ),
        ] {
            let target = target(&[("STRATA_REGISTRY", named)]).unwrap().unwrap();
            assert_eq!(
                (target.is_plain(), target.shown().as_str()),
                (plain, shown),
                "{named}"
            );
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for (named, expected) in [
            ("registry", "without its domain or port"),
            ("registry/team", "without its domain or port"),
            ("/team", "begins with no host"),
            ("registry:port", "begins with no host"),
            ("registry:99999", "begins with no host"),
            ("registry.example/Team", "a path that no image can have"),
            ("registry.example/team:v1", "a path that no image can have"),
            ("ftp://registry.example", "neither http nor https"),
            ("https://me:hidden@registry.example", "credentials in it"),
        ] {
            let said = target(&[("STRATA_REGISTRY", named)]).unwrap_err();
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hidden"), "{said}");
        }
        let said = target(&[("STRATA_REGISTRY_PASSWORD", "hidden")]).unwrap_err();
        assert_eq!(
            said,
            "STRATA_REGISTRY_PASSWORD is set and STRATA_REGISTRY_USERNAME is not; set both, or neither"
        );
    }

    #[test]
    fn no_password_is_ever_shown() {
        let target = target(&[
            ("STRATA_REGISTRY", "registry:5000"),
            ("STRATA_REGISTRY_USERNAME", "me"),
            ("STRATA_REGISTRY_PASSWORD", "hidden"),
        ]);
        let shown = format!("{:?}", target.unwrap().unwrap());
        assert!(
            shown.contains("\"me\"") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
