//! Containers as processes, without an API server: this program is its own stages, and runs its
//! cases in namespaces of its own, as root or as anybody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/enclosed.rs"]
mod enclosed;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use strata_lab::node::images::Store;
use strata_lab::node::process::{Exit, Process, Streams};
use strata_lab::node::rootfs::{Bind, ContainerFile};
use strata_lab::node::sandbox::{Sandbox, SandboxConfig, SandboxNetwork};
use strata_lab::topology::ENVOY_IMAGE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As in the programs that embed the lab: what it takes is part of what is tried here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    enclosed::main(vec![("containers".to_owned(), Box::pin(cases()))])
}

struct Fixture {
    _directory: tempfile::TempDir,
    store: Store,
    sandbox: Sandbox,
    root: std::path::PathBuf,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        nix::mount::mount(
            Some("tmpfs"),
            &root,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        // Any program of the host will do; the shell's own commands are all that is needed.
        let store = Store::new(&root, Some(Path::new("/bin/bash"))).unwrap();
        let config = SandboxConfig {
            hostname: "web-0".to_owned(),
            netns: SandboxNetwork::New,
        };
        let sandbox = Sandbox::create(config).await.unwrap();
        Self {
            _directory: directory,
            store,
            sandbox,
            root,
        }
    }

    fn file(&self, name: &str, command: &[&str]) -> ContainerFile {
        let image = self.store.find(ENVOY_IMAGE).unwrap();
        let volume = self.root.join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("key"), "value").unwrap();
        let mut binds = image.binds.clone();
        binds.push(Bind {
            source: volume.clone(),
            target: "/etc/config".to_owned(),
            read_only: true,
        });
        binds.push(Bind {
            source: volume.join("key"),
            target: "/etc/resolv.conf".to_owned(),
            read_only: false,
        });
        ContainerFile {
            sandbox: self.sandbox.pid(),
            lower: image.files.clone(),
            directory: self.root.join(name),
            binds,
            env: vec![("GREETING".to_owned(), "hello".to_owned())],
            cwd: "/work".to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..ContainerFile::default()
        }
    }

    async fn start(&self, name: &str, script: &str) -> (Process, Streams) {
        let file = self.file(name, &["/envoy", "-c", script]);
        Process::start(&file).await.unwrap()
    }
}

async fn all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn cases() {
    let fixture = Fixture::new().await;
    runs_in_its_image(&fixture).await;
    says_why_it_cannot_start(&fixture).await;
    executes(&fixture).await;
    is_killed_when_dropped(&fixture).await;
    only_stages_do_without_huge_pages(&fixture).await;
    measures(&fixture).await;
}

async fn runs_in_its_image(fixture: &Fixture) {
    let script = r#"
        read -r resolv </etc/resolv.conf; read -r key </etc/config/key
        read -r hostname </proc/sys/kernel/hostname
        echo "$$ $PWD $GREETING $resolv $key $hostname"
        for f in /dev/null /dev/shm /dev/pts/ptmx /proc/self/status /sys/class /envoy /bin /home; do
            [ -e $f ] && echo "has $f"
        done
        echo x 2>/dev/null >/etc/config/key || echo read-only
        echo x >/file && echo writable
        [ -t 0 ] || echo no terminal
        echo error >&2
        exit 3"#;
    let (process, mut streams) = fixture.start("a", script).await;
    let said = all(streams.stdout.as_mut().unwrap()).await;
    let error = all(streams.stderr.as_mut().unwrap()).await;
    assert_eq!(
        said,
        "1 /work hello value value web-0\n\
         has /dev/null\nhas /dev/shm\nhas /dev/pts/ptmx\nhas /proc/self/status\nhas /sys/class\n\
         has /envoy\nread-only\nwritable\nno terminal\n",
        "{error}"
    );
    assert_eq!(error, "error\n");
    assert_eq!(
        process.wait().await,
        Exit {
            code: 3,
            signal: None
        }
    );
}

async fn says_why_it_cannot_start(fixture: &Fixture) {
    for (command, expected) in [
        (
            &["nope"][..],
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            &["/nope"],
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        (&["/etc"], "exec: \"/etc\": permission denied"),
        (&[], "no command specified"),
    ] {
        let Err(error) = Process::start(&fixture.file("b", command)).await else {
            panic!("{command:?} started");
        };
        assert_eq!(error.to_string(), expected);
    }
}

async fn executes(fixture: &Fixture) {
    let (process, mut streams) = fixture
        .start(
            "c",
            "trap 'exit 7' TERM; echo up; while :; do read -t 1 <>/dev/ptmx; done",
        )
        .await;
    let mut up = [0; 3];
    streams
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut up)
        .await
        .unwrap();
    let words = |script: &str| vec!["/envoy".to_owned(), "-c".to_owned(), script.to_owned()];
    let mut exec = process
        .exec(
            &words("read x; echo $x $GREETING $PWD; echo no >&2; exit 5"),
            true,
            false,
        )
        .await
        .unwrap();
    let mut stdin = exec.streams.stdin.take().unwrap();
    stdin.write_all(b"in\n").await.unwrap();
    drop(stdin);
    assert_eq!(
        all(exec.streams.stdout.as_mut().unwrap()).await,
        "in hello /work\n"
    );
    assert_eq!(all(exec.streams.stderr.as_mut().unwrap()).await, "no\n");
    assert_eq!(exec.child.wait().await.unwrap().code(), Some(5));

    let Err(error) = process.exec(&["nope".to_owned()], false, false).await else {
        panic!("nope started");
    };
    assert!(
        error.to_string().contains("executable file not found"),
        "{error}"
    );

    let mut exec = process
        .exec(&words("[ -t 0 ] && [ -t 1 ] && exit 4"), true, true)
        .await
        .unwrap();
    assert!(exec.streams.terminal.is_some());
    assert_eq!(exec.child.wait().await.unwrap().code(), Some(4));

    process.signal(libc::SIGTERM);
    assert_eq!(
        process.wait().await,
        Exit {
            code: 7,
            signal: None
        }
    );
    assert!(process.exec(&words("exit"), false, false).await.is_err());
}

async fn is_killed_when_dropped(fixture: &Fixture) {
    let (process, mut streams) = fixture
        .start("d", "while :; do read -t 9 <>/dev/ptmx; done")
        .await;
    let pid = process.pid();
    drop(process);
    // The pipe closes with the process.
    all(streams.stdout.as_mut().unwrap()).await;
    while Path::new(&format!("/proc/{pid}")).exists() {
        tokio::task::yield_now().await;
    }
}

async fn only_stages_do_without_huge_pages(fixture: &Fixture) {
    let holder = format!("/proc/{}/status", fixture.sandbox.pid());
    let holder = std::fs::read_to_string(holder).unwrap();
    assert!(holder.contains("THP_enabled:\t0\n"), "{holder}");
    let script = "while read -r line; do echo \"$line\"; done </proc/self/status";
    let (_process, mut streams) = fixture.start("huge", script).await;
    let said = all(streams.stdout.as_mut().unwrap()).await;
    assert!(said.contains("THP_enabled:\t1\n"), "{said}");
}

async fn measures(fixture: &Fixture) {
    let (process, _streams) = fixture
        .start("e", "while :; do read -t 9 <>/dev/ptmx; done")
        .await;
    let time = async |name: &str, count: u32, work: &mut dyn AsyncFnMutBoxed| {
        let start = Instant::now();
        for _ in 0..count {
            work.call().await;
        }
        let each: Duration = start.elapsed() / count;
        println!("{name}: {each:?}");
    };
    let command = ["/envoy".to_owned(), "-c".to_owned(), "exit".to_owned()];
    time("exec", 50, &mut async || {
        let mut exec = process.exec(&command, false, false).await.unwrap();
        assert!(exec.child.wait().await.unwrap().success());
    })
    .await;
    let mut number = 0;
    time("container", 20, &mut async || {
        number += 1;
        let (process, _streams) = fixture.start(&format!("m{number}"), "exit").await;
        process.wait().await;
    })
    .await;
    time("sandbox", 20, &mut async || {
        let config = SandboxConfig {
            hostname: "a".to_owned(),
            netns: SandboxNetwork::New,
        };
        Sandbox::create(config).await.unwrap();
    })
    .await;
}

/// An async closure behind a reference.
trait AsyncFnMutBoxed {
    fn call(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
}

impl<F: AsyncFnMut()> AsyncFnMutBoxed for F {
    fn call(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(self())
    }
}
