//! The probe's image in a registry, for clusters whose nodes cannot be given it otherwise.
//!
//! Start from [`push`], which returns the image's reference by digest: what a pod's `image` has to
//! be. Which registry, and as whom, is a [`Target`]'s to say. Rule: the reference names exactly the
//! bytes that were given; tags are for people and for the registry's garbage collection.

mod credentials;
mod layout;
mod target;

// Against Docker's own registry, which is started so that it ends with whoever started it.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, bail};
use oci_client::Client;
use oci_client::client::ClientProtocol;
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;

pub use target::Target;

use super::Progress;
use crate::web::{Way, innermost};
use layout::{Blob, Layout};

/// A few megabytes, over a slow line.
const PUSH: Duration = Duration::from_secs(300);

/// Pushes an image, an archive as [`super::image()`] makes it, and returns its reference:
/// `HOST/REPOSITORY@sha256:…`. What the registry has already is not sent again.
///
/// # Errors
/// When the archive is none, or the registry cannot be reached or refuses it.
pub async fn push(image: &[u8], target: &Target, progress: Progress<'_>) -> anyhow::Result<String> {
    let way = Way::from_env();
    push_within(PUSH, image, target, &way, progress).await
}

/// What [`push`] returns, before anything is pushed.
///
/// # Errors
/// When the archive is none.
pub fn reference(image: &[u8], target: &Target) -> anyhow::Result<String> {
    Ok(target.pinned(&Layout::of(image)?.manifest.digest))
}

async fn push_within(
    limit: Duration,
    image: &[u8],
    target: &Target,
    way: &Way,
    progress: Progress<'_>,
) -> anyhow::Result<String> {
    let layout = Layout::of(image)?;
    let push = async {
        let auth = target.credentials().await?;
        let pushing = Pushing::new(target, &layout, way, auth)?;
        pushing.all(progress).await
    };
    let pushed = tokio::time::timeout(limit, push).await;
    pushed.with_context(|| {
        format!(
            "pushing the probe's image to {} did not end within {} s",
            target.shown(),
            limit.as_secs()
        )
    })?
}

struct Pushing<'a> {
    client: Client,
    target: &'a Target,
    layout: &'a Layout,
    auth: RegistryAuth,
}

impl<'a> Pushing<'a> {
    fn new(
        target: &'a Target,
        layout: &'a Layout,
        way: &Way,
        auth: RegistryAuth,
    ) -> anyhow::Result<Self> {
        let mut config = way.registry()?;
        config.protocol = if target.is_plain() {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        };
        // One request a blob, which every registry takes; in pieces not all do.
        config.use_monolithic_push = true;
        let client = Client::try_from(config).map_err(|error| {
            let why = innermost(&error);
            anyhow::anyhow!("no connection to {} can be made: {why}", target.shown())
        })?;
        Ok(Self {
            client,
            target,
            layout,
            auth,
        })
    }

    async fn all(&self, progress: Progress<'_>) -> anyhow::Result<String> {
        let shown = self.target.shown();
        let registry = self.target.tagged(self.layout.tag());
        let registry = registry.resolve_registry();
        self.client.store_auth_if_needed(registry, &self.auth).await;
        progress(&format!("asking {shown} for the probe's image"));
        let mut lacking = Vec::new();
        for blob in &self.layout.blobs {
            if !self.has(blob).await? {
                lacking.push(blob);
            }
        }
        if !lacking.is_empty() {
            progress(&format!("pushing the probe's image to {shown}"));
        }
        for blob in &lacking {
            self.send(blob).await?;
        }
        self.name().await?;
        let reference = self.target.pinned(&self.layout.manifest.digest);
        progress(&format!("the probe's image is {reference}"));
        Ok(reference)
    }

    /// Whether the registry has a blob. One that does not say so to whoever asks, since they may not
    /// read there or since there is nothing yet, may well take it: sending it decides.
    async fn has(&self, blob: &Blob) -> anyhow::Result<bool> {
        let at = self.target.tagged(self.layout.tag());
        match self.client.blob_exists(&at, &blob.digest).await {
            Err(error) if !is_refusal(&error) => {
                Err(self.explained("asking for a part of the image", error))
            }
            asked => Ok(asked.unwrap_or(false)),
        }
    }

    async fn send(&self, blob: &Blob) -> anyhow::Result<()> {
        let at = self.target.tagged(self.layout.tag());
        let sent = self
            .client
            .push_blob(&at, blob.bytes.clone(), &blob.digest)
            .await;
        sent.map(drop)
            .map_err(|error| self.explained("sending a part of the image", error))
    }

    /// Puts the manifest under its tag, and looks whether it can be had by its digest.
    async fn name(&self) -> anyhow::Result<()> {
        let manifest = &self.layout.manifest;
        let by_digest = self.target.by_digest(&manifest.digest);
        let there = self.client.fetch_manifest_digest(&by_digest, &self.auth);
        if there.await.is_ok() {
            return Ok(());
        }
        let tagged = self.target.tagged(self.layout.tag());
        let kind = self.layout.media_type.parse();
        let kind = kind.context("the image's manifest has a media type that no header can say")?;
        let put = self
            .client
            .push_manifest_raw(&tagged, manifest.bytes.clone(), kind);
        put.await
            .map_err(|error| self.explained("naming the image", error))?;
        let found = self.client.fetch_manifest_digest(&by_digest, &self.auth);
        let found = match found.await {
            Ok(found) => found,
            // Who may write and not read has written.
            Err(error) if is_refusal(&error) => return Ok(()),
            Err(error) => return Err(self.explained("asking for the image by its digest", error)),
        };
        if found != manifest.digest {
            bail!(
                "{} made {found} of the image that is {}; it rewrites what is pushed to it, and \
                 strata needs one that does not",
                self.target.shown(),
                manifest.digest
            );
        }
        Ok(())
    }

    /// An error of the registry client's in a person's words.
    fn explained(&self, doing: &str, error: OciDistributionError) -> anyhow::Error {
        let shown = self.target.shown();
        let remedy = if is_refusal(&error) {
            format!(" refuses {}; {}", self.who(), self.target.remedy())
        } else {
            let said = said(&error);
            let hint = self.target.scheme_hint(&said);
            format!(" cannot be pushed to: {said}{hint}")
        };
        anyhow::anyhow!("the registry {shown}{remedy} (while {doing})")
    }

    fn who(&self) -> String {
        match &self.auth {
            RegistryAuth::Basic(name, _) => format!("{name}, or the password is wrong"),
            _ => "whoever does not say who they are".to_owned(),
        }
    }
}

/// Whether the registry wants to know who asks, or does not let them.
fn is_refusal(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. } => true,
        OciDistributionError::ServerError { code, .. } => matches!(code, 401 | 403),
        OciDistributionError::RequestError(error) => {
            matches!(error.status().map(|it| it.as_u16()), Some(401 | 403))
        }
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|it| matches!(it.code, OciErrorCode::Unauthorized | OciErrorCode::Denied)),
        _ => false,
    }
}

/// What an error says, at its bottom where it is one of the connection.
fn said(error: &OciDistributionError) -> String {
    match error {
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => format!("it answers {status}"),
            None => innermost(error),
        },
        OciDistributionError::ServerError { code, message, .. } => {
            format!("it answers {code}: {}", message.trim())
        }
        other => other.to_string(),
    }
}
