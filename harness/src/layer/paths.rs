//! Paths of HTTP routes: which match, and which was probably meant.
//!
//! Start from [`Path`]. Ingress and Gateway API agree on Exact and on prefixes, element by element
//! (`/foo` is a prefix of `/foo/bar`, not of `/foobar`); what they do not define is never judged.

use std::fmt;

use crate::settings::nearest;

/// A path of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// How it is matched.
    pub(super) how: How,
    /// As it stands in the rule.
    pub(super) path: String,
    /// The field it stands in.
    pub(super) field: String,
}

/// How a path is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// As a whole.
    Exact,
    /// Element by element.
    Prefix,
    /// By rules of the implementation's own.
    Other,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Exact => write!(f, "{} (Exact)", self.path),
            How::Prefix => f.write_str(&self.path),
            How::Other => write!(f, "{} (as the implementation matches it)", self.path),
        }
    }
}

impl Path {
    /// Whether it matches; what an implementation defines may match anything.
    pub(super) fn matches(&self, asked: &str) -> bool {
        match self.how {
            How::Exact => self.path == asked,
            How::Prefix => {
                let prefix = self.path.trim_end_matches('/');
                let rest = asked.strip_prefix(prefix);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            How::Other => true,
        }
    }
}

/// Why none of the paths matches, and which was meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Miss<'a> {
    /// The rule's path that is nearest to what was asked, and what it should be.
    pub(super) near: Option<(&'a Path, String)>,
    /// A sentence's end that explains a match that a person would expect.
    pub(super) because: Option<String>,
}

/// Nothing if a path matches.
pub(super) fn miss<'a>(asked: &str, paths: &'a [Path]) -> Option<Miss<'a>> {
    if paths.iter().any(|path| path.matches(asked)) {
        return None;
    }
    // What people expect to match, and does not.
    for path in paths {
        let because = match path.how {
            How::Exact if asked.trim_end_matches('/') == path.path.trim_end_matches('/') => {
                format!("Exact {} differs by its trailing slash", path.path)
            }
            How::Exact if asked.starts_with(&format!("{}/", path.path)) => {
                format!("{} is Exact, so it is no prefix", path.path)
            }
            How::Prefix if asked.starts_with(&path.path) => format!(
                "a prefix is matched element by element, and {} is no whole element of it",
                path.path
            ),
            _ => continue,
        };
        let should = path.path.clone();
        return Some(Miss {
            near: Some((path, should)),
            because: Some(because),
        });
    }
    let near = paths.iter().filter_map(|path| {
        let should = head(asked, &path.path);
        nearest(&should, std::iter::once(path.path.as_str()))?;
        let distance = strsim::damerau_levenshtein(&should, &path.path);
        Some((distance, path, should))
    });
    let near = near.min_by_key(|(distance, ..)| *distance);
    Some(Miss {
        near: near.map(|(_, path, should)| (path, should)),
        because: None,
    })
}

/// As many elements of the path that was asked for as the rule's path has.
fn head(asked: &str, path: &str) -> String {
    let elements = path.trim_end_matches('/').matches('/').count();
    let asked: Vec<_> = asked.trim_end_matches('/').split('/').collect();
    asked[..asked.len().min(elements + 1)].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(how: How, path: &str) -> Path {
        let field = "spec.rules[0].http.paths[0].path".to_owned();
        let path = path.to_owned();
        Path { how, path, field }
    }

    /// Kubernetes' own table, of networking.k8s.io/v1 Ingress, "Examples".
    #[test]
    fn paths_match_element_by_element() {
        let cases = [
            (How::Prefix, "/", "/anything", true),
            (How::Exact, "/foo", "/foo", true),
            (How::Exact, "/foo", "/bar", false),
            (How::Exact, "/foo", "/foo/", false),
            (How::Exact, "/foo/", "/foo", false),
            (How::Prefix, "/foo", "/foo", true),
            (How::Prefix, "/foo", "/foo/", true),
            (How::Prefix, "/foo/", "/foo", true),
            (How::Prefix, "/foo/", "/foo/", true),
            (How::Prefix, "/aaa/bb", "/aaa/bbb", false),
            (How::Prefix, "/aaa/bbb", "/aaa/bbb", true),
            (How::Prefix, "/aaa/bbb/", "/aaa/bbb", true),
            (How::Prefix, "/aaa/bbb", "/aaa/bbb/ccc", true),
            (How::Prefix, "/aaa/bbb", "/aaa/bbbxyz", false),
            (How::Other, "/x.*", "/y", true),
        ];
        for (how, rule, asked, matches) in cases {
            assert_eq!(
                path(how, rule).matches(asked),
                matches,
                "{how:?} {rule} {asked}"
            );
        }
    }

    /// Rule, asked, what the rule should have been, whether it is explained.
    #[test]
    fn the_path_that_was_meant() {
        let cases = [
            (
                How::Prefix,
                "/frontnd",
                "/frontend",
                Some("/frontend"),
                false,
            ),
            (
                How::Prefix,
                "/frontnd",
                "/frontend/cart/7",
                Some("/frontend"),
                false,
            ),
            (
                How::Prefix,
                "/Frontend",
                "/frontend",
                Some("/frontend"),
                false,
            ),
            (How::Prefix, "/foo", "/foobar", Some("/foo"), true),
            (How::Exact, "/foo", "/foo/bar", Some("/foo"), true),
            (How::Exact, "/foo/", "/foo", Some("/foo/"), true),
            (How::Prefix, "/admin", "/frontend", None, false),
        ];
        for (how, rule, asked, should, explained) in cases {
            let paths = [path(how, rule)];
            let miss = miss(asked, &paths).unwrap();
            let near = miss.near.as_ref().map(|(_, should)| should.as_str());
            assert_eq!(near, should, "{rule} {asked}");
            assert_eq!(miss.because.is_some(), explained, "{rule} {asked}");
        }
        assert_eq!(miss("/a", &[path(How::Prefix, "/a")]), None);
    }
}
