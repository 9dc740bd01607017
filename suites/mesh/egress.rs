//! Where a workload's connections may go: what its Sidecar knows, and what a ServiceEntry adds.
//!
//! Start from [`SUITE`]. Each check has a client of its own, whose sidecar drops what is for nobody in the
//! mesh; hosts outside are played by the fixture's `legacy`, under a name that no Service has.

use k8s_openapi::api::core::v1::Service;
use strata::wire::{RequestSpec, TcpSpec};
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite};

use super::of_fixture;
use super::security::{cut_off, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::registry_only",
        claim: "Under REGISTRY_ONLY a host that nobody knows is answered with 502 and its bytes are cut off, until a ServiceEntry names it, or the restriction is gone.",
        source: "istio: telemetry/policy/traffic_registry_only_test.go, OutboundTrafficPolicy_RegistryOnly; Istio: ServiceEntry",
        needs: &[],
        manifest: Some("mesh/registry_only.yaml"),
        run: |scope| Box::pin(registry_only(scope)),
    },
    Check {
        id: "mesh::sidecar_limits_hosts",
        claim: "A Sidecar's client reaches the hosts that it imports, and no other.",
        source: "Istio: Sidecar egress hosts",
        needs: &[],
        manifest: Some("mesh/sidecar_limits_hosts.yaml"),
        run: |scope| Box::pin(sidecar_limits_hosts(scope)),
    },
];

const OUTSIDE: &str = "registry-only.example.com";

async fn registry_only(scope: &Scope) -> Outcome {
    let caller = scope.pod("app=caller").await?;
    let service: Service = scope.get_in(scope.fixture(), "legacy").await?;
    let entrance = service.spec.and_then(|spec| spec.cluster_ip);
    let entrance = entrance.ok_or_else(|| NoVerdict::new("Service legacy has no cluster IP"))?;
    let legacy = of_fixture(scope, "app=legacy").await?;
    let address = legacy.pod().map(|pod| pod.ip);
    let address = address.ok_or_else(|| NoVerdict::new("Pod legacy has no address"))?;
    let known = format!("http://backend-v1.{}/", scope.fixture());
    // No name server knows it: the connection goes to where it is played.
    let unknown = RequestSpec {
        connect_to: Some(format!("{entrance}:80")),
        ..RequestSpec::get(format!("http://{OUTSIDE}/"))
    };
    let other = of_fixture(scope, "version=v2").await?;
    let other = other.pod().map(|pod| pod.ip);
    let other = other.ok_or_else(|| NoVerdict::new("Pod backend-v2 has no address"))?;
    let bytes = TcpSpec {
        bytes: 16,
        ..TcpSpec::new(format!("{other}:9000"))
    };
    let settled = async |expected: [&str; 3]| {
        let outcome = scope
            .eventually(Eventually {
                what: "GET of a Service and of a host that is none, and a connection to an address that is no Service's",
                expected: expected.map(str::to_owned),
                observe: async || {
                    let replies = caller.request(&unknown).await?.0;
                    let bytes = caller.tcp(&bytes).await?;
                    Ok([
                        said::said(&caller.get(&known).await?),
                        replies.iter().map(said::said).collect(),
                        cut_off(said::tcp(&bytes)),
                    ])
                },
                likely: "the Sidecar's outboundTrafficPolicy is not compiled into the client's sidecar",
            })
            .await;
        explain(scope, outcome).await
    };
    let (served, legacy) = ("200 by backend-v1", "200 by legacy");
    settled([served, "502", "cut off"]).await?;
    let entry = format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: outside}}, spec: {{
            hosts: [{OUTSIDE}], ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}],
            resolution: STATIC, endpoints: [{{address: {address}}}]}}}}"
    );
    scope.apply(&entry).await?;
    settled([served, legacy, "cut off"]).await?;
    // Who may go anywhere gets there without the entry, too.
    for (kind, name) in [("ServiceEntry", "outside"), ("Sidecar", "default")] {
        scope
            .delete_kind("networking.istio.io/v1", kind, name)
            .await?;
    }
    settled([served, legacy, "backend-v2"]).await
}

async fn sidecar_limits_hosts(scope: &Scope) -> Outcome {
    let caller = scope.pod("app=caller").await?;
    let other = format!("http://backend-v1.{}/", scope.fixture());
    let settled = async |expected: [&str; 2]| {
        let outcome = scope
            .eventually(Eventually {
                what: "GET of a Service of the client's namespace, and of one of another namespace",
                expected: expected.map(str::to_owned),
                observe: async || {
                    let own = said::said(&caller.get("http://web/").await?);
                    Ok([own, said::said(&caller.get(&other).await?)])
                },
                likely: "the Sidecar's hosts are not compiled into the client's sidecar",
            })
            .await;
        explain(scope, outcome).await
    };
    settled(["200 by web", "502"]).await?;
    scope
        .delete_kind("networking.istio.io/v1", "Sidecar", "default")
        .await?;
    settled(["200 by web", "200 by backend-v1"]).await
}
