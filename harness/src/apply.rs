//! Stub: the `suites` part owns this file.
