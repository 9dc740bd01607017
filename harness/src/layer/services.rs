//! Diagnosing Services, cluster DNS and load balancers.
//!
//! Start from [`diagnose`]. What follows from what is seen is in [`judge`], [`dns`] and [`balancer`].
//! Traffic is tried only where the objects are right; an endpoint that is not reached directly is
//! the container network's matter, and handed on.

pub(super) mod balancer;
pub(super) mod dns;
pub(super) mod judge;
mod traffic;

#[cfg(test)]
pub(super) mod tests;

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::ResourceExt as _;
use strata_probe::{DnsReply, DnsSpec};

use self::judge::{Direct, Seen};
use super::labels::Labels;
use super::look::{Look, attempt};
use super::tried::Tried;
use super::{cni, labels, workload};
use crate::pod::PodView;
use crate::probe::Vantage;
use crate::verdict::{Cause, NoVerdict};

/// As many endpoints are tried directly.
const ENDPOINTS: usize = 6;

/// Names the cause why a Service is not reached.
pub(super) async fn diagnose(
    look: Look<'_>,
    namespace: &str,
    name: &str,
    port: Option<u16>,
    from: &Vantage,
) -> Result<Option<Cause>, NoVerdict> {
    let mut seen = objects(look, namespace, name, port).await?;
    seen.from = judge::Vantage {
        name: from.pod().map_or_else(
            || from.name(),
            |pod| format!("pod {}/{}", pod.namespace, pod.name),
        ),
        node: from.pod().map(|pod| pod.node.clone()),
    };
    if let Some(cause) = judge::cause(&seen) {
        return Ok(Some(cause));
    }
    let Some(service) = seen.service().cloned() else {
        return Ok(None);
    };
    if from.pod().is_some() {
        inside(look, &mut seen, &service, from).await?;
    } else {
        outside(look, &mut seen, &service, from).await?;
    }
    if let Some(cause) = judge::cause(&seen) {
        return Ok(Some(cause));
    }
    // Not the Service's own: an endpoint that is not reached, or its name that is not resolved.
    let unreached = seen
        .direct
        .iter()
        .find(|direct| direct.tried != Tried::Answers);
    let endpoint = unreached.and_then(|direct| {
        let pod = seen
            .workload
            .pods
            .iter()
            .find(|pod| pod.name_any() == direct.pod)?;
        PodView::of(pod)?.in_family(direct.at.parse::<SocketAddr>().ok()?.ip())
    });
    match endpoint {
        Some(endpoint) => cni::diagnose(look, from, &endpoint).await,
        None if from.pod().is_some() => diagnose_dns(look, from).await,
        None => Ok(None),
    }
}

/// Everything that the API says of a Service.
pub(super) async fn objects(
    look: Look<'_>,
    namespace: &str,
    name: &str,
    port: Option<u16>,
) -> Result<Seen, NoVerdict> {
    Ok(Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port,
        services: look.services().await?,
        slices: look.slices(namespace, name).await?,
        workload: look.workload(namespace, Labels::new()).await?,
        ..Seen::default()
    })
}

/// Attempts from a pod: at the ClusterIP, at each endpoint, and at the ClusterIP from another node.
async fn inside(
    look: Look<'_>,
    seen: &mut Seen,
    service: &Service,
    from: &Vantage,
) -> Result<(), NoVerdict> {
    let ports: Vec<u16> = judge::ports(service)
        .iter()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| u16::try_from(port.port).ok())
        .filter(|port| seen.port.is_none_or(|asked| asked == *port))
        .collect();
    let direct = endpoints(seen, service, &ports)
        .into_iter()
        .map(|(pod, ip, port)| async move {
            Some(Direct {
                pod,
                at: SocketAddr::new(ip, port).to_string(),
                tried: attempt(from, ip, port).await?,
            })
        });
    seen.direct = join_all(direct).await.into_iter().flatten().collect();
    let mut failed = None;
    for ip in cluster_ips(service) {
        let tried = ports
            .iter()
            .map(|port| async move { Some((*port, attempt(from, ip, *port).await?)) });
        let tried: Vec<_> = join_all(tried).await.into_iter().flatten().collect();
        let bad = tried.iter().find(|(_, tried)| *tried != Tried::Answers);
        failed = bad.map(|(port, _)| (ip, *port));
        seen.cluster_ip = Some(ip);
        seen.at_cluster_ip = tried;
        if failed.is_some() {
            break;
        }
    }
    let Some((ip, port)) = failed else {
        return Ok(());
    };
    let own = from.pod().map(|pod| pod.node.clone());
    let mut pods = seen.workload.pods.clone();
    if let Some(pod) = from.pod().filter(|pod| pod.namespace != seen.namespace) {
        pods.extend(look.within::<Pod>(&pod.namespace).await?);
    }
    let other = look
        .askable(&pods)
        .into_iter()
        .find(|(view, _)| Some(&view.node) != own.as_ref());
    if let Some((view, vantage)) = other {
        seen.elsewhere = attempt(&vantage, ip, port)
            .await
            .map(|tried| (view.node, tried));
    }
    Ok(())
}

/// The ClusterIPs of a Service, one a family; none of a headless one.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let first = spec
        .cluster_ip
        .iter()
        .filter(|_| spec.cluster_ips.is_none());
    let all = first.chain(spec.cluster_ips.iter().flatten());
    all.filter_map(|ip| ip.parse().ok()).collect()
}

/// Endpoints to try: pod (its name, or nothing), address, port.
fn endpoints(seen: &Seen, service: &Service, ports: &[u16]) -> Vec<(String, IpAddr, u16)> {
    let name_of = |port: u16| {
        let of = judge::ports(service)
            .iter()
            .find(|it| it.port == i32::from(port));
        of.and_then(|it| it.name.clone()).unwrap_or_default()
    };
    let names: Vec<_> = ports.iter().map(|port| name_of(*port)).collect();
    let slices = seen.slices.iter();
    let all = slices.flat_map(|slice| {
        let of_slice = slice.ports.iter().flatten();
        let wanted = of_slice.filter(|port| names.contains(&port.name.clone().unwrap_or_default()));
        let numbers: Vec<_> = wanted
            .filter_map(|port| u16::try_from(port.port?).ok())
            .collect();
        let ready = slice.endpoints.iter().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        });
        ready.flat_map(move |endpoint| {
            let pod = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.clone());
            let ip = endpoint
                .addresses
                .first()
                .and_then(|ip| ip.parse::<IpAddr>().ok());
            let numbers = numbers.clone();
            ip.into_iter().flat_map(move |ip| {
                let pod = pod.clone().unwrap_or_default();
                numbers
                    .clone()
                    .into_iter()
                    .map(move |port| (pod.clone(), ip, port))
            })
        })
    });
    all.take(ENDPOINTS).collect()
}

/// Attempts from outside the cluster at the node ports.
async fn outside(
    look: Look<'_>,
    seen: &mut Seen,
    service: &Service,
    from: &Vantage,
) -> Result<(), NoVerdict> {
    let nodes: Vec<Node> = look.all().await?;
    let ports: Vec<u16> = judge::ports(service)
        .iter()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| u16::try_from(port.node_port?).ok())
        .collect();
    let at = nodes.iter().filter_map(|node| {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses
            .iter()
            .find(|address| address.type_ == "InternalIP")?;
        Some((node.name_any(), internal.address.parse::<IpAddr>().ok()?))
    });
    let tried = at.flat_map(|(node, ip)| {
        ports.iter().map(move |port| {
            let node = node.clone();
            async move { Some((node, *port, attempt(from, ip, *port).await?)) }
        })
    });
    seen.at_nodes = join_all(tried).await.into_iter().flatten().collect();
    Ok(())
}

/// Names the cause why names are not resolved.
pub(super) async fn diagnose_dns(
    look: Look<'_>,
    from: &Vantage,
) -> Result<Option<Cause>, NoVerdict> {
    let (namespace, name) = dns::KUBE_DNS;
    let services = look.services().await?;
    let service = services.into_iter().find(|service| {
        service.namespace().as_deref() == Some(namespace) && service.name_any() == name
    });
    let ask = |server: Option<String>| {
        let spec = DnsSpec {
            server,
            attempts: 1,
            timeout_ms: 1500,
            ..DnsSpec::new(dns::NAME, "A")
        };
        async move { from.ask(&spec).await.ok()?.pop() }
    };
    let mut seen = dns::Seen {
        from: from.name(),
        node: from.pod().map(|pod| pod.node.clone()),
        service,
        workload: look.workload(namespace, Labels::new()).await?,
        reply: ask(None).await,
        direct: Vec::new(),
    };
    if let Some(cause) = dns::cause(&seen) {
        return Ok(Some(cause));
    }
    let selector = seen
        .service
        .as_ref()
        .map(judge::selector)
        .unwrap_or_default();
    if selector.is_empty() {
        return Ok(None);
    }
    let pods = labels::selected(&selector, &seen.workload.pods).into_iter();
    let views: Vec<_> = pods
        .filter(|pod| workload::ready(pod))
        .filter_map(PodView::of)
        .collect();
    let direct: Vec<(PodView, Option<DnsReply>)> = join_all(views.into_iter().map(|view| async {
        let reply = ask(Some(view.ip.to_string())).await;
        (view, reply)
    }))
    .await;
    seen.direct = direct
        .iter()
        .filter_map(|(view, reply)| Some((view.name.clone(), reply.clone()?)))
        .collect();
    if let Some(cause) = dns::cause(&seen) {
        return Ok(Some(cause));
    }
    // Nothing came back from a pod of it: then it is the path to that pod.
    let silent = direct
        .iter()
        .find(|(_, reply)| reply.as_ref().is_some_and(|reply| reply.rcode.is_none()));
    match silent {
        Some((view, _)) => cni::diagnose(look, from, view).await,
        None => Ok(None),
    }
}

/// Names the cause why a load balancer has no address.
pub(super) async fn diagnose_balancer(
    look: Look<'_>,
    namespace: &str,
    name: &str,
) -> Result<Option<Cause>, NoVerdict> {
    Ok(balancer::cause(&balancer::Seen {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        services: look.services().await?,
        events: look.within(namespace).await?,
        nodes: look.all().await?,
    }))
}
