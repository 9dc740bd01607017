//! EndpointSlices, and the Endpoints of old, of Services with a selector.
//!
//! Start from [`slices`] and [`legacy`], which write what [`backends`] finds: the pods behind a
//! Service, their state and their ports. Services without a selector are left to whoever gives them
//! endpoints; where that is by Endpoints, [`mirror`] makes EndpointSlices of them.

mod backends;
mod legacy;
mod mirror;
mod slices;
#[cfg(test)]
mod tests;

pub(super) use self::legacy::run as run_legacy;
pub(super) use self::mirror::run as run_mirror;
pub(super) use self::slices::run as run_slices;
