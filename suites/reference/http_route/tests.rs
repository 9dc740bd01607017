//! The specification's own examples, and each line of its order of precedence.

use super::*;

fn exact(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Exact(path.to_owned()))
}

fn prefix(path: &str) -> Option<PathMatch> {
    Some(PathMatch::PathPrefix(path.to_owned()))
}

fn regex(path: &str) -> Option<PathMatch> {
    Some(PathMatch::RegularExpression(path.to_owned()))
}

fn at(path: Option<PathMatch>) -> Match {
    Match {
        path,
        ..Match::default()
    }
}

fn rule(backend: &'static str, matches: &[Match]) -> Rule {
    let matches = matches.to_vec();
    Rule { matches, backend }
}

fn route(hostnames: &[&str], rules: &[Rule]) -> HttpRoute {
    HttpRoute {
        hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
        rules: rules.to_vec(),
        ..HttpRoute::default()
    }
}

fn header(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

/// All that may be answered, one after the other.
fn answer(routes: &[HttpRoute], request: &Request) -> String {
    let answers: Vec<_> = HttpRoute::answers(routes, request).into_iter().collect();
    answers.join(" or ")
}

/// Who answers when of two rules, in either order, both match: one of them always.
fn winner(one: &Match, two: &Match, request: &Request) -> String {
    let (one, two) = (
        rule("one", std::slice::from_ref(one)),
        rule("two", std::slice::from_ref(two)),
    );
    let forth = answer(&[route(&[], &[one.clone(), two.clone()])], request);
    let back = answer(&[route(&[], &[two, one])], request);
    assert_eq!(forth, back);
    forth
}

#[test]
fn paths_match_as_the_fields_text_says() {
    for (path, request, expected) in [
        (exact("/abc"), "/abc", true),
        (exact("/abc"), "/abc/", false),
        (exact("/abc"), "/Abc", false),
        (exact("/abc"), "/abcd", false),
        (prefix("/abc"), "/abc", true),
        (prefix("/abc"), "/abc/", true),
        (prefix("/abc"), "/abc/def", true),
        (prefix("/abc"), "/abcd", false),
        (prefix("/abc/"), "/abc", true),
        (None, "/anything", true),
        (regex("/a"), "/a", true),
        (regex("/a|/b"), "/b", true),
        (regex("/A"), "/a", false),
    ] {
        let request = Request::get("any", request);
        let routes = [route(&[], &[rule("one", &[at(path.clone())])])];
        let expected = if expected { "200 by one" } else { NOT_FOUND };
        assert_eq!(answer(&routes, &request), expected, "{path:?} {request:?}");
    }
}

/// "Implementations can decide" what of a path an expression is of.
#[test]
fn a_regular_expression_may_be_of_a_part_of_the_path() {
    for (path, request) in [("/a", "/ab"), ("a", "/a"), ("/a|/b", "/bc")] {
        let routes = [route(&[], &[rule("one", &[at(regex(path))])])];
        let answers = HttpRoute::answers(&routes, &Request::get("any", request));
        let either = [NOT_FOUND, "200 by one"].map(str::to_owned);
        assert_eq!(answers, either.into(), "{path} {request}");
    }
}

/// The examples of `hostnames`, and what a wildcard covers.
#[test]
fn hostnames_match_as_the_fields_text_says() {
    for (hostname, host, expected) in [
        ("*.example.com", "test.example.com", true),
        ("*.example.com", "foo.test.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "testexample.com", false),
        ("test.example.com", "test.example.com", true),
        ("test.example.com", "TEST.example.com", true),
        ("test.example.com", "foo.test.example.com", false),
    ] {
        let routes = [route(&[hostname], &[rule("one", &[])])];
        let with_port = Request {
            port: Some(8080),
            ..Request::get(host, "/")
        };
        let expected = if expected { "200 by one" } else { NOT_FOUND };
        for request in [Request::get(host, "/"), with_port] {
            assert_eq!(answer(&routes, &request), expected, "{hostname} {host}");
        }
    }
}

/// The example of `matches`: "path prefixed with `/foo` AND contains the header `version: v2`", "EITHER"
/// "path prefix of `/v2/foo`".
#[test]
fn any_match_is_enough_and_all_of_its_conditions_are_needed() {
    let matches = [
        Match {
            headers: vec![header("version", "v2")],
            ..at(prefix("/foo"))
        },
        at(prefix("/v2/foo")),
    ];
    let routes = [route(&[], &[rule("one", &matches)])];
    for (path, headers, expected) in [
        ("/foo", vec![header("Version", "v2")], "200 by one"),
        ("/foo", vec![header("version", "V2")], NOT_FOUND),
        ("/foo", vec![], NOT_FOUND),
        ("/v2/foo", vec![], "200 by one"),
        ("/bar", vec![header("version", "v2")], NOT_FOUND),
    ] {
        let request = Request {
            headers,
            ..Request::get("any", path)
        };
        assert_eq!(answer(&routes, &request), expected, "{request:?}");
    }
}

#[test]
fn methods_and_query_parameters_match_by_value() {
    let matched = Match {
        method: Some("POST"),
        query: vec![("v", "1"), ("w", "2")],
        ..Match::default()
    };
    let routes = [route(&[], &[rule("one", &[matched])])];
    for (method, query, expected) in [
        (
            "POST",
            vec![("w", "2"), ("v", "1"), ("x", "3")],
            "200 by one",
        ),
        ("GET", vec![("v", "1"), ("w", "2")], NOT_FOUND),
        ("POST", vec![("v", "1")], NOT_FOUND),
        ("POST", vec![("V", "1"), ("w", "2")], NOT_FOUND),
        ("POST", vec![("v", "12"), ("w", "2")], NOT_FOUND),
    ] {
        let request = Request {
            method,
            query,
            ..Request::get("any", "/")
        };
        assert_eq!(answer(&routes, &request), expected, "{request:?}");
    }
}

/// Each criterion, against all that come after it.
#[test]
fn precedence_within_a_route_is_in_the_order_of_the_text() {
    let request = Request {
        query: vec![("v", "1"), ("w", "2")],
        headers: vec![header("x-one", "1"), header("x-two", "2")],
        ..Request::get("any", "/a/b")
    };
    let rest = Match {
        path: prefix("/a"),
        method: Some("GET"),
        headers: request.headers.clone(),
        query: request.query.clone(),
    };
    let method = Match {
        method: Some("GET"),
        ..at(prefix("/a"))
    };
    let headers = |count: usize| Match {
        headers: request.headers[..count].to_vec(),
        ..at(prefix("/a"))
    };
    let parameters = |count: usize| Match {
        query: request.query[..count].to_vec(),
        ..at(prefix("/a"))
    };
    let unmethodical = Match {
        method: None,
        ..rest.clone()
    };
    let headless = Match {
        headers: vec![],
        ..unmethodical.clone()
    };
    for (one, two) in [
        (at(exact("/a/b")), rest.clone()),
        (at(exact("/a/b")), at(prefix("/a/b"))),
        (at(prefix("/a/b")), rest),
        (method, unmethodical),
        (headers(1), headless),
        (headers(2), headers(1)),
        (parameters(2), parameters(1)),
        (parameters(1), at(prefix("/a"))),
    ] {
        let seen = winner(&one, &two, &request);
        assert_eq!(seen, "200 by one", "{one:?} {two:?}");
    }
}

#[test]
fn ties_go_to_the_older_route_then_by_name_then_to_the_first_rule() {
    let routes = |one: (&str, &str, &str), two: (&str, &str, &str)| {
        [("one", one), ("two", two)].map(|(backend, (created, namespace, name))| HttpRoute {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            created: created.to_owned(),
            ..route(&[], &[rule(backend, &[])])
        })
    };
    let (older, younger) = ("2020-09-08T01:02:03Z", "2020-09-08T01:02:04Z");
    for (one, two) in [
        ((older, "foo", "b"), (younger, "foo", "a")),
        ((older, "foo", "bar"), (older, "foo", "baz")),
        ((older, "bar", "z"), (older, "foo", "a")),
    ] {
        let mut set = routes(one, two).to_vec();
        for _ in 0..2 {
            assert_eq!(answer(&set, &Request::get("any", "/")), "200 by one");
            set.reverse();
        }
    }
    let rules = [rule("one", &[]), rule("two", &[])];
    let within = answer(&[route(&[], &rules)], &Request::get("any", "/"));
    assert_eq!(within, "200 by one");
}

#[test]
fn a_more_specific_hostname_goes_before_everything_else() {
    let narrow = |hostnames: &[&str]| route(hostnames, &[rule("one", &[at(prefix("/"))])]);
    let wide = |hostnames: &[&str]| route(hostnames, &[rule("two", &[at(exact("/a"))])]);
    for (one, two) in [
        (&["a.b.com"][..], &["*.b.com"][..]),
        (&["*.b.com"], &["*.com"]),
        (&["*.com"], &[]),
        (&["a.b.com", "*.com"], &["*.b.com"]),
    ] {
        let seen = answer(&[wide(two), narrow(one)], &Request::get("a.b.com", "/a"));
        assert_eq!(seen, "200 by one", "{one:?} {two:?}");
    }
}

#[test]
fn what_is_left_open_may_be_either_way() {
    let get = |path| Request::get("any", path);
    let either = "200 by one or 200 by two";
    assert_eq!(
        winner(&at(regex("/a.*")), &at(exact("/a")), &get("/a")),
        either
    );
    assert_eq!(
        winner(&at(regex("/a.*")), &at(prefix("/")), &get("/a")),
        either
    );
    assert_eq!(
        winner(&at(regex("/a.*")), &at(regex("/.*")), &get("/a")),
        either
    );
    assert_eq!(
        winner(&at(prefix("/a/")), &at(prefix("/a")), &get("/a")),
        either
    );
    let same = Match {
        method: Some("GET"),
        ..at(regex("/a.*"))
    };
    assert_eq!(winner(&same, &at(regex("/a.*")), &get("/a")), "200 by one");
    let routes = [
        route(&["a.com"], &[rule("one", &[at(prefix("/a"))])]),
        route(&["*.com"], &[rule("two", &[])]),
    ];
    let wider = answer(&routes, &Request::get("a.com", "/b"));
    assert_eq!(wider, "200 by two or 404");
}

#[test]
fn a_manifest_is_read_as_it_was_meant() {
    let one = Match {
        method: Some("POST"),
        headers: vec![header("x-one", "1")],
        query: vec![("v", "a"), ("w", "b")],
        ..at(regex("/a.*"))
    };
    let rules = [rule("alpha", &[one, at(exact("/b"))]), rule("beta", &[])];
    let made = HttpRoute {
        name: "a-1".into(),
        ..route(&["*.a.com", "b.com"], &rules)
    };
    let read: gateway_api::httproutes::HttpRoute = serde_yaml::from_str(&made.yaml()).unwrap();
    assert_eq!(read.spec.hostnames.unwrap(), ["*.a.com", "b.com"]);
    let rules = read.spec.rules.unwrap();
    let matches = rules[0].matches.as_ref().unwrap();
    let path = matches[0].path.as_ref().unwrap();
    assert_eq!(path.value.as_deref(), Some("/a.*"));
    assert_eq!(format!("{:?}", path.r#type), "Some(RegularExpression)");
    assert_eq!(format!("{:?}", matches[0].method), "Some(Post)");
    let headers = matches[0].headers.as_ref().unwrap();
    assert_eq!(
        (headers[0].name.as_str(), headers[0].value.as_str()),
        ("x-one", "1")
    );
    let query = matches[0].query_params.as_ref().unwrap();
    assert_eq!(
        (query[1].name.as_str(), query[1].value.as_str()),
        ("w", "b")
    );
    assert!(rules[1].matches.is_none());
    assert_eq!(rules[1].backend_refs.as_ref().unwrap()[0].name, "beta");
}
