//! Links what starts itself again at a fixed address.
//!
//! Every command in a pod, every container and every sandbox is this program once more (`node::stage`).
//! Were it position-independent, the loader would first put several hundred thousand addresses right
//! each time, and so copy the pages that they are in.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-no-pie");
}
