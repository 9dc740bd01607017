//! Who asks: by client certificate, by ServiceAccount token, or in this process.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header;

use super::Shared;
use super::status::Status;

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name: a certificate's common name, or `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// The groups: a certificate's organizations.
    pub groups: Vec<String>,
}

impl User {
    fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    /// A component of the cluster.
    pub(crate) fn component(name: &str) -> Self {
        let groups = ["system:masters", "system:authenticated"]
            .map(str::to_owned)
            .to_vec();
        Self {
            name: name.to_owned(),
            groups,
        }
    }
}

/// Paths that answer whoever asks, as the `system:public-info-viewer` role allows.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Refuses who is not authenticated.
pub(crate) async fn authenticate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<User>().is_none() {
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::to_owned);
        match token.and_then(|token| super::token::verify(&shared, &token)) {
            Some(user) => {
                request.extensions_mut().insert(user);
            }
            None if PUBLIC.contains(&request.uri().path()) => {}
            None => return Status::unauthorized().into_response(),
        }
    }
    if let Some(user) = impersonated(&request) {
        let may = request
            .extensions()
            .get::<User>()
            .is_some_and(User::is_master);
        if !may {
            return Status::denied(format!(
                "users {:?} is forbidden: only system:masters may impersonate",
                user.name
            ))
            .into_response();
        }
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// Whom the request is to be taken as (`--as`).
fn impersonated(request: &Request) -> Option<User> {
    let texts = |name: &str| -> Vec<String> {
        let values = request.headers().get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let name = texts("impersonate-user").into_iter().next()?;
    let mut groups = texts("impersonate-group");
    if groups.is_empty()
        && let Some(account) = name.strip_prefix("system:serviceaccount:")
    {
        let namespace = account.split(':').next().unwrap_or_default();
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups })
}

/// Refuses who is not of `system:masters`.
pub(crate) async fn require_masters(request: Request, next: Next) -> Response {
    match request.extensions().get::<User>() {
        Some(user) if user.is_master() => next.run(request).await,
        Some(user) => Status::denied(format!(
            "User {:?} cannot use this path: it is for system:masters",
            user.name
        ))
        .into_response(),
        None => Status::unauthorized().into_response(),
    }
}
