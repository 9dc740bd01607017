//! The API server as its clients see it, in this process.

mod apply;
pub(crate) mod basics;
mod kubectl;
mod streams;
