//! ServiceAccount tokens: issued by TokenRequest, and verified against what they are bound to.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::status::Status;
use super::write::Target;
use super::{Shared, User, meta, rows};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
}

#[derive(Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

/// Answers a TokenRequest (authentication.k8s.io/v1) for a ServiceAccount.
pub(crate) fn issue(
    shared: &Shared,
    account: Target<'_>,
    mut request: Value,
) -> Result<Value, Status> {
    let pods = rows::pod();
    let seconds = request
        .pointer("/spec/expirationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(3600);
    if seconds < 600 {
        return Err(Status::bad_request(
            "spec.expirationSeconds: may not specify a duration less than 10 minutes",
        ));
    }
    let mut audiences: Vec<String> = meta::items(&request, "/spec/audiences")
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let pod = meta::text(&request, "/spec/boundObjectRef/name").to_owned();
    let (uid, pod) = shared.store.transact(|state| {
        let found = state
            .get(&account.kind.table, account.namespace, account.name)
            .ok_or_else(|| Status::not_found(account.kind, account.name))?;
        let uid = meta::text(found, "/metadata/uid").to_owned();
        if pod.is_empty() {
            return Ok((uid, None));
        }
        let found = state
            .get(&pods.table, account.namespace, &pod)
            .ok_or_else(|| Status::not_found(pods, &pod))?;
        Ok::<_, Status>((
            uid,
            Some(Reference {
                name: pod,
                uid: meta::text(found, "/metadata/uid").to_owned(),
            }),
        ))
    })?;
    let now = jiff::Timestamp::now().as_second();
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        nbf: now,
        iss: ISSUER.to_owned(),
        sub: format!(
            "system:serviceaccount:{}:{}",
            account.namespace, account.name
        ),
        bound: Bound {
            namespace: account.namespace.to_owned(),
            serviceaccount: Reference {
                name: account.name.to_owned(),
                uid,
            },
            pod,
        },
    };
    let key = EncodingKey::from_secret(shared.pki.token_key());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| Status::internal(error.to_string()))?;
    let expires = jiff::Timestamp::from_second(now + seconds)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": expires.unwrap_or_default()});
    Ok(request)
}

/// Whose token this is, if it is valid now and what it is bound to still exists.
pub(crate) fn verify(shared: &Shared, token: &str) -> Option<User> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[ISSUER]);
    let key = DecodingKey::from_secret(shared.pki.token_key());
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .ok()?
        .claims;
    let bound = claims.bound;
    let is = |state: &super::store::State, table: &str, reference: &Reference| {
        state
            .get(table, &bound.namespace, &reference.name)
            .is_some_and(|object| meta::text(object, "/metadata/uid") == reference.uid)
    };
    let alive = shared.store.transact(|state| {
        is(state, &rows::service_account().table, &bound.serviceaccount)
            && bound
                .pod
                .as_ref()
                .is_none_or(|pod| is(state, &rows::pod().table, pod))
    });
    alive.then(|| User {
        name: claims.sub,
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
            "system:authenticated".to_owned(),
        ],
    })
}
