//! What a failure is about.

use std::collections::BTreeMap;

use crate::pod::PodView;
use crate::probe::Vantage;

/// What a check looked at when its claim was broken: where [`super::diagnose`] begins to look.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Packets from a vantage to a pod's own address.
    PodPath {
        /// Where they start.
        from: &'a Vantage,
        /// Where they should arrive.
        to: &'a PodView,
    },
    /// Traffic to a Service.
    Service {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The port of the Service that was used; all of them if absent.
        port: Option<u16>,
        /// Where it starts.
        from: &'a Vantage,
    },
    /// Names that are looked up.
    Dns {
        /// Where.
        from: &'a Vantage,
    },
    /// The address of a Service of `type: LoadBalancer`.
    LoadBalancer {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A request through an Ingress.
    Ingress {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The Host header, if one was sent.
        host: Option<&'a str>,
        /// The path asked for.
        path: &'a str,
    },
    /// Pods that should have a sidecar.
    Sidecar {
        /// Their namespace.
        namespace: &'a str,
        /// Their labels `app`.
        apps: &'a [&'a str],
    },
    /// A weighted split of a VirtualService.
    Split {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        virtual_service: &'a str,
        /// Arms with the weights that are expected.
        expected: &'a [(&'a str, f64)],
        /// Each arm's observed share, 0 to 1 ([`crate::Scope::shares`]).
        observed: &'a BTreeMap<String, f64>,
    },
    /// A host of the mesh.
    MeshHost {
        /// The VirtualService's namespace.
        namespace: &'a str,
        /// The VirtualService's name.
        virtual_service: &'a str,
    },
    /// A Gateway (Gateway API).
    Gateway {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The listener that was used, where one was.
        listener: Option<&'a str>,
    },
    /// A request through an HTTPRoute.
    HttpRoute {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The path asked for.
        path: &'a str,
    },
    /// Pods that should run.
    Workload {
        /// Their namespace.
        namespace: &'a str,
        /// Their labels.
        selector: &'a str,
    },
}
