//! TLS to backends, as BackendTLSPolicies ask for it.
//!
//! Start from [`of_service`]: which policy a Service's port is under, and [`judge`]: what it comes to.
//! A backend whose policy cannot be had is not spoken to in plain text instead: its requests are
//! answered as those of a backend that is invalid.

use gateway_api::backendtlspolicies::{
    BackendTlsPolicy, BackendTlsPolicyStatus, BackendTlsPolicyStatusAncestors,
    BackendTlsPolicyStatusAncestorsAncestorRef, BackendTlsPolicyTargetRefs,
    BackendTlsPolicyValidation, BackendTlsPolicyValidationSubjectAltNamesType,
};
use gateway_api::gateways::Gateway;
use k8s_openapi::api::core::v1::ServicePort;
use kube::ResourceExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::input::{Input, Problem};
use super::status::{merge, unless};
use super::{CONTROLLER, GROUP};

/// What a policy comes to.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    /// Why it is not accepted.
    pub(super) refused: Option<Problem>,
    /// The first reference that leads nowhere.
    pub(super) unresolved: Option<Problem>,
    /// The certificates to trust, PEM.
    authorities: String,
}

/// The policies that target a port of a Service: first the one that is in force, which is of that port
/// before all of them, then the oldest, then the first by name.
pub(super) fn of_service<'a>(
    input: &'a Input,
    namespace: &str,
    service: &str,
    port: &ServicePort,
) -> Vec<&'a BackendTlsPolicy> {
    let section = |policy: &BackendTlsPolicy| {
        let targets = policy.spec.target_refs.iter();
        let mut own = targets.filter(|target| hits(target, service, port));
        let first = own.next()?;
        Some(first.section_name.is_some() || own.any(|target| target.section_name.is_some()))
    };
    let mut found: Vec<_> = input
        .policies
        .iter()
        .filter(|policy| policy.namespace().as_deref() == Some(namespace))
        .filter_map(|policy| Some((!section(policy)?, age(policy), policy.as_ref())))
        .collect();
    found.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    found.into_iter().map(|(_, _, policy)| policy).collect()
}

fn age(policy: &BackendTlsPolicy) -> impl Ord + use<> {
    let created = policy.metadata.creation_timestamp.as_ref();
    (created.map(|time| time.0), policy.name_any())
}

fn hits(target: &BackendTlsPolicyTargetRefs, service: &str, port: &ServicePort) -> bool {
    let section = target.section_name.as_ref();
    target.group.is_empty()
        && target.kind == "Service"
        && target.name == service
        && section.is_none_or(|section| Some(section) == port.name.as_ref())
}

/// What a policy comes to by itself.
///
/// | authorities | Accepted | ResolvedRefs |
/// | --- | --- | --- |
/// | all are there | True | True |
/// | some are not | True | False, by what |
/// | none is | False `NoValidCACertificate` | False, by what |
/// | the system's | False `Invalid`: there is no system here | True |
pub(super) fn judge(input: &Input, policy: &BackendTlsPolicy) -> Judged {
    let mut judged = Judged::default();
    let validation = &policy.spec.validation;
    if validation.well_known_ca_certificates.is_some() {
        let message = "validation.wellKnownCACertificates: a proxy here trusts nobody by itself";
        judged.refused = Some(Problem::new("Invalid", message));
        return judged;
    }
    let namespace = policy.namespace().unwrap_or_default();
    for reference in validation.ca_certificate_refs.iter().flatten() {
        let (group, kind, name) = (&reference.group, &reference.kind, &reference.name);
        let found = if !group.is_empty() || kind != "ConfigMap" {
            let message = format!(
                "validation.caCertificateRefs: {group}/{kind} {name}: authorities are taken from ConfigMaps only"
            );
            Err(Problem::new("InvalidKind", message))
        } else {
            authority(input, &namespace, name).map_err(|why| {
                let message =
                    format!("validation.caCertificateRefs: ConfigMap {namespace}/{name}{why}");
                Problem::new("InvalidCACertificateRef", message)
            })
        };
        match found {
            Ok(pem) => judged.authorities.extend([pem.trim_end(), "\n"]),
            Err(problem) => {
                judged.unresolved.get_or_insert(problem);
            }
        }
    }
    if judged.authorities.is_empty() {
        let message = "no authority that validation.caCertificateRefs names can be had";
        judged.refused = Some(Problem::new("NoValidCACertificate", message));
    }
    judged
}

/// The certificates in a ConfigMap's `ca.crt`, PEM; else what is wrong, to be said after its name.
pub(super) fn authority<'a>(
    input: &'a Input,
    namespace: &str,
    name: &str,
) -> Result<&'a str, String> {
    let key = (namespace.to_owned(), name.to_owned());
    let map = input.config_maps.get(&key);
    let map = map.ok_or_else(|| " does not exist".to_owned())?;
    let pem = map.data.as_ref().and_then(|data| data.get("ca.crt"));
    let pem = pem.ok_or_else(|| " has no ca.crt".to_owned())?;
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        Ok(_) => Err(": ca.crt holds no certificate".to_owned()),
        Err(error) => Err(format!(": ca.crt is not PEM: {error}")),
    }
}

/// The transport socket's context, or nothing if the policy is not accepted.
pub(super) fn context(policy: &BackendTlsPolicy, judged: &Judged, alpn: &str) -> Option<Value> {
    if judged.refused.is_some() {
        return None;
    }
    let validation = &policy.spec.validation;
    Some(json!({
        "sni": validation.hostname,
        "common_tls_context": {
            "alpn_protocols": [alpn],
            "validation_context": {
                "trusted_ca": { "inline_string": judged.authorities },
                "match_typed_subject_alt_names": names(validation),
            },
        },
    }))
}

/// The names of which the backend's certificate must have one: "when specified, the certificate served
/// from the backend MUST have at least one Subject Alternate Name matching", else the hostname.
fn names(validation: &BackendTlsPolicyValidation) -> Vec<Value> {
    let name = |kind: &str, name: &str| json!({ "san_type": kind, "matcher": { "exact": name } });
    match validation.subject_alt_names.as_deref() {
        None | Some([]) => vec![name("DNS", &validation.hostname)],
        Some(names) => names
            .iter()
            .map(|asked| match asked.r#type {
                BackendTlsPolicyValidationSubjectAltNamesType::Hostname => {
                    name("DNS", asked.hostname.as_deref().unwrap_or_default())
                }
                BackendTlsPolicyValidationSubjectAltNamesType::Uri => {
                    name("URI", asked.uri.as_deref().unwrap_or_default())
                }
            })
            .collect(),
    }
}

/// The status of a policy: what each Gateway that has to do with it is said of, of which some find
/// another one in force.
pub(super) fn status(
    policy: &BackendTlsPolicy,
    judged: &Judged,
    ancestors: &[(&Gateway, bool)],
) -> BackendTlsPolicyStatus {
    let old = policy.status.clone().unwrap_or_default().ancestors;
    let generation = policy.metadata.generation;
    let ours = ancestors.iter().map(|(gateway, in_force)| {
        let reference = BackendTlsPolicyStatusAncestorsAncestorRef {
            group: Some(GROUP.to_owned()),
            kind: Some("Gateway".to_owned()),
            name: gateway.name_any(),
            namespace: gateway.namespace(),
            ..BackendTlsPolicyStatusAncestorsAncestorRef::default()
        };
        let before = old.iter().find(|before| {
            before.controller_name == CONTROLLER && before.ancestor_ref == reference
        });
        let before = before.map(|before| before.conditions.as_slice());
        let another = Problem::new(
            "Conflicted",
            "another policy of the same target is in force",
        );
        let refused = judged.refused.clone().or((!in_force).then_some(another));
        let unresolved = judged.unresolved.clone();
        let new = vec![
            unless("Accepted", "Accepted", refused, generation),
            unless("ResolvedRefs", "ResolvedRefs", unresolved, generation),
        ];
        BackendTlsPolicyStatusAncestors {
            ancestor_ref: reference,
            conditions: merge(
                before.unwrap_or_default(),
                new,
                &["Accepted", "ResolvedRefs"],
            ),
            controller_name: CONTROLLER.to_owned(),
        }
    });
    let ours: Vec<_> = ours.collect();
    let others = old
        .iter()
        .filter(|ancestor| ancestor.controller_name != CONTROLLER);
    BackendTlsPolicyStatus {
        ancestors: others.cloned().chain(ours).collect(),
    }
}
