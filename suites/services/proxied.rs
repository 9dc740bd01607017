//! The API server as a way to Services and pods: `proxy`, as `kubectl proxy` and `kubectl get --raw` use it.
//!
//! Start from [`SUITE`]. Nothing here changes anything.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use strata::wire::Answer;
use strata::{Check, Layer, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::names;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::api_leads_to_services",
        claim: "The API server passes requests on to the pods of a Service, by the number and by the name of its port, with path and query.",
        source: "sig-network: should proxy through a service and a pod",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_leads_to_services(scope)),
    },
    Check {
        id: "services::api_leads_to_pods",
        claim: "The API server passes requests on to a pod, with path and query.",
        source: "sig-network: should proxy through a service and a pod",
        needs: &[],
        manifest: None,
        run: |scope| Box::pin(api_leads_to_pods(scope)),
    },
];

/// The pod that answered, and what it was asked for; or the API's refusal.
async fn asked(scope: &Scope, place: &str) -> Result<(String, String), NoVerdict> {
    let path = format!(
        "/api/v1/namespaces/{}/{place}/proxy/a/b?c=d",
        scope.namespace()
    );
    Ok(match scope.get_raw(&path).await? {
        Ok(body) => {
            let answer: Answer = serde_json::from_str(&body).map_err(|error| {
                NoVerdict::new(format!("{path} was answered with {body:?}: {error}"))
            })?;
            (answer.pod, format!("{}?{}", answer.path, answer.query))
        }
        Err(refusal) => (refusal.code.to_string(), refusal.message),
    })
}

async fn api_leads_to_services(scope: &Scope) -> Outcome {
    let pods = names(&scope.ready_pods("app=backend").await?);
    let services = ["backend:80", "many-ports:http", "http:many-ports:80"];
    // Side by side: an API server that reaches nobody takes its time to say so.
    let seen = try_join_all(services.map(async |service| {
        let (who, what) = asked(scope, &format!("services/{service}")).await?;
        let other = (!pods.contains(&who)).then_some(who);
        Ok::<_, NoVerdict>((service, (other, what)))
    }));
    let expected = services.map(|service| (service, (None, "/a/b?c=d".to_owned())));
    expect_eq(
        "who answers for services/…/proxy/a/b?c=d that is no pod of the Service, and what it was asked for, by Service and port",
        &BTreeMap::from(expected),
        &seen.await?.into_iter().collect(),
        "the API server's node does not reach pods, or it does not know the Service's port",
    )
}

async fn api_leads_to_pods(scope: &Scope) -> Outcome {
    let pods = scope.ready_pods("app=backend").await?;
    // As above.
    let seen = try_join_all(pods.iter().map(async |pod| {
        let answer = asked(scope, &format!("pods/{}:8080", pod.name)).await?;
        Ok::<_, NoVerdict>((pod.name.clone(), answer))
    }));
    let expected: BTreeMap<_, _> = pods
        .iter()
        .map(|pod| (pod.name.clone(), (pod.name.clone(), "/a/b?c=d".to_owned())))
        .collect();
    expect_eq(
        "who answers for pods/…:8080/proxy/a/b?c=d, and what it was asked for, by pod",
        &expected,
        &seen.await?.into_iter().collect(),
        "the API server's node does not reach the pods of another node",
    )
}
