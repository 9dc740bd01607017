//! Names and labels (RFC 1123 and RFC 1035, as apimachinery checks them).

use serde_json::Value;

use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
}

/// Whether a text is a DNS subdomain.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Refuses what is not a DNS subdomain.
pub(crate) fn subdomain(field: &str, text: &str, causes: &mut Vec<Cause>) {
    if text.len() > 253 {
        causes.push(Cause::invalid(
            field,
            &text.into(),
            "must be no more than 253 characters",
        ));
    }
    if !text.split('.').all(is_label) {
        causes.push(Cause::invalid(field, &text.into(), SUBDOMAIN));
    }
}

/// Refuses what is not a DNS label (RFC 1123).
pub(crate) fn label(field: &str, text: &str, causes: &mut Vec<Cause>) {
    if text.len() > 63 {
        causes.push(Cause::invalid(
            field,
            &text.into(),
            "must be no more than 63 characters",
        ));
    }
    if !is_label(text) {
        causes.push(Cause::invalid(field, &text.into(), LABEL));
    }
}

/// Refuses what is not a DNS label (RFC 1035).
pub(crate) fn label_1035(field: &str, text: &str, causes: &mut Vec<Cause>) {
    if text.len() > 63 {
        causes.push(Cause::invalid(
            field,
            &text.into(),
            "must be no more than 63 characters",
        ));
    }
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        causes.push(Cause::invalid(field, &text.into(), LABEL_1035));
    }
}

fn is_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.is_empty()
        || (text.len() <= 63
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)))
}

/// Refuses a key of labels or annotations: an optional prefix, and a name.
fn key(field: &str, key: &str, causes: &mut Vec<Cause>) {
    let (prefix, name) = key.split_once('/').unwrap_or(("", key));
    if key.starts_with('/') {
        causes.push(Cause::invalid(
            field,
            &key.into(),
            "prefix part must be non-empty",
        ));
    } else if !prefix.is_empty() && !is_subdomain(prefix) {
        causes.push(Cause::invalid(
            field,
            &key.into(),
            &format!("prefix part {SUBDOMAIN}"),
        ));
    }
    if name.is_empty() || !is_value(name) {
        let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        causes.push(Cause::invalid(field, &key.into(), why));
    }
}

/// Refuses labels whose keys or values are not well formed.
pub(crate) fn labels(object: &Value, causes: &mut Vec<Cause>) {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    for (name, value) in labels.into_iter().flatten() {
        key("metadata.labels", name, causes);
        let value = value.as_str().unwrap_or_default();
        if !is_value(value) {
            causes.push(Cause::invalid("metadata.labels", &value.into(), VALUE));
        }
    }
}

/// What the annotations of an object may hold together, keys and values. `kubectl apply` without
/// `--server-side` keeps a copy of the object there, which many definitions are too large for.
const MOST_ANNOTATIONS: usize = 256 << 10;

/// Refuses annotations whose keys are not well formed, and too much of them.
pub(crate) fn annotations(object: &Value, causes: &mut Vec<Cause>) {
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let mut held = 0;
    for (name, value) in annotations.into_iter().flatten() {
        held += name.len() + value.as_str().map_or(0, str::len);
        // Their keys may be in capitals.
        let mut wrong = Vec::new();
        key("metadata.annotations", &name.to_lowercase(), &mut wrong);
        if !wrong.is_empty() {
            key("metadata.annotations", name, causes);
        }
    }
    if held > MOST_ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", MOST_ANNOTATIONS));
    }
}

/// Refuses what is not a port.
pub(crate) fn port(field: impl Into<String>, value: &Value, causes: &mut Vec<Cause>) {
    if !value
        .as_i64()
        .is_some_and(|port| (1..=65535).contains(&port))
    {
        causes.push(Cause::invalid(
            field,
            value,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// The number that a quantity is (apimachinery's `resource.Quantity`).
pub(crate) fn quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|one: char| one.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let binary = |power: i32| 1024_f64.powi(power);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => 10_f64.powi(exponent.trim_start_matches(['e', 'E']).parse().ok()?),
    };
    Some(number * factor)
}
