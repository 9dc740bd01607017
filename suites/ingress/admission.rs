//! What the API refuses of an Ingress: each case differs from the fixture's Ingresses in one field.
//!
//! Start from [`SUITE`]. The yardstick is Kubernetes' own validation.

use strata::{Check, Layer, Outcome, Scope, Suite};

use crate::refusal::{name, refused};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::refuses_no_rules_and_no_default_backend",
        claim: "An Ingress with neither rules nor a default backend is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_spec(scope, "spec", "rules: []")),
    },
    Check {
        id: "ingress::refuses_relative_paths",
        claim: "A path that does not begin with a slash is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "path",
                "path: relative, pathType: Prefix, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_empty_path_elements",
        claim: "A path with an empty element is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "path",
                "path: /a//b, pathType: Exact, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_dots_in_paths",
        claim: "A path that leads up its own elements is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "path",
                "path: /a/../b, pathType: Prefix, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_dots_at_the_end_of_paths",
        claim: "A path that ends in an element of dots is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "path",
                "path: /a/.., pathType: Prefix, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_escaped_slashes",
        claim: "A path with an escaped slash is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "path",
                "path: /a%2Fb, pathType: Exact, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_no_path_type",
        claim: "A path without a type is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "pathType",
                "path: /, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_unknown_path_types",
        claim: "A path of a type that there is not is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "pathType",
                "path: /, pathType: Regex, backend: {service: {name: alpha, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_backends_without_a_port",
        claim: "A backend without a port is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "port",
                "path: /, pathType: Prefix, backend: {service: {name: alpha}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_ports_by_name_and_number",
        claim: "A backend with the name and the number of a port is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "port",
                "path: /, pathType: Prefix, backend: {service: {name: alpha, port: {name: web, number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_ports_out_of_range",
        claim: "A backend with a port beyond 65535 is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "port.number",
                "path: /, pathType: Prefix, backend: {service: {name: alpha, port: {number: 65536}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_backends_of_nothing",
        claim: "A backend that is neither a Service nor a resource is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "backend",
                "path: /, pathType: Prefix, backend: {}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_backends_of_two_kinds",
        claim: "A backend that is a Service and a resource is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "backend",
                "path: /, pathType: Prefix, backend: {service: {name: alpha, port: {number: 80}}, resource: {kind: ConfigMap, name: alpha}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_service_names_that_are_none",
        claim: "A backend whose Service no Service can be called like is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_path(
                scope,
                "service.name",
                "path: /, pathType: Prefix, backend: {service: {name: a.b, port: {number: 80}}}",
            ))
        },
    },
    Check {
        id: "ingress::refuses_addresses_as_hosts",
        claim: "An address as a host is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_host(scope, "192.0.2.1")),
    },
    Check {
        id: "ingress::refuses_wildcards_within_hosts",
        claim: "A wildcard that is not a host's first label is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_host(scope, "a.*.example.local")),
    },
    Check {
        id: "ingress::refuses_hosts_in_upper_case",
        claim: "A host in upper case is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_host(scope, "App.example.local")),
    },
    Check {
        id: "ingress::refuses_hosts_with_a_port",
        claim: "A host with a port is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_host(scope, "a.example.local:80")),
    },
    Check {
        id: "ingress::refuses_tls_hosts_that_are_none",
        claim: "A TLS host that is no DNS name is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(refused_spec(
                scope,
                "tls[0].hosts",
                "defaultBackend: {service: {name: alpha, port: {number: 80}}}, tls: [{hosts: [a..b], secretName: secure}]",
            ))
        },
    },
    Check {
        id: "ingress::refuses_two_ways_to_name_a_class",
        claim: "An Ingress that names its class by the field and by the annotation is refused.",
        source: "Kubernetes: validateIngress",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(refused_class(scope)),
    },
];

/// A whole `spec`.
async fn refused_spec(scope: &Scope, field: &str, spec: &str) -> Outcome {
    ingress(scope, field, "", spec).await
}

/// The one path of the one rule.
async fn refused_path(scope: &Scope, field: &str, path: &str) -> Outcome {
    let spec = format!("rules: [{{host: refused.example.local, http: {{paths: [{{{path}}}]}}}}]");
    ingress(scope, field, "", &spec).await
}

/// The host of the one rule.
async fn refused_host(scope: &Scope, host: &str) -> Outcome {
    let path = "path: /, pathType: Prefix, backend: {service: {name: alpha, port: {number: 80}}}";
    let spec = format!("rules: [{{host: '{host}', http: {{paths: [{{{path}}}]}}}}]");
    ingress(scope, "host", "", &spec).await
}

async fn refused_class(scope: &Scope) -> Outcome {
    let annotation = ", annotations: {kubernetes.io/ingress.class: nobody}";
    let spec =
        "ingressClassName: nobody, defaultBackend: {service: {name: alpha, port: {number: 80}}}";
    ingress(scope, "ingress.class", annotation, spec).await
}

async fn ingress(scope: &Scope, field: &str, metadata: &str, spec: &str) -> Outcome {
    let name = name(scope);
    let yaml = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}{metadata}}}, spec: {{{spec}}}}}"
    );
    refused(scope, &[422], field, &yaml).await
}
