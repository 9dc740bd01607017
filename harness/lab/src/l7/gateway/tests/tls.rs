//! HTTPS listeners: certificates by server name, and requests that came to the wrong one.

use base64::Engine as _;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

use super::*;
use crate::l7::envoy::live::Live;

/// A certificate of its own authority for a name, and the Secret that holds it.
fn secret(name: &str, host: &str) -> (String, String) {
    let made: CertifiedKey<KeyPair> = generate_simple_self_signed([host.to_owned()]).unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let yaml = format!(
        "
---
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
data: {{tls.crt: {}, tls.key: {}}}
",
        encode(&made.cert.pem()),
        encode(&made.signing_key.serialize_pem())
    );
    (yaml, made.cert.pem())
}

const TLS_GATEWAY: &str = "
---
kind: Gateway
metadata: {name: my-gateway}
spec:
  gatewayClassName: contour
  listeners:
  - name: one
    protocol: HTTPS
    port: 443
    hostname: one.example.com
    tls: {certificateRefs: [{name: one}]}
  - name: any
    protocol: HTTPS
    port: 443
    tls: {certificateRefs: [{name: wild}]}
";

#[tokio::test]
async fn certificates_are_shown_by_server_name_and_strays_are_misdirected() {
    let (one, one_root) = secret("one", "one.example.com");
    let (wild, wild_root) = secret("wild", "*.example.org");
    let yaml = [
        TLS_GATEWAY,
        ROUTE,
        &service("frontend", &["10.0.0.1"]),
        &one,
        &wild,
    ]
    .concat();
    let input = input(&yaml);
    let translation = translate(&input);
    let snapshot = &translation.gateways[0].snapshot;
    assert!(
        !json!(snapshot.listeners)
            .to_string()
            .contains("PRIVATE KEY"),
        "keys belong into the Secret"
    );
    let Some(live) = Live::serve(snapshot).await else {
        return;
    };
    for (server, root, host, expected) in [
        ("one.example.com", &one_root, "one.example.com", 200),
        ("a.example.org", &wild_root, "a.example.org", 200),
        ("a.example.org", &wild_root, "one.example.com", 421),
        ("one.example.com", &one_root, "a.example.org", 421),
    ] {
        let request = http::Request::get("/frontend").header("host", host);
        let request = request.body(String::new()).unwrap();
        let reply = live.ask_tls("https-443", (server, root), request).await;
        assert_eq!(reply.status, expected, "{host} by {server}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let (good, _) = secret("one", "one.example.com");
    let (other, _) = secret("one", "one.example.com");
    let (wild, _) = secret("wild", "*.example.com");
    let field = |yaml: &str, name: &str| {
        let start = yaml.find(name).unwrap() + name.len() + 2;
        let end = yaml[start..].find([',', '}']).unwrap();
        yaml[start..start + end].to_owned()
    };
    let mixed = good.replace(&field(&good, "tls.key"), &field(&other, "tls.key"));
    let garbage = good.replace(&field(&good, "tls.crt"), "SGVsbG8=");
    let elsewhere = TLS_GATEWAY.replace("{name: one}", "{name: one, namespace: certs}");
    let grant = "
---
kind: ReferenceGrant
metadata: {name: g, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]
  to: [{group: '', kind: Secret, name: one}]
";
    let there = good.replace("{name: one}", "{name: one, namespace: certs}");
    let plain = TLS_GATEWAY.to_owned();
    let bucket = TLS_GATEWAY.replace("{name: one}", "{name: one, kind: Bucket}");
    for (what, gateway, more, expected) in [
        ("good", &plain, good.clone(), None),
        (
            "absent",
            &plain,
            String::new(),
            Some("InvalidCertificateRef"),
        ),
        ("mixed", &plain, mixed, Some("InvalidCertificateRef")),
        ("garbage", &plain, garbage, Some("InvalidCertificateRef")),
        ("kind", &bucket, good.clone(), Some("InvalidCertificateRef")),
        (
            "no grant",
            &elsewhere,
            there.clone(),
            Some("RefNotPermitted"),
        ),
        ("granted", &elsewhere, [&there, grant].concat(), None),
    ] {
        let input = input(&[gateway.as_str(), &more, &wild].concat());
        let translation = translate(&input);
        let (listener, _) = &translation.gateways[0].listeners[0];
        let reason = listener.unresolved.as_ref().map(|problem| problem.reason);
        assert_eq!(reason, expected, "{what}: {:?}", listener.unresolved);
        assert_eq!(listener.served().is_some(), expected.is_none(), "{what}");
    }
}
