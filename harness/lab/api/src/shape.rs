//! The shape in which a client wants what it is answered: whole, as a table, or the metadata alone.

use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::registry::Kind;
use super::request::Query;
use super::table;

/// What the `Accept` header asks for.
pub(crate) enum Shape {
    Whole,
    /// meta/v1 `Table`, with the parameters that it is made by.
    Table(Query),
    /// meta/v1 `PartialObjectMetadata`.
    Metadata,
}

impl Shape {
    pub(crate) fn asked(headers: &HeaderMap, query: &Query) -> Self {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        if accept.contains("as=Table") {
            Self::Table(query.clone())
        } else if accept.contains("as=PartialObjectMetadata") {
            Self::Metadata
        } else {
            Self::Whole
        }
    }

    /// An object, or a list, as JSON.
    pub(crate) fn json(&self, kind: &Kind, object: &Value) -> String {
        match self {
            Self::Whole => object.to_string(),
            Self::Table(query) => table::of(kind, object, query).to_string(),
            Self::Metadata => metadata_of(object).to_string(),
        }
    }
}

fn metadata_of(object: &Value) -> Value {
    let version = "meta.k8s.io/v1";
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    match object.get("items").and_then(Value::as_array) {
        Some(items) => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": metadata,
            "items": items.iter().map(metadata_of).collect::<Vec<_>>(),
        }),
        None => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata})
        }
    }
}
