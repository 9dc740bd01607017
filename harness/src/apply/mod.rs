//! Manifests: read, checked before any cluster exists, and applied.
