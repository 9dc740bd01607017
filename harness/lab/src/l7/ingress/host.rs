//! Hosts of Ingress rules.
//!
//! Start from [`Host`]. Envoy's `*.example.com` covers any number of labels, an Ingress's only one
//! ("the wildcard only covers a single DNS label", networking.k8s.io/v1): the difference is a
//! condition on the authority.

use crate::l7::envoy::route::{HeaderMatch, StringMatch};

/// A rule's host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// Every host.
    Any,
    /// One name.
    Exact(String),
    /// One label before this suffix (`.example.com`).
    Wildcard(String),
}

impl Host {
    /// From `spec.rules[].host`.
    pub(super) fn parse(host: Option<&str>) -> Self {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() || host == "*" {
            return Self::Any;
        }
        match host.strip_prefix('*') {
            Some(suffix) => Self::Wildcard(suffix.to_owned()),
            None => Self::Exact(host),
        }
    }

    /// As a domain of Envoy's, or a server name of TLS.
    pub(super) fn domain(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(host) => host.clone(),
            Self::Wildcard(suffix) => format!("*{suffix}"),
        }
    }

    /// The condition that only one label stands before a wildcard's suffix, or with `invert` that
    /// more do.
    pub(super) fn one_label(&self, invert: bool) -> Option<HeaderMatch> {
        let Self::Wildcard(suffix) = self else {
            return None;
        };
        Some(HeaderMatch {
            name: ":authority".to_owned(),
            value: StringMatch::Regex(format!("(?i)[^.:]+{}(:[0-9]+)?", regex::escape(suffix))),
            invert,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        let condition = Host::parse(Some("*.Example.com")).one_label(false).unwrap();
        let StringMatch::Regex(pattern) = condition.value else {
            panic!("not a pattern")
        };
        let matches = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        for (authority, expected) in [
            ("a.example.com", true),
            ("A.EXAMPLE.com:8080", true),
            ("a.b.example.com", false),
            ("example.com", false),
            (".example.com", false),
            ("a.examplexcom", false),
        ] {
            assert_eq!(matches.is_match(authority), expected, "{authority}");
        }
    }

    #[test]
    fn no_host_and_a_star_are_every_host() {
        for host in [None, Some(""), Some("*")] {
            assert_eq!(Host::parse(host), Host::Any);
        }
    }
}
