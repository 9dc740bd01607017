//! Why a claim was broken: what is wrong, with which object, what to change, how to see it.
//!
//! Start from [`Cause`]. The diagnosers in `layer` make one from evidence; where evidence names
//! nothing they make none. `docs/causes.md` lists every [`CauseKind`] with the evidence that leads to
//! it. Rule: the first line stands alone, since it is all that a summary shows.

use std::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What kind of thing is wrong. Names are stable: reports carry them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CauseKind {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CauseKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in reports, in kebab case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    // Workloads.
    /// No pod has the labels.
    NoPods = "no-pods",
    /// The workload asks for no replicas.
    ScaledToZero = "scaled-to-zero",
    /// The API refuses the pods of a workload.
    PodsRefused = "pods-refused",
    /// No node takes the pod.
    PodNotScheduled = "pod-not-scheduled",
    /// The image cannot be pulled.
    ImageNotThere = "image-not-there",
    /// A ConfigMap, Secret or field that the container needs is not there.
    PodConfiguration = "pod-configuration",
    /// The node could not set the pod up: a volume, its network.
    PodNotStarted = "pod-not-started",
    /// The container's process ends again and again.
    CrashLoop = "crash-loop",
    /// The container was ended for its memory.
    OutOfMemory = "out-of-memory",
    /// The readiness or startup probe fails.
    ProbeFailing = "probe-failing",
    /// The pod is not ready, for none of the reasons above.
    PodNotReady = "pod-not-ready",
    /// The pod ended, and will not run again.
    PodEnded = "pod-ended",
    /// A node is not ready.
    NodeNotReady = "node-not-ready",
    /// A node's network agent (a DaemonSet's pod on the host's network) is not ready.
    NodeAgentNotReady = "node-agent-not-ready",

    // Pod to pod.
    /// A network interface is down.
    InterfaceDown = "interface-down",
    /// The pod's interface lacks the address that its status names.
    AddressMissing = "address-missing",
    /// The pod has no route to the destination.
    RouteMissing = "route-missing",
    /// The pod's route goes elsewhere than those of its peers on the node.
    RouteDiffers = "route-differs",
    /// The interface's MTU differs from its peers'.
    MtuDiffers = "mtu-differs",
    /// A NetworkPolicy allows the traffic nowhere.
    NetworkPolicy = "network-policy",
    /// The pod refuses the port.
    NothingListens = "nothing-listens",
    /// Pods of one node reach each other, pods of two nodes do not.
    NodesApart = "nodes-apart",
    /// Nodes reach each other's pods, pods of two nodes do not reach each other.
    PodsNotForwarded = "pods-not-forwarded",
    /// Nothing reaches a pod, while its peers on the node are reached.
    PodUnreachable = "pod-unreachable",

    // Services and DNS.
    /// There is no such Service.
    ServiceMissing = "service-missing",
    /// The Service has no such port.
    ServicePortMissing = "service-port-missing",
    /// The Service is of another type than what is asked of it.
    ServiceType = "service-type",
    /// The Service's selector matches no pod.
    SelectorMatchesNothing = "selector-matches-nothing",
    /// The Service selects nothing by intent, and nobody made endpoints for it.
    EndpointsNotMade = "endpoints-not-made",
    /// EndpointSlices list other addresses than the ready pods have.
    EndpointsDiffer = "endpoints-differ",
    /// `targetPort` is a name that the pods' containers do not have.
    NamedPortMissing = "named-port-missing",
    /// `targetPort` is a port that nothing listens on.
    TargetPortRefused = "target-port-refused",
    /// Endpoints answer directly, but not through the Service: a node has not programmed it.
    ServiceNotProgrammed = "service-not-programmed",
    /// A traffic policy keeps to the node, and there is no endpoint on it.
    NoLocalEndpoints = "no-local-endpoints",
    /// Pods ask another name server than the cluster's.
    DnsServerWrong = "dns-server-wrong",
    /// The name server does not know the cluster's own names.
    DnsNoSuchName = "dns-no-such-name",
    /// The name server answers with an error.
    DnsFails = "dns-fails",
    /// No address was given to a Service of type LoadBalancer.
    LoadBalancerPending = "load-balancer-pending",
    /// The implementation of LoadBalancer says why it gives no address.
    LoadBalancerRefused = "load-balancer-refused",

    // Ingress.
    /// There is no such Ingress.
    IngressMissing = "ingress-missing",
    /// The Ingress' class is not there.
    IngressClassMissing = "ingress-class-missing",
    /// The Ingress names no class, and there is no default.
    IngressClassUnset = "ingress-class-unset",
    /// No rule is for the host.
    IngressHost = "ingress-host",
    /// No path matches.
    IngressPath = "ingress-path",
    /// A TLS Secret is not there, or no TLS Secret.
    TlsSecret = "tls-secret",
    /// No controller gave the Ingress an address.
    IngressNotServed = "ingress-not-served",
    /// A route leads to a Service that is not there.
    BackendMissing = "backend-missing",
    /// A route leads to a port that the Service does not have.
    BackendPortMissing = "backend-port-missing",

    // Mesh.
    /// The namespace does not ask for sidecars.
    InjectionLabel = "injection-label",
    /// The pod asks for none.
    InjectionOptOut = "injection-opt-out",
    /// The pod is older than what would have injected its sidecar.
    InjectedTooLate = "injected-too-late",
    /// There is no injecting webhook.
    InjectorMissing = "injector-missing",
    /// The injecting webhook has nobody behind it.
    InjectorDown = "injector-down",
    /// There is no such VirtualService.
    VirtualServiceMissing = "virtual-service-missing",
    /// The VirtualService is for other hosts than any Service has.
    VirtualServiceHost = "virtual-service-host",
    /// A destination's subset is defined nowhere.
    SubsetMissing = "subset-missing",
    /// A subset's labels match no pod.
    SubsetMatchesNothing = "subset-matches-nothing",
    /// The weights are not those expected.
    WeightsDiffer = "weights-differ",
    /// The client has no sidecar, and sidecars apply the routes.
    ClientOutsideMesh = "client-outside-mesh",
    /// The objects are right, the shares are not.
    WeightsNotFollowed = "weights-not-followed",
    /// Requests of one connection, one client or one moment share their arm.
    NotDrawnOneByOne = "not-drawn-one-by-one",

    // Gateway API.
    /// The GatewayClass is not there.
    GatewayClassMissing = "gateway-class-missing",
    /// No controller accepted the GatewayClass.
    GatewayClassNotAccepted = "gateway-class-not-accepted",
    /// There is no such Gateway.
    GatewayMissing = "gateway-missing",
    /// A condition of the Gateway, or of one of its listeners, is false.
    GatewayCondition = "gateway-condition",
    /// The Gateway has no address.
    GatewayAddressMissing = "gateway-address-missing",
    /// The controller has not seen the last change.
    StaleGeneration = "stale-generation",
    /// There is no such HTTPRoute.
    RouteObjectMissing = "http-route-missing",
    /// The route's parent is not there.
    ParentMissing = "parent-missing",
    /// The Gateway has no listener of that name or port.
    ListenerMissing = "listener-missing",
    /// No listener's hostname intersects the route's.
    HostnameMismatch = "hostname-mismatch",
    /// The listener takes no routes from that namespace.
    NamespaceNotAllowed = "namespace-not-allowed",
    /// A condition of the route is false.
    RouteCondition = "http-route-condition",
    /// A reference into another namespace is not granted.
    GrantMissing = "reference-grant-missing",
    /// No match is for the path.
    RoutePath = "http-route-path",
}

impl fmt::Display for CauseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a claim was broken, as evidence names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For reports and statistics.
    pub kind: CauseKind,
    /// What is wrong, with which object: one sentence that stands alone, without its full stop.
    pub wrong: String,
    /// What to change, an imperative.
    pub change: String,
    /// The command that shows it.
    pub see: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.wrong)?;
        writeln!(f, "change: {}", self.change)?;
        write!(f, "see:    {}", self.see)
    }
}

impl CauseKind {
    /// Whether it may be a matter of time alone: what a kubelet, a controller or a proxy has yet to do, or has not said in
    /// time. Others are in what somebody wrote, and stay until somebody writes it anew.
    pub(super) const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::PodNotScheduled
                | Self::PodNotStarted
                | Self::ProbeFailing
                | Self::PodNotReady
                | Self::NodeNotReady
                | Self::NodeAgentNotReady
                | Self::NothingListens
                | Self::NodesApart
                | Self::PodsNotForwarded
                | Self::PodUnreachable
                | Self::EndpointsDiffer
                | Self::TargetPortRefused
                | Self::ServiceNotProgrammed
                | Self::NoLocalEndpoints
                | Self::DnsNoSuchName
                | Self::DnsFails
                | Self::LoadBalancerPending
                | Self::IngressNotServed
                | Self::InjectorDown
                | Self::WeightsNotFollowed
                | Self::NotDrawnOneByOne
                | Self::GatewayClassNotAccepted
                | Self::GatewayCondition
                | Self::GatewayAddressMissing
                | Self::StaleGeneration
                | Self::RouteCondition
        )
    }
}

/// An object of the API, as people name it and as `kubectl` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Object<'a> {
    /// A namespaced one.
    pub(crate) const fn new(kind: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Self {
            kind,
            namespace: Some(namespace),
            name,
        }
    }

    /// One of the cluster's.
    pub(crate) const fn of_cluster(kind: &'a str, name: &'a str) -> Self {
        Self {
            kind,
            namespace: None,
            name,
        }
    }

    /// The command that shows it.
    pub(crate) fn see(&self) -> String {
        self.kubectl("get", " -o yaml")
    }

    /// The command that shows it with its events.
    pub(crate) fn describe(&self) -> String {
        self.kubectl("describe", "")
    }

    fn kubectl(&self, verb: &str, rest: &str) -> String {
        let namespace = self
            .namespace
            .map(|namespace| format!(" -n {namespace}"))
            .unwrap_or_default();
        let kind = self.kind.to_lowercase();
        format!("kubectl{namespace} {verb} {kind} {}{rest}", self.name)
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// `; did you mean X?`, or nothing.
pub(crate) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_stands_alone() {
        let service = Object::new("Service", "shop", "backend");
        let cause = Cause {
            kind: CauseKind::ServiceType,
            wrong: format!("{service} is of type ExternalName"),
            change: format!("set spec.type of {service} to ClusterIP"),
            see: service.see(),
        };
        insta::assert_snapshot!(cause, @"
        Service shop/backend is of type ExternalName
        change: set spec.type of Service shop/backend to ClusterIP
        see:    kubectl -n shop get service backend -o yaml
        ");
        assert_eq!(
            Object::of_cluster("GatewayClass", "envoy").describe(),
            "kubectl describe gatewayclass envoy"
        );
    }

    #[test]
    fn names_are_kebab_case_and_unique() {
        let names: std::collections::BTreeSet<_> =
            CauseKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), CauseKind::ALL.len());
        for name in names {
            let kebab = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(kebab, "{name}");
        }
    }
}
