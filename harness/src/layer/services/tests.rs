//! A Service, its name server and its load balancer, in every state that leads somewhere else.

use k8s_openapi::api::core::v1::{Event, Node, PodIP};
use strata_probe::DnsReply;

use super::balancer;
use super::dns;
use super::judge::{Direct, Seen, Vantage, cause};
use crate::layer::tests::{Case, case, pod, pod_with, read, service, slice, yaml};
use crate::layer::tried::Tried;
use crate::layer::workload;

const SPEC: &str = "{clusterIP: 10.96.7.7, selector: {app: backend}, \
    ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}";

fn workload() -> workload::Seen {
    workload::Seen {
        namespace: "shop".into(),
        pods: vec![
            pod("backend-0", "app=backend", "10.244.1.5", "worker"),
            pod("backend-1", "app=backend", "10.244.2.5", "worker2"),
            pod("client", "app=client", "10.244.1.6", "worker"),
        ],
        ..workload::Seen::default()
    }
}

fn direct(tried: Tried) -> Vec<Direct> {
    ["10.244.1.5:8080", "10.244.2.5:8080"]
        .map(|at| Direct {
            pod: "backend".into(),
            at: at.into(),
            tried,
        })
        .into()
}

fn well() -> Seen {
    Seen {
        namespace: "shop".into(),
        name: "backend".into(),
        port: Some(80),
        services: vec![service("backend", SPEC)],
        slices: vec![slice(
            "backend",
            &[("10.244.1.5", "worker"), ("10.244.2.5", "worker2")],
        )],
        workload: workload(),
        from: Vantage {
            name: "pod shop/client".into(),
            node: Some("worker".into()),
        },
        cluster_ip: "10.96.7.7".parse().ok(),
        at_cluster_ip: vec![(80, Tried::Answers)],
        direct: direct(Tried::Answers),
        ..Seen::default()
    }
}

fn respec(seen: &mut Seen, from: &str, to: &str) {
    assert!(SPEC.contains(from), "{from}");
    seen.services = vec![service("backend", &SPEC.replace(from, to))];
}

fn outside(seen: &mut Seen, worker: Tried, worker2: Tried) {
    seen.from = Vantage {
        name: "outside".into(),
        node: None,
    };
    (seen.direct, seen.at_cluster_ip) = (Vec::new(), Vec::new());
    let at = |node: &str, tried| (node.to_owned(), 30080, tried);
    seen.at_nodes = vec![at("worker", worker), at("worker2", worker2)];
}

pub(in crate::layer) fn cases() -> Vec<Case> {
    [of_services(), of_dns(), of_balancers()].concat()
}

fn of_services() -> Vec<Case> {
    let case = |name, change: fn(&mut Seen)| case(name, well(), change, cause);
    vec![
        case("all is well", |_| {}),
        case("another name", |seen| seen.name = "backedn".into()),
        case("another namespace", |seen| seen.namespace = "shp".into()),
        case("another port", |seen| seen.port = Some(8080)),
        case("the node port is a port too", |seen| {
            seen.port = Some(30080)
        }),
        case("an ExternalName", |seen| {
            seen.services = vec![service(
                "backend",
                "{type: ExternalName, externalName: example.org}",
            )];
        }),
        case("a selector's value is mistyped", |seen| {
            respec(seen, "app: backend", "app: backedn");
        }),
        case("a selector's value is another word", |seen| {
            respec(seen, "app: backend", "app: nobody");
        }),
        case("a selector's key is mistyped", |seen| {
            respec(seen, "app: backend", "ap: backend");
        }),
        case("the selector is right, and the pods are gone", |seen| {
            seen.workload.pods.clear()
        }),
        case("no selector, no slice", |seen| {
            respec(seen, "selector: {app: backend}, ", "");
            seen.slices.clear();
        }),
        case("no selector, a slice by hand", |seen| {
            respec(seen, "selector: {app: backend}, ", "");
        }),
        case("no pod is ready", |seen| {
            let status = "{phase: Running, conditions: [{type: Ready, status: 'False', \
                message: 'containers with unready status: [server]'}]}";
            seen.workload.pods[0] = pod_with("backend-0", "app=backend", status);
            seen.workload.pods[1] = pod_with("backend-1", "app=backend", status);
        }),
        case("the slices lack a pod", |seen| {
            seen.slices = vec![slice("backend", &[("10.244.1.5", "worker")])];
        }),
        case("the slices list a pod that is gone", |seen| {
            seen.workload.pods.remove(1);
        }),
        case("a target port by a name that nobody has", |seen| {
            respec(seen, "targetPort: 8080", "targetPort: htpp");
        }),
        case("a target port that nothing listens on", |seen| {
            respec(seen, "targetPort: 8080", "targetPort: 8081");
            seen.direct = direct(Tried::Refused);
            for direct in &mut seen.direct {
                direct.at = direct.at.replace("8080", "8081");
            }
            seen.at_cluster_ip = vec![(80, Tried::Refused)];
        }),
        case("the node has not programmed it", |seen| {
            seen.at_cluster_ip = vec![(80, Tried::TimesOut)];
            seen.elsewhere = Some(("worker2".into(), Tried::Answers));
        }),
        case("the node has not programmed its address of IPv6", |seen| {
            seen.cluster_ip = "fd00:10:96::7".parse().ok();
            seen.at_cluster_ip = vec![(80, Tried::TimesOut)];
        }),
        case("an address of the second family is not listed", |seen| {
            respec(seen, "selector", "ipFamilies: [IPv4, IPv6], selector");
            let pod = seen.workload.pods.first_mut().unwrap();
            let status = pod.status.as_mut().unwrap();
            let first = status.pod_ip.clone().unwrap();
            let ips = [first, "fd00:10:244:1::7".to_owned()];
            status.pod_ips = Some(ips.map(|ip| PodIP { ip }).into());
        }),
        case("no node has programmed it", |seen| {
            seen.at_cluster_ip = vec![(80, Tried::Refused)];
            seen.elsewhere = Some(("worker2".into(), Tried::Refused));
        }),
        case("an endpoint is not reached directly either", |seen| {
            seen.at_cluster_ip = vec![(80, Tried::TimesOut)];
            seen.direct[1].tried = Tried::TimesOut;
        }),
        case("it keeps to the node, which has no endpoint", |seen| {
            respec(seen, "selector", "internalTrafficPolicy: Local, selector");
            seen.from.node = Some("control-plane".into());
            seen.at_cluster_ip = vec![(80, Tried::TimesOut)];
        }),
        case("from outside, one node has not programmed it", |seen| {
            outside(seen, Tried::Answers, Tried::TimesOut);
        }),
        case("from outside, no node answers", |seen| {
            outside(seen, Tried::TimesOut, Tried::TimesOut);
        }),
        case("from outside, it keeps to nodes with endpoints", |seen| {
            respec(seen, "selector", "externalTrafficPolicy: Local, selector");
            outside(seen, Tried::Answers, Tried::TimesOut);
            seen.workload.pods.remove(1);
            seen.slices = vec![slice("backend", &[("10.244.1.5", "worker")])];
        }),
    ]
}

fn lookup(server: &str, outcome: &str) -> DnsReply {
    yaml(&format!(
        "{{name: kubernetes, type: A, question: kubernetes., latencyUs: 1, exchanges: [{{question: \
         kubernetes., server: '{server}', latencyUs: 1}}], {outcome}}}"
    ))
}

const FOUND: &str = "rcode: NOERROR, addresses: [10.96.0.1]";
const SILENT: &str = "error: {kind: name_server_timed_out, stage: resolve, text: nobody answered}";

fn resolved() -> dns::Seen {
    let mut service = service(
        "kube-dns",
        "{clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}}",
    );
    service.metadata.namespace = Some("kube-system".into());
    let coredns = pod(
        "coredns-0",
        "k8s-app=kube-dns",
        "10.244.0.2",
        "control-plane",
    );
    dns::Seen {
        from: "client".into(),
        node: Some("worker".into()),
        service: Some(service),
        workload: workload::Seen {
            namespace: "kube-system".into(),
            pods: vec![coredns],
            ..workload::Seen::default()
        },
        reply: Some(lookup("10.96.0.10:53", FOUND)),
        direct: Vec::new(),
    }
}

fn of_dns() -> Vec<Case> {
    let case = |name, change: fn(&mut dns::Seen)| case(name, resolved(), change, dns::cause);
    vec![
        case("names are resolved", |_| {}),
        case("there is no kube-dns", |seen| seen.service = None),
        case("another name server is asked", |seen| {
            seen.reply = Some(lookup("10.0.0.1:53", SILENT));
        }),
        case("another name server is asked, and answers", |seen| {
            seen.reply = Some(lookup("169.254.20.10:53", FOUND));
        }),
        case("CoreDNS is scaled to zero", |seen| {
            seen.workload.pods.clear();
            seen.workload.deployments.push(yaml(
                "{metadata: {name: coredns}, spec: {replicas: 0, selector: {}, template: \
                 {metadata: {labels: {k8s-app: kube-dns}}}}}",
            ));
            seen.reply = Some(lookup("10.96.0.10:53", SILENT));
        }),
        case("its pods answer, its ClusterIP does not", |seen| {
            seen.reply = Some(lookup("10.96.0.10:53", SILENT));
            seen.direct = vec![("coredns-0".into(), lookup("10.244.0.2:53", FOUND))];
        }),
        case("its pods do not answer either", |seen| {
            seen.reply = Some(lookup("10.96.0.10:53", SILENT));
            seen.direct = vec![("coredns-0".into(), lookup("10.244.0.2:53", SILENT))];
        }),
        case("it serves another domain", |seen| {
            seen.reply = Some(lookup("10.96.0.10:53", "rcode: NXDOMAIN"));
        }),
        case("it answers with an error", |seen| {
            seen.reply = Some(lookup("10.96.0.10:53", "rcode: SERVFAIL"));
        }),
    ]
}

fn pending() -> balancer::Seen {
    balancer::Seen {
        namespace: "shop".into(),
        name: "front".into(),
        services: vec![service("front", "{type: LoadBalancer}")],
        ..balancer::Seen::default()
    }
}

fn addressed(seen: &mut balancer::Seen, name: &str) {
    let mut other = service(name, "{type: LoadBalancer}");
    other.status = Some(yaml("{loadBalancer: {ingress: [{ip: 172.30.1.1}]}}"));
    seen.services.push(other);
}

fn of_balancers() -> Vec<Case> {
    let case =
        |name, change: fn(&mut balancer::Seen)| case(name, pending(), change, balancer::cause);
    let node = |text: &str| -> Node { yaml(text) };
    let minikube = node("{metadata: {name: n, labels: {minikube.k8s.io/name: minikube}}}");
    let kind = node("{metadata: {name: n}, spec: {providerID: 'kind://docker/kind/kind-worker'}}");
    let on = |name, node: Node| {
        let seen = balancer::Seen {
            nodes: vec![node],
            ..pending()
        };
        (name, balancer::cause(&seen))
    };
    vec![
        case("it has an address", |seen| {
            seen.services.clear();
            addressed(seen, "front");
        }),
        case("it is no load balancer", |seen| {
            seen.services = vec![service("front", "{type: NodePort}")]
        }),
        case("nobody gives addresses", |_| {}),
        on("on minikube", minikube),
        on("on kind", kind),
        case("nobody implements its class", |seen| {
            seen.services = vec![service(
                "front",
                "{type: LoadBalancer, loadBalancerClass: example.com/none}",
            )];
            addressed(seen, "other");
        }),
        case("the implementation says why", |seen| {
            let event: Event = yaml(
                "{metadata: {name: e}, type: Warning, reason: AllocationFailed, message: no available \
                 IPs, involvedObject: {kind: Service, name: front}}",
            );
            seen.events.push(event);
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("services", read(&cases()));
}
