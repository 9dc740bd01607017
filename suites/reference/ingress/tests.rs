//! The specification's own examples.

use super::*;

fn rule(host: &str, paths: &[(PathType, &str, &'static str)]) -> Rule {
    let path = |(kind, path, backend): &(PathType, &str, &'static str)| Path {
        kind: *kind,
        path: (*path).to_owned(),
        backend,
    };
    Rule {
        host: (!host.is_empty()).then(|| host.to_owned()),
        paths: paths.iter().map(path).collect(),
    }
}

fn ingress(rules: &[Rule]) -> Ingress {
    Ingress {
        rules: rules.to_vec(),
        ..Ingress::default()
    }
}

/// All that may be answered, one after the other.
fn answer(ingresses: &[Ingress], request: &Request) -> String {
    let answers: Vec<_> = Ingress::answers(ingresses, request).into_iter().collect();
    answers.join(" or ")
}

/// The table "Examples" of the documentation, row by row; `matched` is the path of the right rule.
#[test]
fn the_documentations_table_of_paths() {
    use PathType::{Exact, Prefix};
    for (paths, requests, matched) in [
        (&[(Prefix, "/")][..], &["/", "/any", "/a/b/"][..], Some(0)),
        (&[(Exact, "/foo")], &["/foo"], Some(0)),
        (&[(Exact, "/foo")], &["/bar"], None),
        (&[(Exact, "/foo")], &["/foo/"], None),
        (&[(Exact, "/foo/")], &["/foo"], None),
        (&[(Prefix, "/foo")], &["/foo", "/foo/"], Some(0)),
        (&[(Prefix, "/foo/")], &["/foo", "/foo/"], Some(0)),
        (&[(Prefix, "/aaa/bb")], &["/aaa/bbb"], None),
        (&[(Prefix, "/aaa/bbb")], &["/aaa/bbb"], Some(0)),
        (&[(Prefix, "/aaa/bbb/")], &["/aaa/bbb"], Some(0)),
        (&[(Prefix, "/aaa/bbb")], &["/aaa/bbb/"], Some(0)),
        (&[(Prefix, "/aaa/bbb")], &["/aaa/bbb/ccc"], Some(0)),
        (&[(Prefix, "/aaa/bbb")], &["/aaa/bbbxyz"], None),
        (&[(Prefix, "/"), (Prefix, "/aaa")], &["/aaa/ccc"], Some(1)),
        (
            &[(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")],
            &["/aaa/bbb"],
            Some(2),
        ),
        (
            &[(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")],
            &["/ccc"],
            Some(0),
        ),
        (&[(Prefix, "/aaa")], &["/ccc"], None),
        (&[(Prefix, "/foo"), (Exact, "/foo")], &["/foo"], Some(1)),
        // The API's own comment on Prefix.
        (&[(Prefix, "/foo/bar")], &["/foo/barbaz"], None),
        (&[(Prefix, "/foo/bar")], &["/foo/bar/baz"], Some(0)),
        (
            &[(Prefix, "/foo"), (Prefix, "/foo/")],
            &["/foo", "/foo/"],
            Some(1),
        ),
    ] {
        let names = ["one", "two", "three"];
        let named: Vec<_> = paths
            .iter()
            .zip(names)
            .map(|((kind, path), name)| (*kind, *path, name))
            .collect();
        let expected = matched.map_or_else(|| NOT_FOUND.to_owned(), |at: usize| by(names[at]));
        for path in requests {
            let seen = answer(&[ingress(&[rule("", &named)])], &Request::get("any", path));
            assert_eq!(seen, expected, "{paths:?}: {path}");
        }
    }
}

/// The table of "Hostname wildcards".
#[test]
fn the_documentations_table_of_hosts() {
    for (host, header, expected) in [
        ("*.foo.com", "bar.foo.com", "200 by one"),
        ("*.foo.com", "baz.bar.foo.com", NOT_FOUND),
        ("*.foo.com", "foo.com", NOT_FOUND),
        ("bar.foo.com", "bar.foo.com", "200 by one"),
        ("bar.foo.com", "BAR.foo.com", "200 by one"),
        ("bar.foo.com", "foo.com", NOT_FOUND),
        ("", "anything", "200 by one"),
    ] {
        let rules = [rule(host, &[(PathType::Prefix, "/", "one")])];
        let seen = answer(&[ingress(&rules)], &Request::get(header, "/"));
        assert_eq!(seen, expected, "{host}: {header}");
    }
}

/// "Name based virtual hosting": first.bar.com to service1, second.bar.com to service2, all others to
/// service3, from three Ingresses as from one.
#[test]
fn hosts_have_rules_of_their_own_and_ingresses_merge() {
    let rules = [
        rule("first.bar.com", &[(PathType::Prefix, "/", "service1")]),
        rule("second.bar.com", &[(PathType::Prefix, "/", "service2")]),
        rule("", &[(PathType::Prefix, "/", "service3")]),
    ];
    let several = rules.clone().map(|rule| ingress(&[rule]));
    for set in [&[ingress(&rules)][..], &several] {
        for (host, expected) in [
            ("first.bar.com", "200 by service1"),
            ("second.bar.com", "200 by service2"),
            ("third.bar.com", "200 by service3"),
        ] {
            assert_eq!(answer(set, &Request::get(host, "/")), expected, "{host}");
        }
    }
}

#[test]
fn a_precise_host_goes_before_a_wildcard_whatever_the_paths() {
    let set = [
        ingress(&[rule("*.foo.com", &[(PathType::Exact, "/long", "wide")])]),
        ingress(&[rule("bar.foo.com", &[(PathType::Prefix, "/", "narrow")])]),
    ];
    let at = |host, path| answer(&set, &Request::get(host, path));
    assert_eq!(at("bar.foo.com", "/long"), "200 by narrow");
    assert_eq!(at("baz.foo.com", "/long"), "200 by wide");
}

#[test]
fn what_nothing_matches_is_for_the_default_backend() {
    let some = Ingress {
        default_backend: Some("other"),
        ..ingress(&[rule("a.com", &[(PathType::Prefix, "/a", "one")])])
    };
    let at = |host, path| answer(std::slice::from_ref(&some), &Request::get(host, path));
    assert_eq!(at("a.com", "/a"), "200 by one");
    assert_eq!(at("a.com", "/b"), "200 by other");
    assert_eq!(at("b.com", "/a"), "200 by other");
}

#[test]
fn what_is_left_open_may_be_either_way() {
    use PathType::{Exact, Prefix};
    let one = |paths| {
        answer(
            &[ingress(&[rule("a.com", paths)])],
            &Request::get("a.com", "/foo"),
        )
    };
    let twice = one(&[(Prefix, "/foo", "one"), (Prefix, "/foo", "two")]);
    assert_eq!(twice, "200 by one or 200 by two");
    let by_a_slash = one(&[(Prefix, "/foo/", "one"), (Exact, "/foo", "two")]);
    assert_eq!(by_a_slash, "200 by one or 200 by two");
    let wider = [ingress(&[
        rule("a.com", &[(Prefix, "/a", "narrow")]),
        rule("", &[(Prefix, "/", "wide")]),
    ])];
    assert_eq!(
        answer(&wider, &Request::get("a.com", "/b")),
        "200 by wide or 404"
    );
    let encoded = answer(
        &[ingress(&[rule("a.com", &[(Exact, "/a", "one")])])],
        &Request::get("a.com", "/%61"),
    );
    assert_eq!(encoded, "200 by one or 404");
}

#[test]
fn a_manifest_is_read_as_it_was_meant() {
    let made = ingress(&[
        rule(
            "*.a.com",
            &[
                (PathType::Exact, "/a%20b", "one"),
                (PathType::Prefix, "/", "two"),
            ],
        ),
        rule("", &[(PathType::Prefix, "/~c", "two")]),
    ]);
    let made = Ingress {
        name: "a-1".into(),
        default_backend: Some("three"),
        ..made
    };
    let read: k8s_openapi::api::networking::v1::Ingress =
        serde_yaml::from_str(&made.yaml()).unwrap();
    assert_eq!(read.metadata.name.as_deref(), Some("a-1"));
    let spec = read.spec.unwrap();
    let rules = spec.rules.unwrap();
    assert_eq!(rules[0].host.as_deref(), Some("*.a.com"));
    assert_eq!(rules[1].host, None);
    let paths = &rules[0].http.as_ref().unwrap().paths;
    assert_eq!(paths[0].path.as_deref(), Some("/a%20b"));
    assert_eq!(paths[0].path_type, "Exact");
    assert_eq!(paths[1].path_type, "Prefix");
    assert_eq!(paths[1].backend.service.as_ref().unwrap().name, "two");
    assert_eq!(spec.default_backend.unwrap().service.unwrap().name, "three");
}
