//! Names: what cluster DNS says of Services and pods, and how a pod's resolver asks.
//!
//! Start from [`SUITE`]. The yardstick is the Kubernetes DNS specification, schema version 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>); the cluster's domain is taken
//! to be cluster.local, as nearly every cluster has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use strata::wire::{DnsReply, DnsSpec, Rcode};
use strata::{
    Check, Expect, Layer, NoVerdict, Outcome, Scope, Subject, Suite, Vantage, expect, expect_eq,
};

use super::{address, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::every_form_of_a_name",
        claim: "A Service is found by its short name, with its namespace, with svc, and by its full name.",
        source: "sig-network: should resolve DNS of partial qualified names for services",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(every_form_of_a_name(scope)),
    },
    Check {
        id: "services::search_path",
        claim: "A pod's resolver asks for a name with fewer than five dots below its search domains first, and for one that ends in a dot as it stands.",
        source: "Kubernetes: DNS for Services and Pods, resolv.conf with ndots:5",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(search_path(scope)),
    },
    Check {
        id: "services::other_namespace",
        claim: "A Service of another namespace is reached by name and namespace, and is not found by its name alone.",
        source: "Kubernetes DNS specification, 2.3.1; sig-network: should provide DNS for services",
        needs: &[],
        manifest: Some("services/other_namespace.yaml"),
        run: |scope| Box::pin(other_namespace(scope)),
    },
    Check {
        id: "services::headless_names_every_pod",
        claim: "A headless Service has an address record for each ready pod, and no cluster IP.",
        source: "Kubernetes DNS specification, 2.4.1; sig-network: should provide DNS for services",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(headless_names_every_pod(scope)),
    },
    Check {
        id: "services::named_ports_have_srv_records",
        claim: "A named port has an SRV record: one for a Service with a cluster IP, one a pod for a headless one, and their targets resolve.",
        source: "Kubernetes DNS specification, 2.3.2 and 2.4.2",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(named_ports_have_srv_records(scope)),
    },
    Check {
        id: "services::cluster_ips_have_ptr_records",
        claim: "The reverse name of a cluster IP points to its Service.",
        source: "Kubernetes DNS specification, 2.3.3",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(cluster_ips_have_ptr_records(scope)),
    },
    Check {
        id: "services::pods_have_names_in_their_subdomain",
        claim: "A pod with hostname and subdomain has a name of its own below its headless Service.",
        source: "sig-network: should provide DNS for pods for Hostname; sig-network: should provide DNS for pods for Subdomain",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(pods_have_names_in_their_subdomain(scope)),
    },
    Check {
        id: "services::absence_is_told_apart",
        claim: "A name that does not exist is NXDOMAIN, and one without an address of the family asked for is an empty NOERROR; neither is SERVFAIL.",
        source: "Kubernetes DNS specification, 2.3; RFC 2308, section 2",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(absence_is_told_apart(scope)),
    },
    Check {
        id: "services::dns_over_tcp",
        claim: "Cluster DNS answers over TCP as it does over UDP.",
        source: "RFC 7766; sig-network: should provide DNS for the cluster",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(dns_over_tcp(scope)),
    },
    Check {
        id: "services::dns_tells_its_schema_version",
        claim: "Cluster DNS tells the version of the schema that it follows, 1.x.",
        source: "Kubernetes DNS specification, 2.2",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(dns_tells_its_schema_version(scope)),
    },
];

async fn every_form_of_a_name(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ip = address(&scope.get("backend").await?);
    let namespace = scope.namespace();
    let forms = [
        "backend".to_owned(),
        format!("backend.{namespace}"),
        format!("backend.{namespace}.svc"),
        format!("backend.{namespace}.svc.cluster.local"),
        format!("backend.{namespace}.svc.cluster.local."),
    ];
    let mut seen = BTreeMap::new();
    for name in &forms {
        seen.insert(name.clone(), found(&client.dns(name, "A").await?));
    }
    let expected = forms.map(|name| (name, ip.clone())).into();
    judge(
        scope,
        &client,
        "the address of Service backend, by the form of its name",
        &expected,
        &seen,
    )
    .await
}

async fn search_path(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let own = format!("{}.svc.cluster.local.", scope.namespace());
    let full = "kubernetes.default.svc.cluster.local";
    let mut seen = BTreeMap::new();
    for name in ["backend", "backend.", full, &format!("{full}.")] {
        let reply = client.dns(name, "A").await?;
        let first = reply.exchanges.first();
        let first = first.map(|exchange| exchange.question.clone());
        // What comes of `backend.` is for the name servers of the world to say, if they are reached.
        let found = if name == "backend." {
            String::new()
        } else {
            found(&reply)
        };
        seen.insert(name.to_owned(), (first.unwrap_or_default(), found));
    }
    let backend = address(&scope.get("backend").await?);
    let api = address(&scope.get_in("default", "kubernetes").await?);
    let expected = BTreeMap::from([
        ("backend".to_owned(), (format!("backend.{own}"), backend)),
        (
            "backend.".to_owned(),
            ("backend.".to_owned(), String::new()),
        ),
        (full.to_owned(), (format!("{full}.{own}"), api.clone())),
        (format!("{full}."), (format!("{full}."), api)),
    ]);
    let what = "the first question asked for a name, and the answer";
    judge(scope, &client, what, &expected, &seen).await
}

async fn other_namespace(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let there = format!("backend.{}", scope.fixture());
    let answer = said::status(&client.get(format!("http://{there}/")).await?);
    // The resolver's first question for the name alone is below the pod's own namespace.
    let alone = client.dns("backend", "A").await?;
    let first = alone
        .exchanges
        .first()
        .map(|exchange| (exchange.question.clone(), exchange.rcode.clone()));
    let outcome = expect_eq(
        format!(
            "GET http://{there}/, and the first question and answer for the name backend alone, from another namespace"
        ),
        &(
            "200".to_owned(),
            Some((
                format!("backend.{}.svc.cluster.local.", scope.namespace()),
                Some(Rcode::NxDomain),
            )),
        ),
        &(answer, first),
        "the pod's resolv.conf does not search its own namespace first, or cluster DNS mixes namespaces up",
    );
    scope.explain(outcome, Subject::Dns { from: &client }).await
}

async fn headless_names_every_pod(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let headless: Service = scope.get("headless").await?;
    let reply = client.dns("headless", "A").await?;
    let expected: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    let seen = (
        address(&headless),
        reply.addresses.iter().copied().collect(),
        reply.addresses.len(),
    );
    let expected = ("None".to_owned(), expected, pods.len());
    judge(
        scope,
        &client,
        "the cluster IP of Service headless, its addresses, and their number",
        &expected,
        &seen,
    )
    .await
}

async fn named_ports_have_srv_records(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pods = scope.ready_pods("app=backend").await?;
    let many_ports = address(&scope.get("many-ports").await?);
    let each: BTreeSet<_> = pods.iter().map(|pod| (8080, pod.ip.to_string())).collect();
    for (name, expected) in [
        (
            "_http._tcp.many-ports",
            BTreeSet::from([(80, many_ports.clone())]),
        ),
        ("_udp._udp.many-ports", BTreeSet::from([(7001, many_ports)])),
        ("_http._tcp.headless", each),
    ] {
        let reply = client.dns(name, "SRV").await?;
        let mut seen = BTreeSet::new();
        for record in reply.data("SRV") {
            let (port, target) = srv(record)?;
            seen.insert((port, found(&client.dns(target, "A").await?)));
        }
        let what =
            format!("the ports of the SRV records of {name}, and the addresses of their targets");
        judge(scope, &client, &what, &expected, &seen).await?;
    }
    Ok(())
}

async fn cluster_ips_have_ptr_records(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let ip: IpAddr = address(&scope.get("backend").await?).parse()?;
    let reply = client.dns(reverse(ip), "PTR").await?;
    let names: Vec<_> = reply.data("PTR").map(str::to_owned).collect();
    let expected = vec![format!("backend.{}.svc.cluster.local.", scope.namespace())];
    judge(
        scope,
        &client,
        &format!("the names of {ip}"),
        &expected,
        &names,
    )
    .await
}

/// The name of an address (RFC 1035, section 3.5; RFC 3596, section 2.5).
pub(super) fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().map(|octet| format!("{octet:02x}")).concat();
            let digits: Vec<_> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa.", digits.join("."))
        }
    }
}

async fn pods_have_names_in_their_subdomain(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let pod = only(scope.ready_pods("app=named-in-dns").await?)?;
    let reply = client.dns("first.family", "A").await?;
    judge(
        scope,
        &client,
        "the address of first.family",
        &pod.ip.to_string(),
        &found(&reply),
    )
    .await
}

async fn absence_is_told_apart(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    // Full names: without the last dot, the resolver would end by asking the world's name servers.
    let full = |name: &str| format!("{name}.{}.svc.cluster.local.", scope.namespace());
    let mut seen = BTreeMap::new();
    for (name, record_type) in [
        ("no-such-service", "A"),
        ("backend", "AAAA"),
        ("backend", "A"),
    ] {
        let reply = client.dns(full(name), record_type).await?;
        let code = reply
            .rcode
            .as_ref()
            .map_or_else(|| "no answer".to_owned(), ToString::to_string);
        seen.insert((name, record_type), (code, reply.answers.is_empty()));
    }
    let expected = BTreeMap::from([
        (("no-such-service", "A"), ("NXDOMAIN".to_owned(), true)),
        (("backend", "AAAA"), ("NOERROR".to_owned(), true)),
        (("backend", "A"), ("NOERROR".to_owned(), false)),
    ]);
    let what = "the code of an answer, and whether it is empty";
    judge(scope, &client, what, &expected, &seen).await
}

async fn dns_over_tcp(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let spec = DnsSpec {
        tcp: true,
        ..DnsSpec::new("backend", "A")
    };
    let replies = client.ask(&spec).await?;
    let answers: Vec<_> = replies.iter().map(found).collect();
    let over_tcp = replies
        .iter()
        .flat_map(|reply| &reply.exchanges)
        .all(|exchange| exchange.tcp);
    let expected = (vec![address(&scope.get("backend").await?)], true);
    judge(
        scope,
        &client,
        "the address of backend, asked for over TCP only",
        &expected,
        &(answers, over_tcp),
    )
    .await
}

async fn dns_tells_its_schema_version(scope: &Scope) -> Outcome {
    let client = scope.pod("app=client").await?;
    let reply = client.dns("dns-version.cluster.local.", "TXT").await?;
    let versions: Vec<_> = reply
        .data("TXT")
        .map(|text| text.trim_matches('"'))
        .collect();
    let outcome = expect(
        matches!(versions.as_slice(), [one] if one.starts_with("1.")),
        || Expect {
            what: "the TXT record of dns-version.cluster.local.".to_owned(),
            expected: "one, 1.x.y".to_owned(),
            observed: format!("{versions:?}"),
            likely: "the DNS server is not one for Kubernetes, or the cluster's domain is another"
                .to_owned(),
        },
    );
    scope.explain(outcome, Subject::Dns { from: &client }).await
}

/// The addresses of an answer, else its code, else the kind of the failure.
pub(super) fn found(reply: &DnsReply) -> String {
    let addresses: Vec<_> = reply.addresses.iter().map(ToString::to_string).collect();
    match (&reply.rcode, &reply.error) {
        _ if !addresses.is_empty() => addresses.join(", "),
        (Some(Rcode::NoError), _) => "no address".to_owned(),
        (Some(code), _) => code.to_string(),
        (None, Some(error)) => error.kind.to_string(),
        (None, None) => "no answer".to_owned(),
    }
}

/// Port and target of an SRV record: `0 100 80 web.default.svc.cluster.local.`
fn srv(record: &str) -> Result<(u16, &str), NoVerdict> {
    let fields: Vec<_> = record.split_whitespace().collect();
    match fields.as_slice() {
        [_, _, port, target] => Ok((port.parse()?, target)),
        _ => Err(NoVerdict::new(format!("{record:?} is no SRV record"))),
    }
}

pub(super) async fn judge<T: PartialEq + std::fmt::Debug>(
    scope: &Scope,
    client: &Vantage,
    what: &str,
    expected: &T,
    seen: &T,
) -> Outcome {
    let likely = "the records of cluster DNS do not follow the Services and EndpointSlices";
    let outcome = expect_eq(what, expected, seen, likely);
    scope.explain(outcome, Subject::Dns { from: client }).await
}
