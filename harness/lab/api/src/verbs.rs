//! Create, get, list, update and patch.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::admission;
use super::apply::{self, Writer};
use super::meta;
use super::patch::{self, Patch};
use super::protobuf;
use super::registry::Kind;
use super::router::{self, Answered, Call};
use super::selector::Selection;
use super::shape::Shape;
use super::status::Status;
use super::store::Key;
use super::write::{self, Part, Target};

impl Call {
    /// The object that the request names.
    pub(crate) fn target(&self) -> Result<Target<'_>, Status> {
        let name = self
            .asked
            .name
            .as_deref()
            .ok_or_else(Status::method_not_allowed)?;
        Ok(Target {
            kind: &self.asked.kind,
            namespace: self.asked.namespace(),
            name,
        })
    }

    /// Whether there is such an object.
    fn has(&self, target: Target<'_>) -> bool {
        self.shared.store.transact(|state| {
            state
                .get(&target.kind.table, target.namespace, target.name)
                .is_some()
        })
    }

    fn part(&self) -> Part {
        if self.asked.subresource.as_deref() == Some("status") {
            Part::Status
        } else {
            Part::Main
        }
    }

    pub(crate) fn content_type(&self) -> &str {
        let found = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        found
            .unwrap_or("application/json")
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
    }

    /// The body as an object, from JSON or YAML.
    pub(crate) fn object(&self, body: &[u8]) -> Result<Value, Status> {
        match self.content_type() {
            "application/json" | "" => serde_json::from_slice(body).map_err(|error| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {error}",
                    self.asked.kind.kind
                ))
            }),
            "application/yaml" | "application/apply-patch+yaml" => parse_yaml(body),
            protobuf::MEDIA_TYPE => protobuf::read(body).map_err(|why| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {why}",
                    self.asked.kind.kind
                ))
            }),
            other => Err(Status::unsupported_media(other)),
        }
    }
}

pub(crate) fn parse_yaml(body: &[u8]) -> Result<Value, Status> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    serde_yaml::from_str(text)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// `POST` of an object.
pub(crate) async fn create(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let kind = &call.asked.kind;
    if kind.namespaced && call.asked.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    let mut object = call.object(body)?;
    if let Some(respond) = super::rows::virtual_kind(kind) {
        return Ok(Answered::created(
            respond(&call.shared, &call.user, object)?,
            Vec::new(),
        ));
    }
    let options = call.asked.options(&call.headers)?;
    let warnings = write::prepare(kind, call.asked.namespace(), &mut object, &options)?;
    let object = admission::mutate(call, object, &options).await?;
    let stored = write::create(&call.shared, kind, call.asked.namespace(), object, &options)?;
    Ok(Answered::created(stored, warnings))
}

/// `GET` of an object.
pub(crate) fn get(call: &Call) -> Result<Answered, Status> {
    let target = call.target()?;
    let found = call.shared.store.transact(|state| {
        state
            .get(&target.kind.table, target.namespace, target.name)
            .cloned()
    });
    let found = found.ok_or_else(|| Status::not_found(target.kind, target.name))?;
    Ok(Answered::ok(write::seen_as(target.kind, &found)))
}

/// `GET` of a collection.
pub(crate) fn list(call: &Call) -> Result<Response, Status> {
    let asked = &call.asked;
    let selection = asked.selection()?;
    let limit = asked
        .query
        .number("limit")
        .filter(|limit| *limit > 0)
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
    let resumed = asked
        .query
        .get("continue")
        .map(|token| read_continue(token, asked.namespace.as_deref()))
        .transpose()?;
    let exact = (asked.query.get("resourceVersionMatch") == Some("Exact"))
        .then(|| asked.query.number("resourceVersion"))
        .flatten();
    let namespace = asked
        .kind
        .namespaced
        .then_some(asked.namespace.as_deref())
        .flatten();
    let past = resumed.as_ref().map(|(revision, _)| *revision).or(exact);
    let after = resumed.map(|(_, key)| key);
    let page = call.shared.store.transact(|state| match past {
        None => {
            let objects = state.range(&asked.kind.table, namespace, after);
            Ok(page_of(objects, &selection, limit, state.revision()))
        }
        // Further pages are of the first one's moment, whatever was written since.
        Some(revision) => {
            let objects = state.at(&asked.kind.table, revision)?;
            let objects = objects.iter().filter(|(key, _)| {
                namespace.is_none_or(|namespace| key.0 == namespace)
                    && after.as_ref().is_none_or(|after| *key > after)
            });
            Ok(page_of(objects, &selection, limit, revision))
        }
    });
    let page = page.map_err(|oldest: u64| match exact {
        Some(revision) => Status::expired(revision, oldest),
        None => Status::continue_expired(),
    })?;
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(token) = page.token() {
        metadata["continue"] = token.into();
        if asked.query.get("labelSelector").is_none() && asked.query.get("fieldSelector").is_none()
        {
            metadata["remainingItemCount"] = page.left.into();
        }
    }
    let items = page
        .items
        .iter()
        .map(|(_, object)| write::seen_as(&asked.kind, object));
    let mut list = json!({
        "apiVersion": asked.kind.api_version(), "kind": format!("{}List", asked.kind.kind),
        "metadata": metadata,
    });
    if !matches!(call.shape(), Shape::Whole) {
        list["items"] = items.map(|item| (*item).clone()).collect();
        return Ok(Answered::ok(list).respond(call));
    }
    // Written from where they are: a list may be of all that there is, which need not be there twice.
    let mut text = list.to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"items\":[");
    for (number, item) in items.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // A text takes whatever is written into it.
        let _ = write!(text, "{comma}{item}");
    }
    text.push_str("]}");
    Ok(router::json(StatusCode::OK, text))
}

/// A part of a list.
struct Page {
    items: Vec<(Key, Arc<Value>)>,
    revision: u64,
    /// How many objects are behind it.
    left: usize,
}

fn page_of<'a>(
    objects: impl Iterator<Item = (&'a Key, &'a Arc<Value>)>,
    selection: &Selection,
    limit: usize,
    revision: u64,
) -> Page {
    let mut selected = objects.filter(|(_, object)| selection.matches(object));
    let items = selected
        .by_ref()
        .take(limit)
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    let left = selected.count();
    Page {
        items,
        revision,
        left,
    }
}

impl Page {
    /// Where the next one begins, if there is one: the moment of this one, and its last object.
    fn token(&self) -> Option<String> {
        use base64::Engine as _;
        let (namespace, name) = &self.items.last().filter(|_| self.left > 0)?.0;
        let token = format!("{}\n{namespace}\n{name}", self.revision);
        Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token))
    }
}

/// The moment and the object after which a list goes on.
fn read_continue(token: &str, namespace: Option<&str>) -> Result<(u64, Key), Status> {
    use base64::Engine as _;
    let read = || {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(token)
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (revision, key) = text.split_once('\n')?;
        let (found, name) = key.split_once('\n')?;
        let fits = namespace.is_none_or(|namespace| namespace == found);
        fits.then_some((revision.parse().ok()?, (found.to_owned(), name.to_owned())))
    };
    read().ok_or_else(|| Status::bad_request("continue key is not valid"))
}

/// `PUT` of an object; a missing one is made where the kind allows it.
pub(crate) async fn update(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let options = call.asked.options(&call.headers)?;
    let object = call.object(body)?;
    let (kind, versioned) = (
        target.kind,
        !meta::text(&object, "/metadata/resourceVersion").is_empty(),
    );
    let named = meta::name(&object) == target.name;
    if kind.made_by_put && call.part() == Part::Main && named && !call.has(target) {
        return create(call, body).await;
    }
    let written = write::change(&call.shared, target, call.part(), &options, |_| {
        if kind.needs_version && !versioned {
            return Err(Status::unversioned(kind, target.name));
        }
        Ok(object)
    })?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

/// `PATCH` of an object, in all five forms.
pub(crate) async fn patch(call: &Call, body: &[u8]) -> Result<Answered, Status> {
    let target = call.target()?;
    let mut options = call.asked.options(&call.headers)?;
    if call.content_type() == "application/apply-patch+yaml" {
        return server_side_apply(call, target, body, &mut options).await;
    }
    let patch = Patch::parse(call.content_type(), body, target.kind)?;
    let written = write::change(&call.shared, target, call.part(), &options, |old| {
        patch.apply(old, &target.kind.schema)
    })?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

async fn server_side_apply(
    call: &Call,
    target: Target<'_>,
    body: &[u8],
    options: &mut write::Options,
) -> Result<Answered, Status> {
    if call.asked.query.get("fieldManager").is_none() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let mut config = parse_yaml(body)?;
    if config
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let metadata = meta::map_at(&mut config, "metadata");
    metadata.entry("name").or_insert_with(|| target.name.into());
    if target.kind.namespaced {
        metadata
            .entry("namespace")
            .or_insert_with(|| target.namespace.into());
    }
    let kind = target.kind;
    options.applied = true;
    let options = &*options;
    let writer = Writer::new(kind, call.part(), options);
    if !call.has(target) {
        if call.part() == Part::Status {
            return Err(Status::not_found(kind, target.name));
        }
        match create_by_apply(call, target, &config, &writer, options).await {
            // Another was quicker: then it is there, and this is a change of it.
            Err(status) if status.reason == "AlreadyExists" => {}
            other => return other,
        }
    }
    let force = options.force;
    let written = write::change(&call.shared, target, call.part(), options, |old| {
        let mut new = apply::apply(old, &config, kind, &writer, force)?;
        new["metadata"]["resourceVersion"] = config["metadata"]
            .get("resourceVersion")
            .cloned()
            .unwrap_or_else(|| old["metadata"]["resourceVersion"].clone());
        Ok(new)
    })?;
    Ok(Answered {
        warnings: written.warnings,
        ..Answered::ok(written.object)
    })
}

async fn create_by_apply(
    call: &Call,
    target: Target<'_>,
    config: &Value,
    writer: &Writer<'_>,
    options: &write::Options,
) -> Result<Answered, Status> {
    let kind: &Kind = target.kind;
    let mut object = config.clone();
    let warnings = write::prepare(kind, target.namespace, &mut object, options)?;
    let mut object = admission::mutate(call, object, options).await?;
    // Who applies manages what was applied; defaults belong to nobody.
    let bare = json!({"metadata": {"name": target.name}});
    let managed = apply::apply(&bare, config, kind, writer, true)?;
    apply::copy_managers(&managed, &mut object);
    let stored = write::create(&call.shared, kind, target.namespace, object, options)?;
    Ok(Answered::created(stored, warnings))
}

pub(crate) use patch::merge;
