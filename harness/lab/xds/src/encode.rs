//! Envoy's messages from JSON, packed as `google.protobuf.Any`.
//!
//! Start from [`encode`]. `envoy.binpb` says what the messages are: a `google.protobuf.FileDescriptorSet` of Envoy's
//! API, which `scripts/envoy-api` makes. JSON is read as the mapping of Protocol Buffers says (`ProtoJSON`); a field
//! that the API does not have is an error.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage};
use serde_json::Value;

use crate::message::Any;

static API: LazyLock<Result<DescriptorPool, DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(include_bytes!("envoy.binpb").as_slice()));

/// Why a message cannot be made of a JSON value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// A defect of ours.
    #[error("envoy.binpb is no description of Envoy's API: {0}")]
    Api(&'static DescriptorError),
    /// `scripts/envoy-api` has to take it in.
    #[error("envoy.binpb describes no {0}; scripts/envoy-api says which it does")]
    Kind(String),
    /// Where it differs.
    #[error("it is no {0}: {1}")]
    Value(String, serde_json::Error),
}

/// Packs a message of a kind, `envoy.config.cluster.v3.Cluster` for example.
///
/// # Errors
/// When the value is no such message, or there is none of this name.
pub(crate) fn encode(kind: &str, value: &Value) -> Result<Any, EncodeError> {
    let api = API.as_ref().map_err(EncodeError::Api)?;
    let descriptor = api.get_message_by_name(kind);
    let descriptor = descriptor.ok_or_else(|| EncodeError::Kind(kind.to_owned()))?;
    let message = DynamicMessage::deserialize(descriptor, value)
        .map_err(|error| EncodeError::Value(kind.to_owned(), error))?;
    Ok(Any {
        type_url: type_url(kind),
        value: Bytes::from(message.encode_to_vec()),
    })
}

/// What names a message's type in `google.protobuf.Any`.
pub(crate) fn type_url(kind: &str) -> String {
    format!("type.googleapis.com/{kind}")
}

/// Reads one back, for tests.
#[cfg(test)]
pub(crate) fn decode(any: &Any) -> Value {
    let kind = any.type_url.rsplit('/').next().unwrap();
    let descriptor = API.as_ref().unwrap().get_message_by_name(kind).unwrap();
    let message = DynamicMessage::decode(descriptor, any.value.clone()).unwrap();
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    let serializer = serde_json::value::Serializer;
    message
        .serialize_with_options(serializer, &options)
        .unwrap()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

    #[test]
    fn what_is_packed_within_is_read_too() {
        let kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options =
            json!({ "@type": kind, "explicit_http_config": { "http2_protocol_options": {} } });
        let cluster = json!({
            "name": "a", "type": "STATIC", "connect_timeout": "1.500s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
        });
        assert_eq!(decode(&encode(CLUSTER, &cluster).unwrap()), cluster);
    }

    #[test]
    fn what_is_no_such_message_is_refused_with_what_is_wrong() {
        let refused = |kind, value| encode(kind, &value).unwrap_err().to_string();
        let said = refused(CLUSTER, json!({ "name": "a", "conect_timeout": "1s" }));
        assert!(said.contains("conect_timeout"), "{said}");
        let said = refused(CLUSTER, json!({ "connect_timeout": "soon" }));
        assert!(said.contains("soon") || said.contains("duration"), "{said}");
        let said = refused("envoy.config.cluster.v3.Clutser", json!({}));
        assert!(said.contains("Clutser"), "{said}");
    }
}
