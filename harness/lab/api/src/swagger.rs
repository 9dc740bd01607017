//! OpenAPI version 2 in protobuf (gnostic's `openapi.v2.Document`), as kubectl up to 1.26 reads it.
//!
//! Start from [`encode`]. Only the fields that such clients look at are written.

use serde_json::{Map, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &[u8] = b"application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(number, Some(text));
        }
    }

    fn boolean(&mut self, number: u32, value: bool) {
        if value {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u32, of: impl FnOnce(&mut Self)) {
        let mut message = Self::default();
        of(&mut message);
        self.bytes(number, &message.0);
    }

    /// A map as a list of `NamedX`: name 1, value 2.
    fn named(&mut self, number: u32, map: &Value, of: fn(&mut Self, &Value)) {
        for (name, value) in map.as_object().into_iter().flatten() {
            self.message(number, |named| {
                named.bytes(1, name.as_bytes());
                named.message(2, |message| of(message, value));
            });
        }
    }
}

/// A document in protobuf.
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    out.message(2, |info| {
        info.text(1, document.pointer("/info/title"));
        info.text(2, document.pointer("/info/version"));
    });
    out.message(8, |paths| paths.named(2, &document["paths"], path));
    out.message(9, |definitions| {
        definitions.named(1, &document["definitions"], schema);
    });
    out.0
}

fn path(item: &mut Message, value: &Value) {
    let verbs = [(3, "put"), (4, "post"), (5, "delete"), (8, "patch")];
    for (number, verb) in verbs {
        if let Some(found) = value.get(verb) {
            item.message(number, |message| operation(message, found));
        }
    }
}

fn operation(operation: &mut Message, value: &Value) {
    for parameter in super::meta::items(value, "/parameters") {
        // ParametersItem, Parameter, NonBodyParameter, QueryParameterSubSchema.
        operation.message(8, |item| {
            item.message(1, |one| {
                one.message(2, |other| {
                    other.message(3, |query| {
                        query.bytes(2, b"query");
                        query.text(4, parameter.get("name"));
                        query.text(6, parameter.get("type"));
                    });
                });
            });
        });
    }
    extensions(operation, 13, value);
}

fn extensions(message: &mut Message, number: u32, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if name.starts_with("x-") {
            message.message(number, |named| {
                named.bytes(1, name.as_bytes());
                // JSON is YAML.
                named.message(2, |any| any.bytes(2, value.to_string().as_bytes()));
            });
        }
    }
}

fn schema(message: &mut Message, value: &Value) {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    message.text(1, map.get("$ref"));
    message.text(2, map.get("format"));
    message.text(4, map.get("description"));
    message.texts(19, map.get("required"));
    match map.get("additionalProperties") {
        Some(Value::Bool(open)) => message.message(21, |item| item.boolean(2, *open)),
        Some(one) => message.message(21, |item| item.message(1, |of| schema(of, one))),
        None => {}
    }
    if let Some(kind) = map.get("type") {
        message.message(22, |item| {
            item.text(1, Some(kind));
            item.texts(1, Some(kind));
        });
    }
    if let Some(one) = map.get("items") {
        message.message(23, |item| item.message(1, |of| schema(of, one)));
    }
    if let Some(properties) = map.get("properties") {
        message.message(25, |all| all.named(1, properties, schema));
    }
    extensions(message, 31, value);
}
