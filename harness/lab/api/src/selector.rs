//! Label and field selectors of lists and watches.
//!
//! Start from [`Selection`]. The grammar is apimachinery's `labels.Parse`.

use serde_json::Value;

use super::registry::Kind;
use super::status::Status;

#[derive(Debug, Clone)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    namespace: Option<String>,
    labels: Vec<(String, Test)>,
    /// JSON pointer, value, and whether it must be equal.
    fields: Vec<(String, String, bool)>,
}

/// The fields that may be selected by, beside name and namespace.
fn selectable(kind: &Kind) -> &'static [&'static str] {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "Secret") => &["type"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

impl Selection {
    /// Everything of a namespace, or of all.
    pub(crate) fn new(namespace: Option<&str>) -> Self {
        Self {
            namespace: namespace.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Narrowed by `labelSelector`.
    ///
    /// # Errors
    /// When it is not of the grammar.
    pub(crate) fn labels(mut self, text: &str) -> Result<Self, Status> {
        for part in split(text) {
            if let Some(found) = without_parenthesis(part) {
                return Err(Status::bad_request(format!(
                    "unable to parse requirement: found '{found}' expected: '('"
                )));
            }
            let test = requirement(part).ok_or_else(|| {
                Status::bad_request(format!("unable to parse requirement: found '{part}', expected: a label selector such as a=b, a!=b, a in (b,c), a, !a"))
            })?;
            self.labels.push(test);
        }
        Ok(self)
    }

    /// Narrowed by `fieldSelector`.
    ///
    /// # Errors
    /// When it is not of the grammar, or the kind has no such field to select by.
    pub(crate) fn fields(mut self, text: &str, kind: &Kind) -> Result<Self, Status> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (field, value, true)
            } else {
                return Err(Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || selectable(kind).contains(&field);
            if !known {
                return Err(Status::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
            // Events are stored as core/v1 names their fields.
            let stored = field.replace("regarding.", "involvedObject.");
            self.fields.push((
                format!("/{}", stored.replace('.', "/")),
                value.to_owned(),
                equal,
            ));
        }
        Ok(self)
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| super::meta::namespace(object) == namespace)
            && self.fields.iter().all(|(pointer, value, equal)| {
                let found = match object.pointer(pointer) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                };
                // An absent boolean is false.
                (found == *value || (found.is_empty() && value == "false")) == *equal
            })
            && labels_match(&self.labels, object.pointer("/metadata/labels"))
    }
}

fn labels_match(tests: &[(String, Test)], labels: Option<&Value>) -> bool {
    tests.iter().all(|(key, test)| {
        let found = labels
            .and_then(|labels| labels.get(key))
            .and_then(Value::as_str);
        match test {
            Test::In(values) => {
                found.is_some_and(|found| values.iter().any(|value| value == found))
            }
            Test::NotIn(values) => {
                !found.is_some_and(|found| values.iter().any(|value| value == found))
            }
            Test::Exists => found.is_some(),
            Test::Missing => found.is_none(),
            Test::Greater(bound) => found
                .and_then(|found| found.parse::<i64>().ok())
                .is_some_and(|found| found > *bound),
            Test::Less(bound) => found
                .and_then(|found| found.parse::<i64>().ok())
                .is_some_and(|found| found < *bound),
        }
    })
}

/// Splits at the commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// What stands after `in` or `notin` where a parenthesis should.
fn without_parenthesis(part: &str) -> Option<&str> {
    let (_, values) = part
        .split_once(" notin ")
        .or_else(|| part.split_once(" in "))?;
    let values = values.trim_start();
    (!values.starts_with('(')).then(|| values.split_whitespace().next().unwrap_or_default())
}

fn requirement(part: &str) -> Option<(String, Test)> {
    let key = |text: &str| {
        let text = text.trim();
        let good = !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        good.then(|| text.to_owned())
    };
    let set = |text: &str| {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(
            inner
                .split(',')
                .map(|value| value.trim().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Some((key(rest)?, Test::Missing));
    }
    if let Some((name, values)) = part
        .split_once(" notin ")
        .or_else(|| part.split_once(" notin("))
    {
        let values = if values.starts_with('(') {
            values.to_owned()
        } else {
            format!("({values}")
        };
        return Some((key(name)?, Test::NotIn(set(&values)?)));
    }
    if let Some((name, values)) = part.split_once(" in ").or_else(|| part.split_once(" in(")) {
        let values = if values.trim_start().starts_with('(') {
            values.to_owned()
        } else {
            format!("({values}")
        };
        return Some((key(name)?, Test::In(set(&values)?)));
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Some((key(name)?, Test::NotIn(vec![value.trim().to_owned()])));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some((key(name)?, Test::In(vec![value.trim().to_owned()])));
    }
    if let Some((name, value)) = part.split_once('>') {
        return Some((key(name)?, Test::Greater(value.trim().parse().ok()?)));
    }
    if let Some((name, value)) = part.split_once('<') {
        return Some((key(name)?, Test::Less(value.trim().parse().ok()?)));
    }
    Some((key(part)?, Test::Exists))
}

/// Whether labels are selected by a `LabelSelector` (meta/v1); an empty one selects all.
pub(crate) fn label_selector_matches(selector: &Value, labels: Option<&Value>) -> bool {
    let mut tests: Vec<(String, Test)> = Vec::new();
    if let Some(map) = selector.get("matchLabels").and_then(Value::as_object) {
        for (key, value) in map {
            tests.push((
                key.clone(),
                Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
            ));
        }
    }
    for expression in super::meta::items(selector, "/matchExpressions") {
        let key = super::meta::text(expression, "/key").to_owned();
        let values = super::meta::items(expression, "/values")
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        let test = match super::meta::text(expression, "/operator") {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            _ => Test::Missing,
        };
        tests.push((key, test));
    }
    labels_match(&tests, labels)
}
