//! What a request asks of its own answer.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode};

/// Where it is asked whether traffic is wanted.
pub(super) const HEALTH: &str = "/healthz";

/// The controls of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) status: StatusCode,
    pub(crate) delay: Duration,
    /// So many bytes instead of the answer.
    pub(crate) size: Option<u64>,
    /// This instead of the answer.
    pub(crate) body: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Turn readiness on or off.
    pub(crate) ready: Option<bool>,
    /// Hold the second half of the answer back until this name is released.
    pub(crate) hold: Option<String>,
    /// Release this name.
    pub(crate) release: Option<String>,
    /// Count the request under this name.
    pub(crate) count: Option<String>,
    /// Tell only how many were counted under it.
    pub(crate) look: bool,
    /// Only so many of those counted get the status and the delay; those after them are answered
    /// well, and at once.
    pub(crate) first: Option<u64>,
}

impl Control {
    /// Reads them; `ready` is what `/healthz` is to tell. Says what is wrong with them.
    pub(crate) fn read(
        method: &Method,
        path: &str,
        query: &str,
        ready: bool,
    ) -> Result<Self, String> {
        let mut control = Self::default();
        match path {
            HEALTH if !ready => control.status = StatusCode::SERVICE_UNAVAILABLE,
            "/counted" => control.look = true,
            "/ready/true" if method == Method::POST => control.ready = Some(true),
            "/ready/false" if method == Method::POST => control.ready = Some(false),
            _ => {
                let release = path.strip_prefix("/release/");
                control.release = release
                    .filter(|_| method == Method::POST)
                    .map(str::to_owned);
                if let Some(code) = path.strip_prefix("/status/") {
                    control.status = status(code)?;
                }
            }
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || -> Result<u64, String> {
                value
                    .parse()
                    .map_err(|_| format!("{name}={value}: that is no number"))
            };
            match name.as_ref() {
                "status" => control.status = status(&value)?,
                "delay_ms" => control.delay = Duration::from_millis(number()?),
                "size" => control.size = Some(number()?),
                "body" => control.body = Some(value.into_owned()),
                "header" => control.headers.push(header(&value)?),
                "count" => control.count = Some(value.into_owned()),
                "hold" => control.hold = Some(value.into_owned()),
                "first" => control.first = Some(number()?),
                _ => {}
            }
        }
        Ok(control)
    }
}

/// A final one: those below 200 are not answers (RFC 9110 §15.2).
fn status(code: &str) -> Result<StatusCode, String> {
    code.parse()
        .ok()
        .filter(|status: &StatusCode| status.as_u16() >= 200)
        .ok_or_else(|| format!("`{code}` is no status from 200 to 999"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("header={text}: it is to be name:value"))?;
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("header={text}: `{name}` is no header's name"))?;
    let value = HeaderValue::from_str(value.trim_matches([' ', '\t']))
        .map_err(|_| format!("header={text}: no header has such a value"))?;
    // Where the body ends is for the protocol to say.
    match [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(&name) {
        true => Err(format!(
            "header={text}: `{name}` is not for requests to set"
        )),
        false => Ok((name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, query: &str) -> Result<Control, String> {
        Control::read(&Method::GET, path, query, true)
    }

    #[test]
    fn controls_are_in_the_path_and_in_the_query() {
        let control = get(
            "/status/404",
            "delay_ms=20&size=3&body=%7B%7D&header=a:b%20c&header=A:%20d&x&count=n&first=2",
        )
        .unwrap();
        assert_eq!(control.count.as_deref(), Some("n"));
        assert_eq!((control.first, control.look), (Some(2), false));
        assert!(get("/counted", "count=n").unwrap().look);
        assert_eq!(control.status, StatusCode::NOT_FOUND);
        assert_eq!(control.delay, Duration::from_millis(20));
        assert_eq!(control.size, Some(3));
        assert_eq!(control.body.as_deref(), Some("{}"));
        let headers: Vec<_> = control
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("a", "b c"), ("a", "d")]);
        assert_eq!(get("/", "").unwrap(), Control::default());
    }

    #[test]
    fn what_is_held_is_released_by_a_post() {
        assert_eq!(get("/", "hold=n").unwrap().hold.as_deref(), Some("n"));
        let release = |method| Control::read(&method, "/release/n", "", true).unwrap();
        assert_eq!(release(Method::POST).release.as_deref(), Some("n"));
        assert_eq!(release(Method::GET).release, None);
    }

    #[test]
    fn health_tells_readiness_and_only_a_post_turns_it() {
        let health = |ready| Control::read(&Method::GET, "/healthz", "", ready).unwrap();
        assert_eq!(health(true).status, StatusCode::OK);
        assert_eq!(health(false).status, StatusCode::SERVICE_UNAVAILABLE);
        let turn = |method| Control::read(&method, "/ready/false", "", true).unwrap();
        assert_eq!(turn(Method::POST).ready, Some(false));
        assert_eq!(turn(Method::GET).ready, None);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (path, query) in [
            ("/status/abc", ""),
            ("/", "status=101"),
            ("/", "status=1000"),
            ("/", "delay_ms=-1"),
            ("/", "size=much"),
            ("/", "header=x"),
            ("/", "header=a%20b:c"),
            ("/", "header=a:%0d%0ab"),
            ("/", "header=content-length:1"),
        ] {
            assert!(get(path, query).is_err(), "{path}?{query}");
        }
    }
}
