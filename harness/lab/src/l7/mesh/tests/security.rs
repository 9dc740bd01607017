//! Mutual TLS, authorization and tokens.

use super::*;

#[test]
fn mutual_tls_is_for_endpoints_that_have_a_sidecar() {
    let snapshot = translate(&mesh(json!({ "hosts": ["other"] })), &client());
    let with = cluster(&snapshot, "outbound|80||backend.default.svc.cluster.local").unwrap();
    let endpoints = with["load_assignment"]["endpoints"][0]["lb_endpoints"]
        .as_array()
        .unwrap();
    let modes: Vec<bool> = endpoints
        .iter()
        .map(|endpoint| !endpoint["metadata"].is_null())
        .collect();
    assert_eq!(modes, [true, false]);
    let identities = &with["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"]
        ["validation_context"]["match_typed_subject_alt_names"];
    assert_eq!(
        identities[0]["matcher"]["exact"],
        identity("default", "backend")
    );
    let without = cluster(
        &snapshot,
        "outbound|80||backend-v2.default.svc.cluster.local",
    )
    .unwrap();
    assert!(without["transport_socket_matches"].is_null());
}

#[test]
fn strict_takes_no_plain_text() {
    let chains = |mode: Option<&str>| {
        let mut mesh = mesh(json!({ "hosts": ["other"] }));
        mesh.peer_authentications = mode
            .map(|mode| {
                shared(json!({
                    "metadata": { "name": "default", "namespace": "istio-system" },
                    "spec": { "mtls": { "mode": mode } },
                }))
            })
            .into_iter()
            .collect();
        let snapshot = translate(&mesh, &client());
        assert_envoy_accepts(&snapshot);
        let listener = snapshot
            .listeners
            .iter()
            .find(|listener| listener["name"] == "virtualInbound");
        let names = listener.unwrap()["filter_chains"]
            .as_array()
            .unwrap()
            .iter();
        names
            .map(|chain| chain["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mutual = ["virtualInbound-mtls-http", "virtualInbound-mtls-tcp"];
    let plain = [
        "virtualInbound-http",
        "virtualInbound-tcp",
        "virtualInbound-tls",
    ];
    let own = ["virtualInbound-blackhole"];
    assert_eq!(chains(None), [&own[..], &mutual[..], &plain[..]].concat());
    assert_eq!(chains(Some("STRICT")), [&own[..], &mutual[..]].concat());
    assert_eq!(chains(Some("DISABLE")), [&own[..], &plain[..]].concat());
}

#[test]
fn authorization_becomes_rbac() {
    let mut mesh = mesh(json!({ "hosts": ["other"] }));
    let policy = |name: &str, spec: Value| {
        shared(json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec }))
    };
    mesh.authorization_policies = vec![
        policy("nothing", json!({})),
        policy(
            "some",
            json!({ "rules": [{
                "from": [{ "source": { "principals": ["cluster.local/ns/default/sa/client"] } }, { "source": { "namespaces": ["a*"] } }],
                "to": [{ "operation": { "methods": ["GET"], "paths": ["/public*"], "ports": ["8080"] } }],
            }, {
                "from": [{ "source": { "notPrincipals": ["*/sa/x"], "notNamespaces": ["b"] } }],
                "to": [{ "operation": { "hosts": ["a.*"], "notHosts": ["b"], "notMethods": ["PUT"], "notPaths": ["/x"], "notPorts": ["1"] } }],
                "when": [
                    { "key": "request.headers[x-token]", "values": ["a", "b*"] },
                    { "key": "source.principal", "notValues": ["*/sa/y"] },
                    { "key": "source.namespace", "values": ["ns"] },
                ],
            }] }),
        ),
        policy(
            "never",
            json!({ "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/admin"] } }] }] }),
        ),
    ];
    let snapshot = translate(&mesh, &client());
    assert_envoy_accepts(&snapshot);
    let is_entrance = |listener: &&Value| listener["name"] == "virtualInbound";
    let inbound = snapshot.listeners.iter().find(is_entrance).unwrap();
    let inbound = inbound.to_string();
    assert!(inbound.find("DENY").unwrap() < inbound.find("ALLOW").unwrap());
}

#[test]
fn a_sidecar_that_takes_no_mutual_tls_is_called_without() {
    let mut mesh = mesh(json!({ "hosts": ["other"] }));
    let injected = json!({
        "metadata": {
            "name": "one", "namespace": "default",
            "labels": { "app": "backend", "security.istio.io/tlsMode": "istio" },
            "annotations": { "sidecar.istio.io/status": "{}" },
        },
        "spec": { "serviceAccountName": "backend", "containers": [] },
    });
    mesh.services = mesh.services.with_pods([shared(injected)]);
    let secured = |mesh: &Mesh| {
        let snapshot = translate(mesh, &client());
        let name = "outbound|80||backend-v1.default.svc.cluster.local";
        let endpoints = &cluster(&snapshot, name).unwrap()["load_assignment"]["endpoints"];
        !endpoints[0]["lb_endpoints"][0]["metadata"].is_null()
    };
    assert!(secured(&mesh));
    for (ports, expected) in [
        (json!({ "8080": { "mode": "DISABLE" } }), false),
        (json!({ "9090": { "mode": "DISABLE" } }), true),
    ] {
        mesh.peer_authentications = vec![shared(json!({
            "metadata": { "name": "backend", "namespace": "default" },
            "spec": { "selector": { "matchLabels": { "app": "backend" } }, "portLevelMtls": ports },
        }))];
        assert_eq!(secured(&mesh), expected);
    }
}

#[test]
fn tokens_are_looked_at_before_policies() {
    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"MdsgYffHHDxHTVdC7rYLgvMmj_wCCoCrxidn3Ui0VjA","y":"Smt50vNC2kyj5ucJnVMDHP28AyBv9INoBj_R0W_dqSk"}]}"#;
    let mut mesh = mesh(json!({ "hosts": ["other"] }));
    let object = |name: &str, spec: Value| json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
    mesh.request_authentications = vec![
        shared(object(
            "one",
            json!({ "jwtRules": [{
            "issuer": "a.example", "audiences": ["x"], "jwks": KEYS,
            "fromHeaders": [{ "name": "x-a", "prefix": "Token " }], "fromParams": ["a"], "fromCookies": ["a"],
            "outputPayloadToHeader": "x-payload", "forwardOriginalToken": true,
            "outputClaimToHeaders": [{ "header": "x-sub", "claim": "sub" }],
        }] }),
        )),
        shared(object(
            "two",
            json!({ "jwtRules": [{
            "issuer": "b.example", "jwksUri": "http://backend.default/keys",
        }, {
            "issuer": "c.example", "jwks": "{\"keys\":[]}",
        }] }),
        )),
    ];
    mesh.authorization_policies = vec![shared(object(
        "some",
        json!({ "rules": [{
        "from": [{ "source": { "requestPrincipals": ["a.example/*"], "notRequestPrincipals": ["*/x"] } }],
        "when": [{ "key": "request.auth.claims[a][b]", "values": ["c", "d*"] }],
    }] }),
    ))];
    let snapshot = translate(&mesh, &client());
    assert_envoy_accepts(&snapshot);
    let is_entrance = |listener: &&Value| listener["name"] == "virtualInbound";
    let inbound = snapshot.listeners.iter().find(is_entrance).unwrap();
    let inbound = inbound.to_string();
    let at = |text: &str| inbound.find(text).unwrap();
    assert!(at("envoy.filters.http.jwt_authn") < at("envoy.filters.http.rbac"));
    // Of a token nothing is known where bytes are not HTTP: such a rule allows nothing there.
    let network = inbound.split("envoy.filters.network.rbac").nth(1).unwrap();
    let network = network.split("tcp_proxy").next().unwrap();
    assert!(!network.contains("jwt_authn"), "{network}");
}
