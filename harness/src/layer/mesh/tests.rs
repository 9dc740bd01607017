//! A namespace that asks for sidecars and a 90/10 split, and everything that can be wrong with them.

use kube::api::DynamicObject;
use serde::de::DeserializeOwned;

use super::objects::{Read, read as read_object};
use super::{sidecar, split};
use crate::layer::labels::terms;
use crate::layer::tests::{Case, case, pod, read, service, slice, yaml};
use crate::layer::workload;

pub(in crate::layer) fn cases() -> Vec<Case> {
    [of_sidecars(), of_splits()].concat()
}

const NAMESPACE: &str = "{metadata: {name: shop, labels: {istio-injection: enabled}}}";

const WEBHOOK: &str = "
metadata: {name: istio-sidecar-injector, creationTimestamp: '2026-01-01T00:00:00Z'}
webhooks:
  - name: namespace.sidecar-injector.istio.io
    admissionReviewVersions: [v1]
    sideEffects: None
    clientConfig: {service: {name: istiod, namespace: istio-system}}
    rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector:
      matchExpressions: [{key: istio-injection, operator: In, values: [enabled]}]
    objectSelector:
      matchExpressions: [{key: sidecar.istio.io/inject, operator: NotIn, values: ['false']}]
";

const BARE: &str = "
metadata:
  name: web-7d4-x
  namespace: shop
  creationTimestamp: '2026-01-02T00:00:00Z'
  labels: {app: web}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-7d4, uid: u}]
spec: {containers: [{name: server}]}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

fn bare() -> sidecar::Seen {
    let mut slice = slice("istiod", &[("10.244.0.9", "worker")]);
    slice.metadata.namespace = Some("istio-system".into());
    sidecar::Seen {
        namespace: yaml(NAMESPACE),
        apps: ["web".to_owned()].into(),
        workload: workload::Seen {
            namespace: "shop".into(),
            selector: terms("app=web"),
            pods: vec![yaml(BARE)],
            ..workload::Seen::default()
        },
        webhooks: vec![yaml(WEBHOOK)],
        slices: vec![slice],
    }
}

fn of_sidecars() -> Vec<Case> {
    let case = |name, change: fn(&mut sidecar::Seen)| case(name, bare(), change, sidecar::cause);
    vec![
        case("it has a sidecar", |seen| {
            let text = BARE.replace(
                "containers:",
                "initContainers: [{name: istio-proxy}], containers:",
            );
            seen.workload.pods = vec![yaml(&text)];
        }),
        case("no pod is there", |seen| seen.workload.pods.clear()),
        case("only a pod that is not asked about has none", |seen| {
            seen.apps = ["web".to_owned(), "client".to_owned()].into();
            seen.workload.selector.clear();
            let text = BARE.replace("app: web", "app: legacy, sidecar.istio.io/inject: 'false'");
            seen.workload.pods = vec![yaml(&text)];
        }),
        case("nothing injects", |seen| seen.webhooks.clear()),
        case("the namespace's label is missing", |seen| {
            seen.namespace.metadata.labels = None
        }),
        case("the label's value is mistyped", |seen| {
            seen.namespace = yaml(&NAMESPACE.replace("enabled", "enable"));
        }),
        case("the label's key is mistyped", |seen| {
            seen.namespace = yaml(&NAMESPACE.replace("istio-injection", "istio-injecton"));
        }),
        case("a revision that nobody is for", |seen| {
            seen.namespace =
                yaml(&NAMESPACE.replace("istio-injection: enabled", "istio.io/rev: canary"));
        }),
        case("the pod opts out by a label", |seen| {
            let text = BARE.replace("{app: web}", "{app: web, sidecar.istio.io/inject: 'false'}");
            seen.workload.pods = vec![yaml(&text)];
        }),
        case("the pod opts out by an annotation", |seen| {
            let text = BARE.replace(
                "  labels:",
                "  annotations: {sidecar.istio.io/inject: 'false'}\n  labels:",
            );
            seen.workload.pods = vec![yaml(&text)];
        }),
        case("the pod is on the host's network", |seen| {
            seen.workload.pods = vec![yaml(&BARE.replace("spec: {", "spec: {hostNetwork: true, "))];
        }),
        case("nobody is behind the webhook", |seen| seen.slices.clear()),
        case("the pod is older than the label", |_| {}),
        case("the pod is older than the webhook", |seen| {
            seen.workload.pods = vec![yaml(&BARE.replace("2026-01-02", "2025-12-31"))];
        }),
    ]
}

fn untyped<T: DeserializeOwned>(text: &str) -> Read<T> {
    read_object(&yaml::<DynamicObject>(text)).unwrap()
}

const VIRTUAL_SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: frontend, namespace: shop}
spec:
  hosts: [frontend]
  http:
    - route:
        - {destination: {host: frontend, subset: v1}, weight: 90}
        - {destination: {host: frontend, subset: v2}, weight: 10}
";

const DESTINATION_RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: frontend, namespace: shop}
spec:
  host: frontend.shop.svc.cluster.local
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
";

fn splits() -> split::Seen {
    let mut pods = vec![
        pod(
            "frontend-v1",
            "app=frontend,version=v1",
            "10.244.1.5",
            "worker",
        ),
        pod(
            "frontend-v2",
            "app=frontend,version=v2",
            "10.244.2.5",
            "worker2",
        ),
    ];
    for pod in &mut pods {
        let containers = &mut pod.spec.as_mut().unwrap().containers;
        containers.push(yaml("{name: istio-proxy}"));
    }
    split::Seen {
        namespace: "shop".into(),
        name: "frontend".into(),
        expected: vec![("frontend-v1".into(), 90.0), ("frontend-v2".into(), 10.0)],
        observed: vec![("frontend-v1".into(), 0.901), ("frontend-v2".into(), 0.099)],
        virtual_services: vec![untyped(VIRTUAL_SERVICE)],
        destination_rules: vec![untyped(DESTINATION_RULE)],
        service_entries: Vec::new(),
        services: vec![service(
            "frontend",
            "{clusterIP: 10.96.1.1, selector: {app: frontend}, ports: [{port: 80, targetPort: 8080}]}",
        )],
        slices: vec![slice(
            "frontend",
            &[("10.244.1.5", "worker"), ("10.244.2.5", "worker2")],
        )],
        workload: workload::Seen {
            namespace: "shop".into(),
            pods,
            ..workload::Seen::default()
        },
    }
}

fn routed(seen: &mut split::Seen, from: &str, to: &str) {
    assert!(VIRTUAL_SERVICE.contains(from), "{from}");
    seen.virtual_services = vec![untyped(&VIRTUAL_SERVICE.replace(from, to))];
}

fn subsets(seen: &mut split::Seen, from: &str, to: &str) {
    assert!(DESTINATION_RULE.contains(from), "{from}");
    seen.destination_rules = vec![untyped(&DESTINATION_RULE.replace(from, to))];
}

fn shares(seen: &mut split::Seen, v1: f64) {
    seen.observed = vec![("frontend-v1".into(), v1), ("frontend-v2".into(), 1.0 - v1)];
}

fn of_splits() -> Vec<Case> {
    let case = |name, change: fn(&mut split::Seen)| case(name, splits(), change, split::cause);
    vec![
        case("the split is as it should be", |_| {}),
        case("another name", |seen| seen.name = "fronted".into()),
        case("80/20", |seen| {
            routed(seen, "weight: 90", "weight: 80");
            seen.virtual_services[0].spec.http[0].route[1].weight = 20;
            shares(seen, 0.8);
        }),
        case("100/0", |seen| {
            routed(seen, "weight: 90", "weight: 100");
            seen.virtual_services[0].spec.http[0].route[1].weight = 0;
            shares(seen, 1.0);
        }),
        case("the weights are in another unit", |seen| {
            routed(seen, "weight: 90", "weight: 9");
            seen.virtual_services[0].spec.http[0].route[1].weight = 1;
        }),
        case("an arm is gone", |seen| {
            routed(
                seen,
                "        - {destination: {host: frontend, subset: v2}, weight: 10}\n",
                "",
            );
            shares(seen, 1.0);
        }),
        case(
            "the arms are called otherwise: the order tells them apart",
            |seen| {
                seen.expected = vec![("stable".into(), 90.0), ("canary".into(), 10.0)];
                routed(seen, "weight: 90", "weight: 50");
                seen.virtual_services[0].spec.http[0].route[1].weight = 50;
            },
        ),
        case("a destination is mistyped", |seen| {
            routed(
                seen,
                "host: frontend, subset: v2",
                "host: fronted, subset: v2",
            );
        }),
        case("a destination is another's", |seen| {
            routed(seen, "host: frontend, subset: v2", "host: payments.bank");
        }),
        case("only hosts are looked at", |seen| {
            (seen.expected, seen.observed) = (Vec::new(), Vec::new());
            routed(
                seen,
                "host: frontend, subset: v2",
                "host: frontend-v2.shop.svc.cluster.local",
            );
        }),
        case("a destination of a ServiceEntry", |seen| {
            routed(seen, "host: frontend, subset: v2", "host: api.example.org");
            seen.service_entries = vec![untyped(
                "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, \
                 spec: {hosts: [api.example.org]}}",
            )];
            (seen.expected, seen.observed) = (Vec::new(), Vec::new());
        }),
        case("no DestinationRule", |seen| seen.destination_rules.clear()),
        case("a subset is mistyped", |seen| {
            routed(seen, "subset: v2", "subset: v3")
        }),
        case("a subset matches no pod", |seen| {
            subsets(seen, "version: v2", "version: v22")
        }),
        case("its host is mistyped", |seen| {
            routed(seen, "hosts: [frontend]", "hosts: [fronted]")
        }),
        case("an arm has no endpoint", |seen| seen.slices.clear()),
        case("nobody has a sidecar", |seen| {
            for pod in &mut seen.workload.pods {
                pod.spec.as_mut().unwrap().containers.truncate(1);
            }
            shares(seen, 0.5);
        }),
        case("the objects are right, the shares are not", |seen| {
            shares(seen, 0.5)
        }),
    ]
}

#[test]
fn causes_read_as_they_should() {
    insta::assert_snapshot!("mesh", read(&cases()));
}
