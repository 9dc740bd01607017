//! The way into the cluster that an Ingress or a Gateway opens: its address, and who serves it.
//!
//! Start from [`Entrance::of_ingress`] or [`Entrance::of_gateway`]. Requests go from outside the
//! cluster to the address that the object's status tells. Who serves them is found by following that
//! address: to the Service that has it, and to the pods behind that. Rule: an answer counts for a
//! controller only if the backend saw one of these pods as its client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_api::gateways::Gateway;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use strata::budget::{CONVERGE, PROVISION};
use strata::wait::{self, Progress};
use strata::wire::{BriefReply, OneRequest, Reply, RequestSpec, RequestsSpec};
use strata::{NoVerdict, Outcome, PodView, Scope, Vantage, expect_eq};

use crate::said;

/// So many requests that differ are sent at a time: a specification is one argument of a command.
const BATCH: usize = 200;

/// An address, as seen from outside the cluster.
pub(crate) struct Entrance {
    outside: Vantage,
    address: String,
}

impl Entrance {
    /// The address of an Ingress of the fixture; the same for all that a controller serves.
    pub(crate) async fn of_ingress(scope: &Scope, name: &str) -> Result<Self, NoVerdict> {
        Self::at(scope, address_of_ingress(scope, name).await?)
    }

    /// The address of a Gateway of the fixture.
    pub(crate) async fn of_gateway(scope: &Scope, name: &str) -> Result<Self, NoVerdict> {
        let what = format!("Gateway {name} has an address");
        let address = wait::until(&what, CONVERGE, async || {
            let gateway: Gateway = scope.get_in(scope.fixture(), name).await?;
            Ok(there(gateway_address(&gateway)))
        });
        Self::at(scope, address.await?)
    }

    /// Any address.
    pub(crate) fn at(scope: &Scope, address: String) -> Result<Self, NoVerdict> {
        Ok(Self {
            outside: scope.outside()?,
            address,
        })
    }

    /// Waits until anybody answers at the address, whatever that is, or for as long as a proxy may take to be there: a status
    /// may tell an address before. That nobody does is for whoever asks next to find.
    pub(crate) async fn answers(&self) {
        let spec = self.request("", "/");
        let _ = wait::until("somebody answers at the address", PROVISION, async || {
            let reply = self.send(&spec).await?;
            Ok(match reply.status {
                Some(_) => Progress::Ready(()),
                None => Progress::NotYet(said::said(&reply)),
            })
        })
        .await;
    }

    /// The same, once a host is served: the last of the fixture, so that with it all before it are.
    /// Ten requests in a row, since there may be several proxies behind the address.
    pub(crate) async fn settled(self, host: &str) -> Result<Self, NoVerdict> {
        self.settles(host).await?;
        Ok(self)
    }

    /// Waits until a host is served.
    pub(crate) async fn settles(&self, host: &str) -> Result<(), NoVerdict> {
        let spec = RequestSpec {
            count: 10,
            ..self.request(host, "/")
        };
        let what = format!("host {host} is served");
        wait::until(&what, CONVERGE, async || {
            let failures = self.outside.request(&spec).await?.failures();
            Ok(match failures.is_empty() {
                true => Progress::Ready(()),
                false => Progress::NotYet(format!("of ten requests: {failures:?}")),
            })
        })
        .await
    }

    /// The same, once each of the proxies behind the address has served that host: from then on none
    /// of them answers by what was in force before. Whether others answer is not asked here.
    pub(crate) async fn at_every_proxy(self, scope: &Scope, host: &str) -> Result<Self, NoVerdict> {
        let proxies = self.servers(scope).await?;
        let mut unseen: BTreeSet<_> = proxies.iter().map(|pod| pod.name.clone()).collect();
        let spec = RequestSpec {
            count: 10,
            ..self.request(host, "/")
        };
        let what = format!("every proxy has served host {host}, the fixture's last");
        wait::until(&what, CONVERGE, async || {
            let answers = self.outside.request(&spec).await?;
            let by = answers
                .0
                .iter()
                .filter_map(|reply| served_by(reply, &proxies));
            let by: BTreeSet<_> = by.map(|pod| pod.name.clone()).collect();
            unseen.retain(|pod| !by.contains(pod));
            Ok(match unseen.is_empty() || by.is_empty() {
                true => Progress::Ready(()),
                false => Progress::NotYet(format!("not yet by {unseen:?}")),
            })
        })
        .await?;
        scope.record(
            "converged",
            format!("host {host} seen at {} proxies", proxies.len()),
        );
        Ok(self)
    }

    /// The address as a URL without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", bracketed(&self.address))
    }

    /// The vantage that requests start from.
    pub(crate) fn outside(&self) -> &Vantage {
        &self.outside
    }

    /// A port of the address, as one is connected to.
    pub(crate) fn port(&self, port: u16) -> String {
        format!("{}:{port}", bracketed(&self.address))
    }

    /// A GET over HTTP, with a Host header other than the address unless `host` is empty.
    pub(crate) fn request(&self, host: &str, path: &str) -> RequestSpec {
        RequestSpec {
            host: (!host.is_empty()).then(|| host.to_owned()),
            ..RequestSpec::get(format!("{}{path}", self.url()))
        }
    }

    /// The same at a port other than 80.
    pub(crate) fn request_at(&self, port: u16, host: &str, path: &str) -> RequestSpec {
        RequestSpec {
            url: format!("http://{}:{port}{path}", bracketed(&self.address)),
            ..self.request(host, path)
        }
    }

    /// A GET over HTTPS: the name is the URL's, so also the server name, and the address is connected to.
    pub(crate) fn secure(&self, host: &str, path: &str, ca: &str) -> RequestSpec {
        RequestSpec {
            connect_to: Some(format!("{}:443", bracketed(&self.address))),
            ca: Some(ca.to_owned()),
            ..RequestSpec::get(format!("https://{host}{path}"))
        }
    }

    /// The same at a port other than 443.
    pub(crate) fn secure_at(&self, port: u16, host: &str, path: &str, ca: &str) -> RequestSpec {
        RequestSpec {
            connect_to: Some(format!("{}:{port}", bracketed(&self.address))),
            ..self.secure(host, path, ca)
        }
    }

    /// The one reply to a request.
    pub(crate) async fn send(&self, spec: &RequestSpec) -> Result<Reply, NoVerdict> {
        self.outside.send(spec).await
    }

    /// The reply to a GET.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Result<Reply, NoVerdict> {
        self.send(&self.request(host, path)).await
    }

    /// What comes of many requests that differ, in their order; over several new connections.
    pub(crate) async fn send_all(
        &self,
        requests: &[OneRequest],
    ) -> Result<Vec<BriefReply>, NoVerdict> {
        let mut replies = Vec::new();
        for batch in requests.chunks(BATCH) {
            let spec = RequestsSpec {
                concurrency: 8,
                ..RequestsSpec::new(self.url(), batch.to_vec())
            };
            replies.extend(self.outside.requests(&spec).await?);
        }
        Ok(replies)
    }

    /// What comes of a GET to every host and path of a table.
    pub(crate) async fn table(&self, cases: &[Case]) -> Result<Table, NoVerdict> {
        let mut table = Table::default();
        for (host, path, expected) in cases {
            let case = format!("{host}{path}");
            let reply = self.get(host, path).await?;
            table.seen.insert(case.clone(), said::said(&reply));
            table.expected.insert(case, (*expected).to_owned());
        }
        Ok(table)
    }

    /// The pods behind the address.
    pub(crate) async fn servers(&self, scope: &Scope) -> Result<Vec<PodView>, NoVerdict> {
        match serving(scope, &self.address).await? {
            Some(service) => pods_of(scope, &service).await,
            None => self.servers_of_node(scope).await,
        }
    }

    /// The pods that serve at a port of a node whose address it is: a controller without a load balancer, as
    /// minikube's addon has it.
    async fn servers_of_node(&self, scope: &Scope) -> Result<Vec<PodView>, NoVerdict> {
        let pods: Vec<Pod> = scope.list_everywhere("").await?;
        let serving = pods.iter().filter(|pod| serves_its_node(pod));
        let address: Option<IpAddr> = self.address.parse().ok();
        let views = serving.filter_map(PodView::of);
        let servers: Vec<_> = views.filter(|pod| Some(pod.host_ip) == address).collect();
        if servers.is_empty() {
            return Err(NoVerdict::new(format!(
                "no Service has the address {}, and no pod has port 80 of a node with that address",
                self.address
            )));
        }
        Ok(servers)
    }
}

/// Whether a pod has the port of its node that HTTP goes to.
fn serves_its_node(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.any(|port| port.host_port == Some(80))
}

/// What has an address: the cluster IP of its Service, as URLs have it, and the pods behind that.
pub(crate) async fn behind(
    scope: &Scope,
    address: &str,
) -> Result<(String, Vec<PodView>), NoVerdict> {
    let service = serving(scope, address).await?.ok_or_else(|| {
        NoVerdict::new(format!("no Service has the address {address}")).with_likely(
            "the controller serves at its nodes' own addresses, which are no Service's",
        )
    })?;
    let pods = pods_of(scope, &service).await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip);
    Ok((bracketed(&ip.unwrap_or_default()), pods))
}

/// The Service that has an address.
async fn serving(scope: &Scope, address: &str) -> Result<Option<Service>, NoVerdict> {
    let mut services: Vec<Service> = scope.list_everywhere("").await?;
    let own = services
        .iter()
        .position(|service| addresses(service).contains(address));
    Ok(own.map(|own| services.swap_remove(own)))
}

/// The ready pods that a Service selects.
async fn pods_of(scope: &Scope, service: &Service) -> Result<Vec<PodView>, NoVerdict> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector: Vec<_> = selector
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    scope.ready_pods_in(&namespace, &selector.join(",")).await
}

/// A host, a path, and who is to answer.
pub(crate) type Case = (&'static str, &'static str, &'static str);

/// What was expected of each case of a table, and what was seen.
#[derive(Default)]
pub(crate) struct Table {
    /// By case.
    pub(crate) expected: BTreeMap<String, String>,
    /// By case.
    pub(crate) seen: BTreeMap<String, String>,
}

impl Table {
    /// Whether every case came as expected; `likely` is what a controller does that sends requests elsewhere.
    pub(crate) fn judged(&self, likely: &str) -> Outcome {
        let differs = |case: &&String| self.expected.get(*case) != self.seen.get(*case);
        let of = |map: &BTreeMap<String, String>, case: &String| {
            map.get(case).is_some_and(|it| by_a_pod(it))
        };
        let refused = |case: &String| !of(&self.expected, case) && !of(&self.seen, case);
        let likely = match self.expected.keys().filter(differs).all(refused) {
            true => "the controller refuses requests otherwise than it should",
            false => likely,
        };
        expect_eq(
            "who answers, by host and path",
            &self.expected,
            &self.seen,
            likely,
        )
    }

    /// The first case that a pod should have answered and did not, or not that pod: of this an object may be the
    /// cause. What nobody should have answered is so by the objects' own will.
    pub(crate) fn unanswered<'a>(&self, cases: &'a [Case]) -> Option<&'a Case> {
        let mut cases = cases.iter();
        cases.find(|(host, path, expected)| {
            let seen = self.seen.get(&format!("{host}{path}"));
            by_a_pod(expected) && seen.map(String::as_str) != Some(expected)
        })
    }
}

fn by_a_pod(said: &str) -> bool {
    said.contains(" by ")
}

/// The pod, of these, that a backend saw as its client.
pub(crate) fn served_by<'a>(reply: &Reply, servers: &'a [PodView]) -> Option<&'a PodView> {
    let client: IpAddr = reply.answer.as_ref()?.client.ip();
    servers.iter().find(|pod| pod.ip == client)
}

/// The address of an Ingress of the fixture, once its controller has told one.
pub(crate) async fn address_of_ingress(scope: &Scope, name: &str) -> Result<String, NoVerdict> {
    let what = format!("Ingress {name} has an address");
    wait::until(&what, PROVISION, async || {
        let ingress: Ingress = scope.get_in(scope.fixture(), name).await?;
        Ok(there(ingress_address(&ingress)))
    })
    .await
}

fn there(address: Option<String>) -> Progress<String> {
    address.map_or_else(
        || Progress::NotYet("its status has none".to_owned()),
        Progress::Ready,
    )
}

/// The address in the status of an Ingress.
pub(crate) fn ingress_address(ingress: &Ingress) -> Option<String> {
    let balancer = ingress.status.as_ref()?.load_balancer.as_ref()?;
    let first = balancer.ingress.as_ref()?.first()?;
    first.ip.clone().or_else(|| first.hostname.clone())
}

/// The address in the status of a Gateway.
pub(crate) fn gateway_address(gateway: &Gateway) -> Option<String> {
    let addresses = gateway.status.as_ref()?.addresses.as_ref()?;
    Some(addresses.first()?.value.clone())
}

fn addresses(service: &Service) -> BTreeSet<String> {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let given = status
        .into_iter()
        .flat_map(|status| status.ingress.iter().flatten());
    given
        .filter_map(|it| it.ip.clone().or_else(|| it.hostname.clone()))
        .collect()
}

/// An IPv6 address as URLs have it.
fn bracketed(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => address.to_owned(),
    }
}
