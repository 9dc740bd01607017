//! Nodes and pods: sandboxes, containers, images, exec, logs, readiness.

pub mod builtin;
