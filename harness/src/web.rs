//! How other machines are reached over HTTP: by which proxy, and whose certificates are believed.
//!
//! Start from [`Way`], which the environment describes in the words that other tools take as well
//! (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`). What is fetched or sent is others' business. Rule: a
//! loopback address is never asked for through a proxy, and no secret of an address is ever printed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, NoProxy, Proxy, Url};

use crate::settings::BadInput;

/// As many hops as browsers and curl's users put up with.
const MOST_REDIRECTS: usize = 10;
/// How long a machine may take to take a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// What goes through no proxy, whatever `NO_PROXY` says; Go's programs and so docker's do it alike.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";
/// Who asks.
pub(crate) const AGENT: &str = concat!("strata/", env!("CARGO_PKG_VERSION"));

/// The way to other machines.
#[derive(Clone, Default)]
pub(crate) struct Way {
    https_proxy: Option<String>,
    http_proxy: Option<String>,
    no_proxy: String,
    /// Where the certificates are that replace the system's, for the check that they are there.
    certificates: Option<PathBuf>,
    /// Certificates (PEM) that are believed besides.
    pub(crate) authorities: Vec<Vec<u8>>,
}

impl Way {
    /// The way that this process' environment describes.
    pub(crate) fn from_env() -> Self {
        Self::from_vars(std::env::vars_os())
    }

    /// The way that variables describe. An upper-case name goes before its lower-case one.
    pub(crate) fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let vars: Vec<_> = vars
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let raw = |wanted: &[&str]| {
            let of = |wanted: &&str| vars.iter().find(|(name, _)| name == wanted);
            wanted.iter().find_map(of).map(|(_, value)| value.clone())
        };
        let text = |wanted: &[&str]| raw(wanted)?.into_string().ok();
        let mut no_proxy = LOOPBACK.to_owned();
        if let Some(more) = text(&["NO_PROXY", "no_proxy"]) {
            no_proxy = format!("{no_proxy},{more}");
        }
        Self {
            https_proxy: text(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http_proxy: text(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            no_proxy,
            certificates: raw(&["SSL_CERT_FILE"]).map(PathBuf::from),
            authorities: Vec::new(),
        }
    }

    /// A client that goes this way. It has no deadline for a whole answer: how long one may take is
    /// for whoever reads it to say.
    ///
    /// # Errors
    /// When the environment names a proxy or certificates that are none.
    pub(crate) fn client(&self) -> Result<Client, BadInput> {
        self.check()?;
        let mut builder = Client::builder()
            .user_agent(AGENT)
            .connect_timeout(CONNECT)
            .redirect(Policy::custom(follow))
            .no_proxy();
        for proxy in self.proxies()? {
            builder = builder.proxy(proxy);
        }
        let authorities = self.authorities.iter();
        let authorities: Result<Vec<_>, _> =
            authorities.map(|pem| Certificate::from_pem(pem)).collect();
        let client = authorities.and_then(|extra| builder.tls_certs_merge(extra).build());
        client.map_err(|error| {
            BadInput(format!(
                "no connection by TLS can be made ({}); install ca-certificates, or set \
                 SSL_CERT_FILE to a file of certificates (PEM)",
                innermost(&error)
            ))
        })
    }

    /// The registry client's settings, which go the same way.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) fn registry(&self) -> Result<oci_client::client::ClientConfig, BadInput> {
        use oci_client::client::{Certificate, CertificateEncoding, ClientConfig};
        self.check()?;
        self.proxies()?;
        let certificate = |pem: &Vec<u8>| Certificate {
            encoding: CertificateEncoding::Pem,
            data: pem.clone(),
        };
        Ok(ClientConfig {
            user_agent: AGENT,
            connect_timeout: Some(CONNECT),
            https_proxy: self.https_proxy.clone(),
            http_proxy: self.http_proxy.clone(),
            no_proxy: Some(self.no_proxy.clone()),
            extra_root_certificates: self.authorities.iter().map(certificate).collect(),
            ..ClientConfig::default()
        })
    }

    fn check(&self) -> Result<(), BadInput> {
        // One provider for the whole process; whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Some(file) = &self.certificates else {
            return Ok(());
        };
        std::fs::File::open(file).map(drop).map_err(|error| {
            BadInput(format!(
                "SSL_CERT_FILE names {}, which cannot be read ({error}); name a file of \
                 certificates (PEM), or unset it",
                file.display()
            ))
        })
    }

    fn proxies(&self) -> Result<Vec<Proxy>, BadInput> {
        let bad = |name: &str| {
            BadInput(format!(
                "{name} (or ALL_PROXY) is not the address of a proxy that strata can use; write \
                 http://HOST:PORT, or unset it"
            ))
        };
        let mut proxies = Vec::new();
        if let Some(address) = &self.https_proxy {
            let proxy = usable(address).then(|| Proxy::https(address).ok());
            proxies.push(proxy.flatten().ok_or_else(|| bad("HTTPS_PROXY"))?);
        }
        if let Some(address) = &self.http_proxy {
            let proxy = usable(address).then(|| Proxy::http(address).ok());
            proxies.push(proxy.flatten().ok_or_else(|| bad("HTTP_PROXY"))?);
        }
        let none = || NoProxy::from_string(&self.no_proxy);
        Ok(proxies.into_iter().map(|it| it.no_proxy(none())).collect())
    }
}

/// Whether an address is a proxy's of a kind that is built in: the client itself would leave out any
/// other without a word, and go straight to where a person did not want it to.
fn usable(address: &str) -> bool {
    let whole = match address.split_once("://") {
        Some(_) => address.to_owned(),
        None => format!("http://{address}"),
    };
    Url::parse(&whole).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Follows redirects to other hosts as well, but not in circles, and not out of TLS.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let (next, before) = (attempt.url(), attempt.previous());
    let problem = if before.contains(next) {
        format!("it redirects in a circle, by {}", shown(next))
    } else if before.len() > MOST_REDIRECTS {
        format!("it redirects more than {MOST_REDIRECTS} times")
    } else if next.scheme() == "http" && before.iter().any(|url| url.scheme() == "https") {
        format!("it redirects from https to {}", shown(next))
    } else {
        return attempt.follow();
    };
    attempt.error(problem)
}

/// An address without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Whether a host is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The sentence at the bottom of an error, which says most of a connection that failed.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(vars: &[(&str, &str)]) -> Way {
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        Way::from_vars(vars.iter().map(owned))
    }

    #[test]
    fn the_environment_names_proxies_as_for_other_tools() {
        let quiet = way(&[("HTTPS_PROXY", ""), ("PATH", "/bin")]);
        assert_eq!((&quiet.https_proxy, &quiet.http_proxy), (&None, &None));
        let both = way(&[
            ("https_proxy", "http://lower:1"),
            ("HTTPS_PROXY", "http://upper:1"),
            ("ALL_PROXY", "http://all:1"),
            ("no_proxy", ".corp"),
        ]);
        assert_eq!(both.https_proxy.as_deref(), Some("http://upper:1"));
        assert_eq!(both.http_proxy.as_deref(), Some("http://all:1"));
        assert_eq!(both.no_proxy, "localhost,127.0.0.0/8,::1,.corp");
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_its_secrets() {
        for (name, address) in [
            ("HTTPS_PROXY", "socks5://me:hidden@proxy:1080"),
            ("HTTP_PROXY", "http://me:hidden@"),
        ] {
            let said = way(&[(name, address)]).client().unwrap_err().0;
            let expected = format!("{name} (or ALL_PROXY) is not");
            assert!(said.starts_with(&expected), "{said}");
            assert!(!said.contains("hidden"), "{said}");
        }
        assert!(usable("proxy.corp:3128") && usable("https://me:hidden@proxy"));
        let said = way(&[("SSL_CERT_FILE", "/absent/ca.pem")]).client();
        let said = said.unwrap_err().0;
        assert!(
            said.starts_with("SSL_CERT_FILE names /absent/ca.pem, which cannot be read"),
            "{said}"
        );
        let url = Url::parse("https://me:hidden@host/a?token=hidden#hidden").unwrap();
        assert_eq!(shown(&url), "https://host/a");
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.corp", "10.0.0.1", "registry", "::2"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
