//! The mesh's certificate authority: who a workload is, proven by its certificate.
//!
//! Start from [`Authority`]. Its key is in Secret `istio-ca-secret`, as istiod's own is, so that a
//! new istiod goes on with the old one's identities. A certificate names its ServiceAccount by a
//! SPIFFE URI and nothing else.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::l7::publish::{Publisher, metadata, secret};
use crate::topology::CLUSTER_DOMAIN;

/// The Secret of the authority's key.
const SECRET: &str = "istio-ca-secret";
/// The lab does not outlive its run, and so does no certificate.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of node and controller are one, but a certificate valid from this very second is not yet
/// valid for one that rounds down.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Signs workloads' certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The root certificate, PEM.
    pub(super) root: String,
}

impl Authority {
    /// The authority of a namespace's Secret, made if there is none.
    ///
    /// # Errors
    /// When the Secret cannot be read or written, or holds no key.
    pub(super) async fn load(
        client: &Client,
        namespace: &str,
        publisher: &mut Publisher,
    ) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        if let Some(found) = secrets.get_opt(SECRET).await? {
            let text = |key: &str| {
                let data = found.data.as_ref().and_then(|data| data.get(key));
                data.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
                    .ok_or_else(|| anyhow::anyhow!("Secret {namespace}/{SECRET} has no {key}: delete it, and istiod makes a new one"))
            };
            return Ok(Self {
                issuer: Issuer::new(authority_params(), KeyPair::from_pem(&text("ca-key.pem")?)?),
                root: text("ca-cert.pem")?,
            });
        }
        let made = Self::generate()?;
        let files = [
            ("ca-cert.pem".to_owned(), made.root.clone()),
            ("ca-key.pem".to_owned(), made.issuer.key().serialize_pem()),
        ];
        publisher
            .apply(&secret(metadata(namespace, SECRET, &[]), files))
            .await?;
        Ok(made)
    }

    /// A new authority.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(super) fn generate() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let root = authority_params().self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            root,
        })
    }

    /// A certificate and key for a ServiceAccount, as the files of its Secret.
    ///
    /// # Errors
    /// When the name is no name of a ServiceAccount.
    pub(super) fn issue(
        &self,
        namespace: &str,
        account: &str,
    ) -> anyhow::Result<[(String, String); 3]> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity(namespace, account).try_into()?)];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        date(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok([
            ("cert-chain.pem".to_owned(), certificate.pem()),
            ("key.pem".to_owned(), key.serialize_pem()),
            ("root-cert.pem".to_owned(), self.root.clone()),
        ])
    }
}

/// The SPIFFE identity of a ServiceAccount.
pub(super) fn identity(namespace: &str, account: &str) -> String {
    format!("spiffe://{CLUSTER_DOMAIN}/ns/{namespace}/sa/{account}")
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, CLUSTER_DOMAIN);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params);
    params
}

fn date(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
}
