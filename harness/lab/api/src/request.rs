//! What a request asks for.
//!
//! Start from [`Asked::of`]. Paths are those of the API conventions (`/api/v1/…`, `/apis/G/V/…`).

use std::sync::Arc;

use super::registry::{Kind, Registry};
use super::selector::Selection;
use super::status::Status;
use super::write::{FieldValidation, Options};

/// The parameters of a request's query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &http::Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Self(pairs.map(|pairs| pairs.0).unwrap_or_default())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, value)| found == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True"))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// A request for objects of a kind.
pub(crate) struct Asked {
    pub(crate) kind: Arc<Kind>,
    /// Absent for all namespaces, and for kinds that have none.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    pub(crate) query: Query,
}

impl Asked {
    /// Understands a path, or answers that there is nothing there.
    pub(crate) fn of(registry: &Registry, uri: &http::Uri) -> Result<Self, Status> {
        let path = percent_decode(uri.path());
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Status::no_such_path()),
        };
        let find = |plural: &str| {
            registry
                .find(group, version, plural)
                .ok_or_else(Status::no_such_path)
        };
        let query = Query::of(uri);
        let (namespace, plural, tail) = match rest {
            ["namespaces", namespace, plural, tail @ ..]
                if !matches!(*plural, "status" | "finalize") =>
            {
                (Some((*namespace).to_owned()), *plural, tail)
            }
            [plural, tail @ ..] => (None, *plural, tail),
            [] => return Err(Status::no_such_path()),
        };
        let kind = find(plural)?;
        if namespace.is_some() && !kind.namespaced {
            return Err(Status::no_such_path());
        }
        let name = tail.first().map(|name| (*name).to_owned());
        if name.is_some() && kind.namespaced && namespace.is_none() {
            return Err(Status::no_such_path());
        }
        let subresource = (tail.len() > 1).then(|| tail[1..].join("/"));
        Ok(Self {
            kind,
            namespace,
            name,
            subresource,
            query,
        })
    }

    /// The namespace of a namespaced request; empty otherwise.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// What a list or watch is narrowed to.
    pub(crate) fn selection(&self) -> Result<Selection, Status> {
        let mut selection = Selection::new(self.namespace.as_deref());
        if let Some(labels) = self.query.get("labelSelector") {
            selection = selection.labels(labels)?;
        }
        if let Some(fields) = self.query.get("fieldSelector") {
            selection = selection.fields(fields, &self.kind)?;
        }
        // Watching one object by its path is a watch of the collection, narrowed to its name.
        if let Some(name) = &self.name {
            selection = selection.fields(&format!("metadata.name={name}"), &self.kind)?;
        }
        Ok(selection)
    }

    /// The options of a write; the manager's name is the user agent's, where none is given.
    pub(crate) fn options(&self, headers: &http::HeaderMap) -> Result<Options, Status> {
        let agent = headers
            .get(http::header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let agent = agent
            .and_then(|agent| agent.split('/').next())
            .filter(|agent| !agent.is_empty());
        let manager = self
            .query
            .get("fieldManager")
            .or(agent)
            .unwrap_or("unknown")
            .to_owned();
        let validation = match self.query.get("fieldValidation") {
            Some("Strict") => FieldValidation::Strict,
            Some("Warn") | None => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let dry_run = match self.query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        };
        Ok(Options {
            dry_run,
            manager,
            validation,
            force: self.query.is("force"),
            applied: false,
        })
    }
}

fn percent_decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| tail.get(..2)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
