//! What the API refuses of Istio's kinds: each case differs from the fixture's objects in one field.
//!
//! Start from [`SUITE`]. A definition's schema refuses with 422, a webhook with 400.

use strata::{Check, Layer, Outcome, Scope, Suite};

use crate::refusal::{name, refused};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Mesh,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "mesh::refuses_rules_without_a_host",
        claim: "A VirtualService for no host is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "hosts",
                "hosts: [], http: [{route: [{destination: {host: backend-v1}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_negative_weights",
        claim: "A negative weight is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "weight",
                "hosts: [refused], http: [{route: [{destination: {host: backend-v1}, weight: -1}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_destinations_without_a_host",
        claim: "A destination without a host is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "host",
                "hosts: [refused], http: [{route: [{destination: {}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_ports_out_of_range",
        claim: "A destination's port beyond 65535 is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "port",
                "hosts: [refused], http: [{route: [{destination: {host: backend-v1, port: {number: 65536}}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_aborts_with_no_status",
        claim: "An abort with what is no status is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "httpStatus",
                "hosts: [refused], http: [{fault: {abort: {httpStatus: 42}}, route: [{destination: {host: backend-v1}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_percentages_beyond_hundred",
        claim: "A fault of more than 100 % is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "percentage",
                "hosts: [refused], http: [{fault: {abort: {httpStatus: 500, percentage: {value: 101}}}, route: [{destination: {host: backend-v1}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_timeouts_that_are_none",
        claim: "A timeout that is no duration is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "timeout",
                "hosts: [refused], http: [{timeout: soon, route: [{destination: {host: backend-v1}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_negative_attempts",
        claim: "A negative number of retries is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "attempts",
                "hosts: [refused], http: [{retries: {attempts: -1}, route: [{destination: {host: backend-v1}}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_direct_responses_with_no_status",
        claim: "A direct response with what is no status is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                VIRTUAL_SERVICE,
                "status",
                "hosts: [refused], http: [{directResponse: {status: 99}}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_destination_rules_without_a_host",
        claim: "A DestinationRule for no host is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                DESTINATION_RULE,
                "host",
                "subsets: [{name: v1}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_subsets_without_a_name",
        claim: "A subset without a name is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                DESTINATION_RULE,
                "subset",
                "host: refused, subsets: [{labels: {version: v1}}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_balancers",
        claim: "A way of load balancing that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                DESTINATION_RULE,
                "simple",
                "host: refused, trafficPolicy: {loadBalancer: {simple: FASTEST}}",
            ))
        },
    },
    Check {
        id: "mesh::refuses_negative_limits",
        claim: "A negative limit of connections is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                DESTINATION_RULE,
                "maxConnections",
                "host: refused, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}",
            ))
        },
    },
    Check {
        id: "mesh::refuses_ejections_beyond_hundred_percent",
        claim: "An ejection of more than 100 % of the endpoints is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                DESTINATION_RULE,
                "maxEjectionPercent",
                "host: refused, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}",
            ))
        },
    },
    Check {
        id: "mesh::refuses_entries_without_a_host",
        claim: "A ServiceEntry for no host is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                SERVICE_ENTRY,
                "hosts",
                "hosts: [], ports: [{number: 80, name: http}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_resolutions",
        claim: "A way to find endpoints that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                SERVICE_ENTRY,
                "resolution",
                "hosts: [refused.example.com], ports: [{number: 80, name: http}], resolution: GUESS",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_outbound_policies",
        claim: "A Sidecar with an outbound policy that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                SIDECAR,
                "mode",
                "outboundTrafficPolicy: {mode: ASK_FIRST}",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_mtls_modes",
        claim: "A mode of mutual TLS that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                PEER_AUTHENTICATION,
                "mode",
                "mtls: {mode: SOMETIMES}",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_actions",
        claim: "An action of a policy that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                AUTHORIZATION_POLICY,
                "action",
                "action: PERHAPS",
            ))
        },
    },
    Check {
        id: "mesh::refuses_unknown_conditions",
        claim: "A condition on an attribute that there is not is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                AUTHORIZATION_POLICY,
                "key",
                "rules: [{when: [{key: request.mood, values: [good]}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_empty_audiences",
        claim: "A rule for tokens of an audience without a name is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                REQUEST_AUTHENTICATION,
                "audiences",
                "jwtRules: [{issuer: a.example, audiences: [\"\"]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_key_addresses_of_other_schemes",
        claim: "Keys to be fetched by anything but HTTP are refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                REQUEST_AUTHENTICATION,
                "jwksUri",
                "jwtRules: [{issuer: a.example, jwksUri: \"file:///etc/keys\"}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_places_without_a_name",
        claim: "A token in a header without a name is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                REQUEST_AUTHENTICATION,
                "fromHeaders",
                "jwtRules: [{issuer: a.example, fromHeaders: [{name: \"\"}]}]",
            ))
        },
    },
    Check {
        id: "mesh::refuses_claims_for_no_header",
        claim: "A claim to be told in what is no header is refused.",
        source: "istio: pilot/validation_test.go, Validation",
        needs: &[],
        manifest: None,
        run: |scope| {
            Box::pin(invalid(
                scope,
                REQUEST_AUTHENTICATION,
                "header",
                "jwtRules: [{issuer: a.example, outputClaimToHeaders: [{header: \"a b\", claim: sub}]}]",
            ))
        },
    },
];

/// A kind and its API.
type Kind = (&'static str, &'static str);

const VIRTUAL_SERVICE: Kind = ("networking.istio.io/v1", "VirtualService");
const DESTINATION_RULE: Kind = ("networking.istio.io/v1", "DestinationRule");
const SERVICE_ENTRY: Kind = ("networking.istio.io/v1", "ServiceEntry");
const SIDECAR: Kind = ("networking.istio.io/v1", "Sidecar");
const PEER_AUTHENTICATION: Kind = ("security.istio.io/v1", "PeerAuthentication");
const AUTHORIZATION_POLICY: Kind = ("security.istio.io/v1", "AuthorizationPolicy");
const REQUEST_AUTHENTICATION: Kind = ("security.istio.io/v1", "RequestAuthentication");

async fn invalid(scope: &Scope, (api, kind): Kind, field: &str, spec: &str) -> Outcome {
    let name = name(scope);
    let yaml = format!(
        "{{apiVersion: {api}, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    );
    refused(scope, &[400, 422], field, &yaml).await
}
