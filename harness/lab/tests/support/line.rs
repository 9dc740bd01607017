//! Clients whose connections to an API server break.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;

/// A line to an API server that breaks: each watch after as many events as its turn says, by a clean
/// end, an error, or in the middle of an event; all of them, and every request, while it is down.
pub(crate) struct Line {
    /// After how many events the next watches break; those beyond do not.
    cuts: Mutex<VecDeque<u8>>,
    down: watch::Sender<bool>,
}

impl Line {
    pub(crate) fn new(cuts: impl IntoIterator<Item = u8>) -> Arc<Self> {
        Arc::new(Self {
            cuts: Mutex::new(cuts.into_iter().collect()),
            down: watch::Sender::new(false),
        })
    }

    #[allow(dead_code, reason = "not every test program has an outage")]
    pub(crate) fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// A client at the other end.
    pub(crate) fn client(self: &Arc<Self>, inner: Client) -> Client {
        let line = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (line, inner) = (line.clone(), inner.clone());
            async move { line.carry(&inner, request).await }
        });
        Client::new(service, "default")
    }

    async fn carry(
        &self,
        inner: &Client,
        request: http::Request<Body>,
    ) -> kube::Result<http::Response<axum::body::Body>> {
        use axum::body::Body;
        if *self.down.borrow() {
            let mut away = http::Response::new(Body::from("the API server is away"));
            *away.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            return Ok(away);
        }
        let query = request.uri().query().unwrap_or_default();
        let says = |wanted: &str| query.split('&').any(|part| part == wanted);
        let (watches, initial) = (says("watch=true"), says("sendInitialEvents=true"));
        let response = inner.send(request).await?;
        if !watches {
            return Ok(response.map(Body::new));
        }
        let cut = self.cuts.lock().unwrap().pop_front();
        let (parts, body) = response.into_parts();
        let mut down = self.down.subscribe();
        let outage = Box::pin(async move {
            let _ = down.wait_for(|down| *down).await;
        });
        let frames = body
            .into_data_stream()
            .take_until(outage)
            .map(|frame| frame.map_err(std::io::Error::other));
        let body = match cut {
            None => Body::from_stream(frames),
            Some(cut) => {
                // `kube` does not begin anew after a streamed list that broke (4.2): that comes whole.
                let left = (!initial).then_some(cut);
                let state = (frames.boxed(), left, false);
                let broken =
                    futures::stream::unfold(state, move |(mut frames, left, over)| async move {
                        if over {
                            return None;
                        }
                        let frame = frames.next().await?;
                        let (parts, left, over) = match left {
                            Some(0) => (broken_off(cut, frame), None, true),
                            Some(more) => (vec![frame], Some(more - 1), false),
                            None => {
                                let left = ends_initial(&frame).then_some(cut);
                                (vec![frame], left, false)
                            }
                        };
                        Some((futures::stream::iter(parts), (frames, left, over)))
                    });
                Body::from_stream(broken.flatten())
            }
        };
        Ok(http::Response::from_parts(parts, body))
    }
}

fn ends_initial(frame: &std::io::Result<Bytes>) -> bool {
    let mark = b"k8s.io/initial-events-end";
    frame
        .as_ref()
        .is_ok_and(|frame| frame.windows(mark.len()).any(|part| part == mark))
}

fn broken_off(cut: u8, frame: std::io::Result<Bytes>) -> Vec<std::io::Result<Bytes>> {
    let reset = || Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    match (cut % 3, frame) {
        (0, _) => vec![],
        (1, _) => vec![reset()],
        (_, Ok(frame)) => vec![Ok(frame.slice(..frame.len() / 2)), reset()],
        (_, Err(error)) => vec![Err(error)],
    }
}
