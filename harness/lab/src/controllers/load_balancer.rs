//! Addresses of `type: LoadBalancer` Services.
//!
//! Start from [`run`]. An address is only written into the Service's status: that packets to it arrive
//! is the work of the nodes' proxies and of the outside's routes. Services with a
//! `spec.loadBalancerClass` are somebody else's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::{Api, Client, ResourceExt as _};

use super::informer::Informers;
use super::owner;
use super::pods::by_age;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};
use crate::topology::LOAD_BALANCER_CIDR;

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let network = match LOAD_BALANCER_CIDR.parse() {
        Ok(network) => network,
        Err(error) => {
            tracing::error!(%error, LOAD_BALANCER_CIDR, "there are no load-balancer addresses");
            return;
        }
    };
    let mut world = World::of(informers);
    let controller = LoadBalancers {
        services: world.watch(),
        events: Recorder::new(client.clone(), "service-controller"),
        network,
        client,
    };
    drive(world, controller).await;
}

struct LoadBalancers {
    client: Client,
    services: Cache<Service>,
    events: Recorder,
    network: Ipv4Net,
}

/// Whether a Service is to have one of our addresses.
fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.is_none()
        && service.metadata.deletion_timestamp.is_none()
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    ingress.unwrap_or_default()
}

impl Controller for LoadBalancers {
    async fn reconcile(&mut self, _: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        // The oldest first, so that who had an address keeps it. An address that one gives back
        // may be what another waits for, so all are looked at.
        let mut services = self.services.all();
        services.sort_by(|one, two| by_age(&**one, &**two));
        let mut taken = BTreeSet::new();
        let mut without = Vec::new();
        for service in services {
            let address = self.address(&service);
            match address {
                Some(address) if is_ours(&service) && taken.insert(address) => {}
                _ if is_ours(&service) => without.push(service),
                Some(_) => {
                    steps.take(self.write(&service, None).await);
                    let message = "Deleted load balancer".to_owned();
                    self.events
                        .record(&*service, Type::Normal, "DeletedLoadBalancer", message);
                }
                None => {}
            }
        }
        for service in without {
            match choose(self.network, &service, &taken) {
                Ok(address) => {
                    taken.insert(address);
                    if steps
                        .take(self.write(&service, Some(address)).await)
                        .is_some()
                    {
                        let message = "Ensured load balancer".to_owned();
                        self.events
                            .record(&*service, Type::Normal, "EnsuredLoadBalancer", message);
                    }
                }
                Err(why) => {
                    let message = format!(
                        "Error syncing load balancer: failed to ensure load balancer: {why}"
                    );
                    self.events
                        .record(&*service, Type::Warning, "SyncLoadBalancerFailed", message);
                }
            }
        }
        steps.end(Next::Change)
    }
}

impl LoadBalancers {
    /// The address of ours that a Service has, if it is the one that it asks for.
    fn address(&self, service: &Service) -> Option<Ipv4Addr> {
        let address: Ipv4Addr = ingress(service).first()?.ip.as_ref()?.parse().ok()?;
        let asked = asked(service);
        let fits = asked.is_none_or(|asked| asked == address.to_string() || !is_ours(service));
        (fits && self.network.contains(&address)).then_some(address)
    }

    async fn write(&self, service: &Service, address: Option<Ipv4Addr>) -> kube::Result<()> {
        let namespace = service.namespace().unwrap_or_default();
        let api = Api::<Service>::namespaced(self.client.clone(), &namespace);
        let mut changed = service.clone();
        let ingress = address.map(|address| {
            vec![LoadBalancerIngress {
                ip: Some(address.to_string()),
                ip_mode: Some("VIP".to_owned()),
                ..LoadBalancerIngress::default()
            }]
        });
        changed.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus { ingress });
        owner::replace_status(&api, &self.services, &changed).await?;
        Ok(())
    }
}

/// The address that a Service asks for (`spec.loadBalancerIP`, deprecated but honoured).
fn asked(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let asked = spec.load_balancer_ip.as_deref();
    asked.filter(|asked| !asked.is_empty())
}

/// The address that a Service asks for, or the lowest free one.
fn choose(
    network: Ipv4Net,
    service: &Service,
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Ipv4Addr, String> {
    let Some(asked) = asked(service) else {
        let free = network.hosts().find(|address| !taken.contains(address));
        return free.ok_or_else(|| format!("no address of {network} is free"));
    };
    let address: Ipv4Addr = asked
        .parse()
        .map_err(|_| format!("spec.loadBalancerIP {asked:?} is not an IPv4 address"))?;
    if !network.contains(&address) {
        return Err(format!("spec.loadBalancerIP {asked} is not in {network}"));
    }
    if taken.contains(&address) {
        return Err(format!("spec.loadBalancerIP {asked} is already taken"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Event, Service};
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    use super::{choose, ingress};
    use crate::controllers::tests::Cluster;

    #[test]
    fn addresses_are_chosen_in_order_or_as_asked() {
        let network = "172.30.1.0/29".parse().unwrap();
        let service = |spec: Value| serde_json::from_value(json!({"spec": spec})).unwrap();
        let taken: BTreeSet<_> = ["172.30.1.1".parse().unwrap()].into();
        let table = [
            (json!({}), Ok("172.30.1.2")),
            (json!({"loadBalancerIP": "172.30.1.5"}), Ok("172.30.1.5")),
            (
                json!({"loadBalancerIP": "172.30.1.1"}),
                Err("already taken"),
            ),
            (
                json!({"loadBalancerIP": "10.0.0.1"}),
                Err("is not in 172.30.1.0/29"),
            ),
            (
                json!({"loadBalancerIP": "x"}),
                Err("is not an IPv4 address"),
            ),
        ];
        for (spec, expected) in table {
            match (choose(network, &service(spec.clone()), &taken), expected) {
                (Ok(found), Ok(wanted)) => assert_eq!(found.to_string(), wanted, "{spec}"),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{spec}: {found}"),
                (found, _) => panic!("{spec}: {found:?}"),
            }
        }
        let all = network.hosts().collect();
        let full = choose(network, &service(json!({})), &all);
        assert_eq!(full, Err("no address of 172.30.1.0/29 is free".to_owned()));
    }

    #[tokio::test]
    async fn an_address_is_given_and_taken_back() {
        let cluster = Cluster::with_nodes(&[]).await;
        let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let api = cluster.api::<Service>();
        let ports = json!([{"port": 80}]);
        let balanced = json!({"type": "LoadBalancer", "ports": ports});
        let classed =
            json!({"type": "LoadBalancer", "ports": ports, "loadBalancerClass": "example.com/lb"});
        cluster.create(api.clone(), service("other", classed)).await;
        cluster
            .create(api.clone(), service("a", balanced.clone()))
            .await;
        let has = |name: &'static str, expected: Option<&'static str>| {
            move |found: &[Service]| {
                found.iter().any(|service| {
                    let address = ingress(service).first().and_then(|one| one.ip.as_deref());
                    service.name_any() == name && address == expected
                })
            }
        };
        let first = has("a", Some("172.30.1.1"));
        let found = cluster.until(api.clone(), "", "an address", first).await;
        let a = found.iter().find(|service| service.name_any() == "a");
        assert_eq!(ingress(a.unwrap())[0].ip_mode.as_deref(), Some("VIP"));
        assert!(has("other", None)(&found), "its class is not ours");
        cluster.create(api.clone(), service("b", balanced)).await;
        let second = has("b", Some("172.30.1.2"));
        cluster
            .until(api.clone(), "", "another address", second)
            .await;
        let back = json!({"spec": {"type": "ClusterIP"}});
        cluster.merge::<Service>("a", back).await;
        let none = has("a", None);
        cluster.until(api, "", "no address", none).await;
        let told = |events: &[Event]| {
            ["EnsuredLoadBalancer", "DeletedLoadBalancer"]
                .iter()
                .all(|reason| {
                    events
                        .iter()
                        .any(|one| one.reason.as_deref() == Some(reason))
                })
        };
        cluster
            .until(cluster.api::<Event>(), "", "events", told)
            .await;
    }
}
