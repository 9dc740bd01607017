//! Pushing to the registry that most others are made of: Docker's own, as a child of each test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use sha2::Digest as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::credentials::DockerConfig;
use super::*;
use crate::asset::tests::server::{Authority, Said, Server};
use crate::provider::tools::on_path;
use crate::settings::{Settings, workspace};

/// `p:ss word`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuWGAarwy0lzLdEzPZEJ3tjDdmxJVSMHm\n";
const PASSWORD: &str = "p:ss word";
const LOCKED: &str = "auth: {htpasswd: {realm: strata, path: HERE/htpasswd}}\n";
const BY_TLS: &str = "  tls: {certificate: HERE/server.pem, key: HERE/key.pem}\n";

/// A registry of this test's own, which ends with it.
struct Registry {
    address: SocketAddr,
    _dir: tempfile::TempDir,
    _child: Child,
    log: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.log.abort();
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = Path::new("docker-registry");
    let mut all = on_path(name, &path).chain([workspace().join(".tools/docker-registry")]);
    all.find(|path| path.is_file()).expect(
        "docker-registry, which this test pushes to, is not here; scripts/test fetches it where \
         there is apt-get, elsewhere put it on PATH",
    )
}

impl Registry {
    /// Starts one with more in its configuration, which may name the files that are `put` beside it.
    async fn start(more: &str, put: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in put {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let here = dir.path().display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {here}/store}}}}\n\
             http:\n  addr: 127.0.0.1:0\n  secret: s\n{}",
            more.replace("HERE", &here)
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        // Whatever ends this test's thread ends it too.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program())
            .arg("serve")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended instead of listening: {said}"));
            said = format!("{said}\n{line}");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(['"', ',']).unwrap();
                break rest[..end].parse().unwrap();
            }
        };
        // Somebody has to read its log, or it ends.
        let log = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address,
            _dir: dir,
            _child: child,
            log,
        }
    }

    fn target(&self, scheme: &str, user: Option<(&str, &str)>) -> Target {
        target(&format!("{scheme}{}/team", self.address), user)
    }
}

fn target(named: &str, user: Option<(&str, &str)>) -> Target {
    let mut vars = vec![("STRATA_REGISTRY", named)];
    if let Some((name, password)) = user {
        vars.push(("STRATA_REGISTRY_USERNAME", name));
        vars.push(("STRATA_REGISTRY_PASSWORD", password));
    }
    let vars = vars
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    let target = Target::of(&Settings::from_vars(vars).unwrap())
        .unwrap()
        .unwrap();
    // What the developer's own docker remembers is nobody's business here.
    match user {
        Some(_) => target,
        None => target.with_docker_config(DockerConfig::of_nobody()),
    }
}

/// Pushes the probe's image; the reference, and what the person was told.
async fn pushed(target: &Target, way: &Way) -> Result<(String, Vec<String>), String> {
    let told = Mutex::new(Vec::new());
    let tell = |line: &str| told.lock().unwrap().push(line.to_owned());
    let image = crate::provider::image().unwrap();
    let reference = push_within(PUSH, &image, target, way, &tell)
        .await
        .map_err(|error| format!("{error:#}"))?;
    Ok((reference, told.into_inner().unwrap()))
}

async fn refused(target: &Target, way: &Way) -> String {
    pushed(target, way).await.unwrap_err()
}

/// Fetches what a reference names as a container runtime does, and compares every sum on the way.
async fn pull(reference: &str, scheme: &str, way: &Way, user: Option<(&str, &str)>) {
    let (place, digest) = reference.split_once('@').unwrap();
    let (host, repository) = place.split_once('/').unwrap();
    let client = way.client().unwrap();
    let get = async |path: String| {
        let mut request = client.get(format!("{scheme}://{host}/v2/{repository}/{path}"));
        request = request.header("accept", "application/vnd.oci.image.manifest.v1+json");
        if let Some((name, password)) = user {
            request = request.basic_auth(name, Some(password));
        }
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.bytes().await.unwrap()
    };
    let sum = |bytes: &[u8]| {
        let digits = sha2::Sha256::digest(bytes);
        let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    };
    let manifest = get(format!("manifests/{digest}")).await;
    assert_eq!(sum(&manifest), digest);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    for part in layers.iter().chain([&manifest["config"]]) {
        let digest = part["digest"].as_str().unwrap();
        assert_eq!(sum(&get(format!("blobs/{digest}")).await), digest);
    }
}

#[tokio::test]
async fn the_image_is_there_by_its_digest_and_sent_once() {
    let registry = Registry::start("", &[]).await;
    let (target, way) = (registry.target("", None), Way::default());
    let (reference, told) = pushed(&target, &way).await.unwrap();
    let place = format!("{}/team/strata-probe@sha256:", registry.address);
    assert!(reference.starts_with(&place), "{reference}");
    let said = |told: &[String]| {
        told.iter()
            .any(|line| line.starts_with("pushing the probe"))
    };
    assert!(said(&told), "{told:?}");
    pull(&reference, "http", &way, None).await;

    let (again, told) = pushed(&target, &way).await.unwrap();
    assert_eq!(again, reference);
    assert!(!said(&told), "{told:?}");
}

#[tokio::test]
async fn what_is_there_in_part_is_completed() {
    let registry = Registry::start("", &[]).await;
    let (target, way) = (registry.target("", None), Way::default());
    let layout = Layout::of(&crate::provider::image().unwrap()).unwrap();
    let auth = RegistryAuth::Anonymous;
    let pushing = Pushing::new(&target, &layout, &way, auth).unwrap();
    pushing.send(&layout.blobs[1]).await.unwrap();
    assert!(pushing.has(&layout.blobs[1]).await.unwrap());
    assert!(!pushing.has(&layout.blobs[0]).await.unwrap());
    let (reference, _) = pushed(&target, &way).await.unwrap();
    pull(&reference, "http", &way, None).await;
}

#[tokio::test]
async fn tls_by_a_private_authority_is_believed_by_whoever_is_told() {
    let authority = Authority::new(&["127.0.0.1"]);
    let put = [
        ("server.pem", authority.certificate.as_str()),
        ("key.pem", authority.key.as_str()),
    ];
    let registry = Registry::start(BY_TLS, &put).await;
    let target = registry.target("https://", None);
    let said = refused(&target, &Way::default()).await;
    assert!(said.contains("UnknownIssuer"), "{said}");
    assert!(said.contains("by SSL_CERT_FILE"), "{said}");
    let mut way = Way::default();
    way.authorities = vec![authority.pem.into_bytes()];
    let (reference, _) = pushed(&target, &way).await.unwrap();
    pull(&reference, "https", &way, None).await;
    // And who leaves TLS out by mistake is told.
    let said = refused(&registry.target("", None), &way).await;
    assert!(
        said.contains("write STRATA_REGISTRY=https://127.0.0.1:"),
        "{said}"
    );
}

#[tokio::test]
async fn who_may_push_is_asked_for() {
    let registry = Registry::start(LOCKED, &[("htpasswd", HTPASSWD)]).await;
    let way = Way::default();
    let me = Some(("me", PASSWORD));
    let (reference, _) = pushed(&registry.target("", me), &way).await.unwrap();
    pull(&reference, "http", &way, me).await;
    for user in ["me", "you"] {
        let said = refused(&registry.target("", Some((user, "hidden"))), &way).await;
        let expected = format!(
            "the registry {}/team/strata-probe refuses {user}, or the password is wrong; set \
             STRATA_REGISTRY_USERNAME and STRATA_REGISTRY_PASSWORD to those of one who may push \
             there",
            registry.address
        );
        assert!(said.starts_with(&expected), "{said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    let said = refused(&registry.target("", None), &way).await;
    assert!(
        said.contains("refuses whoever does not say who they are; run docker login"),
        "{said}"
    );
}

#[tokio::test]
async fn dockers_own_credentials_are_used() {
    let authority = Authority::new(&["127.0.0.1"]);
    let put = [
        ("server.pem", authority.certificate.as_str()),
        ("key.pem", authority.key.as_str()),
        ("htpasswd", HTPASSWD),
    ];
    let registry = Registry::start(&format!("{BY_TLS}{LOCKED}"), &put).await;
    let mut way = Way::default();
    way.authorities = vec![authority.pem.into_bytes()];
    let dir = tempfile::tempdir().unwrap();
    let mut config = DockerConfig::of_nobody();
    config.file = Some(dir.path().join("config.json"));
    let helper = r#"{"credsStore": "mine"}"#;
    let inline = format!(
        r#"{{"auths": {{"{}": {{"username": "me", "password": "{PASSWORD}"}}}}}}"#,
        registry.address
    );
    config.helpers = Some(dir.path().to_owned());
    crate::script::write(
        &dir.path().join("docker-credential-mine"),
        &format!(r#"cat > /dev/null; echo '{{"Username": "me", "Secret": "{PASSWORD}"}}'"#),
    );
    for json in [helper, inline.as_str()] {
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let target = registry
            .target("https://", None)
            .with_docker_config(config.clone());
        pushed(&target, &way).await.unwrap();
    }
}

#[tokio::test]
async fn no_registry_there_is_said() {
    let registry = Registry::start("", &[]).await;
    let target = registry.target("", None);
    drop(registry);
    let said = refused(&target, &Way::default()).await;
    assert!(said.contains("cannot be pushed to: "), "{said}");
    assert!(said.contains(&target.shown()), "{said}");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_not_waited_for_for_ever() {
    let server = Server::new(|_, _| Said::new(200, &[], b"").cut(40).and_hang()).await;
    let target = target(&server.address.to_string(), None);
    let image = crate::provider::image().unwrap();
    let limit = Duration::from_millis(200);
    let way = Way::default();
    let pushing = push_within(limit, &image, &target, &way, &|_| {}).await;
    let said = pushing.unwrap_err().to_string();
    assert!(said.contains("did not end within"), "{said}");
}

#[tokio::test]
async fn a_web_server_that_is_no_registry_is_said() {
    let server = Server::new(|_, _| Said::new(200, &[], b"hello")).await;
    let said = refused(&target(&server.address.to_string(), None), &Way::default()).await;
    assert!(said.starts_with("the registry 127.0.0.1"), "{said}");
}
