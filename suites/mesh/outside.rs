//! Who is spoken to, and how, where a rule says more than a name: expected identities, TLS to servers outside of
//! the mesh, and copies to them.
//!
//! Start from [`SUITE`]. `legacy` of the fixture has no sidecar; it serves in plain text, and in TLS.

use serde_json::json;
use strata::wire::{Reply, RequestSpec};
use strata::{Check, Eventually, Layer, NoVerdict, Outcome, Scope, Suite, Vantage, expect_eq};

use super::security::explain;
use super::{by_address, client, explain_host, get};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::impostors_are_not_spoken_to",
        claim: "A server whose certificate is of another identity than its DestinationRule expects is sent nothing: requests are answered with 503.",
        source: "istio: security/ca_custom_root/secure_naming_test.go, SecureNaming",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(impostors_are_not_spoken_to(scope)),
    },
    Check {
        id: "mesh::speaks_tls_for_its_client",
        claim: "A client's plain requests for a host whose DestinationRule says so reach a server outside the mesh in TLS, with the rule's server name.",
        source: "istio: security/egress_sidecar_tls_origination_test.go, SidecarMutualTlsOrigination; Istio: ClientTLSSettings",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(speaks_tls_for_its_client(scope)),
    },
    Check {
        id: "mesh::speaks_tls_to_a_named_host",
        claim: "A client's plain requests for a ServiceEntry's host that is found by name reach it in TLS where a DestinationRule says so.",
        source: "istio: tlsOriginationCases, DNS",
        needs: &[],
        manifest: Some("mesh/speaks_tls_to_a_named_host.yaml"),
        run: |scope| Box::pin(speaks_tls_to_a_named_host(scope)),
    },
    Check {
        id: "mesh::speaks_tls_to_where_its_client_went",
        claim: "A client's plain requests for a ServiceEntry's host that is not resolved go where it went, at the entry's port there, in TLS where a DestinationRule says so.",
        source: "istio: tlsOriginationCases, NONE",
        needs: &[],
        manifest: Some("mesh/speaks_tls_to_where_its_client_went.yaml"),
        run: |scope| Box::pin(speaks_tls_to_where_its_client_went(scope)),
    },
    Check {
        id: "mesh::speaks_tls_at_the_port_of_a_rule",
        claim: "A rule for a host that is not resolved leads to another port there, which is spoken to in TLS where a DestinationRule says so.",
        source: "istio: tlsOriginationCases, Redirect NONE",
        needs: &[],
        manifest: Some("mesh/speaks_tls_at_the_port_of_a_rule.yaml"),
        run: |scope| Box::pin(speaks_tls_at_the_port_of_a_rule(scope)),
    },
    Check {
        id: "mesh::rules_lead_to_external_names",
        claim: "A rule leads to a Service of type ExternalName as to the Service that it names: by mutual TLS.",
        source: "istio: externalNameCases, routed",
        needs: &[],
        manifest: Some("mesh/rules_lead_to_external_names.yaml"),
        run: |scope| Box::pin(rules_lead_to_external_names(scope)),
    },
    Check {
        id: "mesh::mirrors_to_a_host_outside",
        claim: "A request is mirrored to a ServiceEntry's host outside the mesh.",
        source: "istio: pilot/mirror_test.go, MirroringExternalService",
        needs: &[],
        manifest: Some("mesh/mirrors_to_a_host_outside.yaml"),
        run: |scope| Box::pin(mirrors_to_a_host_outside(scope)),
    },
    Check {
        id: "mesh::one_setting_of_connections",
        claim: "A Service whose DestinationRule sets nothing but how long connections may be idle is served over mutual TLS as others are.",
        source: "istio: destinationRuleCases, only idletimeout specified in DR",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(one_setting_of_connections(scope)),
    },
    Check {
        id: "mesh::external_names_are_followed",
        claim: "A Service of type ExternalName leads to the Service that it names, by mutual TLS, whether it has a port of its own or not.",
        source: "istio: externalNameCases, without port; istio: externalNameCases, with port",
        needs: &[],
        manifest: Some("mesh/external_names_are_followed.yaml"),
        run: |scope| Box::pin(external_names_are_followed(scope)),
    },
];

async fn impostors_are_not_spoken_to(scope: &Scope) -> Outcome {
    let mut seen = Vec::new();
    for host in ["backend-v1", "impostor"] {
        seen.push(said::said(&get(scope, &format!("http://{host}/")).await?));
    }
    let outcome = expect_eq(
        "GET http://backend-v1/ and http://impostor/, which are one pod, of which the second is expected to have another identity",
        &["200 by backend-v1", "503"].map(str::to_owned).to_vec(),
        &seen,
        "the client's sidecar does not look at whose certificate the server has",
    );
    explain(scope, outcome).await
}

/// Who answered, and the server name that it was told in TLS.
fn sealed(reply: &Reply) -> (String, Option<String>) {
    let tls = reply.answer.as_ref().and_then(|answer| answer.tls.as_ref());
    let name = tls.map(|tls| tls.sni.clone().unwrap_or_default());
    (said::said(reply), name)
}

async fn speaks_tls_for_its_client(scope: &Scope) -> Outcome {
    let sealed_too = sealed(&get(scope, "http://sealed/").await?);
    let plain = sealed(&get(scope, "http://legacy/").await?);
    let served = "200 by legacy".to_owned();
    let outcome = expect_eq(
        "GET http://sealed/ and http://legacy/, which are one pod: the answer, and the server name that it was told in TLS",
        &[
            (served.clone(), Some("legacy.example.com".to_owned())),
            (served, None),
        ],
        &[sealed_too, plain],
        "the DestinationRule's tls is not compiled into the client's sidecar",
    );
    explain(scope, outcome).await
}

/// A host that no Service has, of whom the fixture's `legacy` is the server.
fn outside(scope: &Scope) -> String {
    format!("{}.outside.example", scope.namespace())
}

fn entry(scope: &Scope, target: u16) -> String {
    let address = format!("legacy.{}.svc.cluster.local", scope.fixture());
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": { "name": "outside" },
        "spec": {
            "hosts": [outside(scope)],
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP", "targetPort": target }],
            "resolution": "DNS",
            "endpoints": [{ "address": address }],
        },
    })
    .to_string()
}

async fn speaks_tls_to_a_named_host(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let host = outside(scope);
    // What has this name has port 443 for TLS.
    scope.apply(&entry(scope, 443)).await?;
    scope.apply(&in_tls(&host)).await?;
    let spec = RequestSpec {
        url: format!("http://{host}/"),
        ..by_address(scope, "legacy", "/").await?
    };
    settles_sealed(scope, &client, &spec).await
}

/// A rule that has a host spoken to in TLS.
fn in_tls(host: &str) -> String {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": { "name": "outside" },
        "spec": {
            "host": host,
            "trafficPolicy": { "tls": { "mode": "SIMPLE", "sni": "named.example.com", "insecureSkipVerify": true } },
        },
    })
    .to_string()
}

/// Judges that a request reaches `legacy` in TLS, with the server name of [`in_tls`].
async fn settles_sealed(scope: &Scope, client: &Vantage, spec: &RequestSpec) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: &format!(
                "GET {}: the answer, and the server name that the server was told in TLS",
                spec.url
            ),
            expected: (
                "200 by legacy".to_owned(),
                Some("named.example.com".to_owned()),
            ),
            observe: async || {
                let reply = client.send(spec).await?;
                Ok(sealed(&reply))
            },
            likely: "the client's sidecar does not know the entry's host, or not its rules",
        })
        .await;
    explain(scope, outcome).await
}

/// Judges a host that is not resolved, as a client sees it that goes to the fixture's `legacy`.
async fn unresolved(scope: &Scope, ports: serde_json::Value) -> Outcome {
    let client = client(scope).await?;
    let host = outside(scope);
    let entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": { "name": "outside" },
        "spec": { "hosts": [host], "ports": ports, "resolution": "NONE" },
    });
    scope.apply(&entry.to_string()).await?;
    scope.apply(&in_tls(&host)).await?;
    let legacy = super::of_fixture(scope, "app=legacy").await?;
    let address = legacy.pod().map(|pod| pod.ip);
    let address = address.ok_or_else(|| NoVerdict::new("Pod legacy has no address"))?;
    let spec = RequestSpec {
        connect_to: Some(std::net::SocketAddr::new(address, 8080).to_string()),
        ..RequestSpec::get(format!("http://{host}:8080/"))
    };
    settles_sealed(scope, &client, &spec).await
}

async fn speaks_tls_to_where_its_client_went(scope: &Scope) -> Outcome {
    let port = json!({ "number": 8080, "name": "http", "protocol": "HTTP", "targetPort": 8443 });
    unresolved(scope, json!([port])).await
}

async fn speaks_tls_at_the_port_of_a_rule(scope: &Scope) -> Outcome {
    let host = outside(scope);
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "outside" },
        "spec": {
            "hosts": [host],
            "http": [{ "route": [{ "destination": { "host": host, "port": { "number": 443 } } }] }],
        },
    });
    scope.apply(&rule.to_string()).await?;
    let ports = json!([
        { "number": 8080, "name": "http", "protocol": "HTTP" },
        { "number": 443, "name": "https", "protocol": "HTTPS", "targetPort": 8443 },
    ]);
    unresolved(scope, ports).await
}

async fn rules_lead_to_external_names(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let target = format!("backend-v1.{}.svc.cluster.local", scope.fixture());
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "elsewhere" },
        "spec": {
            "type": "ExternalName",
            "externalName": target,
            "ports": [{ "name": "http", "port": 80 }],
        },
    });
    scope.apply(&service.to_string()).await?;
    let name = scope.namespace();
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "led" },
        "spec": {
            "hosts": [format!("led.{name}.example")],
            "http": [{ "route": [{ "destination": {
                "host": format!("elsewhere.{name}.svc.cluster.local"), "port": { "number": 80 },
            } }] }],
        },
    });
    scope.apply(&rule.to_string()).await?;
    // The connection is for another pod: who answers says where it was led.
    let spec = RequestSpec {
        url: format!("http://led.{name}.example/"),
        ..by_address(scope, "backend-v2", "/").await?
    };
    let outcome = scope
        .eventually(Eventually {
            what: "a request that a rule leads to Service elsewhere, which is another name of backend-v1: the answer, and the identity told",
            expected: ("200 by backend-v1".to_owned(), super::spiffe(scope, "client")),
            observe: async || {
                let reply = client.send(&spec).await?;
                Ok((said::said(&reply), super::identity(&reply)))
            },
            likely: "the client's sidecar takes an ExternalName for a host without endpoints",
        })
        .await;
    explain(scope, outcome).await
}

async fn mirrors_to_a_host_outside(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    scope.apply(&entry(scope, 80)).await?;
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "mirroring" },
        "spec": {
            "hosts": ["mirroring"],
            "http": [{
                "mirror": { "host": outside(scope) },
                "route": [{ "destination": { "host": format!("backend-v1.{}.svc.cluster.local", scope.fixture()) } }],
            }],
        },
    });
    scope.apply(&rule.to_string()).await?;
    let name = scope.namespace();
    // No Service has the name, so nobody resolves it: the rule goes by the Host header.
    let spec = RequestSpec {
        url: format!("http://mirroring.{name}.svc.cluster.local/?count={name}"),
        ..by_address(scope, "backend-v1", "/").await?
    };
    let legacy = super::of_fixture(scope, "app=legacy").await?;
    let counted = format!("http://localhost:8080/counted?count={name}");
    let outcome = scope
        .eventually(Eventually {
            what: "who answers a request of host mirroring, and whether legacy, which is outside the mesh, has seen a copy",
            expected: ("200 by backend-v1".to_owned(), true),
            observe: async || {
                let reply = client.request(&spec).await?.0.into_iter().next();
                let said = reply.as_ref().map(said::said).unwrap_or_default();
                let copies = legacy.get(counted.clone()).await?.answer.and_then(|it| it.count);
                Ok((said, copies.unwrap_or_default() > 0))
            },
            likely: "the sidecar has no cluster for a mirror that is no Service",
        })
        .await;
    explain_host(scope, outcome, "mirroring").await
}

async fn external_names_are_followed(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let target = format!("backend-v1.{}.svc.cluster.local", scope.fixture());
    for (name, ports) in [
        ("without-port", json!(null)),
        ("with-port", json!([{ "name": "http", "port": 80 }])),
    ] {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name },
            "spec": { "type": "ExternalName", "externalName": target, "ports": ports },
        });
        scope.apply(&service.to_string()).await?;
    }
    let outcome = scope
        .eventually(Eventually {
            what: "GET of the Services without-port and with-port, both of which are other names of backend-v1: the answers, and the identities told",
            expected: [(); 2].map(|()| ("200 by backend-v1".to_owned(), super::spiffe(scope, "client"))),
            observe: async || {
                let ask = async |name: &str| {
                    let url = format!("http://{name}.{}/", scope.namespace());
                    let reply = client.get(url).await?;
                    Ok::<_, NoVerdict>((said::said(&reply), super::identity(&reply)))
                };
                Ok([ask("without-port").await?, ask("with-port").await?])
            },
            likely: "the client's sidecar takes an ExternalName for a host without endpoints",
        })
        .await;
    explain(scope, outcome).await
}

async fn one_setting_of_connections(scope: &Scope) -> Outcome {
    let reply = get(scope, "http://idle/").await?;
    let outcome = expect_eq(
        "GET http://idle/: the answer, and the identity that it is told",
        &(
            "200 by backend-v1".to_owned(),
            super::spiffe(scope, "client"),
        ),
        &(said::said(&reply), super::identity(&reply)),
        "a DestinationRule without TLS settings turns mutual TLS off",
    );
    explain(scope, outcome).await
}
