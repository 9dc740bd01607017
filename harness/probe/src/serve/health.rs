//! gRPC's health checking protocol (`grpc.health.v1`), so far as kubelets ask by it: `Check`.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{self, Iter};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;

/// Where it is asked.
pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A message, and the status of the call behind it. Its length is not told: whoever knew it would not
/// wait for what is behind.
pub(super) type Called =
    StreamBody<Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;

/// SERVING or NOT_SERVING, whatever service is asked for: the one field of `HealthCheckResponse`, behind
/// the five bytes before each message.
pub(super) fn answer(serving: bool) -> Response<Called> {
    let message: &'static [u8] = match serving {
        true => &[0, 0, 0, 0, 2, 0x08, 1],
        false => &[0, 0, 0, 0, 2, 0x08, 2],
    };
    let status = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = [
        Frame::data(Bytes::from_static(message)),
        Frame::trailers(status),
    ];
    let body = StreamBody::new(stream::iter(frames.map(Ok)));
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
