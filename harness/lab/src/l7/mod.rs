//! Ingress, mesh and Gateway, translated to Envoy configuration.
