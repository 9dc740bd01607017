//! What is in an image's archive: an OCI image layout in a tar file.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::Value;

/// Content, and what it is known by.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) bytes: Bytes,
}

/// One image.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) manifest: Blob,
    pub(super) media_type: String,
    /// The configuration and the layers.
    pub(super) blobs: Vec<Blob>,
}

impl Layout {
    /// Takes an archive apart.
    ///
    /// # Errors
    /// When it is no archive of one image.
    pub(super) fn of(archive: &[u8]) -> anyhow::Result<Self> {
        let files = files(archive).context("the image is no tar archive")?;
        let file = |name: &str| {
            let bytes = files.get(name).cloned();
            bytes.with_context(|| format!("the image's archive has no {name}"))
        };
        let blob = |described: &Value| {
            let digest = described["digest"].as_str().unwrap_or_default();
            let name = digest.replacen(':', "/", 1);
            let bytes = file(&format!("blobs/{name}"))?;
            let digest = digest.to_owned();
            anyhow::Ok(Blob { digest, bytes })
        };
        let json = |bytes: &[u8], name: &str| {
            let read = serde_json::from_slice::<Value>(bytes);
            read.with_context(|| format!("the image's {name} is no JSON"))
        };
        let index = json(&file("index.json")?, "index.json")?;
        let one = match index["manifests"].as_array().map(Vec::as_slice) {
            Some([one]) => one,
            _ => bail!("the image's index.json does not name one manifest"),
        };
        let manifest = blob(one)?;
        let described = json(&manifest.bytes, "manifest")?;
        let layers = described["layers"].as_array();
        let parts = std::iter::once(&described["config"]).chain(layers.into_iter().flatten());
        let blobs: anyhow::Result<Vec<_>> = parts.map(blob).collect();
        let media_type = described["mediaType"].as_str();
        Ok(Self {
            media_type: media_type
                .unwrap_or("application/vnd.oci.image.manifest.v1+json")
                .into(),
            blobs: blobs?,
            manifest,
        })
    }

    /// A tag of its own, so that no push takes another image's.
    pub(super) fn tag(&self) -> String {
        let digits = self.manifest.digest.rsplit(':').next().unwrap_or_default();
        format!("v{}", digits.get(..12).unwrap_or(digits))
    }
}

fn files(archive: &[u8]) -> std::io::Result<BTreeMap<String, Bytes>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, Bytes::from(bytes));
    }
    Ok(files)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn the_probes_image_is_taken_apart_whole() {
        let layout = Layout::of(&crate::provider::image().unwrap()).unwrap();
        assert_eq!(
            layout.media_type,
            "application/vnd.oci.image.manifest.v1+json"
        );
        assert_eq!(layout.blobs.len(), 2);
        for blob in layout.blobs.iter().chain([&layout.manifest]) {
            use sha2::Digest as _;
            let digits: String = sha2::Sha256::digest(&blob.bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(blob.digest, format!("sha256:{digits}"));
        }
        let tag = layout.tag();
        assert!(
            tag.len() == 13 && layout.manifest.digest.contains(&tag[1..]),
            "{tag}"
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let said = |archive: &[u8]| format!("{:#}", Layout::of(archive).unwrap_err());
        assert!(said(&[1; 1024]).starts_with("the image is no tar archive"));
        assert_eq!(said(&[]), "the image's archive has no index.json");
        let archive = |text: &str| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, "index.json", text.as_bytes())
                .unwrap();
            tar.into_inner().unwrap()
        };
        assert!(said(&archive("{")).starts_with("the image's index.json is no JSON"));
        assert!(said(&archive("{}")).contains("does not name one manifest"));
        let absent = r#"{"manifests": [{"digest": "sha256:ab"}]}"#;
        assert_eq!(
            said(&archive(absent)),
            "the image's archive has no blobs/sha256/ab"
        );
    }
}
