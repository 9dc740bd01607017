//! Asking a vantage to send traffic.
//!
//! Start from [`Vantage`]. Questions and answers go over the API's `exec` (or, outside the cluster,
//! over the provider), never through the network that is judged; what the network did is in the
//! typed replies of [`strata_probe`]. Judging them is `verdict`'s work. Rule: an error here says
//! that we could not ask, and why, never that the network failed.

mod answers;
mod exec;
mod transcript;
mod vantage;

pub use answers::Answers;
pub(crate) use answers::failure;
pub use transcript::Transcript;
pub use vantage::Vantage;
