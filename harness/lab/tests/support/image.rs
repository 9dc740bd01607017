//! An image to load, made of what every host has.

use std::process::Command;

use serde_json::json;

/// An archive of an image whose only program is the host's shell, `/bash`, as `docker save` writes
/// it.
pub(crate) fn shell(name: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let listed = Command::new("ldd").arg("/bin/bash").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for (from, to) in libraries
        .map(|path| (path, path))
        .chain([("/bin/bash", "/bash")])
    {
        let file = std::fs::canonicalize(from).unwrap();
        layer
            .append_path_with_name(file, to.trim_start_matches('/'))
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("manifest.json", manifest.to_string().into_bytes()),
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

/// The host's architecture in the words of image configurations.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
