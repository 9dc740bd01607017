//! The cluster's certificate authority.
//!
//! Start from [`ClusterPki::new`]. Everything is made anew for each cluster and never stored.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// The user of the kubeconfig that the lab gives to people.
pub(crate) const ADMIN: &str = "kubernetes-admin";

/// The authority, and the API server's own certificate.
pub struct ClusterPki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    server_pem: String,
    server_key_pem: String,
    token_key: [u8; 32],
}

impl ClusterPki {
    /// A new authority; the API server's certificate is for these names and addresses.
    ///
    /// # Errors
    /// When a name is not one that a certificate can carry.
    pub fn new(sans: &[String]) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = distinguished("kubernetes", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let mut server = CertificateParams::new(sans.to_vec()).context("the API server's names")?;
        server.distinguished_name = distinguished("kube-apiserver", &[]);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let server_pem = server.signed_by(&server_key, &issuer)?.pem();
        Ok(Self {
            issuer,
            ca_pem,
            server_pem,
            server_key_pem: server_key.serialize_pem(),
            token_key: rand::random(),
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A client certificate and its key, as PEM.
    ///
    /// # Errors
    /// When the names are not ones that a certificate can carry.
    pub fn client_certificate(
        &self,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = distinguished(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A kubeconfig for the administrator.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn admin_kubeconfig(&self, server: &str) -> anyhow::Result<String> {
        use base64::Engine as _;
        let (certificate, key) = self.client_certificate(ADMIN, &["system:masters"])?;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "strata-lab", "preferences": {},
            "clusters": [{"name": "strata-lab", "cluster": {"server": server, "certificate-authority-data": encode(&self.ca_pem)}}],
            "users": [{"name": "strata-lab", "user": {"client-certificate-data": encode(&certificate), "client-key-data": encode(&key)}}],
            "contexts": [{"name": "strata-lab", "context": {"cluster": "strata-lab", "user": "strata-lab"}}],
        });
        Ok(serde_yaml::to_string(&config)?)
    }

    pub(crate) fn server(&self) -> (&str, &str) {
        (&self.server_pem, &self.server_key_pem)
    }

    /// What ServiceAccount tokens are signed with.
    pub(crate) const fn token_key(&self) -> &[u8] {
        &self.token_key
    }
}

fn distinguished(name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    for organization in organizations {
        distinguished.push(DnType::OrganizationName, *organization);
    }
    distinguished
}
