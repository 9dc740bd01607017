//! What an older API server wants said otherwise, and means the same by.
//!
//! Start from [`dialect`]. Everybody else speaks of the version that there is today; on its way to an
//! older API server a request is put into that one's words.

use futures::FutureExt as _;
use http::{Request, Uri};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// A group's version, and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Older {
    group: &'static str,
    version: &'static str,
    older: &'static str,
}

/// EndpointSlices are `v1` since Kubernetes 1.21; `topology` became `nodeName` with it.
const KNOWN: &[Older] = &[Older {
    group: "discovery.k8s.io",
    version: "v1",
    older: "v1beta1",
}];

/// What an older API server has to be told in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Groups that it serves in the earlier version alone.
    groups: Vec<Older>,
    /// An apply has to name the protocol of every port, which is a key of the list; since 1.21 its schema
    /// says what the default is.
    names_protocols: bool,
}

/// The dialect of a cluster; nothing of it where the cluster speaks as today's do.
///
/// # Errors
/// When the API server does not tell.
pub(super) async fn dialect(client: &Client) -> kube::Result<Dialect> {
    let version = client.apiserver_version().await?;
    // `20+` where a vendor has changed something.
    let minor = version.minor.trim_end_matches('+').parse::<u32>().ok();
    if version.major != "1" || minor.is_some_and(|minor| minor >= 21) {
        return Ok(Dialect::default());
    }
    let groups = client.list_api_groups().await?.groups;
    let only_older = |older: &Older| {
        let group = groups.iter().find(|group| group.name == older.group);
        let has = |version: &str| {
            let versions = group.iter().flat_map(|group| &group.versions);
            versions.into_iter().any(|has| has.version == version)
        };
        has(older.older) && !has(older.version)
    };
    Ok(Dialect {
        groups: KNOWN.iter().copied().filter(only_older).collect(),
        names_protocols: minor.is_some(),
    })
}

impl Dialect {
    /// A request in its words.
    pub(super) fn translated(&self, request: Request<Body>) -> Request<Body> {
        let path = request.uri().path();
        if let Some(older) = self.groups.iter().find(|it| it.is_meant(path)) {
            return older.translate(request);
        }
        let media = request.headers().get(http::header::CONTENT_TYPE);
        let applies = media.is_some_and(|media| media == "application/apply-patch+yaml");
        let workload = ["/api/v1/", "/apis/apps/", "/apis/batch/"];
        if self.names_protocols && applies && workload.iter().any(|it| path.starts_with(it)) {
            let (head, body) = request.into_parts();
            return Request::from_parts(head, retold(body, name_protocols));
        }
        request
    }
}

/// A body in other words. What the client sends is there at once, or it is nothing that is retold.
fn retold(body: Body, retell: impl Fn(&mut Value)) -> Body {
    let whole = body
        .try_clone()
        .and_then(|body| body.collect().now_or_never());
    let Some(Ok(whole)) = whole else { return body };
    let Ok(mut object) = serde_json::from_slice::<Value>(&whole.to_bytes()) else {
        return body;
    };
    retell(&mut object);
    serde_json::to_vec(&object).map_or(body, Body::from)
}

/// Gives every port of containers and Services the protocol that is meant where none is named.
fn name_protocols(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                for port in child
                    .as_array_mut()
                    .filter(|_| name == "ports")
                    .into_iter()
                    .flatten()
                {
                    if let Some(port) = port.as_object_mut() {
                        port.entry("protocol").or_insert_with(|| "TCP".into());
                    }
                }
                name_protocols(child);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(name_protocols),
        _ => {}
    }
}

impl Older {
    /// Whether a path is of the group, in either version: who asks the API which one it has is told the
    /// earlier, and still sends what is written for today's.
    fn is_meant(&self, path: &str) -> bool {
        let mut parts = path.split('/').skip(1);
        let (apis, group, version) = (parts.next(), parts.next(), parts.next());
        let either = [Some(self.version), Some(self.older)];
        apis == Some("apis") && group == Some(self.group) && either.contains(&version)
    }

    fn translate(&self, request: Request<Body>) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        let named = |version| format!("/apis/{}/{version}", self.group);
        let asked = head.uri.path_and_query().map_or("", |asked| asked.as_str());
        if let Some(rest) = asked.strip_prefix(&named(self.version))
            && (rest.is_empty() || rest.starts_with(['/', '?']))
        {
            let mut parts = head.uri.clone().into_parts();
            parts.path_and_query = format!("{}{rest}", named(self.older)).parse().ok();
            head.uri = Uri::from_parts(parts).unwrap_or(head.uri);
        }
        let version = format!("{}/{}", self.group, self.version);
        let body = retold(body, |object| match object.get_mut("apiVersion") {
            Some(named) if *named == version => {
                *named = format!("{}/{}", self.group, self.older).into();
            }
            _ => {}
        });
        Request::from_parts(head, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(dialect: &Dialect, path: &str, body: &str) -> (String, String) {
        let request = Request::put(path)
            .header("content-type", "application/apply-patch+yaml")
            .body(Body::from(body.as_bytes().to_vec()));
        let (head, body) = dialect.translated(request.unwrap()).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (head.uri.to_string(), body)
    }

    fn old() -> Dialect {
        Dialect {
            groups: KNOWN.to_vec(),
            names_protocols: true,
        }
    }

    #[tokio::test]
    async fn path_and_body_name_the_version_that_there_is() {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices?x=1";
        let body = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice"}"#;
        assert_eq!(
            put(&old(), slices, body).await,
            (
                slices.replace("/v1/", "/v1beta1/"),
                body.replace("/v1", "/v1beta1")
            )
        );
        let older = slices.replace("/v1/", "/v1beta1/");
        let twice = put(&old(), &older, body).await;
        assert_eq!(twice, (older, body.replace("/v1", "/v1beta1")));
        let same = (slices.to_owned(), body.to_owned());
        assert_eq!(put(&Dialect::default(), slices, body).await, same);
        assert_eq!(put(&old(), slices, "{").await.1, "{");
    }

    #[tokio::test]
    async fn ports_are_applied_with_their_protocols() {
        let services = "/api/v1/namespaces/a/services/b";
        let body = r#"{"spec":{"ports":[{"port":80},{"port":53,"protocol":"UDP"}]}}"#;
        let named =
            r#"{"spec":{"ports":[{"port":80,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}}"#;
        assert_eq!(put(&old(), services, body).await.1, named);
        assert_eq!(put(&Dialect::default(), services, body).await.1, body);
        let other = "/apis/networking.istio.io/v1/namespaces/a/gateways/b";
        assert_eq!(put(&old(), other, body).await.1, body);
    }
}
