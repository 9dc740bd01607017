//! What providers share whose nodes are containers: the engine that runs them, the vantage outside beside them,
//! and what their clusters lack and are given.
//!
//! Start from [`Engine`]. Rule: nothing here knows which project's nodes they are.

mod engine;
mod labelled;
mod nodes;
mod outside;
mod parts;

pub(super) use engine::Engine;
pub(super) use labelled::{labelled, remove_labelled};
pub(super) use nodes::all_ready;
#[cfg(test)]
pub(super) use outside::subnets;
pub(super) use outside::{Beside, remove_beside};
pub(super) use parts::Parts;
