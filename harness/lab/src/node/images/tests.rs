use std::fs::{self, File};
use std::io::{Seek, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Store, archive_architecture, normalised};

/// A tar of named files.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::new(root.path(), None).unwrap();
    (root, store)
}

fn load(archive: &[u8]) -> Result<Vec<String>, String> {
    let (_root, store) = store();
    let loaded = store.load(file(archive));
    loaded.map_err(|error| format!("{error:#}"))
}

fn config(architecture: &str) -> Vec<u8> {
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    config.to_string().into_bytes()
}

/// What `docker save` writes of an image with a layer in two pieces.
fn docker(architecture: &str, tags: &Value) -> Vec<u8> {
    let manifest =
        json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    tar(&[
        ("c.json", config(architecture)),
        (
            "a/layer.tar",
            tar(&[("app", b"one".to_vec()), ("old", b"".to_vec())]),
        ),
        (
            "b/layer.tar",
            tar(&[("app", b"two".to_vec()), (".wh.old", b"".to_vec())]),
        ),
        ("manifest.json", manifest.to_string().into_bytes()),
    ])
}

/// Blobs of an OCI image layout.
#[derive(Default)]
struct Layout(Vec<(String, Vec<u8>)>);

impl Layout {
    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = Sha256::digest(&content);
        let digest = digest.iter().map(|byte| format!("{byte:02x}"));
        let digest = digest.collect::<String>();
        let size = content.len();
        self.0.push((format!("blobs/sha256/{digest}"), content));
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    }

    fn manifest(&mut self, architecture: &str, layer: Vec<u8>) -> Value {
        let oci = |what: &str| format!("application/vnd.oci.image.{what}");
        let config = self.add(&oci("config.v1+json"), config(architecture));
        let layer = self.add(&oci("layer.v1.tar"), layer);
        let manifest = json!({"schemaVersion": 2, "mediaType": oci("manifest.v1+json"), "config": config, "layers": [layer]});
        let manifest = manifest.to_string().into_bytes();
        let mut descriptor = self.add(&oci("manifest.v1+json"), manifest);
        descriptor["platform"] = json!({"architecture": architecture, "os": "linux"});
        descriptor
    }

    fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let index = index.to_string().into_bytes();
        self.add("application/vnd.oci.image.index.v1+json", index)
    }

    fn archive(self, manifests: &[Value]) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let mut files = self.0;
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        let files = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.clone()))
            .collect::<Vec<_>>();
        tar(&files)
    }
}

#[test]
fn every_tag_of_what_docker_saved_is_an_image_of_all_its_layers() {
    let (_root, store) = store();
    let tags = json!(["app:v1", "shop/app:v2"]);
    let archive = docker(archive_architecture(), &tags);
    let names = store.load(file(&archive)).unwrap();
    assert_eq!(names, ["docker.io/library/app:v1", "docker.io/shop/app:v2"]);
    let image = store.find("shop/app:v2").unwrap();
    assert_eq!(image.entrypoint, ["/app"]);
    assert_eq!(fs::read_to_string(image.files.join("app")).unwrap(), "two");
    assert!(!image.files.join("old").exists());
    // Again, and nothing else is left of either time.
    store.load(file(&archive)).unwrap();
    let left = fs::read_dir(image.files.parent().unwrap()).unwrap();
    assert_eq!(left.count(), 1);
}

#[test]
fn of_an_oci_layout_it_is_the_image_for_this_machine() {
    let ours = archive_architecture();
    let mut layout = Layout::default();
    let other = layout.manifest("s390x", tar(&[("app", b"other".to_vec())]));
    let own = layout.manifest(ours, tar(&[("app", b"own".to_vec())]));
    let statement = layout.manifest("unknown", b"not a layer".to_vec());
    let mut index = layout.index(&[other, own, statement.clone()]);
    index["annotations"] = json!({"org.opencontainers.image.ref.name": "localhost/app:v1"});
    let (_root, store) = store();
    let names = store.load(file(&layout.archive(&[index, statement])));
    assert_eq!(names.unwrap(), ["localhost/app:v1"]);
    let image = store.find("localhost/app:v1").unwrap();
    assert_eq!(fs::read_to_string(image.files.join("app")).unwrap(), "own");
}

#[test]
fn what_cannot_be_loaded_is_refused_with_the_reason() {
    let ours = archive_architecture();
    let mut layout = Layout::default();
    let mut only_other = layout.manifest("s390x", Vec::new());
    only_other["annotations"] = json!({"org.opencontainers.image.ref.name": "app:v1"});
    let wrong = layout.archive(&[only_other]);
    let mut layout = Layout::default();
    let mut zstd = layout.manifest(ours, b"\x28\xb5\x2f\xfd".to_vec());
    zstd["annotations"] = json!({"org.opencontainers.image.ref.name": "app:v1"});
    let zstd = layout.archive(&[zstd]);
    let lacking = json!([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["gone.tar"]}]);
    let lacking = tar(&[
        ("c.json", config(ours)),
        ("manifest.json", lacking.to_string().into_bytes()),
    ]);
    let no_json = tar(&[("manifest.json", b"[{".to_vec())]);
    let whole = docker(ours, &json!(["a:b"]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    assert_eq!(load(&gzip).unwrap(), ["docker.io/library/a:b"]);
    for (archive, expected) in [
        (
            &docker(ours, &Value::Null),
            "has no name in the archive: save it by its name",
        ),
        (
            &docker("s390x", &json!(["a:b"])),
            "image a:b is for s390x, this machine is",
        ),
        (&wrong, "image app:v1 is for s390x"),
        (&zstd, "of the image archive is compressed with zstd"),
        (
            &lacking,
            "the image archive has no gone.tar, which it refers to",
        ),
        (&no_json, "manifest.json of the image archive"),
        (&whole[..whole.len() - 4000].to_vec(), "it was cut short"),
        (
            &gzip[..gzip.len() / 2].to_vec(),
            "inflating the image archive",
        ),
        (&b"hello".to_vec(), "this is not an image archive"),
        (
            &tar(&[("manifest.json", b"[]".to_vec())]),
            "the image archive holds no image",
        ),
    ] {
        let refused = load(archive).unwrap_err();
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
}

#[test]
fn an_archive_with_something_wrong_loads_nothing() {
    let entries = json!([
        {"Config": "c.json", "RepoTags": ["good:v1"], "Layers": ["layer.tar"]},
        {"Config": "d.json", "RepoTags": ["bad:v1"], "Layers": ["bad.tar"]},
    ]);
    let ours = archive_architecture();
    let mut other = config(ours);
    other.push(b'\n');
    let archive = tar(&[
        ("c.json", config(ours)),
        ("d.json", other),
        ("layer.tar", tar(&[("app", b"one".to_vec())])),
        ("bad.tar", vec![1; 4096]),
        ("manifest.json", entries.to_string().into_bytes()),
    ]);
    let (_root, store) = store();
    let refused = store.load(file(&archive)).unwrap_err().to_string();
    assert!(
        refused.contains("cannot unpack a layer of image"),
        "{refused}"
    );
    assert!(store.find("good:v1").is_none());
}

#[test]
fn names_mean_what_containerd_takes_them_to_mean() {
    for (name, expected) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("istio/examples", "docker.io/istio/examples:latest"),
        ("docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("strata.dev/probe:v1", "strata.dev/probe:v1"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("a@sha256:12", "docker.io/library/a@sha256:12"),
    ] {
        assert_eq!(normalised(name), expected);
    }
}
