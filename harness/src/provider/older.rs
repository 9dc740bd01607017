//! Groups of the API that an older cluster serves in an earlier version, alike in all that is asked here.
//!
//! Start from [`served`]. Everybody else speaks of the version that there is today; on its way to an
//! older API server a request is put into that one's words.

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Uri};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;

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

/// Those that a cluster serves in the earlier version alone.
///
/// # Errors
/// When the API server does not tell.
pub(super) async fn served(client: &Client) -> kube::Result<Vec<Older>> {
    let groups = client.list_api_groups().await?.groups;
    let only_older = |older: &Older| {
        let group = groups.iter().find(|group| group.name == older.group);
        let has = |version: &str| {
            let versions = group.iter().flat_map(|group| &group.versions);
            versions.into_iter().any(|has| has.version == version)
        };
        has(older.older) && !has(older.version)
    };
    Ok(KNOWN.iter().copied().filter(only_older).collect())
}

/// A request in the words of an API server that has these.
pub(super) fn translated(olders: &[Older], request: Request<Body>) -> Request<Body> {
    let path = request.uri().path();
    match olders.iter().find(|older| path.starts_with(&older.path())) {
        Some(older) => older.translate(request),
        None => request,
    }
}

impl Older {
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    fn translate(&self, request: Request<Body>) -> Request<Body> {
        let (mut head, body) = request.into_parts();
        let asked = head.uri.to_string();
        let other = format!("/apis/{}/{}", self.group, self.older);
        if let Ok(uri) = asked.replacen(&self.path(), &other, 1).parse::<Uri>() {
            head.uri = uri;
        }
        // What the client sends is there at once, or it is nothing that names a version.
        let whole = body
            .try_clone()
            .and_then(|body| body.collect().now_or_never());
        let body = match whole {
            Some(Ok(whole)) => Body::from(self.retold(whole.to_bytes())),
            _ => body,
        };
        Request::from_parts(head, body)
    }

    /// A body that names the version.
    fn retold(&self, body: Bytes) -> Bytes {
        let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return body;
        };
        let version = format!("{}/{}", self.group, self.version);
        match object.get_mut("apiVersion") {
            Some(named) if *named == version => {
                *named = format!("{}/{}", self.group, self.older).into();
            }
            _ => return body,
        }
        serde_json::to_vec(&object).map_or(body, Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(olders: &[Older], path: &str, body: &str) -> (String, String) {
        let request = Request::put(path).body(Body::from(body.as_bytes().to_vec()));
        let (head, body) = translated(olders, request.unwrap()).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            head.uri.to_string(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn path_and_body_name_the_version_that_there_is() {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices?x=1";
        let body = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice"}"#;
        assert_eq!(
            put(KNOWN, slices, body).await,
            (
                slices.replace("/v1/", "/v1beta1/"),
                body.replace("/v1", "/v1beta1")
            )
        );
        assert_eq!(
            put(&[], slices, body).await,
            (slices.to_owned(), body.to_owned())
        );
        let other = "/apis/apps/v1/deployments";
        assert_eq!(
            put(KNOWN, other, body).await,
            (other.to_owned(), body.to_owned())
        );
        assert_eq!(put(KNOWN, slices, "{").await.1, "{");
    }
}
