//! What is said of GatewayClasses, Gateways and routes, in their status.
//!
//! Start from [`of_gateway`] and [`of_route`]: pure, from what was translated and observed. What
//! other controllers wrote is kept, and a condition that says the same keeps its time.

use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs, HttpRouteStatus, HttpRouteStatusParents, HttpRouteStatusParentsParentRef,
};
use gateway_api::gatewayclasses::{
    GatewayClass, GatewayClassStatus, GatewayClassStatusSupportedFeatures,
};
use gateway_api::gateways::{
    GatewayStatus, GatewayStatusAddresses, GatewayStatusListeners,
    GatewayStatusListenersSupportedKinds,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::GROUP;
use super::frontend;
use super::holder::Holder;
use super::input::{Problem, class_problem};
use super::listener::Listener;
use super::route::Route;
use super::translate::{Parent, Translated};

/// What the conformance suite calls the things that are done here, in order.
const FEATURES: [&str; 50] = [
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendRequestRedirect",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// A condition of Gateways that show backends a certificate.
const RESOLVED: &str = "ResolvedRefs";
/// A condition of Gateways that let anybody in.
const INSECURE: &str = "InsecureFrontendValidationMode";

/// What was seen of the Envoy of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The addresses that its Service was given: type and value.
    pub(super) addresses: Vec<(&'static str, String)>,
    /// What is still waited for; nothing once Envoy serves the configuration.
    pub(super) waits_for: Option<String>,
}

/// A condition of the present generation.
fn condition(kind: &str, holds: bool, problem: Problem, generation: Option<i64>) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: problem.reason.to_owned(),
        message: problem.message,
        observed_generation: generation,
        last_transition_time: Time(Timestamp::now()),
    }
}

/// True, and why that is worth saying.
pub(super) fn said(kind: &str, why: Problem, generation: Option<i64>) -> Condition {
    condition(kind, true, why, generation)
}

/// True with the usual reason, or false with the problem's.
pub(super) fn unless(
    kind: &str,
    reason: &'static str,
    problem: Option<Problem>,
    generation: Option<i64>,
) -> Condition {
    let holds = problem.is_none();
    let problem = problem.unwrap_or_else(|| Problem::new(reason, ""));
    condition(kind, holds, problem, generation)
}

/// New conditions over old ones: a status that stays keeps its time, types of others stay.
pub(super) fn merge(old: &[Condition], new: Vec<Condition>, ours: &[&str]) -> Vec<Condition> {
    let mut merged: Vec<Condition> = new
        .into_iter()
        .map(|mut condition| {
            let before = old.iter().find(|before| before.type_ == condition.type_);
            if let Some(before) = before.filter(|before| before.status == condition.status) {
                condition.last_transition_time = before.last_transition_time.clone();
            }
            condition
        })
        .collect();
    let kept = old
        .iter()
        .filter(|before| !ours.contains(&before.type_.as_str()));
    merged.extend(kept.cloned());
    merged
}

/// The status of a class that names us.
pub(super) fn of_class(class: &GatewayClass) -> GatewayClassStatus {
    let old = class.status.clone().unwrap_or_default();
    let generation = class.metadata.generation;
    let accepted = unless("Accepted", "Accepted", class_problem(class), generation);
    let features = FEATURES.map(|name| GatewayClassStatusSupportedFeatures {
        name: name.to_owned(),
    });
    GatewayClassStatus {
        conditions: Some(merge(
            &old.conditions.unwrap_or_default(),
            vec![accepted],
            &["Accepted"],
        )),
        supported_features: Some(features.to_vec()),
    }
}

/// Whether the present generation of a Gateway was programmed before: a change of routes or
/// endpoints, which reaches Envoy a moment later, does not undo that.
pub(super) fn was_programmed(gateway: &gateway_api::gateways::Gateway) -> bool {
    let status = gateway.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "Programmed"
            && condition.status == "True"
            && condition.observed_generation == gateway.metadata.generation
    })
}

/// The status of a Gateway.
///
/// | | Accepted | Programmed |
/// | --- | --- | --- |
/// | it asks for what there is not | False, by what | False `Invalid` |
/// | no listener is accepted | False `ListenersNotValid` | False `Invalid` |
/// | some listeners cannot be served | True `ListenersNotValid` | by the others |
/// | Envoy does not serve it yet | True | False `Pending`, `AddressNotAssigned`, `AddressNotUsable` |
/// | Envoy serves it | True | True |
pub(super) fn of_gateway(translated: &Translated<'_>, observed: &Observed) -> GatewayStatus {
    let gateway = translated.gateway;
    let generation = gateway.metadata.generation;
    let old = gateway.status.clone().unwrap_or_default();
    let own = || {
        let listeners = translated.listeners.iter();
        listeners.filter(|(listener, _)| listener.of.is(Holder::Gateway(gateway)))
    };
    let invalid: Vec<&str> = own()
        .filter(|(listener, _)| listener.served().is_none())
        .map(|(listener, _)| listener.spec.name.as_str())
        .collect();
    let accepted = match &translated.problem {
        None if !invalid.is_empty() => {
            let message = format!("not served: listener {}", invalid.join(", "));
            let reason = Problem::new("ListenersNotValid", message);
            said("Accepted", reason, generation)
        }
        problem => unless("Accepted", "Accepted", problem.clone(), generation),
    };
    let pending = not_programmed(translated, observed);
    let programmed = unless("Programmed", "Programmed", pending.clone(), generation);
    let before = old.listeners.unwrap_or_default();
    let listeners = own().map(|(listener, attached)| {
        let before = before.iter().find(|old| old.name == listener.spec.name);
        let before = before.map(|old| old.conditions.as_slice());
        of_listener(
            listener,
            *attached,
            before.unwrap_or_default(),
            pending.as_ref(),
            generation,
        )
    });
    let addresses: Vec<GatewayStatusAddresses> = observed
        .addresses
        .iter()
        .map(|(kind, value)| GatewayStatusAddresses {
            r#type: Some((*kind).to_owned()),
            value: value.clone(),
        })
        .collect();
    GatewayStatus {
        addresses: (!addresses.is_empty()).then_some(addresses),
        attached_listener_sets: Some(super::sets::taken(translated)),
        conditions: Some(merge(
            &old.conditions.unwrap_or_default(),
            [vec![accepted, programmed], others(translated, generation)].concat(),
            &["Accepted", "Programmed", RESOLVED, INSECURE],
        )),
        listeners: Some(listeners.collect()),
    }
}

/// What is said of a Gateway only where there is something to be said.
fn others(translated: &Translated<'_>, generation: Option<i64>) -> Vec<Condition> {
    let mut others = Vec::new();
    let gateway = translated.gateway;
    let tls = gateway.spec.tls.as_ref();
    if tls.is_some_and(|tls| tls.backend.is_some()) {
        let unresolved = translated.unresolved.clone();
        others.push(unless(RESOLVED, "ResolvedRefs", unresolved, generation));
    }
    if frontend::is_insecure(gateway) {
        let message = "tls.frontend lets clients in whose certificate nobody vouches for";
        let why = Problem::new("ConfigurationChanged", message);
        others.push(said(INSECURE, why, generation));
    }
    others
}

/// Why nothing of a Gateway is served, if nothing is.
pub(super) fn not_programmed(translated: &Translated<'_>, observed: &Observed) -> Option<Problem> {
    if let Some(problem) = &translated.problem {
        return Some(Problem::new("Invalid", problem.message.clone()));
    }
    if translated.ports.is_empty() {
        let message = "no listener can be served; see their conditions";
        return Some(Problem::new("Invalid", message));
    }
    if observed.addresses.is_empty() {
        let message = format!(
            "Service {} has no load-balancer address yet",
            super::provision::name(translated.gateway)
        );
        return Some(Problem::new("AddressNotAssigned", message));
    }
    let asked = translated.gateway.spec.addresses.iter().flatten();
    let missing = asked
        .filter_map(|address| address.value.as_ref())
        .find(|value| !observed.addresses.iter().any(|(_, has)| has == *value));
    if let Some(value) = missing {
        let message = format!("addresses: {value} was not given to the Gateway's Service");
        return Some(Problem::new("AddressNotUsable", message));
    }
    let waits = observed.waits_for.as_ref()?;
    Some(Problem::new("Pending", waits.clone()))
}

pub(super) fn of_listener(
    listener: &Listener<'_>,
    attached: i32,
    old: &[Condition],
    pending: Option<&Problem>,
    generation: Option<i64>,
) -> GatewayStatusListeners {
    let refused = listener.unsupported.clone().or(listener.conflict.clone());
    let conflicted = match &listener.conflict {
        Some(problem) => condition("Conflicted", true, problem.clone(), generation),
        None => condition(
            "Conflicted",
            false,
            Problem::new("NoConflicts", ""),
            generation,
        ),
    };
    let programmed = if listener.served().is_none() {
        let why = refused.as_ref().or(listener.unresolved.as_ref());
        let why = why.map(|problem| problem.message.clone());
        Some(Problem::new("Invalid", why.unwrap_or_default()))
    } else {
        pending.cloned().map(|problem| match problem.reason {
            // Addresses are the Gateway's affair.
            "Invalid" | "Pending" => problem,
            _ => Problem::new("Pending", problem.message),
        })
    };
    let new = vec![
        unless("Accepted", "Accepted", refused, generation),
        unless("Programmed", "Programmed", programmed, generation),
        unless(
            "ResolvedRefs",
            "ResolvedRefs",
            listener.unresolved.clone(),
            generation,
        ),
        conflicted,
    ];
    let kinds = listener
        .takes
        .iter()
        .map(|kind| GatewayStatusListenersSupportedKinds {
            group: Some(GROUP.to_owned()),
            kind: kind.name().to_owned(),
        });
    GatewayStatusListeners {
        attached_routes: attached,
        conditions: merge(
            old,
            new,
            &["Accepted", "Programmed", "ResolvedRefs", "Conflicted"],
        ),
        name: listener.spec.name.clone(),
        supported_kinds: Some(kinds.collect()),
    }
}

/// The status of a route: other controllers' parents first, as they are, then ours.
pub(super) fn of_route(controller: &str, route: &Route, parents: &[Parent<'_>]) -> HttpRouteStatus {
    let old = route.status.clone().unwrap_or_default().parents;
    let generation = route.metadata.generation;
    let ours = parents.iter().map(|parent| {
        let reference = parent_ref(route, parent.reference);
        let before = old
            .iter()
            .find(|before| before.controller_name == controller && before.parent_ref == reference);
        let before = before.map(|before| before.conditions.as_slice());
        let mut new = vec![
            unless("Accepted", "Accepted", parent.refused.clone(), generation),
            unless(
                "ResolvedRefs",
                "ResolvedRefs",
                parent.unresolved.clone(),
                generation,
            ),
        ];
        if let Some(problem) = parent.partly.clone().filter(|_| parent.refused.is_none()) {
            new.push(condition("PartiallyInvalid", true, problem, generation));
        }
        HttpRouteStatusParents {
            conditions: merge(
                before.unwrap_or_default(),
                new,
                &["Accepted", "ResolvedRefs", "PartiallyInvalid"],
            ),
            controller_name: controller.to_owned(),
            parent_ref: reference,
        }
    });
    let ours: Vec<_> = ours.collect();
    let others = old
        .iter()
        .filter(|parent| parent.controller_name != controller);
    let all: Vec<_> = others.cloned().chain(ours).collect();
    // Two controllers that each put themselves last would write for ever.
    let same = all.len() == old.len() && all.iter().all(|parent| old.contains(parent));
    HttpRouteStatus {
        parents: if same { old } else { all },
    }
}

fn parent_ref(route: &Route, asked: &HttpRouteParentRefs) -> HttpRouteStatusParentsParentRef {
    HttpRouteStatusParentsParentRef {
        group: Some(asked.group.clone().unwrap_or_else(|| GROUP.to_owned())),
        kind: Some(asked.kind.clone().unwrap_or_else(|| "Gateway".to_owned())),
        name: asked.name.clone(),
        namespace: asked.namespace.clone().or_else(|| route.namespace()),
        port: asked.port,
        section_name: asked.section_name.clone(),
    }
}
