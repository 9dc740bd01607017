//! Which backend a request reaches: by host, by path, by class.
//!
//! Start from [`SUITE`]. The yardstick is the Ingress documentation's table of path matches, and the
//! ingress-controller conformance suite's features.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use strata::{Check, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::{TUTORIAL, table};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::prefix_matches_by_elements",
        claim: "A Prefix matches whole path elements, in their case, with or without a last slash.",
        source: "ingress conformance: path_rules.feature, prefix path rules should be case sensitive …; Kubernetes: Ingress path types, examples",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(prefix_matches_by_elements(scope)),
    },
    Check {
        id: "ingress::exact_matches_to_the_letter",
        claim: "An Exact path matches itself and nothing else: no other case, no last slash more or less.",
        source: "ingress conformance: path_rules.feature, exact path rules …; ingress conformance: path_rules.feature, trailing slashes in an exact path rule …",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(exact_matches_to_the_letter(scope)),
    },
    Check {
        id: "ingress::longest_path_wins",
        claim: "The longest matching prefix wins, and Exact wins over Prefix.",
        source: "ingress conformance: path_rules.feature, mixed path rules …; Kubernetes: Ingress, multiple matches",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(longest_path_wins(scope)),
    },
    Check {
        id: "ingress::hosts_are_told_apart",
        claim: "Each host of an Ingress has its own backend; case and port of the Host header do not matter.",
        source: "ingress conformance: host_rules.feature, host rule should send traffic …; RFC 9110, section 7.2",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(hosts_are_told_apart(scope)),
    },
    Check {
        id: "ingress::wildcard_host_covers_one_label",
        claim: "A wildcard host stands for exactly one label, and an exact host wins over it.",
        source: "ingress conformance: host_rules.feature, wildcard host rule …",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(wildcard_host_covers_one_label(scope)),
    },
    Check {
        id: "ingress::ingresses_of_a_host_merge",
        claim: "Two Ingresses of one host are both served, and one of a class that nobody has is not.",
        source: "ingress conformance: ingress_class.feature, …; ingress-nginx: multiple Ingresses of a host are merged",
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
];

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
