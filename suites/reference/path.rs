//! Paths, as both specifications compare them: "split by `/`", "element by element", "case sensitive".

/// Whether a prefix covers a path by whole elements. A last slash of the prefix is ignored.
pub(super) fn covers(prefix: &str, path: &str) -> bool {
    let (prefix, path) = (elements(without_last_slash(prefix)), elements(path));
    path.starts_with(&prefix)
}

/// `/foo` of `/foo/`; nothing of `/`.
pub(super) fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// `/a//b` has three elements, the second of them empty.
fn elements(path: &str) -> Vec<&str> {
    path.split('/').skip(1).collect()
}

/// The same path without its empty elements but the last: `/a/b/` of `//a//b/`.
pub(super) fn without_empty(path: &str) -> String {
    let mut merged = String::new();
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// The same path with every character as itself.
pub(super) fn decoded(path: &str) -> String {
    percent_encoding::percent_decode_str(path)
        .decode_utf8_lossy()
        .into_owned()
}

/// The same path with letters and digits, and `-._~`, as themselves where they are percent-encoded. To
/// RFC 3986 (section 6.2.2.2) the two are one; of every other character the encoding is not (section 2.2).
pub(super) fn normal(path: &str) -> String {
    let mut normal = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let encoded = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match encoded.map(char::from) {
            Some(plain) if plain.is_ascii_alphanumeric() || "-._~".contains(plain) => {
                normal.push(plain);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                normal.push('%');
                rest = after;
            }
        }
    }
    normal + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_by_whole_elements() {
        for (prefix, path, expected) in [
            ("/", "/", true),
            ("/", "/foo", true),
            ("/", "//", true),
            ("/foo", "/foo", true),
            ("/foo", "/foo/", true),
            ("/foo", "/foo//", true),
            ("/foo/", "/foo", true),
            ("/foo", "/foobar", false),
            ("/foo", "/Foo", false),
            ("/foo", "//foo", false),
            ("/foo/bar", "/foo//bar", false),
            ("/foo/bar", "/foo", false),
            ("/foo/bar", "/foo/barbaz", false),
        ] {
            assert_eq!(covers(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn only_what_needs_no_encoding_is_decoded() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/%61%7e", "/a~"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%20b%62", "/a%20bb"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%zz%61", "/%zza"),
        ] {
            assert_eq!(normal(path), expected);
        }
    }
}
