//! `strata-assets` as a process: killed, twice at once, and with the environment that people have.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../src/asset/tests/server.rs"]
#[expect(dead_code, reason = "the library's own tests use the rest of it")]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use server::{Asked, Authority, Said, Server, Tunnel};
use sha2::Digest as _;
use tokio::process::Command;

const HALF: usize = 200_000;

/// What a mirror has in the place of istioctl, the only asset that brings its own sum.
fn archive() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_be_bytes).collect()
}

/// A mirror's answer.
fn mirror(asked: &Asked) -> Said {
    if !asked.target.contains("/istioctl/") {
        return Said::new(404, &[], b"");
    }
    if asked.target.ends_with(".sha256") {
        let digits = sha2::Sha256::digest(archive());
        let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        return Said::new(200, &[], digits.as_bytes());
    }
    Said::file(asked, "\"one\"", &archive())
}

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("assets")
    }

    /// `strata-assets FOLDER NAME` with this environment and no other.
    fn command(&self, name: &str, vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata-assets"));
        command
            .arg(self.folder())
            .arg(name)
            .env_clear()
            .env("HOME", self.0.path())
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, name: &str, vars: &[(&str, &str)]) -> (i32, String) {
        said(self.command(name, vars).output().await.unwrap())
    }

    /// The files of the folder that are not whole, and the number of those that are.
    fn files(&self) -> (Vec<PathBuf>, usize) {
        let version = self.folder().join("istioctl/1.30.3");
        let mut names: Vec<_> = std::fs::read_dir(version)
            .unwrap()
            .map(|entry| PathBuf::from(entry.unwrap().file_name()))
            .collect();
        names.sort();
        let whole = names
            .iter()
            .filter(|name| name.extension() == Some("gz".as_ref()));
        let whole = whole.count();
        names.retain(|name| name.display().to_string().contains(".partial"));
        (names, whole)
    }
}

fn said(output: Output) -> (i32, String) {
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn of_sums(asked: &Asked) -> bool {
    asked.target.ends_with(".sha256")
}

#[tokio::test]
async fn what_a_killed_run_had_fetched_is_not_fetched_again() {
    let server = Server::new(|count, asked| {
        let said = mirror(asked);
        // The first is the sum, the second the archive.
        if count == 1 {
            said.cut(HALF).and_hang()
        } else {
            said
        }
    })
    .await;
    let desk = Desk::new();
    let address = server.url("");
    let vars = [("STRATA_ASSETS", address.as_str())];
    let mut child = desk.command("istioctl", &vars).spawn().unwrap();
    let name = |suffix| format!("istioctl-1.30.3-linux-amd64.tar.gz{suffix}");
    let partial = desk.folder().join("istioctl/1.30.3").join(name(".partial"));
    while std::fs::metadata(&partial).map_or(0, |it| it.len()) < HALF as u64 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        tokio::task::yield_now().await;
    }
    child.kill().await.unwrap();
    let left = [name(".partial").into(), name(".partial.etag").into()];
    assert_eq!(desk.files(), (left.to_vec(), 0));

    let (code, text) = desk.run("istioctl", &vars).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(desk.files(), (vec![], 2));
    assert_eq!(
        std::fs::read(partial.with_extension("")).unwrap(),
        archive()
    );
    let ranges: Vec<_> = server
        .asked()
        .iter()
        .filter(|asked| !of_sums(asked))
        .map(Asked::from)
        .collect();
    assert_eq!(ranges, [None, Some(HALF), None]);

    // And now that it is there, nobody is asked.
    let before = server.asked().len();
    let (code, text) = desk.run("istioctl", &vars).await;
    assert_eq!((code, server.asked().len()), (0, before), "{text}");
}

#[tokio::test]
async fn two_runs_at_once_fetch_it_once() {
    let server = Server::new(|_, asked| mirror(asked)).await;
    let desk = Desk::new();
    let address = server.url("");
    let vars = [("STRATA_ASSETS", address.as_str())];
    let runs = (0..4).map(|_| desk.run("istioctl", &vars));
    for (code, text) in futures::future::join_all(runs).await {
        assert_eq!(code, 0, "{text}");
    }
    assert_eq!(desk.files(), (vec![], 2));
    let archives = server.asked().iter().filter(|it| !of_sums(it)).count();
    assert_eq!(archives, 2);
}

#[tokio::test]
async fn the_environment_says_whom_to_believe_and_which_proxy_to_take() {
    let authority = Authority::new(&["mirror.invalid"]);
    let server = Server::with_tls(authority.acceptor(), |_, asked| mirror(asked)).await;
    let proxy = Tunnel::to(server.address).await;
    let desk = Desk::new();
    let pem = desk.0.path().join("ca.pem");
    std::fs::write(&pem, &authority.pem).unwrap();
    let pem = pem.to_str().unwrap();
    let proxied = format!("http://{}", proxy.address);
    let mirror = ("STRATA_ASSETS", "https://mirror.invalid/strata");
    let through = ("HTTPS_PROXY", proxied.as_str());

    // By the system's authorities, of which this one is none.
    let (code, text) = desk.run("istioctl", &[mirror, through]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("SSL_CERT_FILE"), "{text}");
    assert!(server.asked().is_empty());

    let believed = ("SSL_CERT_FILE", pem);
    let (code, text) = desk.run("istioctl", &[mirror, through, believed]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        proxy
            .asked()
            .iter()
            .all(|it| it == "CONNECT mirror.invalid:443")
    );
    assert!(
        server.asked()[0]
            .target
            .starts_with("/strata/istioctl/1.30.3/")
    );
}

#[tokio::test]
async fn what_a_mirror_lacks_is_named_and_the_rest_is_fetched() {
    let server = Server::new(|_, asked| mirror(asked)).await;
    let desk = Desk::new();
    let address = server.url("");
    let vars = [("STRATA_ASSETS", address.as_str())];
    let mut both = desk.command("flannel", &vars);
    let (code, text) = said(both.arg("istioctl").output().await.unwrap());
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("flannel/v0.28.9/kube-flannel.yml answers 404"),
        "{text}"
    );
    assert!(text.ends_with("1 of 3 could not be fetched\n"), "{text}");
    assert_eq!(desk.files(), (vec![], 2));
}

#[tokio::test]
async fn bad_input_is_said_before_anything_is_asked() {
    let desk = Desk::new();
    let bad = async |name: &str, vars: &[(&str, &str)]| {
        let (code, text) = desk.run(name, vars).await;
        assert_eq!(code, 2, "{text}");
        text
    };
    let text = bad("istioctrl", &[]).await;
    assert!(
        text.contains("istioctrl is no asset; there are calico, cni-plugins, contour"),
        "{text}"
    );
    let text = bad("istioctl", &[("STRATA_ASSETS", "/absent")]).await;
    assert!(
        text.contains("STRATA_ASSETS=/absent is not a folder"),
        "{text}"
    );
    let same = desk.folder().display().to_string();
    let text = bad("istioctl", &[("STRATA_ASSETS", &same)]).await;
    assert!(
        text.contains("which is what is to be filled; unset it"),
        "{text}"
    );
    assert!(Path::new(&same).read_dir().unwrap().next().is_none());
}
