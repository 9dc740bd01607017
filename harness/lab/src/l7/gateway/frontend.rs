//! Certificates that are asked of clients, and the one that backends are shown (GEP-91, GEP-3155).
//!
//! Start from [`of_port`] and [`own_certificate`]. Rule: clients of a listener whose authorities cannot be had
//! are not let in.

use gateway_api::gateways::{
    Gateway, GatewayTlsFrontendDefaultValidation as Validation,
    GatewayTlsFrontendDefaultValidationCaCertificateRefs as Reference,
    GatewayTlsFrontendDefaultValidationMode as Mode,
    GatewayTlsFrontendPerPortTlsValidationMode as PortMode,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::input::{Input, Problem, certificate_of};
use super::policy::authority;
use crate::l7::ingress::Certificate;

/// What is asked of the clients of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clients {
    /// The certificates to trust, PEM; none if none can be had.
    authorities: String,
    /// Whether those are let in, too, that have no certificate or another's.
    insecure: bool,
}

impl Clients {
    /// Whether anybody may be trusted at all.
    pub(super) fn has_authority(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Adds it to a listener's transport socket.
    pub(super) fn ask(&self, socket: &mut Value) {
        let mut validation = json!({ "trusted_ca": { "inline_string": self.authorities } });
        if self.insecure {
            validation["trust_chain_verification"] = json!("ACCEPT_UNTRUSTED");
        }
        let config = &mut socket["typed_config"];
        config["require_client_certificate"] = json!(!self.insecure);
        config["common_tls_context"]["validation_context"] = validation;
    }
}

/// What is asked of the clients of HTTPS at a port, and the first reference that leads nowhere. What is said
/// of a port goes before what is said of all.
pub(super) fn of_port(
    input: &Input,
    gateway: &Gateway,
    port: i32,
) -> Option<(Clients, Option<Problem>)> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let mut ports = frontend.per_port.iter().flatten();
    let validation = match ports.find(|own| own.port == port) {
        // One type in the specification, and two in the crate.
        Some(own) => {
            serde_json::from_value(serde_json::to_value(&own.tls.validation).ok()?).ok()?
        }
        None => frontend.default.validation.clone(),
    };
    let validation: Validation = validation?;
    let mut clients = Clients {
        insecure: validation.mode == Some(Mode::AllowInsecureFallback),
        ..Clients::default()
    };
    let mut unresolved = None;
    for reference in &validation.ca_certificate_refs {
        match trusted(input, gateway, reference) {
            Ok(pem) => clients.authorities.extend([pem.trim_end(), "\n"]),
            Err(problem) => {
                unresolved.get_or_insert(problem);
            }
        }
    }
    Some((clients, unresolved))
}

fn trusted<'a>(
    input: &'a Input,
    gateway: &Gateway,
    reference: &Reference,
) -> Result<&'a str, Problem> {
    const FIELD: &str = "tls.frontend: caCertificateRefs";
    let Reference {
        group, kind, name, ..
    } = reference;
    if !group.is_empty() || kind != "ConfigMap" {
        let message =
            format!("{FIELD}: {group}/{kind} {name}: authorities are taken from ConfigMaps only");
        return Err(Problem::new("InvalidCACertificateKind", message));
    }
    let from = gateway.namespace().unwrap_or_default();
    let namespace = reference.namespace.as_deref().unwrap_or(&from);
    if !input.granted(("Gateway", &from), ("ConfigMap", namespace, name)) {
        let message = format!(
            "{FIELD}: no ReferenceGrant in namespace {namespace} lets Gateways of {from} use ConfigMap {name}"
        );
        return Err(Problem::new("RefNotPermitted", message));
    }
    authority(input, namespace, name).map_err(|why| {
        let message = format!("{FIELD}: ConfigMap {namespace}/{name}{why}");
        Problem::new("InvalidCACertificateRef", message)
    })
}

/// Whether clients are let in at some port whose certificate nobody vouches for.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    let frontend = gateway
        .spec
        .tls
        .as_ref()
        .and_then(|tls| tls.frontend.as_ref());
    frontend.is_some_and(|frontend| {
        let all = frontend.default.validation.as_ref();
        let ports = frontend.per_port.iter().flatten();
        let mut ports = ports.filter_map(|own| own.tls.validation.as_ref());
        all.is_some_and(|asked| asked.mode == Some(Mode::AllowInsecureFallback))
            || ports.any(|asked| asked.mode == Some(PortMode::AllowInsecureFallback))
    })
}

/// The certificate that a Gateway shows its backends, by the name that Envoy knows it by.
pub(super) fn own_certificate(
    input: &Input,
    gateway: &Gateway,
) -> Option<Result<(String, Certificate), Problem>> {
    let backend = gateway.spec.tls.as_ref()?.backend.as_ref()?;
    let reference = backend.client_certificate_ref.as_ref()?;
    let invalid = |why: String| {
        let message = format!(
            "tls.backend: clientCertificateRef {}: {why}",
            reference.name
        );
        Problem::new("InvalidClientCertificateRef", message)
    };
    let (group, kind) = (
        reference.group.as_deref().unwrap_or_default(),
        reference.kind.as_deref().unwrap_or("Secret"),
    );
    if !group.is_empty() || kind != "Secret" {
        let why = format!("{group}/{kind}: certificates are taken from Secrets only");
        return Some(Err(invalid(why)));
    }
    let from = gateway.namespace().unwrap_or_default();
    let namespace = reference.namespace.clone().unwrap_or_else(|| from.clone());
    let name = &reference.name;
    if !input.granted(("Gateway", &from), ("Secret", &namespace, name)) {
        let message = format!(
            "tls.backend: no ReferenceGrant in namespace {namespace} lets Gateways of {from} use Secret {name}"
        );
        return Some(Err(Problem::new("RefNotPermitted", message)));
    }
    let found = input.secrets.get(&(namespace.clone(), name.clone()));
    let found = found.ok_or_else(|| format!("Secret {namespace}/{name} does not exist"));
    let read = found.and_then(|secret| certificate_of(secret));
    Some(
        read.map(|certificate| (format!("{namespace}/{name}"), certificate))
            .map_err(invalid),
    )
}
