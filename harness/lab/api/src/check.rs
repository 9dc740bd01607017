//! What a body must be: of the kind that is asked for, of its type, and valid.

use serde_json::Value;

use super::crd;
use super::meta::{self, fill};
use super::registry::Kind;
use super::schema::Schema;
use super::status::{Cause, Status};
use super::write::{FieldValidation, Options};

pub(crate) fn check_type(kind: &Kind, body: &mut Value) -> Result<(), Status> {
    if !body.is_object() {
        return Err(Status::bad_request(format!(
            "the body must be an object of kind {}",
            kind.kind
        )));
    }
    fill(body, "apiVersion", kind.api_version());
    fill(body, "kind", kind.kind.clone());
    let (version, name) = (meta::text(body, "/apiVersion"), meta::text(body, "/kind"));
    if version != kind.api_version() || name != kind.kind {
        return Err(Status::bad_request(format!(
            "{name} in version {version:?} cannot be handled as a {}: the API version in the data ({version}) or its kind does not match the expected ({}, Kind={})",
            kind.kind,
            kind.api_version(),
            kind.kind
        )));
    }
    Ok(())
}

pub(crate) fn decode(
    kind: &Kind,
    mut body: Value,
    options: &Options,
) -> Result<(Value, Vec<String>), Status> {
    let refused = |why: &str| {
        Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {why}",
            kind.kind, kind.version
        ))
    };
    let mut unknown = Vec::new();
    match (&kind.typed, &kind.schema) {
        (Some(typed), _) => typed
            .read(&mut body, &mut unknown)
            .map_err(|why| refused(&why))?,
        (None, Schema::Custom(schema)) => {
            crd::prune(&mut body, schema, &mut unknown);
            crd::default(&mut body, schema);
        }
        (None, Schema::Builtin) => {}
    }
    // Empty maps and lists of metadata are left out of what is stored and shown.
    meta::map_at(&mut body, "metadata").retain(|_, value| !meta::is_hollow(value));
    let unknown: Vec<String> = unknown
        .into_iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect();
    match options.validation {
        FieldValidation::Strict if !unknown.is_empty() => Err(refused(&format!(
            "strict decoding error: {}",
            unknown.join(", ")
        ))),
        FieldValidation::Warn => Ok((body, unknown)),
        _ => Ok((body, Vec::new())),
    }
}

pub(crate) fn validate(
    kind: &Kind,
    name: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut causes: Vec<Cause> = Vec::new();
    if old.is_none() {
        if name.is_empty() {
            causes.push(Cause::required(
                "metadata.name",
                "name or generateName is required",
            ));
        } else if kind.group != "rbac.authorization.k8s.io" {
            super::rows::names::subdomain("metadata.name", name, &mut causes);
        }
    }
    if let Some(old) = old.filter(|old| meta::is_deleting(old)) {
        let known = meta::finalizers(old);
        let added: Vec<&str> = meta::finalizers(new)
            .into_iter()
            .filter(|one| !known.contains(one))
            .collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|one| format!("{one:?}")).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    super::rows::names::labels(new, &mut causes);
    super::rows::names::annotations(new, &mut causes);
    if let Schema::Custom(schema) = &kind.schema {
        crd::validate(new, schema, &mut causes);
    }
    (kind.hooks.validate)(new, old, &mut causes);
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(kind, name, &causes))
    }
}
