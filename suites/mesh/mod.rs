//! The mesh: sidecars that carry identity and route by rules, behind names that stay the same.
//!
//! Start from [`SUITE`], the gates; `split` judges weights, `matching` which requests rules take, `routing`
//! and `remaking` what they do to them and `percentages` to a share of them, `resilience` retries, mirrors and limits, `destinations` what is
//! said of where they go, `localities` which of them are near, `transport` how they get there, `probes` how the kubelet does, `ports` to which port, `egress` where they may go and
//! `outside` who is there, `names` what hosts are called; `security` identities,
//! `authorization` and `accounts` who may ask for what, `tokens` and `claims` by what token; `admission` what the API refuses. In the fixture `client` has a
//! sidecar, `outsider` and `legacy` have none; `backend-v1` and `backend-v2` serve. Every VirtualService has a host of its own.

pub(crate) mod accounts;
pub(crate) mod admission;
pub(crate) mod authorization;
pub(crate) mod claims;
pub(crate) mod destinations;
pub(crate) mod egress;
pub(crate) mod localities;
pub(crate) mod matching;
pub(crate) mod names;
pub(crate) mod outside;
pub(crate) mod percentages;
pub(crate) mod ports;
pub(crate) mod probes;
pub(crate) mod remaking;
pub(crate) mod resilience;
pub(crate) mod routing;
pub(crate) mod security;
pub(crate) mod split;
pub(crate) mod tokens;
pub(crate) mod transport;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use strata::budget::CONVERGE;
use strata::wait::{self, Progress};
use strata::wire::{FailureKind, Reply, RequestSpec};
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Subject, Suite, Vantage};

use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: GATES,
    checks: &[],
};

const GATES: &[Check] = &[
    Check {
        id: "mesh::control_plane_is_ready",
        claim: "The control plane, istiod, is available with as many replicas as are asked for.",
        source: "tutorial, \"istioctl install --set profile=minimal\"",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(control_plane_is_ready(scope)),
    },
    Check {
        id: "mesh::label_injects_sidecars",
        claim: "Pods of a labelled namespace have a sidecar, all but those that opted out or were there before; these are named in the report.",
        source: "tutorial, \"kubectl label namespace default istio-injection=enabled\"; Istio: installing the sidecar, automatic injection",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(label_injects_sidecars(scope)),
    },
    Check {
        id: "mesh::traffic_passes_the_sidecars",
        claim: "A request between two pods with sidecars carries the client's SPIFFE identity, whichever pod it is for; one without is reached, too.",
        source: "istio: pilot/headers_test.go, XfccHeaders; istio: security/reachability_test.go, Reachability",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(traffic_passes_the_sidecars(scope)),
    },
];

async fn control_plane_is_ready(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "whether Deployment istio-system/istiod is available, with as many replicas as asked for",
            expected: (true, true),
            observe: async || {
                let istiod: Deployment = scope.get_in("istio-system", "istiod").await?;
                let wanted = istiod.spec.and_then(|spec| spec.replicas).unwrap_or(1);
                let status = istiod.status.unwrap_or_default();
                let available = status.available_replicas.unwrap_or_default();
                Ok((available > 0, available == wanted))
            },
            likely: "istiod's pod is not scheduled for lack of memory, or its image is missing; kubectl -n istio-system describe pod tells",
        })
        .await;
    let subject = Subject::Workload {
        namespace: "istio-system",
        selector: "app=istiod",
    };
    scope.explain(outcome, subject).await
}

async fn label_injects_sidecars(scope: &Scope) -> Outcome {
    let expected = [
        ("backend-v1", true),
        ("backend-v2", true),
        ("client", true),
        ("guarded", true),
        ("legacy", false),
        ("outsider", false),
    ];
    let outcome = scope
        .eventually(Eventually {
            what: "whether each pod of the fixture has a container istio-proxy",
            expected: expected.map(|(pod, has)| (pod.to_owned(), has)).into(),
            observe: async || {
                let pods: Vec<Pod> = scope.list("").await?;
                Ok(pods.iter().map(|pod| (name(pod), injected(pod))).collect::<BTreeMap<_, _>>())
            },
            likely: "the namespace was labelled after its pods were created, which changes none of them; or the webhook is not called",
        })
        .await;
    let without: Vec<_> = expected
        .iter()
        .filter(|(_, has)| !has)
        .map(|(pod, _)| *pod)
        .collect();
    scope.record("without a sidecar", without.join(", "));
    let subject = Subject::Sidecar {
        namespace: scope.namespace(),
        apps: &["backend", "client"],
    };
    scope.explain(outcome, subject).await
}

async fn traffic_passes_the_sidecars(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let own = spiffe(scope, "client");
    // Each serves a Service of its name. What is judged later relies on it that the sidecars know all of these pods.
    let served = [
        ("backend-v1", own.clone()),
        ("backend-v2", own.clone()),
        ("guarded", own),
        ("legacy", "none".to_owned()),
    ];
    let served = served.map(|(pod, identity)| (pod, (format!("200 by {pod}"), identity)));
    let outcome = scope
        .eventually(Eventually {
            what: "GET /open from Pod client, by the Service that is asked: the answer, and the identity that its pod is told",
            expected: BTreeMap::from(served),
            observe: async || {
                let mut seen = BTreeMap::new();
                for pod in ["backend-v1", "backend-v2", "guarded", "legacy"] {
                    let reply = client.get(format!("http://{pod}/open")).await?;
                    seen.insert(pod, (said::said(&reply), identity(&reply)));
                }
                Ok(seen)
            },
            likely: "one of the pods has no sidecar, its traffic is not redirected to it, or the client's sidecar was not told of it",
        })
        .await;
    let subject = Subject::Sidecar {
        namespace: scope.namespace(),
        apps: &["backend", "client", "guarded"],
    };
    scope.explain(outcome, subject).await
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Whether a pod has Istio's sidecar: a container, or an init container that goes on running.
fn injected(pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.unwrap_or_default();
    spec.containers
        .iter()
        .chain(&init)
        .any(|container| container.name == "istio-proxy")
}

/// The identity of an account of the fixture.
fn spiffe(scope: &Scope, account: &str) -> String {
    format!("spiffe://cluster.local/ns/{}/sa/{account}", scope.fixture())
}

/// The client's identity as its sidecar proved it to the server's, from `x-forwarded-client-cert`:
/// `By=spiffe://…;Hash=…;URI=spiffe://…`.
fn identity(reply: &Reply) -> String {
    let header = reply
        .answer
        .as_ref()
        .and_then(|answer| answer.header("x-forwarded-client-cert"));
    let Some(header) = header else {
        return "none".to_owned();
    };
    let last = header.rsplit(',').next().unwrap_or_default();
    let uri = last
        .split(';')
        .find_map(|field| field.trim().strip_prefix("URI="));
    uri.map_or_else(
        || format!("no URI in {header}"),
        |uri| uri.trim_matches('"').to_owned(),
    )
}

/// The fixture's client, once the last VirtualService of the fixture is in force in its sidecar: then
/// all of them are.
async fn client(scope: &Scope) -> Result<Vantage, NoVerdict> {
    let client = of_fixture(scope, "app=client").await?;
    let url = format!("http://last.{}/", scope.fixture());
    wait::until(
        "the fixture's last VirtualService is in force",
        CONVERGE,
        async || {
            let said = said::said(&client.get(&url).await?);
            Ok(match said.as_str() {
                "299" => Progress::Ready(()),
                _ => Progress::NotYet(format!("GET {url} gives {said}, not 299")),
            })
        },
    )
    .await?;
    Ok(client)
}

/// The reply to a GET by the fixture's client.
async fn get(scope: &Scope, url: &str) -> Result<Reply, NoVerdict> {
    client(scope).await?.get(url).await
}

/// The reply to a request by the fixture's client.
async fn ask(scope: &Scope, spec: &RequestSpec) -> Result<Reply, NoVerdict> {
    client(scope).await?.send(spec).await
}

/// A pod of the fixture, whatever namespace the check has.
async fn of_fixture(scope: &Scope, selector: &str) -> Result<Vantage, NoVerdict> {
    let pods = scope.ready_pods_in(scope.fixture(), selector).await?;
    let first = pods.first();
    let first = first.ok_or_else(|| NoVerdict::new(format!("there is no pod {selector}")))?;
    Ok(scope.from_pod(first))
}

/// The reply to a request of somebody without a sidecar. It is sent again while nobody takes it: a node that was not told
/// yet where a Service leads refuses every connection to it. Who takes it has the last word, whatever that is.
async fn taken(from: &Vantage, spec: &RequestSpec) -> Result<Reply, NoVerdict> {
    let mut last = None;
    let taken = wait::until("somebody takes the request", CONVERGE, async || {
        let reply = match from.send(spec).await {
            Ok(reply) => reply,
            broken => return Ok(Progress::Ready(broken)),
        };
        let refused = reply.error.as_ref();
        if refused.is_none_or(|error| error.kind != FailureKind::Refused) {
            return Ok(Progress::Ready(Ok(reply)));
        }
        last = Some(reply);
        Ok(Progress::NotYet("it is refused".to_owned()))
    });
    match taken.await {
        Ok(reply) => reply,
        Err(spent) => last.ok_or(spent),
    }
}

/// A GET that knows the address of a host of the fixture already: where thousands are sent, cluster
/// DNS would answer most questions. Routes go by the Host header.
async fn by_address(scope: &Scope, host: &str, path: &str) -> Result<RequestSpec, NoVerdict> {
    let service: Service = scope.get_in(scope.fixture(), host).await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip);
    let ip = ip.ok_or_else(|| NoVerdict::new(format!("Service {host} has no cluster IP")))?;
    Ok(RequestSpec {
        connect_to: Some(format!("{ip}:80")),
        concurrency: 8,
        ..RequestSpec::get(format!("http://{host}{path}"))
    })
}

async fn explain_host(scope: &Scope, outcome: Outcome, virtual_service: &str) -> Outcome {
    let subject = Subject::MeshHost {
        namespace: scope.namespace(),
        virtual_service,
    };
    scope.explain(outcome, subject).await
}
