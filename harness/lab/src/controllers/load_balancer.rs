//! Addresses of `type: LoadBalancer` Services.
//!
//! Start from [`run`]. An address is only written into the Service's status: that packets to it arrive
//! is the work of the nodes' proxies and of the outside's routes. Services with a
//! `spec.loadBalancerClass` are somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::{Api, Client, ResourceExt as _};

use super::informer::Informers;
use super::owner;
use super::pods::by_age;
use super::world::{Cache, Controller, Next, Steps, World, drive};
use crate::event::{Recorder, Type};
use crate::topology::{IpFamily, load_balancer_cidr, nth};

/// Runs the controller.
pub(super) async fn run(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let controller = LoadBalancers {
        services: world.watch(),
        events: Recorder::new(client.clone(), "service-controller"),
        client,
        last: Last::default(),
    };
    drive(world, controller).await;
}

struct LoadBalancers {
    client: Client,
    services: Cache<Service>,
    events: Recorder,
    last: Last,
}

/// The addresses that were given last, by their places in each family's network. One that was given back is given
/// again as late as can be: for two minutes nodes remember where connections to it went.
#[derive(Default)]
struct Last(BTreeMap<IpFamily, u32>);

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
            let has = addresses(&service);
            if !is_ours(&service) {
                if !has.is_empty() {
                    steps.take(self.write(&service, &[]).await);
                    let message = "Deleted load balancer".to_owned();
                    self.events
                        .record(&*service, Type::Normal, "DeletedLoadBalancer", message);
                }
            } else if fits(&service, &has) && has.iter().all(|one| !taken.contains(one)) {
                taken.extend(has);
            } else {
                without.push(service);
            }
        }
        for service in without {
            match choose(&service, &taken, &mut self.last) {
                Ok(addresses) => {
                    taken.extend(addresses.iter().copied());
                    if steps.take(self.write(&service, &addresses).await).is_some() {
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

/// The families that a Service is to have an address of.
fn families(service: &Service) -> Vec<IpFamily> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_ref());
    let families = families.into_iter().flatten();
    families.filter_map(|family| family.parse().ok()).collect()
}

/// The addresses of ours that a Service has.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let ips = ingress(service).iter().filter_map(|one| one.ip.as_ref());
    let ips = ips.filter_map(|ip| ip.parse().ok());
    ips.filter(|ip| load_balancer_cidr(IpFamily::of(*ip)).contains(ip))
        .collect()
}

/// Whether a Service has what it asks for: an address of each of its families, and the one it names.
fn fits(service: &Service, has: &[IpAddr]) -> bool {
    let each = has.iter().map(|ip| IpFamily::of(*ip));
    let named = asked(service).is_none_or(|asked| has.iter().any(|ip| ip.to_string() == asked));
    each.eq(families(service)) && named
}

impl LoadBalancers {
    async fn write(&self, service: &Service, addresses: &[IpAddr]) -> kube::Result<()> {
        let namespace = service.namespace().unwrap_or_default();
        let api = Api::<Service>::namespaced(self.client.clone(), &namespace);
        let mut changed = service.clone();
        let ingress = addresses.iter().map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        });
        let ingress = Some(ingress.collect()).filter(|all: &Vec<_>| !all.is_empty());
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

/// An address of each of a Service's families: the one that it asks for, or the next free one.
fn choose(
    service: &Service,
    taken: &BTreeSet<IpAddr>,
    last: &mut Last,
) -> Result<Vec<IpAddr>, String> {
    let families = families(service);
    let asked = match asked(service) {
        Some(asked) => Some(check(asked, &families, taken)?),
        None => None,
    };
    let mut of_family = |family: &IpFamily| {
        let asked = asked.filter(|asked| IpFamily::of(*asked) == *family);
        asked.map_or_else(|| free(*family, taken, last), Ok)
    };
    families.iter().map(&mut of_family).collect()
}

fn free(family: IpFamily, taken: &BTreeSet<IpAddr>, last: &mut Last) -> Result<IpAddr, String> {
    let network = load_balancer_cidr(family);
    let bits = network.max_prefix_len() - network.prefix_len();
    let end = (1_u32 << bits) - 1;
    let after = last.0.get(&family).map_or(1, |last| last + 1);
    let mut all = (after..end).chain(1..after.min(end));
    let free = all.find(|offset| !taken.contains(&nth(network, *offset)));
    let offset = free.ok_or_else(|| format!("no address of {network} is free"))?;
    last.0.insert(family, offset);
    Ok(nth(network, offset))
}

/// Whether an address that is asked for can be had.
fn check(asked: &str, families: &[IpFamily], taken: &BTreeSet<IpAddr>) -> Result<IpAddr, String> {
    let address: IpAddr = asked
        .parse()
        .map_err(|_| format!("spec.loadBalancerIP {asked:?} is not an IP address"))?;
    let family = IpFamily::of(address);
    if !families.contains(&family) {
        return Err(format!(
            "spec.loadBalancerIP {asked} is of {family}, which is none of the Service's ipFamilies"
        ));
    }
    let network = load_balancer_cidr(family);
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use k8s_openapi::api::core::v1::{Event, Service};
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    use super::{Last, choose, fits, ingress};
    use crate::controllers::tests::Cluster;
    use crate::testing::object;
    use crate::topology::IpFamily;

    #[test]
    fn addresses_are_chosen_in_order_or_as_asked() {
        let service = |spec: &Value| object(json!({"spec": spec}));
        let taken: BTreeSet<IpAddr> = ["172.30.1.1".parse().unwrap()].into();
        let (v4, both) = (json!(["IPv4"]), json!(["IPv6", "IPv4"]));
        let table = [
            (json!({"ipFamilies": v4}), Ok("172.30.1.2")),
            (
                json!({"ipFamilies": both}),
                Ok("fd00:172:30:1::1 172.30.1.2"),
            ),
            (
                json!({"ipFamilies": v4, "loadBalancerIP": "172.30.1.5"}),
                Ok("172.30.1.5"),
            ),
            (
                json!({"ipFamilies": both, "loadBalancerIP": "172.30.1.5"}),
                Ok("fd00:172:30:1::1 172.30.1.5"),
            ),
            (
                json!({"ipFamilies": v4, "loadBalancerIP": "172.30.1.1"}),
                Err("already taken"),
            ),
            (
                json!({"ipFamilies": v4, "loadBalancerIP": "10.0.0.1"}),
                Err("is not in 172.30.1.0/24"),
            ),
            (
                json!({"ipFamilies": v4, "loadBalancerIP": "fd00:172:30:1::1"}),
                Err("none of the Service's ipFamilies"),
            ),
            (
                json!({"ipFamilies": v4, "loadBalancerIP": "x"}),
                Err("is not an IP address"),
            ),
        ];
        for (spec, expected) in table {
            match (
                choose(&service(&spec), &taken, &mut Last::default()),
                expected,
            ) {
                (Ok(found), Ok(wanted)) => {
                    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                    assert_eq!(found.join(" "), wanted, "{spec}");
                }
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{spec}: {found}"),
                (found, _) => panic!("{spec}: {found:?}"),
            }
        }
        let all = (1..255).map(|last| IpAddr::from([172, 30, 1, last]));
        let v4 = service(&json!({"ipFamilies": v4}));
        let full = choose(&v4, &all.collect(), &mut Last::default());
        assert_eq!(full, Err("no address of 172.30.1.0/24 is free".to_owned()));

        let mut last = Last(BTreeMap::from([(IpFamily::V4, 253)]));
        for expected in ["172.30.1.254", "172.30.1.2", "172.30.1.3"] {
            let given = choose(&v4, &taken, &mut last).unwrap();
            assert_eq!(given, [expected.parse::<IpAddr>().unwrap()]);
        }
    }

    #[test]
    fn an_address_of_each_family_is_what_a_service_has_to_have() {
        let service = |families: &[&str], asked: Option<&str>| -> Service {
            let spec = json!({"ipFamilies": families, "loadBalancerIP": asked});
            object(json!({"spec": spec}))
        };
        let [v4, v6]: [IpAddr; 2] =
            ["172.30.1.1", "fd00:172:30:1::1"].map(|ip| ip.parse().unwrap());
        for (families, asked, has, expected) in [
            (&["IPv4"][..], None, &[v4][..], true),
            (&["IPv4"], None, &[], false),
            (&["IPv4", "IPv6"], None, &[v4], false),
            (&["IPv4", "IPv6"], None, &[v4, v6], true),
            (&["IPv4"], None, &[v4, v6], false),
            (&["IPv4"], Some("172.30.1.1"), &[v4], true),
            (&["IPv4"], Some("172.30.1.2"), &[v4], false),
        ] {
            let found = fits(&service(families, asked), has);
            assert_eq!(found, expected, "{families:?} {asked:?} {has:?}");
        }
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
