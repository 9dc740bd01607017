//! Kubernetes' protobuf, read as the JSON that it stands for.
//!
//! Start from [`read`]. Clients may send built-in kinds so (kubectl's `create` does, from 1.32 on); they
//! accept JSON in return. The field numbers are those of `protobuf.txt`, which
//! `scripts/protobuf-table` writes.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with, before a `runtime.Unknown`.
const MAGIC: &[u8] = b"k8s\0";

/// How deep messages may nest: a JSONSchemaProps can hold itself.
const DEEPEST: usize = 64;

/// Fields that Go writes even when they are unset, where zero means just that.
const UNSET_AT_ZERO: &[&str] = &[
    "count",
    "deprecatedCount",
    "failureThreshold",
    "generation",
    "globalDefault",
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "partition",
    "paused",
    "periodSeconds",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "unschedulable",
];

struct Field {
    /// Its name in JSON; `^` for an embedded message, whose fields stand in its place.
    name: &'static str,
    shape: Shape,
    of: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

type Message = HashMap<u32, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages: HashMap<_, Message> = HashMap::new();
    let mut current = "";
    for line in include_str!("protobuf.txt").lines() {
        let mut words = line.split(' ');
        let (Some(first), Some(name), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            current = line;
            continue;
        };
        let (shape, of) = match kind.split_at(1) {
            ("*", of) => (Shape::List, of),
            ("%", of) => (Shape::Map, of),
            _ => (Shape::One, kind),
        };
        if let Ok(number) = first.parse() {
            let field = Field { name, shape, of };
            messages.entry(current).or_default().insert(number, field);
        }
    }
    messages
});

/// An object, or the options of a deletion, from a body.
///
/// # Errors
/// Why it cannot be read, in one sentence.
pub(crate) fn read(body: &[u8]) -> Result<Value, String> {
    let unknown = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix k8s")?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Parts(unknown) {
        match part? {
            (1, Wire::Bytes(types)) => {
                for part in Parts(types) {
                    match part? {
                        (1, Wire::Bytes(text)) => version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_of(&version, &kind).ok_or_else(|| {
        format!("no kind {kind:?} is registered for version {version:?} in protobuf")
    })?;
    let mut object = Map::new();
    message(name, raw, &mut object, DEEPEST)?;
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// The message of a kind: `networking.k8s.io/v1` `Ingress` is `networking.v1.Ingress`.
fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    // Options are of the metadata's group, whichever group they are sent to.
    [
        format!("{group}.{version}.{kind}"),
        format!("apis.meta.v1.{kind}"),
    ]
    .iter()
    .find_map(|name| MESSAGES.get_key_value(name.as_str()).map(|(name, _)| *name))
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

/// A value as it is on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they come.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).map_err(|error| error.to_string())?;
        let (found, rest) = self.0.split_at_checked(length).ok_or("unexpected EOF")?;
        self.0 = rest;
        Ok(found)
    }

    fn part(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|error| error.to_string())?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().unwrap_or_default();
                Wire::Double(f64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

/// Reads a message's fields into an object.
fn message(
    name: &str,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    let depth = depth
        .checked_sub(1)
        .ok_or("proto: messages nest too deep")?;
    let Some(fields) = MESSAGES.get(name) else {
        return Err(format!("proto: {name} is not a message that is served"));
    };
    for part in Parts(bytes) {
        let (number, wire) = part?;
        let Some(field) = fields.get(&number) else {
            continue;
        };
        if field.name == "^" {
            if let Wire::Bytes(bytes) = wire {
                message(field.of, bytes, into, depth)?;
            }
            continue;
        }
        match field.shape {
            Shape::List => {
                let item = value(field.of, wire, depth)?;
                push(into, field.name, item);
            }
            Shape::Map => {
                let (key, item) = entry(field.of, wire, depth)?;
                let map = into
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()));
                map[&key] = item;
            }
            Shape::One => {
                let found = value(field.of, wire, depth)?;
                let status = name.ends_with("Status");
                if !is_unset(field.name, &found, status) {
                    into.insert(field.name.to_owned(), found);
                }
            }
        }
    }
    Ok(())
}

fn push(into: &mut Map<String, Value>, name: &str, item: Value) {
    let list = into.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// Whether a field that is there says nothing, as Go's JSON would leave it out.
fn is_unset(name: &str, value: &Value, status: bool) -> bool {
    match value {
        Value::Null => true,
        // The one pointer to a text that may be empty: no StorageClass, rather than the default one.
        Value::String(text) => text.is_empty() && name != "storageClassName",
        Value::Number(number) => {
            number.as_i64() == Some(0) && (status || UNSET_AT_ZERO.contains(&name))
        }
        Value::Bool(on) => !on && UNSET_AT_ZERO.contains(&name),
        _ => false,
    }
}

fn entry(of: &'static str, wire: Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else {
        return Err("proto: a map's entry is not a message".to_owned());
    };
    let mut key = String::new();
    // An entry whose value is left out has the value zero.
    let mut found = match of {
        "s" | "y" => Value::String(String::new()),
        _ => Value::Object(Map::new()),
    };
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = value(of, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, found))
}

fn value(of: &str, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    use base64::Engine as _;
    Ok(match (of, wire) {
        ("s", Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        ("y", Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD
            .encode(bytes)
            .into(),
        // Negative numbers are their two's complement.
        ("i", Wire::Varint(number)) => number.cast_signed().into(),
        ("b", Wire::Varint(number)) => (number != 0).into(),
        ("d", Wire::Double(number)) => number.into(),
        (name, Wire::Bytes(bytes)) => match special(name, bytes)? {
            Some(value) => value,
            None => {
                let mut object = Map::new();
                message(name, bytes, &mut object, depth)?;
                Value::Object(object)
            }
        },
        (name, _) => return Err(format!("proto: wrong wireType for a field of type {name}")),
    })
}

/// Messages whose JSON is not an object of their fields.
fn special(name: &str, bytes: &[u8]) -> Result<Option<Value>, String> {
    let (mut numbers, mut texts) = ([0_i64; 4], [const { Vec::new() }; 4]);
    let last = name.rsplit('.').next().unwrap_or_default();
    if !matches!(
        last,
        "Time"
            | "MicroTime"
            | "IntOrString"
            | "Quantity"
            | "RawExtension"
            | "FieldsV1"
            | "ExtraValue"
    ) {
        return Ok(None);
    }
    for part in Parts(bytes) {
        match part? {
            (number @ 0..4, Wire::Varint(value)) => numbers[number as usize] = value.cast_signed(),
            (number @ 0..4, Wire::Bytes(value)) => texts[number as usize].push(value),
            _ => {}
        }
    }
    let text = |number: usize| utf8(texts[number].last().copied().unwrap_or_default());
    Ok(Some(match last {
        // No time is a message without fields.
        "Time" | "MicroTime" if bytes.is_empty() => Value::Null,
        "Time" | "MicroTime" => {
            let nanos = i32::try_from(numbers[2]).map_err(|error| error.to_string())?;
            let time =
                jiff::Timestamp::new(numbers[1], nanos).map_err(|error| error.to_string())?;
            let format = if last == "Time" {
                "%Y-%m-%dT%H:%M:%SZ"
            } else {
                "%Y-%m-%dT%H:%M:%S.%6fZ"
            };
            time.strftime(format).to_string().into()
        }
        "IntOrString" if numbers[1] == 0 => numbers[2].into(),
        "IntOrString" => text(3)?.into(),
        "Quantity" => text(1)?.into(),
        "ExtraValue" => {
            let items: Result<Vec<String>, String> =
                texts[1].iter().map(|text| utf8(text)).collect();
            items?.into()
        }
        _ => serde_json::from_slice(texts[1].last().copied().unwrap_or(b"null"))
            .map_err(|error| error.to_string())?,
    }))
}
