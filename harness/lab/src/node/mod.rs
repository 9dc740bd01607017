//! Nodes and pods: sandboxes, containers, images, exec, logs, readiness.

pub mod builtin;
pub mod images;
pub mod process;
pub mod rootfs;
pub mod sandbox;
mod spawn;
pub mod stage;
