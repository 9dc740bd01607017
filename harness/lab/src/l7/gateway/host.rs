//! Hostnames of listeners and routes.
//!
//! Start from [`Hostname`]. A wildcard stands for one label or more ("the wildcard character will
//! match any number of characters and dots to the left"), which is what Envoy's domains and TLS's
//! server names mean by it, too.

/// What a listener or route asks of a request's host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hostname {
    /// Any host.
    Any,
    /// Hosts that end with this and have more before it (`.example.com`).
    Wildcard(String),
    /// One host.
    Exact(String),
}

impl Hostname {
    /// From a `hostname` field; absent and empty are any.
    pub(super) fn parse(hostname: Option<&str>) -> Self {
        let hostname = hostname.unwrap_or_default().to_ascii_lowercase();
        match hostname.strip_prefix('*') {
            None if hostname.is_empty() => Self::Any,
            None => Self::Exact(hostname),
            Some("") => Self::Any,
            Some(suffix) => Self::Wildcard(suffix.to_owned()),
        }
    }

    /// Whether every host that `other` takes is taken by this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Wildcard(suffix), Self::Wildcard(longer)) => longer.ends_with(suffix.as_str()),
            (Self::Wildcard(suffix), Self::Exact(host)) => {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (_, Self::Any) | (Self::Exact(_), Self::Wildcard(_)) => false,
        }
    }

    /// The hosts that both take.
    pub(super) fn intersect(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// How narrow it is: exact before wildcard before any, a longer wildcard before a shorter.
    pub(super) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Wildcard(suffix) => (1, suffix.len()),
            Self::Exact(_) => (2, 0),
        }
    }

    /// As a domain of Envoy's.
    pub(super) fn domain(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Wildcard(suffix) => format!("*{suffix}"),
            Self::Exact(host) => host.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_intersect_as_the_specification_says() {
        for (listener, route, expected) in [
            ("", "", Some("*")),
            ("", "a.example.com", Some("a.example.com")),
            ("test.example.com", "", Some("test.example.com")),
            (
                "test.example.com",
                "test.example.com",
                Some("test.example.com"),
            ),
            (
                "test.example.com",
                "*.example.com",
                Some("test.example.com"),
            ),
            ("test.example.com", "foo.example.com", None),
            (
                "*.example.com",
                "test.example.com",
                Some("test.example.com"),
            ),
            (
                "*.example.com",
                "foo.test.example.com",
                Some("foo.test.example.com"),
            ),
            (
                "*.example.com",
                "*.test.example.com",
                Some("*.test.example.com"),
            ),
            ("*.example.com", "example.com", None),
            ("*.example.com", "test.example.net", None),
            ("*.example.com", "testexample.com", None),
        ] {
            let (listener, route) = (
                Hostname::parse(Some(listener)),
                Hostname::parse(Some(route)),
            );
            let both = listener.intersect(&route).map(|both| both.domain());
            assert_eq!(both.as_deref(), expected, "{listener:?} and {route:?}");
            let other_way = route.intersect(&listener).map(|both| both.domain());
            assert_eq!(both, other_way, "{listener:?} and {route:?}");
        }
    }
}
