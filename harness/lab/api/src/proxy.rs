//! The `proxy` subresource: HTTP to pods, directly and through Services.
//!
//! Start from [`proxy`]. Which address a request goes to is its kind's affair (`rows`). Links in
//! pages that come back are not rewritten, only redirections are. Rule: requests leave from the
//! control plane's network, as a real API server's do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::request::Asked;
use super::serve::Afterwards;
use super::status::Status;
use super::store::State;
use strata_os::dial;

/// How long a server has to accept a connection, as API servers give it.
const DIAL: Duration = Duration::from_secs(30);

/// What a name before `/proxy` says: `[SCHEME:]NAME[:PORT]`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) secure: bool,
    pub(crate) name: &'a str,
    /// A number, or a Service port's name; empty where it is not said.
    pub(crate) port: &'a str,
    /// All of it, as it was said.
    pub(crate) text: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let secure = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self {
            secure,
            name,
            port,
            text,
        })
    }
}

/// Finds the address of a place in a namespace.
pub(crate) type Locate = fn(&State, &str, &Place<'_>) -> Result<SocketAddr, Status>;

/// Whether a subresource is `proxy`, or a path below it.
pub(crate) fn is_proxy(name: &str) -> bool {
    name == "proxy" || name.starts_with("proxy/")
}

/// Passes a request on to where its name says, and the answer back.
pub(crate) async fn proxy(
    shared: Arc<Shared>,
    asked: Asked,
    request: Request,
) -> Result<Response, Status> {
    let locate = asked.kind.hooks.locate.ok_or_else(Status::no_such_path)?;
    let id = asked.name.as_deref().unwrap_or_default();
    let place = Place::of(id).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {id:?}", asked.kind.singular))
    })?;
    let address = shared
        .store
        .transact(|state| locate(state, asked.namespace(), &place))?;
    // Past `/api/v1/namespaces/NAMESPACE/KIND/NAME/proxy`, as it was written.
    let (above, rest) = match request.uri().path().match_indices('/').nth(7) {
        Some((at, _)) => request.uri().path().split_at(at),
        None => return Ok(with_slash(&request)),
    };
    let query = request.uri().query();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{rest}{query}");
    let target: Uri = target
        .parse()
        .map_err(|error| Status::bad_request(format!("{target:?}: {error}")))?;
    let above = Above {
        scheme: if place.secure { "https" } else { "http" },
        address,
        path: above.to_owned(),
    };
    let unavailable =
        |why: String| Status::service_unavailable(format!("error trying to reach service: {why}"));
    let stream = match timeout(DIAL, dial::tcp(&shared.network, address)).await {
        Ok(stream) => stream.map_err(unavailable)?,
        Err(_) => return Err(unavailable(format!("dial tcp {address}: i/o timeout"))),
    };
    let stream: Box<dyn dial::Stream> = if place.secure {
        let stream = dial::unverified_tls(stream, address.ip()).await;
        Box::new(stream.map_err(|error| unavailable(error.to_string()))?)
    } else {
        Box::new(stream)
    };
    let connected = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| unavailable(error.to_string()))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let afterwards = parts.extensions.remove::<Afterwards>();
    above.forward(&mut parts.headers, target.path(), upgrade.is_some());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = target;
    *request.headers_mut() = parts.headers;

    let answer = sender.send_request(request).await;
    let mut answer = answer.map_err(|error| {
        // What the connection itself ended with is not told.
        unavailable(if error.is_canceled() {
            "EOF".to_owned()
        } else {
            error.to_string()
        })
    })?;
    above.rewrite(answer.headers_mut());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut answer);
        if let (Some(ours), Some(afterwards)) = (upgrade, afterwards) {
            afterwards.run(Box::pin(async move {
                let upgraded = tokio::try_join!(ours, theirs);
                drop(connection);
                if let Ok((ours, theirs)) = upgraded {
                    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                    let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
                }
            }));
        }
        return Ok(answer.map(|_| Body::empty()));
    }
    hop_by_hop(answer.headers_mut());
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // It is there as long as the answer is wanted.
            let _ = &connection;
            frame
        }))
    }))
}

/// A redirection to the root, where the path ends with `proxy`.
fn with_slash(request: &Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Status::method_not_allowed().into_response();
    }
    let query = request.uri().query();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", request.uri().path());
    (
        StatusCode::MOVED_PERMANENTLY,
        [(header::LOCATION, location)],
    )
        .into_response()
}

/// What a proxied server is below of.
struct Above {
    scheme: &'static str,
    address: SocketAddr,
    /// The path of its root.
    path: String,
}

impl Above {
    /// Makes the client's headers those of the request that goes on.
    fn forward(&self, headers: &mut HeaderMap, path: &str, upgrade: bool) {
        // The API server's own: nobody else is to have the client's token.
        headers.remove(header::AUTHORIZATION);
        let host = headers.remove(header::HOST);
        let protocols = headers.get(header::UPGRADE).filter(|_| upgrade).cloned();
        hop_by_hop(headers);
        if let Some(protocols) = protocols {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocols);
        }
        let forwarded = [
            ("x-forwarded-uri", format!("{}{path}", self.path)),
            ("x-forwarded-proto", "https".to_owned()),
            ("host", self.address.to_string()),
        ];
        for (name, value) in forwarded {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(host) = host {
            headers.insert(HeaderName::from_static("x-forwarded-host"), host);
        }
    }

    /// Leads redirections within the proxied server back through the proxy.
    fn rewrite(&self, headers: &mut HeaderMap) {
        let Some(location) = headers.get(header::LOCATION) else {
            return;
        };
        let own = format!("{}://{}", self.scheme, self.address);
        let location = location.to_str().unwrap_or_default();
        let path = location.strip_prefix(&own).unwrap_or(location);
        if path.starts_with('/')
            && !path.starts_with("//")
            && let Ok(value) = HeaderValue::from_str(&format!("{}{path}", self.path))
        {
            headers.insert(header::LOCATION, value);
        }
    }
}

/// Takes out what is said between neighbours only (RFC 9110, 7.6.1).
fn hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<HeaderName> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let usual = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ];
    for name in named.iter().chain(&usual) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_scheme_and_a_port_if_it_is_said() {
        for (text, expected) in [
            ("web", Some((false, "web", ""))),
            ("web:80", Some((false, "web", "80"))),
            ("https:web:", Some((true, "web", ""))),
            ("http:web:http", Some((false, "web", "http"))),
            ("ftp:web:80", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let found = Place::of(text);
            let found = found.map(|place| (place.secure, place.name, place.port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn redirections_within_the_server_stay_within() {
        let above = Above {
            scheme: "http",
            address: SocketAddr::from(([10, 244, 0, 2], 80)),
            path: "/p/proxy".to_owned(),
        };
        for (location, expected) in [
            ("/a?b", "/p/proxy/a?b"),
            ("http://10.244.0.2:80/a", "/p/proxy/a"),
            ("//elsewhere/a", "//elsewhere/a"),
            ("https://elsewhere/a", "https://elsewhere/a"),
            ("a", "a"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            above.rewrite(&mut headers);
            assert_eq!(headers[header::LOCATION], expected);
        }
    }

    #[test]
    fn a_client_s_token_is_for_the_api_server_alone() {
        let above = Above {
            scheme: "http",
            address: SocketAddr::from(([10, 244, 0, 2], 80)),
            path: "/p/proxy".to_owned(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert(header::HOST, "api".parse().unwrap());
        headers.insert(header::CONNECTION, "x-mine".parse().unwrap());
        headers.insert("x-mine", "1".parse().unwrap());
        above.forward(&mut headers, "/a", false);
        let shown: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let mut shown = shown;
        shown.sort();
        assert_eq!(
            shown,
            [
                "host: 10.244.0.2:80",
                "x-forwarded-host: api",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /p/proxy/a",
            ]
        );
    }
}
