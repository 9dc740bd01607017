//! What differs, with one thing less.
//!
//! Start from [`smaller`]. Which of them still differs is for the cluster to show.

use super::{Request, Routes};

/// Routes, and requests that are sent to them; neither has a place yet.
#[derive(Debug, Clone)]
pub(super) struct Case<R> {
    pub(super) routes: Vec<R>,
    pub(super) requests: Vec<Request>,
}

impl<R: Routes> Case<R> {
    /// How much there is to read.
    pub(super) fn size(&self) -> usize {
        let routes = self.routes.iter().map(|route| route.yaml().len());
        let requests = self.requests.iter().map(|request| request.curl("").len());
        routes.chain(requests).sum()
    }
}

/// A case with one thing less, in every way.
pub(super) fn smaller<R: Routes>(case: &Case<R>) -> Vec<Case<R>> {
    let fewer = without_one(&case.routes).filter(|routes| !routes.is_empty());
    let less = each_smaller(&case.routes, R::smaller);
    let routes = fewer.chain(less).map(|routes| Case {
        routes,
        requests: case.requests.clone(),
    });
    let requests = each_smaller(&case.requests, Request::smaller).map(|requests| Case {
        routes: case.routes.clone(),
        requests,
    });
    routes.chain(requests).collect()
}

/// A list without one of its items, for each of them.
pub(super) fn without_one<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..list.len()).map(|left_out| {
        let kept = list.iter().enumerate().filter(|(at, _)| *at != left_out);
        kept.map(|(_, item)| item.clone()).collect()
    })
}

/// A list with one of its items smaller, for each item and way.
pub(super) fn each_smaller<T: Clone>(
    list: &[T],
    smaller: impl Fn(&T) -> Vec<T>,
) -> impl Iterator<Item = Vec<T>> {
    list.iter().enumerate().flat_map(move |(at, item)| {
        let with = |item| {
            let mut list = list.to_vec();
            list.splice(at..=at, [item]);
            list
        };
        smaller(item).into_iter().map(with).collect::<Vec<_>>()
    })
}

impl Request {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        let mut say = |request: Self| {
            if request != *self {
                smaller.push(request);
            }
        };
        say(Self {
            method: "GET",
            ..self.clone()
        });
        say(Self {
            port: None,
            ..self.clone()
        });
        say(Self {
            host: self.hostname(),
            ..self.clone()
        });
        if let Some((shorter, _)) = self.path.rsplit_once('/') {
            let path = if shorter.is_empty() { "/" } else { shorter };
            say(Self {
                path: path.to_owned(),
                ..self.clone()
            });
        }
        for headers in without_one(&self.headers) {
            say(Self {
                headers,
                ..self.clone()
            });
        }
        for query in without_one(&self.query) {
            say(Self {
                query,
                ..self.clone()
            });
        }
        smaller
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::draw::{self, Dice};
    use super::super::{HttpRoute, Ingress};
    use super::*;

    /// Greedily, as against a cluster; `differs` stands for one.
    fn least<R: Routes>(mut case: Case<R>, differs: impl Fn(&Case<R>) -> bool) -> Case<R> {
        loop {
            let found = smaller(&case).into_iter().filter(&differs);
            match found.min_by_key(Case::size) {
                Some(next) => case = next,
                None => return case,
            }
        }
    }

    #[test]
    fn a_case_shrinks_to_what_it_is_about() {
        let mut dice = Dice::new(7);
        for _ in 0..20 {
            let case: Case<HttpRoute> = Case {
                routes: draw::http_routes(&mut dice),
                requests: draw::requests::<HttpRoute>(&mut dice, &[], 1),
            };
            let shrunk = least(case.clone(), |_| true);
            assert_eq!(shrunk.routes.len(), 1);
            let route = &shrunk.routes[0];
            assert_eq!((route.hostnames.len(), route.rules.len()), (1, 1));
            assert!(route.rules[0].matches.is_empty(), "{route:?}");
            let request = &shrunk.requests[0];
            assert_eq!((request.method, request.path.as_str()), ("GET", "/"));
            assert!(request.headers.is_empty() && request.query.is_empty());
        }
    }

    #[test]
    fn what_a_difference_stands_on_stays() {
        let mut dice = Dice::new(7);
        let case: Case<Ingress> = Case {
            routes: draw::ingresses(&mut dice),
            requests: draw::requests::<Ingress>(&mut dice, &[], 1),
        };
        let paths = |case: &Case<Ingress>| -> BTreeSet<String> {
            let paths = case.routes.iter().flat_map(Routes::paths);
            paths.map(str::to_owned).collect()
        };
        let wanted = paths(&case).into_iter().next().unwrap();
        let shrunk = least(case, |case| paths(case).contains(&wanted));
        assert_eq!(paths(&shrunk), [wanted].into());
    }
}
