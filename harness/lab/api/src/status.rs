//! Refusals in Kubernetes' own words (meta/v1 `Status`).
//!
//! Start from [`Status`]; one constructor for each reason. The texts are those of apimachinery's
//! `errors` package, since people and programs read them.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::registry::Kind;

/// A refusal.
#[derive(Debug, Clone)]
pub struct Status {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Value,
}

/// One wrong field.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

/// The shortest JSON of a value, strings in quotes, as Go's `%#v` and `%q` show them.
fn shown(value: &Value) -> String {
    value.to_string()
}

impl Cause {
    /// `spec.x: Invalid value: "v": why`.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {}: {why}", shown(value)),
        }
    }

    /// `spec.x: Required value: why`.
    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {why}")
        };
        Self {
            reason: "FieldValueRequired",
            field: field.into(),
            message,
        }
    }

    /// `spec.x: Unsupported value: "v": supported values: …`.
    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!(
                "Unsupported value: {}: supported values: {}",
                shown(value),
                list.join(", ")
            ),
        }
    }

    /// `spec.x: Forbidden: why`.
    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field: field.into(),
            message: format!("Forbidden: {why}"),
        }
    }

    /// `spec.x: Too long: may not be more than 5 bytes`; the value itself is left out.
    pub(crate) fn too_long(field: impl Into<String>, most: usize) -> Self {
        Self {
            reason: "FieldValueTooLong",
            field: field.into(),
            message: format!("Too long: may not be more than {most} bytes"),
        }
    }

    /// `spec.x: Duplicate value: "v"`.
    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} {name:?} not found", kind.qualified()),
        )
        .about(kind, name)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", kind.qualified()),
        )
        .about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            kind.qualified()
        );
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// A precondition of a deletion that does not hold; named by its kind, as nothing else is.
    pub(crate) fn precondition(kind: &Kind, name: &str, why: &str) -> Self {
        let qualified = if kind.group.is_empty() {
            kind.kind.clone()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut status = Self::conflict(kind, name, why);
        status.message = format!("Operation cannot be fulfilled on {qualified} {name:?}: {why}");
        status.details = json!({"name": name, "group": kind.group, "kind": kind.kind});
        status
    }

    /// The refusal of a write to an old version of an object.
    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// A `PUT` that does not say which version it replaces.
    pub(crate) fn unversioned(kind: &Kind, name: &str) -> Self {
        let what = "metadata.resourceVersion";
        let why = "Invalid value: 0x0: must be specified for an update";
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{} {name:?} is invalid: {what}: {why}", kind.qualified()),
        );
        let cause = json!({"reason": "FieldValueInvalid", "message": why, "field": what});
        status.details =
            json!({"name": name, "group": kind.group, "kind": kind.plural, "causes": [cause]});
        status
    }

    /// A list that cannot be gone on with.
    pub(crate) fn continue_expired() -> Self {
        Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
        )
    }

    /// A server-side apply that others' fields stand against: each the owner, and a path.
    pub(crate) fn apply_conflict(causes: &[(String, String)]) -> Self {
        let what = match causes {
            [(owner, field)] => format!("1 conflict: conflict with {owner}: {field}"),
            many => {
                let mut owners: Vec<&String> = many.iter().map(|(owner, _)| owner).collect();
                owners.sort();
                owners.dedup();
                let listed = owners.into_iter().flat_map(|owner| {
                    let fields = many
                        .iter()
                        .filter(move |(other, _)| other == owner)
                        .map(|(_, field)| format!("- {field}"));
                    std::iter::once(format!("conflicts with {owner}:")).chain(fields)
                });
                let listed: Vec<String> = listed.collect();
                format!("{} conflicts: {}", many.len(), listed.join("\n"))
            }
        };
        let mut status = Self::new(409, "Conflict", format!("Apply failed with {what}"));
        let causes: Vec<Value> = causes
            .iter()
            .map(|(owner, field)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {owner}"), "field": field}))
            .collect();
        status.details = json!({"causes": causes});
        status
    }

    /// A patch that does not apply to the object.
    pub(crate) fn patch_rejected() -> Self {
        let message = "the server rejected our request due to an error in our request";
        let mut status = Self::new(422, "Invalid", message);
        status.details = json!({});
        status
    }

    /// A write with the uid of an object of the past.
    pub(crate) fn other_uid(
        kind: &Kind,
        namespace: &str,
        name: &str,
        uid: &str,
        found: &str,
    ) -> Self {
        let namespace = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{namespace}{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {found}",
            kind.plural
        );
        Self::conflict(kind, name, &why)
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if kind.group.is_empty() {
            kind.kind.clone()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{qualified} {name:?} is invalid: {list}"),
        );
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        status.details =
            json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        status
    }

    /// 400: what was asked cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!("{} {name:?} is forbidden: {why}", kind.qualified()),
        )
        .about(kind, name)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn expired(wanted: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {wanted} ({oldest})"),
        )
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn unsupported_media(found: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml (got {found:?})"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 500: it is nobody's fault who asked.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {}", message.into()),
        )
    }

    /// The object that clients read.
    pub(crate) fn object(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            object["details"] = self.details.clone();
        }
        object
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.object().to_string();
        (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
