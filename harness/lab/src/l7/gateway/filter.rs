//! Filters of rules and of backends.
//!
//! Start from [`of_rule`] and [`of_backend`]. What becomes of both is [`super::share`]'s to say.

use gateway_api::experimental::httproutes::{
    HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesFilters, HttpRouteRulesFiltersCors,
    HttpRouteRulesFiltersRequestMirror, HttpRouteRulesFiltersRequestMirrorBackendRef,
    HttpRouteRulesFiltersRequestRedirect, HttpRouteRulesFiltersRequestRedirectPathType,
    HttpRouteRulesFiltersRequestRedirectScheme, HttpRouteRulesFiltersType,
    HttpRouteRulesFiltersUrlRewrite, HttpRouteRulesFiltersUrlRewritePathType,
};
use serde_json::{Value, json};

use super::input::Problem;
use super::listener::Protocol;
use crate::l7::envoy::route::{HeaderChanges, PathRewrite, Redirect};
use crate::l7::envoy::typed;

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The listener's port, as clients know it.
    pub(super) port: u16,
    /// What the listener speaks.
    pub(super) protocol: Protocol,
    /// Whether TLS ended there.
    pub(super) ends_tls: bool,
}

/// What filters come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    pub(super) changes: HeaderChanges,
    pub(super) redirect: Option<HttpRouteRulesFiltersRequestRedirect>,
    pub(super) host_rewrite: Option<String>,
    pub(super) path_rewrite: Option<PathRewrite>,
    /// Who gets copies, and of how many requests in ten thousand.
    pub(super) mirrors: Vec<(HttpRouteRulesFiltersRequestMirrorBackendRef, u32)>,
    /// `typed_per_filter_config` of CORS.
    pub(super) cors: Option<Value>,
    /// A reference to a filter that we do not know.
    pub(super) unknown: Option<Problem>,
}

impl Filters {
    /// Whether what becomes of a path depends on the prefix that matched.
    pub(super) fn replaces_prefix(&self) -> bool {
        let redirect = self
            .redirect
            .as_ref()
            .and_then(|redirect| redirect.path.as_ref());
        matches!(self.path_rewrite, Some(PathRewrite::Prefix(_)))
            || redirect.is_some_and(|path| {
                path.r#type == HttpRouteRulesFiltersRequestRedirectPathType::ReplacePrefixMatch
            })
    }
}

impl Filters {
    /// Whether some are what Envoy does for whole routes only.
    pub(super) fn are_of_a_route(&self) -> bool {
        self.redirect.is_some()
            || self.path_rewrite.is_some()
            || !self.mirrors.is_empty()
            || self.cors.is_some()
    }

    /// These, and then those of a backend.
    pub(super) fn and(&self, backends: &Self) -> Self {
        let mut both = self.clone();
        // What changes headers for a share stays with the share.
        both.redirect = backends.redirect.clone().or(both.redirect);
        both.path_rewrite = backends.path_rewrite.clone().or(both.path_rewrite);
        both.mirrors.extend(backends.mirrors.iter().cloned());
        both.cors = backends.cors.clone().or(both.cors);
        both
    }
}

fn unsupported(message: impl Into<String>) -> Problem {
    Problem::new("UnsupportedValue", message)
}

/// The filters of a rule.
pub(super) fn of_rule(rule: &HttpRouteRules) -> Result<Filters, Problem> {
    let filters = collect(rule.filters.iter().flatten())?;
    let rewrites = filters.host_rewrite.is_some() || filters.path_rewrite.is_some();
    if filters.redirect.is_some() && rewrites {
        let message = "filters RequestRedirect and URLRewrite exclude each other";
        return Err(Problem::new("IncompatibleFilters", message));
    }
    if filters.redirect.is_some()
        && rule
            .backend_refs
            .as_ref()
            .is_some_and(|all| !all.is_empty())
    {
        let message = "filter RequestRedirect answers: it goes with no backendRefs";
        return Err(Problem::new("IncompatibleFilters", message));
    }
    Ok(filters)
}

/// The filters of a backend.
pub(super) fn of_backend(backend: &HttpRouteRulesBackendRefs) -> Result<Filters, Problem> {
    // The two lists have one type in the specification, and two in the crate.
    let filters: Vec<HttpRouteRulesFilters> = backend
        .filters
        .iter()
        .flatten()
        .map(|filter| serde_json::from_value(serde_json::to_value(filter)?))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(|error| unsupported(error.to_string()))?;
    collect(&filters)
}

fn collect<'a>(
    filters: impl IntoIterator<Item = &'a HttpRouteRulesFilters>,
) -> Result<Filters, Problem> {
    let mut found = Filters::default();
    for filter in filters {
        let empty = |name: &str| unsupported(format!("filter {name} has no {name}"));
        match filter.r#type {
            HttpRouteRulesFiltersType::RequestHeaderModifier => {
                let modifier = filter.request_header_modifier.clone();
                let modifier = modifier.ok_or_else(|| empty("requestHeaderModifier"))?;
                for header in modifier.set.into_iter().flatten() {
                    // Envoy has its own words for this header, and refuses it among the others.
                    if header.name.eq_ignore_ascii_case("host") {
                        found.host_rewrite = Some(header.value);
                        continue;
                    }
                    found
                        .changes
                        .request
                        .push(changed(header.name, header.value, false)?);
                }
                for header in modifier.add.into_iter().flatten() {
                    found
                        .changes
                        .request
                        .push(changed(header.name, header.value, true)?);
                }
                for name in modifier.remove.into_iter().flatten() {
                    found.changes.request_remove.push(removed(name)?);
                }
            }
            HttpRouteRulesFiltersType::ResponseHeaderModifier => {
                let modifier = filter.response_header_modifier.clone();
                let modifier = modifier.ok_or_else(|| empty("responseHeaderModifier"))?;
                for header in modifier.set.into_iter().flatten() {
                    found
                        .changes
                        .response
                        .push(changed(header.name, header.value, false)?);
                }
                for header in modifier.add.into_iter().flatten() {
                    found
                        .changes
                        .response
                        .push(changed(header.name, header.value, true)?);
                }
                for name in modifier.remove.into_iter().flatten() {
                    found.changes.response_remove.push(removed(name)?);
                }
            }
            HttpRouteRulesFiltersType::RequestMirror => {
                let mirror = filter.request_mirror.as_ref();
                let mirror = mirror.ok_or_else(|| empty("requestMirror"))?;
                let share = share(mirror)?;
                found.mirrors.push((mirror.backend_ref.clone(), share));
            }
            HttpRouteRulesFiltersType::RequestRedirect => {
                let redirect = filter.request_redirect.clone();
                found.redirect = Some(redirect.ok_or_else(|| empty("requestRedirect"))?);
            }
            HttpRouteRulesFiltersType::UrlRewrite => {
                let rewrite = filter.url_rewrite.as_ref();
                let rewrite = rewrite.ok_or_else(|| empty("urlRewrite"))?;
                found.path_rewrite = path_rewrite(rewrite);
                if rewrite.hostname.is_some() {
                    found.host_rewrite.clone_from(&rewrite.hostname);
                }
            }
            HttpRouteRulesFiltersType::Cors => {
                found.cors = Some(cors(filter.cors.as_ref().ok_or_else(|| empty("cors"))?)?);
            }
            HttpRouteRulesFiltersType::ExternalAuth => {
                return Err(unsupported("filter ExternalAuth is not done here"));
            }
            HttpRouteRulesFiltersType::ExtensionRef => {
                let reference = filter.extension_ref.clone().unwrap_or_default();
                let message = format!(
                    "filter ExtensionRef: {}/{} {} is no kind of filter here",
                    reference.group, reference.kind, reference.name
                );
                found.unknown = Some(Problem::new("InvalidKind", message));
            }
        }
    }
    Ok(found)
}

fn removed(name: String) -> Result<String, Problem> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(unsupported(format!("header {name:?} cannot be removed")));
    }
    Ok(name)
}

fn changed(name: String, value: String, add: bool) -> Result<(String, String, bool), Problem> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(unsupported(format!(
            "header {name:?} can only be set, on a request"
        )));
    }
    if http::HeaderName::try_from(&name).is_err() || http::HeaderValue::try_from(&value).is_err() {
        return Err(unsupported(format!(
            "header {name:?}: {value:?} is no header"
        )));
    }
    Ok((name, value, add))
}

fn share(mirror: &HttpRouteRulesFiltersRequestMirror) -> Result<u32, Problem> {
    const WHOLE: i64 = 10_000;
    let share = match (&mirror.percent, &mirror.fraction) {
        (Some(_), Some(_)) => {
            return Err(unsupported(
                "filter RequestMirror: percent or fraction, not both",
            ));
        }
        (Some(percent), None) => i64::from(*percent) * (WHOLE / 100),
        (None, Some(fraction)) => {
            let whole = i64::from(fraction.denominator.unwrap_or(100)).max(1);
            (i64::from(fraction.numerator) * WHOLE + whole / 2) / whole
        }
        (None, None) => WHOLE,
    };
    u32::try_from(share.clamp(0, WHOLE)).map_err(|error| unsupported(error.to_string()))
}

fn path_rewrite(rewrite: &HttpRouteRulesFiltersUrlRewrite) -> Option<PathRewrite> {
    let path = rewrite.path.as_ref()?;
    Some(match path.r#type {
        HttpRouteRulesFiltersUrlRewritePathType::ReplaceFullPath => {
            PathRewrite::Full(path.replace_full_path.clone().unwrap_or_default())
        }
        HttpRouteRulesFiltersUrlRewritePathType::ReplacePrefixMatch => {
            PathRewrite::Prefix(path.replace_prefix_match.clone().unwrap_or_default())
        }
    })
}

/// Where a redirect leads. "If no port is specified, the redirect port MUST be derived using the
/// following rules": the well-known port of the new scheme, if there is one, else the listener's.
///
/// | scheme | port | listener | Location |
/// | --- | --- | --- | --- |
/// | - | - | HTTP 80 | `http://host/` |
/// | - | - | HTTP 8080 | `http://host:8080/` |
/// | https | - | HTTP 80 | `https://host/` |
/// | https | - | HTTP 8080 | `https://host:443/`: Envoy would else keep the request's port |
/// | https | 8443 | any | `https://host:8443/` |
/// | - | 80 | HTTP 8080 | `http://host:80/`, for the same reason |
/// | - | 8083 | any | `http://host:8083/` |
pub(super) fn redirect(asked: &HttpRouteRulesFiltersRequestRedirect, place: Place) -> Redirect {
    let scheme = asked.scheme.as_ref().map(|scheme| match scheme {
        HttpRouteRulesFiltersRequestRedirectScheme::Http => "http",
        HttpRouteRulesFiltersRequestRedirectScheme::Https => "https",
    });
    let own = match place.protocol {
        Protocol::Http | Protocol::Tcp | Protocol::Udp => "http",
        Protocol::Https | Protocol::Tls => "https",
    };
    let standard = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let last = scheme.unwrap_or(own);
    let named = asked.port.and_then(|port| u16::try_from(port).ok());
    let port = named.unwrap_or(match scheme {
        Some(scheme) => standard(scheme),
        None => place.port,
    });
    // Envoy leaves the port of the request's host as it is, but for a standard one where the scheme
    // changes; a client of a standard port names none.
    let left_out =
        port == standard(last) && (asked.hostname.is_some() || place.port == standard(own));
    let path = asked.path.as_ref().map(|path| match path.r#type {
        HttpRouteRulesFiltersRequestRedirectPathType::ReplaceFullPath => {
            PathRewrite::Full(path.replace_full_path.clone().unwrap_or_default())
        }
        HttpRouteRulesFiltersRequestRedirectPathType::ReplacePrefixMatch => {
            PathRewrite::Prefix(path.replace_prefix_match.clone().unwrap_or_default())
        }
    });
    Redirect {
        scheme: scheme.map(str::to_owned),
        host: asked.hostname.clone(),
        port: (!left_out).then_some(port),
        path,
        status: asked
            .status_code
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(302),
    }
}

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`
fn cors(asked: &HttpRouteRulesFiltersCors) -> Result<Value, Problem> {
    let origins = asked.allow_origins.iter().flatten().map(|origin| {
        if origin.contains('*') {
            let pattern = regex::escape(origin).replace(r"\*", ".*");
            json!({ "safe_regex": { "regex": pattern } })
        } else {
            json!({ "exact": origin })
        }
    });
    let joined = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join(",");
    let age = asked.max_age.unwrap_or(5);
    let policy = json!({
        "allow_origin_string_match": origins.collect::<Vec<_>>(),
        "allow_methods": joined(&asked.allow_methods),
        "allow_headers": joined(&asked.allow_headers),
        "expose_headers": joined(&asked.expose_headers),
        "max_age": age.to_string(),
        "allow_credentials": asked.allow_credentials.unwrap_or_default(),
    });
    let kind = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    Ok(json!({ "envoy.filters.http.cors": typed(kind, policy) }))
}
