//! A Gateway's listeners: which can be served, and what is wrong with the others.
//!
//! Start from [`listeners`]. Listeners that share a port must differ in hostname and not in
//! protocol; of those that conflict none is served ("MUST NOT pick one conflicting Listener as the
//! winner"), unless one is of a Holder before the others: then that one is. References to certificates are
//! resolved here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use gateway_api::gateways::{
    Gateway, GatewayListeners, GatewayListenersTls, GatewayListenersTlsCertificateRefs,
    GatewayListenersTlsMode,
};

use super::GROUP;
use super::frontend::{self, Clients};
use super::holder::{Held, Holder};
use super::host::Hostname;
use super::input::{Input, Problem, certificate_of};
use super::route::Kind;
use crate::l7::ingress::Certificate;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// HTTP without TLS.
    Http,
    /// HTTP in TLS that ends here.
    Https,
    /// TLS, whatever is in it.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As Services' ports are called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The kinds of routes that are for it.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Http | Self::Https => &[Kind::Grpc, Kind::Http],
            Self::Tls => &[Kind::Tls],
            Self::Tcp => &[Kind::Tcp],
            Self::Udp => &[Kind::Udp],
        }
    }
}

/// A listener as the specification's rules judge it.
#[derive(Debug, Clone)]
pub(super) struct Listener<'a> {
    /// Whose it is.
    pub(super) of: Holder<'a>,
    /// The place of that among all that have listeners at the Gateway.
    rank: usize,
    /// As it was asked for.
    pub(super) spec: Cow<'a, GatewayListeners>,
    /// The hosts that it takes.
    pub(super) hostname: Hostname,
    /// Its port.
    pub(super) port: u16,
    /// What it speaks, if we do.
    pub(super) protocol: Option<Protocol>,
    /// The kinds of routes that may be attached to it.
    pub(super) takes: BTreeSet<Kind>,
    /// Why it is not accepted.
    pub(super) unsupported: Option<Problem>,
    /// What it conflicts with.
    pub(super) conflict: Option<Problem>,
    /// A reference that leads nowhere.
    pub(super) unresolved: Option<Problem>,
    /// The certificates that it shows, by the name that Envoy knows them by.
    pub(super) certificates: BTreeMap<String, Certificate>,
    /// What is asked of its clients.
    pub(super) clients: Option<Clients>,
}

impl Listener<'_> {
    /// Its name among all of its Gateway's.
    pub(super) fn name(&self) -> String {
        self.of.unique(&self.spec.name)
    }

    /// Whether the specification allows it to be served.
    pub(super) fn accepted(&self) -> bool {
        self.unsupported.is_none() && self.conflict.is_none()
    }

    /// Whether Envoy can serve it.
    pub(super) fn served(&self) -> Option<Protocol> {
        let protocol = self.protocol.filter(|_| self.accepted())?;
        (!self.ends_tls() || !self.certificates.is_empty()).then_some(protocol)
    }

    /// Whether TLS ends here, so that there is a certificate to show.
    pub(super) fn ends_tls(&self) -> bool {
        match self.protocol {
            Some(Protocol::Https) => true,
            Some(Protocol::Tls) => !passes_through(&self.spec),
            Some(Protocol::Http | Protocol::Tcp | Protocol::Udp) | None => false,
        }
    }

    /// Whether it takes datagrams, whose ports are not those of connections.
    pub(super) fn is_of_datagrams(&self) -> bool {
        self.protocol == Some(Protocol::Udp)
    }

    /// Whether its protocol is one that a kind of route is for.
    pub(super) fn carries(&self, kind: Kind) -> bool {
        self.protocol
            .is_some_and(|protocol| protocol.kinds().contains(&kind))
    }
}

/// Judges every listener of a Gateway, its own and those that others bring.
pub(super) fn listeners<'a>(
    input: &Input,
    gateway: &Gateway,
    holders: &[Held<'a>],
) -> Vec<Listener<'a>> {
    let taken = holders.iter().filter(|held| held.refused.is_none());
    let mut listeners: Vec<Listener<'a>> = taken
        .enumerate()
        .flat_map(|(rank, held)| {
            held.by
                .asks_for()
                .into_iter()
                .map(move |spec| (rank, held.by, spec))
        })
        .map(|(rank, of, spec)| listener(input, gateway, (rank, of), spec))
        .collect();
    for rank in 0..holders.len() {
        judge_conflicts(&mut listeners, rank, |rival| rival < rank);
        judge_conflicts(&mut listeners, rank, |rival| rival == rank);
    }
    listeners
}

/// Judges those listeners of a holder that conflict with nothing yet, beside those of some holders.
fn judge_conflicts(listeners: &mut [Listener<'_>], rank: usize, rivals: impl Fn(usize) -> bool) {
    let judged: Vec<(usize, Option<Problem>)> = (0..listeners.len())
        .filter(|index| listeners[*index].rank == rank && listeners[*index].conflict.is_none())
        .map(|index| (index, conflict(listeners, index, &rivals)))
        .collect();
    for (index, found) in judged {
        listeners[index].conflict = found;
    }
}

fn listener<'a>(
    input: &Input,
    gateway: &Gateway,
    (rank, of): (usize, Holder<'a>),
    spec: Cow<'a, GatewayListeners>,
) -> Listener<'a> {
    let protocol = match spec.protocol.as_str() {
        "HTTP" => Some(Protocol::Http),
        "HTTPS" => Some(Protocol::Https),
        "TLS" => Some(Protocol::Tls),
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    };
    let kinds = protocol.map(Protocol::kinds).unwrap_or_default();
    let mut listener = Listener {
        of,
        rank,
        hostname: Hostname::parse(spec.hostname.as_deref()),
        port: u16::try_from(spec.port).unwrap_or_default(),
        protocol,
        takes: kinds.iter().copied().collect(),
        unsupported: unsupported(&spec, protocol),
        conflict: None,
        unresolved: None,
        certificates: BTreeMap::new(),
        clients: None,
        spec,
    };
    let spec = listener.spec.clone();
    let asked = spec
        .allowed_routes
        .as_ref()
        .and_then(|allowed| allowed.kinds.as_ref());
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        let carried = std::mem::take(&mut listener.takes);
        for asked in asked {
            let group = asked.group.as_deref().unwrap_or(GROUP);
            let known = carried
                .iter()
                .find(|kind| group == GROUP && kind.name() == asked.kind);
            match known {
                Some(kind) => {
                    listener.takes.insert(*kind);
                }
                None => {
                    let names: Vec<_> = carried.iter().map(|kind| kind.name()).collect();
                    let message = format!(
                        "allowedRoutes.kinds: {group}/{} is no kind that a listener of protocol {} takes here ({})",
                        asked.kind,
                        spec.protocol,
                        names.join(", ")
                    );
                    listener.unresolved = Some(Problem::new("InvalidRouteKinds", message));
                }
            }
        }
    }
    if listener.ends_tls() && listener.unsupported.is_none() {
        certificates(input, &mut listener);
    }
    if listener.protocol == Some(Protocol::Https) && listener.unsupported.is_none() {
        clients(input, gateway, &mut listener);
    }
    listener
}

fn unsupported(spec: &GatewayListeners, protocol: Option<Protocol>) -> Option<Problem> {
    if protocol.is_none() {
        let message = format!(
            "protocol {}: the listeners served here are HTTP, HTTPS, TLS, TCP and UDP",
            spec.protocol
        );
        return Some(Problem::new("UnsupportedProtocol", message));
    }
    (protocol == Some(Protocol::Https) && passes_through(spec)).then(|| {
        let message = "protocol HTTPS ends TLS: tls.mode must be Terminate";
        Problem::new("UnsupportedProtocol", message)
    })
}

fn passes_through(spec: &GatewayListeners) -> bool {
    let mode = spec.tls.as_ref().and_then(|tls| tls.mode.as_ref());
    mode == Some(&GatewayListenersTlsMode::Passthrough)
}

/// What is asked of a listener's clients. Without any authority to trust it is not accepted.
fn clients(input: &Input, gateway: &Gateway, listener: &mut Listener<'_>) {
    let Some((clients, unresolved)) = frontend::of_port(input, gateway, listener.spec.port) else {
        return;
    };
    if !clients.has_authority() {
        let message = "no authority that tls.frontend names for this port can be had";
        listener.unsupported = Some(Problem::new("NoValidCACertificate", message));
    }
    listener.unresolved = listener.unresolved.take().or(unresolved);
    listener.clients = Some(clients);
}

fn certificates(input: &Input, listener: &mut Listener<'_>) {
    let tls = listener.spec.tls.clone().unwrap_or_default();
    let GatewayListenersTls {
        certificate_refs, ..
    } = tls;
    let references = certificate_refs.unwrap_or_default();
    if references.is_empty() {
        let message = "tls.certificateRefs names no Secret to show clients";
        listener.unresolved = Some(Problem::new("InvalidCertificateRef", message));
    }
    for reference in &references {
        match certificate(input, listener.of, reference) {
            Ok((name, certificate)) => {
                listener.certificates.insert(name, certificate);
            }
            Err(problem) => {
                listener.unresolved.get_or_insert(problem);
            }
        }
    }
}

fn certificate(
    input: &Input,
    of: Holder<'_>,
    reference: &GatewayListenersTlsCertificateRefs,
) -> Result<(String, Certificate), Problem> {
    let invalid = |message: String| Problem::new("InvalidCertificateRef", message);
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if !group.is_empty() || kind != "Secret" {
        return Err(invalid(format!(
            "tls.certificateRefs: {group}/{kind} {}: certificates are taken from Secrets only",
            reference.name
        )));
    }
    let from = of.namespace();
    let namespace = reference.namespace.clone().unwrap_or_else(|| from.clone());
    let name = format!("{namespace}/{}", reference.name);
    if !input.granted((of.kind(), &from), ("Secret", &namespace, &reference.name)) {
        return Err(Problem::new(
            "RefNotPermitted",
            format!(
                "tls.certificateRefs: no ReferenceGrant in namespace {namespace} lets {}s of {from} use Secret {}",
                of.kind(),
                reference.name
            ),
        ));
    }
    let key = (namespace, reference.name.clone());
    let secret = input
        .secrets
        .get(&key)
        .ok_or_else(|| invalid(format!("tls.certificateRefs: Secret {name} does not exist")))?;
    let certificate = certificate_of(secret)
        .map_err(|why| invalid(format!("tls.certificateRefs: Secret {name}: {why}")))?;
    Ok((name, certificate))
}

/// What a listener cannot be told from.
///
/// | port | protocol | hostname | |
/// | --- | --- | --- | --- |
/// | other | any | any | no conflict |
/// | same | other | any | `ProtocolConflict` |
/// | same | same | other | no conflict |
/// | same | same | same | `HostnameConflict` |
///
/// Datagrams have ports of their own. Of two holders the first has what it asks for, and of one all conflict.
fn conflict(
    listeners: &[Listener<'_>],
    index: usize,
    of: &impl Fn(usize) -> bool,
) -> Option<Problem> {
    let own = &listeners[index];
    // One that is not served takes nothing from anybody.
    if own.unsupported.is_some() {
        return None;
    }
    let rivals = || {
        listeners.iter().enumerate().filter(|(other, listener)| {
            *other != index
                && listener.port == own.port
                && listener.is_of_datagrams() == own.is_of_datagrams()
                && listener.unsupported.is_none()
                && listener.conflict.is_none()
                && of(listener.rank)
        })
    };
    let describe = |rival: &Listener<'_>, same: &str| {
        format!("port {}: listener {} has {same}", own.port, rival.name())
    };
    if let Some((_, rival)) = rivals().find(|(_, rival)| rival.protocol != own.protocol) {
        let message = describe(rival, &format!("protocol {}", rival.spec.protocol));
        return Some(Problem::new("ProtocolConflict", message));
    }
    let (_, rival) = rivals().find(|(_, rival)| rival.hostname == own.hostname)?;
    let message = describe(
        rival,
        &format!("the same hostname {:?}", own.hostname.domain()),
    );
    Some(Problem::new("HostnameConflict", message))
}
