//! Why names are not resolved.
//!
//! Start from [`cause`]. What was asked for is always the API server's own Service, which every
//! cluster has: so the name server is judged, and no name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use strata_probe::{DnsReply, FailureKind, Rcode};

use super::judge::selector;
use super::traffic::not_programmed;
use crate::layer::labels;
use crate::layer::workload;
use crate::verdict::cause::{Cause, CauseKind, Object};

/// The namespace and name of the cluster's name server, in every distribution.
pub(super) const KUBE_DNS: (&str, &str) = ("kube-system", "kube-dns");
/// What is asked for.
pub(super) const NAME: &str = "kubernetes.default.svc.cluster.local.";

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Who asked.
    pub(in crate::layer) from: String,
    /// Its node; nothing if it is outside the cluster.
    pub(in crate::layer) node: Option<String>,
    /// The Service of the name server.
    pub(in crate::layer) service: Option<Service>,
    /// The pods of its namespace, and what explains them.
    pub(in crate::layer) workload: workload::Seen,
    /// What came of asking by `resolv.conf`.
    pub(in crate::layer) reply: Option<DnsReply>,
    /// What came of asking each of its pods directly: pod, reply.
    pub(in crate::layer) direct: Vec<(String, DnsReply)>,
}

/// What came of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    Answered,
    NoSuchName,
    Failed,
    Silent,
}

fn lookup(reply: &DnsReply) -> Lookup {
    match (&reply.rcode, &reply.error) {
        (Some(Rcode::NoError), _) if !reply.addresses.is_empty() => Lookup::Answered,
        (Some(Rcode::NoError | Rcode::NxDomain), _) => Lookup::NoSuchName,
        (Some(_), _) => Lookup::Failed,
        (None, Some(error)) if error.kind == FailureKind::NameServerFailed => Lookup::Failed,
        (None, _) => Lookup::Silent,
    }
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let (namespace, name) = KUBE_DNS;
    let object = Object::new("Service", namespace, name);
    let Some(service) = &seen.service else {
        return Some(Cause {
            kind: CauseKind::ServiceMissing,
            wrong: format!("there is no {object}, the cluster's name server"),
            change: "install cluster DNS (CoreDNS)".into(),
            see: format!("kubectl -n {namespace} get services"),
        });
    };
    let reply = seen.reply.as_ref()?;
    let outcome = lookup(reply);
    if outcome == Lookup::Answered {
        return None;
    }
    let pods = labels::selected(&selector(service), &seen.workload.pods);
    let ready = pods.iter().any(|pod| workload::ready(pod));
    server(seen, service, reply)
        .or_else(|| {
            (!ready).then(|| {
                workload::cause(&workload::Seen {
                    selector: selector(service),
                    ..seen.workload.clone()
                })
            })?
        })
        .or_else(|| (outcome == Lookup::Silent).then(|| programmed(seen, service))?)
        .or_else(|| answered_badly(seen, reply, outcome))
}

/// Another server than the cluster's was asked.
fn server(seen: &Seen, service: &Service, reply: &DnsReply) -> Option<Cause> {
    let spec = service.spec.as_ref()?;
    let own: BTreeSet<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let asked: BTreeSet<_> = reply
        .exchanges
        .iter()
        .map(|exchange| exchange.server.ip())
        .collect();
    if own.is_empty() || asked.is_empty() || asked.intersection(&own).next().is_some() {
        return None;
    }
    let said = |ips: &BTreeSet<IpAddr>| {
        let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
        ips.join(", ")
    };
    Some(Cause {
        kind: CauseKind::DnsServerWrong,
        wrong: format!(
            "{} asks name server {}, and the cluster's is {} (Service {}/{})",
            seen.from,
            said(&asked),
            said(&own),
            KUBE_DNS.0,
            KUBE_DNS.1
        ),
        change:
            "clusterDNS in the kubelet's configuration, or spec.dnsPolicy and spec.dnsConfig of \
                 the pod"
                .into(),
        see: format!("kubectl -n {} get service {}", KUBE_DNS.0, KUBE_DNS.1),
    })
}

/// Its pods answer directly, its ClusterIP does not.
fn programmed(seen: &Seen, service: &Service) -> Option<Cause> {
    let node = seen.node.as_deref()?;
    let answers = |(_, reply): &(String, DnsReply)| lookup(reply) == Lookup::Answered;
    if seen.direct.is_empty() || !seen.direct.iter().all(answers) {
        return None;
    }
    let ip = service.spec.as_ref()?.cluster_ip.clone()?;
    Some(not_programmed(
        node,
        format!(
            "node {node} has not programmed Service {}/{}: {ip}:53 does not answer {}, while each of its \
             pods does directly",
            KUBE_DNS.0, KUBE_DNS.1, seen.from
        ),
    ))
}

fn answered_badly(seen: &Seen, reply: &DnsReply, outcome: Lookup) -> Option<Cause> {
    let (namespace, name) = KUBE_DNS;
    let config = format!("kubectl -n {namespace} get configmap coredns -o yaml");
    let asked = reply
        .exchanges
        .last()
        .map(|exchange| exchange.server.to_string());
    let asked = asked.unwrap_or_else(|| "the name server".into());
    match outcome {
        Lookup::NoSuchName => Some(Cause {
            kind: CauseKind::DnsNoSuchName,
            wrong: format!(
                "{asked} says that {NAME} does not exist, so it does not serve the domain cluster.local"
            ),
            change: "the domain of the kubernetes plugin in ConfigMap kube-system/coredns \
                     (cluster.local), and clusterDomain in the kubelet's configuration"
                .into(),
            see: config,
        }),
        Lookup::Failed => {
            let code = reply
                .rcode
                .as_ref()
                .map_or_else(|| "an error".into(), ToString::to_string);
            Some(Cause {
                kind: CauseKind::DnsFails,
                wrong: format!("{asked} answers {NAME} with {code}, asked by {}", seen.from),
                change:
                    "what the log of CoreDNS names: mostly that it does not reach the API server"
                        .into(),
                see: format!("kubectl -n {namespace} logs -l k8s-app={name}"),
            })
        }
        Lookup::Silent | Lookup::Answered => None,
    }
}
