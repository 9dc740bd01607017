//! The API server as its clients see it, in this process.

mod apply;
mod basics;
mod families;
pub(crate) mod fixture;
mod kubectl;
mod streams;
