//! `RequestAuthentication` (security.istio.io): whose tokens are believed.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::WorkloadSelector;

/// Which tokens workloads believe.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "RequestAuthentication",
    namespaced,
    shortname = "ra",
    category = "istio-io"
)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthenticationSpec {
    /// The workloads; all of the namespace unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// The issuers that are believed. A token that none of them gave is refused; a request without one is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_rules: Option<Vec<JwtRule>>,
}

/// An issuer, its keys, and where its tokens are and go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtRule {
    /// Claim `iss`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// Claim `aud` must have one of these; any unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub audiences: Option<Vec<String>>,
    /// Its public keys, a JSON Web Key Set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Where they are fetched instead: from a Service, in plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://.+$"))]
    pub jwks_uri: Option<String>,
    /// Headers that a token may be in, instead of `Authorization: Bearer` and parameter `access_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_headers: Option<Vec<JwtHeader>>,
    /// Query parameters that a token may be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub from_params: Option<Vec<String>>,
    /// Cookies that a token may be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub from_cookies: Option<Vec<String>>,
    /// The header in which the server is told the token's payload, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_payload_to_header: Option<String>,
    /// Headers in which the server is told claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_claim_to_headers: Option<Vec<ClaimToHeader>>,
    /// Whether the server is given the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_original_token: Option<bool>,
}

/// A header with a token in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JwtHeader {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What stands before the token, a space at its end included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A claim, and the header that tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimToHeader {
    /// The header.
    #[schemars(regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub header: String,
    /// The claim, with dots between the names of nested ones.
    #[schemars(length(min = 1))]
    pub claim: String,
}
