//! OCI images of one static program, such as the probe's, made without Docker.
//!
//! Start from [`archive`]; [`Image`] makes others. One tar file is both an OCI image layout and what `docker load` reads,
//! so every runtime takes it. Rule: the same binary gives the same bytes, always: no time, no
//! owner, no order left to chance.

use std::collections::HashMap;

use oci_spec::OciSpecError;
use oci_spec::image::{
    Arch, Config, ConfigBuilder, Descriptor, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::BINARY;

/// The image's reference.
pub const REFERENCE: &str = "strata.dev/probe:v1";

/// Nobody in particular, and not root: by number, so that a kubelet can tell (`runAsNonRoot`).
const USER: &str = "65532:65532";

/// Where a container runtime mounts things; there, so that the root file system may be read-only.
const MOUNT_POINTS: [&str; 5] = ["dev", "etc", "proc", "sys", "tmp"];

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The binary is for no machine that the image format has a name for.
    #[error("the program is no ELF file for x86-64 or AArch64")]
    Machine,
    /// It would be alone in the image.
    #[error(
        "the program needs a loader and libraries, which its image has not: build it with -Ctarget-feature=+crt-static in RUSTFLAGS and an explicit --target"
    )]
    Dynamic,
    /// Writing the tar archive.
    #[error("packing the image")]
    Pack(#[from] std::io::Error),
    /// Describing it.
    #[error("describing the image")]
    Describe(#[from] OciSpecError),
    /// Serialising a description.
    #[error("describing the image")]
    Serialize(#[from] serde_json::Error),
}

/// Packs the binary as [`REFERENCE`], FROM scratch.
///
/// # Errors
/// When `binary` is not an ELF file for a machine we know, or is not linked statically.
pub fn archive(binary: &[u8]) -> Result<Vec<u8>, ImageError> {
    let probe = Image {
        reference: REFERENCE,
        program: BINARY,
        user: USER,
    };
    probe.archive(binary)
}

/// An image of one program and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Its reference, with a tag.
    pub reference: &'a str,
    /// Where in it the program is, which is its entry point.
    pub program: &'a str,
    /// Who runs it: `UID:GID`.
    pub user: &'a str,
}

impl Image<'_> {
    /// Packs the program, FROM scratch.
    ///
    /// # Errors
    /// When `binary` is not an ELF file for a machine we know, or is not linked statically.
    pub fn archive(&self, binary: &[u8]) -> Result<Vec<u8>, ImageError> {
        let machine = machine(binary)?;
        if needs_loader(binary) {
            return Err(ImageError::Dynamic);
        }
        let layer = layer(self.program, binary)?;
        let config = ConfigBuilder::default()
            .entrypoint(vec![self.program.to_owned()])
            .user(self.user)
            .working_dir("/")
            .build()?;
        packed(self.reference, machine, config, layer)
    }
}

/// The archive of an image of one layer.
fn packed(
    reference: &str,
    machine: Arch,
    config: Config,
    layer: Vec<u8>,
) -> Result<Vec<u8>, ImageError> {
    let mut blobs = Vec::new();
    let config = ImageConfigurationBuilder::default()
        .created("1970-01-01T00:00:00Z")
        .architecture(machine)
        .os(Os::Linux)
        .config(config)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(vec![format!("sha256:{}", sha256(&layer))])
                .build()?,
        )
        .build()?;
    let layer = blob(&mut blobs, MediaType::ImageLayer, layer)?;
    let config = blob(&mut blobs, MediaType::ImageConfig, canonical(&config)?)?;
    let for_docker = json!([{
        "Config": path(&config),
        "Layers": [path(&layer)],
        "RepoTags": [reference],
    }]);

    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(vec![layer])
        .build()?;
    let mut manifest = blob(&mut blobs, MediaType::ImageManifest, canonical(&manifest)?)?;
    manifest.set_annotations(Some(HashMap::from([
        // containerd takes the whole reference from the first, other tools the tag from the second.
        ("io.containerd.image.name".to_owned(), reference.to_owned()),
        (
            "org.opencontainers.image.ref.name".to_owned(),
            tag(reference).to_owned(),
        ),
    ])));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![manifest])
        .build()?;

    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["blobs", "blobs/sha256"] {
        add_directory(&mut tar, directory)?;
    }
    for (name, bytes) in &blobs {
        add_file(&mut tar, name, 0o644, bytes)?;
    }
    add_file(&mut tar, "index.json", 0o644, &canonical(&index)?)?;
    add_file(&mut tar, "manifest.json", 0o644, &canonical(&for_docker)?)?;
    add_file(
        &mut tar,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    Ok(tar.into_inner()?)
}

/// Uncompressed, so that no version of a compressor has a say in the digest.
fn layer(program: &str, binary: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in MOUNT_POINTS {
        add_directory(&mut tar, directory)?;
    }
    add_file(&mut tar, program.trim_start_matches('/'), 0o755, binary)?;
    Ok(tar.into_inner()?)
}

/// Which nodes run the binary, as they tell it of themselves (`kubernetes.io/arch`).
///
/// # Errors
/// When it is not an ELF file for a machine we know.
pub fn architecture(binary: &[u8]) -> Result<String, ImageError> {
    machine(binary).map(|machine| machine.to_string())
}

fn machine(binary: &[u8]) -> Result<Arch, ImageError> {
    // ELF, 64 bits, little endian; e_machine is at offset 18.
    match (binary.get(..6), binary.get(18..20)) {
        (Some(b"\x7fELF\x02\x01"), Some([62, 0])) => Ok(Arch::Amd64),
        (Some(b"\x7fELF\x02\x01"), Some([183, 0])) => Ok(Arch::ARM64),
        _ => Err(ImageError::Machine),
    }
}

/// Whether a program header of the ELF file is `PT_INTERP` (elf(5)): the table is at the offset that
/// is at 32, its entries' size is at 54, their number at 56.
fn needs_loader(binary: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3u32.to_le_bytes();
    let short = |at: usize| {
        let bytes = binary.get(at..at + 2).and_then(|two| two.try_into().ok());
        bytes.map_or(0, |two| usize::from(u16::from_le_bytes(two)))
    };
    let table = binary.get(32..40).and_then(|eight| eight.try_into().ok());
    let table = table.map_or(0, u64::from_le_bytes);
    let (size, number) = (short(54), short(56));
    let mut headers = (0..number).filter_map(|index| {
        let at = usize::try_from(table).ok()?.checked_add(index * size)?;
        binary.get(at..at.checked_add(4)?)
    });
    headers.any(|kind| kind == PT_INTERP)
}

fn tag(reference: &str) -> &str {
    reference.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest().digest())
}

fn blob(
    blobs: &mut Vec<(String, Vec<u8>)>,
    media_type: MediaType,
    bytes: Vec<u8>,
) -> Result<Descriptor, ImageError> {
    let digest: Sha256Digest = sha256(&bytes).parse()?;
    let descriptor = Descriptor::new(media_type, bytes.len() as u64, digest);
    blobs.push((path(&descriptor), bytes));
    Ok(descriptor)
}

/// JSON with sorted keys, whatever map the description was kept in.
fn canonical(description: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.into_iter().collect();
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                fields
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect()
            }
            Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    Ok(serde_json::to_vec(&sorted(serde_json::to_value(
        description,
    )?))?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add_file(
    tar: &mut tar::Builder<Vec<u8>>,
    name: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    tar.append_data(&mut header, name, bytes)
}

fn add_directory(tar: &mut tar::Builder<Vec<u8>>, name: &str) -> std::io::Result<()> {
    let mode = if name == "tmp" { 0o1777 } else { 0o755 };
    let mut header = header(tar::EntryType::Directory, mode, 0);
    tar.append_data(&mut header, format!("{name}/"), std::io::empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn binary() -> Vec<u8> {
        let mut binary = vec![0; 4096];
        binary[..6].copy_from_slice(b"\x7fELF\x02\x01");
        binary[18] = 62;
        binary
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mtime().unwrap(), 0);
                assert_eq!(entry.header().uid().unwrap(), 0);
                let name = entry.path().unwrap().display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (name, bytes)
            })
            .collect()
    }

    #[test]
    fn built_twice_gives_the_same_bytes() {
        let first = archive(&binary()).unwrap();
        for _ in 0..8 {
            assert!(archive(&binary()).unwrap() == first);
        }
    }

    #[test]
    fn docker_and_oci_find_the_same_image() {
        let entries = entries(&archive(&binary()).unwrap());
        for (name, bytes) in &entries {
            if let Some(digest) = name.strip_prefix("blobs/sha256/").filter(|d| !d.is_empty()) {
                assert_eq!(digest, sha256(bytes), "{name}");
            }
        }
        let read = |name: &str| serde_json::from_slice::<Value>(&entries[name]).unwrap();
        let blob = |digest: &Value| {
            format!(
                "blobs/sha256/{}",
                digest.as_str().unwrap().trim_start_matches("sha256:")
            )
        };
        let docker = read("manifest.json");
        assert_eq!(docker[0]["RepoTags"][0], REFERENCE);
        let manifest = read(&blob(&read("index.json")["manifests"][0]["digest"]));
        assert_eq!(docker[0]["Config"], blob(&manifest["config"]["digest"]));
        assert_eq!(
            docker[0]["Layers"][0],
            blob(&manifest["layers"][0]["digest"])
        );
        let config = read(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["config"]["Entrypoint"], json!([BINARY]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["architecture"], "amd64");
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
    }

    #[test]
    fn the_layer_is_the_binary_and_places_to_mount_on() {
        let names: Vec<_> = entries(&layer(BINARY, &binary()).unwrap())
            .into_keys()
            .collect();
        assert_eq!(
            names,
            ["dev/", "etc/", "proc/", "strata-probe", "sys/", "tmp/"]
        );
    }

    #[test]
    fn a_binary_that_would_lack_its_loader_is_refused() {
        let mut dynamic = binary();
        (dynamic[32], dynamic[54], dynamic[56]) = (64, 56, 2);
        assert!(archive(&dynamic).is_ok());
        dynamic[64 + 56] = 3;
        assert!(matches!(archive(&dynamic), Err(ImageError::Dynamic)));
        // A table that is said to be elsewhere is none.
        dynamic[32..40].fill(0xff);
        assert!(archive(&dynamic).is_ok());
    }

    #[test]
    fn a_binary_for_no_known_machine_is_refused() {
        assert!(matches!(archive(b"#!/bin/sh"), Err(ImageError::Machine)));
    }
}
