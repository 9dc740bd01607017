//! TLS as a client: trusting nobody, a given CA, or everybody.

use std::fs;
use std::sync::Arc;

use base64::Engine;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use strata_probe::PeerTls;

/// Makes the configuration: `ca` and `identity` are PEM or a file, `insecure` accepts any certificate.
pub(crate) fn config(
    ca: Option<&str>,
    identity: Option<&str>,
    insecure: bool,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(ca)?)
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = shown(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the identity cannot be shown: {error}"))?
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    // Every connection is to show the whole handshake.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// PEM as it stands or from a file, and what to call it.
fn read<'a>(text: &'a str, what: &'a str) -> Result<(Vec<u8>, &'a str), String> {
    if text.contains("-----BEGIN") {
        return Ok((text.as_bytes().to_vec(), what));
    }
    let read = fs::read(text);
    let pem = read.map_err(|error| format!("reading the file of {what}, {text}: {error}"))?;
    Ok((pem, text))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn shown(identity: &str) -> Result<Identity, String> {
    let (pem, from) = read(identity, "the identity")?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{from} is no PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| format!("{from} has no private key: {error}"))?;
    Ok((chain, key))
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else { return Ok(roots) };
    let (pem, from) = read(ca, "the CA")?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{from} is no PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("{from} is no certificate: {error}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("{from} has no certificate")),
        false => Ok(roots),
    }
}

/// Accepts any certificate; the handshake itself is verified all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What the session turned out to be.
pub(crate) fn describe(session: &CommonState) -> PeerTls {
    PeerTls {
        version: version(session.protocol_version()),
        alpn: session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| pem(certificate)),
    }
}

/// `TLSv1.2`, `TLSv1.3`.
pub(crate) fn version(version: Option<ProtocolVersion>) -> String {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".into(),
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".into(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

/// RFC 7468 §2.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_survives_being_told() {
        let der: Vec<u8> = (0..=255).cycle().take(700).collect();
        let read = CertificateDer::from_pem_slice(pem(&der).as_bytes()).unwrap();
        assert_eq!(read.as_ref(), der);
    }

    #[test]
    fn a_ca_is_refused_in_words() {
        let refused = |ca: &str| config(Some(ca), None, false, b"h2").unwrap_err();
        assert!(refused("/nowhere/ca.crt").contains("/nowhere/ca.crt"));
        assert!(refused("-----BEGIN NONSENSE-----\n").contains("the CA"));
    }

    #[test]
    fn an_identity_is_refused_in_words() {
        let refused = |identity: &str| config(None, Some(identity), false, b"h2").unwrap_err();
        assert!(refused("/nowhere/tls.pem").contains("/nowhere/tls.pem"));
        assert!(refused("-----BEGIN NONSENSE-----\n").contains("the identity is no PEM"));
        assert!(refused(&pem(&[1, 2, 3])).contains("the identity has no private key"));
    }
}
