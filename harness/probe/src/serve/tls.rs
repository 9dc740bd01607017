//! TLS as a server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
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
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
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

/// What the session turned out to be.
pub(crate) fn describe(session: &ServerConnection) -> Tls {
    Tls {
        version: crate::client::tls_version(session.protocol_version()),
        sni: session.server_name().map(str::to_owned),
        alpn: session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
    }
}
