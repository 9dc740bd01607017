//! Stub: the `suites` part owns this folder.
