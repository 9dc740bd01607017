//! An object of any kind, as the API server wrote it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicObject};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// An object that nobody has read yet.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// Of which only the version is here, by which a watch goes on.
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

impl Text {
    /// All of the object.
    pub(crate) fn json(&self) -> &str {
        self.json.get()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Version,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            resource_version: Option<String>,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let head: Head = serde_json::from_str(json.get()).map_err(de::Error::custom)?;
        let metadata = ObjectMeta {
            resource_version: head.metadata.resource_version,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, json })
    }
}

impl Resource for Text {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(kind)
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(kind)
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(kind)
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn a_watchs_line_is_kept_as_it_is() {
        let object = r#"{"kind":"ConfigMap", "metadata":{"name":"a","resourceVersion":"7"},"data":{"b":"c"}}"#;
        let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
        let WatchEvent::Modified(text) = serde_json::from_str::<WatchEvent<Text>>(&line).unwrap()
        else {
            panic!("another event")
        };
        assert_eq!(text.json(), object);
        assert_eq!(text.resource_version().as_deref(), Some("7"));
    }

    #[test]
    fn a_lists_items_are_kept_as_they_are() {
        let list = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[{"metadata":{}},{"metadata":{"resourceVersion":"8"},"data":{}}]}"#;
        let list: ObjectList<Text> = serde_json::from_str(list).unwrap();
        let items: Vec<_> = list.items.iter().map(Text::json).collect();
        assert_eq!(
            items,
            [
                r#"{"metadata":{}}"#,
                r#"{"metadata":{"resourceVersion":"8"},"data":{}}"#
            ]
        );
        assert_eq!(list.metadata.resource_version.as_deref(), Some("9"));
    }
}
