//! A request, as far as routes look at it.

use std::collections::BTreeSet;

use strata::wire::OneRequest;

use super::{Place, path};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Request {
    pub(super) method: &'static str,
    /// In any case.
    pub(super) host: String,
    /// The port in the Host header, which is no part of the name.
    pub(super) port: Option<u16>,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Request {
    /// A GET.
    pub(super) fn get(host: &str, path: &str) -> Self {
        Self {
            method: "GET",
            host: host.to_owned(),
            path: path.to_owned(),
            ..Self::default()
        }
    }

    /// The name in the Host header: "comparison is case-insensitive" (RFC 9110, section 4.2.3).
    pub(super) fn hostname(&self) -> String {
        self.host.to_ascii_lowercase()
    }

    /// The paths that the request may be read to have. Whether `/%61` is `/a`, as it is to RFC 3986, whether any
    /// other character is compared decoded, and whether `//` is `/`, neither specification says.
    pub(super) fn readings(&self) -> BTreeSet<String> {
        let encodings = [
            self.path.clone(),
            path::normal(&self.path),
            path::decoded(&self.path),
        ];
        let merged = encodings.clone().map(|path| path::without_empty(&path));
        encodings.into_iter().chain(merged).collect()
    }

    /// The first value of a header; its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut query = self.query.iter();
        query.find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// The same in a place.
    pub(super) fn placed(&self, place: &Place) -> Self {
        Self {
            host: place.host(&self.host),
            ..self.clone()
        }
    }

    /// As the probe sends it.
    pub(super) fn wire(&self) -> OneRequest {
        let header = |(name, value): &(&str, String)| format!("{name}: {value}");
        OneRequest {
            method: self.method.to_owned(),
            host: Some(self.authority()),
            target: self.target(),
            headers: self.headers.iter().map(header).collect(),
        }
    }

    /// As a person sends it, to a URL without a path.
    pub(super) fn curl(&self, url: &str) -> String {
        let method = match self.method {
            "GET" => String::new(),
            "HEAD" => " --head".to_owned(),
            other => format!(" -X {other}"),
        };
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!(" -H '{name}: {value}'"))
            .collect();
        format!(
            "curl -i --path-as-is{method} -H 'Host: {}'{headers} '{url}{}'",
            self.authority(),
            self.target()
        )
    }

    fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    fn target(&self) -> String {
        let query: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match query.is_empty() {
            true => self.path.clone(),
            false => format!("{}?{}", self.path, query.join("&")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_by_the_probe_as_by_a_person() {
        let request = Request {
            method: "POST",
            port: Some(8080),
            query: vec![("v", "1"), ("w", "2")],
            headers: vec![("X-One", "a".into())],
            ..Request::get("A.example", "/a//b")
        };
        assert_eq!(
            request.curl("http://192.0.2.1"),
            "curl -i --path-as-is -X POST -H 'Host: A.example:8080' -H 'X-One: a' 'http://192.0.2.1/a//b?v=1&w=2'"
        );
        let wire = request.wire();
        assert_eq!(wire.method, "POST");
        assert_eq!(wire.host.as_deref(), Some("A.example:8080"));
        assert_eq!(wire.target, "/a//b?v=1&w=2");
        assert_eq!(wire.headers, ["X-One: a"]);
        assert_eq!(request.hostname(), "a.example");
        assert_eq!(request.header("x-one"), Some("a"));
        assert_eq!(request.parameter("W"), None);
    }

    #[test]
    fn what_neither_text_says_of_paths_may_be_read_in_several_ways() {
        let readings = |path: &str| Vec::from_iter(Request::get("", path).readings());
        assert_eq!(readings("/%61"), ["/%61", "/a"]);
        assert_eq!(readings("/%61%2F"), ["/%61%2F", "/a%2F", "/a/"]);
        assert_eq!(readings("//a/"), ["//a/", "/a/"]);
        assert_eq!(readings("/A/"), ["/A/"]);
    }
}
