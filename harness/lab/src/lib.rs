//! Mininet for Kubernetes: a rootless cluster in one process.
//!
//! Start from [`boot::start`], which a program that embeds the lab calls from outside it; such a
//! program's `main` calls [`boot::init`] before anything else. Inside, `api` is the API server,
//! `controllers`, `node`, `net` and `l7` are its clients and know each other only through objects.
//! The lab knows nothing of suites, checks or verdicts. Rule: what a real cluster would refuse, the
//! lab refuses too, with the same words.
//!
//! ```text
//! boot ──► node ──► net ──┐
//!   ├────► l7 ──► xds ────┴─► builtin ──► api, os
//!   └────► controllers ─────────────────► api          (topology and watch are everyone's)
//! ```
//!
//! All but `boot` talk to `api` through a `kube::Client`; `scripts/rooms` counts the lines and the arrows.
//! `api`, `os`, `watch` and `xds` are crates of their own: the API server is what everything waits for, `watch` reads every
//! object for each who watches it, and xDS puts each change into its form for a hundred proxies, so these are compiled with
//! optimisation in every profile.

pub mod boot;
pub mod builtin;
pub mod controllers;
mod event;
pub mod l7;
pub mod net;
pub mod node;
#[cfg(test)]
mod testing;
pub mod topology;
mod world;

pub use strata_api as api;
pub use strata_istio as istio;
pub use strata_os as os;
pub use strata_watch as watch;
pub use strata_xds as xds;
