//! The API server: one object store, one request path, one table with a row a kind.

pub mod kubelet;
pub mod webhook;
