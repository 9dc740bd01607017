//! TLS as a server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme,
};
use strata_probe::Tls;
use tokio_rustls::TlsAcceptor;

use crate::Trouble;
use crate::cli::ServeFlags;

/// With the certificate of the flags, or one made for their name.
pub(crate) fn acceptor(flags: &ServeFlags) -> Result<TlsAcceptor, Trouble> {
    let (chain, key) = match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => files(certificate, key).map_err(Trouble::CommandLine)?,
        _ => made(&flags.tls_name).map_err(Trouble::CommandLine)?,
    };
    let provider = Arc::new(ring::default_provider());
    let anybody = Arc::new(Anybody(Arc::clone(&provider)));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(anybody)
                .with_single_cert(chain, key)
        })
        .map_err(|error| Trouble::CommandLine(format!("the certificate cannot serve: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn files(certificate: &Path, key: &Path) -> Result<Identity, String> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{} is no PEM: {error}", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| format!("{} has no private key: {error}", key.display()))?;
    match chain.is_empty() {
        true => Err(format!("{} has no certificate", certificate.display())),
        false => Ok((chain, private)),
    }
}

fn made(name: &str) -> Result<Identity, String> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])
        .map_err(|error| format!("making a certificate for `{name}`: {error}"))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| format!("making a key: {error}"))?;
    Ok((vec![made.cert.der().clone()], key))
}

/// Asks clients for a certificate and lets everybody in, with any or none: the answer says which.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What the session turned out to be.
pub(crate) fn describe(session: &ServerConnection) -> Tls {
    Tls {
        version: crate::client::tls_version(session.protocol_version()),
        sni: session.server_name().map(str::to_owned),
        alpn: session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        client: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| crate::client::pem(certificate)),
    }
}
