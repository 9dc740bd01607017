//! From a request to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::pki::ADMIN;
use super::request::Asked;
use super::shape::Shape;
use super::status::Status;
use super::{
    Shared, User, auth, container, delete, discovery, openapi, proxy, stream, subresource, verbs,
};

/// The largest body that is read, as etcd's limit makes it.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// The routes of the API server.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let ok = || async { "ok" };
    Router::new()
        .route("/healthz", get(ok))
        .route("/livez", get(ok))
        .route("/readyz", get(ok))
        .route("/version", get(discovery::version))
        .route("/version/", get(discovery::version))
        .route("/api", get(discovery::core))
        .route("/api/v1", get(discovery::core_resources))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/apis/{group}/{version}", get(discovery::resources))
        .route("/openapi/v2", get(openapi::swagger))
        .route("/openapi/v3", get(openapi::index))
        .route("/openapi/v3/{*path}", get(openapi::document))
        .fallback(objects)
        .layer(middleware::from_fn_with_state(
            shared.clone(),
            auth::authenticate,
        ))
        .with_state(shared)
}

/// Anything that concerns objects of a kind.
async fn objects(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answer(shared, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(shared: Arc<Shared>, request: Request) -> Result<Response, Status> {
    let asked = Asked::of(&shared.registry, request.uri())?;
    if asked.subresource.as_deref() == Some("status") && !asked.kind.status {
        return Err(Status::no_such_path());
    }
    let user = request
        .extensions()
        .get::<User>()
        .cloned()
        .ok_or_else(Status::unauthorized)?;
    if asked
        .subresource
        .as_deref()
        .is_some_and(container::is_stream)
    {
        return container::stream(shared, asked, request).await;
    }
    if asked.subresource.as_deref().is_some_and(proxy::is_proxy) {
        return proxy::proxy(shared, asked, request).await;
    }
    let (parts, body) = request.into_parts();
    let call = Call {
        shared,
        asked,
        user,
        headers: parts.headers,
    };
    if parts.method == Method::GET {
        return read(&call).await;
    }
    let body = read_body(body).await?;
    let answered = match (parts.method, &call.asked.subresource) {
        (method, Some(name)) if !matches!(name.as_str(), "status") => {
            subresource::write(&call, &method, name, &body).await?
        }
        (Method::POST, None) if call.asked.name.is_none() => verbs::create(&call, &body).await?,
        (Method::PUT, _) => verbs::update(&call, &body).await?,
        (Method::PATCH, _) => verbs::patch(&call, &body).await?,
        (Method::DELETE, None) => match call.asked.name {
            Some(_) => delete::delete(&call, &body)?,
            None => delete::delete_collection(&call, &body)?,
        },
        _ => return Err(Status::method_not_allowed()),
    };
    Ok(answered.respond(&call))
}

async fn read(call: &Call) -> Result<Response, Status> {
    let asked = &call.asked;
    if let Some(name) = &asked.subresource {
        return match name.as_str() {
            "status" => Ok(verbs::get(call)?.respond(call)),
            other => Ok(subresource::read(call, other)?.respond(call)),
        };
    }
    if asked.query.is("watch") {
        return stream::watch(call);
    }
    match asked.name {
        Some(_) => Ok(verbs::get(call)?.respond(call)),
        None => verbs::list(call),
    }
}

/// One request, understood.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) asked: Asked,
    pub(crate) user: User,
    pub(crate) headers: HeaderMap,
}

impl Call {
    /// How late the user hears what this call watches.
    pub(crate) fn watch_lag(&self) -> Duration {
        let lag = lag(self.shared.watch_lag, &self.user.name, rand::random());
        if !lag.is_zero() {
            let (user, kind) = (&self.user.name, &self.asked.kind.kind);
            tracing::info!(?lag, user, kind, "a watch is late");
        }
        lag
    }

    /// The shape of the answer.
    pub(crate) fn shape(&self) -> Shape {
        Shape::asked(&self.headers, &self.asked.query)
    }
}

/// How late one watch is, of all that are late by as much at most: each by a part of its own, so that components know
/// what others do not yet, in an order that no lab has by itself. The administrator's are not.
fn lag(most: Duration, user: &str, part: f64) -> Duration {
    match user {
        ADMIN => Duration::ZERO,
        _ => most.mul_f64(part),
    }
}

/// What a request comes to.
pub(crate) struct Answered {
    pub(crate) code: StatusCode,
    pub(crate) object: Arc<Value>,
    pub(crate) warnings: Vec<String>,
}

impl Answered {
    pub(crate) fn ok(object: impl Into<Arc<Value>>) -> Self {
        Self {
            code: StatusCode::OK,
            object: object.into(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn created(object: impl Into<Arc<Value>>, warnings: Vec<String>) -> Self {
        Self {
            code: StatusCode::CREATED,
            object: object.into(),
            warnings,
        }
    }

    pub(crate) fn respond(self, call: &Call) -> Response {
        let is_status = self.object["kind"] == "Status" && self.object["apiVersion"] == "v1";
        let body = if is_status {
            self.object.to_string()
        } else {
            call.shape().json(&call.asked.kind, &self.object)
        };
        let mut response = json(self.code, body);
        for warning in self.warnings {
            let text = format!("299 - {:?}", warning);
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }
}

/// A response of JSON.
pub(crate) fn json(code: StatusCode, body: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn read_body(body: Body) -> Result<bytes::Bytes, Status> {
    let limited = http_body_util::Limited::new(body, LARGEST_BODY);
    let collected = limited.collect().await.map_err(|error| {
        Status::bad_request(format!(
            "the request's body could not be read, or is larger than {LARGEST_BODY} bytes: {error}"
        ))
    })?;
    Ok(collected.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_administrator_hear_late() {
        let most = Duration::from_secs(3);
        assert_eq!(lag(most, ADMIN, 0.5), Duration::ZERO);
        let proxy = "system:serviceaccount:kube-system:kube-proxy";
        assert_eq!(lag(most, proxy, 0.5), Duration::from_millis(1500));
        assert_eq!(lag(Duration::ZERO, proxy, 0.5), Duration::ZERO);
    }
}
