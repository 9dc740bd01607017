//! What Ingress and HTTPRoute mean, written from their specifications, and how clusters are held against it.
//!
//! Start from [`ingresses_agree`] and [`http_routes_agree`]: they draw sets of routes and requests ([`draw`]), put the sets into the
//! cluster ([`agree`]), and compare each answer with those that the models [`ingress`] and [`http_route`] allow; a
//! request that is answered otherwise is shrunk ([`shrink`]) with its routes to the least that still is.
//! The models are pure and share no code with any controller. Rule: where a specification leaves
//! something open, every answer that it allows is right, so a difference is always one of its words.
//!
//! ```text
//! agree ─► draw, shrink ─► ingress, http_route ─► request, path
//! ```

mod agree;
mod draw;
mod http_route;
mod ingress;
mod path;
mod request;
mod shrink;

use std::collections::BTreeSet;

use http_route::HttpRoute;
use ingress::Ingress;
use request::Request;
use strata::{Outcome, Scope};

use crate::entrance::Entrance;

/// Judges the Ingress controller behind an entrance, by Ingresses in the check's own namespace.
pub(crate) async fn ingresses_agree(scope: &Scope, entrance: &Entrance) -> Outcome {
    agree::agrees::<Ingress>(scope, entrance, draw::ingresses).await
}

/// Judges the Gateway behind an entrance, by HTTPRoutes of the check's own Gateway `reference`.
pub(crate) async fn http_routes_agree(scope: &Scope, entrance: &Entrance) -> Outcome {
    agree::agrees::<HttpRoute>(scope, entrance, draw::http_routes).await
}

/// The backends, one pod each.
const BACKENDS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// The backend of an object's mark: of many objects all of them, so that all are known to be reached.
fn backend_of_mark(name: &str) -> &'static str {
    let sum: usize = name.bytes().map(usize::from).sum();
    BACKENDS[sum % BACKENDS.len()]
}

/// The answer that a backend's pod gives.
fn by(backend: &str) -> String {
    format!("200 by {backend}")
}

/// The answer where nothing matches.
const NOT_FOUND: &str = "404";

/// Where a set of routes is put, so that it meets no other: each has a domain and names of its own.
#[derive(Debug, Clone)]
struct Place {
    /// The namespace of its objects.
    namespace: String,
    /// What its objects' names end with.
    slot: usize,
    /// What its hosts end with.
    domain: String,
}

impl Place {
    /// A host of this place; the domain itself, if it is empty.
    fn host(&self, host: &str) -> String {
        match host {
            "" => self.domain.clone(),
            host => format!("{host}.{}", self.domain),
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.slot)
    }
}

/// An object that routes requests. It is drawn without a place, and applied in one.
trait Routes: Clone {
    /// As in a manifest.
    const API_VERSION: &'static str;
    /// As in a manifest.
    const KIND: &'static str;
    /// Its name.
    fn name(&self) -> &str;
    /// The hosts that it names.
    fn hosts(&self) -> Vec<&str>;
    /// The paths that it names.
    fn paths(&self) -> Vec<&str>;
    /// The same in a place.
    fn placed(&self, place: &Place) -> Self;
    /// The same, created then (RFC 3339).
    fn created(self, at: String) -> Self;
    /// The same with a rule more, and a request that only this rule answers: so it tells that all are
    /// in force.
    fn marked(&self) -> (Self, Request);
    /// The manifest.
    fn yaml(&self) -> String;
    /// The same with one thing less, in every way.
    fn smaller(&self) -> Vec<Self>;
    /// What a set of them may answer, as far as the specification says.
    fn answers(set: &[Self], request: &Request) -> BTreeSet<String>;
}

/// Those that no other goes before. What a specification puts in no order, stays side by side.
fn first<T>(found: &[T], goes_before: impl Fn(&T, &T) -> bool) -> impl Iterator<Item = &T> {
    found
        .iter()
        .filter(move |one| !found.iter().any(|other| goes_before(other, one)))
}

/// A string as YAML takes it, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
