//! The kubelet's probes of pods with a sidecar: they ask the application, whatever the mesh demands.
//!
//! Start from [`SUITE`]. Each check has a server of its own.

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use strata::budget::CREATE;
use strata::wait::{self, Progress};
use strata::wire::RequestSpec;
use strata::{
    Check, Eventually, Layer, Need, NoVerdict, Outcome, PodView, Scope, Suite, expect_eq,
};

use super::security::{callers, cut_off, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::probes_pass_under_strict",
        claim: "The kubelet, which has no identity, learns by HTTP whether a pod under mTLS STRICT is ready, and when it no longer is.",
        source: "istio: security/mtls_healthcheck_test.go, MtlsHealthCheck",
        needs: &[],
        manifest: Some("mesh/probes_pass_under_strict.yaml"),
        run: |scope| Box::pin(probes_pass_under_strict(scope)),
    },
    Check {
        id: "mesh::probes_by_grpc_pass",
        claim: "The kubelet learns by gRPC, too, whether a pod under mTLS STRICT is ready, and when it no longer is.",
        source: "istio: pilot/grpc_probe_test.go, GRPCProbe; istio: security/mtls_healthcheck_test.go, MtlsHealthCheck",
        needs: &[Need::Version(27)],
        manifest: Some("mesh/probes_by_grpc_pass.yaml"),
        run: |scope| Box::pin(probes_pass_under_strict(scope)),
    },
    Check {
        id: "mesh::probes_by_tcp_reach_the_application",
        claim: "A pod with a sidecar is ready by a TCP probe if its application serves the port, and is not if the sidecar alone would take the connection.",
        source: "istio: pilot/tcp_probe_test.go, TcpProbe; istio: security/mtls_healthcheck_test.go, MtlsHealthCheck",
        needs: &[],
        manifest: Some("mesh/probes_by_tcp_reach_the_application.yaml"),
        run: |scope| Box::pin(probes_by_tcp_reach_the_application(scope)),
    },
    Check {
        id: "mesh::probes_may_be_left_alone",
        claim: "A pod under mTLS STRICT whose annotation leaves its HTTP probes as they are is never ready by them, for the kubelet has no identity.",
        source: "istio: security/mtls_healthcheck_test.go, MtlsHealthCheck; Istio: annotation sidecar.istio.io/rewriteAppHTTPProbers",
        needs: &[],
        manifest: Some("mesh/probes_may_be_left_alone.yaml"),
        run: |scope| Box::pin(probes_may_be_left_alone(scope)),
    },
];

async fn probes_pass_under_strict(scope: &Scope) -> Outcome {
    let (client, outsider) = callers(scope).await?;
    let host = format!("web.{}", scope.namespace());
    let turn = async |ready: bool| {
        let spec = RequestSpec {
            method: "POST".to_owned(),
            ..RequestSpec::get(format!("http://127.0.0.1:8080/ready/{ready}"))
        };
        let pods = scope.list::<Pod>("app=web").await?;
        let own = pods.first().and_then(PodView::of);
        let own = own.ok_or_else(|| NoVerdict::new("Pod web has no address"))?;
        scope.from_pod(&own).request(&spec).await
    };
    let settled = async |expected: [&str; 2]| {
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET http://{host}/ from inside the mesh, and from outside it"),
                expected: expected.map(str::to_owned),
                observe: async || {
                    let inside = said::said(&client.get(format!("http://{host}/")).await?);
                    let outside = said::said(&outsider.get(format!("http://{host}/")).await?);
                    Ok([inside, cut_off(outside)])
                },
                likely: "the sidecar does not let the kubelet's probes through, or answers them itself",
            })
            .await;
        explain(scope, outcome).await
    };
    settled(["200 by web", "cut off"]).await?;
    turn(false).await?;
    // Of a Service without a ready endpoint nobody gets anything.
    settled(["503", "refused"]).await?;
    turn(true).await?;
    settled(["200 by web", "cut off"]).await
}

/// A pod that the kubelet says nothing of yet.
const UNKNOWN: &str = "not yet probed";

/// What the kubelet makes of a pod by its application's probe.
async fn found(scope: &Scope, name: &str) -> Result<&'static str, NoVerdict> {
    let pod: Pod = scope.get(name).await?;
    let conditions = pod.status.and_then(|status| status.conditions);
    let mut conditions = conditions.iter().flatten();
    if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return Ok("ready");
    }
    let events: Vec<Event> = scope.list("").await?;
    let failures = events.iter().filter(|event| {
        let container = event.involved_object.field_path.as_deref();
        event.involved_object.name.as_deref() == Some(name)
            && event.reason.as_deref() == Some("Unhealthy")
            && container.is_some_and(|path| path.contains("{probe}"))
    });
    // A probe may fail while the application starts; so often it does not.
    match failures.map(|event| event.count.unwrap_or(1)).sum::<i32>() {
        0..=2 => Ok(UNKNOWN),
        _ => Ok("not ready"),
    }
}

/// Judges that a pod beside another, which is ready, is probed in vain.
async fn in_vain(scope: &Scope, control: &str, pod: Value, likely: &str) -> Outcome {
    let name = pod["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    scope.apply(&pod.to_string()).await?;
    for name in [control, &name] {
        let what = format!("the kubelet has probed Pod {name}");
        wait::until(&what, CREATE, async || {
            Ok(match found(scope, name).await? {
                UNKNOWN => Progress::NotYet("it has not, or not often".to_owned()),
                _ => Progress::Ready(()),
            })
        })
        .await?;
    }
    let outcome = expect_eq(
        format!("what the kubelet makes of Pods {control} and {name} by their probes"),
        &["ready", "not ready"],
        &[found(scope, control).await?, found(scope, &name).await?],
        likely,
    );
    explain(scope, outcome).await
}

/// A server of HTTP at port 8080.
fn server(name: &str, annotations: &Value, probe: &Value) -> Value {
    let mut probe = probe.clone();
    probe["periodSeconds"] = json!(1);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "web" }, "annotations": annotations },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "probe",
                "image": "strata.dev/probe:v1",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "args": ["serve", "--http", "8080"],
                "readinessProbe": probe,
            }],
        },
    })
}

async fn probes_by_tcp_reach_the_application(scope: &Scope) -> Outcome {
    let probe = json!({ "tcpSocket": { "port": 9000 } });
    in_vain(
        scope,
        "served",
        server("unserved", &json!({}), &probe),
        "the sidecar takes the probe's connection for its application",
    )
    .await
}

async fn probes_may_be_left_alone(scope: &Scope) -> Outcome {
    let annotations = json!({ "sidecar.istio.io/rewriteAppHTTPProbers": "false" });
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 } });
    in_vain(
        scope,
        "passed-on",
        server("left-alone", &annotations, &probe),
        "the pod's annotation is not heeded, or its sidecar takes plain text",
    )
    .await
}
