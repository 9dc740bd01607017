//! Ingress: HTTP from outside the cluster, routed by host and path.
//!
//! Start from [`SUITE`]; changes are in `changes`. Every request starts outside the cluster. In the
//! fixture `alpha` and `beta` are backends of one pod each, so that an answer tells which of them it
//! came from; the hosts differ from Ingress to Ingress.

mod changes;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use strata::wire::RequestSpec;
use strata::{
    Check, Eventually, Expect, Layer, Need, NoVerdict, Outcome, Scope, Subject, Suite, expect,
    expect_eq,
};

use crate::entrance::{Entrance, Table, ingress_address, served_by};
use crate::said;

pub(crate) use changes::SUITE as CHANGES;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: GATES,
    checks: CHECKS,
};

const GATES: &[Check] = &[
    Check {
        id: "ingress::has_an_address",
        claim: "The tutorial's Ingress is given an address.",
        source: "Kubernetes: Ingress status.loadBalancer; sig-network: should support creating Ingress API operations",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(has_an_address(scope)),
    },
    Check {
        id: "ingress::routes_host_and_path",
        claim: "GET /frontend of host app.example.local reaches the tutorial's frontend, its path unchanged, through the Ingress controller.",
        source: "tutorial, \"curl http://$(minikube ip)/frontend\", with the Host header that it lacks",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(routes_host_and_path(scope)),
    },
    Check {
        id: "ingress::unknown_host_is_not_found",
        claim: "The tutorial's own request, without the Host header, is answered with 404.",
        source: "tutorial, \"curl http://$(minikube ip)/frontend\", as printed; ingress conformance: should not route traffic when hostname does not match",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(unknown_host_is_not_found(scope)),
    },
];

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::prefix_matches_by_elements",
        claim: "A Prefix matches whole path elements, in their case, with or without a last slash.",
        source: "ingress conformance: path_rules.feature, prefix; Kubernetes: Ingress path types, examples",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(prefix_matches_by_elements(scope)),
    },
    Check {
        id: "ingress::exact_matches_to_the_letter",
        claim: "An Exact path matches itself and nothing else: no other case, no last slash more or less.",
        source: "ingress conformance: path_rules.feature, exact",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(exact_matches_to_the_letter(scope)),
    },
    Check {
        id: "ingress::longest_path_wins",
        claim: "The longest matching prefix wins, and Exact wins over Prefix.",
        source: "ingress conformance: path_rules.feature, mixed; Kubernetes: Ingress, multiple matches",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(longest_path_wins(scope)),
    },
    Check {
        id: "ingress::hosts_are_told_apart",
        claim: "Each host of an Ingress has its own backend; case and port of the Host header do not matter.",
        source: "ingress conformance: host_rules.feature; RFC 9110, section 7.2",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(hosts_are_told_apart(scope)),
    },
    Check {
        id: "ingress::wildcard_host_covers_one_label",
        claim: "A wildcard host stands for exactly one label, and an exact host wins over it.",
        source: "ingress conformance: host_rules.feature, wildcard",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(wildcard_host_covers_one_label(scope)),
    },
    Check {
        id: "ingress::ingresses_of_a_host_merge",
        claim: "Two Ingresses of one host are both served, and one of a class that nobody has is not.",
        source: "ingress conformance: ingress_class.feature; ingress-nginx: multiple Ingresses of a host are merged",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(ingresses_of_a_host_merge(scope)),
    },
    Check {
        id: "ingress::default_class_is_filled_in",
        claim: "An Ingress that names no class is given the default one.",
        source: "sig-network: should set default value on new IngressClass",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(default_class_is_filled_in(scope)),
    },
    Check {
        id: "ingress::missing_backends_are_503",
        claim: "A path whose Service, port or endpoints are missing is answered with 503, and its neighbours are served.",
        source: "ingress-nginx: service_backend.go, should return 503 when all backend service endpoints are unavailable",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(missing_backends_are_503(scope)),
    },
    Check {
        id: "ingress::reaches_every_endpoint",
        claim: "Requests reach every pod of a backend.",
        source: "ingress conformance: load_balancing.feature",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(reaches_every_endpoint(scope)),
    },
    Check {
        id: "ingress::tls_by_server_name",
        claim: "Each TLS host shows its own certificate, which the chain to its authority verifies.",
        source: "Kubernetes: Ingress spec.tls; ingress conformance: should send TLS traffic to the matching backend service",
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
        id: "ingress::api_refuses_what_is_invalid",
        claim: "The API refuses an Ingress that is not valid, and names the field.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_refuses_what_is_invalid(scope)),
    },
];

const TUTORIAL: &str = "my-ingress";
const HOST: &str = "app.example.local";

async fn has_an_address(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually(Eventually {
            what: "whether status.loadBalancer of Ingress my-ingress tells an address",
            expected: true,
            observe: async || Ok(ingress_address(&scope.get(TUTORIAL).await?).is_some()),
            likely: "no controller serves the Ingress's class, or its own Service has no address",
        })
        .await;
    explain(scope, outcome, TUTORIAL, None, "/frontend").await
}

async fn routes_host_and_path(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_ingress(scope, TUTORIAL).await?;
    let servers = entrance.servers(scope).await?;
    let frontends = scope.ready_pods("app=frontend").await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET /frontend of app.example.local: its answer, whether by a pod of frontend, the path that arrived, and whether the controller brought it",
            expected: ("200".to_owned(), true, "/frontend".to_owned(), true),
            observe: async || {
                let reply = entrance.get(HOST, "/frontend").await?;
                let ours = frontends.iter().any(|pod| reply.pod() == Some(&pod.name));
                let path = reply.answer.as_ref().map(|answer| answer.path.clone());
                let brought = served_by(&reply, &servers).is_some();
                Ok((said::status(&reply), ours, path.unwrap_or_default(), brought))
            },
            likely: "the rule's host or path has a typo, its Service has no ready pod, or another controller has the address",
        })
        .await;
    explain(scope, outcome, TUTORIAL, Some(HOST), "/frontend").await
}

async fn unknown_host_is_not_found(scope: &Scope) -> Outcome {
    let entrance = Entrance::of_ingress(scope, TUTORIAL).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET /frontend without a Host header of the Ingress's",
            expected: "404".to_owned(),
            observe: async || Ok(said::said(&entrance.get("", "/frontend").await?)),
            likely: "an Ingress without a host, or a default backend, takes every host",
        })
        .await;
    explain(scope, outcome, TUTORIAL, None, "/frontend").await
}

const PATHS: &str = "paths.example.local";

async fn prefix_matches_by_elements(scope: &Scope) -> Outcome {
    table(
        scope,
        "paths",
        &[
            (PATHS, "/foo", "200 by alpha"),
            (PATHS, "/foo/", "200 by alpha"),
            (PATHS, "/foo/bar", "200 by alpha"),
            (PATHS, "/foobar", "404"),
            (PATHS, "/FOO", "404"),
            (PATHS, "/fo", "404"),
            (PATHS, "/", "404"),
            (PATHS, "/trail", "200 by beta"),
            (PATHS, "/trail/", "200 by beta"),
            (PATHS, "/trail/er", "200 by beta"),
            (PATHS, "/trailer", "404"),
        ],
    )
    .await
}

async fn exact_matches_to_the_letter(scope: &Scope) -> Outcome {
    table(
        scope,
        "paths",
        &[
            (PATHS, "/exact", "200 by alpha"),
            (PATHS, "/exact?query", "200 by alpha"),
            (PATHS, "/exact/", "404"),
            (PATHS, "/exact/more", "404"),
            (PATHS, "/EXACT", "404"),
            (PATHS, "/slash/", "200 by alpha"),
            (PATHS, "/slash", "404"),
        ],
    )
    .await
}

async fn longest_path_wins(scope: &Scope) -> Outcome {
    table(
        scope,
        "paths",
        &[
            (PATHS, "/aaa", "200 by alpha"),
            (PATHS, "/aaa/ccc", "200 by alpha"),
            (PATHS, "/aaa/bbb", "200 by beta"),
            (PATHS, "/aaa/bbb/ccc", "200 by beta"),
            (PATHS, "/aaa/bbbccc", "200 by alpha"),
            (PATHS, "/foo/only", "200 by beta"),
            (PATHS, "/foo/only/", "200 by alpha"),
        ],
    )
    .await
}

async fn hosts_are_told_apart(scope: &Scope) -> Outcome {
    table(
        scope,
        "hosts",
        &[
            ("one.example.local", "/", "200 by alpha"),
            ("two.example.local", "/", "200 by beta"),
            ("ONE.Example.Local", "/", "200 by alpha"),
            ("two.example.local:8080", "/", "200 by beta"),
            ("three.example.local", "/", "404"),
        ],
    )
    .await
}

async fn wildcard_host_covers_one_label(scope: &Scope) -> Outcome {
    table(
        scope,
        "wildcard",
        &[
            ("any.wild.example.local", "/", "200 by alpha"),
            ("own.wild.example.local", "/", "200 by beta"),
            ("two.labels.wild.example.local", "/", "404"),
            ("wild.example.local", "/", "404"),
        ],
    )
    .await
}

async fn ingresses_of_a_host_merge(scope: &Scope) -> Outcome {
    table(
        scope,
        "merged-alpha",
        &[
            ("merged.example.local", "/alpha", "200 by alpha"),
            ("merged.example.local", "/beta", "200 by beta"),
            ("merged.example.local", "/unclaimed", "404"),
        ],
    )
    .await
}

async fn default_class_is_filled_in(scope: &Scope) -> Outcome {
    let ingress: Ingress = scope.get(TUTORIAL).await?;
    let class = ingress.spec.and_then(|spec| spec.ingress_class_name);
    let found: Option<IngressClass> = match &class {
        Some(name) => Some(scope.get_cluster(name).await?),
        None => None,
    };
    let annotations = found
        .and_then(|class| class.metadata.annotations)
        .unwrap_or_default();
    let default = annotations.get("ingressclass.kubernetes.io/is-default-class");
    expect_eq(
        "whether Ingress my-ingress, which names no class, was given one, and whether it is the default",
        &(true, Some("true")),
        &(class.is_some(), default.map(String::as_str)),
        "no IngressClass is marked as the default one",
    )
}

async fn missing_backends_are_503(scope: &Scope) -> Outcome {
    table(
        scope,
        "broken",
        &[
            ("broken.example.local", "/missing", "503"),
            ("broken.example.local", "/no-port", "503"),
            ("broken.example.local", "/empty", "503"),
            ("broken.example.local", "/fine", "200 by alpha"),
        ],
    )
    .await
}

async fn reaches_every_endpoint(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let pods = scope.ready_pods("app=frontend").await?;
    let pods: BTreeSet<_> = pods.into_iter().map(|pod| pod.name).collect();
    // Whether endpoints are chosen at random or in turn, by several proxies: of two pods either is
    // missed by 60 requests with probability 2·2⁻⁶⁰ at most.
    let spec = RequestSpec {
        count: 60,
        concurrency: 4,
        ..entrance.request(HOST, "/frontend")
    };
    let answers = entrance.outside().request(&spec).await?;
    let outcome = expect_eq(
        "the pods that answer 60 requests, and failures",
        &(pods, BTreeMap::new()),
        &(answers.served_by(), answers.failures()),
        "the controller has not been told of an endpoint",
    );
    explain(scope, outcome, TUTORIAL, Some(HOST), "/frontend").await
}

async fn tls_by_server_name(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let ca = authority(scope).await?;
    for (host, pod) in [
        ("secure.example.local", "alpha"),
        ("second.example.local", "beta"),
    ] {
        // The probe verifies chain and name; anything else is a failure of kind TLS.
        let reply = entrance.send(&entrance.secure(host, "/", &ca)).await?;
        let outcome = expect_eq(
            format!("GET https://{host}/, its certificate verified"),
            &format!("200 by {pod}"),
            &said::said(&reply),
            "the Secret that spec.tls names is missing, or the certificate of another host is shown",
        );
        explain(scope, outcome, "secure", Some(host), "/").await?;
    }
    Ok(())
}

async fn other_server_names_get_no_certificate_of_ours(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let ca = authority(scope).await?;
    let verified = entrance.secure("stranger.example.local", "/", &ca);
    let anyhow = RequestSpec {
        insecure: true,
        ca: None,
        ..verified.clone()
    };
    let verified = entrance.send(&verified).await?;
    let shown = entrance
        .send(&anyhow)
        .await?
        .tls
        .and_then(|tls| tls.certificate);
    let own = entrance
        .send(&entrance.secure("secure.example.local", "/", &ca))
        .await?;
    let own = own.tls.and_then(|tls| tls.certificate);
    let outcome = expect_eq(
        "GET https://stranger.example.local/ verified; whether a certificate is shown, and whether it is another host's",
        &("TLS failed".to_owned(), true, false),
        &(said::said(&verified), shown.is_some(), shown == own),
        "the controller shows the first certificate it has to every server name",
    );
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

async fn api_refuses_what_is_invalid(scope: &Scope) -> Outcome {
    // The controls are the fixture's own Ingresses, which differ from these in the one field.
    let path =
        |path: &str| format!("rules: [{{host: a.example.local, http: {{paths: [{path}]}}}}]");
    let service = "backend: {service: {name: alpha, port: {number: 80}}}";
    for (field, spec) in [
        ("spec", "rules: []".to_owned()),
        (
            "path",
            path(&format!("{{path: relative, pathType: Prefix, {service}}}")),
        ),
        (
            "path",
            path(&format!("{{path: /a//b, pathType: Exact, {service}}}")),
        ),
        ("pathType", path(&format!("{{path: /, {service}}}"))),
        (
            "pathType",
            path(&format!("{{path: /, pathType: Regex, {service}}}")),
        ),
        (
            "port",
            path("{path: /, pathType: Prefix, backend: {service: {name: alpha}}}"),
        ),
        ("backend", path("{path: /, pathType: Prefix, backend: {}}")),
        (
            "host",
            format!(
                "rules: [{{host: 192.0.2.1, http: {{paths: [{{path: /, pathType: Prefix, {service}}}]}}}}]"
            ),
        ),
        (
            "host",
            format!(
                "rules: [{{host: 'a.*.example.local', http: {{paths: [{{path: /, pathType: Prefix, {service}}}]}}}}]"
            ),
        ),
    ] {
        let yaml = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: invalid}}, spec: {{{spec}}}}}"
        );
        let refusal = scope
            .attempt(&yaml)
            .await?
            .err()
            .map(|refusal| (refusal.code, refusal.message));
        let named = refusal
            .as_ref()
            .is_some_and(|(code, message)| *code == 422 && message.contains(field));
        expect(named, || Expect {
            what: format!("creating an Ingress with {spec}"),
            expected: format!("422, … {field} …"),
            observed: refusal.map_or_else(
                || "accepted".to_owned(),
                |(code, message)| format!("{code}, {message}"),
            ),
            likely: "the API server does not validate Ingresses".to_owned(),
        })?;
    }
    Ok(())
}

/// The way in, once the last Ingress of the fixture is served: then all of them are.
async fn entrance(scope: &Scope) -> Result<Entrance, NoVerdict> {
    Entrance::of_ingress(scope, TUTORIAL)
        .await?
        .settled("last.example.local")
        .await
}

/// The authority of the fixture's certificates.
async fn authority(scope: &Scope) -> Result<String, NoVerdict> {
    let secret: Secret = scope.get_in(scope.fixture(), "secure").await?;
    let ca = secret.data.and_then(|mut data| data.remove("ca.crt"));
    let ca = ca.ok_or_else(|| NoVerdict::new("Secret secure has no ca.crt"))?;
    Ok(String::from_utf8(ca.0)?)
}

/// Judges a table of hosts and paths, all of them rules of one Ingress.
async fn table(
    scope: &Scope,
    ingress: &str,
    cases: &[(&'static str, &'static str, &'static str)],
) -> Outcome {
    let entrance = entrance(scope).await?;
    let Table { expected, seen } = entrance.table(cases).await?;
    let outcome = expect_eq(
        "who answers, by host and path",
        &expected,
        &seen,
        "the controller orders or compares paths in a way of its own",
    );
    let differs = |case: &&(&str, &str, &str)| {
        let name = format!("{}{}", case.0, case.1);
        expected.get(&name) != seen.get(&name)
    };
    match cases.iter().find(differs) {
        Some((host, path, _)) => explain(scope, outcome, ingress, Some(host), path).await,
        None => outcome,
    }
}

async fn explain(
    scope: &Scope,
    outcome: Outcome,
    name: &str,
    host: Option<&str>,
    path: &str,
) -> Outcome {
    let subject = Subject::Ingress {
        namespace: scope.namespace(),
        name,
        host,
        path,
    };
    scope.explain(outcome, subject).await
}
