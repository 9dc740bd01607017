//! Who a person is to a registry, as docker remembers it.
//!
//! Start from [`of`]. `docker login` (and podman's, with `--compat-auth-file`) writes a `config.json`:
//! a registry's credentials are in it, or with a program that it names (`credHelpers`, `credsStore`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A helper may have to wait for a person who unlocks a keyring.
const ASK: Duration = Duration::from_secs(30);
/// What a helper says whose secret is no password.
const TOKEN: &str = "<token>";

/// Where docker keeps what it remembers.
#[derive(Debug, Clone)]
pub(super) struct DockerConfig {
    /// Its `config.json`; nothing without a home.
    pub(super) file: Option<PathBuf>,
    /// Where its helpers are looked for, if not in PATH alone.
    pub(super) helpers: Option<PathBuf>,
    pub(super) ask: Duration,
}

impl DockerConfig {
    /// As on a machine where nobody ever logged in.
    #[cfg(test)]
    #[cfg(target_os = "linux")]
    pub(super) fn of_nobody() -> Self {
        Self {
            file: None,
            helpers: None,
            ask: ASK,
        }
    }

    pub(super) fn of_this_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = set("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker")));
        Self {
            file: folder.map(|folder| folder.join("config.json")),
            helpers: None,
            ask: ASK,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Who this user is to a registry: somebody, or nobody in particular.
///
/// # Errors
/// When what docker remembers cannot be read, or is of a kind that strata cannot use.
pub(super) async fn of(config: &DockerConfig, host: &str) -> anyhow::Result<RegistryAuth> {
    let Some(path) = &config.file else {
        return Ok(RegistryAuth::Anonymous);
    };
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(RegistryAuth::Anonymous);
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let read: Config = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what docker writes", path.display()))?;
    if let Some(helper) = read.cred_helpers.get(host) {
        return ask(config, helper, host).await;
    }
    let entry = read
        .auths
        .iter()
        .find(|(key, _)| host_of(key) == own_name(host));
    if let Some((_, entry)) = entry
        && let Some(auth) = written(entry, host, path)?
    {
        return Ok(auth);
    }
    match &read.creds_store {
        Some(helper) => ask(config, helper, host).await,
        None => Ok(RegistryAuth::Anonymous),
    }
}

/// What a file says itself; nothing if a helper knows.
fn written(entry: &Entry, host: &str, path: &Path) -> anyhow::Result<Option<RegistryAuth>> {
    if entry
        .identitytoken
        .as_ref()
        .is_some_and(|it| !it.is_empty())
    {
        return Err(no_token(host));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let lenient =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(auth);
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_ref().and_then(|text| text.split_once(':'));
        let (name, password) = pair.with_context(|| {
            format!(
                "{} has an auth for {host} that is no NAME:PASSWORD; run docker login {host} again",
                path.display()
            )
        })?;
        return Ok(Some(RegistryAuth::Basic(
            name.to_owned(),
            password.to_owned(),
        )));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(name), Some(password)) => Some(RegistryAuth::Basic(name.clone(), password.clone())),
        _ => None,
    })
}

/// Asks a program of docker's, `docker-credential-NAME get`.
async fn ask(config: &DockerConfig, helper: &str, host: &str) -> anyhow::Result<RegistryAuth> {
    let name = format!("docker-credential-{helper}");
    let program = config.helpers.as_ref().map(|folder| folder.join(&name));
    let program = program.unwrap_or_else(|| PathBuf::from(&name));
    let cannot = || format!("cannot run {name}, which docker's config.json names for {host}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(cannot)?;
    let stdin = child.stdin.take();
    let asking = async {
        if let Some(mut stdin) = stdin {
            // Who does not read it says why by its exit code.
            let _ = stdin.write_all(server(host).as_bytes()).await;
        }
    };
    let whole = async { tokio::join!(child.wait_with_output(), asking).0 };
    let output = tokio::time::timeout(config.ask, whole)
        .await
        .with_context(|| format!("{name} did not answer within {} s", config.ask.as_secs()))?
        .with_context(cannot)?;
    if !output.status.success() {
        // That there are none is said on standard output, with exit code 1.
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said.starts_with("credentials not found") {
            return Ok(RegistryAuth::Anonymous);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let said = if said.is_empty() { stderr } else { said };
        bail!("{name} does not tell who you are to {host}: {said}");
    }
    // Its answer is a secret, also where it is none that we understand.
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .ok()
        .with_context(|| format!("{name} does not answer as a credential helper of docker"))?;
    if answer.username == TOKEN {
        return Err(no_token(host));
    }
    Ok(RegistryAuth::Basic(answer.username, answer.secret))
}

fn no_token(host: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "docker remembers an identity token for {host}, which strata cannot use; set \
         STRATA_REGISTRY_USERNAME and STRATA_REGISTRY_PASSWORD (an access token will do)"
    )
}

/// The host of a key of `auths`, which older versions wrote as an address.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    own_name(key.split('/').next().unwrap_or(key))
}

/// Docker Hub has three names.
fn own_name(host: &str) -> &str {
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

/// What helpers know a registry by.
fn server(host: &str) -> &str {
    match own_name(host) {
        "index.docker.io" => "https://index.docker.io/v1/",
        _ => host,
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    struct Desk {
        dir: tempfile::TempDir,
        config: DockerConfig,
    }

    fn desk(json: &str) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        let helper = |name: &str, text: &str| {
            crate::script::write(&dir.path().join(format!("docker-credential-{name}")), text);
        };
        helper(
            "good",
            r#"read -r server; printf '{"ServerURL":"%s","Username":"%s","Secret":"s3"}' "$server" "by $server""#,
        );
        helper(
            "empty",
            "echo 'credentials not found in native keychain'; exit 1",
        );
        helper("locked", "echo 'the keyring is locked' >&2; exit 1");
        helper(
            "token",
            r#"echo '{"ServerURL":"r","Username":"<token>","Secret":"hidden"}'"#,
        );
        helper("odd", "echo hidden");
        helper("silent", "exec tail -f /dev/null");
        let config = DockerConfig {
            file: Some(file),
            helpers: Some(dir.path().to_owned()),
            ask: ASK,
        };
        Desk { dir, config }
    }

    fn basic(name: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(name.to_owned(), password.to_owned())
    }

    #[tokio::test]
    async fn credentials_are_found_where_docker_puts_them() {
        // "me:pass:word"
        let auth = r#"{"auth": "bWU6cGFzczp3b3Jk"}"#;
        for (json, expected) in [
            ("{}".to_owned(), RegistryAuth::Anonymous),
            (
                format!(r#"{{"auths": {{"r:5000": {auth}}}}}"#),
                basic("me", "pass:word"),
            ),
            (
                format!(r#"{{"auths": {{"https://r:5000/v1/": {auth}}}}}"#),
                basic("me", "pass:word"),
            ),
            (
                format!(r#"{{"auths": {{"other": {auth}}}}}"#),
                RegistryAuth::Anonymous,
            ),
            (
                r#"{"auths": {"r:5000": {"username": "a", "password": "b"}}}"#.to_owned(),
                basic("a", "b"),
            ),
            (
                format!(
                    r#"{{"auths": {{"r:5000": {auth}}}, "credHelpers": {{"r:5000": "good"}}}}"#
                ),
                basic("by r:5000", "s3"),
            ),
            (
                r#"{"auths": {"r:5000": {}}, "credsStore": "good"}"#.to_owned(),
                basic("by r:5000", "s3"),
            ),
            (
                r#"{"credsStore": "empty"}"#.to_owned(),
                RegistryAuth::Anonymous,
            ),
        ] {
            let desk = desk(&json);
            assert_eq!(
                of(&desk.config, "r:5000").await.unwrap(),
                expected,
                "{json}"
            );
        }
        let hub = desk(r#"{"credsStore": "good"}"#);
        let found = of(&hub.config, "docker.io").await.unwrap();
        assert_eq!(found, basic("by https://index.docker.io/v1/", "s3"));
    }

    #[tokio::test]
    async fn nothing_remembered_is_nobody() {
        let mut desk = desk("{}");
        desk.config.file = Some(desk.dir.path().join("absent"));
        assert_eq!(
            of(&desk.config, "r").await.unwrap(),
            RegistryAuth::Anonymous
        );
        desk.config.file = None;
        assert_eq!(
            of(&desk.config, "r").await.unwrap(),
            RegistryAuth::Anonymous
        );
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_said_without_what_is_secret() {
        for (json, expected) in [
            ("[", "is not what docker writes"),
            (
                r#"{"auths": {"r": {"auth": "%%hidden"}}}"#,
                "run docker login r again",
            ),
            (
                r#"{"auths": {"r": {"identitytoken": "hidden"}}}"#,
                "an identity token for r",
            ),
            (r#"{"credsStore": "token"}"#, "an identity token for r"),
            (
                r#"{"credsStore": "odd"}"#,
                "does not answer as a credential helper",
            ),
            (r#"{"credsStore": "locked"}"#, "to r: the keyring is locked"),
            (
                r#"{"credsStore": "absent"}"#,
                "cannot run docker-credential-absent",
            ),
        ] {
            let desk = desk(json);
            let said = format!("{:#}", of(&desk.config, "r").await.unwrap_err());
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hidden"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_says_nothing_is_not_waited_for_for_ever() {
        let mut desk = desk(r#"{"credsStore": "silent"}"#);
        desk.config.ask = Duration::from_millis(100);
        let said = format!("{:#}", of(&desk.config, "r").await.unwrap_err());
        assert!(
            said.contains("docker-credential-silent did not answer"),
            "{said}"
        );
    }
}
