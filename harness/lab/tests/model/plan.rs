//! From a step to its request, and to what has to come of it.
//!
//! Start from [`write`]. The order of the refusals is Kubernetes': what the path does not serve, then
//! what is not there, then versions and conflicts, then what is invalid.

use serde_json::{Value, json};

use crate::fields::Managers;
use crate::kinds::{GROUP, Kind};
use crate::op::{At, Content, Form, Select, Step, Version};
use crate::parts;
use crate::patch;
use crate::world::{Managed, Model, Refusal, Written, name};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) media: &'static str,
    pub(crate) body: Value,
}

/// A write: what is sent, and what it comes to.
pub(crate) struct Plan {
    pub(crate) at: At,
    pub(crate) request: Request,
    pub(crate) outcome: Result<Written, Refusal>,
    /// The answer's code where it is not refused.
    pub(crate) code: u16,
    pub(crate) dry: bool,
    /// The answer is a Scale.
    pub(crate) scale: bool,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Model {
    pub(crate) fn collection(&self, kind: Kind) -> String {
        let prefix = match kind {
            Kind::Deployment => "/apis/apps/v1".to_owned(),
            Kind::Thing => format!("/apis/{GROUP}/v1"),
            _ => "/api/v1".to_owned(),
        };
        format!("{prefix}/namespaces/{}/{}", self.namespace, kind.plural())
    }

    pub(crate) fn path(&self, at: At) -> String {
        format!("{}/{}", self.collection(at.kind), name(at.name))
    }

    pub(crate) fn listing(&self, kind: Kind, select: Select, more: &str) -> Request {
        let (path, selected) = (self.collection(kind), select.query());
        // A controller puts one of its own into every namespace.
        let ours = match kind {
            Kind::ConfigMap if self.rules.controllers => {
                "&fieldSelector=metadata.name!=kube-root-ca.crt"
            }
            _ => "",
        };
        Request {
            method: "GET",
            path: format!("{path}?{selected}{ours}&{more}"),
            media: JSON,
            body: Value::Null,
        }
    }

    pub(crate) fn manager(&self, by: u8, dry: bool) -> String {
        let dry = if dry { "&dryRun=All" } else { "" };
        format!("fieldManager={}{dry}", self.who(by, false, "").name)
    }
}

/// Plans a step that writes; none for the others.
pub(crate) fn write(model: &Model, step: &Step) -> Option<Plan> {
    match *step {
        Step::Create {
            at,
            content,
            by,
            dry,
        } => Some(create(model, at, &content, by, dry)),
        Step::Update {
            at,
            content,
            whole,
            version,
            by,
            dry,
        } => Some(update(model, at, &content, whole, version, by, dry)),
        Step::Patch {
            at,
            form,
            ref edits,
            version,
            by,
            dry,
        } => {
            let assignments: Vec<_> = edits
                .iter()
                .flat_map(|edit| at.kind.assignments(*edit))
                .collect();
            Some(patched(model, at, form, &assignments, version, by, dry))
        }
        Step::Apply {
            at,
            content,
            by,
            force,
            dry,
        } => {
            let config = at.kind.object(&name(at.name), &content);
            let mut plan = apply(model, at, config, by, force, "");
            if dry {
                plan.request.path.push_str("&dryRun=All");
                plan.dry = true;
            }
            if content.bad && plan.outcome.is_ok() {
                plan.outcome = Err(Refusal::invalid());
            }
            Some(plan)
        }
        Step::Status {
            at,
            form,
            number,
            version,
            by,
        } => Some(parts::status(model, at, form, number, version, by)),
        Step::Scale {
            at,
            merge,
            number,
            version,
            by,
        } => Some(parts::scale(model, at, merge, number, version, by)),
        _ => None,
    }
}

fn create(model: &Model, at: At, content: &Content, by: u8, dry: bool) -> Plan {
    let object = at.kind.object(&name(at.name), content);
    let outcome = if content.bad {
        Err(Refusal::invalid())
    } else if model.objects.contains_key(&at) {
        Err(Refusal::new(409, "AlreadyExists"))
    } else {
        Ok(Written {
            object: object.clone(),
            managed: Managed::By(model.who(by, false, "")),
        })
    };
    let path = format!("{}?{}", model.collection(at.kind), model.manager(by, dry));
    let request = Request {
        method: "POST",
        path,
        media: JSON,
        body: object,
    };
    Plan {
        at,
        request,
        outcome,
        code: 201,
        dry,
        scale: false,
    }
}

fn update(
    model: &Model,
    at: At,
    content: &Content,
    whole: bool,
    version: Version,
    by: u8,
    dry: bool,
) -> Plan {
    let old = model.objects.get(&at).map(|old| &old.value);
    let mut body = at.kind.object(&name(at.name), content);
    if let (true, Some(old)) = (whole, old) {
        let edits = Kind::edits(content);
        let assignments: Vec<_> = edits
            .into_iter()
            .flat_map(|edit| at.kind.assignments(edit))
            .collect();
        let bad = body.clone();
        body = old.clone();
        patch::merge(&mut body, &patch::as_merge(&assignments));
        if content.bad {
            patch::merge(
                &mut body,
                &json!({"spec": bad["spec"], "data": bad["data"]}),
            );
        }
        body["metadata"]
            .as_object_mut()
            .map(|metadata| metadata.remove("resourceVersion"));
    }
    let (sent, fits) = model.version(at, version);
    if let Some(sent) = &sent {
        body["metadata"]["resourceVersion"] = sent.clone().into();
    }
    let minor = model.rules.minor;
    let made = old.is_none() && at.kind.is_made_by_put(minor);
    // The Services of before 1.23 were validated before they were completed.
    let early = at.kind == Kind::Service && minor < 23;
    let wrong = !whole || sent.is_none() || content.bad || model.may_become(at, &body).is_err();
    let outcome = if old.is_none() && !made {
        Err(Refusal::not_found())
    } else if early && wrong {
        Err(Refusal::invalid())
    } else if !fits {
        Err(Refusal::conflict())
    } else if sent.is_none() && !at.kind.takes_any_version() || content.bad {
        Err(Refusal::invalid())
    } else if at.kind == Kind::Pod && !whole {
        // It leaves out what was admitted and may not change.
        Err(Refusal::invalid())
    } else {
        model.may_become(at, &body).map(|()| {
            let who = model.who(by, false, "");
            let mut object = body.clone();
            if let Some(status) = old.and_then(|old| old.get("status")) {
                object["status"] = status.clone();
            }
            Written {
                object,
                managed: if whole {
                    Managed::By(who)
                } else {
                    Managed::Bare(who)
                },
            }
        })
    };
    let path = format!("{}?{}", model.path(at), model.manager(by, dry));
    let request = Request {
        method: "PUT",
        path,
        media: JSON,
        body,
    };
    Plan {
        at,
        request,
        outcome,
        code: if made { 201 } else { 200 },
        dry,
        scale: false,
    }
}

fn patched(
    model: &Model,
    at: At,
    form: Form,
    assignments: &[(&'static str, Option<Value>)],
    version: Version,
    by: u8,
    dry: bool,
) -> Plan {
    let (sent, fits) = model.version(at, version);
    let (media, mut body) = match form {
        Form::Merge => (MERGE, patch::as_merge(assignments)),
        Form::Json => ("application/json-patch+json", patch::as_json(assignments)),
        Form::Strategic => (
            "application/strategic-merge-patch+json",
            patch::as_merge(assignments),
        ),
    };
    let versioned = form != Form::Json;
    if let (Some(sent), true) = (&sent, versioned) {
        body["metadata"]["resourceVersion"] = sent.clone().into();
    }
    let outcome = match model.objects.get(&at) {
        _ if form == Form::Strategic && at.kind.is_custom() => {
            Err(Refusal::new(415, "UnsupportedMediaType"))
        }
        None => Err(Refusal::not_found()),
        Some(_) if versioned && !fits => Err(Refusal::conflict()),
        Some(old) => {
            let mut new = old.value.clone();
            let applied = match form {
                Form::Merge => {
                    patch::merge(&mut new, &body);
                    Some(new)
                }
                Form::Strategic => {
                    patch::strategic(at.kind, "", &mut new, &body);
                    Some(new)
                }
                Form::Json => patch::json_patch(&new, &body, model.rules.minor),
            };
            applied.ok_or_else(Refusal::invalid).and_then(|object| {
                model.may_become(at, &object)?;
                Ok(Written {
                    object,
                    managed: Managed::By(model.who(by, false, "")),
                })
            })
        }
    };
    let path = format!("{}?{}", model.path(at), model.manager(by, dry));
    let request = Request {
        method: "PATCH",
        path,
        media,
        body,
    };
    Plan {
        at,
        request,
        outcome,
        code: 200,
        dry,
        scale: false,
    }
}

pub(crate) fn apply(
    model: &Model,
    at: At,
    config: Value,
    by: u8,
    force: bool,
    subresource: &'static str,
) -> Plan {
    let (who, minor) = (model.who(by, true, subresource), model.rules.minor);
    let mut code = 200;
    let outcome = match model.objects.get(&at) {
        None if subresource.is_empty() => {
            code = 201;
            let managers = Managers::of_config(at.kind, &config, &who);
            Ok(Written {
                object: config.clone(),
                managed: Managed::As(managers),
            })
        }
        None => Err(Refusal::not_found()),
        Some(old) => {
            let (object, managers, mut conflicts) = old
                .managers
                .apply(at.kind, &old.value, &config, &who, minor);
            conflicts.sort();
            conflicts.dedup();
            let mut object = object;
            if !subresource.is_empty() {
                let status = object["status"].take();
                object = old.value.clone();
                object["status"] = status;
            }
            // What is taken over and then left out is gone, though the rest of a container is another's.
            // Before 1.21 what an apply empties is null, which schemas do not take.
            let spoilt = at.kind.lacks_image(&object)
                || (minor < 21 && at.kind.is_custom() && has_null(&object["spec"]));
            if spoilt && (conflicts.is_empty() || force) {
                Err(Refusal::invalid())
            } else if conflicts.is_empty() || force {
                model.may_become(at, &object).map(|()| Written {
                    object,
                    managed: Managed::As(managers),
                })
            } else {
                Err(Refusal {
                    conflicts,
                    ..Refusal::conflict()
                })
            }
        }
    };
    let part = if subresource.is_empty() {
        String::new()
    } else {
        format!("/{subresource}")
    };
    let path = format!(
        "{}{part}?fieldManager={}&force={force}",
        model.path(at),
        who.name
    );
    let request = Request {
        method: "PATCH",
        path,
        media: APPLY,
        body: config,
    };
    Plan {
        at,
        request,
        outcome,
        code,
        dry: false,
        scale: false,
    }
}

fn has_null(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|map| map.values().any(Value::is_null))
}
