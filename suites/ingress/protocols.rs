//! What is spoken: versions of HTTP, WebSockets, answers that come in parts, and who asks.
//!
//! Start from [`SUITE`].

use std::collections::BTreeMap;

use strata::wire::{Connections, HttpVersion, Protocol, RequestSpec, WebSocketSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::passing::authority;
use super::{entrance, explain};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::websockets_are_opened",
        claim: "A WebSocket is opened through the controller, and its messages come back.",
        source: "ingress-nginx: WebSockets; RFC 6455, section 4",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(websockets_are_opened(scope)),
    },
    Check {
        id: "ingress::answers_are_passed_on_as_they_come",
        claim: "The beginning of an answer reaches the client before its end leaves the backend.",
        source: "ingress-nginx: proxy-buffering; RFC 9112, section 7.1",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(answers_are_passed_on_as_they_come(scope)),
    },
    Check {
        id: "ingress::http2_by_alpn",
        claim: "A TLS client that offers HTTP/2 is served by HTTP/2.",
        source: "ingress-nginx: use-http2; RFC 9113, section 3.2",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(spoken(scope, HttpVersion::H2, Protocol::H2)),
    },
    Check {
        id: "ingress::http1_by_alpn",
        claim: "A TLS client that offers HTTP/1.1 only is served by HTTP/1.1.",
        source: "RFC 7301, section 3.2",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(spoken(scope, HttpVersion::H1, Protocol::H1)),
    },
    Check {
        id: "ingress::client_address_arrives",
        claim: "The backend is told the address that the client outside the cluster has.",
        source: "ingress-nginx: source IP address, externalTrafficPolicy Local",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(client_address_arrives(scope)),
    },
    Check {
        id: "ingress::every_request_is_answered",
        claim: "Of a thousand requests over connections that are kept every one is answered with 200.",
        source: "ingress-nginx: keep-alive connections to upstreams",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(every_request_is_answered(scope)),
    },
];

const HOST: &str = "one.example.local";

async fn websockets_are_opened(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let spec = WebSocketSpec::new(entrance.request(HOST, "/socket"));
    let replies = entrance.outside().ask(&spec).await?;
    let reply = replies.into_iter().next();
    let reply = reply.ok_or_else(|| NoVerdict::new("a WebSocket without a reply"))?;
    let kind = reply.error.as_ref().map(|error| error.kind.to_string());
    let outcome = expect_eq(
        "opening a WebSocket for one.example.local: the status, who answers, messages of 3 that came back, and what went wrong",
        &(Some(101), Some("alpha"), 3, None),
        &(reply.status, reply.pod(), reply.echoed, kind),
        "the controller does not pass the Upgrade header on, or closes what is upgraded",
    );
    explain(scope, outcome, "hosts", Some(HOST), "/socket").await
}

async fn answers_are_passed_on_as_they_come(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    // The backend keeps the second half until the client, which has the first one, asks for it. Who
    // waits for all of it waits until the time is up.
    let name = format!("held-{}", scope.seed());
    let spec = RequestSpec {
        release: Some(name.clone()),
        ..entrance.request(HOST, &format!("/?hold={name}"))
    };
    let reply = entrance.send(&spec).await?;
    let length = reply.body.as_ref().map(|body| body.length);
    let outcome = expect_eq(
        "GET of an answer whose second half is asked for when the first is there: what came of it, and its length",
        &("200 by alpha".to_owned(), Some(2048)),
        &(said::said(&reply), length),
        "the controller buffers answers",
    );
    explain(scope, outcome, "hosts", Some(HOST), "/").await
}

async fn spoken(scope: &Scope, http: HttpVersion, protocol: Protocol) -> Outcome {
    let entrance = entrance(scope).await?;
    let ca = authority(scope).await?;
    let host = "secure.example.local";
    let spec = RequestSpec {
        http,
        ..entrance.secure(host, "/", &ca)
    };
    let outcome = scope
        .eventually(Eventually {
            what: "GET https://secure.example.local/: the answer, and the version of HTTP that was spoken",
            expected: ("200 by alpha".to_owned(), Some(protocol)),
            observe: async || {
                let reply = entrance.send(&spec).await?;
                Ok((said::said(&reply), reply.protocol))
            },
            likely: "the controller's TLS does not offer this version by ALPN",
        })
        .await;
    explain(scope, outcome, "secure", Some(host), "/").await
}

async fn client_address_arrives(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let reply = entrance.get(HOST, "/").await?;
    let own = reply.local.map(|address| address.ip().to_string());
    let answer = reply.answer.as_ref();
    let list = answer.and_then(|answer| answer.header("x-forwarded-for"));
    // Whoever trusts the list trusts its last entry, which the controller itself wrote.
    let last = list.and_then(|list| list.rsplit(',').next());
    let outcome = expect_eq(
        "the answer, and the last of X-Forwarded-For at the backend",
        &("200 by alpha".to_owned(), own),
        &(said::said(&reply), last.map(|last| last.trim().to_owned())),
        "the controller's Service has externalTrafficPolicy Cluster: nodes put their own address in the client's place",
    );
    explain(scope, outcome, "hosts", Some(HOST), "/").await
}

async fn every_request_is_answered(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let spec = RequestSpec {
        count: 1000,
        concurrency: 8,
        connections: Connections::Reuse,
        ..entrance.request(HOST, "/")
    };
    let answers = entrance.outside().request(&spec).await?;
    let outcome = expect_eq(
        "the statuses of 1000 requests, who answered them, and failures",
        &(
            BTreeMap::from([(200, 1000)]),
            BTreeMap::from([("alpha".to_owned(), 1000)]),
            BTreeMap::new(),
        ),
        &(answers.statuses(), answers.counts(), answers.failures()),
        "the controller's proxies give up connections to backends that are well",
    );
    explain(scope, outcome, "hosts", Some(HOST), "/").await
}
