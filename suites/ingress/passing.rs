//! What arrives: at the backend of a request, at the client of an answer, and under which certificate.
//!
//! Start from [`SUITE`].

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{HOST, TUTORIAL, entrance, explain, served_by_all, table};
use crate::entrance::{address_of_ingress, behind, served_by};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::reaches_every_endpoint",
        claim: "Requests reach every pod of a backend.",
        source: "ingress conformance: load_balancing.feature, …",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(reaches_every_endpoint(scope)),
    },
    Check {
        id: "ingress::tls_by_server_name",
        claim: "Each TLS host shows its own certificate, which the chain to its authority verifies.",
        source: "Kubernetes: Ingress spec.tls; ingress conformance: host_rules.feature, host rule should send TLS traffic …",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(tls_by_server_name(scope)),
    },
    Check {
        id: "ingress::other_server_names_get_no_certificate_of_ours",
        claim: "A server name that no Ingress has is shown another certificate than the hosts of Ingresses are.",
        source: "ingress-nginx: default SSL certificate",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(other_server_names_get_no_certificate_of_ours(scope)),
    },
    Check {
        id: "ingress::forwarded_headers",
        claim: "The backend is told the scheme and the client by X-Forwarded headers, and a client cannot pass itself off as another.",
        source: "ingress-nginx: forwarded headers; RFC 7239, section 8.1",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(forwarded_headers(scope)),
    },
    Check {
        id: "ingress::requests_arrive_unchanged",
        claim: "Method, escaped path, query and headers reach the backend as they were sent.",
        source: "RFC 9110, section 7.6; RFC 3986, section 6",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(requests_arrive_unchanged(scope)),
    },
    Check {
        id: "ingress::statuses_arrive_unchanged",
        claim: "The backend's status reaches the client, whatever it is.",
        source: "RFC 9110, section 15",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(statuses_arrive_unchanged(scope)),
    },
    Check {
        id: "ingress::large_bodies_arrive_whole",
        claim: "A request of 10 MiB reaches the backend whole, and so does an answer of 10 MiB the client.",
        source: "ingress-nginx: proxy-body-size; RFC 9112, section 6",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(large_bodies_arrive_whole(scope)),
    },
    Check {
        id: "ingress::is_asked_from_within",
        claim: "A pod that asks the Ingress controller's Service by its cluster IP is routed by host and path as clients outside are.",
        source: "cilium: pod-to-ingress-service",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(is_asked_from_within(scope)),
    },
];

async fn is_asked_from_within(scope: &Scope) -> Outcome {
    let address = address_of_ingress(scope, TUTORIAL).await?;
    let (inside, servers) = behind(scope, &address).await?;
    let client = scope.pod("app=alpha").await?;
    let get = |host: &str, path: &str| RequestSpec {
        host: Some(host.to_owned()),
        ..RequestSpec::get(format!("http://{inside}{path}"))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "the status of GET /frontend of app.example.local from a pod, and whether the controller brought it; the same of a host that no Ingress has",
            expected: [("200".to_owned(), true), ("404".to_owned(), false)],
            observe: async || {
                let told = async |spec: RequestSpec| {
                    let reply = client.send(&spec).await?;
                    let brought = served_by(&reply, &servers).is_some();
                    Ok::<_, NoVerdict>((said::status(&reply), brought))
                };
                let known = told(get(HOST, "/frontend")).await?;
                Ok([known, told(get("nobody.example.local", "/frontend")).await?])
            },
            likely: "the controller looks at where a request came in, or its Service has no cluster IP",
        })
        .await;
    explain(scope, outcome, TUTORIAL, Some(HOST), "/frontend").await
}

async fn reaches_every_endpoint(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let pods = scope.ready_pods("app=frontend").await?;
    let pods = pods.into_iter().map(|pod| pod.name).collect();
    let spec = RequestSpec {
        count: scope.enough(60, 2)?,
        concurrency: 4,
        ..entrance.request(HOST, "/frontend")
    };
    let outcome = served_by_all(scope, &entrance, &spec, pods).await;
    explain(scope, outcome, TUTORIAL, Some(HOST), "/frontend").await
}

async fn tls_by_server_name(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let ca = authority(scope).await?;
    for (host, pod) in [
        ("secure.example.local", "alpha"),
        ("second.example.local", "beta"),
    ] {
        // The probe verifies chain and name; anything else is a failure of kind TLS. Keys reach the
        // proxies by another way than routes, so that they are waited for too: ten handshakes, since
        // there may be several proxies.
        let spec = RequestSpec {
            count: 10,
            ..entrance.secure(host, "/", &ca)
        };
        let outcome = scope
            .eventually(Eventually {
                what: &format!("ten times GET https://{host}/, its certificate verified"),
                expected: BTreeSet::from([format!("200 by {pod}")]),
                observe: async || {
                    let answers = entrance.outside().request(&spec).await?;
                    Ok(answers.0.iter().map(said::said).collect())
                },
                likely: "the Secret that spec.tls names is missing, or the certificate of another host is shown",
            })
            .await;
        explain(scope, outcome, "secure", Some(host), "/").await?;
    }
    Ok(())
}

async fn other_server_names_get_no_certificate_of_ours(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let ca = authority(scope).await?;
    let stranger = entrance.secure("stranger.example.local", "/", &ca);
    let anyhow = RequestSpec {
        insecure: true,
        ca: None,
        ..stranger.clone()
    };
    let own = entrance.secure("secure.example.local", "/", &ca);
    let shown = |reply: strata::wire::Reply| reply.tls.and_then(|tls| tls.certificate);
    let outcome = scope
        .eventually(Eventually {
            what: "GET https://stranger.example.local/ verified; whether a certificate is shown, and whether it is another host's",
            expected: ("TLS failed".to_owned(), true, false),
            observe: async || {
                let verified = said::said(&entrance.send(&stranger).await?);
                let other = shown(entrance.send(&anyhow).await?);
                let own = shown(entrance.send(&own).await?);
                Ok((verified, other.is_some(), other == own))
            },
            likely: "the controller shows the first certificate it has to every server name",
        })
        .await;
    explain(
        scope,
        outcome,
        "secure",
        Some("stranger.example.local"),
        "/",
    )
    .await
}

async fn forwarded_headers(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let forged = "192.0.2.66";
    let spec = RequestSpec {
        headers: vec![
            format!("X-Forwarded-For: {forged}"),
            "X-Forwarded-Proto: https".to_owned(),
        ],
        ..entrance.request("one.example.local", "/")
    };
    let answer = entrance.send(&spec).await?.answer;
    let header = |name: &str| {
        answer
            .as_ref()
            .and_then(|answer| answer.header(name))
            .unwrap_or("absent")
            .to_owned()
    };
    // Whoever trusts the list trusts its last entry, which the controller itself wrote.
    let list = header("x-forwarded-for");
    let last = list.rsplit(',').next().map(str::trim).unwrap_or_default();
    let outcome = expect_eq(
        "X-Forwarded-Proto at the backend, and whether the last of X-Forwarded-For is an address other than the forged one",
        &("http".to_owned(), true),
        &(
            header("x-forwarded-proto"),
            last != forged && last.parse::<std::net::IpAddr>().is_ok(),
        ),
        "the controller believes forwarded headers from anybody",
    );
    explain(scope, outcome, "hosts", Some("one.example.local"), "/").await
}

async fn requests_arrive_unchanged(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let spec = RequestSpec {
            method: method.to_owned(),
            headers: vec!["X-Custom: kept as it is".to_owned()],
            ..entrance.request("one.example.local", "/a%20b/%C3%A9;v=1?q=1&q=2&empty=")
        };
        let answer = entrance.send(&spec).await?.answer;
        let arrived = answer.map(|answer| {
            let custom = answer.header("x-custom").unwrap_or_default().to_owned();
            [answer.method, answer.path, answer.query, custom]
        });
        let sent = [
            method,
            "/a%20b/%C3%A9;v=1",
            "q=1&q=2&empty=",
            "kept as it is",
        ];
        let outcome = expect_eq(
            "method, path, query and a header, as they arrive at the backend",
            &Some(sent.map(str::to_owned)),
            &arrived,
            "the controller normalises requests",
        );
        explain(scope, outcome, "hosts", Some("one.example.local"), "/").await?;
    }
    Ok(())
}

async fn statuses_arrive_unchanged(scope: &Scope) -> Outcome {
    table(
        scope,
        "hosts",
        &[
            ("one.example.local", "/status/201", "201 by alpha"),
            ("one.example.local", "/status/302", "302 by alpha"),
            ("one.example.local", "/status/404", "404 by alpha"),
            ("one.example.local", "/status/418", "418 by alpha"),
            ("one.example.local", "/status/500", "500 by alpha"),
            ("one.example.local", "/status/503", "503 by alpha"),
        ],
    )
    .await
}

async fn large_bodies_arrive_whole(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let size = 10 << 20;
    let up = RequestSpec {
        method: "POST".to_owned(),
        body_bytes: size,
        timeout_ms: 20_000,
        ..entrance.request("one.example.local", "/")
    };
    let down = RequestSpec {
        timeout_ms: 20_000,
        ..entrance.request("one.example.local", &format!("/?size={size}"))
    };
    let up = entrance.send(&up).await?;
    let down = entrance.send(&down).await?;
    let sent = up.answer.as_ref().map(|answer| answer.body_length);
    let received = down.body.as_ref().map(|body| body.length);
    let outcome = expect_eq(
        "POST of 10 MiB and GET of 10 MiB: their answers, and the bytes that arrived",
        &("200".to_owned(), Some(size), "200".to_owned(), Some(size)),
        &(said::status(&up), sent, said::status(&down), received),
        "the controller limits or buffers bodies",
    );
    explain(scope, outcome, "hosts", Some("one.example.local"), "/").await
}

/// The authority of the fixture's certificates.
pub(super) async fn authority(scope: &Scope) -> Result<String, NoVerdict> {
    let secret: Secret = scope.get_in(scope.fixture(), "secure").await?;
    text(&secret, "ca.crt")
}

/// What a Secret has under a key.
pub(super) fn text(secret: &Secret, key: &str) -> Result<String, NoVerdict> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let data = data.ok_or_else(|| NoVerdict::new(format!("a Secret has no {key}")))?;
    Ok(String::from_utf8(data.0.clone())?)
}
